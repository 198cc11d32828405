//! Signing in by password; setting, resetting and changing it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::session::{hash_of, new_secret};
use super::sign_in::{Session, SignIn};
use super::{Account, PasswordChange, SignInError, UserToken};
use crate::context::{CallContext, Client};
use crate::error::Result;
use crate::ident::printable;
use crate::secret::Secret;

/// Failures of one address in 15 minutes before it is made to wait.
const FREE_FAILURES: u32 = 10;
/// The first wait; each further failure doubles it ...
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// ... up to this: nobody can lock somebody else out.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// How a sign-in by password ends.
#[derive(Debug, Clone)]
pub enum SignedIn {
    /// A session.
    Session(Session),
    /// The password is right, but has to be changed first.
    ChangeRequired {
        /// Whose it is.
        email: String,
        /// A one-shot token for [`SignIn::reset_password`], good for ten minutes.
        token: Secret,
    },
}

/// A mail to send: a link with a one-shot token in it.
#[derive(Debug, Clone)]
pub struct Letter {
    /// To whom.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// What the link is for.
    pub kind: UserToken,
    /// What goes into the link.
    pub token: Secret,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl Letter {
    /// Path and query of the page the link opens, to go behind the server's own address.
    #[must_use]
    pub fn path(&self) -> Secret {
        let page = match self.kind {
            UserToken::Setup => "/auth/password/setup",
            UserToken::Reset => "/auth/password/reset",
            UserToken::Login => "/auth/email/verify",
        };
        let email: String = self.email.bytes().map(percent).collect();
        Secret::new(format!("{page}?email={email}&token={}", self.token.expose()))
    }
}

/// A byte as a query holds it.
fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

impl UserToken {
    /// How long a token of this kind is good for.
    #[must_use]
    pub fn lifetime(self) -> TimeDelta {
        match self {
            Self::Setup => TimeDelta::days(7),
            Self::Reset => TimeDelta::hours(24),
            Self::Login => TimeDelta::hours(1),
        }
    }
}

fn folded(email: &str) -> String {
    email.trim().to_lowercase()
}

impl SignIn<'_> {
    /// Signs in by address and password. Unknown address, wrong password and an account
    /// without one are told apart neither by the answer nor by its time.
    ///
    /// # Errors
    /// `invalid_credentials`, `account_deactivated` (only for the right password),
    /// `sign_in_busy`.
    pub async fn with_password(&self, client: &Client, email: &str, password: &Secret) -> Result<SignedIn> {
        let email = folded(email);
        self.wait_after_failures(&email).await;
        let found = self.engine.store().credentials().password_of(&email).await?;
        let (user_id, hash) = found.map_or((None, None), |(id, hash)| (Some(id), hash));
        let had = hash.clone();
        let checked = self.state().passwords.check(password, hash).await?;
        let known = self.credentials().await?;
        let account = user_id.as_ref().and_then(|id| known.accounts.get(id));
        let (Some(account), true) = (account, checked.right) else {
            let result = match (&user_id, had) {
                (None, _) => "unknown_user",
                (Some(_), None) => "no_password",
                (Some(_), Some(_)) => "invalid_password",
            };
            self.failed(client, user_id.as_deref(), &email, result);
            return Err(SignInError::InvalidCredentials.into());
        };
        if !account.active {
            self.failed(client, Some(&account.id), &email, "deactivated");
            return Err(SignInError::Deactivated.into());
        }
        self.state().failures.invalidate(&email);
        if let (Some(old), Some(new)) = (had, checked.stronger) {
            self.engine.store().credentials().rehash(&account.id, &old, &new).await?;
        }
        if account.must_change_password {
            // As old as leaves it ten minutes.
            let made = self.engine.clock().now() - UserToken::Reset.lifetime() + TimeDelta::minutes(10);
            let token = new_secret()?;
            let hash = hash_of(token.expose());
            self.engine.store().credentials().set_user_token(&account.id, UserToken::Reset, &hash, made).await?;
            return Ok(SignedIn::ChangeRequired { email, token });
        }
        Ok(SignedIn::Session(self.begin(client, account, "password").await?))
    }

    async fn wait_after_failures(&self, email: &str) {
        let failures = self.state().failures.get(email).unwrap_or(0);
        if let Some(over) = failures.checked_sub(FREE_FAILURES) {
            tokio::time::sleep(wait_for(over)).await;
        }
    }

    fn failed(&self, client: &Client, user_id: Option<&str>, email: &str, result: &str) {
        let failures = self.state().failures.get(email).unwrap_or(0);
        self.state().failures.insert(email.to_owned(), failures.saturating_add(1));
        self.engine
            .audit()
            .event_of(client, user_id, "login_failed")
            .params(json!({"email": printable(email, 254)}))
            .result(result)
            .later();
    }

    /// Who has this address, if they may sign in.
    pub(super) async fn active_account(&self, email: &str) -> Result<Option<Account>> {
        let found = self.engine.store().credentials().password_of(&folded(email)).await?;
        let known = self.credentials().await?;
        let account = found.and_then(|(id, _)| known.accounts.get(&id).cloned());
        Ok(account.filter(|account| account.active && !super::is_service_account(&account.email)))
    }

    /// Makes a one-shot token of this kind for this user.
    pub(super) async fn letter(&self, account: &Account, kind: UserToken) -> Result<Letter> {
        let (token, now) = (new_secret()?, self.engine.clock().now());
        self.engine.store().credentials().set_user_token(&account.id, kind, &hash_of(token.expose()), now).await?;
        let expires_at = now + kind.lifetime();
        Ok(Letter { email: account.email.clone(), name: account.name.clone(), kind, token, expires_at })
    }

    /// What to send to somebody who asks to set their first password: nothing unless they
    /// are known, active and have none. Call it off the request: how long it takes tells
    /// whether there was something to do.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn ask_for_setup(&self, email: &str) -> Result<Option<Letter>> {
        match self.active_account(email).await? {
            Some(account) if !account.has_password => Ok(Some(self.letter(&account, UserToken::Setup).await?)),
            _ => Ok(None),
        }
    }

    /// What to send to somebody who forgot their password: a link that sets the first one
    /// where there is none. Call it off the request.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn ask_for_reset(&self, email: &str) -> Result<Option<Letter>> {
        let Some(account) = self.active_account(email).await? else { return Ok(None) };
        let kind = if account.has_password { UserToken::Reset } else { UserToken::Setup };
        Ok(Some(self.letter(&account, kind).await?))
    }

    /// Takes a one-shot token together with what it does; whose it was.
    async fn take(
        &self,
        email: &str,
        kind: UserToken,
        token: &str,
        password: &Secret,
        change: impl FnOnce(String) -> PasswordChange,
    ) -> Result<Account> {
        super::password::check_rules(password)?;
        let (now, hash) = (self.engine.clock().now(), hash_of(token));
        let made_after = now - kind.lifetime();
        let credentials = self.engine.store().credentials();
        // Looked at before the password is hashed, taken afterwards.
        let owner = credentials.owner_of_user_token(email, kind, &hash, made_after).await?;
        let Some(owner) = owner else { return Err(SignInError::OneShotInvalid.into()) };
        if !self.credentials().await?.accounts.get(&owner).is_some_and(|account| account.active) {
            return Err(SignInError::SetupDeactivated.into());
        }
        let change = change(self.state().passwords.hash(password).await?);
        if !credentials.consume_user_token(&owner, kind, &hash, made_after, Some(&change), now).await? {
            return Err(SignInError::OneShotInvalid.into());
        }
        self.state().failures.invalidate(&folded(email));
        let account = self.credentials().await?.accounts.get(&owner).cloned();
        account.ok_or_else(|| SignInError::OneShotInvalid.into())
    }

    /// Sets the first password with the token of a setup link, and signs in.
    ///
    /// # Errors
    /// `token_invalid_or_expired` (also for an unknown address), `account_deactivated`,
    /// `password_too_short`, `password_too_long`, `sign_in_busy`.
    pub async fn set_up_password(
        &self,
        client: &Client,
        email: &str,
        token: &str,
        password: &Secret,
        name: Option<&str>,
    ) -> Result<Session> {
        let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let change = |hash| PasswordChange { hash, must_change: false, name, end_sessions: None, keep_session: None };
        let done = self.take(email, UserToken::Setup, token, password, change).await;
        let id = done.as_ref().ok().map(|account| account.id.clone());
        let event = self.engine.audit().event_of(client, id.as_deref(), "password_setup");
        event.params(json!({"email": printable(email, 254)})).outcome(&done).record().await;
        self.begin(client, &done?, "setup").await
    }

    /// Sets a new password with the token of a reset link; every session ends.
    ///
    /// # Errors
    /// As [`SignIn::set_up_password`].
    pub async fn reset_password(&self, client: &Client, email: &str, token: &str, password: &Secret) -> Result<()> {
        let now = self.engine.clock().now();
        let change =
            |hash| PasswordChange { hash, must_change: false, name: None, end_sessions: Some(now), keep_session: None };
        let done = self.take(email, UserToken::Reset, token, password, change).await;
        let id = done.as_ref().ok().map(|account| account.id.clone());
        let event = self.engine.audit().event_of(client, id.as_deref(), "password_reset");
        event.params(json!({"email": printable(email, 254)})).outcome(&done).record().await;
        done.map(drop)
    }

    /// Changes the caller's password; every other session ends. Who has a password gives it.
    ///
    /// # Errors
    /// `session_required`, `invalid_credentials`, `password_too_short`, `password_too_long`,
    /// `sign_in_busy`.
    pub async fn change_password(&self, ctx: &CallContext, current: Option<&Secret>, new: &Secret) -> Result<()> {
        ctx.principal().require_session()?;
        super::password::check_rules(new)?;
        let user_id = ctx.principal().user_id();
        let account = self.credentials().await?.accounts.get(user_id).cloned().ok_or(SignInError::UserGone)?;
        self.wait_after_failures(&account.email).await;
        let done = self.change_checked(ctx, &account, current, new).await;
        self.engine.audit().event(ctx, "user.set_password").outcome(&done).record().await;
        done
    }

    async fn change_checked(
        &self,
        ctx: &CallContext,
        account: &Account,
        current: Option<&Secret>,
        new: &Secret,
    ) -> Result<()> {
        let credentials = self.engine.store().credentials();
        let stored = credentials.password_of(&account.email).await?.and_then(|(_, hash)| hash);
        if stored.is_some() {
            let empty = Secret::new("");
            if !self.state().passwords.check(current.unwrap_or(&empty), stored).await?.right {
                let failures = self.state().failures.get(&account.email).unwrap_or(0);
                self.state().failures.insert(account.email.clone(), failures.saturating_add(1));
                return Err(SignInError::InvalidCredentials.into());
            }
        }
        let now = self.engine.clock().now();
        let change = PasswordChange {
            hash: self.state().passwords.hash(new).await?,
            must_change: false,
            name: None,
            end_sessions: Some(now),
            keep_session: ctx.principal().proof().map(|proof| proof.id.clone()),
        };
        credentials.set_password(&account.id, &change, now).await
    }
}

fn wait_for(over: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(over)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_hold_any_address() {
        let letter = |kind, email: &str| Letter {
            email: email.to_owned(),
            name: None,
            kind,
            token: Secret::new("to-ken_"),
            expires_at: DateTime::UNIX_EPOCH,
        };
        let path = |kind, email| letter(kind, email).path().expose().to_owned();
        assert_eq!(
            path(UserToken::Reset, "a+b@x.example"),
            "/auth/password/reset?email=a%2Bb%40x.example&token=to-ken_"
        );
        assert_eq!(path(UserToken::Login, "ž&=@x"), "/auth/email/verify?email=%C5%BE%26%3D%40x&token=to-ken_");
        assert!(!format!("{:?}", letter(UserToken::Setup, "a@x")).contains("to-ken_"));
    }

    #[test]
    fn waits_grow_to_an_end() {
        assert_eq!([0, 1, 2, 5, 6, 100].map(|over| wait_for(over).as_millis()), [250, 500, 1000, 8000, 8000, 8000]);
    }
}

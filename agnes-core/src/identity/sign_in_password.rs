//! Signing in by password; setting, resetting and changing it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::credentials::folded;
use super::session::{hash_of, new_secret};
use super::sign_in::{Session, SignIn};
use super::{Account, PasswordChange, SignInError, UserToken};
use crate::context::{CallContext, Client, network};
use crate::error::Result;
use crate::ident::printable;
use crate::secret::Secret;

/// Failures of one address in 15 minutes before it is made to wait.
const FREE_FAILURES: u32 = 10;
/// The first wait; each further failure doubles it ...
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// ... up to this: nobody can lock somebody else out.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// How long a try waits for those before it.
const TURN: Duration = Duration::from_secs(5);

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
    /// Where they wanted to go: a path of the server.
    pub next: Option<String>,
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
        let encoded = |text: &str| text.bytes().map(percent).collect::<String>();
        let next = self.next.as_deref().map(|next| format!("&next={}", encoded(next))).unwrap_or_default();
        Secret::new(format!("{page}?email={}&token={}{next}", encoded(&self.email), self.token.expose()))
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

/// Bytes of an address, as RFC 5321 section 4.5.3.1.3 bounds a path.
const LONGEST_ADDRESS: usize = 254;

impl SignIn<'_> {
    /// Signs in by address and password. Unknown address, wrong password and an account
    /// without one are told apart neither by the answer nor by its time.
    ///
    /// # Errors
    /// `invalid_credentials`, `account_deactivated` (only for the right password),
    /// `sign_in_busy`, `provider_disabled`; with `auth.reveal_provider` `external_auth_only`.
    pub async fn with_password(&self, client: &Client, email: &str, password: &Secret) -> Result<SignedIn> {
        self.require_provider("password")?;
        let email = folded(email);
        let _turn = self.wait_after_failures(&email, client.network()).await?;
        let mut known = self.credentials().await?;
        // Checking takes long: what counts is the password when the session begins.
        let (checked, _steady) = loop {
            let stored = known.account_of(&email).and_then(|account| account.password_hash.clone());
            let checked = self.state().passwords.check(password, stored.clone()).await?;
            let steady = self.state().changing.read().await;
            known = self.credentials().await?;
            let now = known.account_of(&email).and_then(|account| account.password_hash.as_ref());
            if now.map(Secret::expose) == stored.as_ref().map(Secret::expose) {
                break (checked, steady);
            }
        };
        let account = known.account_of(&email);
        let Some(account) = account.filter(|_| checked.right) else {
            let result = match account.map(Account::has_password) {
                None => "unknown_user",
                Some(false) => "no_password",
                Some(true) => "invalid_password",
            };
            self.failed(client, account.map(|account| account.id.as_str()), &email, result);
            // Only where the operator wants it told.
            let reveal = result == "no_password" && self.engine.config().auth.reveal_provider;
            let why = if reveal { SignInError::ExternalOnly } else { SignInError::InvalidCredentials };
            return Err(why.into());
        };
        if !account.active {
            self.failed(client, Some(&account.id), &email, "deactivated");
            return Err(SignInError::Deactivated.into());
        }
        self.forget_failures(&email, client.network());
        if let (Some(old), Some(new)) = (&account.password_hash, checked.stronger) {
            self.engine.store().credentials().rehash(&account.id, old.expose(), &new).await?;
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

    /// Waits as long as the failures of this address ask for; above the free ones the tries for
    /// it come one after the other. What it gives is held until the try is over.
    ///
    /// # Errors
    /// `sign_in_busy` where others have been trying for long. Not for whoever never failed from
    /// where they are: strangers keep nobody out.
    async fn wait_after_failures(&self, email: &str, from: Option<IpAddr>) -> Result<Option<OwnedMutexGuard<()>>> {
        let failures = || self.state().failures.get(email).unwrap_or(0);
        if failures() < FREE_FAILURES {
            return Ok(None);
        }
        let turns = self.state().turns.get_with_by_ref(email, Arc::default);
        let turn = tokio::time::timeout(TURN, turns.lock_owned()).await.ok();
        if turn.is_none() && self.state().tried.contains_key(&(email.to_owned(), from)) {
            return Err(SignInError::Busy.into());
        }
        if let Some(over) = failures().checked_sub(FREE_FAILURES) {
            tokio::time::sleep(wait_for(over)).await;
        }
        Ok(turn)
    }

    fn note_failure(&self, email: &str, from: Option<IpAddr>) {
        // Nobody has a longer address: such texts would only fill the memory.
        if email.len() <= LONGEST_ADDRESS {
            let failures = self.state().failures.get(email).unwrap_or(0);
            self.state().failures.insert(email.to_owned(), failures.saturating_add(1));
            self.state().tried.insert((email.to_owned(), from), ());
        }
    }

    fn forget_failures(&self, email: &str, from: Option<IpAddr>) {
        self.state().failures.invalidate(email);
        self.state().tried.invalidate(&(email.to_owned(), from));
    }

    fn failed(&self, client: &Client, user_id: Option<&str>, email: &str, result: &str) {
        self.note_failure(email, client.network());
        self.engine
            .audit()
            .event_of(client, user_id, "login_failed")
            .params(json!({"email": printable(email, LONGEST_ADDRESS)}))
            .result(result)
            .later();
    }

    /// Who has this address, if they may sign in.
    pub(super) async fn active_account(&self, email: &str) -> Result<Option<Account>> {
        let account = self.credentials().await?.account_of(email).cloned();
        Ok(account.filter(|account| account.active && !super::is_service_account(&account.email)))
    }

    /// Makes a one-shot token of this kind for this user.
    pub(super) async fn letter(&self, account: &Account, kind: UserToken) -> Result<Letter> {
        let (token, now) = (new_secret()?, self.engine.clock().now());
        self.engine.store().credentials().set_user_token(&account.id, kind, &hash_of(token.expose()), now).await?;
        let expires_at = now + kind.lifetime();
        let (email, name) = (account.email.clone(), account.name.clone());
        Ok(Letter { email, name, kind, token, expires_at, next: None })
    }

    /// What to send to somebody who asks to set their first password: nothing unless they
    /// are known, active and have none. Call it off the request: how long it takes tells
    /// whether there was something to do.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn ask_for_setup(&self, email: &str) -> Result<Option<Letter>> {
        self.require_provider("password")?;
        match self.active_account(email).await? {
            Some(account) if !account.has_password() => Ok(Some(self.letter(&account, UserToken::Setup).await?)),
            _ => Ok(None),
        }
    }

    /// What to send to somebody who forgot their password: a link that sets the first one
    /// where there is none. Call it off the request.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn ask_for_reset(&self, email: &str) -> Result<Option<Letter>> {
        self.require_provider("password")?;
        let Some(account) = self.active_account(email).await? else { return Ok(None) };
        let kind = if account.has_password() { UserToken::Reset } else { UserToken::Setup };
        Ok(Some(self.letter(&account, kind).await?))
    }

    /// Takes a one-shot token together with what it does; whose it was.
    async fn take(
        &self,
        email: &str,
        client: &Client,
        kind: UserToken,
        token: &str,
        password: &Secret,
        change: impl FnOnce(String, DateTime<Utc>) -> PasswordChange,
    ) -> Result<Account> {
        self.require_provider(kind.provider())?;
        super::password::check_rules(password)?;
        let hash = hash_of(token);
        let made_after = self.engine.clock().now() - kind.lifetime();
        let credentials = self.engine.store().credentials();
        // Looked at before the password is hashed, taken afterwards.
        let owner = credentials.owner_of_user_token(email, kind, &hash, made_after).await?;
        let Some(owner) = owner else { return Err(SignInError::OneShotInvalid.into()) };
        if !self.credentials().await?.accounts.get(&owner).is_some_and(|account| account.active) {
            return Err(SignInError::SetupDeactivated.into());
        }
        let password = self.state().passwords.hash(password).await?;
        let _turn = self.state().changing.write().await;
        let now = self.engine.clock().now();
        let change = change(password, now);
        if !credentials.consume_user_token(&owner, kind, &hash, made_after, Some(&change), now).await? {
            return Err(SignInError::OneShotInvalid.into());
        }
        self.forget_failures(&folded(email), client.network());
        let account = self.credentials().await?.accounts.get(&owner).cloned();
        account.ok_or_else(|| SignInError::OneShotInvalid.into())
    }

    /// Sets the first password with the token of a setup link, and signs in.
    ///
    /// # Errors
    /// `token_invalid_or_expired` (also for an unknown address), `account_deactivated`,
    /// `password_too_short`, `password_too_long`, `sign_in_busy`, `provider_disabled`.
    pub async fn set_up_password(
        &self,
        client: &Client,
        email: &str,
        token: &str,
        password: &Secret,
        name: Option<&str>,
    ) -> Result<Session> {
        let name = name.and_then(super::people::shown_name);
        let change =
            |hash, _| PasswordChange { hash, must_change: false, name, end_sessions: None, keep_session: None };
        let done = self.take(email, client, UserToken::Setup, token, password, change).await;
        let id = done.as_ref().ok().map(|account| account.id.clone());
        let event = self.engine.audit().event_of(client, id.as_deref(), "password_setup");
        event.params(json!({"email": printable(email, LONGEST_ADDRESS)})).outcome(&done).record().await;
        self.begin(client, &done?, "setup").await
    }

    /// Sets a new password with the token of a reset link; every session ends.
    ///
    /// # Errors
    /// As [`SignIn::set_up_password`].
    pub async fn reset_password(&self, client: &Client, email: &str, token: &str, password: &Secret) -> Result<()> {
        let change = |hash, now| PasswordChange {
            hash,
            must_change: false,
            name: None,
            end_sessions: Some(now),
            keep_session: None,
        };
        let done = self.take(email, client, UserToken::Reset, token, password, change).await;
        let id = done.as_ref().ok().map(|account| account.id.clone());
        let event = self.engine.audit().event_of(client, id.as_deref(), "password_reset");
        event.params(json!({"email": printable(email, LONGEST_ADDRESS)})).outcome(&done).record().await;
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
        let _turn = self.wait_after_failures(&account.email, ctx.client_ip().map(network)).await?;
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
        let stored = account.password_hash.clone();
        if stored.is_some() {
            let empty = Secret::new("");
            if !self.state().passwords.check(current.unwrap_or(&empty), stored).await?.right {
                self.note_failure(&account.email, ctx.client_ip().map(network));
                return Err(SignInError::InvalidCredentials.into());
            }
        }
        let hash = self.state().passwords.hash(new).await?;
        let _turn = self.state().changing.write().await;
        let now = self.engine.clock().now();
        let change = PasswordChange {
            hash,
            must_change: false,
            name: None,
            end_sessions: Some(now),
            keep_session: ctx.principal().proof().map(|proof| proof.id.clone()),
        };
        self.engine.store().credentials().set_password(&account.id, &change, now).await
    }
}

fn wait_for(over: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(over)).min(LONGEST_WAIT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rbac::{ClientKind, Principal};

    #[test]
    fn links_hold_any_address() {
        let letter = |kind, email: &str| Letter {
            email: email.to_owned(),
            name: None,
            kind,
            token: Secret::new("to-ken_"),
            expires_at: DateTime::UNIX_EPOCH,
            next: None,
        };
        let path = |kind, email| letter(kind, email).path().expose().to_owned();
        assert_eq!(
            path(UserToken::Reset, "a+b@x.example"),
            "/auth/password/reset?email=a%2Bb%40x.example&token=to-ken_"
        );
        assert_eq!(path(UserToken::Login, "ž&=@x"), "/auth/email/verify?email=%C5%BE%26%3D%40x&token=to-ken_");
        let on = Letter { next: Some("/home?tab=1&x=ž".to_owned()), ..letter(UserToken::Setup, "a") };
        assert_eq!(
            on.path().expose(),
            "/auth/password/setup?email=a&token=to-ken_&next=%2Fhome%3Ftab%3D1%26x%3D%C5%BE"
        );
        assert!(!format!("{:?}", letter(UserToken::Setup, "a@x")).contains("to-ken_"));
    }

    /// An engine with Ann, who failed as often as is free.
    async fn with_ann(root: &std::path::Path) -> crate::Engine {
        let store = Arc::new(crate::store::memory::MemoryStore::new());
        let engine = crate::Engine::builder(root).store(store).open().await.unwrap();
        let owner = Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api);
        engine.identity().add_user(&CallContext::new(owner), "ann@acme.example", None).await.unwrap();
        let letter = engine.sign_in().ask_for_setup("ann@acme.example").await.unwrap().unwrap();
        let (client, password) = (at("10.0.0.1"), Secret::new("correct horse battery"));
        let token = letter.token.expose();
        engine.sign_in().set_up_password(&client, "ann@acme.example", token, &password, None).await.unwrap();
        for _ in 0..FREE_FAILURES {
            engine.sign_in().note_failure("ann@acme.example", at("10.0.0.2").network());
        }
        engine
    }

    fn at(ip: &str) -> Client {
        Client::at(Some(ip.parse().unwrap()))
    }

    /// Whoever guesses from many places at once gets no more tries than from one.
    #[tokio::test(flavor = "multi_thread")]
    async fn guesses_of_one_account_take_turns() {
        let root = tempfile::tempdir().unwrap();
        let engine = with_ann(root.path()).await;
        let wrong = Secret::new("wrong");
        let guess = async |ip: &str| engine.sign_in().with_password(&at(ip), "ann@acme.example", &wrong).await;
        let seen = async {
            // Nobody else gets the turn while the first one waits.
            loop {
                let turns = engine.sign_in().state().turns.get("ann@acme.example");
                if turns.is_some_and(|turn| turn.try_lock().is_err()) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (guessed, ()) = futures::join!(guess("10.0.0.3"), seen);
        assert_eq!(guessed.unwrap_err().code(), "invalid_credentials");
        let turn = engine.sign_in().state().turns.get("ann@acme.example").unwrap().lock_owned().await;
        let right = Secret::new("correct horse battery");
        let (client, sign_in) = (at("10.0.0.4"), engine.sign_in());
        let (again, elsewhere) =
            futures::join!(guess("10.0.0.3"), sign_in.with_password(&client, "ann@acme.example", &right));
        assert_eq!(again.unwrap_err().code(), "sign_in_busy");
        assert!(elsewhere.is_ok(), "strangers keep nobody out");
        drop(turn);
        engine.close().await.unwrap();
    }

    #[test]
    fn waits_grow_to_an_end() {
        assert_eq!([0, 1, 2, 5, 6, 100].map(|over| wait_for(over).as_millis()), [250, 500, 1000, 8000, 8000, 8000]);
    }
}

//! Signing in by a link in a mail, and one-shot codes that give a token to the command line
//! and to desktop applications.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::service::new_id;
use super::session::{Claims, hash_of};
use super::sign_in::{Session, SignIn};
use super::tokens::{mint, row, token_name};
use super::{
    Account, CodePurpose, Letter, NewToken, SignInError, StoredToken, TokenError, TokenKind, TokenLife, TokenRow,
    UserToken,
};
use crate::context::{CallContext, Client};
use crate::error::Result;
use crate::ident::printable;
use crate::rbac::{Ability, AuthMethod, Principal, Scope};
use crate::secret::Secret;

/// How long a code is good for.
const CODE_LIFE: TimeDelta = TimeDelta::minutes(2);
/// How long a desktop token lives.
const DESKTOP_LIFE: TimeDelta = TimeDelta::days(30);
/// How long a token of the command line lives, days.
const CLI_DAYS: i64 = 90;

/// A one-shot code that was just made.
#[derive(Debug, Clone)]
pub struct NewCode {
    /// The code itself.
    pub code: Secret,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// The token of a desktop application that was just linked.
#[derive(Debug, Clone)]
pub struct DesktopToken {
    /// The token itself, shown once.
    pub token: Secret,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// Address of its user.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
}

impl SignIn<'_> {
    /// What to send to somebody who wants to sign in by mail: nothing unless they are known,
    /// active and of an allowed domain. Call it off the request: how long it takes tells
    /// whether there was something to do.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn ask_for_link(&self, email: &str) -> Result<Option<Letter>> {
        self.require_provider("email")?;
        match self.active_account(email).await? {
            Some(account) if self.engine.config().auth.allows(&account.email) => {
                Ok(Some(self.letter(&account, UserToken::Login).await?))
            }
            _ => Ok(None),
        }
    }

    /// Signs in with the token of a mailed link, which is used up. Looking at the link's page
    /// must not call this: mail scanners look at links.
    ///
    /// # Errors
    /// `link_invalid_or_expired`, whatever is wrong.
    pub async fn with_link(&self, client: &Client, email: &str, token: &str) -> Result<Session> {
        self.require_provider("email")?;
        let done = self.take_link(email, token).await;
        match done {
            Ok(account) => {
                self.engine.store().access().settle_seeded_admin(&account.id).await?;
                self.begin(client, &account, "link").await
            }
            Err(error) => {
                let params = json!({"email": printable(email, 254)});
                let event = self.engine.audit().event_of(client, None, "login_failed").params(params);
                event.result("invalid_link").later();
                Err(error)
            }
        }
    }

    async fn take_link(&self, email: &str, token: &str) -> Result<Account> {
        let (now, hash, kind) = (self.engine.clock().now(), hash_of(token), UserToken::Login);
        let (made_after, credentials) = (now - kind.lifetime(), self.engine.store().credentials());
        let owner = credentials.owner_of_user_token(email, kind, &hash, made_after).await?;
        let owner = owner.ok_or(SignInError::LinkInvalid)?;
        if !credentials.consume_user_token(&owner, kind, &hash, made_after, None, now).await? {
            return Err(SignInError::LinkInvalid.into());
        }
        let account = self.credentials().await?.accounts.get(&owner).cloned();
        account.ok_or_else(|| SignInError::LinkInvalid.into())
    }

    async fn new_code(&self, ctx: &CallContext, purpose: CodePurpose) -> Result<NewCode> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_session()?;
        let (code, expires_at) = self.code(purpose, Some(ctx.principal().user_id()), CODE_LIFE).await?;
        Ok(NewCode { code, expires_at })
    }

    /// Takes a code; whose it was, if they are still active.
    async fn take_code(&self, code: &str, purpose: CodePurpose) -> Result<Account> {
        let (now, hash) = (self.engine.clock().now(), hash_of(code));
        let taken = self.engine.store().credentials().consume_code(&hash, purpose, now).await?;
        let user_id = taken.and_then(|code| code.user_id).ok_or(SignInError::CodeInvalid)?;
        let account = self.credentials().await?.accounts.get(&user_id).cloned();
        account.filter(|account| account.active).ok_or_else(|| SignInError::CodeInvalid.into())
    }

    /// A code with which the command line fetches a token for the caller, good for 2 minutes.
    ///
    /// # Errors
    /// `session_required`, `inactive_user`.
    pub async fn cli_code(&self, ctx: &CallContext) -> Result<NewCode> {
        self.new_code(ctx, CodePurpose::Cli).await
    }

    /// A personal access token for the command line, for a code of [`SignIn::cli_code`]. It
    /// lives 90 days.
    ///
    /// # Errors
    /// `code_invalid_or_expired`, `name_required`.
    pub async fn exchange_cli_code(&self, client: &Client, code: &str, name: &str) -> Result<NewToken> {
        let name = token_name(name)?;
        let account = self.take_code(code, CodePurpose::Cli).await?;
        let ctx = caller(client, &account);
        mint(self.engine, &ctx, &account.id, name, TokenLife::Days(CLI_DAYS), Scope::General).await
    }

    /// A code with which a desktop application fetches a token for the caller, good for 2
    /// minutes.
    ///
    /// # Errors
    /// `desktop_off`, `session_required`, `inactive_user`.
    pub async fn desktop_code(&self, ctx: &CallContext) -> Result<NewCode> {
        self.require_desktop().await?;
        self.new_code(ctx, CodePurpose::Desktop).await
    }

    /// Whether desktop applications are switched on.
    ///
    /// # Errors
    /// `desktop_off`.
    pub async fn require_desktop(&self) -> Result<()> {
        if self.keys().await?.has_desktop() && self.engine.config().auth.offers("desktop") {
            Ok(())
        } else {
            Err(SignInError::DesktopOff.into())
        }
    }

    /// The token of a desktop application, for a code of [`SignIn::desktop_code`]. It lives 30
    /// days and opens the endpoints of desktop applications only.
    ///
    /// # Errors
    /// `desktop_off`, `code_invalid_or_expired`, `name_required`.
    pub async fn exchange_desktop_code(&self, client: &Client, code: &str, device: &str) -> Result<DesktopToken> {
        self.require_desktop().await?;
        let device = token_name(if device.trim().is_empty() { "desktop" } else { device })?;
        let account = self.take_code(code, CodePurpose::Desktop).await?;
        let (id, now) = (new_id(), self.engine.clock().now());
        let ends = (now + DESKTOP_LIFE).timestamp();
        let expires_at = DateTime::from_timestamp(ends, 0).unwrap_or(now);
        let claims = Claims {
            sub: account.id.clone(),
            email: account.email.clone(),
            typ: "desktop".to_owned(),
            iat: now.timestamp(),
            iat_us: None,
            jti: id.clone(),
            exp: Some(ends),
            scope: None,
            iss: Some(self.engine.config().auth.desktop_issuer.clone()),
            aud: None,
        };
        let token = self.keys().await?.sign_desktop(claims)?;
        let stored = StoredToken {
            prefix: id.chars().take(8).collect(),
            user_id: account.id.clone(),
            name: device.to_owned(),
            token_hash: hash_of(token.expose()),
            scope: Scope::Desktop.as_str().to_owned(),
            created_at: Some(now),
            expires_at: Some(expires_at),
            last_used_at: None,
            last_used_ip: None,
            revoked_at: None,
            revoked_by: None,
            id,
        };
        let done = self.engine.store().tokens().insert(TokenKind::Desktop, &stored).await;
        let event = self.engine.audit().event(&caller(client, &account), "desktop.link");
        event.resource(format!("token:{}", stored.id)).params(json!({"name": device})).outcome(&done).record().await;
        done?;
        Ok(DesktopToken { token, expires_at, email: account.email, name: account.name })
    }

    /// The caller's linked desktop applications, newest first. For themselves or such an
    /// application.
    ///
    /// # Errors
    /// `desktop_off`, `inactive_user`, `scope_denied`.
    pub async fn desktop_devices(&self, ctx: &CallContext) -> Result<Vec<TokenRow>> {
        self.require_desktop().await?;
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require(Ability::Desktop)?;
        let found = self.engine.store().tokens().list(TokenKind::Desktop, Some(ctx.principal().user_id())).await?;
        let known = self.credentials().await?;
        Ok(found.iter().filter(|token| token.revoked_at.is_none()).map(|token| row(token, &known)).collect())
    }

    /// Unlinks one of the caller's desktop applications, or all of them.
    ///
    /// # Errors
    /// `desktop_off`, `token_not_found`, `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn unlink_desktop(&self, ctx: &CallContext, device: Option<&str>) -> Result<()> {
        ctx.principal().require_own()?;
        ctx.principal().require(Ability::Everything)?;
        let mine = self.desktop_devices(ctx).await?;
        if let Some(id) = device
            && !mine.iter().any(|row| row.id == id)
        {
            return Err(TokenError::NotFound { token: printable(id, 80) }.into());
        }
        let (by, now) = (ctx.principal().user_id(), self.engine.clock().now());
        for row in mine.iter().filter(|row| device.is_none_or(|id| row.id == id)) {
            let done = self.engine.store().tokens().revoke(TokenKind::Desktop, &row.id, by, now).await;
            let event = self.engine.audit().event(ctx, "desktop.unlink").resource(format!("token:{}", row.id));
            event.outcome(&done).record().await;
            done?;
        }
        Ok(())
    }
}

/// Who exchanges a code: the one who made it, in a session.
fn caller(client: &Client, account: &Account) -> CallContext {
    let kind = client.kind(Some(AuthMethod::Session));
    CallContext::from_client(Principal::user(&account.id, AuthMethod::Session, kind), client)
}

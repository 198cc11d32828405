//! Making, listing and revoking personal access tokens.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::service::new_id;
use super::session::{Claims, hash_of};
use super::sign_in::SignIn;
use super::{CredentialSnapshot, StoredToken, TokenKind, TokenRow};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Coded, ErrorKind, Result};
use crate::rbac::{AuthMethod, Scope};
use crate::secret::Secret;

/// Longest name, characters.
const MAX_NAME: usize = 200;
/// Most days of a token's life.
const MAX_DAYS: i64 = 3650;
/// Most seconds of a token's life.
const MAX_SECONDS: i64 = 315_360_000;
/// Longest life of a token that sets up a laptop.
const BOOTSTRAP_LIFE: TimeDelta = TimeDelta::hours(1);

/// Personal access tokens.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Personal access tokens.
    #[must_use]
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { engine: self }
    }
}

/// How long a new token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLife {
    /// 1 to 3,650 days.
    Days(i64),
    /// 1 to 315,360,000 seconds.
    Seconds(i64),
    /// Until it is revoked.
    Unlimited,
}

impl TokenLife {
    fn ends(self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let seconds = match self {
            Self::Days(days) if (1..=MAX_DAYS).contains(&days) => days.saturating_mul(86_400),
            Self::Seconds(seconds) if (1..=MAX_SECONDS).contains(&seconds) => seconds,
            Self::Unlimited => return Ok(None),
            Self::Days(_) | Self::Seconds(_) => return Err(TokenError::BadExpiry.into()),
        };
        Ok(Some(now + TimeDelta::seconds(seconds)))
    }
}

/// A token that was just made. It is shown once: nobody can read it again.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token itself.
    pub token: Secret,
    /// What is kept of it.
    pub row: TokenRow,
}

/// What can go wrong with tokens.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("a token needs a name of at most {MAX_NAME} characters")]
    NameRequired,
    #[error("a token lives 1 to {MAX_DAYS} days, or 1 to {MAX_SECONDS} seconds")]
    BadExpiry,
    #[error("`{scope}` is not a scope of tokens")]
    UnknownScope { scope: String },
    #[error("there is no token `{token}`")]
    NotFound { token: String },
}

impl Coded for TokenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            _ => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NameRequired => "name_required",
            Self::BadExpiry => "bad_expiry",
            Self::UnknownScope { .. } => "unknown_scope",
            Self::NotFound { .. } => "token_not_found",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownScope { .. } => Some("known scopes: general, bootstrap-analyst, mcp".to_owned()),
            _ => None,
        }
    }
}

pub(super) fn row(token: &StoredToken, known: &CredentialSnapshot) -> TokenRow {
    let token = token.clone();
    TokenRow {
        user_email: known.accounts.get(&token.user_id).map(|account| account.email.clone()).unwrap_or_default(),
        id: token.id,
        user_id: token.user_id,
        name: token.name,
        prefix: token.prefix,
        scope: token.scope,
        created_at: token.created_at,
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        last_used_ip: token.last_used_ip,
        revoked_at: token.revoked_at,
    }
}

/// Signs and keeps a personal access token of this user.
pub(super) async fn mint(
    engine: &Engine,
    ctx: &CallContext,
    user_id: &str,
    name: &str,
    life: TokenLife,
    scope: Scope,
) -> Result<NewToken> {
    let now = engine.clock().now();
    let mut expires_at = life.ends(now)?;
    if scope == Scope::BootstrapAnalyst {
        let latest = now + BOOTSTRAP_LIFE;
        expires_at = Some(expires_at.map_or(latest, |end| end.min(latest)));
    }
    let (id, sign_in) = (new_id(), SignIn { engine });
    let known = sign_in.credentials().await?;
    let email = known.accounts.get(user_id).map(|account| account.email.clone()).unwrap_or_default();
    let claims = Claims {
        sub: user_id.to_owned(),
        email,
        typ: "pat".to_owned(),
        iat: now.timestamp(),
        iat_us: None,
        jti: id.clone(),
        exp: expires_at.map(|end| end.timestamp()),
        scope: Some(scope.as_str().to_owned()),
        iss: None,
        aud: None,
    };
    let token = sign_in.keys().await?.sign(&claims)?;
    let stored = StoredToken {
        prefix: id.chars().take(8).collect(),
        user_id: user_id.to_owned(),
        name: name.to_owned(),
        token_hash: hash_of(token.expose()),
        scope: scope.as_str().to_owned(),
        created_at: Some(now),
        // The token itself says whole seconds.
        expires_at: expires_at.and_then(|end| DateTime::from_timestamp(end.timestamp(), 0)),
        last_used_at: None,
        last_used_ip: None,
        revoked_at: None,
        revoked_by: None,
        id,
    };
    let done = engine.store().tokens().insert(TokenKind::Personal, &stored).await;
    engine
        .audit()
        .event(ctx, "token.create")
        .resource(format!("token:{}", stored.id))
        .params(json!({"name": name, "scope": scope.as_str(), "expires_at": stored.expires_at}))
        .outcome(&done)
        .record()
        .await;
    done?;
    Ok(NewToken { token, row: row(&stored, &known) })
}

/// `name` as it is kept.
pub(super) fn token_name(name: &str) -> Result<&str> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(TokenError::NameRequired.into());
    }
    Ok(name)
}

impl Tokens<'_> {
    async fn known(&self) -> Result<std::sync::Arc<CredentialSnapshot>> {
        SignIn { engine: self.engine }.credentials().await
    }

    /// Makes a token for the caller, who signed in themselves: a token cannot make another.
    /// One of scope `bootstrap-analyst` lives an hour at most.
    ///
    /// # Errors
    /// `session_required`, `name_required`, `bad_expiry`, `unknown_scope`, `inactive_user`.
    pub async fn create(&self, ctx: &CallContext, name: &str, life: TokenLife, scope: &str) -> Result<NewToken> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_session()?;
        let name = token_name(name)?;
        let scope = Scope::parse(scope)
            .filter(|scope| *scope != Scope::Desktop)
            .ok_or_else(|| TokenError::UnknownScope { scope: crate::ident::printable(scope, 64) })?;
        mint(self.engine, ctx, ctx.principal().user_id(), name, life, scope).await
    }

    /// The caller's tokens, newest first.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `service_forbidden`.
    pub async fn list(&self, ctx: &CallContext) -> Result<Vec<TokenRow>> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_person()?;
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        let found = self.engine.store().tokens().list(TokenKind::Personal, Some(ctx.principal().user_id())).await?;
        let known = self.known().await?;
        Ok(found.iter().map(|token| row(token, &known)).collect())
    }

    /// One of the caller's tokens. Somebody else's does not exist for them.
    ///
    /// # Errors
    /// `token_not_found`, `inactive_user`, `scope_denied`, `service_forbidden`.
    pub async fn get(&self, ctx: &CallContext, id: &str) -> Result<TokenRow> {
        let mine = self.list(ctx).await?;
        mine.into_iter().find(|token| token.id == id).ok_or_else(|| missing(id))
    }

    /// Revokes one of the caller's tokens; a token may revoke itself, whatever its scope.
    ///
    /// # Errors
    /// `token_not_found`, `inactive_user`, `scope_denied`, `read_only_view`, `service_forbidden`.
    pub async fn revoke(&self, ctx: &CallContext, id: &str) -> Result<()> {
        let principal = ctx.principal();
        self.engine.access().await?.require_active(principal)?;
        principal.require_own()?;
        principal.require_person()?;
        let itself = principal.auth() == AuthMethod::Pat && principal.proof().is_some_and(|proof| proof.id == id);
        if !itself {
            principal.require(crate::rbac::Ability::Everything)?;
        }
        let found = self.known().await?.tokens.get(&(TokenKind::Personal, id.to_owned())).cloned();
        if found.is_none_or(|token| token.user_id != principal.user_id()) {
            return Err(missing(id));
        }
        self.end(ctx, id, "token.revoke", None).await
    }

    /// Everybody's tokens, newest first. For admins.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn list_all(&self, ctx: &CallContext, limit: usize, offset: usize) -> Result<Vec<TokenRow>> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let found = self.engine.store().tokens().list(TokenKind::Personal, None).await?;
        let known = self.known().await?;
        Ok(found.iter().skip(offset).take(limit).map(|token| row(token, &known)).collect())
    }

    /// Anybody's token, by its id or a unique prefix of it. For admins.
    ///
    /// # Errors
    /// `token_not_found`, `ambiguous_reference`, `admin_required`, `service_forbidden`.
    pub async fn find(&self, ctx: &CallContext, reference: &str) -> Result<TokenRow> {
        let all = self.list_all(ctx, usize::MAX, 0).await?;
        super::resolve(reference, &all, |token| &token.id, |token| &token.id)?.ok_or_else(|| missing(reference))
    }

    /// Revokes anybody's token. For admins.
    ///
    /// # Errors
    /// `token_not_found`, `admin_required`, `service_forbidden`.
    pub async fn revoke_any(&self, ctx: &CallContext, id: &str) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let found = self.known().await?.tokens.get(&(TokenKind::Personal, id.to_owned())).cloned();
        let Some(token) = found else { return Err(missing(id)) };
        self.end(ctx, id, "token.admin_revoke", Some(&token.user_id)).await
    }

    async fn end(&self, ctx: &CallContext, id: &str, action: &'static str, owner: Option<&str>) -> Result<()> {
        let (by, now) = (ctx.principal().user_id(), self.engine.clock().now());
        let done = self.engine.store().tokens().revoke(TokenKind::Personal, id, by, now).await;
        let mut event = self.engine.audit().event(ctx, action).resource(format!("token:{id}"));
        if let Some(owner) = owner {
            event = event.params(json!({"owner_id": owner}));
        }
        event.outcome(&done).record().await;
        if done? { Ok(()) } else { Err(missing(id)) }
    }
}

fn missing(id: &str) -> crate::error::Error {
    TokenError::NotFound { token: crate::ident::printable(id, 80) }.into()
}

//! Signing in and out, and who a token belongs to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::password::Passwords;
use super::session::{Claims, Keys, hash_of};
use super::uses::Uses;
use super::{Account, CredentialSnapshot, SCHEDULER_EMAIL, SignInError, StoredToken, TokenKind, UserChange};
use crate::context::{CallContext, Client};
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::{Ability, AuthMethod, Principal, Proof, Scope};
use crate::secret::{self, Secret};

/// How long a session lives; using it does not make it longer.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Accounts whose failures are remembered.
const ACCOUNTS: u64 = 100_000;
/// How long a failure counts.
const FAILURE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long after asking for their groups somebody may ask again.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

/// What an engine keeps to find out who is calling.
#[derive(Debug)]
pub(crate) struct SignInState {
    pub(super) keys: tokio::sync::OnceCell<Keys>,
    snapshot: RwLock<Option<Arc<CredentialSnapshot>>>,
    /// Held by who reads the snapshot anew.
    reading: tokio::sync::Mutex<()>,
    pub(super) passwords: Passwords,
    /// Who asked for their groups within the last minute.
    pub(super) refreshed: moka::sync::Cache<String, ()>,
    /// Failed sign-ins by address.
    pub(super) failures: moka::sync::Cache<String, u32>,
    /// Networks from which somebody failed to sign in with an address.
    pub(super) tried: moka::sync::Cache<(String, Option<IpAddr>), ()>,
    /// Turns to try, for addresses with many failures.
    pub(super) turns: moka::sync::Cache<String, Arc<tokio::sync::Mutex<()>>>,
    /// Written while a password changes, read while a session begins with one.
    pub(super) changing: tokio::sync::RwLock<()>,
    uses: Uses,
    /// Pulls since the snapshot was read.
    pulls: Mutex<HashMap<String, DateTime<Utc>>>,
    /// When the service last called what leaves no other trace.
    service_heard: Mutex<Option<DateTime<Utc>>>,
}

impl Default for SignInState {
    fn default() -> Self {
        Self {
            keys: tokio::sync::OnceCell::new(),
            snapshot: RwLock::new(None),
            reading: tokio::sync::Mutex::new(()),
            passwords: Passwords::default(),
            refreshed: moka::sync::Cache::builder().max_capacity(ACCOUNTS).time_to_live(REFRESH_PAUSE).build(),
            failures: moka::sync::Cache::builder().max_capacity(ACCOUNTS).time_to_live(FAILURE_LIFETIME).build(),
            tried: moka::sync::Cache::builder().max_capacity(ACCOUNTS).time_to_live(FAILURE_LIFETIME).build(),
            turns: moka::sync::Cache::builder().max_capacity(ACCOUNTS).time_to_idle(FAILURE_LIFETIME).build(),
            changing: tokio::sync::RwLock::new(()),
            uses: Uses::default(),
            pulls: Mutex::new(HashMap::new()),
            service_heard: Mutex::default(),
        }
    }
}

impl SignInState {
    /// Waits until the uses of tokens are written.
    pub(crate) async fn settle(&self) {
        self.uses.settle().await;
    }

    /// When the service last called what leaves no other trace.
    pub(crate) fn service_heard(&self) -> Option<DateTime<Utc>> {
        *self.service_heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a user fetched the manifest, which moves no revision.
    pub(crate) fn pulled(&self, user_id: &str, now: DateTime<Utc>) {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).insert(user_id.to_owned(), now);
    }

    pub(super) fn last_pull(&self, account: &Account) -> Option<DateTime<Utc>> {
        let pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.get(&account.id).copied().or(account.last_pull_at)
    }
}

/// Who the caller is, as they may know it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Me {
    /// 32 hex digits.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Whether they are a member of Admin.
    pub is_admin: bool,
    /// Their groups, by name.
    pub groups: Vec<MyGroup>,
    /// Whether they finished the first-steps page.
    pub onboarded: bool,
    /// When they last fetched the manifest.
    pub last_pull_at: Option<DateTime<Utc>>,
    /// `session`, `pat`, `service`, `desktop`, `dev` or `local`.
    pub auth: String,
    /// Id of the session or token.
    pub token_id: Option<String>,
    /// Name of the token.
    pub token_name: Option<String>,
    /// What the token may be used for.
    pub scope: Option<String>,
    /// When session or token end.
    pub expires_at: Option<DateTime<Utc>>,
    /// The admin who looks at what this user sees.
    pub viewer: Option<String>,
}

/// One group of the caller.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MyGroup {
    /// 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Seeded by Agnes.
    pub is_system: bool,
    /// `system`, `google_sync` or `custom`.
    pub origin: String,
}

/// Who says that somebody did the first steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstSteps {
    /// The command that sets up a laptop.
    Command,
    /// The person.
    Acknowledged,
    /// The person, who wants to see them again.
    Unmarked,
}

/// Signing in and out.
#[derive(Debug, Clone, Copy)]
pub struct SignIn<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// Signing in and out, and who a token belongs to.
    #[must_use]
    pub fn sign_in(&self) -> SignIn<'_> {
        SignIn { engine: self }
    }
}

/// A session that was just begun.
#[derive(Debug, Clone)]
pub struct Session {
    /// The signed token, for the cookie or the `Authorization` header.
    pub token: Secret,
    /// Its id.
    pub id: String,
    /// Who signed in.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Whether they are a member of Admin now; the token does not say so.
    pub is_admin: bool,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl SignIn<'_> {
    pub(super) fn state(&self) -> &SignInState {
        self.engine.sign_in_state()
    }

    pub(super) async fn keys(&self) -> Result<&Keys> {
        let load = || {
            let (folder, secrets) = (self.engine.folder().clone(), self.engine.secrets().clone());
            crate::duck::blocking(move || Keys::load(&folder, &*secrets))
        };
        self.state().keys.get_or_try_init(load).await
    }

    /// What credentials are worth, as of the current revision.
    pub(crate) async fn credentials(&self) -> Result<Arc<CredentialSnapshot>> {
        let current = || {
            let revision = self.engine.store().credential_revision();
            let kept = self.state().snapshot.read().unwrap_or_else(PoisonError::into_inner);
            kept.as_ref().filter(|snapshot| snapshot.revision == revision).cloned()
        };
        if let Some(snapshot) = current() {
            return Ok(snapshot);
        }
        // One reads it anew, the others wait for that.
        let _turn = self.state().reading.lock().await;
        if let Some(snapshot) = current() {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(self.engine.store().credentials().snapshot().await?);
        *self.state().snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// Who a request is from: the service's token, a session, a personal access token or the
    /// token of a desktop application. Reads no database unless something changed.
    ///
    /// # Errors
    /// `token_invalid`, `user_not_found`, `account_deactivated`, `token_unknown`,
    /// `token_revoked`, `token_expired`, `token_mismatch`, `session_revoked`,
    /// `service_user_missing`; `sign_in_secret_unreadable`.
    pub async fn authenticate(&self, client: &Client, token: &str) -> Result<CallContext> {
        let keys = self.keys().await?;
        let known = self.credentials().await?;
        if keys.is_service(token) {
            return service(client, &known);
        }
        let (claims, kind) = match keys.read(token) {
            Some(claims) => {
                let kind = if claims.typ == "pat" { Some(TokenKind::Personal) } else { None };
                (claims, kind)
            }
            None => (keys.read_desktop(token).ok_or(SignInError::TokenInvalid)?, Some(TokenKind::Desktop)),
        };
        let now = self.engine.clock().now();
        let account = known.accounts.get(&claims.sub).ok_or(SignInError::UserGone)?;
        if !account.active {
            return Err(SignInError::Deactivated.into());
        }
        let Some(kind) = kind else {
            check_session(&claims, account, &known, now)?;
            let proof = Proof { id: claims.jti.clone(), scope: Scope::General, expires_at: claims.expires() };
            return Ok(context(client, account, AuthMethod::Session, Some(proof)));
        };
        let stored = known.tokens.get(&(kind, claims.jti.clone())).ok_or(SignInError::TokenUnknown)?;
        let scope = check_token(&claims, token, stored, kind, now)?;
        let auth = if kind == TokenKind::Desktop { AuthMethod::Desktop } else { AuthMethod::Pat };
        let proof = Proof { id: stored.id.clone(), scope, expires_at: stored.expires_at };
        let ctx = context(client, account, auth, Some(proof));
        self.state().uses.note(self.engine, kind, &ctx);
        Ok(ctx)
    }

    /// Remembers that the service called, if `token` is its own: for calls of a scheduler that
    /// need nobody and so leave no row in the audit log. Reads no database.
    ///
    /// # Errors
    /// `sign_in_secret_unreadable`.
    pub async fn hear_service(&self, token: &str) -> Result<()> {
        if self.keys().await?.is_service(token) {
            let now = self.engine.clock().now();
            *self.state().service_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        Ok(())
    }

    /// The service, for calls that this process makes of itself.
    ///
    /// # Errors
    /// `service_user_missing`.
    pub async fn as_service(&self, client: &Client) -> Result<CallContext> {
        service(client, &*self.credentials().await?)
    }

    /// Who the caller is. Reads no database unless something changed. The service is nobody.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `service_forbidden`.
    pub async fn me(&self, ctx: &CallContext) -> Result<Me> {
        let principal = ctx.principal();
        let (access, known) = (self.engine.access().await?, self.credentials().await?);
        access.require_active(principal)?;
        principal.require_person()?;
        principal.require(Ability::Me)?;
        let account = known.accounts.get(principal.user_id());
        let proof = principal.proof();
        let token = proof.and_then(|proof| known.tokens.get(&(TokenKind::Personal, proof.id.clone())));
        Ok(Me {
            user_id: principal.user_id().to_owned(),
            email: account.map_or_else(|| principal.user_id().to_owned(), |account| account.email.clone()),
            name: account.and_then(|account| account.name.clone()),
            is_admin: access.is_admin(principal),
            groups: super::people::groups_of(&access, principal.user_id()),
            onboarded: account.is_some_and(|account| account.onboarded),
            last_pull_at: account.and_then(|account| self.state().last_pull(account)),
            auth: principal.auth().as_str().to_owned(),
            token_id: proof.map(|proof| proof.id.clone()),
            token_name: token.map(|token| token.name.clone()),
            scope: proof.map(|proof| proof.scope.as_str().to_owned()),
            expires_at: proof.and_then(|proof| proof.expires_at),
            viewer: principal.viewer().map(str::to_owned),
        })
    }

    /// Notes that the caller fetched the manifest; it is written later. Who looks at what
    /// somebody else sees fetches nothing.
    pub fn pulled(&self, ctx: &CallContext) {
        if ctx.principal().viewer().is_some() || ctx.principal().is_trusted_owner() {
            return;
        }
        let (user_id, now) = (ctx.principal().user_id().to_owned(), self.engine.clock().now());
        self.state().pulled(&user_id, now);
        let users = self.engine.store().users();
        tokio::spawn(async move {
            if let Err(error) = users.touch_last_pull(&user_id, now).await {
                tracing::warn!(code = error.code(), "a pull was not recorded: {error}");
            }
        });
    }

    /// Says, as a client tells it, whether the caller finished the first-steps page; gives what is
    /// kept.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn first_steps(&self, ctx: &CallContext, source: FirstSteps, done: bool) -> Result<bool> {
        let onboarded = done && source != FirstSteps::Unmarked;
        self.set_onboarded(ctx, onboarded).await?;
        Ok(onboarded)
    }

    /// Says whether the caller finished the first-steps page.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn set_onboarded(&self, ctx: &CallContext, onboarded: bool) -> Result<()> {
        let principal = ctx.principal();
        self.engine.access().await?.require_active(principal)?;
        principal.require(Ability::Onboarded)?;
        principal.require_own()?;
        let change = UserChange { onboarded: Some(onboarded), name: None };
        let done = self.engine.store().users().update(principal.user_id(), &change, self.engine.clock().now()).await;
        let action = if onboarded { "user_onboarded" } else { "user_offboarded" };
        self.engine.audit().event(ctx, action).outcome(&done).record().await;
        done.map(drop)
    }

    /// Begins a session of this user, who proved who they are.
    pub(super) async fn begin(&self, client: &Client, account: &Account, how: &str) -> Result<Session> {
        let now = self.engine.clock().now();
        // Later than what ended the sessions before, whatever the clock says.
        let issued = account.sessions_valid_after.map_or(now, |ended| now.max(ended + TimeDelta::microseconds(1)));
        let expires = issued + SESSION_LIFETIME;
        let id = super::service::new_id();
        let claims = Claims {
            sub: account.id.clone(),
            email: account.email.clone(),
            typ: "session".to_owned(),
            iat: issued.timestamp(),
            iat_us: Some(issued.timestamp_micros()),
            jti: id.clone(),
            exp: Some(expires.timestamp()),
            scope: None,
            iss: None,
            aud: None,
        };
        let token = self.keys().await?.sign(&claims)?;
        let principal = Principal::user(&account.id, AuthMethod::Session, client.kind(Some(AuthMethod::Session)));
        let is_admin = self.engine.access().await?.is_admin(&principal);
        let event = self.engine.audit().event_of(client, Some(&account.id), "token_created");
        event.resource(format!("user:{}", account.email)).params(json!({"by": how, "id": id})).record().await;
        let expires_at = DateTime::from_timestamp(expires.timestamp(), 0).unwrap_or(expires);
        let (user_id, email, name) = (account.id.clone(), account.email.clone(), account.name.clone());
        Ok(Session { token, id, user_id, email, name, is_admin, expires_at })
    }

    /// Ends the session the caller came with; anything else has none.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn sign_out(&self, ctx: &CallContext) -> Result<()> {
        let principal = ctx.principal();
        if let (AuthMethod::Session, Some(proof)) = (principal.auth(), principal.proof()) {
            let now = self.engine.clock().now();
            let expires_at = proof.expires_at.unwrap_or(now + SESSION_LIFETIME);
            let done = self.engine.store().credentials().end_session(&proof.id, expires_at, now).await;
            self.engine.audit().event(ctx, "logout").outcome(&done).record().await;
            done?;
        }
        Ok(())
    }

    /// Ends every session of the caller, this one too; tokens stay.
    ///
    /// # Errors
    /// `session_required`, `read_only_view`.
    pub async fn sign_out_everywhere(&self, ctx: &CallContext) -> Result<()> {
        ctx.principal().require_session()?;
        let now = self.engine.clock().now();
        let done = self.engine.store().credentials().end_sessions(ctx.principal().user_id(), None, now).await;
        self.engine.audit().event(ctx, "logout").params(json!({"everywhere": true})).outcome(&done).record().await;
        done
    }
}

pub(super) fn context(client: &Client, account: &Account, auth: AuthMethod, proof: Option<Proof>) -> CallContext {
    let principal = Principal::user(&account.id, auth, client.kind(Some(auth)));
    let principal = match proof {
        Some(proof) => principal.with_proof(proof),
        None => principal,
    };
    CallContext::from_client(principal, client)
}

fn service(client: &Client, known: &CredentialSnapshot) -> Result<CallContext> {
    let service = known.accounts.values().find(|account| account.email == SCHEDULER_EMAIL && account.active);
    let service = service.ok_or(SignInError::ServiceUserMissing)?;
    Ok(context(client, service, AuthMethod::Service, None))
}

fn check_session(claims: &Claims, account: &Account, known: &CredentialSnapshot, now: DateTime<Utc>) -> Result<()> {
    if claims.typ != "session" || claims.jti.is_empty() {
        return Err(SignInError::TokenInvalid.into());
    }
    if claims.expires().is_none_or(|end| end <= now) {
        return Err(SignInError::TokenInvalid.into());
    }
    let kept = account.kept_session.as_deref() == Some(claims.jti.as_str());
    let over = account.sessions_valid_after.is_some_and(|ended| claims.issued() <= ended) && !kept;
    if over || known.ended.contains(&claims.jti) {
        return Err(SignInError::SessionRevoked.into());
    }
    Ok(())
}

/// What a stored token may be used for, if it is still worth something.
fn check_token(
    claims: &Claims,
    token: &str,
    stored: &StoredToken,
    kind: TokenKind,
    now: DateTime<Utc>,
) -> Result<Scope> {
    if stored.user_id != claims.sub {
        return Err(SignInError::TokenMismatch.into());
    }
    if stored.revoked_at.is_some() {
        return Err(SignInError::TokenRevoked.into());
    }
    if [stored.expires_at, claims.expires()].into_iter().flatten().any(|end| end <= now) {
        return Err(SignInError::TokenExpired.into());
    }
    if !secret::same(hash_of(token).as_bytes(), stored.token_hash.as_bytes()) {
        return Err(SignInError::TokenMismatch.into());
    }
    match kind {
        TokenKind::Desktop => Ok(Scope::Desktop),
        // A scope of another version: nobody knows what it opens.
        TokenKind::Personal => Scope::parse(&stored.scope).ok_or_else(|| SignInError::TokenUnknown.into()),
    }
}

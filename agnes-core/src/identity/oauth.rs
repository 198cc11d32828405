//! Clients that people allow to read for them: OAuth 2.1 with clients that register themselves
//! and have no secret of their own, so that each proves with PKCE that a code is its.
//!
//! What a client gets is a personal access token of scope `mcp`: it stands in its owner's list,
//! and ends with a revocation there. The token itself is good for 8 hours; what renews it for 30
//! days, each time for another 30, and only once: who presents it a second time may be a thief,
//! so that all of it ends.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::service::new_id;
use super::session::{Claims, hash_of, new_secret};
use super::sign_in::SignIn;
use super::{Account, OAuthClient, OAuthCode, RefreshToken, Renewal, StoredToken, TakenCode, TokenKind};
use crate::context::{CallContext, Client};
use crate::engine::Engine;
use crate::error::{Coded, ErrorKind, Result};
use crate::ident::printable;
use crate::rbac::{AuthMethod, Principal, Scope};
use crate::secret::{self, Secret};

/// How long a code is good for.
const CODE_LIFE: TimeDelta = TimeDelta::minutes(5);
/// How long a token is good for.
const ACCESS_LIFE: TimeDelta = TimeDelta::hours(8);
/// How long it can be renewed.
const REFRESH_LIFE: TimeDelta = TimeDelta::days(30);
/// How long a client is kept that nobody uses.
const UNUSED_LIFE: TimeDelta = TimeDelta::days(90);
/// Most addresses of one client.
const MAX_URIS: usize = 10;
/// Longest address, bytes.
const LONGEST_URI: usize = 2000;
/// Longest name of a client, characters.
const LONGEST_NAME: usize = 100;

/// What a client may be refused for. The codes are those of OAuth (RFC 6749, 7591, 8707).
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OAuthError {
    #[error("a client names 1 to {MAX_URIS} addresses, each `https://` or `http://` on this machine")]
    RedirectUri,
    #[error("clients have no secret here: `token_endpoint_auth_method` is `none`")]
    Metadata,
    #[error("this client is not registered here")]
    Client,
    #[error("this client did not register the address `{uri}`")]
    OtherRedirect { uri: String },
    #[error("{reason}")]
    Request { reason: &'static str },
    #[error("clients get a code here, nothing else")]
    ResponseType,
    #[error("clients get a token here for a code or to renew one, nothing else")]
    GrantType,
    #[error("clients may read here, nothing else")]
    Scope,
    #[error("`{resource}` is not this server")]
    Target { resource: String },
    #[error("this code or token is not good here: it was used, revoked, is too old, or is another client's")]
    Grant,
}

impl Coded for OAuthError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
    fn code(&self) -> &str {
        match self {
            Self::RedirectUri => "invalid_redirect_uri",
            Self::Metadata => "invalid_client_metadata",
            Self::Client => "invalid_client",
            Self::OtherRedirect { .. } | Self::Request { .. } => "invalid_request",
            Self::ResponseType => "unsupported_response_type",
            Self::GrantType => "unsupported_grant_type",
            Self::Scope => "invalid_scope",
            Self::Target { .. } => "invalid_target",
            Self::Grant => "invalid_grant",
        }
    }
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Client => "clients that nobody uses for 90 days are forgotten: register again",
            Self::OtherRedirect { .. } => "register it; on this machine the port may be any",
            Self::Grant => "ask the person to sign in again",
            Self::Scope => "the scope is `mcp`",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// What a client asks for on behalf of a person, as it came in the address of the page.
#[derive(Debug, Clone, Default)]
pub struct OAuthRequest {
    /// Its id.
    pub client_id: String,
    /// Where the code is sent.
    pub redirect_uri: String,
    /// Has to be `code`.
    pub response_type: String,
    /// PKCE: 43 characters.
    pub code_challenge: String,
    /// Has to be `S256`.
    pub code_challenge_method: String,
    /// What it wants to use; empty for what is here.
    pub resource: String,
    /// Has to be `mcp`, or empty.
    pub scope: String,
}

/// What a client is given.
#[derive(Debug, Clone)]
pub struct OAuthTokens {
    /// Says who asks, for 8 hours.
    pub access_token: Secret,
    /// Seconds that it is good for.
    pub expires_in: i64,
    /// Gets the next one, once.
    pub refresh_token: Secret,
}

/// Clients that people allow to read for them.
#[derive(Debug, Clone, Copy)]
pub struct OAuth<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Clients that people allow to read for them.
    #[must_use]
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth { engine: self }
    }
}

/// An address that a code may be sent to: nobody reads on the way, and no page is taken for
/// another.
fn redirect_uri(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= LONGEST_URI && !text.contains('#'))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.host_str().is_some();
    let kept = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    (plain && kept).then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether `given` is the address that was registered; on this machine with any port (RFC 8252).
fn is_registered(registered: &str, given: &str) -> bool {
    if registered == given {
        return true;
    }
    let (Some(mut ours), Some(mut theirs)) = (redirect_uri(registered), redirect_uri(given)) else { return false };
    let portless = is_loopback(&ours) && ours.set_port(None).is_ok() && theirs.set_port(None).is_ok();
    portless && ours == theirs
}

impl OAuth<'_> {
    fn sign_in(&self) -> SignIn<'_> {
        SignIn { engine: self.engine }
    }

    /// Registers a client. Anybody may: it is worth nothing until a person allows it something.
    ///
    /// # Errors
    /// `invalid_redirect_uri`.
    pub async fn register(&self, client: &Client, name: &str, redirect_uris: &[String]) -> Result<OAuthClient> {
        // A person is shown it: nothing in it may hide what it is.
        let name = printable(name.trim(), LONGEST_NAME);
        let counts = (1..=MAX_URIS).contains(&redirect_uris.len());
        if !counts || !redirect_uris.iter().all(|uri| redirect_uri(uri).is_some()) {
            return Err(OAuthError::RedirectUri.into());
        }
        let now = self.engine.clock().now();
        let new = OAuthClient {
            id: new_id(),
            name: if name.is_empty() { "a client without a name".to_owned() } else { name },
            redirect_uris: redirect_uris.to_vec(),
            created_at: now,
            last_used_at: None,
        };
        let done = self.engine.store().oauth().insert_client(&new, now - UNUSED_LIFE).await;
        let event = self.engine.audit().event_of(client, None, "oauth.register");
        let params = json!({"name": new.name, "redirect_uris": new.redirect_uris});
        event.resource(format!("oauth_client:{}", new.id)).params(params).outcome(&done).record().await;
        done.map(|()| new)
    }

    /// The client of a request, if it may be answered at the address that it names. Until this is
    /// so nothing may be sent there.
    ///
    /// # Errors
    /// `invalid_client`, `invalid_request`.
    pub async fn client(&self, request: &OAuthRequest) -> Result<OAuthClient> {
        let known = self.engine.store().oauth().client(&request.client_id).await?.ok_or(OAuthError::Client)?;
        if !known.redirect_uris.iter().any(|uri| is_registered(uri, &request.redirect_uri)) {
            return Err(OAuthError::OtherRedirect { uri: printable(&request.redirect_uri, 200) }.into());
        }
        Ok(known)
    }

    /// Whether a request can be granted, by whoever it is for. `origin` is how addresses of this
    /// server begin, `resource` the address of what it serves.
    ///
    /// # Errors
    /// `unsupported_response_type`, `invalid_request`, `invalid_scope`, `invalid_target`.
    pub fn check(&self, request: &OAuthRequest, origin: &str, resource: &str) -> Result<()> {
        if request.response_type != "code" {
            return Err(OAuthError::ResponseType.into());
        }
        let challenge = &request.code_challenge;
        let is_hash = URL_SAFE_NO_PAD.decode(challenge).is_ok_and(|bytes| bytes.len() == 32);
        if request.code_challenge_method != "S256" || !is_hash {
            let reason = "a request has a `code_challenge` of the method `S256`";
            return Err(OAuthError::Request { reason }.into());
        }
        if request.scope.split_whitespace().any(|scope| scope != Scope::Mcp.as_str()) {
            return Err(OAuthError::Scope.into());
        }
        check_resource(&request.resource, origin, resource)
    }

    /// A code with which the client of `request` gets a token, good for 5 minutes: the caller, in
    /// a session of their own, allows it to read what they may read.
    ///
    /// # Errors
    /// `session_required`, `inactive_user`, those of [`OAuth::client`] and [`OAuth::check`].
    pub async fn allow(
        &self,
        ctx: &CallContext,
        request: &OAuthRequest,
        origin: &str,
        resource: &str,
    ) -> Result<Secret> {
        self.require_person(ctx).await?;
        let client = self.client(request).await?;
        self.check(request, origin, resource)?;
        let (code, now) = (new_secret()?, self.engine.clock().now());
        let kept = OAuthCode {
            code_hash: hash_of(code.expose()),
            client_id: client.id.clone(),
            user_id: ctx.principal().user_id().to_owned(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.code_challenge.clone(),
            created_at: now,
            expires_at: now + CODE_LIFE,
        };
        let done = self.engine.store().oauth().insert_code(&kept).await;
        let event = self.engine.audit().event(ctx, "oauth.allow").resource(format!("oauth_client:{}", client.id));
        let params = json!({"name": client.name, "redirect_uri": kept.redirect_uri});
        event.params(params).outcome(&done).record().await;
        done.map(|()| code)
    }

    /// Notes that the caller did not allow a client what it asked for.
    ///
    /// # Errors
    /// `session_required`, `inactive_user`, those of [`OAuth::client`].
    pub async fn refuse(&self, ctx: &CallContext, request: &OAuthRequest) -> Result<()> {
        self.require_person(ctx).await?;
        let client = self.client(request).await?;
        let event = self.engine.audit().event(ctx, "oauth.refuse").resource(format!("oauth_client:{}", client.id));
        event.params(json!({"name": client.name})).record().await;
        Ok(())
    }

    async fn require_person(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_session()
    }

    /// Tokens for a code. The code is used up, whatever comes of it; one that was used before ends
    /// the token that it gave.
    ///
    /// # Errors
    /// `invalid_grant`.
    pub async fn redeem(
        &self,
        sender: &Client,
        client_id: &str,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<OAuthTokens> {
        let (now, id) = (self.engine.clock().now(), new_id());
        let code = match self.engine.store().oauth().take_code(&hash_of(code), &id, now).await? {
            TakenCode::Fresh(code) => code,
            TakenCode::Used(token) => {
                self.end(sender, &token, "a code was used twice").await?;
                return Err(OAuthError::Grant.into());
            }
            TakenCode::Unknown => return Err(OAuthError::Grant.into()),
        };
        let proof = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let is_proven =
            (43..=128).contains(&verifier.len()) && secret::same(proof.as_bytes(), code.challenge.as_bytes());
        if code.client_id != client_id || code.redirect_uri != redirect_uri || !is_proven {
            return Err(OAuthError::Grant.into());
        }
        let client = self.engine.store().oauth().client(client_id).await?.ok_or(OAuthError::Grant)?;
        let account = self.account(&code.user_id).await?;
        let access = self.sign(&account, &id, now).await?;
        let (refresh_token, refresh) = new_refresh(&id, client_id, now)?;
        let stored = StoredToken {
            prefix: id.chars().take(8).collect(),
            user_id: account.id.clone(),
            name: client.name,
            token_hash: hash_of(access.expose()),
            scope: Scope::Mcp.as_str().to_owned(),
            created_at: Some(now),
            expires_at: Some(refresh.expires_at),
            last_used_at: None,
            last_used_ip: None,
            revoked_at: None,
            revoked_by: None,
            id,
        };
        let done = async {
            self.engine.store().tokens().insert(TokenKind::Personal, &stored).await?;
            self.engine.store().oauth().insert_refresh(&refresh).await
        };
        let done = done.await;
        let params = json!({"name": stored.name, "scope": stored.scope, "client_id": client_id});
        let event = self.engine.audit().event(&caller(sender, &account), "token.create");
        event.resource(format!("token:{}", stored.id)).params(params).outcome(&done).record().await;
        done?;
        Ok(OAuthTokens { access_token: access, expires_in: ACCESS_LIFE.num_seconds(), refresh_token })
    }

    /// The next tokens, for what renews the last ones. Presented a second time it ends them all.
    ///
    /// # Errors
    /// `invalid_grant`.
    pub async fn renew(&self, sender: &Client, client_id: &str, refresh_token: &str) -> Result<OAuthTokens> {
        let (now, hash, oauth) = (self.engine.clock().now(), hash_of(refresh_token), self.engine.store().oauth());
        let known =
            oauth.refresh(&hash).await?.filter(|known| known.client_id == client_id).ok_or(OAuthError::Grant)?;
        let tokens = &self.sign_in().credentials().await?.tokens;
        let token = tokens.get(&(TokenKind::Personal, known.token_id.clone())).ok_or(OAuthError::Grant)?;
        let account = self.account(&token.user_id).await?;
        let access = self.sign(&account, &known.token_id, now).await?;
        let (refresh_token, refresh) = new_refresh(&known.token_id, client_id, now)?;
        match oauth.renew(&hash, &refresh, &hash_of(access.expose())).await? {
            Renewal::Done => {}
            Renewal::Reused => {
                self.end(sender, &known.token_id, "what renews it was used twice").await?;
                return Err(OAuthError::Grant.into());
            }
            Renewal::Unknown => return Err(OAuthError::Grant.into()),
        }
        let event = self.engine.audit().event(&caller(sender, &account), "token.renew");
        event.resource(format!("token:{}", known.token_id)).params(json!({"client_id": client_id})).later();
        Ok(OAuthTokens { access_token: access, expires_in: ACCESS_LIFE.num_seconds(), refresh_token })
    }

    /// Ends what a client was given: `token` is a token, or what renews it. One that is not known
    /// is no error (RFC 7009).
    ///
    /// # Errors
    /// I/O errors.
    pub async fn revoke(&self, sender: &Client, client_id: &str, token: &str) -> Result<()> {
        let refresh = self.engine.store().oauth().refresh(&hash_of(token)).await?;
        let id = match refresh.filter(|known| client_id.is_empty() || known.client_id == client_id) {
            Some(known) => Some(known.token_id),
            None => {
                let claims = self.sign_in().keys().await?.read(token).filter(|claims| claims.typ == "pat");
                let known = self.sign_in().credentials().await?;
                claims.map(|claims| claims.jti).filter(|id| {
                    let stored = known.tokens.get(&(TokenKind::Personal, id.clone()));
                    stored.is_some_and(|stored| {
                        stored.scope == Scope::Mcp.as_str()
                            && secret::same(stored.token_hash.as_bytes(), hash_of(token).as_bytes())
                    })
                })
            }
        };
        match id {
            Some(id) => self.end(sender, &id, "the client gave it back").await,
            None => Ok(()),
        }
    }

    /// Revokes the token of a client, and with it what renews it.
    async fn end(&self, sender: &Client, id: &str, why: &str) -> Result<()> {
        let known = self.sign_in().credentials().await?;
        let stored = known.tokens.get(&(TokenKind::Personal, id.to_owned()));
        let Some(owner) = stored.map(|stored| stored.user_id.clone()) else { return Ok(()) };
        let now = self.engine.clock().now();
        let done = self.engine.store().tokens().revoke(TokenKind::Personal, id, &owner, now).await;
        let event = self.engine.audit().event_of(sender, Some(&owner), "token.revoke");
        event.resource(format!("token:{id}")).params(json!({"why": why})).outcome(&done).record().await;
        done.map(drop)
    }

    async fn account(&self, user_id: &str) -> Result<Account> {
        let account = self.sign_in().credentials().await?.accounts.get(user_id).cloned();
        account.filter(|account| account.active).ok_or_else(|| OAuthError::Grant.into())
    }

    async fn sign(&self, account: &Account, id: &str, now: DateTime<Utc>) -> Result<Secret> {
        let claims = Claims {
            sub: account.id.clone(),
            email: account.email.clone(),
            typ: "pat".to_owned(),
            iat: now.timestamp(),
            // Two of a second are told apart: the one before does not count any more.
            iat_us: Some(now.timestamp_micros()),
            jti: id.to_owned(),
            exp: Some((now + ACCESS_LIFE).timestamp()),
            scope: Some(Scope::Mcp.as_str().to_owned()),
            iss: None,
            aud: None,
        };
        self.sign_in().keys().await?.sign(&claims)
    }
}

/// Whether a client wants to use what is here. Clients from before RFC 8707 do not say.
///
/// # Errors
/// `invalid_target`.
pub fn check_resource(wanted: &str, origin: &str, resource: &str) -> Result<()> {
    let same = |ours: &str| wanted.trim_end_matches('/') == ours.trim_end_matches('/');
    if wanted.is_empty() || same(origin) || same(resource) {
        return Ok(());
    }
    Err(OAuthError::Target { resource: printable(wanted, 200) }.into())
}

fn new_refresh(token_id: &str, client_id: &str, now: DateTime<Utc>) -> Result<(Secret, RefreshToken)> {
    let token = new_secret()?;
    let ends = DateTime::from_timestamp((now + REFRESH_LIFE).timestamp(), 0).unwrap_or(now);
    let refresh = RefreshToken {
        hash: hash_of(token.expose()),
        token_id: token_id.to_owned(),
        client_id: client_id.to_owned(),
        created_at: now,
        expires_at: ends,
    };
    Ok((token, refresh))
}

/// Whom a client acts for.
fn caller(client: &Client, account: &Account) -> CallContext {
    let client = client.clone().from_assistant();
    let kind = client.kind(Some(AuthMethod::Pat));
    CallContext::from_client(Principal::user(&account.id, AuthMethod::Pat, kind), &client)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sent_by_https_or_within_this_machine() {
        for good in [
            "https://claude.example/cb",
            "https://a.example:8443/x?y=z",
            "http://localhost:1234/callback",
            "http://127.0.0.1/cb",
            "http://[::1]:9/cb",
        ] {
            assert!(redirect_uri(good).is_some(), "{good}");
        }
        for bad in [
            "http://a.example/cb",
            "http://localhost.a.example/cb",
            "https://a.example/cb#x",
            "https://user@a.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "app.example:/cb",
            "/cb",
            "",
        ] {
            assert!(redirect_uri(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_port_counts_but_on_this_machine() {
        assert!(is_registered("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb"));
        assert!(is_registered("http://localhost/cb", "http://localhost:2/cb"));
        assert!(!is_registered("http://localhost/cb", "http://127.0.0.1/cb"));
        assert!(!is_registered("http://localhost/cb", "http://localhost/other"));
        assert!(!is_registered("https://a.example/cb", "https://a.example:444/cb"));
        assert!(!is_registered("https://a.example/cb", "https://a.example/cb?x"));
        assert!(is_registered("https://a.example/cb", "https://a.example/cb"));
    }

    #[test]
    fn a_token_is_for_what_is_here() {
        let check = |wanted: &str| check_resource(wanted, "https://a.example", "https://a.example/api/mcp/http");
        for good in ["", "https://a.example", "https://a.example/", "https://a.example/api/mcp/http"] {
            check(good).unwrap();
        }
        for bad in ["https://b.example", "https://a.example/other", "https://a.example.b/"] {
            assert_eq!(check(bad).unwrap_err().code(), "invalid_target", "{bad}");
        }
    }
}

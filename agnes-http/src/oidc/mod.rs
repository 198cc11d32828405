//! Signing in at an identity provider by OpenID Connect: the authorization code flow with
//! PKCE (RFC 7636), `state` and `nonce`.
//!
//! Here is the protocol alone: that the answer comes from the provider, is meant for this
//! server and for this browser. Who may come in is the engine's to decide.

mod discovery;
mod token;

use std::time::Duration;

use agnes_connectors::outbound::{Outbound, OutboundError};
use agnes_core::config::OidcConfig;
use agnes_core::ident::printable;
use agnes_core::identity::ExternalIdentity;
use agnes_core::secret::Secret;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;
use url::form_urlencoded::byte_serialize;

use discovery::{Discovery, Known};
use token::Expected;

/// Bytes of an answer of the token or userinfo endpoint.
const ANSWER: u64 = 256 << 10;
/// How long one call may take: a person waits for it.
const CALL: Duration = Duration::from_secs(15);

/// Why signing in elsewhere failed. What the provider said is in the log, escaped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OidcError {
    /// It cannot be reached, or answers with something else.
    #[error("the identity provider cannot be asked")]
    Outbound(#[from] OutboundError),
    /// Its description is not what OpenID Connect Discovery asks for.
    #[error("the identity provider's description is not valid: {0}")]
    Discovery(&'static str),
    /// It did not give a token for the code.
    #[error("the identity provider gave no token: {0}")]
    Exchange(String),
    /// The answer is not one to the question this browser asked.
    #[error("the answer does not belong to this browser: {0}")]
    Answer(&'static str),
    /// The ID token is not valid.
    #[error("the ID token is not valid: {0}")]
    Token(&'static str),
}

/// What the browser keeps while its person is at the provider, sealed. It is of no use without
/// the code, and the code is of no use without it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    /// Name of the provider that was asked.
    pub(crate) provider: String,
    /// What the answer has to repeat.
    pub(crate) state: String,
    /// What the ID token has to repeat.
    nonce: String,
    /// What the code was asked with.
    verifier: String,
    /// Where the answer was to come to.
    redirect: String,
    /// Where the person wants to go.
    pub(crate) next: Option<String>,
}

/// What the provider's redirect brings.
#[derive(Deserialize)]
pub(crate) struct Callback {
    code: Option<String>,
    state: Option<String>,
    /// RFC 9207.
    iss: Option<String>,
    error: Option<String>,
}

/// What the token endpoint answers (Core 3.1.3.3, 3.1.3.4).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    id_token: Option<String>,
    error: Option<String>,
}

/// A provider, as the operator set it up.
#[derive(Debug)]
pub(crate) struct Oidc {
    config: OidcConfig,
    outbound: Outbound,
    discovery: Discovery,
}

impl Oidc {
    pub(crate) fn new(config: OidcConfig, outbound: Outbound) -> Self {
        let discovery = Discovery::new(config.issuer.clone(), outbound.clone());
        Self { config, outbound, discovery }
    }

    /// `google` or `oidc`.
    pub(crate) fn name(&self) -> &'static str {
        self.config.name
    }

    /// What its button says.
    pub(crate) fn label(&self) -> &str {
        &self.config.label
    }

    /// Where to send the browser, and what it keeps meanwhile. `redirect` is the address of the
    /// callback.
    ///
    /// # Errors
    /// [`OidcError::Outbound`], [`OidcError::Discovery`].
    pub(crate) async fn begin(&self, redirect: String, next: Option<String>) -> Result<(String, Pending), OidcError> {
        let known = self.discovery.known().await?;
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        // RFC 7636, 4.2.
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut url = Url::parse(&known.metadata.authorization_endpoint)
            .map_err(|_| OidcError::Discovery("`authorization_endpoint`"))?;
        if url.scheme() != "https" && url.scheme() != "http" {
            return Err(OidcError::Discovery("`authorization_endpoint`"));
        }
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", &redirect),
            ("scope", "openid email profile"),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let provider = self.config.name.to_owned();
        Ok((url.into(), Pending { provider, state, nonce, verifier, redirect, next }))
    }

    /// Who the provider says has come back.
    ///
    /// # Errors
    /// [`OidcError`].
    pub(crate) async fn finish(&self, pending: Pending, callback: Callback) -> Result<ExternalIdentity, OidcError> {
        if pending.provider != self.config.name || callback.state.as_deref() != Some(pending.state.as_str()) {
            return Err(OidcError::Answer("`state`"));
        }
        let known = self.discovery.known().await?;
        // Who answers is who was asked (RFC 9207, against mixing providers up).
        match callback.iss.as_deref() {
            Some(issuer) if issuer != self.config.issuer => return Err(OidcError::Answer("`iss`")),
            None if known.metadata.authorization_response_iss_parameter_supported => {
                return Err(OidcError::Answer("`iss`"));
            }
            _ => {}
        }
        if let Some(error) = callback.error {
            return Err(OidcError::Exchange(printable(&error, 80)));
        }
        let code = callback.code.ok_or(OidcError::Answer("`code`"))?;
        let answer = self.exchange(&known, &code, &pending).await?;
        let token = answer.id_token.as_deref().ok_or(OidcError::Token("there is none"))?;
        let expected = Expected {
            issuer: &self.config.issuer,
            client: &self.config.client_id,
            nonce: &pending.nonce,
            now: chrono::Utc::now().timestamp(),
        };
        let key = self.discovery.key_for(&known, token).await?;
        let claims = token::check(token, &key, &expected)?;
        let person = match (&claims.person.email, &known.metadata.userinfo_endpoint) {
            // Scopes may bring their claims there only (Core 5.4).
            (None, Some(endpoint)) => {
                let access = Secret::new(answer.access_token.unwrap_or_default());
                let request = self.outbound.get(endpoint).bearer(&access).timeout(CALL).body_limit(ANSWER);
                let told: token::UserInfo = request.send().await?.ok()?.json().await?;
                // Core 5.3.2.
                if told.sub != claims.sub {
                    return Err(OidcError::Token("userinfo is of somebody else"));
                }
                told.person
            }
            _ => claims.person,
        };
        Ok(ExternalIdentity {
            provider: self.config.name,
            email_verified: person.is_verified(),
            email: person.email,
            name: person.name,
        })
    }

    /// A token for the code (Core 3.1.3).
    async fn exchange(&self, known: &Known, code: &str, pending: &Pending) -> Result<TokenAnswer, OidcError> {
        let (client, secret) = (self.config.client_id.as_str(), self.config.client_secret.as_ref());
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", pending.redirect.as_str()),
            ("code_verifier", pending.verifier.as_str()),
        ];
        // Never sent twice: a code is good for once.
        let mut request = self.outbound.post(&known.metadata.token_endpoint).timeout(CALL).body_limit(ANSWER);
        match secret {
            Some(secret) if known.metadata.takes_basic() => {
                // RFC 6749, 2.3.1: both are encoded as in a form first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(client), encoded(secret.expose()));
                request = request.header("authorization", &format!("Basic {}", BASE64_STANDARD.encode(pair)));
            }
            Some(secret) => form.extend([("client_id", client), ("client_secret", secret.expose())]),
            None => form.push(("client_id", client)),
        }
        let answer = request.header("accept", "application/json").form(&form).send().await?;
        let status = answer.status();
        let said: TokenAnswer = answer.json().await?;
        match said.error {
            Some(error) => Err(OidcError::Exchange(printable(&error, 80))),
            None if status.is_success() => Ok(said),
            None => Err(OidcError::Exchange(format!("status {}", status.as_u16()))),
        }
    }
}

/// 32 random bytes as text: a state, a nonce, a verifier (RFC 7636, 4.1).
fn random() -> Result<String, OidcError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| OidcError::Answer("there is no randomness"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

impl OidcError {
    /// Writes to the log what went wrong.
    pub(crate) fn log(&self, provider: &str) {
        let mut told = printable(&self.to_string(), 200);
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            told = format!("{told}: {}", printable(&inner.to_string(), 200));
            cause = inner.source();
        }
        tracing::warn!(provider, "signing in elsewhere failed: {told}");
    }
}

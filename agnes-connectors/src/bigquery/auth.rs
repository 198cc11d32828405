//! Access tokens: from the key that is configured (a service account's, or a person's own
//! credentials), else from the machine, else from what `gcloud` left for this user.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use agnes_core::connector::SourceContext;
use agnes_core::error::{Error, Result};
use agnes_core::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::config::BigQueryConfig;
use super::error::BigQueryError;
use crate::outbound::{Outbound, Rules};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN: &str = "https://oauth2.googleapis.com/token";
/// The variable of application default credentials.
pub(crate) const DEFAULT_ENV: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The machine's own server on Google's cloud, and the variable that names another.
const MACHINE: &str = "metadata.google.internal";
const MACHINE_ENV: &str = "GCE_METADATA_HOST";
/// How long it is not asked again after it was not there.
const AWAY: Duration = Duration::from_secs(60);
/// A token that ends sooner than this is not used again.
const MARGIN: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);
const MACHINE_TIMEOUT: Duration = Duration::from_secs(5);
const BODY: u64 = 1 << 20;

/// A key as Google gives it out.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Key {
    ServiceAccount {
        client_email: String,
        private_key: String,
        #[serde(default)]
        private_key_id: Option<String>,
        #[serde(default)]
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        #[serde(default)]
        token_uri: Option<String>,
    },
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

/// Tokens until they end, by the credentials they are for.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<[u8; 32], (Secret, Instant)>,
    /// Until when the machine is not asked, and why.
    away: Option<(Instant, String)>,
}

impl Tokens {
    /// A token of the source's account.
    pub(crate) async fn token(
        &self,
        outbound: &Outbound,
        source: &SourceContext,
        config: &BigQueryConfig,
    ) -> Result<Secret> {
        let name = config.key_env.as_deref().unwrap_or(DEFAULT_ENV);
        let given = source.secrets.get(name).filter(|value| !value.expose().trim().is_empty());
        let key = match given {
            Some(value) => Some(read(value).await?),
            // Where it is named it has to be there.
            None if config.key_env.is_some() => {
                return Err(failed(format!("the variable `{name}` is not set")));
            }
            None => None,
        };
        let id: [u8; 32] = Sha256::digest(key.as_ref().map_or("", |key| key.expose())).into();
        // Held while asking: one request for all tables of a run.
        let mut known = self.0.lock().await;
        if let Some((token, until)) = known.tokens.get(&id)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let granted = match &key {
            Some(key) => exchange(outbound, key).await?,
            None => {
                at_google(outbound, config)?;
                unnamed(outbound, source, &mut known).await?
            }
        };
        let lasts = Duration::from_secs(granted.expires_in);
        let token = Secret::new(granted.access_token);
        known.tokens.remove(&id);
        if let Some(useful) = lasts.checked_sub(MARGIN).filter(|useful| !useful.is_zero()) {
            known.tokens.insert(id, (token.clone(), Instant::now() + useful));
        }
        Ok(token)
    }

    /// Has nobody get a token any more that was refused.
    async fn forget(&self, refused: &Secret) {
        self.0.lock().await.tokens.retain(|_, (token, _)| token.expose() != refused.expose());
    }
}

/// The token of one run: another one where that was refused, as one that ended meanwhile is.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: Arc<Tokens>,
    outbound: Outbound,
    source: SourceContext,
    config: BigQueryConfig,
    shown: std::sync::Mutex<Secret>,
}

impl Access {
    pub(crate) async fn new(
        tokens: Arc<Tokens>,
        outbound: Outbound,
        source: SourceContext,
        config: BigQueryConfig,
    ) -> Result<Self> {
        let shown = std::sync::Mutex::new(tokens.token(&outbound, &source, &config).await?);
        Ok(Self { tokens, outbound, source, config, shown })
    }

    /// The token that calls show.
    pub(crate) fn shown(&self) -> Secret {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has calls show another token than the one that was refused.
    pub(crate) async fn renew(&self, refused: &Secret) -> Result<Secret> {
        self.tokens.forget(refused).await;
        let token = self.tokens.token(&self.outbound, &self.source, &self.config).await?;
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&token);
        tracing::info!(source = %self.source.name, "Google refused an access token: another one is used");
        Ok(token)
    }
}

/// What the machine may do goes to nobody whom settings of a source name: only to Google, and to
/// hosts that the operator named.
fn at_google(outbound: &Outbound, config: &BigQueryConfig) -> Result<()> {
    for address in [config.rest(), config.storage()] {
        let parsed = url::Url::parse(address).ok();
        let host = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        if !host.ends_with(".googleapis.com") && !outbound.rules().allows(host) {
            let host = agnes_core::ident::printable(host, 80);
            return Err(failed(format!("`{DEFAULT_ENV}` is not set, and `{host}` is not Google's: name a key for it")));
        }
    }
    Ok(())
}

/// Where no key is configured: the machine, else this user's own credentials.
async fn unnamed(outbound: &Outbound, source: &SourceContext, known: &mut Known) -> Result<Granted> {
    let away = known.away.take().filter(|(until, _)| Instant::now() < *until);
    let away = match away {
        Some(away) => away,
        None => match machine(source).await {
            Ok(granted) => return Ok(granted),
            Err(reason) => (Instant::now() + AWAY, reason),
        },
    };
    let reason = known.away.insert(away).1.clone();
    match own(source).await {
        Some(key) => exchange(outbound, &key).await.map_err(|error| failed(format!("{reason}; {error}"))),
        None => Err(failed(format!("`{DEFAULT_ENV}` is not set; {reason}; this user has no credentials of `gcloud`"))),
    }
}

/// What `gcloud auth application-default login` left.
async fn own(source: &SourceContext) -> Option<Secret> {
    let folder = match source.secrets.get("CLOUDSDK_CONFIG") {
        Some(folder) => PathBuf::from(folder.expose()),
        None => Path::new(source.secrets.get("HOME")?.expose()).join(".config/gcloud"),
    };
    tokio::fs::read_to_string(folder.join("application_default_credentials.json")).await.ok().map(Secret::new)
}

fn failed(reason: impl Into<String>) -> Error {
    BigQueryError::AuthFailed { reason: reason.into() }.into()
}

/// The JSON itself, or what is in the file it names.
async fn read(value: Secret) -> Result<Secret> {
    if value.expose().trim_start().starts_with('{') {
        return Ok(value);
    }
    let path = value.expose().trim().to_owned();
    match tokio::fs::read_to_string(&path).await {
        Ok(text) => Ok(Secret::new(text)),
        Err(_) => Err(failed("the file of the key cannot be read")),
    }
}

async fn exchange(outbound: &Outbound, key: &Secret) -> Result<Granted> {
    // The parser's words may hold parts of the key.
    let parsed: Key = serde_json::from_str(key.expose())
        .map_err(|_| failed("the key is neither a service account's nor a person's credentials"))?;
    match parsed {
        Key::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
            let url = token_uri.as_deref().unwrap_or(TOKEN);
            let now = chrono::Utc::now().timestamp();
            let claims = Claims { iss: &client_email, scope: SCOPE, aud: url, iat: now, exp: now + 3600 };
            let assertion = signed(private_key_id.as_deref(), &claims, &private_key)?;
            let form =
                [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
            grant(outbound, url, &form).await
        }
        Key::AuthorizedUser { client_id, client_secret, refresh_token, token_uri } => {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", client_id.as_str()),
                ("client_secret", client_secret.as_str()),
                ("refresh_token", refresh_token.as_str()),
            ];
            grant(outbound, token_uri.as_deref().unwrap_or(TOKEN), &form).await
        }
    }
}

/// A JWT signed by RS256.
fn signed(id: Option<&str>, claims: &Claims<'_>, pem: &str) -> Result<String> {
    let damaged = || failed("the private key of the service account is damaged");
    let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": id});
    let head = URL_SAFE_NO_PAD.encode(header.to_string());
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_string(claims).map_err(|e| Error::internal("write claims", e))?);
    let message = format!("{head}.{body}");
    let inner: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(inner).map_err(|_| damaged())?;
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&der).map_err(|_| damaged())?;
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    pair.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
        .map_err(|_| failed("the private key of the service account cannot sign"))?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

async fn grant(outbound: &Outbound, url: &str, form: &[(&str, &str)]) -> Result<Granted> {
    let request = outbound.post(url).form(form).timeout(TIMEOUT).body_limit(BODY).repeatable();
    let answer = request.send().await.map_err(Error::from)?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(Error::from)?;
    if status >= 400 {
        // `error` is a word of the protocol; the description may quote the request.
        let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let word = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("no reason");
        return Err(failed(format!("Google answered {status} ({})", agnes_core::ident::printable(word, 60))));
    }
    serde_json::from_slice(&body).map_err(|_| failed("Google's answer is not a token"))
}

/// What the machine itself may do, on Google's cloud; else why it cannot be known.
async fn machine(source: &SourceContext) -> Result<Granted, String> {
    let host = source.secrets.get(MACHINE_ENV).map_or(MACHINE.to_owned(), |host| host.expose().trim().to_owned());
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    // A private address by nature, which no setting of a source can change: it alone may be asked.
    let parsed = url::Url::parse(&url).ok();
    let name = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    let outbound = Outbound::new(Rules::default().allowing([name]));
    let request = outbound.get(&url).header("Metadata-Flavor", "Google").body_limit(BODY);
    let answer = tokio::time::timeout(MACHINE_TIMEOUT, request.timeout(MACHINE_TIMEOUT).send()).await;
    let nobody = "this is no machine of Google's cloud".to_owned();
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::debug!("the machine was asked for a token: {error}");
            return Err(nobody);
        }
        Err(_) => return Err(nobody),
    };
    match answer.status().as_u16() {
        200 => answer.json().await.map_err(|_| "the machine's answer is not a token".to_owned()),
        status => Err(format!("the machine answered {status} to the request for a token")),
    }
}

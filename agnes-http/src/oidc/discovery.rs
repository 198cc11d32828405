//! What a provider says of itself (OpenID Connect Discovery 1.0), and its keys (RFC 7517).

use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_connectors::outbound::Outbound;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::OidcError;
use super::token::Key;

/// How long a description is believed.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The least time between two looks for new keys: a token may name any key.
const PAUSE: Duration = Duration::from_secs(30);
/// How long after it could not be asked nobody asks again: they would wait one after another.
const REST: Duration = Duration::from_secs(5);
/// Bytes of a description or a set of keys.
const SIZE: u64 = 512 << 10;
/// Keys of a set that are looked at.
const KEYS: usize = 100;

/// A provider's description (Discovery 3): what of it is used here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    jwks_uri: String,
    pub(super) userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Whether the client proves itself by HTTP Basic, which is the rule where nothing is said.
    pub(super) fn takes_basic(&self) -> bool {
        let said = self.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        said.is_empty() || said.iter().any(|method| method == "client_secret_basic")
    }
}

/// A description with the keys that belong to it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) metadata: Metadata,
    keys: Vec<Jwk>,
    read: Instant,
}

/// What is known of a provider, and when its keys were last looked for because of a token.
#[derive(Debug, Default)]
struct Memory {
    known: Option<Arc<Known>>,
    looked: Option<Instant>,
    /// When it could not be asked.
    failed: Option<Instant>,
}

/// Asks a provider, and remembers what it said.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: String,
    outbound: Outbound,
    /// Held while somebody asks: the others wait for the answer.
    memory: Mutex<Memory>,
}

impl Discovery {
    pub(super) fn new(issuer: String, outbound: Outbound) -> Self {
        Self { issuer, outbound, memory: Mutex::default() }
    }

    /// The description, as old as `LIFETIME` at most.
    pub(super) async fn known(&self) -> Result<Arc<Known>, OidcError> {
        let mut memory = self.memory.lock().await;
        if let Some(fresh) = memory.known.as_ref().filter(|known| known.read.elapsed() < LIFETIME) {
            return Ok(fresh.clone());
        }
        if memory.failed.is_some_and(|at| at.elapsed() < REST) {
            return Err(OidcError::Discovery("it could not be asked a moment ago"));
        }
        match self.read().await {
            Ok(read) => Ok(memory.known.insert(Arc::new(read)).clone()),
            Err(error) => {
                memory.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    /// The key that `token` names. Where it is not known the keys are asked for anew: providers
    /// change them.
    pub(super) async fn key_for(&self, known: &Arc<Known>, token: &str) -> Result<Key, OidcError> {
        match Key::of(token, &known.keys)? {
            Some(key) => Ok(key),
            None => {
                let again = self.again(known).await?;
                Key::of(token, &again.keys)?.ok_or(OidcError::Token("its key is not known"))
            }
        }
    }

    async fn again(&self, seen: &Arc<Known>) -> Result<Arc<Known>, OidcError> {
        let mut memory = self.memory.lock().await;
        let soon = memory.looked.is_some_and(|at| at.elapsed() < PAUSE);
        if let Some(kept) = memory.known.as_ref().filter(|known| soon || !Arc::ptr_eq(known, seen)) {
            return Ok(kept.clone());
        }
        memory.looked = Some(Instant::now());
        Ok(memory.known.insert(Arc::new(self.read().await?)).clone())
    }

    async fn read(&self) -> Result<Known, OidcError> {
        // Discovery 4.1: a slash at the end of the issuer goes first.
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata = self.get(&url).await?;
        // Discovery 4.3: it has to be exactly the issuer that was asked for.
        if metadata.issuer != self.issuer {
            return Err(OidcError::Discovery("it is of another issuer"));
        }
        if metadata.code_challenge_methods_supported.as_ref().is_some_and(|all| !all.iter().any(|one| one == "S256")) {
            return Err(OidcError::Discovery("it takes no PKCE with S256"));
        }
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = self.get(&metadata.jwks_uri).await?;
        // A key of a kind that is not known here must not hide the others.
        let usable = |key: &Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        let read = set.keys.into_iter().take(KEYS).filter_map(|key| serde_json::from_value(key).ok()).filter(usable);
        Ok(Known { keys: read.collect(), metadata, read: Instant::now() })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, OidcError> {
        let answer = self.outbound.get(url).timeout(Duration::from_secs(15)).body_limit(SIZE).send().await?;
        Ok(answer.ok()?.json().await?)
    }
}

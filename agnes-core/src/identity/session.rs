//! Signed tokens: sessions, personal access tokens, tokens of desktop applications.
//!
//! A token says who it belongs to and which one it is, never what its owner may do.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SignInError;
use crate::error::{Error, Result};
use crate::layout::DataFolder;
use crate::secret::{self, Secret, SecretSource};

/// Signs sessions and personal access tokens, instead of the file.
const SESSION_VARIABLE: &str = "JWT_SECRET_KEY";
/// Signs what browsers keep for a short time, instead of the file.
const COOKIE_VARIABLE: &str = "SESSION_SECRET";
/// The service's token, instead of the file.
const SERVICE_VARIABLE: &str = "SCHEDULER_API_TOKEN";
/// Signs tokens of desktop applications; without it there are none.
const DESKTOP_VARIABLE: &str = "DESKTOP_JWT_SECRET";
/// What a bootstrap has to bring along.
const BOOTSTRAP_VARIABLE: &str = "AGNES_BOOTSTRAP_TOKEN";
/// Fewest characters of a secret.
const SHORTEST: usize = 32;
/// `aud` of a desktop token.
const DESKTOP_AUDIENCE: &str = "desktop";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// User id.
    pub(super) sub: String,
    #[serde(default)]
    pub(super) email: String,
    /// `session`, `pat` or, of a desktop application, `desktop`.
    #[serde(default)]
    pub(super) typ: String,
    /// Seconds since 1970.
    pub(super) iat: i64,
    /// Microseconds since 1970: ending all sessions must tell apart what happened within a
    /// second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iat_us: Option<i64>,
    /// Id of the session or token.
    pub(super) jti: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<String>,
}

impl Claims {
    /// When it was issued, as exactly as it says.
    pub(super) fn issued(&self) -> DateTime<Utc> {
        let micros = self.iat_us.unwrap_or_else(|| self.iat.saturating_mul(1_000_000));
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// When it ends.
    pub(super) fn expires(&self) -> Option<DateTime<Utc>> {
        self.exp.map(|exp| DateTime::from_timestamp(exp, 0).unwrap_or(DateTime::UNIX_EPOCH))
    }
}

/// A value that a browser keeps.
#[derive(Serialize, Deserialize)]
struct Sealed {
    aud: String,
    exp: i64,
    value: serde_json::Value,
}

struct Pair {
    sign: EncodingKey,
    verify: DecodingKey,
}

impl Pair {
    fn of(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        Self { sign: EncodingKey::from_secret(bytes), verify: DecodingKey::from_secret(bytes) }
    }

    fn sign<T: Serialize>(&self, claims: &T) -> Result<Secret> {
        let text = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.sign)
            .map_err(|e| Error::internal("sign a token", e))?;
        Ok(Secret::new(text))
    }

    /// What a token says whose signature is ours. Its times are the caller's to check: they
    /// are told by the engine's clock.
    fn read<T: DeserializeOwned>(&self, token: &str, audience: Option<&str>) -> Option<T> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_exp = false;
        rules.set_required_spec_claims::<&str>(&[]);
        match audience {
            Some(audience) => rules.set_audience(&[audience]),
            None => rules.validate_aud = false,
        }
        jsonwebtoken::decode::<T>(token, &self.verify, &rules).ok().map(|data| data.claims)
    }
}

/// The secrets of this installation that prove who somebody is.
pub(super) struct Keys {
    session: Pair,
    cookie: Pair,
    desktop: Option<Pair>,
    /// SHA-256 of the service's token.
    service: Option<[u8; 32]>,
    /// SHA-256 of what a bootstrap has to bring along.
    bootstrap: Option<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Keys {
    /// Reads the secrets; makes what is kept in a file and not there yet. Blocks.
    ///
    /// # Errors
    /// `sign_in_secret_unreadable` for a file that cannot be read or is empty: a new secret
    /// would silently end every session and token.
    pub(super) fn load(folder: &DataFolder, secrets: &dyn SecretSource) -> Result<Self> {
        let given = |variable: &'static str, file: std::path::PathBuf| {
            let secret = secrets.get(variable).map_or_else(|| kept(&file), Ok)?;
            if secret.expose().len() < SHORTEST {
                tracing::warn!("`{variable}` has fewer than {SHORTEST} characters: choose a longer one");
            }
            Ok::<_, Error>(Pair::of(&secret))
        };
        let session = given(SESSION_VARIABLE, folder.session_secret())?;
        let cookie = given(COOKIE_VARIABLE, folder.cookie_secret())?;
        let long = |variable: &'static str, secret: &Secret| {
            let long = secret.expose().len() >= SHORTEST;
            if !long {
                tracing::warn!("`{variable}` has fewer than {SHORTEST} characters and is ignored");
            }
            long
        };
        let service = match secrets.get(SERVICE_VARIABLE) {
            Some(secret) => Some(secret).filter(|secret| long(SERVICE_VARIABLE, secret)),
            None => Some(kept(&folder.scheduler_token())?),
        };
        let desktop = secrets.get(DESKTOP_VARIABLE).filter(|secret| long(DESKTOP_VARIABLE, secret));
        Ok(Self {
            session,
            cookie,
            desktop: desktop.as_ref().map(Pair::of),
            service: service.map(|secret| digest(secret.expose())),
            bootstrap: secrets.get(BOOTSTRAP_VARIABLE).map(|secret| digest(secret.expose())),
        })
    }

    /// Whether `token` is the service's.
    pub(super) fn is_service(&self, token: &str) -> bool {
        self.service.is_some_and(|own| secret::same(&own, &digest(token)))
    }

    /// Whether a bootstrap has to bring something along, and whether this is it.
    pub(super) fn bootstrap(&self, token: Option<&Secret>) -> Option<bool> {
        let own = self.bootstrap?;
        Some(token.is_some_and(|token| secret::same(&own, &digest(token.expose()))))
    }

    /// Whether there are desktop tokens.
    pub(super) fn has_desktop(&self) -> bool {
        self.desktop.is_some()
    }

    /// Signs a session or a personal access token.
    pub(super) fn sign(&self, claims: &Claims) -> Result<Secret> {
        self.session.sign(claims)
    }

    /// Signs a desktop token.
    pub(super) fn sign_desktop(&self, claims: Claims) -> Result<Secret> {
        let Some(pair) = &self.desktop else { return Err(SignInError::DesktopOff.into()) };
        pair.sign(&Claims { aud: Some(DESKTOP_AUDIENCE.to_owned()), ..claims })
    }

    /// Signs a value for a browser to keep until `exp`, good for `purpose` alone.
    pub(super) fn seal(&self, purpose: &str, value: &serde_json::Value, exp: DateTime<Utc>) -> Result<Secret> {
        self.cookie.sign(&Sealed { aud: purpose.to_owned(), exp: exp.timestamp(), value: value.clone() })
    }

    /// What was sealed for `purpose`, if its time is not over.
    pub(super) fn unseal(&self, purpose: &str, text: &str, now: DateTime<Utc>) -> Option<serde_json::Value> {
        let sealed: Sealed = self.cookie.read(text, Some(purpose))?;
        (sealed.aud == purpose && sealed.exp > now.timestamp()).then_some(sealed.value)
    }

    /// What a session or personal access token says.
    pub(super) fn read(&self, token: &str) -> Option<Claims> {
        self.session.read(token, None)
    }

    /// What a desktop token says.
    pub(super) fn read_desktop(&self, token: &str) -> Option<Claims> {
        self.desktop.as_ref()?.read(token, Some(DESKTOP_AUDIENCE))
    }
}

fn kept(path: &std::path::Path) -> Result<Secret> {
    let unreadable = || Error::from(SignInError::SecretUnreadable);
    match secret::read_kept(path) {
        Ok(Some(secret)) if !secret.expose().is_empty() => Ok(secret),
        Ok(Some(_)) => Err(unreadable()),
        Ok(None) => secret::make_kept(path),
        Err(error) => {
            tracing::error!("a secret of this installation cannot be read: {error}");
            Err(unreadable())
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What is kept of a token or code: its SHA-256, 64 hex digits.
pub(super) fn hash_of(token: &str) -> String {
    crate::orchestrator::hex(&digest(token))
}

/// A new one-shot token or code: 32 random bytes, URL-safe base64.
pub(super) fn new_secret() -> Result<Secret> {
    use base64::Engine as _;
    let bytes = secret::random_bytes()?;
    Ok(Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::FixedSecrets;

    fn claims() -> Claims {
        Claims {
            sub: "u1".into(),
            email: "ann@acme.example".into(),
            typ: "session".into(),
            iat: 1_800_000_000,
            iat_us: Some(1_800_000_000_250_000),
            jti: "j".into(),
            exp: Some(1_800_086_400),
            scope: None,
            iss: None,
            aud: None,
        }
    }

    fn keys(pairs: &[(&str, &str)]) -> (tempfile::TempDir, Result<Keys>) {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(root.path());
        std::fs::create_dir_all(folder.state_dir()).unwrap();
        let keys = Keys::load(&folder, &FixedSecrets::new(pairs.iter().copied()));
        (root, keys)
    }

    #[test]
    fn only_what_was_signed_here_is_read() {
        let (_root, keys) = keys(&[("DESKTOP_JWT_SECRET", "0123456789abcdef0123456789abcdef")]);
        let keys = keys.unwrap();
        let token = keys.sign(&claims()).unwrap();
        assert_eq!(keys.read(token.expose()), Some(claims()));
        // Another key, no algorithm, another algorithm, changed claims, no token at all.
        let (_other, other) = self::keys(&[]);
        assert_eq!(other.unwrap().read(token.expose()), None);
        let b64 = |text: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
        };
        let parts: Vec<&str> = token.expose().split('.').collect();
        let none = b64(r#"{"alg":"none","typ":"JWT"}"#);
        assert_eq!(keys.read(&format!("{none}.{}.", parts[1])), None);
        assert_eq!(keys.read(&format!("{none}.{}.{}", parts[1], parts[2])), None);
        let hs512 = b64(r#"{"alg":"HS512","typ":"JWT"}"#);
        assert_eq!(keys.read(&format!("{hs512}.{}.{}", parts[1], parts[2])), None);
        let changed = b64(r#"{"sub":"u2","iat":1,"jti":"j","typ":"session"}"#);
        assert_eq!(keys.read(&format!("{}.{changed}.{}", parts[0], parts[2])), None);
        for odd in ["", ".", "..", "a.b.c", &"x".repeat(100_000), "\u{0}"] {
            assert_eq!(keys.read(odd), None);
        }
        // Desktop tokens and sessions are not taken for each other.
        let desktop = keys.sign_desktop(claims()).unwrap();
        assert_eq!(keys.read(desktop.expose()), None);
        assert_eq!(keys.read_desktop(token.expose()), None);
        assert_eq!(keys.read_desktop(desktop.expose()).unwrap().sub, "u1");
    }

    #[test]
    fn secrets_are_kept_and_never_made_anew() {
        let (root, keys) = keys(&[]);
        let token = keys.unwrap().sign(&claims()).unwrap();
        let folder = DataFolder::new(root.path());
        let none = FixedSecrets::default();
        assert!(Keys::load(&folder, &none).unwrap().read(token.expose()).is_some());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for path in [folder.session_secret(), folder.cookie_secret(), folder.scheduler_token()] {
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let service = std::fs::read_to_string(folder.scheduler_token()).unwrap();
        let loaded = Keys::load(&folder, &none).unwrap();
        assert!(loaded.is_service(&service) && !loaded.is_service("") && !loaded.is_service(&service[1..]));
        std::fs::write(folder.session_secret(), " \n").unwrap();
        assert_eq!(Keys::load(&folder, &none).unwrap_err().code(), "sign_in_secret_unreadable");
        std::fs::remove_file(folder.session_secret()).unwrap();
        std::fs::create_dir(folder.session_secret()).unwrap();
        assert_eq!(Keys::load(&folder, &none).unwrap_err().code(), "sign_in_secret_unreadable");
    }

    #[test]
    fn what_a_browser_keeps_is_good_for_one_purpose_and_a_time() {
        let (_root, keys) = keys(&[]);
        let (keys, now) = (keys.unwrap(), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let value = serde_json::json!({"next": "/a"});
        let kept = keys.seal("state", &value, now + chrono::TimeDelta::minutes(10)).unwrap();
        assert_eq!(keys.unseal("state", kept.expose(), now), Some(value));
        assert_eq!(keys.unseal("csrf", kept.expose(), now), None);
        assert_eq!(keys.unseal("state", kept.expose(), now + chrono::TimeDelta::minutes(10)), None);
        assert_eq!(keys.unseal("state", &kept.expose()[..kept.expose().len() - 2], now), None);
        assert_eq!(keys.read(kept.expose()), None, "it is no session");
        let session = keys.sign(&claims()).unwrap();
        assert_eq!(keys.unseal("state", session.expose(), now), None, "a session is none of it");
    }

    #[test]
    fn a_short_service_token_is_no_token() {
        let (_root, keys) = keys(&[("SCHEDULER_API_TOKEN", "short"), ("DESKTOP_JWT_SECRET", "short")]);
        let keys = keys.unwrap();
        assert!(!keys.is_service("short") && !keys.has_desktop());
        assert_eq!(keys.sign_desktop(claims()).unwrap_err().code(), "desktop_off");
        assert_eq!(format!("{keys:?}"), "***");
    }
}

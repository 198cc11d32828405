//! ID tokens: which signature is believed, and what a token has to say.
//!
//! The numbers are those of OpenID Connect Core 1.0, section 3.1.3.7.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::OidcError;

/// How far the clocks may be apart, seconds.
const LEEWAY: i64 = 60;
/// How old a token may be that was just asked for, seconds.
const OLDEST: i64 = 600;
/// Longest token that is looked at, bytes.
const LONGEST: usize = 64 << 10;
/// Longest subject (Core 2).
const LONGEST_SUBJECT: usize = 255;

/// The signatures that are believed: those that only the provider can make. Never `none`, never
/// a MAC, whose key would be the client's own secret (7, 8).
const BELIEVED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The key of a token, with the one algorithm it is used with.
pub(super) struct Key {
    key: DecodingKey,
    algorithm: Algorithm,
}

impl Key {
    /// The key among `keys` that the head of `token` names; none where it is not there.
    pub(super) fn of(token: &str, keys: &[Jwk]) -> Result<Option<Self>, OidcError> {
        if token.len() > LONGEST {
            return Err(OidcError::Token("it is too long"));
        }
        // An algorithm that is not known here, `none` among them, is no head at all.
        let head = decode_header(token).map_err(|_| OidcError::Token("its head cannot be read"))?;
        if !BELIEVED.contains(&head.alg) {
            return Err(OidcError::Token("its algorithm is not one that is believed"));
        }
        let mut fitting = keys.iter().filter(|key| fits(key, head.alg));
        let found = match head.kid {
            Some(kid) => fitting.find(|key| key.common.key_id.as_deref() == Some(kid.as_str())),
            // Core 10.1: without a name there has to be one key only.
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        let Some(found) = found else { return Ok(None) };
        let key = DecodingKey::from_jwk(found).map_err(|_| OidcError::Token("its key cannot be used"))?;
        Ok(Some(Self { key, algorithm: head.alg }))
    }
}

/// Whether a key is one for signatures of this algorithm.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    if key.common.key_algorithm.is_some_and(|own| own.to_string().parse().ok() != Some(algorithm)) {
        return false;
    }
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => algorithm == Algorithm::ES256,
            EllipticCurve::P384 => algorithm == Algorithm::ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(pair) => {
            algorithm == Algorithm::EdDSA && pair.curve == EllipticCurve::Ed25519
        }
        // A shared secret in a public set: somebody wants a MAC to be believed.
        _ => false,
    }
}

/// What the token has to say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    pub(super) nonce: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    pub(super) sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    #[serde(flatten)]
    pub(super) person: Person,
}

/// What the userinfo endpoint says.
#[derive(Debug, Deserialize)]
pub(super) struct UserInfo {
    pub(super) sub: String,
    #[serde(flatten)]
    pub(super) person: Person,
}

/// What is said of the person (Core 5.1).
#[derive(Debug, Deserialize)]
pub(super) struct Person {
    pub(super) email: Option<String>,
    email_verified: Option<serde_json::Value>,
    pub(super) name: Option<String>,
}

impl Person {
    /// Whether the provider knows the address to be theirs; some write the truth as a text.
    pub(super) fn is_verified(&self) -> bool {
        self.email_verified.as_ref().is_some_and(|said| said == true || said == "true")
    }
}

/// What `token` says, if all of it is as it has to be.
pub(super) fn check(token: &str, key: &Key, expected: &Expected<'_>) -> Result<Claims, OidcError> {
    let mut rules = Validation::new(key.algorithm);
    // Its claims are checked below, every one of them.
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    // 6, 7.
    let claims: Claims = decode(token, &key.key, &rules)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => OidcError::Token("its signature is not right"),
            _ => OidcError::Token("it cannot be read"),
        })?
        .claims;
    claims.hold(expected)?;
    Ok(claims)
}

impl Claims {
    /// Whether they are what was asked for, now.
    fn hold(&self, expected: &Expected<'_>) -> Result<(), OidcError> {
        let wrong = |what| Err(OidcError::Token(what));
        // 2.
        if self.iss != expected.issuer {
            return wrong("`iss` is another one");
        }
        // 3: no audience beside us is trusted.
        let for_us = match &self.aud {
            Audience::One(one) => one == expected.client,
            Audience::Many(many) => !many.is_empty() && many.iter().all(|one| one == expected.client),
        };
        if !for_us {
            return wrong("`aud` is somebody else");
        }
        // 4, 5.
        if self.azp.as_ref().is_some_and(|party| party != expected.client) {
            return wrong("`azp` is somebody else");
        }
        // A time may have a fraction (RFC 7519, 2); JSON has no number that is none.
        #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
        let (now, leeway, oldest) = (expected.now as f64, LEEWAY as f64, OLDEST as f64);
        // 9.
        if self.exp + leeway <= now {
            return wrong("it has expired");
        }
        // 10.
        if self.iat > now + leeway || self.iat < now - oldest - leeway {
            return wrong("`iat` is not a moment ago");
        }
        if self.nbf.is_some_and(|from| from > now + leeway) {
            return wrong("it is not valid yet");
        }
        // 11.
        if self.nonce.as_deref() != Some(expected.nonce) {
            return wrong("`nonce` is another one");
        }
        if self.sub.is_empty() || self.sub.len() > LONGEST_SUBJECT || !self.sub.is_ascii() {
            return wrong("`sub` is not valid");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "token_tests.rs"]
mod tests;

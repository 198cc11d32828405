//! What is kept of clients that people allow to act for them, and the repository that keeps it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::Result;

/// A client that registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// 32 hex digits.
    pub id: String,
    /// As it calls itself: nobody checked that.
    pub name: String,
    /// Where a code for it may be sent.
    pub redirect_uris: Vec<String>,
    /// When it registered.
    pub created_at: DateTime<Utc>,
    /// When somebody last allowed it something, or it renewed a token.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A code that a client gets a token for, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthCode {
    /// SHA-256 of the code, 64 hex digits.
    pub code_hash: String,
    /// For which client.
    pub client_id: String,
    /// Whom the client will act for.
    pub user_id: String,
    /// Where it was sent.
    pub redirect_uri: String,
    /// What proves the client: base64url of the SHA-256 of a secret of its own (RFC 7636).
    pub challenge: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// What became of a code that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenCode {
    /// It is used up now.
    Fresh(OAuthCode),
    /// It was used before, for the token with this id.
    Used(String),
    /// There is none, or it is too old.
    Unknown,
}

/// A token that renews another, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// SHA-256 of it, 64 hex digits.
    pub hash: String,
    /// The personal access token that it renews.
    pub token_id: String,
    /// For which client.
    pub client_id: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The old one is used up, the new one counts.
    Done,
    /// The old one was used up before.
    Reused,
    /// There is none, it is too old, or its token was revoked.
    Unknown,
}

/// Keeps clients, codes and what renews their tokens. Every method is one transaction.
#[async_trait]
pub trait OAuthRepository: Send + Sync {
    /// Keeps a new client; forgets those that nobody used since `unused_since`.
    async fn insert_client(&self, client: &OAuthClient, unused_since: DateTime<Utc>) -> Result<()>;
    /// A client.
    async fn client(&self, id: &str) -> Result<Option<OAuthClient>>;
    /// Keeps a code and notes that its client is used; forgets codes that are too old.
    async fn insert_code(&self, code: &OAuthCode) -> Result<()>;
    /// Takes a code for the token `token_id`, in one statement: of several callers one gets it.
    async fn take_code(&self, hash: &str, token_id: &str, now: DateTime<Utc>) -> Result<TakenCode>;
    /// Keeps what renews a token; forgets what is too old.
    async fn insert_refresh(&self, refresh: &RefreshToken) -> Result<()>;
    /// What renews a token, used up or not.
    async fn refresh(&self, hash: &str) -> Result<Option<RefreshToken>>;
    /// Puts `new` in the place of `old`, in one transaction with the hash and the end of the
    /// token that it renews. Moves [`crate::store::Store::credential_revision`].
    async fn renew(&self, old: &str, new: &RefreshToken, token_hash: &str) -> Result<Renewal>;
}

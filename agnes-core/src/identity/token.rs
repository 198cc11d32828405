//! Personal access tokens and tokens of desktop applications, and the repository that keeps them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// A personal access token: acts as its user.
    Personal,
    /// A desktop application's: opens the desktop endpoints only.
    Desktop,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// 32 hex digits; the `jti` of the token.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// For people.
    pub name: String,
    /// First 8 hex digits of the id, safe to show.
    pub prefix: String,
    /// SHA-256 of the whole token, 64 hex digits.
    pub token_hash: String,
    /// What it may be used for, as [`crate::rbac::Scope`] writes it.
    pub scope: String,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When it ends; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// From where.
    pub last_used_ip: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// By whom.
    pub revoked_by: Option<String>,
}

/// A token as its owner and admins see it: nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// 32 hex digits.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// Their address.
    pub user_email: String,
    /// For people.
    pub name: String,
    /// First 8 hex digits of the id.
    pub prefix: String,
    /// What it may be used for.
    pub scope: String,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When it ends; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// From where.
    pub last_used_ip: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Keeps tokens. Every method is one transaction and, unless it says otherwise, moves
/// [`crate::store::Store::credential_revision`] when it changed something.
#[async_trait]
pub trait TokenRepository: Send + Sync {
    /// Keeps a new token. `user_not_found`.
    async fn insert(&self, kind: TokenKind, token: &StoredToken) -> Result<()>;
    /// Tokens, of one user or all, newest first.
    async fn list(&self, kind: TokenKind, user_id: Option<&str>) -> Result<Vec<StoredToken>>;
    /// Revokes a token; `false` when there is none with this id. One that is revoked already
    /// stays as it is.
    async fn revoke(&self, kind: TokenKind, id: &str, by: &str, now: DateTime<Utc>) -> Result<bool>;
    /// Notes a use, moves no revision; the address of the use before it, if it was used before.
    async fn touch(
        &self,
        kind: TokenKind,
        id: &str,
        ip: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Option<Option<String>>>;
}

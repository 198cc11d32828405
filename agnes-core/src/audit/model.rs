//! One row of the audit log, and the repository that keeps them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// 32 hex digits.
    pub id: String,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// Who.
    pub user_id: Option<String>,
    /// What, e.g. `query.local`, `resource_grant.created`.
    pub action: String,
    /// On what, at most 256 characters, e.g. `table:orders`.
    pub resource: Option<String>,
    /// Facts, redacted.
    pub params: Option<serde_json::Value>,
    /// The state before a change, redacted.
    pub params_before: Option<serde_json::Value>,
    /// `success`, `denied`, `error.<kind>`.
    pub result: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// Address of the client.
    pub client_ip: Option<String>,
    /// Which frontend: `web`, `cli`, `scheduler`, `api`, `desktop`.
    pub client_kind: Option<String>,
    /// The request id.
    pub correlation_id: Option<String>,
}

/// Which audit rows to read, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditFilter {
    /// Not older than.
    pub since: Option<DateTime<Utc>>,
    /// Of this user.
    pub user_id: Option<String>,
    /// Whose action starts with this text.
    pub action_prefix: Option<String>,
    /// On this resource.
    pub resource: Option<String>,
    /// Whose result starts with this text.
    pub result_prefix: Option<String>,
    /// Whose facts hold this text, whatever its case.
    #[serde(default)]
    pub text: Option<String>,
    /// Which came through this frontend.
    #[serde(default)]
    pub client_kind: Option<String>,
    /// At most this many.
    pub limit: usize,
    /// Older than this `(timestamp, id)`, to page on.
    pub before: Option<(DateTime<Utc>, String)>,
}

/// Keeps the audit log.
#[async_trait]
pub trait AuditRepository: Send + Sync {
    /// Appends rows in one transaction.
    async fn append(&self, events: &[AuditEvent]) -> Result<()>;
    /// Reads rows, newest first.
    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>>;
}

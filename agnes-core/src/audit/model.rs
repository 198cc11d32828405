//! One row of the audit log, and the repository that keeps them.

use std::collections::BTreeMap;

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
    /// Whose action starts with one of these, where there are any.
    #[serde(default)]
    pub actions: Vec<String>,
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

impl AuditFilter {
    /// Longest window that is asked for in minutes: 30 days.
    pub const LONGEST_WINDOW: i64 = 30 * 24 * 60;

    /// How many of these minutes are looked at: with a search in facts, which reads every row, at
    /// most seven days.
    #[must_use]
    pub fn window(minutes: i64, searches: bool) -> i64 {
        minutes.clamp(1, if searches { 7 * 24 * 60 } else { Self::LONGEST_WINDOW })
    }
}

/// A value of a column, and how many rows have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacetValue {
    /// The value.
    pub value: String,
    /// Rows.
    pub count: u64,
}

/// Rows of the log, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditFigures {
    /// Rows.
    pub events_total: u64,
    /// Users among them.
    pub active_users: u64,
    /// Rows whose result is an error; refusals are none.
    pub errors: u64,
    /// Time that 95 of 100 rows which tell theirs stay below, milliseconds; none when no row
    /// tells one.
    pub p95_duration_ms: Option<f64>,
}

/// Keeps the audit log.
#[async_trait]
pub trait AuditRepository: Send + Sync {
    /// Appends rows in one transaction.
    async fn append(&self, events: &[AuditEvent]) -> Result<()>;
    /// Deletes rows older than `before`; how many.
    async fn prune(&self, before: DateTime<Utc>) -> Result<u64>;
    /// Reads rows, newest first.
    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>>;
    /// The most frequent values since then, at most `limit` of each: users, actions, results,
    /// resources, client kinds; of equally frequent ones the first by name.
    async fn facets(&self, since: DateTime<Utc>, limit: usize) -> Result<[Vec<FacetValue>; 5]>;
    /// Counts the rows that [`AuditRepository::list`] would give without limit and cursor.
    async fn figures(&self, filter: &AuditFilter) -> Result<AuditFigures>;
    /// When each user, or this one, last did something; a sign-in that failed is nothing they
    /// did.
    async fn last_seen(&self, only: Option<&str>) -> Result<BTreeMap<String, DateTime<Utc>>>;
}

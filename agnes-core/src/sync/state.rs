//! Sync state and history of each table, and the repository that keeps them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::orchestrator::Part;

/// Outcome of the last run of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncStatus {
    /// The data is what the source last gave.
    Ok,
    /// The last run failed; rows, hash and time are those of the last good one.
    Error,
    /// The last run left the table out; see the reason.
    Skipped,
}

impl SyncStatus {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }

    /// The status stored as `text`; anything unknown counts as `ok`.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        match text {
            "error" => Self::Error,
            "skipped" => Self::Skipped,
            _ => Self::Ok,
        }
    }
}

/// What is known of one table's data. The key is the registry NAME.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncState {
    /// Registry name.
    pub table_id: String,
    /// When the last good run ended.
    pub last_sync: Option<DateTime<Utc>>,
    /// Rows of the last good run.
    pub rows: Option<i64>,
    /// Bytes of Parquet.
    pub file_size_bytes: Option<i64>,
    /// Bytes of values, uncompressed.
    pub uncompressed_size_bytes: Option<i64>,
    /// Columns.
    pub columns: Option<i32>,
    /// MD5 of the single file, rollup of the parts, or empty when unknown.
    pub hash: Option<String>,
    /// Outcome of the last run.
    pub status: SyncStatus,
    /// What went wrong, or why it was skipped.
    pub error: Option<String>,
    /// Parts of a partitioned table.
    pub parts: Option<Vec<Part>>,
    /// The connector's own cursor, opaque to core.
    pub cursor: Option<serde_json::Value>,
    /// Schema drift noticed by the last run that brought any.
    pub drift: Option<serde_json::Value>,
}

/// One good run, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncUpdate {
    /// Registry name.
    pub table_id: String,
    /// Rows now.
    pub rows: i64,
    /// Bytes of Parquet now.
    pub file_size_bytes: i64,
    /// Columns now.
    pub columns: Option<i32>,
    /// Hash now.
    pub hash: String,
    /// Parts now.
    pub parts: Option<Vec<Part>>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// Whether `last_sync` moves to now (not for materialized rows at a rebuild).
    pub bump_last_sync: bool,
    /// Whether a history row is added (not when nothing changed).
    pub history: bool,
}

/// One past run of one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncHistory {
    /// UUID.
    pub id: String,
    /// Registry name.
    pub table_id: String,
    /// When it ended.
    pub synced_at: DateTime<Utc>,
    /// Rows.
    pub rows: Option<i64>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// Outcome.
    pub status: SyncStatus,
    /// What went wrong.
    pub error: Option<String>,
}

/// Keeps sync state and history.
#[async_trait]
pub trait SyncRepository: Send + Sync {
    /// Records good runs, all in one transaction: upsert with status `ok` and no error;
    /// cursor and drift stay.
    async fn update(&self, updates: &[SyncUpdate], now: DateTime<Utc>) -> Result<()>;
    /// Records a failure: only status and error change; appends history.
    async fn set_error(&self, table_id: &str, message: &str, now: DateTime<Utc>) -> Result<()>;
    /// Clears a failure, only where the status is `error`.
    async fn clear_error(&self, table_id: &str) -> Result<()>;
    /// Records that a run left the table out: `due_check`, `not_in_target`, `in_flight`,
    /// `source_filter`, `asked_to_wait`. A recorded error stays.
    async fn set_skipped(&self, table_id: &str, reason: &str) -> Result<()>;
    /// Keeps the connector's cursor.
    async fn set_cursor(&self, table_id: &str, cursor: &serde_json::Value) -> Result<()>;
    /// Records schema drift.
    async fn set_drift(&self, table_id: &str, drift: &serde_json::Value) -> Result<()>;
    /// State of one table.
    async fn get(&self, table_id: &str) -> Result<Option<SyncState>>;
    /// State of all tables by name.
    async fn all(&self) -> Result<Vec<SyncState>>;
    /// Past runs of a table, newest first.
    async fn history(&self, table_id: &str, limit: usize) -> Result<Vec<SyncHistory>>;
    /// Past runs of all tables since a time, newest first.
    async fn recent(&self, since: DateTime<Utc>, limit: usize, status: Option<SyncStatus>) -> Result<Vec<SyncHistory>>;
}

/// Keeps profiles: one JSON object for each table name.
#[async_trait]
pub trait ProfileRepository: Send + Sync {
    /// Keeps a profile with the content hash it describes.
    async fn put(
        &self,
        table_id: &str,
        content_hash: &str,
        profile: &serde_json::Value,
        now: DateTime<Utc>,
    ) -> Result<()>;
    /// `(profile, content hash if known, profiled_at)`.
    async fn get(&self, table_id: &str) -> Result<Option<StoredProfile>>;
    /// Content hash by table, for all profiles that have one.
    async fn hashes(&self) -> Result<Vec<(String, String)>>;
}

/// A profile as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProfile {
    /// The profile object.
    pub profile: serde_json::Value,
    /// Content hash of the data it describes; none in rows of older versions.
    pub content_hash: Option<String>,
    /// When it was made.
    pub profiled_at: DateTime<Utc>,
}

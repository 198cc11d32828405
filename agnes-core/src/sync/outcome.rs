//! Runs as they are asked for and told: each table with how it fared.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Job, JobState, RunProgress};

/// Which tables to bring up to date.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncRequest {
    /// All tables of these sources. Schedules are not asked.
    #[serde(default)]
    pub sources: Vec<String>,
    /// These tables, by id or name. Schedules are not asked.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Read everything, whatever changed.
    #[serde(default)]
    pub full: bool,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncRun {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// What was asked for.
    pub request: SyncRequest,
    /// When it was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: DateTime<Utc>,
    /// When it started.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<DateTime<Utc>>,
    /// What happened, per table; set when it ended.
    pub outcome: Option<SyncOutcome>,
    /// Why it failed as a whole.
    pub error: Option<String>,
    /// Who asked for it.
    pub created_by: Option<String>,
    /// How far it is, while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
}

impl From<Job> for SyncRun {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            state: job.state,
            request: serde_json::from_value(job.payload).unwrap_or_default(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            outcome: job.outcome.and_then(|outcome| serde_json::from_value(outcome).ok()),
            error: job.error,
            created_by: job.created_by,
            progress: None,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncOutcome {
    /// By source and table.
    pub tables: Vec<TableOutcome>,
    /// Number of the generation that was published last.
    pub generation: u64,
    /// Whether some tables failed and others did not.
    pub partial: bool,
    /// Asked for but unknown, and other things the caller should know.
    pub notes: Vec<String>,
}

/// How one table fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TableStatus {
    /// New data is published.
    Ok,
    /// The source has nothing new.
    Unchanged,
    /// Left out; see the reason.
    Skipped,
    /// Failed; the last good data stays.
    Error,
}

impl TableStatus {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unchanged, Self::Skipped, Self::Error];

    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Error => "error",
        }
    }
}

/// One table of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableOutcome {
    /// Its name.
    pub table: String,
    /// Its source.
    pub source: String,
    /// How it fared.
    pub status: TableStatus,
    /// Code of the error, or why it was skipped: `due_check`, `in_flight`, `asked_to_wait`, ...
    pub reason: Option<String>,
    /// The error in words.
    pub error: Option<String>,
    /// One thing to try.
    pub hint: Option<String>,
    /// Whose move is next, after an error.
    #[serde(default)]
    pub kind: Option<crate::error::ErrorKind>,
    /// When a table that failed is tried again: as its schedule says, without one by the next run of
    /// the scheduler, and not before its source asked for. A moment that has passed means the next run of any kind.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub next_try: Option<DateTime<Utc>>,
    /// Until when its source asked to be left alone, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub asked_until: Option<DateTime<Utc>>,
    /// Rows now.
    pub rows: u64,
    /// Bytes of Parquet now.
    pub bytes: u64,
    /// Rows put aside because they do not fit.
    pub rejected_rows: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// One sentence each.
    pub notes: Vec<String>,
}

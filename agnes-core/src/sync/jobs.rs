//! Durable jobs: work that survives a restart.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind, Result};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly, no attempt left.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state stored as `text`; anything unknown counts as `failed`.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        [Self::Queued, Self::Running, Self::Succeeded, Self::Cancelled]
            .into_iter()
            .find(|s| s.as_str() == text)
            .unwrap_or(Self::Failed)
    }

    /// Whether nothing will happen to the job any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// One unit of durable work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// 32 hex digits; the `run_id` of a sync.
    pub id: String,
    /// `sync`, `profile`, ...
    pub kind: String,
    /// What to do.
    pub payload: serde_json::Value,
    /// Where it stands.
    pub state: JobState,
    /// How often it was started.
    pub attempts: i32,
    /// How often it may be started.
    pub max_attempts: i32,
    /// Two jobs of one kind with the same key that are not final are one job.
    pub idempotency_key: Option<String>,
    /// Only one job of one concurrency key runs at a time, whatever its kind.
    pub concurrency_key: Option<String>,
    /// Worker that holds it.
    pub lease_owner: Option<String>,
    /// Until when; a lease that ran out is taken over.
    pub lease_until: Option<DateTime<Utc>>,
    /// Not before.
    pub run_after: DateTime<Utc>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Result of the run, per table where it has tables.
    pub outcome: Option<serde_json::Value>,
    /// Message of the last failure.
    pub error: Option<String>,
    /// Who asked for it.
    pub created_by: Option<String>,
}

/// A job to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// `sync`, `profile`, ...
    pub kind: String,
    /// What to do.
    pub payload: serde_json::Value,
    /// How often it may be started.
    pub max_attempts: i32,
    /// See [`Job::idempotency_key`].
    pub idempotency_key: Option<String>,
    /// See [`Job::concurrency_key`].
    pub concurrency_key: Option<String>,
    /// Not before.
    pub run_after: DateTime<Utc>,
    /// Who asked for it.
    pub created_by: Option<String>,
}

/// Keeps jobs. Every method is one transaction; an acknowledged `enqueue` survives a kill.
#[async_trait]
pub trait JobRepository: Send + Sync {
    /// Queues a job, or returns the unfinished one with the same kind and idempotency
    /// key. The flag says whether it is new.
    async fn enqueue(&self, job: NewJob, now: DateTime<Utc>) -> Result<(Job, bool)>;
    /// Takes the oldest job of one of `kinds` that may run (queued and due, or running
    /// with a lease that ran out), whose concurrency key no other running job, of any kind,
    /// with a live lease holds. Two workers never get the same job. A job whose attempts are
    /// used up becomes `failed` instead.
    async fn claim(&self, kinds: &[&str], worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>>;
    /// Takes one given job in the same way; `None` when it may not run now.
    async fn claim_one(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>>;
    /// Prolongs a lease; `false` when `worker` does not hold it any more.
    async fn extend(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<bool>;
    /// Ends a job well. `lease_lost` when `worker` does not hold it.
    async fn succeed(&self, id: &str, worker: &str, outcome: &serde_json::Value, now: DateTime<Utc>) -> Result<()>;
    /// Ends an attempt badly: queued again at `retry_at`, or `failed` when that is `None`
    /// or no attempt is left. `lease_lost` when `worker` does not hold it.
    async fn fail(
        &self,
        id: &str,
        worker: &str,
        error: &str,
        outcome: Option<&serde_json::Value>,
        retry_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<()>;
    /// Ends a run of a job that comes back: queued again for `run_after`, as if it was asked for
    /// now and never tried. `lease_lost` when `worker` does not hold it.
    async fn again(
        &self,
        id: &str,
        worker: &str,
        outcome: &serde_json::Value,
        error: Option<&str>,
        run_after: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<()>;
    /// Cancels a job that is not final; `false` otherwise.
    async fn cancel(&self, id: &str, now: DateTime<Utc>) -> Result<bool>;
    /// One job.
    async fn get(&self, id: &str) -> Result<Option<Job>>;
    /// Jobs, newest first, optionally of one kind and of some states.
    async fn list(&self, kind: Option<&str>, states: &[JobState], limit: usize) -> Result<Vec<Job>>;
    /// Puts jobs of workers that died back: every running job whose owner starts with
    /// `worker_prefix`. For the holder of a data folder at start. How many.
    async fn release_all(&self, worker_prefix: &str, now: DateTime<Utc>) -> Result<usize>;
    /// Deletes final jobs that ended before `before`; how many.
    async fn prune(&self, before: DateTime<Utc>) -> Result<usize>;
}

/// What can go wrong with jobs and runs.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JobError {
    #[error("there is no run `{id}`")]
    NotFound { id: String },
    #[error("another worker took this job over")]
    LeaseLost { id: String },
    #[error("a sync of `{source_name}` is running already")]
    InProgress { source_name: String },
}

impl Coded for JobError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::LeaseLost { .. } | Self::InProgress { .. } => ErrorKind::Conflict,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotFound { .. } => "run_not_found",
            Self::LeaseLost { .. } => "lease_lost",
            Self::InProgress { .. } => "sync_already_in_progress",
        }
    }
}

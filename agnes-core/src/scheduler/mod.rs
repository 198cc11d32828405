//! The clock of a server: calls of its own API that somebody has to make again and again.
//!
//! [`JOBS`] says which. A [`Scheduler`] keeps one durable job for each, so that of any number of
//! schedulers over one store a single one makes the call: inside `agnes serve` that is the
//! server's own state, in the separate process `agnes scheduler` a store in memory. How a
//! call is made is the frontend's matter ([`Perform`]).

mod run;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use run::{SCHEDULED_JOB, Scheduler};
pub use settings::{SchedulerError, SchedulerSettings};

use crate::audit::AuditFilter;
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::ClientKind;
use crate::sync::JobState;

/// A call that is made on a schedule, with the service's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledJob {
    /// Its name.
    pub name: &'static str,
    /// `GET` or `POST`; without a body.
    pub method: &'static str,
    /// Path of a route of this server.
    pub path: &'static str,
    /// How often, as [`Schedule`](crate::schedule::Schedule) reads it.
    pub schedule: &'static str,
    /// Environment variable that says otherwise, in seconds.
    pub variable: Option<&'static str>,
    /// How long the call may take.
    pub timeout: Duration,
    /// Where many servers should not begin at once: the first call waits for some of so many seconds,
    /// and the environment variable that says otherwise.
    pub first_within: Option<(u64, &'static str)>,
}

/// The job that syncs what is due.
const REFRESH: &str = "data-refresh";

/// Every job whose route this server has.
pub const JOBS: &[ScheduledJob] = &[
    ScheduledJob {
        name: REFRESH,
        method: "POST",
        path: "/api/sync/trigger",
        schedule: "every 15m",
        variable: Some("SCHEDULER_DATA_REFRESH_INTERVAL"),
        timeout: Duration::from_secs(120),
        first_within: None,
    },
    ScheduledJob {
        name: "health-check",
        method: "GET",
        path: "/api/health",
        schedule: "every 5m",
        variable: Some("SCHEDULER_HEALTH_CHECK_INTERVAL"),
        timeout: Duration::from_secs(30),
        first_within: None,
    },
    ScheduledJob {
        name: "bq-metadata-refresh",
        method: "POST",
        path: "/api/admin/run-bq-metadata-refresh",
        schedule: "every 4h",
        variable: Some("SCHEDULER_BQ_METADATA_REFRESH_INTERVAL"),
        timeout: Duration::from_secs(1800),
        first_within: Some((900, "SCHEDULER_BQ_METADATA_INITIAL_OFFSET_MAX_SECONDS")),
    },
    ScheduledJob {
        name: "jira-sla-poll",
        method: "POST",
        path: "/api/admin/run-jira-sla-poll",
        schedule: "every 5m",
        variable: Some("SCHEDULER_JIRA_SLA_POLL_INTERVAL"),
        timeout: Duration::from_secs(900),
        first_within: None,
    },
    ScheduledJob {
        name: "jira-consistency",
        method: "POST",
        path: "/api/admin/run-jira-consistency-check",
        schedule: "every 6h",
        variable: Some("SCHEDULER_JIRA_CONSISTENCY_INTERVAL"),
        timeout: Duration::from_secs(900),
        first_within: None,
    },
];

/// What a call was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobAnswer {
    /// HTTP status.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
}

/// Makes the calls.
#[async_trait]
pub trait Perform: Send + Sync {
    /// Makes one call and waits for its answer; a sentence where there is none.
    async fn perform(&self, job: &ScheduledJob) -> Result<JobAnswer, String>;
}

/// A scheduler's last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerTick {
    /// When it last did something.
    pub last: DateTime<Utc>,
    /// Since when it should have done something: that moment, the start of this process, or when
    /// the next of its jobs is due, whichever is the latest.
    pub awaited_since: DateTime<Utc>,
}

/// Rows of scheduled jobs that are looked at: one for each, and some that a new interval ended.
const LATEST: usize = 100;

impl Engine {
    /// When the scheduler of this store begins the next sync of everything that is due; `None` where
    /// none waits for its time.
    pub(crate) async fn next_refresh(&self) -> Result<Option<DateTime<Utc>>> {
        let waiting = self.store().jobs().list(Some(SCHEDULED_JOB), &[JobState::Queued], LATEST).await?;
        let refresh = waiting.iter().find(|job| job.idempotency_key.as_deref() == Some(REFRESH));
        Ok(refresh.map(|job| job.run_after))
    }

    /// When a scheduler last did something here: its own jobs, or calls of the service's token
    /// from a separate process. `None` before the first.
    ///
    /// # Errors
    /// What the state said.
    pub async fn last_scheduler_tick(&self) -> Result<Option<SchedulerTick>> {
        let jobs = self.store().jobs().list(Some(SCHEDULED_JOB), &[], LATEST).await?;
        let ticked = jobs.iter().filter_map(|job| job.started_at).max();
        let due = jobs.iter().filter(|job| job.state == JobState::Queued).map(|job| job.run_after).min();
        let calls = AuditFilter {
            client_kind: Some(ClientKind::Scheduler.as_str().to_owned()),
            limit: 1,
            ..AuditFilter::default()
        };
        let called = self.store().audit().list(&calls).await?.into_iter().map(|event| event.timestamp).next();
        let last = ticked.max(called).max(self.sign_in_state().service_heard());
        Ok(last.map(|last| SchedulerTick { last, awaited_since: last.max(self.opened_at()).max(due.unwrap_or(last)) }))
    }
}

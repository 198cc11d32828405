//! Looks again and again for what is due, and has it done.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::task::JoinSet;

use super::settings::Planned;
use super::{JobAnswer, Perform, ScheduledJob, SchedulerSettings};
use crate::clock::{Clock, SystemClock};
use crate::connector::Cancel;
use crate::engine::Engine;
use crate::error::Result;
use crate::schedule::Schedule;
use crate::store::Store as _;
use crate::store::memory::MemoryStore;
use crate::sync::{Heart, Job, JobRepository, JobState, LEASE, NewJob};

/// Kind of the jobs that come back.
pub const SCHEDULED_JOB: &str = "scheduled";

/// Characters of a refusal that are logged.
const PREVIEW: usize = 200;

/// Runs what is due. Each job has one row that comes back after every run, so it is running
/// at most once, however many schedulers share the store.
pub struct Scheduler {
    jobs: Arc<dyn JobRepository>,
    clock: Arc<dyn Clock>,
    settings: SchedulerSettings,
    perform: Arc<dyn Perform>,
    worker: String,
    running: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler whose jobs are in the state of `engine`: they come back after a restart.
    #[must_use]
    pub fn of(engine: &Engine, settings: SchedulerSettings, perform: Arc<dyn Perform>) -> Self {
        Self::over(engine.store().jobs(), engine.clock().clone(), settings, perform)
    }

    /// A scheduler of its own process, which remembers nothing: every job is due at first.
    #[must_use]
    pub fn in_memory(settings: SchedulerSettings, perform: Arc<dyn Perform>) -> Self {
        Self::over(MemoryStore::new().jobs(), Arc::new(SystemClock), settings, perform)
    }

    pub(super) fn over(
        jobs: Arc<dyn JobRepository>,
        clock: Arc<dyn Clock>,
        settings: SchedulerSettings,
        perform: Arc<dyn Perform>,
    ) -> Self {
        let worker = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        Self { jobs, clock, settings, perform, worker, running: Mutex::default() }
    }

    /// Looks for what is due until `stop` is ready, then waits for the calls that are being
    /// made. What fails is logged, and tried again when it is due again.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut wait = self.settings.grace;
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = self.settings.tick;
            if let Err(error) = self.tick().await {
                tracing::error!(code = error.code(), "the scheduler could not look for what is due: {error}");
            }
        }
        self.finish().await;
    }

    /// Starts what is due and not running; how many.
    ///
    /// # Errors
    /// What the store said.
    pub async fn tick(&self) -> Result<usize> {
        self.plan().await?;
        let mut started = 0;
        while let Some(row) = self.jobs.claim(&[SCHEDULED_JOB], &self.worker, LEASE, self.clock.now()).await? {
            let known = self.settings.jobs.iter().find(|one| row.idempotency_key.as_deref() == Some(one.job.name));
            let Some(Planned { job, schedule, .. }) = known else {
                // Of another version, which has this job.
                self.jobs.cancel(&row.id, self.clock.now()).await?;
                continue;
            };
            started += 1;
            let (job, schedule) = (*job, schedule.clone());
            let (jobs, clock, perform, worker) =
                (self.jobs.clone(), self.clock.clone(), self.perform.clone(), self.worker.clone());
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            while running.try_join_next().is_some() {}
            running.spawn(async move {
                let heart = Heart::beat(jobs.clone(), clock.clone(), &row.id, &worker, &Cancel::default());
                let answer = match tokio::time::timeout(job.timeout, perform.perform(job)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no answer within {} s", job.timeout.as_secs())),
                };
                drop(heart);
                if let Err(error) = settle(&*jobs, job, &schedule, &row, &worker, answer, clock.now()).await {
                    tracing::error!(job = job.name, code = error.code(), "a scheduled run was not recorded: {error}");
                }
            });
        }
        Ok(started)
    }

    /// Waits for the calls that are being made.
    pub async fn finish(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        while running.join_next().await.is_some() {}
    }

    /// Sees that every job has its row, and none that waits longer than its schedule asks for.
    async fn plan(&self) -> Result<()> {
        let now = self.clock.now();
        let rows = self.jobs.list(Some(SCHEDULED_JOB), &[], 1000).await?;
        for Planned { job, schedule, first_after } in &self.settings.jobs {
            let mine = || rows.iter().filter(|row| row.idempotency_key.as_deref() == Some(job.name));
            // A start in the future is one of a clock that was set back since.
            let last = mine().filter_map(|row| row.started_at).filter(|at| *at <= now).max();
            let due = match last {
                None => now + *first_after,
                last => next(schedule, last, now),
            };
            if let Some(row) = mine().find(|row| !row.state.is_final()) {
                if row.state == JobState::Running || row.run_after <= due {
                    continue;
                }
                self.jobs.cancel(&row.id, now).await?;
            }
            let new = NewJob {
                kind: SCHEDULED_JOB.to_owned(),
                payload: json!({"path": job.path}),
                // It comes back; only a worker that dies in it uses one up.
                max_attempts: i32::MAX,
                idempotency_key: Some(job.name.to_owned()),
                concurrency_key: Some(format!("{SCHEDULED_JOB}:{}", job.name)),
                run_after: due,
                created_by: None,
            };
            self.jobs.enqueue(new, now).await?;
        }
        Ok(())
    }
}

/// When a job is due that last began at `last`; the very next moment that the schedule names.
fn next(schedule: &Schedule, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    schedule.next_after(last, now).unwrap_or(now)
}

/// Records how a run ended, and when the next one is. That is the same whether it went well:
/// what fails again and again must not run again and again.
async fn settle(
    jobs: &dyn JobRepository,
    job: &ScheduledJob,
    schedule: &Schedule,
    row: &Job,
    worker: &str,
    answer: Result<JobAnswer, String>,
    now: DateTime<Utc>,
) -> Result<()> {
    let began = row.started_at.unwrap_or(now);
    let (outcome, failed) = match answer {
        // It runs already, maybe since a call that timed out.
        Ok(answer) if answer.status < 400 || answer.status == 409 => (json!({"status": answer.status}), None),
        // There is no such source here.
        Ok(answer) if answer.status == 400 && answer.body.contains("\"push_not_configured\"") => {
            tracing::debug!(job = job.name, "a scheduled call has nothing to do");
            (json!({"status": answer.status}), None)
        }
        Ok(answer) => {
            let words: String = answer.body.chars().take(PREVIEW).collect();
            tracing::warn!(job = job.name, status = answer.status, body = words, "a scheduled call was refused");
            (json!({"status": answer.status}), Some(format!("answered with status {}", answer.status)))
        }
        Err(error) => {
            tracing::warn!(job = job.name, error, "a scheduled call had no answer");
            (serde_json::Value::Null, Some(error))
        }
    };
    jobs.again(&row.id, worker, &outcome, failed.as_deref(), next(schedule, Some(began), began), now).await
}

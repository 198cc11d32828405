//! Durable jobs; here as durable as the process.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{MemoryStore, State};
use crate::error::Result;
use crate::ident::printable;
use crate::sync::{Job, JobError, JobRepository, JobState, NewJob};

fn until(now: DateTime<Utc>, lease: Duration) -> DateTime<Utc> {
    let lease = chrono::Duration::from_std(lease).unwrap_or(chrono::Duration::days(1));
    now.checked_add_signed(lease).unwrap_or(now)
}

fn live(job: &Job, now: DateTime<Utc>) -> bool {
    job.state == JobState::Running && job.lease_until.is_some_and(|until| until >= now)
}

fn end(job: &mut Job, state: JobState, now: DateTime<Utc>) {
    job.state = state;
    job.finished_at = Some(now);
    job.lease_owner = None;
    job.lease_until = None;
}

impl State {
    /// Takes the first of the jobs that `wanted` selects and that may run.
    fn claim(
        &mut self,
        wanted: impl Fn(&Job) -> bool,
        worker: &str,
        lease: Duration,
        now: DateTime<Utc>,
    ) -> Option<Job> {
        let ready = |job: &Job| match job.state {
            // A job asked for in the future of a clock that was set back runs now.
            JobState::Queued => job.run_after <= now || job.created_at > now,
            JobState::Running => !live(job, now),
            _ => false,
        };
        let blocked = |job: &Job| {
            job.concurrency_key.is_some()
                && self
                    .jobs
                    .iter()
                    .any(|other| other.id != job.id && other.concurrency_key == job.concurrency_key && live(other, now))
        };
        let mut found: Vec<usize> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| wanted(job) && ready(job) && !blocked(job))
            .map(|(at, _)| at)
            .collect();
        found.sort_by_key(|at| self.jobs.get(*at).map(|job| job.created_at));
        for at in found {
            let Some(job) = self.jobs.get_mut(at) else { continue };
            if job.attempts >= job.max_attempts {
                end(job, JobState::Failed, now);
                job.error.get_or_insert_with(|| "its worker ended before it did, too often".to_owned());
                continue;
            }
            job.state = JobState::Running;
            job.attempts += 1;
            job.lease_owner = Some(worker.to_owned());
            job.lease_until = Some(until(now, lease));
            job.started_at = Some(now);
            return Some(job.clone());
        }
        None
    }

    fn held(&mut self, id: &str, worker: &str) -> Result<&mut Job> {
        self.jobs
            .iter_mut()
            .find(|job| job.id == id && job.state == JobState::Running && job.lease_owner.as_deref() == Some(worker))
            .ok_or_else(|| JobError::LeaseLost { id: printable(id, 64) }.into())
    }
}

#[async_trait]
impl JobRepository for MemoryStore {
    async fn enqueue(&self, new: NewJob, now: DateTime<Utc>) -> Result<(Job, bool)> {
        let mut state = self.state();
        if new.idempotency_key.is_some() {
            let same = |job: &&Job| {
                job.kind == new.kind && job.idempotency_key == new.idempotency_key && !job.state.is_final()
            };
            if let Some(known) = state.jobs.iter().find(same) {
                return Ok((known.clone(), false));
            }
        }
        let job = Job {
            id: uuid::Uuid::new_v4().simple().to_string(),
            kind: new.kind,
            payload: new.payload,
            state: JobState::Queued,
            attempts: 0,
            max_attempts: new.max_attempts,
            idempotency_key: new.idempotency_key,
            concurrency_key: new.concurrency_key,
            lease_owner: None,
            lease_until: None,
            run_after: new.run_after,
            created_at: now,
            started_at: None,
            finished_at: None,
            outcome: None,
            error: None,
            created_by: new.created_by,
        };
        state.jobs.push(job.clone());
        Ok((job, true))
    }

    async fn claim(&self, kinds: &[&str], worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>> {
        Ok(self.state().claim(|job| kinds.contains(&job.kind.as_str()), worker, lease, now))
    }

    async fn claim_one(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>> {
        Ok(self.state().claim(|job| job.id == id, worker, lease, now))
    }

    async fn extend(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<bool> {
        Ok(self.state().held(id, worker).map(|job| job.lease_until = Some(until(now, lease))).is_ok())
    }

    async fn succeed(&self, id: &str, worker: &str, outcome: &Value, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        let job = state.held(id, worker)?;
        end(job, JobState::Succeeded, now);
        job.outcome = Some(outcome.clone());
        job.error = None;
        Ok(())
    }

    async fn fail(
        &self,
        id: &str,
        worker: &str,
        error: &str,
        outcome: Option<&Value>,
        retry_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut state = self.state();
        let job = state.held(id, worker)?;
        end(job, JobState::Failed, now);
        if let Some(at) = retry_at.filter(|_| job.attempts < job.max_attempts) {
            job.state = JobState::Queued;
            job.finished_at = None;
            job.run_after = at;
        }
        job.error = Some(error.to_owned());
        job.outcome = outcome.cloned();
        Ok(())
    }

    async fn again(
        &self,
        id: &str,
        worker: &str,
        outcome: &Value,
        error: Option<&str>,
        run_after: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut state = self.state();
        let job = state.held(id, worker)?;
        end(job, JobState::Queued, now);
        job.finished_at = None;
        job.attempts = 0;
        job.created_at = now;
        job.run_after = run_after;
        job.outcome = Some(outcome.clone());
        job.error = error.map(str::to_owned);
        Ok(())
    }

    async fn cancel(&self, id: &str, now: DateTime<Utc>) -> Result<bool> {
        let mut state = self.state();
        let job = state.jobs.iter_mut().find(|job| job.id == id && !job.state.is_final());
        Ok(job.map(|job| end(job, JobState::Cancelled, now)).is_some())
    }

    async fn get(&self, id: &str) -> Result<Option<Job>> {
        Ok(self.state().jobs.iter().find(|job| job.id == id).cloned())
    }

    async fn list(&self, kind: Option<&str>, states: &[JobState], limit: usize) -> Result<Vec<Job>> {
        let wanted =
            |job: &&Job| kind.is_none_or(|kind| job.kind == kind) && (states.is_empty() || states.contains(&job.state));
        Ok(self.state().jobs.iter().rev().filter(wanted).take(limit).cloned().collect())
    }

    async fn release_all(&self, worker_prefix: &str, _now: DateTime<Utc>) -> Result<usize> {
        let mut released = 0;
        for job in &mut self.state().jobs {
            let theirs = job.lease_owner.as_deref().unwrap_or_default().starts_with(worker_prefix);
            if job.state == JobState::Running && theirs {
                job.state = JobState::Queued;
                job.lease_owner = None;
                job.lease_until = None;
                released += 1;
            }
        }
        Ok(released)
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<usize> {
        let mut state = self.state();
        let count = state.jobs.len();
        state.jobs.retain(|job| !job.state.is_final() || job.finished_at.is_none_or(|at| at >= before));
        Ok(count - state.jobs.len())
    }
}

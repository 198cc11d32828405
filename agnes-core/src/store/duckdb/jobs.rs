//! Durable jobs.

use std::time::Duration;

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::values::{json, stamp, stamp_opt, time};
use super::{Db, Fail, refuse};
use crate::error::Result;
use crate::sync::{Job, JobError, JobRepository, JobState, NewJob};

pub(super) struct Jobs(pub(super) Db);

const COLUMNS: &str = "id, kind, payload::VARCHAR, state, attempts, max_attempts, idempotency_key, concurrency_key, lease_owner, \
                       epoch_us(lease_until), epoch_us(run_after), epoch_us(created_at), epoch_us(started_at), \
                       epoch_us(finished_at), outcome::VARCHAR, error, created_by";

fn job(row: &Row<'_>) -> ::duckdb::Result<Job> {
    let epoch = DateTime::<Utc>::UNIX_EPOCH;
    Ok(Job {
        id: row.get(0)?,
        kind: row.get(1)?,
        payload: json(row.get(2)?).unwrap_or_default(),
        state: JobState::from_stored(&row.get::<_, String>(3)?),
        attempts: row.get(4)?,
        max_attempts: row.get(5)?,
        idempotency_key: row.get(6)?,
        concurrency_key: row.get(7)?,
        lease_owner: row.get(8)?,
        lease_until: time(row.get(9)?),
        run_after: time(row.get(10)?).unwrap_or(epoch),
        created_at: time(row.get(11)?).unwrap_or(epoch),
        started_at: time(row.get(12)?),
        finished_at: time(row.get(13)?),
        outcome: json(row.get(14)?),
        error: row.get(15)?,
        created_by: row.get(16)?,
    })
}

fn get(conn: &Connection, id: &str) -> ::duckdb::Result<Option<Job>> {
    conn.query_row(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?"), [id], job).optional()
}

fn until(now: DateTime<Utc>, lease: Duration) -> String {
    let lease = chrono::Duration::from_std(lease).unwrap_or(chrono::Duration::days(1));
    stamp(now.checked_add_signed(lease).unwrap_or(now))
}

/// Takes the first of the jobs that `filter` selects and that may run.
fn claim(
    conn: &Connection,
    filter: &str,
    wanted: &[String],
    worker: &str,
    lease: Duration,
    now: DateTime<Utc>,
) -> Result<Option<Job>, Fail> {
    let at = stamp(now);
    // A job asked for in the future of a clock that was set back runs now.
    let sql = format!(
        "SELECT {COLUMNS} FROM jobs j WHERE {filter} \
         AND (state = 'queued' AND (run_after <= ?::TIMESTAMP OR created_at > ?::TIMESTAMP) \
              OR state = 'running' AND coalesce(lease_until, '-infinity'::TIMESTAMP) < ?::TIMESTAMP) \
         AND NOT EXISTS (SELECT 1 FROM jobs o WHERE o.id <> j.id AND o.concurrency_key = j.concurrency_key \
                         AND o.state = 'running' AND o.lease_until >= ?::TIMESTAMP) \
         ORDER BY created_at, seq"
    );
    let values = wanted.iter().map(String::as_str).chain([at.as_str(); 4]);
    let found: Vec<Job> =
        conn.prepare(&sql)?.query_map(::duckdb::params_from_iter(values), job)?.collect::<::duckdb::Result<_>>()?;
    for candidate in found {
        if candidate.attempts >= candidate.max_attempts {
            conn.execute(
                "UPDATE jobs SET state = 'failed', finished_at = ?::TIMESTAMP, lease_owner = NULL, lease_until = NULL, \
                 error = coalesce(error, 'its worker ended before it did, too often') WHERE id = ?",
                params![at, candidate.id],
            )?;
            continue;
        }
        conn.execute(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, lease_owner = ?, lease_until = ?::TIMESTAMP, \
             started_at = ?::TIMESTAMP WHERE id = ?",
            params![worker, until(now, lease), at, candidate.id],
        )?;
        return Ok(get(conn, &candidate.id)?);
    }
    Ok(None)
}

/// Refuses a worker that does not hold the job any more.
fn held(conn: &Connection, id: &str, worker: &str) -> Result<Job, Fail> {
    match get(conn, id)? {
        Some(job) if job.state == JobState::Running && job.lease_owner.as_deref() == Some(worker) => Ok(job),
        _ => refuse(JobError::LeaseLost { id: crate::ident::printable(id, 64) }),
    }
}

#[async_trait]
impl JobRepository for Jobs {
    async fn enqueue(&self, new: NewJob, now: DateTime<Utc>) -> Result<(Job, bool)> {
        self.0
            .write("queue a job", move |conn| {
                if let Some(key) = &new.idempotency_key {
                    let sql = format!(
                        "SELECT {COLUMNS} FROM jobs WHERE kind = ? AND idempotency_key = ? AND state IN ('queued', 'running') \
                         ORDER BY seq LIMIT 1"
                    );
                    if let Some(known) = conn.query_row(&sql, params![new.kind, key], job).optional()? {
                        return Ok((known, false));
                    }
                }
                let id = uuid::Uuid::new_v4().simple().to_string();
                conn.execute(
                    "INSERT INTO jobs (id, kind, payload, state, max_attempts, idempotency_key, concurrency_key, run_after, created_at, \
                     created_by, seq) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP, ?, \
                     (SELECT coalesce(max(seq), 0) + 1 FROM jobs))",
                    params![
                        id,
                        new.kind,
                        new.payload.to_string(),
                        new.max_attempts,
                        new.idempotency_key,
                        new.concurrency_key,
                        stamp(new.run_after),
                        stamp(now),
                        new.created_by
                    ],
                )?;
                match get(conn, &id)? {
                    Some(job) => Ok((job, true)),
                    None => refuse(JobError::NotFound { id }),
                }
            })
            .await
    }

    async fn claim(&self, kinds: &[&str], worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>> {
        if kinds.is_empty() {
            return Ok(None);
        }
        let (kinds, worker): (Vec<String>, _) = (kinds.iter().map(ToString::to_string).collect(), worker.to_owned());
        self.0
            .write("take a job", move |conn| {
                let filter = format!("kind IN ({})", vec!["?"; kinds.len()].join(", "));
                claim(conn, &filter, &kinds, &worker, lease, now)
            })
            .await
    }

    async fn claim_one(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<Option<Job>> {
        let (id, worker) = (id.to_owned(), worker.to_owned());
        self.0.write("take a job", move |conn| claim(conn, "id = ?", &[id], &worker, lease, now)).await
    }

    async fn extend(&self, id: &str, worker: &str, lease: Duration, now: DateTime<Utc>) -> Result<bool> {
        let (id, worker) = (id.to_owned(), worker.to_owned());
        self.0
            .write("prolong a lease", move |conn| {
                let changed = conn.execute(
                    "UPDATE jobs SET lease_until = ?::TIMESTAMP WHERE id = ? AND lease_owner = ? AND state = 'running'",
                    params![until(now, lease), id, worker],
                )?;
                Ok(changed > 0)
            })
            .await
    }

    async fn succeed(&self, id: &str, worker: &str, outcome: &Value, now: DateTime<Utc>) -> Result<()> {
        let (id, worker, outcome) = (id.to_owned(), worker.to_owned(), outcome.to_string());
        self.0
            .write("end a job", move |conn| {
                held(conn, &id, &worker)?;
                conn.execute(
                    "UPDATE jobs SET state = 'succeeded', finished_at = ?::TIMESTAMP, outcome = ?, error = NULL, lease_owner = NULL, \
                     lease_until = NULL WHERE id = ?",
                    params![stamp(now), outcome, id],
                )?;
                Ok(())
            })
            .await
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
        let (id, worker, error, outcome) =
            (id.to_owned(), worker.to_owned(), error.to_owned(), outcome.map(ToString::to_string));
        self.0
            .write("end a job", move |conn| {
                let job = held(conn, &id, &worker)?;
                let again = retry_at.filter(|_| job.attempts < job.max_attempts);
                let state = if again.is_some() { JobState::Queued } else { JobState::Failed };
                conn.execute(
                    "UPDATE jobs SET state = ?, error = ?, outcome = ?, finished_at = ?::TIMESTAMP, \
                     run_after = coalesce(?::TIMESTAMP, run_after), lease_owner = NULL, lease_until = NULL WHERE id = ?",
                    params![
                        state.as_str(),
                        error,
                        outcome,
                        again.is_none().then(|| stamp(now)),
                        stamp_opt(again),
                        id
                    ],
                )?;
                Ok(())
            })
            .await
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
        let (id, worker, outcome) = (id.to_owned(), worker.to_owned(), outcome.to_string());
        let error = error.map(str::to_owned);
        self.0
            .write("put a job back", move |conn| {
                held(conn, &id, &worker)?;
                conn.execute(
                    "UPDATE jobs SET state = 'queued', attempts = 0, created_at = ?::TIMESTAMP, run_after = ?::TIMESTAMP, \
                     outcome = ?, error = ?, lease_owner = NULL, lease_until = NULL WHERE id = ?",
                    params![stamp(now), stamp(run_after), outcome, error, id],
                )?;
                Ok(())
            })
            .await
    }

    async fn cancel(&self, id: &str, now: DateTime<Utc>) -> Result<bool> {
        let id = id.to_owned();
        self.0
            .write("cancel a job", move |conn| {
                let changed = conn.execute(
                    "UPDATE jobs SET state = 'cancelled', finished_at = ?::TIMESTAMP, lease_owner = NULL, lease_until = NULL \
                     WHERE id = ? AND state IN ('queued', 'running')",
                    params![stamp(now), id],
                )?;
                Ok(changed > 0)
            })
            .await
    }

    async fn get(&self, id: &str) -> Result<Option<Job>> {
        let id = id.to_owned();
        self.0.read("read a job", move |conn| get(conn, &id)).await
    }

    async fn list(&self, kind: Option<&str>, states: &[JobState], limit: usize) -> Result<Vec<Job>> {
        let kind = kind.map(str::to_owned);
        let states: Vec<String> = states.iter().map(|s| format!("'{}'", s.as_str())).collect();
        self.0
            .read("list the jobs", move |conn| {
                let among = if states.is_empty() { "true".to_owned() } else { format!("state IN ({})", states.join(", ")) };
                let sql = format!(
                    "SELECT {COLUMNS} FROM jobs WHERE (? IS NULL OR kind = ?) AND {among} ORDER BY seq DESC LIMIT {limit}"
                );
                conn.prepare(&sql)?.query_map(params![kind, kind], job)?.collect()
            })
            .await
    }

    async fn release_all(&self, worker_prefix: &str, _now: DateTime<Utc>) -> Result<usize> {
        let prefix = worker_prefix.to_owned();
        self.0
            .write("put jobs back", move |conn| {
                Ok(conn.execute(
                    "UPDATE jobs SET state = 'queued', lease_owner = NULL, lease_until = NULL \
                     WHERE state = 'running' AND starts_with(coalesce(lease_owner, ''), ?)",
                    [prefix],
                )?)
            })
            .await
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<usize> {
        self.0
            .write("delete old jobs", move |conn| {
                Ok(conn.execute(
                    "DELETE FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?::TIMESTAMP",
                    [stamp(before)],
                )?)
            })
            .await
    }
}

//! Profiles are made in the background: a publication that changed content queues one
//! durable job; a kill leaves it to the next process.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Made, profile_changed, stale};
use crate::engine::Engine;
use crate::error::Result;
use crate::sync::{Heart, LEASE, NewJob};

/// Kind of the jobs that make profiles.
pub const PROFILE_JOB: &str = "profile";

/// Every attempt keeps the profiles it made, so being cut off often is no failure.
const ATTEMPTS: i32 = 1000;

/// Queues the profiles that the published generation lacks, if any, and starts on them.
/// What fails is logged: a publication never fails for its profiles.
pub(crate) async fn after_publication(engine: &Engine) {
    let queued = async {
        let generation = engine.generation();
        if stale(engine, &generation).await?.is_empty() {
            return Ok(false);
        }
        let now = engine.clock().now();
        let job = NewJob {
            kind: PROFILE_JOB.to_owned(),
            payload: json!({"generation": generation.number}),
            max_attempts: ATTEMPTS,
            // One job for each publication: one that runs already may have looked before it.
            idempotency_key: Some(generation.number.to_string()),
            concurrency_key: Some(PROFILE_JOB.to_owned()),
            run_after: now,
            created_by: None,
        };
        engine.store().jobs().enqueue(job, now).await.map(|_| true)
    };
    match queued.await {
        Ok(true) => start(engine),
        Ok(false) => {}
        Err(error) => tracing::error!(code = error.code(), "profiles could not be queued: {error}"),
    }
}

/// Works on the profiles that wait, in the background.
pub(crate) fn start(engine: &Engine) {
    let work = work_logged(engine.clone());
    engine.sync_runs().spawn(work);
}

/// Waits until no profile waits.
pub(crate) async fn finish(engine: &Engine) {
    let (tell, told) = oneshot::channel::<()>();
    let work = work_logged(engine.clone());
    engine.sync_runs().spawn(async move {
        work.await;
        drop(tell);
    });
    // Ended either way when the sender is gone.
    let _ = told.await;
}

async fn work_logged(engine: Engine) {
    if let Err(error) = work(&engine).await {
        tracing::error!(code = error.code(), "profiles could not be made: {error}");
    }
}

/// Runs the jobs that wait, one after another.
async fn work(engine: &Engine) -> Result<()> {
    let _only_one = engine.profiles().worker.lock().await;
    let jobs = engine.store().jobs();
    let worker = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    while !engine.sync_runs().is_stopping() {
        let Some(job) = jobs.claim(&[PROFILE_JOB], &worker, LEASE, engine.clock().now()).await? else { break };
        let cancel = engine.sync_runs().begin(&job.id);
        let heart = Heart::beat(jobs.clone(), engine.clock().clone(), &job.id, &worker, &cancel);
        let made = profile_changed(engine, &engine.generation(), &cancel).await;
        drop(heart);
        engine.sync_runs().end(&job.id);
        // Cut off by a shutdown, or taken over: whoever comes next goes on.
        if cancel.is_cancelled() {
            break;
        }
        let now = engine.clock().now();
        match made {
            Ok(made) => jobs.succeed(&job.id, &worker, &outcome(&made), now).await?,
            Err(error) => jobs.fail(&job.id, &worker, &error.to_string(), None, None, now).await?,
        }
    }
    Ok(())
}

fn outcome(made: &Made) -> Value {
    json!({"made": made.made, "failed": made.failed})
}

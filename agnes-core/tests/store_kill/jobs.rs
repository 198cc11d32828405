//! A job that was acknowledged survives a kill before or after every commit.

use agnes_core::store::Store;
use agnes_core::store::duckdb::DuckStore;
use agnes_core::sync::{JobState, NewJob};
use chrono::Utc;
use serde_json::json;
use std::time::Duration;

use crate::{child, state_of_child};

fn new(key: &str) -> NewJob {
    NewJob {
        kind: "sync".into(),
        payload: json!({"key": key}),
        max_attempts: 3,
        idempotency_key: Some(key.into()),
        concurrency_key: None,
        run_after: Utc::now(),
        created_by: Some("ann".into()),
    }
}

/// The child: a life of jobs; each line says what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn working_child() {
    let Some(path) = state_of_child() else { return };
    let store = DuckStore::open(&path, Utc::now()).unwrap();
    let (jobs, lease, now) = (store.jobs(), Duration::from_secs(600), Utc::now);
    let mut ids = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let (job, _) = jobs.enqueue(new(key), now()).await.unwrap();
        println!("\n{} queued", job.id);
        ids.push(job.id);
    }
    for id in &ids {
        jobs.claim_one(id, "dead", lease, now()).await.unwrap().unwrap();
        println!("\n{id} running");
    }
    assert!(jobs.extend(&ids[0], "dead", lease, now()).await.unwrap());
    jobs.succeed(&ids[0], "dead", &json!({"rows": 7}), now()).await.unwrap();
    println!("\n{} succeeded", ids[0]);
    jobs.fail(&ids[1], "dead", "no", None, None, now()).await.unwrap();
    println!("\n{} failed", ids[1]);
    jobs.cancel(&ids[2], now()).await.unwrap();
    println!("\n{} cancelled", ids[2]);
    println!("\nall");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_job_is_lost_at_any_commit() {
    let mut killed = 0;
    for n in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        let done = child("jobs::working_child", &path, format!("{n}:commit")).output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let finished = said.lines().any(|line| line == "all");
        assert!(finished || !done.status.success(), "{said}");
        assert!(!String::from_utf8_lossy(&done.stderr).contains("panicked"), "at commit {n}: {said}");

        let store = DuckStore::open(&path, Utc::now()).unwrap();
        let jobs = store.jobs();
        // The last word on each job is at least what is there.
        let acknowledged = said.lines().filter_map(|line| line.split_once(' ')).filter(|(id, _)| id.len() == 32);
        for (id, state) in acknowledged {
            let job = jobs.get(id).await.unwrap().unwrap_or_else(|| panic!("at commit {n} a job is lost: {said}"));
            assert_eq!(job.created_by.as_deref(), Some("ann"));
            let at_least = match state {
                "queued" => true,
                "running" => job.state != JobState::Queued,
                state => job.state.as_str() == state,
            };
            assert!(at_least, "at commit {n} a job that was {state} is {:?}", job.state);
            assert!(state != "succeeded" || job.outcome == Some(json!({"rows": 7})));
        }
        // Whatever was cut off goes on in the next process, and nothing runs twice at once.
        jobs.release_all("", Utc::now()).await.unwrap();
        assert_eq!(jobs.list(None, &[JobState::Running], 9).await.unwrap(), []);
        for job in jobs.list(None, &[JobState::Queued], 9).await.unwrap() {
            let key = job.payload["key"].as_str().unwrap().to_owned();
            let (same, is_new) = jobs.enqueue(new(&key), Utc::now()).await.unwrap();
            assert!(!is_new && same.id == job.id, "asked for again, it is the same job");
            jobs.claim_one(&job.id, "next", Duration::from_secs(60), Utc::now()).await.unwrap().unwrap();
            jobs.succeed(&job.id, "next", &json!(1), Utc::now()).await.unwrap();
        }
        assert_eq!(jobs.list(None, &[JobState::Queued, JobState::Running], 9).await.unwrap(), []);
        store.close().await.unwrap();
        if finished {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 20, "only {killed} commits were reached");
}

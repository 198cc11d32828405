//! Durable jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{at, refused};
use crate::store::Store;
use crate::sync::{JobState, NewJob};

const LEASE: Duration = Duration::from_secs(60);

fn job(kind: &str) -> NewJob {
    NewJob {
        kind: kind.into(),
        payload: json!({"a": "it's"}),
        max_attempts: 2,
        idempotency_key: None,
        concurrency_key: None,
        run_after: at(0),
        created_by: Some("u1".into()),
    }
}

pub(super) async fn run(store: &dyn Store) {
    life(store).await;
    leases(store).await;
    keys(store).await;
    many_workers(store).await;
    comes_back(store).await;
}

async fn life(store: &dyn Store) {
    let jobs = store.jobs();
    let (queued, new) = jobs.enqueue(job("x"), at(0)).await.unwrap();
    assert!(new && queued.state == JobState::Queued && queued.attempts == 0 && queued.payload == json!({"a": "it's"}));
    assert_eq!(jobs.get(&queued.id).await.unwrap(), Some(queued.clone()));
    assert_eq!(jobs.get("none").await.unwrap(), None);
    // Not of this kind, not yet due.
    assert_eq!(jobs.claim(&["y"], "w1", LEASE, at(1)).await.unwrap(), None);
    assert_eq!(jobs.claim(&[], "w1", LEASE, at(1)).await.unwrap(), None);
    let first = jobs.claim(&["y", "x"], "w1", LEASE, at(1)).await.unwrap().unwrap();
    assert_eq!((first.state, first.attempts, first.lease_until), (JobState::Running, 1, Some(at(61))));
    assert_eq!(first.started_at, Some(at(1)));
    assert_eq!(jobs.claim(&["x"], "w2", LEASE, at(2)).await.unwrap(), None);
    assert_eq!(jobs.claim_one(&queued.id, "w2", LEASE, at(2)).await.unwrap(), None);
    refused(jobs.succeed(&queued.id, "w2", &json!(1), at(3)).await, "lease_lost");
    refused(jobs.fail(&queued.id, "w2", "no", None, None, at(3)).await, "lease_lost");
    // A failed attempt waits for its time.
    jobs.fail(&queued.id, "w1", "bad", Some(&json!({"t": 1})), Some(at(10)), at(3)).await.unwrap();
    let waiting = jobs.get(&queued.id).await.unwrap().unwrap();
    assert_eq!((waiting.state, waiting.run_after, waiting.lease_owner), (JobState::Queued, at(10), None));
    assert_eq!((waiting.error.as_deref(), waiting.outcome), (Some("bad"), Some(json!({"t": 1}))));
    assert_eq!(jobs.claim_one(&queued.id, "w1", LEASE, at(9)).await.unwrap(), None);
    jobs.claim_one(&queued.id, "w1", LEASE, at(10)).await.unwrap().unwrap();
    // No attempt left: a retry is refused.
    jobs.fail(&queued.id, "w1", "worse", None, Some(at(20)), at(11)).await.unwrap();
    let failed = jobs.get(&queued.id).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.finished_at), (JobState::Failed, Some(at(11))));
    refused(jobs.succeed(&queued.id, "w1", &json!(1), at(12)).await, "lease_lost");
    assert!(!jobs.cancel(&queued.id, at(12)).await.unwrap());

    let (second, _) = jobs.enqueue(job("x"), at(5)).await.unwrap();
    jobs.claim_one(&second.id, "w1", LEASE, at(13)).await.unwrap().unwrap();
    jobs.succeed(&second.id, "w1", &json!({"done": true}), at(14)).await.unwrap();
    let done = jobs.get(&second.id).await.unwrap().unwrap();
    assert_eq!((done.state, done.outcome, done.lease_until), (JobState::Succeeded, Some(json!({"done": true})), None));
    let (third, _) = jobs.enqueue(job("x"), at(2)).await.unwrap();
    jobs.claim_one(&third.id, "w1", LEASE, at(15)).await.unwrap().unwrap();
    assert!(jobs.cancel(&third.id, at(15)).await.unwrap());
    assert!(!jobs.cancel("none", at(15)).await.unwrap());
    refused(jobs.succeed(&third.id, "w1", &json!(1), at(15)).await, "lease_lost");
    assert!(!jobs.extend(&third.id, "w1", LEASE, at(15)).await.unwrap());

    // Newest first is the order of arrival, whatever the clock said.
    let ids = |jobs: Vec<crate::sync::Job>| jobs.into_iter().map(|j| j.id).collect::<Vec<_>>();
    assert_eq!(ids(jobs.list(None, &[], 9).await.unwrap()), [&*third.id, &*second.id, &*queued.id]);
    assert_eq!(
        ids(jobs.list(Some("x"), &[JobState::Failed, JobState::Cancelled], 9).await.unwrap()),
        [&*third.id, &*queued.id]
    );
    assert_eq!(jobs.list(Some("y"), &[], 9).await.unwrap().len(), 0);
    assert_eq!(jobs.list(None, &[], 1).await.unwrap().len(), 1);
    assert_eq!(jobs.prune(at(14)).await.unwrap(), 1);
    assert_eq!(jobs.prune(at(1000)).await.unwrap(), 2);
}

async fn leases(store: &dyn Store) {
    let jobs = store.jobs();
    let (a, _) = jobs.enqueue(job("l"), at(0)).await.unwrap();
    jobs.claim(&["l"], "dead-1", LEASE, at(0)).await.unwrap().unwrap();
    assert!(jobs.extend(&a.id, "dead-1", LEASE, at(30)).await.unwrap());
    assert!(!jobs.extend(&a.id, "w2", LEASE, at(30)).await.unwrap());
    assert_eq!(jobs.claim(&["l"], "w2", LEASE, at(61)).await.unwrap(), None);
    // It ran out: somebody else goes on, and the first has lost it.
    let taken = jobs.claim(&["l"], "w2", LEASE, at(91)).await.unwrap().unwrap();
    assert_eq!((taken.id.as_str(), taken.attempts), (a.id.as_str(), 2));
    refused(jobs.succeed(&a.id, "dead-1", &json!(1), at(92)).await, "lease_lost");
    // It ran out again, and no attempt is left.
    assert_eq!(jobs.claim(&["l"], "w3", LEASE, at(500)).await.unwrap(), None);
    let failed = jobs.get(&a.id).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.finished_at), (JobState::Failed, Some(at(500))));
    assert!(failed.error.is_some());

    // At a start, the jobs of dead workers go back at once, also when the clock went backwards.
    let (b, _) = jobs.enqueue(job("l"), at(500)).await.unwrap();
    let (c, _) = jobs.enqueue(job("l"), at(500)).await.unwrap();
    jobs.claim_one(&b.id, "dead-1", LEASE, at(500)).await.unwrap().unwrap();
    jobs.claim_one(&c.id, "live-1", LEASE, at(500)).await.unwrap().unwrap();
    assert_eq!(jobs.release_all("dead-", at(-100)).await.unwrap(), 1);
    let again = jobs.claim(&["l"], "live-2", LEASE, at(-100)).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts), (b.id, 2));
    assert_eq!(jobs.claim(&["l"], "live-2", LEASE, at(-100)).await.unwrap(), None);
    assert_eq!(jobs.release_all("live-", at(0)).await.unwrap(), 2);
    for job in jobs.list(None, &[JobState::Queued], 9).await.unwrap() {
        jobs.cancel(&job.id, at(0)).await.unwrap();
    }
}

async fn keys(store: &dyn Store) {
    let jobs = store.jobs();
    let keyed = |kind: &str, key: &str| NewJob { idempotency_key: Some(key.into()), ..job(kind) };
    let (a, new) = jobs.enqueue(keyed("k", "1"), at(0)).await.unwrap();
    assert!(new);
    let (again, new) = jobs.enqueue(keyed("k", "1"), at(1)).await.unwrap();
    assert!(!new && again == a);
    assert!(jobs.enqueue(keyed("other", "1"), at(1)).await.unwrap().1);
    jobs.claim_one(&a.id, "w", LEASE, at(1)).await.unwrap().unwrap();
    assert!(!jobs.enqueue(keyed("k", "1"), at(2)).await.unwrap().1);
    jobs.succeed(&a.id, "w", &json!(null), at(2)).await.unwrap();
    let (b, new) = jobs.enqueue(keyed("k", "1"), at(3)).await.unwrap();
    assert!(new && b.id != a.id);
    // Many callers at once: one job.
    let calls = (0..16).map(|_| jobs.enqueue(keyed("k", "many"), at(4)));
    let made = futures::future::join_all(calls).await.into_iter().map(|r| r.unwrap()).collect::<Vec<_>>();
    assert_eq!(made.iter().filter(|(_, new)| *new).count(), 1);
    assert_eq!(made.iter().map(|(job, _)| &job.id).collect::<BTreeSet<_>>().len(), 1);

    let one = |key: &str| NewJob { concurrency_key: Some(key.into()), ..job("c") };
    let (first, _) = jobs.enqueue(one("s"), at(0)).await.unwrap();
    let (second, _) = jobs.enqueue(one("s"), at(0)).await.unwrap();
    let (third, _) = jobs.enqueue(one("t"), at(0)).await.unwrap();
    let claim = |now: i64| jobs.claim(&["c"], "w", LEASE, at(now));
    assert_eq!(claim(1).await.unwrap().unwrap().id, first.id);
    assert_eq!(claim(1).await.unwrap().unwrap().id, third.id);
    assert_eq!(claim(1).await.unwrap(), None);
    assert_eq!(jobs.claim_one(&second.id, "w", LEASE, at(1)).await.unwrap(), None);
    jobs.succeed(&first.id, "w", &json!(1), at(2)).await.unwrap();
    assert_eq!(claim(3).await.unwrap().unwrap().id, second.id);
    // The key holds across kinds, asked for by kind and by id.
    let (other, _) = jobs.enqueue(NewJob { concurrency_key: Some("s".into()), ..job("d") }, at(3)).await.unwrap();
    assert_eq!(jobs.claim(&["d"], "w", LEASE, at(3)).await.unwrap(), None);
    assert_eq!(jobs.claim_one(&other.id, "w", LEASE, at(3)).await.unwrap(), None);
    jobs.cancel(&other.id, at(3)).await.unwrap();
    // A dead lease does not block its key.
    let (fourth, _) = jobs.enqueue(one("s"), at(4)).await.unwrap();
    assert_eq!(jobs.claim_one(&fourth.id, "w", LEASE, at(5)).await.unwrap(), None);
    assert!(jobs.claim_one(&fourth.id, "w", LEASE, at(64)).await.unwrap().is_some());
}

/// Every job goes to one worker.
async fn many_workers(store: &dyn Store) {
    let jobs = store.jobs();
    for _ in 0..60 {
        jobs.enqueue(job("many"), at(0)).await.unwrap();
    }
    let mut workers = tokio::task::JoinSet::new();
    for w in 0..8 {
        let jobs = jobs.clone();
        workers.spawn(async move {
            let mut mine = Vec::new();
            while let Some(job) = jobs.claim(&["many"], &format!("w{w}"), LEASE, at(1)).await.unwrap() {
                mine.push(job.id);
            }
            mine
        });
    }
    let taken = workers.join_all().await.concat();
    assert_eq!(taken.len(), 60);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 60);
}

/// One row of a job that comes back: never two runs at a time, and none before its time,
/// however many workers ask at once.
async fn comes_back(store: &dyn Store) {
    let jobs = store.jobs();
    let (row, _) = jobs.enqueue(NewJob { max_attempts: i32::MAX, ..job("again") }, at(0)).await.unwrap();
    refused(jobs.again(&row.id, "w0", &json!(1), None, at(9), at(1)).await, "lease_lost");
    for round in 0..4 {
        let now = at(round * 100);
        let claims = (0..8).map(|w| {
            let jobs = jobs.clone();
            async move {
                let worker = format!("w{w}");
                jobs.claim(&["again"], &worker, LEASE, now).await.unwrap().map(|job| (worker, job))
            }
        });
        let taken: Vec<_> = futures::future::join_all(claims).await.into_iter().flatten().collect();
        assert_eq!(taken.len(), 1, "round {round}");
        let (worker, job) = &taken[0];
        assert_eq!((job.id.as_str(), job.attempts, job.started_at), (row.id.as_str(), 1, Some(now)));
        let (ended, due) = (at(round * 100 + 1), at(round * 100 + 100));
        refused(jobs.again(&row.id, "other", &json!(1), None, due, ended).await, "lease_lost");
        let error = (round == 0).then_some("it's bad");
        jobs.again(&row.id, worker, &json!({"n": round}), error, due, ended).await.unwrap();
        let kept = jobs.get(&row.id).await.unwrap().unwrap();
        assert_eq!((kept.state, kept.run_after, kept.started_at), (JobState::Queued, due, Some(now)));
        assert_eq!((kept.error.as_deref(), kept.outcome), (error, Some(json!({"n": round}))));
        assert_eq!((kept.lease_owner, kept.finished_at, kept.created_at), (None, None, ended));
        assert_eq!(jobs.claim(&["again"], "w9", LEASE, at(round * 100 + 99)).await.unwrap(), None);
    }
    jobs.cancel(&row.id, at(500)).await.unwrap();
}

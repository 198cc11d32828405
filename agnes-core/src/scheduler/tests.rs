//! What is due runs once, whoever looks and however often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{TimeDelta, TimeZone as _, Utc};

use super::*;
use crate::clock::{Clock as _, FixedClock};
use crate::store::Store as _;
use crate::store::memory::MemoryStore;

const OFFSET: &str = "SCHEDULER_BQ_METADATA_INITIAL_OFFSET_MAX_SECONDS";

/// Those of an environment, where nothing waits for its first run unless it says so.
fn settings(pairs: &[(&str, &str)]) -> Result<SchedulerSettings> {
    let pairs = pairs.iter().chain(&[(OFFSET, "0")]);
    let pairs: Vec<(String, String)> = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    SchedulerSettings::from_env(&move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
}

#[test]
fn intervals_are_checked_and_rounded() {
    let usual = settings(&[]).unwrap();
    assert_eq!((usual.tick.as_secs(), usual.grace.as_secs(), usual.jobs.len()), (30, 60, JOBS.len()));
    for (seconds, wanted) in [("90", "every 2m"), ("60", "every 1m"), ("7200", "every 2h"), ("3660", "every 61m")] {
        let made = settings(&[("SCHEDULER_DATA_REFRESH_INTERVAL", seconds)]).unwrap();
        assert_eq!(Some(made.jobs[0].schedule.clone()), crate::schedule::Schedule::parse(wanted), "{seconds}");
    }
    assert_eq!(settings(&[("SCHEDULER_STARTUP_GRACE_SECONDS", "0")]).unwrap().grace, Duration::ZERO);
    for variable in ["SCHEDULER_TICK_SECONDS", "SCHEDULER_DATA_REFRESH_INTERVAL", "SCHEDULER_HEALTH_CHECK_INTERVAL"] {
        for bad in ["", " ", "0", "-1", "x", "1.5", "99999999999"] {
            let error = settings(&[(variable, bad)]).unwrap_err();
            assert_eq!(error.code(), "scheduler_setting_invalid", "{variable}={bad}");
            assert!(error.to_string().contains(variable));
        }
    }
    assert_eq!(settings(&[("SCHEDULER_STARTUP_GRACE_SECONDS", "-1")]).unwrap_err().code(), "scheduler_setting_invalid");
    for pairs in [
        &[("SCHEDULER_TICK_SECONDS", "301")] as &[(&str, &str)],
        &[("SCHEDULER_TICK_SECONDS", "31"), ("SCHEDULER_DATA_REFRESH_INTERVAL", "30")],
    ] {
        assert_eq!(settings(pairs).unwrap_err().code(), "scheduler_tick_too_long");
    }
    assert_eq!(settings(&[(OFFSET, "-1")]).unwrap_err().code(), "scheduler_setting_invalid");
    let every = |name: &str| JOBS.iter().find(|job| job.name == name).map(|job| job.schedule);
    assert_eq!((every("jira-sla-poll"), every("jira-consistency")), (Some("every 5m"), Some("every 6h")));
    for job in JOBS {
        assert!(crate::schedule::Schedule::parse(job.schedule).is_some(), "{}", job.name);
    }
}

/// Counts the calls, and how many of one job were made at the same time.
struct Calls {
    refreshes: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    gate: tokio::sync::Semaphore,
    status: AtomicUsize,
}

#[async_trait]
impl Perform for Calls {
    async fn perform(&self, job: &ScheduledJob) -> Result<JobAnswer, String> {
        if job.name == "data-refresh" {
            self.refreshes.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            let _turn = self.gate.acquire().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
        }
        match self.status.load(Ordering::SeqCst) {
            0 => Err("nobody there".to_owned()),
            status => Ok(JobAnswer { status: status as u16, body: "no".repeat(200) }),
        }
    }
}

struct Stage {
    store: MemoryStore,
    clock: Arc<FixedClock>,
    calls: Arc<Calls>,
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(FixedClock::at(Utc.timestamp_opt(1_800_000_000, 0).unwrap()));
        let calls = Arc::new(Calls {
            refreshes: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            gate: tokio::sync::Semaphore::new(0),
            status: AtomicUsize::new(200),
        });
        Self { store: MemoryStore::new(), clock, calls }
    }

    fn scheduler(&self, pairs: &[(&str, &str)]) -> Scheduler {
        Scheduler::over(self.store.jobs(), self.clock.clone(), settings(pairs).unwrap(), self.calls.clone())
    }

    fn wait(&self, seconds: i64) {
        self.clock.set(self.clock.now() + TimeDelta::seconds(seconds));
    }

    fn refreshes(&self) -> usize {
        self.calls.refreshes.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn overlapping_ticks_of_two_workers_run_a_job_once() {
    let stage = Stage::new();
    let (one, two) = (stage.scheduler(&[]), stage.scheduler(&[]));
    let (a, b, c) = tokio::join!(one.tick(), two.tick(), one.tick());
    assert_eq!(a.unwrap() + b.unwrap() + c.unwrap(), JOBS.len());
    // As long as a run goes on, it is not started again, however late it is.
    for _ in 0..5 {
        stage.wait(10);
        assert_eq!(one.tick().await.unwrap() + two.tick().await.unwrap(), 0);
    }
    stage.calls.gate.add_permits(100);
    one.finish().await;
    two.finish().await;
    assert_eq!(stage.refreshes(), 1);
    // Ended just now, but begun 50 seconds ago: that counts.
    stage.wait(849);
    one.tick().await.unwrap();
    one.finish().await;
    assert_eq!(stage.refreshes(), 1);
    stage.wait(1);
    let (a, b) = tokio::join!(one.tick(), two.tick());
    a.unwrap();
    b.unwrap();
    one.finish().await;
    two.finish().await;
    assert_eq!((stage.refreshes(), stage.calls.most_at_once.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn what_fails_waits_for_its_next_turn_and_what_runs_elsewhere_is_no_failure() {
    let stage = Stage::new();
    stage.calls.gate.add_permits(100);
    let scheduler = stage.scheduler(&[]);
    for (status, failed) in [(500, true), (0, true), (409, false), (200, false)] {
        stage.calls.status.store(status, Ordering::SeqCst);
        let before = stage.refreshes();
        for _ in 0..3 {
            scheduler.tick().await.unwrap();
            scheduler.finish().await;
        }
        assert_eq!(stage.refreshes(), before + 1, "{status}");
        let rows = stage.store.jobs().list(Some(SCHEDULED_JOB), &[], 99).await.unwrap();
        assert_eq!(rows.len(), JOBS.len());
        assert!(rows.iter().all(|row| row.error.is_some() == failed), "{status}: {rows:?}");
        // As long as the longest interval.
        stage.wait(6 * 3600);
    }
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_and_takes_new_intervals() {
    let stage = Stage::new();
    stage.calls.gate.add_permits(100);
    let run = async |pairs: &[(&str, &str)]| {
        let scheduler = stage.scheduler(pairs);
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
        stage.refreshes()
    };
    assert_eq!(run(&[]).await, 1);
    stage.wait(600);
    assert_eq!(run(&[]).await, 1);
    // A shorter interval counts from the last run on.
    assert_eq!(run(&[("SCHEDULER_DATA_REFRESH_INTERVAL", "660")]).await, 1);
    stage.wait(60);
    assert_eq!(run(&[("SCHEDULER_DATA_REFRESH_INTERVAL", "660")]).await, 2);
    // A clock that was set back by a day must not keep it waiting for a day, nor run it at every look.
    stage.wait(-86_400);
    assert_eq!(run(&[]).await, 3);
    assert_eq!(run(&[]).await, 3);
}

#[tokio::test]
async fn the_first_look_at_warehouses_waits_for_a_while_that_varies() {
    let delays: std::collections::BTreeSet<i64> = (0..40)
        .map(|_| {
            let made = settings(&[(OFFSET, "600")]).unwrap();
            let waits: Vec<_> = made.jobs.iter().filter(|one| one.first_after > TimeDelta::zero()).collect();
            assert!(waits.iter().all(|one| one.job.name == "bq-metadata-refresh"));
            waits.first().map_or(0, |one| one.first_after.num_seconds())
        })
        .collect();
    assert!(delays.len() > 10 && delays.iter().all(|seconds| *seconds <= 600), "{delays:?}");
    let stage = Stage::new();
    stage.calls.gate.add_permits(100);
    let mut made = settings(&[]).unwrap();
    made.jobs.iter_mut().filter(|one| one.job.first_within.is_some()).for_each(|one| {
        one.first_after = TimeDelta::seconds(100);
    });
    let scheduler = Scheduler::over(stage.store.jobs(), stage.clock.clone(), made, stage.calls.clone());
    for (wait, runs) in [(0, JOBS.len() - 1), (99, 0), (1, 1), (100, 0)] {
        stage.wait(wait);
        assert_eq!(scheduler.tick().await.unwrap(), runs, "{wait}");
        scheduler.finish().await;
    }
}

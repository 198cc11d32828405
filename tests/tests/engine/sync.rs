//! Runs: outcomes per table, isolation, deadlines, cancellation, schedules, drift.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agnes_core::Engine;
use agnes_core::clock::FixedClock;
use agnes_core::config::Config;
use agnes_core::connector::{
    Cancelled, Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, Progress,
    SourceContext,
};
use agnes_core::error::{Coded, ErrorKind, Result};
use agnes_core::extract::TableWriter;
use agnes_core::ident::TableName;
use agnes_core::registry::NewSource;
use agnes_core::scheduler::{JobAnswer, Perform, ScheduledJob, Scheduler, SchedulerSettings};
use agnes_core::sync::{JobState, SyncRequest, TableStatus};
use agnes_core::testing::{Behaviour, TestConnector};

use crate::support::{Site, add_files, cell, outcome, owner, rows, sync, sync_with};

#[tokio::test(flavor = "multi_thread")]
async fn files_become_answers_and_changes_arrive() {
    let site = Site::new();
    site.write("orders.csv", "id,city,amount\n1,Brno,10.5\n2,Praha,7\n");
    site.write("customers.csv", "id,name\n1,Ann\n");
    let engine = site.open_with_source().await;
    let run = sync(&engine).await;
    assert_eq!(outcome(&run, "orders").status, TableStatus::Ok);
    assert_eq!((outcome(&run, "orders").rows, run.generation, run.partial), (2, 1, false));
    assert_eq!(cell(&engine, &owner(), "SELECT sum(amount) FROM orders").await.unwrap(), "17.5");

    let again = sync(&engine).await;
    assert_eq!(outcome(&again, "orders").status, TableStatus::Unchanged);
    assert_eq!(again.generation, 1, "nothing changed, nothing is published");

    site.write("orders.csv", "id,city,amount\n1,Brno,10.5\n2,Praha,7\n3,Brno,1\n");
    let changed = sync(&engine).await;
    assert_eq!(outcome(&changed, "orders").status, TableStatus::Ok);
    assert_eq!(outcome(&changed, "customers").status, TableStatus::Unchanged);
    assert_eq!(changed.generation, 2);
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "3");
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM customers").await.unwrap(), "1");

    let state = engine.sync().state(&owner()).await.unwrap();
    let orders = state.iter().find(|s| s.table_id == "orders").unwrap();
    assert_eq!(orders.rows, Some(3));
    let history = engine.sync().history(&owner(), "orders", 10).await.unwrap();
    assert_eq!(history.len(), 2, "one row for each run that brought something: {history:?}");
    engine.close().await.unwrap();

    let engine = site.open().await;
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_stops_no_other_and_keeps_its_last_good_data() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    site.write("customers.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;

    site.write("orders.csv", "");
    site.write("customers.csv", "id\n1\n2\n");
    let run = sync(&engine).await;
    let orders = outcome(&run, "orders");
    assert_eq!(orders.status, TableStatus::Error);
    assert!(orders.error.is_some() && orders.reason.is_some());
    assert!(run.partial);
    assert_eq!(outcome(&run, "customers").rows, 2);
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "2");
    let state = engine.sync().state(&owner()).await.unwrap();
    let state = state.iter().find(|s| s.table_id == "orders").unwrap();
    assert_eq!((state.status.as_str(), state.rows), ("error", Some(2)));

    site.write("orders.csv", "id\n9\n");
    let run = sync(&engine).await;
    assert_eq!(outcome(&run, "orders").status, TableStatus::Ok);
    let state = engine.sync().state(&owner()).await.unwrap();
    let state = state.iter().find(|s| s.table_id == "orders").unwrap();
    assert_eq!((state.status.as_str(), state.error.as_deref().unwrap_or("")), ("ok", ""));
}

/// Calls nothing.
struct Nobody;

#[async_trait::async_trait]
impl Perform for Nobody {
    async fn perform(&self, _job: &ScheduledJob) -> std::result::Result<JobAnswer, String> {
        Ok(JobAnswer { status: 200, body: String::new() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_schedule_is_tried_again_by_the_next_run_of_the_scheduler() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let start: chrono::DateTime<chrono::Utc> = "2026-03-01T10:00:00Z".parse().unwrap();
    let clock = Arc::new(FixedClock::at(start));
    let engine =
        Engine::builder(site.root()).connectors(agnes_connectors::builtin()).clock(clock.clone()).open().await.unwrap();
    add_files(&engine, "shop", &site.files()).await;
    let good = sync(&engine).await;
    assert_eq!((outcome(&good, "orders").status, outcome(&good, "orders").next_try), (TableStatus::Ok, None));
    site.write("orders.csv", "");
    let alone = sync(&engine).await;
    assert_eq!(outcome(&alone, "orders").next_try, Some(start), "nobody else runs it: by the next run");
    let settings = SchedulerSettings::from_env(&|_| None).unwrap();
    let scheduler = Scheduler::of(&engine, settings, Arc::new(Nobody));
    scheduler.tick().await.unwrap();
    scheduler.finish().await;
    clock.set(start + chrono::Duration::minutes(1));
    let run = sync(&engine).await;
    assert_eq!(outcome(&run, "orders").next_try, Some(start + chrono::Duration::minutes(15)));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_generation_while_others_are_published() {
    let site = Site::new();
    let many: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    site.write("orders.csv", &format!("id\n{many}"));
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let mut stream = engine.query(&owner(), agnes_core::query::Query::new("SELECT id FROM orders")).await.unwrap();
    let mut seen = stream.next().await.unwrap().unwrap().num_rows();
    site.write("orders.csv", "id\n1\n");
    sync(&engine).await;
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "1");
    while let Some(batch) = stream.next().await {
        seen += batch.unwrap().num_rows();
    }
    assert_eq!(seen, 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_was_deleted_is_read_again() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    site.write("parts/a.csv", "id\n1\n");
    site.write("parts/b.csv", "id\n2\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let data = site.root().join("extracts/shop/data");
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    let run = sync(&engine).await;
    for table in ["orders", "parts"] {
        assert_eq!(outcome(&run, table).status, TableStatus::Ok, "{table}");
        assert_eq!(cell(&engine, &owner(), &format!("SELECT count(*) FROM {table}")).await.unwrap(), "2");
    }
    assert_eq!(outcome(&sync(&engine).await, "orders").status, TableStatus::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_widen_are_taken_and_said() {
    let site = Site::new();
    site.write("orders.csv", "id,code\n1,10\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    site.write("orders.csv", "id,code,extra\n1,A10,x\n");
    let run = sync(&engine).await;
    let orders = outcome(&run, "orders");
    assert_ne!(orders.status, TableStatus::Unchanged);
    assert!(!orders.notes.is_empty() || orders.error.is_some(), "drift is said: {orders:?}");
    let state = engine.sync().state(&owner()).await.unwrap();
    let state = state.into_iter().find(|s| s.table_id == "orders").unwrap();
    assert!(state.drift.is_some() || state.error.is_some(), "drift is recorded: {state:?}");
}

/// A source that is away, and how it says so.
#[derive(Debug, Clone, Copy)]
struct Away {
    only_later: bool,
}

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("away")
    }
}

impl std::error::Error for Away {}

impl Coded for Away {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
    fn code(&self) -> &str {
        "away"
    }
    fn only_later_helps(&self) -> bool {
        self.only_later
    }
}

/// Reads until it is told to end, or fails, and counts how often.
#[derive(Debug)]
struct Endless(Arc<AtomicU32>, Option<Away>);

#[async_trait::async_trait]
impl Connector for Endless {
    fn kind(&self) -> &'static str {
        "endless"
    }
    fn capability(&self) -> Capability {
        Capability { discover: true, ..Capability::default() }
    }
    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        Ok(config.clone())
    }
    async fn check(&self, _: &SourceContext) -> Result<Vec<CheckItem>> {
        Ok(Vec::new())
    }
    async fn discover(&self, _: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        Ok(vec![DiscoveredTable::new(TableName::parse("long")?, "long")])
    }
    async fn extract(
        &self,
        source: &SourceContext,
        _: &ExtractRequest,
        _: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if let Some(away) = self.1 {
            return Err(away.into());
        }
        while !source.cancel.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Cancelled.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_helps_later_is_tried_once_in_a_run() {
    let away = |only_later| Some(Away { only_later });
    for (fails, reason, times) in [(None, "extract_timeout", 1), (away(true), "away", 1), (away(false), "away", 2)] {
        let site = Site::new();
        let mut config = Config::default();
        (config.sync.table_timeout, config.sync.attempts) = (Duration::from_secs(1), 2);
        let called = Arc::new(AtomicU32::new(0));
        let connectors = agnes_connectors::builtin().with(Endless(called.clone(), fails));
        let engine = Engine::builder(site.root()).config(config).connectors(connectors).open().await.unwrap();
        let (name, kind) = ("endless".to_owned(), "endless".to_owned());
        let source = NewSource { name, kind, config: serde_json::json!({}), schedule: None };
        engine.sources().add(&owner(), source).await.unwrap();
        let run = sync(&engine).await;
        assert_eq!(outcome(&run, "long").reason.as_deref(), Some(reason), "{fails:?}");
        assert_eq!(called.load(Ordering::Relaxed), times, "{fails:?}");
        engine.close().await.unwrap();
    }
}

async fn odd_engine(site: &Site, timeout: Duration) -> Engine {
    let mut config = Config::default();
    config.sync.table_timeout = timeout;
    config.sync.attempts = 1;
    let tables = [
        ("good", Behaviour::Rows("SELECT 1 AS one".into())),
        ("panics", Behaviour::Panic),
        ("sleeps", Behaviour::Sleep),
    ];
    let connectors = agnes_connectors::builtin().with(TestConnector::new("odd", tables));
    let engine = Engine::builder(site.root()).config(config).connectors(connectors).open().await.unwrap();
    let source = NewSource { name: "odd".into(), kind: "odd".into(), config: serde_json::json!({}), schedule: None };
    engine.sources().add(&owner(), source).await.unwrap();
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_and_deadlines_stay_in_their_table() {
    let site = Site::new();
    let engine = odd_engine(&site, Duration::from_secs(10)).await;
    let run = sync(&engine).await;
    assert_eq!(outcome(&run, "good").status, TableStatus::Ok);
    assert_eq!(outcome(&run, "panics").reason.as_deref(), Some("internal"));
    assert_eq!(outcome(&run, "sleeps").reason.as_deref(), Some("extract_timeout"));
    assert!(run.partial);
    assert_eq!(cell(&engine, &owner(), "SELECT one FROM good").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_and_it_can_be_cancelled() {
    let site = Site::new();
    let engine = odd_engine(&site, Duration::from_secs(60)).await;
    let both = futures::future::join(
        engine.sync().trigger(&owner(), SyncRequest::default()),
        engine.sync().trigger(&owner(), SyncRequest::default()),
    )
    .await;
    let (started, refused) = match both {
        (Ok(run), Err(error)) | (Err(error), Ok(run)) => (run, error),
        other => panic!("exactly one starts: {other:?}"),
    };
    assert_eq!(refused.code(), "sync_already_in_progress");
    // Until the sleeping table is reached there is nothing to cancel.
    for _ in 0..500 {
        if engine.sync().get(&owner(), &started.id).await.unwrap().state == JobState::Running {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(engine.sync().cancel(&owner(), &started.id).await.unwrap());
    for _ in 0..500 {
        if engine
            .sync()
            .trigger(&owner(), SyncRequest { tables: vec!["good".into()], ..SyncRequest::default() })
            .await
            .is_ok()
        {
            assert_eq!(engine.sync().get(&owner(), &started.id).await.unwrap().state, JobState::Cancelled);
            engine.close().await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the cancelled run still holds its source");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_leave_out_what_is_not_due() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let start = chrono::DateTime::parse_from_rfc3339("2026-01-01T10:00:00Z").unwrap().to_utc();
    let clock = Arc::new(FixedClock::at(start));
    let engine =
        Engine::builder(site.root()).connectors(agnes_connectors::builtin()).clock(clock.clone()).open().await.unwrap();
    let source = NewSource {
        name: "shop".into(),
        kind: "files".into(),
        config: serde_json::json!({"path": site.files()}),
        schedule: Some("every 15m".into()),
    };
    engine.sources().add(&owner(), source).await.unwrap();
    assert_eq!(outcome(&sync(&engine).await, "orders").status, TableStatus::Ok);
    clock.set(start + chrono::Duration::minutes(14));
    let early = sync(&engine).await;
    assert_eq!(outcome(&early, "orders").reason.as_deref(), Some("due_check"));
    let asked = sync_with(&engine, SyncRequest { tables: vec!["orders".into()], ..SyncRequest::default() }).await;
    assert_eq!(outcome(&asked, "orders").status, TableStatus::Unchanged, "who asks for a table gets it");
    clock.set(start + chrono::Duration::minutes(30));
    assert_eq!(outcome(&sync(&engine).await, "orders").status, TableStatus::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_tables_are_refused_with_a_suggestion() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    let request = SyncRequest { tables: vec!["ordres".into()], ..SyncRequest::default() };
    let error = engine.sync().run(&owner(), request, Progress::default()).await.unwrap_err();
    assert_eq!(error.code(), "table_not_found");
    assert!(error.hint().unwrap().contains("orders"));
    assert!(rows(&engine, &owner(), "SELECT * FROM orders").await.is_err(), "never synced, not published");
}

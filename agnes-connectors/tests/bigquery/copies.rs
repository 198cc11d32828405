//! Answers to queries that are kept here: when they are made anew, and by whom.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use agnes_core::clock::FixedClock;
use agnes_core::config::Config;
use agnes_core::connector::Progress;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::NewSource;
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::{SyncRequest, TableOutcome, TableStatus};
use agnes_core::{CallContext, Engine};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::emulator::{Emulator, PROJECT};
use crate::google::Google;

/// A source whose tables are all answers to queries, and a clock that moves when it is told to.
struct Place {
    engine: Engine,
    clock: Arc<FixedClock>,
    start: DateTime<Utc>,
    ctx: CallContext,
    folder: tempfile::TempDir,
    emulator: Emulator,
    _google: Google,
}

impl Place {
    async fn new(start: DateTime<Utc>) -> Option<Self> {
        let emulator = Emulator::start(&[
            "CREATE SCHEMA mart",
            "CREATE SCHEMA none",
            "CREATE TABLE mart.sales (id INT64, paid BOOL)",
            "INSERT INTO mart.sales VALUES (1, true), (2, false)",
        ])?;
        let (google, folder, clock) = (Google::start(), tempfile::tempdir().unwrap(), Arc::new(FixedClock::at(start)));
        let mut config = Config::default();
        config.allowed_private_hosts = vec!["127.0.0.1".to_owned()];
        config.sync.materialize_lock_ttl = std::time::Duration::from_secs(60);
        google.forward_to(&emulator.addresses().0);
        let engine = Engine::builder(folder.path())
            .connectors(agnes_connectors::builtin_for(&config))
            .config(config)
            .clock(clock.clone())
            .secrets(Arc::new(FixedSecrets::new([("GOOGLE_APPLICATION_CREDENTIALS", google.key().as_str())])))
            .open()
            .await
            .unwrap();
        let ctx = CallContext::new(Principal::trusted_owner_of_the_data_folder("a test", ClientKind::Api));
        let settings = json!({"project": PROJECT, "endpoint": google.url, "storage_endpoint": emulator.addresses().1,
            "datasets": ["none"]});
        let source =
            NewSource { name: "bigquery".to_owned(), kind: "bigquery".to_owned(), config: settings, schedule: None };
        engine.sources().add(&ctx, source).await.unwrap();
        Some(Self { engine, clock, start, ctx, folder, emulator, _google: google })
    }

    async fn copy(&self, name: &str, schedule: Option<&str>) {
        let fields = json!({"name": name, "source_type": "bigquery", "query_mode": "materialized",
            "source_query": "SELECT count(*) AS n FROM mart.sales", "sync_schedule": schedule});
        self.engine.registry().register_fields(&self.ctx, fields.as_object().unwrap()).await.unwrap();
    }

    /// Syncs what is due so many minutes after the start; the names of what was copied.
    async fn due_after(&self, minutes: i64) -> Vec<String> {
        self.clock.set(self.start + TimeDelta::minutes(minutes));
        let tables = self.run(SyncRequest::default()).await;
        let (copied, others): (Vec<_>, Vec<_>) = tables.into_iter().partition(|one| one.status == TableStatus::Ok);
        assert!(others.iter().all(|one| one.reason.as_deref() == Some("due_check")), "{others:?}");
        copied.into_iter().map(|one| one.table).collect()
    }

    async fn run(&self, request: SyncRequest) -> Vec<TableOutcome> {
        self.engine.sync().run(&self.ctx, request, Progress::default()).await.unwrap().outcome.unwrap().tables
    }

    /// Asks for one table, whatever its schedule.
    async fn sync(&self, table: &str) -> TableOutcome {
        let request = SyncRequest { tables: vec![table.to_owned()], ..SyncRequest::default() };
        self.run(request).await.remove(0)
    }

    async fn rows(&self, table: &str) -> String {
        let query = Query::new(format!("SELECT n FROM {table}"));
        let batches = self.engine.query(&self.ctx, query).await.unwrap().collect().await.unwrap();
        arrow::util::display::array_value_to_string(batches[0].column(0), 0).unwrap()
    }

    fn lock(&self, table: &str) -> PathBuf {
        self.folder.path().join(format!("extracts/bigquery/data/{table}.parquet.lock"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_copy_has_a_schedule_of_its_own() {
    let start = "2026-01-05T10:00:00Z".parse().unwrap();
    let Some(place) = Place::new(start).await else { return };
    place.copy("usual", None).await;
    place.copy("often", Some("every 15m")).await;
    place.copy("daily", Some("daily 05:00")).await;
    assert_eq!(place.due_after(0).await, ["daily", "often", "usual"]);
    assert_eq!(place.due_after(10).await, Vec::<String>::new());
    assert_eq!(place.due_after(16).await, ["often"]);
    // Without a schedule: that of all copies, an hour.
    assert_eq!(place.due_after(61).await, ["often", "usual"]);
    assert_eq!(place.due_after(18 * 60 + 59).await, ["often", "usual"]);
    assert_eq!(place.due_after(19 * 60 + 1).await, ["daily"]);
    assert_eq!(place.due_after(19 * 60 + 2).await, Vec::<String>::new());
    // Who asks for a table gets it.
    assert_eq!(place.sync("daily").await.status, TableStatus::Ok);
    place.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_another_program_copies_is_left_to_it() {
    let Some(place) = Place::new(Utc::now()).await else { return };
    place.copy("totals", None).await;
    assert_eq!(place.sync("totals").await.status, TableStatus::Ok);
    let owner = std::fs::read_to_string(place.lock("totals")).unwrap();
    assert!(owner.contains(&format!("\"pid\":{}", std::process::id())), "{owner}");
    place.emulator.run("INSERT INTO mart.sales VALUES (3, true)");

    let held = File::open(place.lock("totals")).unwrap();
    held.lock().unwrap();
    let left = place.sync("totals").await;
    assert_eq!((left.status, left.reason.as_deref()), (TableStatus::Skipped, Some("in_flight")), "{left:?}");
    assert_eq!(place.rows("totals").await, "2");
    // However old: its owner runs on this machine.
    place.clock.set(place.start + TimeDelta::hours(1));
    assert_eq!(place.sync("totals").await.status, TableStatus::Skipped);

    // Of another machine it is known only how long ago it was.
    let elsewhere = json!({"host": "another-machine", "pid": std::process::id(), "started_at": place.start});
    std::fs::write(place.lock("totals"), elsewhere.to_string()).unwrap();
    place.clock.set(place.start);
    assert_eq!(place.sync("totals").await.status, TableStatus::Skipped);
    place.clock.set(place.start + TimeDelta::hours(1));
    assert_eq!(place.sync("totals").await.status, TableStatus::Ok);
    assert_eq!(place.rows("totals").await, "3");
    drop(held);

    place.engine.registry().unregister(&place.ctx, "totals").await.unwrap();
    assert!(!place.lock("totals").exists());
    place.engine.close().await.unwrap();
}

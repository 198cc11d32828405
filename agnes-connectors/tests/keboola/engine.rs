//! The connector in an engine: whole runs of several tables.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::clock::{Clock, FixedClock, SystemClock};
use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::{ConnectorRegistry, Progress};
use agnes_core::error::ErrorKind;
use agnes_core::extract::{ExtractAttach, RemoteRelation, TableChange, TableData, publish};
use agnes_core::ident::TableName;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::{NewSource, TableFields};
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::{SyncOutcome, SyncRequest, TableStatus};
use agnes_core::{CallContext, Engine};

use crate::fake::{SIGNATURE, TOKEN};
use crate::support::{Site, connector};
use crate::trouble::misfortunes;

fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

async fn engine(site: &Site) -> Engine {
    engine_at(site, Arc::new(SystemClock), Some("every 1h")).await
}

async fn engine_at(site: &Site, clock: Arc<dyn Clock>, schedule: Option<&str>) -> Engine {
    let engine = opened(site, clock).await;
    let (name, kind) = ("shop".to_owned(), "keboola".to_owned());
    let source = NewSource { name, kind, config: site.settings.clone(), schedule: schedule.map(str::to_owned) };
    engine.sources().add(&owner(), source).await.unwrap();
    engine
}

/// The engine of a site, with what it has by now.
async fn opened(site: &Site, clock: Arc<dyn Clock>) -> Engine {
    let mut config = Config::default();
    config.query.isolation = IsolationMode::InProcess;
    config.sync.attempts = 1;
    Engine::builder(site.root.path().join("data"))
        .connectors(ConnectorRegistry::new().with(site.connector.clone()))
        .secrets(Arc::new(FixedSecrets::new([("KEBOOLA_STORAGE_TOKEN", TOKEN)])))
        .config(config)
        .clock(clock)
        .open()
        .await
        .unwrap()
}

async fn sync(engine: &Engine) -> SyncOutcome {
    run(engine, true).await
}

async fn run(engine: &Engine, full: bool) -> SyncOutcome {
    let request = SyncRequest { full, ..SyncRequest::default() };
    engine.sync().run(&owner(), request, Progress::default()).await.unwrap().outcome.unwrap()
}

#[tokio::test]
async fn a_table_that_fails_is_told_and_leaves_the_others() {
    let site = Site::new();
    for name in ["a", "b", "c"] {
        site.fake.table(name, &["id:INTEGER"], &[&["1"], &["2"]]);
    }
    let engine = engine(&site).await;
    let outcome = sync(&engine).await;
    assert!(outcome.tables.iter().all(|table| table.status == TableStatus::Ok && table.rows == 2), "{outcome:?}");

    site.fake.fault("POST /v2/storage/tables/in.c-shop.b/", 429, &[("Retry-After", "7200")], "", u32::MAX);
    let begun = chrono::Utc::now();
    let outcome = sync(&engine).await;
    let failed = outcome.tables.iter().find(|table| table.table == "in_c_shop_b").unwrap();
    assert_eq!((failed.status, failed.kind), (TableStatus::Error, Some(ErrorKind::RateLimited)));
    assert_eq!(failed.reason.as_deref(), Some("keboola_rate_limited"));
    assert!(failed.hint.as_deref().is_some_and(|hint| hint.contains("wait 7200 s")), "{failed:?}");
    assert!(failed.next_try.is_some_and(|next| next >= begun + chrono::Duration::seconds(7200)), "{failed:?}");
    assert!(outcome.partial);
    let good = outcome.tables.iter().filter(|table| table.status == TableStatus::Ok).count();
    assert_eq!(good, 2);
    // The last good rows of the failed table are still there.
    let row = &engine.sources().list(&owner()).await.unwrap()[0];
    assert_eq!((row.published_tables, row.rows), (3, 6));
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_merged_needs_a_key() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "day:DATE"], &[&["1", "2024-01-05"]]);
    let engine = engine(&site).await;
    let fields = |name: &str, strategy: &str, key: serde_json::Value| {
        let fields = serde_json::json!({
            "name": name, "source": "shop", "source_type": "keboola", "bucket": "in.c-shop", "source_table": "t",
            "query_mode": "local", "sync_strategy": strategy, "partition_by": "day", "primary_key": key,
        });
        serde_json::from_value::<TableFields>(fields).unwrap()
    };
    let none = serde_json::Value::Null;
    engine.registry().register_fields(&owner(), &fields("own", "partitioned", none.clone())).await.unwrap();
    site.fake.state().tables.get_mut(&id).unwrap().primary_key.clear();
    for strategy in ["incremental", "partitioned"] {
        let refused = engine.registry().register_fields(&owner(), &fields("bad", strategy, none.clone())).await;
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.kind()), ("invalid_field", ErrorKind::InvalidInput), "{strategy}");
        assert!(refused.to_string().contains("no primary key"), "{strategy}: {refused}");
        let named = fields(&format!("named_{strategy}"), strategy, serde_json::json!(["id"]));
        engine.registry().register_fields(&owner(), &named).await.unwrap();
    }
    engine.registry().register_fields(&owner(), &fields("whole", "full_refresh", none)).await.unwrap();
    engine.close().await.unwrap();
}

#[tokio::test]
async fn tables_are_exported_side_by_side() {
    let mut site = Site::new();
    for n in 0..6 {
        site.fake.table(&format!("t{n}"), &["id:INTEGER"], &[&["1"]]);
    }
    site.settings["parallelism"] = serde_json::json!(3);
    // No job is done before three were asked for.
    site.fake.state().polls_until_exports = 3;
    let engine = engine(&site).await;
    let outcome = tokio::time::timeout(Duration::from_secs(60), sync(&engine)).await.unwrap();
    assert!(outcome.tables.iter().all(|table| table.status == TableStatus::Ok), "{outcome:?}");
    assert_eq!(site.fake.state().most_running, 3);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn every_failure_is_told_with_the_next_try_and_leaves_the_data() {
    let mut site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "b"], &["3", "c"]]);
    site.settings["export_timeout_seconds"] = serde_json::json!(0.3);
    // Texts, as Keboola keeps them: a warehouse has no numbers beyond their range.
    site.settings["file_type"] = serde_json::json!("csv");
    let engine = engine(&site).await;
    let tables = site.fake.state().tables.clone();
    assert_eq!(sync(&engine).await.tables[0].status, TableStatus::Ok);
    for misfortune in misfortunes() {
        let code = misfortune.code;
        (misfortune.happens)(&site);
        let begun = chrono::Utc::now();
        let outcome = sync(&engine).await;
        let [told] = outcome.tables.as_slice() else { panic!("{code}: {outcome:?}") };
        assert_eq!((told.status, told.reason.as_deref()), (TableStatus::Error, Some(code)), "{told:?}");
        assert_eq!(told.kind, Some(misfortune.kind), "{code}: whose move it is");
        assert!(told.hint.as_deref().is_some_and(|hint| hint.len() > 20), "{code}: what to do: {told:?}");
        assert!(told.next_try.is_some_and(|next| next >= begun), "{code}: when it is tried again: {told:?}");
        let words = serde_json::to_string(&outcome).unwrap();
        assert!(!words.contains(TOKEN) && !words.contains(SIGNATURE), "{words}");
        let row = &engine.sources().list(&owner()).await.unwrap()[0];
        assert_eq!((row.published_tables, row.rows), (1, 3), "{code}: the last good data stays");
        site.fake.mend(tables.clone());
        let outcome = sync(&engine).await;
        assert_eq!(outcome.tables[0].status, TableStatus::Ok, "after {code}: {outcome:?}");
    }
    // Numbers beyond every range are no failure: they are told.
    site.fake.upsert(&id, 0, &[&["99999999999999999999", "d"]]);
    let outcome = sync(&engine).await;
    assert_eq!((outcome.tables[0].status, outcome.tables[0].rows), (TableStatus::Ok, 4));
    assert!(outcome.tables[0].notes[0].contains("`99999999999999999999`"), "{outcome:?}");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_source_that_is_down_for_a_day_keeps_its_data_and_is_tried_every_hour() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER"], &[&["1"]]);
    let clock = Arc::new(FixedClock::at(chrono::Utc::now()));
    // Without a schedule: what is found by discovery is materialized, and due every hour.
    let engine = engine_at(&site, clock.clone(), None).await;
    assert_eq!(run(&engine, false).await.tables[0].status, TableStatus::Ok);
    let outcome = run(&engine, false).await;
    assert_eq!(outcome.tables[0].reason.as_deref(), Some("due_check"), "{outcome:?}");
    let begun = clock.now();
    for hour in (4..=24).step_by(4) {
        site.fake.fault("", 500, &[], "down", u32::MAX);
        clock.set(begun + chrono::Duration::hours(hour));
        let outcome = run(&engine, false).await;
        let told = &outcome.tables[0];
        assert_eq!(told.reason.as_deref(), Some("keboola_unavailable"), "{told:?}");
        assert_eq!(told.next_try, Some(clock.now()), "by the next run of the scheduler");
        assert!(told.hint.as_deref().is_some_and(|hint| hint.contains("last good data stays")), "{told:?}");
        assert_eq!(engine.sources().list(&owner()).await.unwrap()[0].rows, 1);
    }
    site.fake.state().faults.clear();
    site.fake.upsert(&id, 0, &[&["2"]]);
    let outcome = run(&engine, false).await;
    assert_eq!((outcome.tables[0].status, outcome.tables[0].rows), (TableStatus::Ok, 2), "{outcome:?}");
    engine.close().await.unwrap();
}

/// An engine whose source asked to be left alone, and until when; it answers again.
async fn asked_to_wait(site: &Site, clock: Arc<FixedClock>) -> (Engine, chrono::DateTime<chrono::Utc>) {
    let until = clock.now() + chrono::Duration::hours(3);
    let engine = engine_at(site, clock, None).await;
    site.fake.fault("", 429, &[("Retry-After", "10800")], "", u32::MAX);
    let told = run(&engine, false).await.tables.swap_remove(0);
    assert_eq!((told.next_try, told.asked_until), (Some(until), Some(until)));
    site.fake.state().faults.clear();
    (engine, until)
}

#[tokio::test]
async fn who_asks_to_wait_is_not_asked_before() {
    let site = Site::new();
    site.fake.table("t", &["id:INTEGER"], &[&["1"]]);
    let clock = Arc::new(FixedClock::at(chrono::Utc::now()));
    let begun = clock.now();
    let (engine, until) = asked_to_wait(&site, clock.clone()).await;
    // The table is due all the time.
    for minutes in [15, 179] {
        clock.set(begun + chrono::Duration::minutes(minutes));
        site.fake.forget_requests();
        let outcome = run(&engine, false).await;
        let told = &outcome.tables[0];
        assert_eq!((told.status, told.reason.as_deref()), (TableStatus::Skipped, Some("asked_to_wait")), "{told:?}");
        assert_eq!(told.next_try, Some(until));
        assert!(!site.fake.asked().iter().any(|line| line.contains("/tables/")), "{:?}", site.fake.asked());
        // What went wrong is still to be seen.
        let state = engine.sync().state(&owner()).await.unwrap();
        assert_eq!(state[0].status, agnes_core::sync::SyncStatus::Error, "{state:?}");
    }
    clock.set(until);
    assert_eq!(run(&engine, false).await.tables[0].status, TableStatus::Ok);

    // Who names the table does not wait, and nobody waits for longer than a day.
    clock.set(until + chrono::Duration::hours(2));
    site.fake.fault("", 503, &[("Retry-After", "31536000")], "", u32::MAX);
    assert_eq!(run(&engine, false).await.tables[0].next_try, Some(clock.now() + chrono::Duration::days(1)));
    site.fake.state().faults.clear();
    assert_eq!(run(&engine, false).await.tables[0].status, TableStatus::Skipped);
    let named = SyncRequest { sources: vec!["shop".to_owned()], ..SyncRequest::default() };
    let outcome = engine.sync().run(&owner(), named, Progress::default()).await.unwrap().outcome.unwrap();
    assert_ne!(outcome.tables[0].status, TableStatus::Skipped, "{outcome:?}");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn who_asked_to_wait_is_not_asked_after_a_restart() {
    let site = Site::new();
    site.fake.table("t", &["id:INTEGER"], &[&["1"]]);
    let clock = Arc::new(FixedClock::at(chrono::Utc::now()));
    let begun = clock.now();
    let (engine, until) = asked_to_wait(&site, clock.clone()).await;
    engine.close().await.unwrap();
    // The second process knows it of the first, the third of the second.
    for minutes in [15, 179] {
        clock.set(begun + chrono::Duration::minutes(minutes));
        site.fake.forget_requests();
        let engine = opened(&site, clock.clone()).await;
        let outcome = run(&engine, false).await;
        assert_eq!(outcome.tables[0].reason.as_deref(), Some("asked_to_wait"), "{outcome:?}");
        assert!(!site.fake.asked().iter().any(|line| line.contains("/tables/")), "{:?}", site.fake.asked());
        engine.close().await.unwrap();
    }
    clock.set(until);
    let engine = opened(&site, clock.clone()).await;
    assert_eq!(run(&engine, false).await.tables[0].status, TableStatus::Ok);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn tables_that_stay_are_asked_at_the_host_of_their_own_connection() {
    const STACK: &str = "https://connection.example.com";
    // Where the host may be asked, what is missing is the extension.
    for (listed, url, reason) in [
        (None, STACK, "attach_extension_missing"),
        (None, "https://elsewhere.example", "attach_host_not_allowed"),
        (None, "http://connection.example.com", "attach_bad_url"),
        (Some("elsewhere.example"), STACK, "attach_host_not_allowed"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.query.isolation = IsolationMode::InProcess;
        config.attach.hosts = listed.map(str::to_owned).into_iter().collect();
        config.attach.extension_folder = Some(root.path().to_owned());
        let settings = [("stack_url".to_owned(), STACK.into())].into_iter().collect();
        config.data_source.settings.insert("keboola", settings);
        let engine = Engine::builder(root.path().join("data"))
            .connectors(ConnectorRegistry::new().with(connector()))
            .config(config)
            .open()
            .await
            .unwrap();
        let attach = ExtractAttach {
            alias: "kbc".to_owned(),
            extension: "keboola".to_owned(),
            url: url.to_owned(),
            token_env: "KEBOOLA_STORAGE_TOKEN".to_owned(),
        };
        let columns = vec![("id".to_owned(), "BIGINT".to_owned())];
        let remote = RemoteRelation { attach, schema: "in.c-shop".to_owned(), table: "t".to_owned(), columns };
        let (name, data) = (TableName::parse("t").unwrap(), TableData::Remote(remote));
        let change = TableChange { name, description: None, data };
        publish(&root.path().join("data/extracts/keboola"), vec![change], &|_| true, chrono::Utc::now()).unwrap();
        let outcome = engine.orchestrator().rebuild(&owner()).await.unwrap();
        let skipped = outcome.sources[0].skipped.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>();
        assert_eq!(skipped.first(), Some(&reason), "{url}: {outcome:?}");
        engine.close().await.unwrap();
    }
}

//! Whole walks: a source is added, synced, and asked, in all three modes.

use std::sync::Arc;

use agnes_core::config::Config;
use agnes_core::connector::{Connector, Progress};
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::{NewSource, TableFields};
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::{SyncRequest, TableStatus};
use agnes_core::{CallContext, Engine};
use serde_json::{Value, json};

use crate::support::{PASSWORD, Source};

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("a test", ClientKind::Api))
}

/// Where tables of a kind of database are unless somebody says.
pub(crate) fn schema(kind: &str) -> &'static str {
    match kind {
        "postgres" => "public",
        "mysql" => "shop",
        _ => "main",
    }
}

/// An engine whose operator lets this source be asked where it is.
pub(crate) async fn open(source: &Source, place: &std::path::Path) -> Engine {
    let mut config = Config::default();
    config.attach.extensions = Some(vec![source.connector.kind().to_owned()]);
    config.attach.token_envs = Some(vec!["SHOP_PASSWORD".to_owned()]);
    config.attach.database_hosts.clone_from(&source.policy.database_hosts);
    config.attach.sqlite_folders.clone_from(&source.policy.sqlite_folders);
    config.attach.extension_folder.clone_from(&source.policy.extension_folder);
    Engine::builder(place)
        .config(config)
        .connectors(agnes_connectors::builtin())
        .secrets(Arc::new(FixedSecrets::new([("SHOP_PASSWORD", PASSWORD)])))
        .open()
        .await
        .unwrap()
}

pub(crate) async fn ask(engine: &Engine, ctx: &CallContext, sql: &str) -> String {
    let mut result = engine.query(ctx, Query::new(sql)).await.unwrap();
    let mut out = String::new();
    while let Some(batch) = result.next().await {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| arrow::util::display::array_value_to_string(c, row).unwrap());
            out.push_str(&cells.collect::<Vec<_>>().join(","));
            out.push('\n');
        }
    }
    out.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_table_without_a_key_is_told_when_it_is_registered() {
    for source in [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten() {
        let kind = source.connector.kind();
        source.sql("CREATE TABLE keyed (id BIGINT PRIMARY KEY, n BIGINT, at TIMESTAMP NULL)");
        source.sql("CREATE TABLE keyless (id BIGINT, n BIGINT, at TIMESTAMP NULL)");
        for table in ["keyed", "keyless"] {
            source.sql(&format!("INSERT INTO {table} VALUES (1, 10, '2026-01-01 00:00:00')"));
        }
        let place = tempfile::tempdir().unwrap();
        let engine = open(&source, place.path()).await;
        let ctx = owner();
        let config = source.config.clone();
        let new = NewSource { name: "shop".to_owned(), kind: kind.to_owned(), config, schedule: None };
        engine.sources().add(&ctx, new).await.unwrap();
        let fields = |name: &str, table: &str, key: Value| {
            let fields = json!({
                "name": name, "source": "shop", "source_type": kind, "bucket": schema(kind), "source_table": table,
                "query_mode": "local", "sync_strategy": "incremental", "incremental_column": "at", "primary_key": key,
            });
            serde_json::from_value::<TableFields>(fields).unwrap()
        };
        let registry = engine.registry();
        let refused = registry.register_fields(&ctx, &fields("bad", "keyless", Value::Null)).await.unwrap_err();
        assert_eq!(refused.code(), "invalid_field", "{kind}: {refused}");
        assert!(refused.to_string().contains("no primary key"), "{kind}: {refused}");
        let asked = registry.precheck(&ctx, &fields("bad", "keyless", Value::Null)).await.unwrap_err();
        assert_eq!(asked.to_string(), refused.to_string(), "{kind}");
        registry.register_fields(&ctx, &fields("named", "keyless", json!(["id"]))).await.unwrap();
        registry.register_fields(&ctx, &fields("own", "keyed", Value::Null)).await.unwrap();
        // In parts, all of them are read each time: no row is looked for.
        let parts = json!({
            "name": "parts", "source": "shop", "source_type": kind, "bucket": schema(kind), "source_table": "keyless",
            "query_mode": "local", "sync_strategy": "partitioned", "partition_by": "at",
        });
        registry.register_fields(&ctx, &serde_json::from_value::<TableFields>(parts).unwrap()).await.unwrap();
        // One that is not there cannot be asked for its key: its runs tell.
        registry.register_fields(&ctx, &fields("gone", "nothing", Value::Null)).await.unwrap();
        let sync = async || {
            let request = SyncRequest { tables: vec!["named".to_owned(), "own".to_owned()], ..SyncRequest::default() };
            let outcome = engine.sync().run(&ctx, request, Progress::default()).await.unwrap().outcome.unwrap();
            assert!(outcome.tables.iter().all(|table| table.status != TableStatus::Error), "{kind}: {outcome:?}");
        };
        sync().await;
        // A row that changes is one row, by the key that was named or by that of the source.
        for table in ["keyed", "keyless"] {
            source.sql(&format!("UPDATE {table} SET n = 11, at = '2026-02-01 00:00:00' WHERE id = 1"));
        }
        sync().await;
        for table in ["named", "own"] {
            assert_eq!(ask(&engine, &ctx, &format!("SELECT id, n FROM {table}")).await, "1,11", "{kind} {table}");
        }
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied_queried_and_asked_where_it_is() {
    for source in [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten() {
        let kind = source.connector.kind();
        source.sql("CREATE TABLE orders (id BIGINT PRIMARY KEY, customer VARCHAR(20), price DOUBLE PRECISION)");
        source.sql("INSERT INTO orders VALUES (1, 'Ada', 10.5), (2, 'Bob', 20), (3, 'Ada', 5.25)");
        let schema = schema(kind);
        let place = tempfile::tempdir().unwrap();
        let engine = open(&source, place.path()).await;
        let ctx = owner();
        let mut settings = source.config.clone();
        settings["tables"] = json!({
            "orders": {"table": format!("{schema}.orders"), "cursor_column": "id"},
            "live": {"table": format!("{schema}.orders"), "mode": "remote"},
            "totals": {"query": "SELECT customer, sum(price) AS total FROM orders GROUP BY customer"},
        });
        let new = NewSource { name: "shop".to_owned(), kind: kind.to_owned(), config: settings, schedule: None };
        let added = engine.sources().add(&ctx, new).await.unwrap();
        assert_eq!(added.tables.len(), 3, "{kind} {:?}", added.skipped);
        let sync = || async {
            let sync = engine.sync();
            let run = sync.run(
                &ctx,
                SyncRequest { full: false, sources: vec!["shop".to_owned()], ..SyncRequest::default() },
                Progress::default(),
            );
            let outcome = run.await.unwrap().outcome.unwrap();
            for table in &outcome.tables {
                assert_ne!(table.status, TableStatus::Error, "{kind} {table:?}");
            }
        };
        sync().await;
        let totals = "SELECT customer, total::DOUBLE FROM totals ORDER BY 1";
        assert_eq!(ask(&engine, &ctx, totals).await, "Ada,15.75\nBob,20.0");
        assert_eq!(ask(&engine, &ctx, "SELECT count(*) FROM orders").await, "3");
        assert_eq!(ask(&engine, &ctx, "SELECT customer FROM live WHERE id = 2").await, "Bob");
        source.sql("INSERT INTO orders VALUES (4, 'Cyd', 1)");
        assert_eq!(ask(&engine, &ctx, "SELECT count(*) FROM live").await, "4", "asked where it is");
        let both = "SELECT count(*) FROM live WHERE id NOT IN (SELECT id FROM orders)";
        assert_eq!(ask(&engine, &ctx, both).await, "1", "not here yet");
        sync().await;
        assert_eq!(ask(&engine, &ctx, both).await, "0");
        assert_eq!(ask(&engine, &ctx, "SELECT count(*) FROM totals").await, "3");
        engine.close().await.unwrap();
        for file in walkdir::WalkDir::new(place.path()).into_iter().flatten().filter(|f| f.file_type().is_file()) {
            let bytes = std::fs::read(file.path()).unwrap_or_default();
            let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!found, "the password is in {}", file.path().display());
        }
    }
}

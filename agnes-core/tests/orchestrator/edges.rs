//! Odd extracts, one test for each, and readers beside a rebuild.

use agnes_core::orchestrator::SourceStatus;
use agnes_core::sync::SyncStatus;

use crate::support::{META, Site, ask, check_blobs, code, leftovers, owner, pair, rebuild, skipped, source, sql};

#[tokio::test(flavor = "multi_thread")]
async fn without_extracts_nothing_is_published() {
    let site = Site::new();
    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    assert!(outcome.sources.is_empty() && !outcome.degraded && !outcome.published);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_extracts_stop_nobody() {
    let site = Site::new();
    let engine = site.open().await;
    site.write("good", &[("orders", "SELECT 1 AS n")]);
    std::fs::create_dir_all(site.extract("corrupt")).unwrap();
    std::fs::write(site.extract("corrupt").join("extract.duckdb"), b"this is no database").unwrap();
    site.made_by("no_meta", "CREATE TABLE t AS SELECT 1 AS n");
    site.made_by("empty", META);
    site.made_by("unsafe_names", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('a b', 'local'), ('x; DROP', 'local'), ('', 'local')"));
    site.made_by("no_object", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('ghost', 'local')"));
    site.write("mid_run", &[("half", "SELECT 1 AS n")]);
    std::fs::rename(site.extract("mid_run").join("extract.duckdb"), site.extract("mid_run").join("extract.duckdb.tmp"))
        .unwrap();
    site.write("foo; DROP", &[("dropped", "SELECT 1 AS n")]);
    std::fs::write(site.root().join("extracts/a file"), b"").unwrap();

    let outcome = rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["1"]);
    let status = |name| source(&outcome, name).status;
    assert_eq!(status("corrupt"), SourceStatus::Unreadable);
    assert_eq!(status("no_meta"), SourceStatus::Unreadable);
    assert_eq!((status("empty"), source(&outcome, "empty").views.len()), (SourceStatus::Ok, 0));
    assert_eq!(status("foo; DROP"), SourceStatus::RejectedName);
    assert_eq!(
        skipped(&outcome, "unsafe_names").iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>(),
        ["unsafe_name"; 3]
    );
    assert_eq!(skipped(&outcome, "no_object"), [pair("ghost", "no_object")]);
    assert!(outcome.sources.iter().all(|s| s.source != "mid_run"));
    for table in ["t", "ghost", "half", "dropped"] {
        assert_eq!(code(&engine, &format!("SELECT * FROM {table}")).await, "relation_unknown", "{table}");
    }
    check_blobs(&site);
    assert!(leftovers(&site.root().join("analytics")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_data_is_said_in_the_sync_state_and_cleared_when_it_is_back() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n"), ("items", "SELECT 1 AS n")]);
    let (file, away) = (site.extract("shop").join("data/orders.parquet"), site.outside().join("away"));
    let engine = site.open().await;
    let states = || async {
        let states = engine.sync().state(&owner()).await.unwrap();
        states.into_iter().find(|s| s.table_id == "orders").map(|s| (s.status, s.error, s.rows))
    };
    rebuild(&engine).await;
    assert_eq!(states().await, Some((SyncStatus::Ok, None, Some(1))));
    std::fs::rename(&file, &away).unwrap();
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "shop"), [pair("orders", "missing_data")]);
    let (status, error, rows) = states().await.unwrap();
    assert_eq!((status, error.as_deref(), rows), (SyncStatus::Error, Some("missing data"), Some(1)));
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["1"], "the last good data answers");
    std::fs::rename(&away, &file).unwrap();
    rebuild(&engine).await;
    let (status, error, _) = states().await.unwrap();
    assert_eq!((status, error.unwrap_or_default()), (SyncStatus::Ok, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_for_another_source_adds_no_history() {
    let site = Site::new();
    site.write("a", &[("orders", "SELECT 1 AS n")]);
    let engine = site.open().await;
    rebuild(&engine).await;
    let state =
        || async { engine.sync().state(&owner()).await.unwrap().into_iter().find(|s| s.table_id == "orders").unwrap() };
    let before = state().await;
    site.write("b", &[("items", "SELECT 1 AS n")]);
    rebuild(&engine).await;
    assert_eq!(state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_where_there_were_some_is_an_alert() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n")]);
    let engine = site.open().await;
    assert!(source(&rebuild(&engine).await, "shop").alerts.is_empty());
    site.write("shop", &[("orders", "SELECT 1 AS n WHERE false")]);
    let outcome = rebuild(&engine).await;
    assert_eq!(source(&outcome, "shop").alerts[0].reason, "zero_rows");
    assert!(outcome.degraded);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_one_table_and_the_manifest_hash_covers_them() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 0 AS n")]);
    let (folder, single) = (site.extract("shop").join("data/orders"), site.extract("shop").join("data/orders.parquet"));
    std::fs::remove_file(&single).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let part = |name: &str, select: &str| {
        sql(None, &format!("COPY ({select}) TO '{}' (FORMAT parquet)", folder.join(name).display()))
    };
    part("2024-01.parquet", "SELECT 1 AS n");
    part("2024-02.parquet", "SELECT 2 AS n, 'x' AS extra");
    std::fs::write(folder.join("2024-03.parquet.half"), b"being written").unwrap();
    let engine = site.open().await;
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n, extra FROM orders ORDER BY n").await.unwrap(), ["1|NULL", "2|x"]);
    let table = site.generation().table("orders").unwrap().clone();
    assert!(table.partitioned && table.manifest_hash.len() == 32);
    assert_eq!(
        table.parts.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(),
        ["orders/2024-01.parquet", "orders/2024-02.parquet"]
    );
    part("2024-02.parquet", "SELECT 3 AS n, 'y' AS extra");
    rebuild(&engine).await;
    assert_ne!(site.generation().table("orders").unwrap().manifest_hash, table.manifest_hash);
    assert_eq!(ask(&engine, "SELECT sum(n) FROM orders").await.unwrap(), ["4"]);
    // Parts that do not go together are not taken, and the last good ones stay.
    part("2024-02.parquet", "SELECT {'a': 1} AS n");
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "shop"), [pair("orders", "unreadable_data")]);
    assert_eq!(ask(&engine, "SELECT sum(n) FROM orders").await.unwrap(), ["4"]);
    check_blobs(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_keeps_its_tables_last_data_alone() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n"), ("items", "SELECT 1 AS n")]);
    let engine = site.open().await;
    rebuild(&engine).await;
    std::fs::write(site.extract("shop").join("data/orders.parquet"), b"PAR1 half of a file").unwrap();
    site.data("shop", "items", "SELECT 2 AS n");
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "shop"), [pair("orders", "unreadable_data")]);
    assert_eq!(ask(&engine, "SELECT o.n, i.n FROM orders o, items i").await.unwrap(), ["1|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_may_rewrite_in_place_under_a_reader() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT i AS n FROM range(500000) r(i)")]);
    let engine = site.open().await;
    rebuild(&engine).await;
    let mut held = engine.query(&owner(), agnes_core::query::Query::new("SELECT n FROM orders")).await.unwrap();
    let first = held.next().await.unwrap().unwrap().num_rows();
    let file = site.extract("shop").join("data/orders.parquet");
    let other = site.outside().join("other.parquet");
    sql(None, &format!("COPY (SELECT 7 AS n) TO '{}' (FORMAT parquet)", other.display()));
    std::fs::write(&file, std::fs::read(&other).unwrap()).unwrap();
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["7"]);
    let mut rows = first;
    while let Some(batch) = held.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 500_000);
    check_blobs(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_master_open_keeps_what_he_has() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n"), ("items", "SELECT 5 AS n")]);
    let engine = site.open().await;
    rebuild(&engine).await;
    let master = site.root().join("analytics/server.duckdb");
    let open = || {
        let config = duckdb::Config::default().access_mode(duckdb::AccessMode::ReadOnly).unwrap();
        duckdb::Connection::open_with_flags(&master, config).unwrap()
    };
    let n = |conn: &duckdb::Connection| conn.query_row("SELECT n FROM orders", [], |row| row.get::<_, i64>(0)).unwrap();
    let reader = open();
    assert_eq!(n(&reader), 1);
    site.write("shop", &[("orders", "SELECT 2 AS n")]);
    rebuild(&engine).await;
    assert_eq!((n(&reader), n(&open())), (1, 2));
    assert!(open().query_row("SELECT n FROM items", [], |row| row.get::<_, i64>(0)).is_err());
    assert!(leftovers(&site.root().join("analytics")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rebuilds_at_once_are_few() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n")]);
    let engine = site.open().await;
    let calls = (0..20).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { rebuild(&engine).await })
    });
    for call in futures::future::join_all(calls).await {
        assert_eq!(source(&call.unwrap(), "shop").views, ["orders"]);
    }
    assert_eq!(site.generation().number, 1);
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_inside_a_foreign_extract_become_blobs() {
    let site = Site::new();
    site.made_by(
        "shop",
        &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('orders', 'local'); CREATE TABLE orders AS SELECT 1 AS n, 'x' AS t"),
    );
    let engine = site.open().await;
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n, t FROM orders").await.unwrap(), ["1|x"]);
    check_blobs(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_does_not_stop_a_rebuild() {
    let site = Site::new();
    site.write("shop", &[("orders", "SELECT 1 AS n")]);
    let engine = site.open().await;
    let (leaving, ctx) = (engine.clone(), owner());
    let call = tokio::spawn(async move { leaving.orchestrator().rebuild(&ctx).await });
    tokio::time::sleep(std::time::Duration::from_millis(15)).await;
    call.abort();
    drop(call.await);
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["1"]);
}

//! The catalog through an engine: names of internal tables belong to Agnes's own state, and a
//! profile names what its reader may read.
#![allow(clippy::unwrap_used)]

use agnes_core::connector::{ConnectorRegistry, Progress};
use agnes_core::ident::{SourceName, TableName};
use agnes_core::rbac::{ClientKind, Principal, ResourceType};
use agnes_core::registry::{NewSource, RegisteredTable};
use agnes_core::sync::SyncRequest;
use agnes_core::testing::{Behaviour, TestConnector};
use agnes_core::{CallContext, Engine};

fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

/// An extract that publishes a table under the name of an internal one.
fn foreign(root: &std::path::Path) {
    let folder = root.join("extracts/shop");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let conn = duckdb::Connection::open(folder.join("extract.duckdb")).unwrap();
    let file = folder.join("data/agnes_audit.parquet");
    conn.execute_batch(&format!(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR); \
         COPY (SELECT 1 AS i) TO '{}' (FORMAT parquet); \
         INSERT INTO _meta VALUES ('agnes_audit', NULL, 1, 0, now()::TIMESTAMP, 'local'); \
         CREATE VIEW agnes_audit AS SELECT * FROM read_parquet('{}'); CHECKPOINT",
        file.to_string_lossy(),
        file.to_string_lossy()
    ))
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_shown_to_an_admin_are_not_shown_to_the_next_caller() {
    let folder = tempfile::tempdir().unwrap();
    foreign(folder.path());
    let engine = Engine::builder(folder.path()).open().await.unwrap();
    let outcome = engine.orchestrator().rebuild(&owner()).await.unwrap();
    assert!(outcome.sources[0].views.is_empty(), "an internal name is not published: {:?}", outcome.sources);
    assert_eq!(outcome.sources[0].skipped[0].reason, "reserved_name");
    engine.identity().add_user(&owner(), "ann@acme.example", None).await.unwrap();
    let ann = engine.identity().principal_of(&owner(), "ann@acme.example", ClientKind::Api).await.unwrap();
    let ann = CallContext::new(ann);
    engine.catalog().sample(&ann, "agnes_audit", 50).await.unwrap();
    let all = engine.catalog().sample(&owner(), "agnes_audit", 51).await.unwrap().rows;
    assert!(!all.is_empty());
    let after = engine.catalog().sample(&ann, "agnes_audit", 51).await.unwrap().rows;
    let others: Vec<_> = after.iter().filter(|row| row["user_id"] == "local@system.local").collect();
    assert!(others.is_empty(), "rows of the owner");
    // A PIVOT finds its values among the caller's own rows, and nothing else.
    let pivot = "PIVOT (SELECT user_id FROM agnes_audit) ON user_id USING count(*)";
    let columns = async |who: &CallContext| {
        let result = engine.query(who, agnes_core::query::Query::new(pivot)).await.unwrap();
        result.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    engine.audit().list(&owner(), &Default::default()).await.unwrap();
    assert_eq!(columns(&ann).await, [ann.principal().user_id()]);
    assert!(columns(&owner()).await.contains(&"local@system.local".to_owned()));
    engine.close().await.unwrap();
}

/// An extract with orders of customers.
fn shop(root: &std::path::Path) {
    let folder = root.join("extracts/shop");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let conn = duckdb::Connection::open(folder.join("extract.duckdb")).unwrap();
    conn.execute_batch(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR)",
    )
    .unwrap();
    for (table, columns) in [("orders", "1 AS id, 7 AS customer_id"), ("customers", "7 AS id, 'Ann' AS name")] {
        let file = folder.join(format!("data/{table}.parquet"));
        let file = file.to_string_lossy();
        conn.execute_batch(&format!(
            "COPY (SELECT {columns}) TO '{file}' (FORMAT parquet); \
             INSERT INTO _meta VALUES ('{table}', NULL, 1, 0, now()::TIMESTAMP, 'local'); \
             CREATE VIEW {table} AS SELECT * FROM read_parquet('{file}')"
        ))
        .unwrap();
    }
    conn.execute_batch("CHECKPOINT").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_names_related_tables_that_its_reader_may_read() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path());
    let engine = Engine::builder(folder.path()).open().await.unwrap();
    engine.orchestrator().rebuild(&owner()).await.unwrap();
    for name in ["orders", "customers"] {
        let (name, source) = (TableName::parse(name).unwrap(), SourceName::parse("shop").unwrap());
        let mut table = RegisteredTable::new(&name, "local", &source);
        table.source = None;
        table.primary_key = Some(vec!["id".to_owned()]);
        engine.registry().register(&owner(), table).await.unwrap();
    }
    let related = |profile: &serde_json::Value| {
        let one = profile["related_tables"].get(0)?;
        Some(["table", "join_column", "foreign_column", "direction"].map(|key| one[key].as_str().unwrap().to_owned()))
    };
    let profile = engine.catalog().profile(&owner(), "orders").await.unwrap();
    assert_eq!(related(&profile).unwrap(), ["customers", "customer_id", "id", "belongs_to"]);
    let profile = engine.catalog().profile(&owner(), "customers").await.unwrap();
    assert_eq!(related(&profile).unwrap(), ["orders", "id", "customer_id", "has_many"]);

    engine.identity().add_user(&owner(), "ann@acme.example", None).await.unwrap();
    engine.identity().create_group(&owner(), "g", None).await.unwrap();
    engine.identity().add_member(&owner(), "g", "ann@acme.example").await.unwrap();
    engine.identity().grant(&owner(), "g", ResourceType::Table, "orders").await.unwrap();
    let ann = engine.identity().principal_of(&owner(), "ann@acme.example", ClientKind::Api).await.unwrap();
    let profile = engine.catalog().profile(&CallContext::new(ann), "orders").await.unwrap();
    assert_eq!(related(&profile), None, "what she may not read is not named");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_sync_failed_is_told_to_those_who_see_all_rows() {
    let folder = tempfile::tempdir().unwrap();
    let failing = Behaviour::Rows("SELECT CAST('text ' || i AS INTEGER) AS n FROM range(1, 2) r(i)".to_owned());
    let connector = TestConnector::new("failing", [("wages", failing)]);
    let mut config = agnes_core::config::Config::default();
    config.sync.attempts = 1;
    let builder = Engine::builder(folder.path()).config(config);
    let engine = builder.connectors(ConnectorRegistry::new().with(connector)).open().await.unwrap();
    let source = NewSource { name: "hr".into(), kind: "failing".into(), config: serde_json::json!({}), schedule: None };
    engine.sources().add(&owner(), source).await.unwrap();
    engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await.unwrap();
    let identity = engine.identity();
    identity.add_user(&owner(), "ann@acme.example", None).await.unwrap();
    identity.create_group(&owner(), "hr", None).await.unwrap();
    identity.add_member(&owner(), "hr", "ann@acme.example").await.unwrap();
    identity.grant(&owner(), "hr", ResourceType::Table, "wages").await.unwrap();
    let ann = CallContext::new(identity.principal_of(&owner(), "ann@acme.example", ClientKind::Api).await.unwrap());
    let told = async |who: &CallContext| {
        let error = engine.catalog().schema(who, "wages").await.unwrap_err();
        assert_eq!(error.code(), "no_data", "{error}");
        error.hint().unwrap_or_default().to_owned()
    };
    assert_eq!(told(&owner()).await, "its last sync failed: the engine could not run a statement");
    assert_eq!(told(&ann).await, "its last sync failed: an admin can see why");
    engine.close().await.unwrap();
}

//! The catalog through an engine: names of internal tables belong to Agnes's own state.
#![allow(clippy::unwrap_used)]

use agnes_core::rbac::{ClientKind, Principal};
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
    engine.close().await.unwrap();
}

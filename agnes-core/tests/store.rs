//! The contract of stores, held against each of them.
#![allow(clippy::unwrap_used)]

use agnes_core::store::Store;
use agnes_core::store::duckdb::DuckStore;
use agnes_core::testing::store_suite;
use chrono::Utc;

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = DuckStore::open(&folder.path().join("system.duckdb"), Utc::now()).unwrap();
    store_suite::run(&store).await;
    store.close().await.unwrap();
}

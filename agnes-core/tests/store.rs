//! The contract of stores, held against each of them.
#![allow(clippy::unwrap_used)]

use agnes_core::store::duckdb::DuckStore;
use agnes_core::store::memory::MemoryStore;
use agnes_core::testing::store_suite;
use chrono::Utc;

/// One test for each part of the contract and each store.
macro_rules! suite {
    ($($part:ident)*) => {
        mod duckdb {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $part() {
                let folder = tempfile::tempdir().unwrap();
                let store = DuckStore::open(&folder.path().join("system.duckdb"), Utc::now()).unwrap();
                store_suite::$part(&store).await;
            })*
        }
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $part() {
                store_suite::$part(&MemoryStore::new()).await;
            })*
        }
    };
}

suite!(access credentials first_admin policies preferences registry sync jobs);

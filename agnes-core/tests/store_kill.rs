//! A migration that is killed at any moment leaves the old or the new state.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agnes_core::store::duckdb::DuckStore;
use agnes_core::store::{STATE_SCHEMA_VERSION, Store};
use chrono::Utc;

const CHILD: &str = "AGNES_TEST_MIGRATE";

fn unpack(folder: &Path) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state/system-v14.duckdb.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap()).read_to_end(&mut bytes).unwrap();
    let path = folder.join("system.duckdb");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The child: does nothing unless the test below started it.
#[test]
fn migrating_child() {
    if let Some(path) = std::env::var_os(CHILD) {
        DuckStore::open(Path::new(&path), Utc::now()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_migration_leaves_the_old_or_the_new_state() {
    for round in 0..15_u64 {
        let folder = tempfile::tempdir().unwrap();
        let path = unpack(folder.path());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "migrating_child"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round * 80));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = DuckStore::open(&path, Utc::now()).unwrap();
        assert_eq!(store.schema().await.unwrap().version, STATE_SCHEMA_VERSION);
        assert_eq!(store.users().list().await.unwrap().len(), 3);
        assert_eq!(store.access().grants(None).await.unwrap().len(), 2);
        assert_eq!(store.tables().list().await.unwrap().len(), 6);
        store.close().await.unwrap();
    }
}

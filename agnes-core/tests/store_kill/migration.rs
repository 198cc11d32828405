//! A migration that is killed, or finds the disk full, at any moment leaves the old or the
//! new state, and the next start finishes it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};
use agnes_core::store::duckdb::DuckStore;
use agnes_core::store::{STATE_SCHEMA_VERSION, Store};
use chrono::Utc;

use crate::{child, names, state_of_child};

/// Unpacks the state that version 14 wrote, which has old and new rules.
fn unpack(folder: &Path) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state/system-v14.duckdb.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap()).read_to_end(&mut bytes).unwrap();
    let path = folder.join("system.duckdb");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The child: does nothing unless a test below started it.
#[test]
fn migrating_child() {
    let Some(path) = state_of_child() else { return };
    match DuckStore::open(&path, Utc::now()) {
        Ok(_) => println!("migrated"),
        Err(error) => println!("refused with {}", error.code()),
    }
}

fn version_of(path: &Path) -> i32 {
    let conn = duckdb::Connection::open(path).unwrap();
    let version = conn.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0)).unwrap();
    conn.close().unwrap();
    version
}

/// Opens the state once more: everything is there, who may read what is what it was, and
/// nothing is left lying about.
async fn whole(path: &Path, label: &str) {
    let store = DuckStore::open(path, Utc::now()).unwrap_or_else(|error| panic!("{label}: {error}"));
    assert_eq!(store.schema().await.unwrap().version, STATE_SCHEMA_VERSION, "{label}");
    let snapshot = store.access().snapshot().await.unwrap();
    let mut may = Vec::new();
    for user in store.users().list().await.unwrap() {
        let principal = Principal::user(&user.id, AuthMethod::Session, ClientKind::Web);
        for table in ["orders", "tickets", "web_sessions"] {
            if snapshot.decide(&principal, ResourceType::Table, table).allowed {
                may.push(format!("{} {table}", user.id));
            }
        }
    }
    may.sort();
    assert_eq!(may, ["u0 orders", "u0 tickets", "u0 web_sessions", "u1 orders", "u2 tickets"], "{label}");
    assert_eq!(store.access().grants(None).await.unwrap().len(), 2, "{label}");
    assert_eq!(store.tables().list().await.unwrap().len(), 6, "{label}");
    let audited =
        store.audit().list(&agnes_core::audit::AuditFilter { limit: 1000, ..Default::default() }).await.unwrap();
    assert_eq!(audited.len(), 201, "{label}: 200 rows and one that tells of the migration, not two");
    store.close().await.unwrap();
    let report = format!("migration-report-14-to-{STATE_SCHEMA_VERSION}.json");
    let snapshot = "system.duckdb.pre-migrate";
    assert_eq!(names(path.parent().unwrap()), [&report, "system.duckdb", snapshot], "{label}");
    assert_eq!(version_of(&path.with_file_name(snapshot)), 14, "{label}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_may_end_at_any_step() {
    for how in ["", ":abort"] {
        let mut stopped = 0;
        for n in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let path = unpack(folder.path());
            let done = child("migration::migrating_child", &path, format!("{n}{how}")).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(!said.contains("panicked"), "step {n}{how}: {said}");
            let finished = said.contains("migrated");
            assert!(finished || how == ":abort" || said.contains("refused with disk_full"), "step {n}: {said}");
            let label = format!("after step {n}{how}");
            whole(&path, &label).await;
            if finished {
                break;
            }
            stopped += 1;
        }
        assert!(stopped >= 12, "only {stopped} steps were reached");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_leaves_the_old_or_the_new_state() {
    // Killed after the first file appears, later in each round, until kills stop hitting it.
    let (mut inside, mut with_a_half_file) = (0, 0);
    for round in 0..8_u64 {
        let folder = tempfile::tempdir().unwrap();
        let path = unpack(folder.path());
        let mut migrating = child("migration::migrating_child", &path, "").spawn().unwrap();
        let start = Instant::now();
        while names(folder.path()).len() < 2 && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 40));
        migrating.kill().unwrap();
        migrating.wait().unwrap();
        // Looked at in a copy: opening a file may change it.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(&path, copy.path().join("s")).unwrap();
        inside += i32::from(version_of(&copy.path().join("s")) == 14);
        with_a_half_file += i32::from(names(folder.path()).iter().any(|name| name.contains(".tmp")));
        whole(&path, &format!("after kill {round}")).await;
    }
    assert!(inside > 0, "no kill hit a migration");
    assert!(with_a_half_file > 0, "no kill left a half file to clean up");
}

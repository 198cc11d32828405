//! A backup restores to the same people, rules, tables and answers; a broken one is refused
//! and a half one never counts.

use std::path::{Path, PathBuf};
use std::process::Command;

use agnes_core::audit::AuditFilter;
use agnes_core::maintenance::restore;
use agnes_core::rbac::ClientKind;
use agnes_core::{CallContext, Engine};

use crate::support::{Site, cell, open, owner, reader, sync};

/// Everything that people made, as the engine tells it.
async fn everything(engine: &Engine) -> serde_json::Value {
    let (identity, owner) = (engine.identity(), owner());
    let mut members = Vec::new();
    let groups = identity.groups(&owner).await.unwrap();
    for group in &groups {
        members.push(identity.members(&owner, &group.group.name).await.unwrap());
    }
    serde_json::json!({
        "users": identity.users(&owner).await.unwrap(),
        "groups": groups,
        "members": members,
        "grants": identity.grants(&owner, None).await.unwrap(),
        "tables": engine.registry().list(&owner).await.unwrap(),
        "sources": engine.sources().list(&owner).await.unwrap(),
        "state": engine.sync().state(&owner).await.unwrap(),
        "runs": engine.sync().runs(&owner, 100).await.unwrap(),
    })
}

async fn audit(engine: &Engine) -> Vec<String> {
    let filter = AuditFilter { limit: 1000, ..AuditFilter::default() };
    let rows = engine.audit().list(&owner(), &filter).await.unwrap();
    rows.into_iter().map(|row| format!("{} {} {}", row.id, row.action, row.resource.unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_backed_up_comes_back() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    site.write("people.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    reader(&engine, "ann", &["orders"]).await;
    // The key that hash masks are made with; without it a restored mask would say something else.
    let key = site.root().join("state/instance.key");
    if !key.exists() {
        std::fs::write(&key, "6b".repeat(32)).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("deep/backup");
    let (before, logged) = (everything(&engine).await, audit(&engine).await);
    let index = engine.maintenance().backup(&owner(), &backup).await.unwrap();
    assert!(index.files.iter().any(|f| f.path.starts_with("analytics/blobs/")));
    assert!(!index.files.iter().any(|f| f.path.ends_with("server.duckdb")), "it names files of the old folder");
    // What happens after the backup is not in it.
    site.write("orders.csv", "id\n1\n2\n3\n");
    sync(&engine).await;
    let full = engine.maintenance().backup(&owner(), &backup).await.unwrap_err();
    assert_eq!(full.code(), "target_not_empty");
    for inside in ["b", "new/deep", "extracts/../b", "."] {
        let error = engine.maintenance().backup(&owner(), &site.root().join(inside)).await.unwrap_err();
        assert!(["target_inside_data_folder", "target_not_empty"].contains(&error.code()), "{inside}: {error}");
    }
    assert!(!site.root().join("b").exists() && !site.root().join("new").exists());
    engine.close().await.unwrap();
    drop(engine);

    let restored = elsewhere.path().join("restored");
    restore(&backup, &restored).unwrap();
    assert_eq!(std::fs::read(&key).unwrap(), std::fs::read(restored.join("state/instance.key")).unwrap());
    let engine = open(&restored).await.unwrap();
    assert_eq!(everything(&engine).await, before);
    let now = audit(&engine).await;
    assert!(logged.len() > 6 && logged.iter().all(|row| now.contains(row)), "{logged:?}\n{now:?}");
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "2");
    let ann = engine
        .identity()
        .principal_of(&owner(), "ann@acme.example", ClientKind::Api)
        .await
        .map(CallContext::new)
        .unwrap();
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM orders").await.unwrap(), "2");
    assert!(cell(&engine, &ann, "SELECT count(*) FROM people").await.is_err());
    assert_eq!(sync(&engine).await.tables.len(), 2, "the source is known after the restore");
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM orders").await.unwrap(), "3");
    engine.close().await.unwrap();
    drop(engine);
    // The master of views is made anew: it names the blobs of its own folder.
    let master = duckdb::Connection::open(restored.join("analytics/server.duckdb")).unwrap();
    let rows: i64 = master.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);

    let again = elsewhere.path().join("again");
    for part in ["analytics/blobs/", "state/system.duckdb"] {
        let file = index.files.iter().find(|f| f.path.starts_with(part)).unwrap();
        let path = backup.join(&file.path);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[10] ^= 1;
        for damaged in [&bytes[..], &whole[..whole.len() - 1]] {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(restore(&backup, &again).unwrap_err().code(), "backup_damaged", "{part}");
            assert!(!again.exists());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(restore(&backup, &again).unwrap_err().code(), "backup_damaged", "{part}");
        std::fs::write(&path, whole).unwrap();
    }
    restore(&backup, &again).unwrap();
    let none = restore(elsewhere.path(), &elsewhere.path().join("none")).unwrap_err();
    assert_eq!(none.code(), "not_a_backup");
    let left = std::fs::read_dir(elsewhere.path()).unwrap().flatten().map(|e| e.file_name()).collect::<Vec<_>>();
    assert_eq!(left.len(), 3, "nothing else was left: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_not_backed_up_as_if_it_were_good() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let blob = std::fs::read_dir(site.root().join("analytics/blobs"))
        .unwrap()
        .flatten()
        .flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten())
        .next()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[10] ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = engine.maintenance().backup(&owner(), &elsewhere.path().join("b")).await.unwrap_err();
    assert_eq!(refused.code(), "backup_damaged");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// Set in the child: the data folder that it backs up, or the backup that it restores.
const FROM: &str = "AGNES_TEST_COPY_FROM";
/// Set in the child: where to.
const TO: &str = "AGNES_TEST_COPY_TO";

fn paths() -> Option<(PathBuf, PathBuf)> {
    Some((std::env::var_os(FROM)?.into(), std::env::var_os(TO)?.into()))
}

/// Not a test of its own: the process whose file operations fail or end it.
#[tokio::test(flavor = "multi_thread")]
async fn child_backs_up() {
    let Some((from, to)) = paths() else { return };
    let engine = open(&from).await.unwrap();
    match engine.maintenance().backup(&owner(), &to).await {
        Ok(_) => println!("done"),
        Err(error) => println!("refused with {}", error.code()),
    }
}

/// Not a test of its own, as the one above.
#[test]
fn child_restores() {
    let Some((from, to)) = paths() else { return };
    match restore(&from, &to) {
        Ok(_) => println!("done"),
        Err(error) => println!("refused with {}", error.code()),
    }
}

/// Runs the child with a fault at each file operation, as a full disk and as a kill; `check`
/// sees what is at the target when the child did not finish. How many operations there are.
fn walk(child: &str, from: &Path, check: impl Fn(&Path, &str)) -> u32 {
    for n in 1.. {
        let mut finished = false;
        for how in ["", ":abort"] {
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("to");
            let done = Command::new(std::env::current_exe().unwrap())
                .args([child, "--exact", "--nocapture"])
                .envs([(FROM, from), (TO, &to)])
                .env("AGNES_FAULT_AT", format!("{n}{how}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(!said.contains("panicked"), "at operation {n}{how}: {said}");
            finished = said.contains("done");
            if !finished {
                check(&to, &format!("at operation {n}{how}: {said}"));
                assert!(how == ":abort" || said.contains("refused with disk_full"), "at operation {n}: {said}");
                let left =
                    std::fs::read_dir(place.path()).unwrap().flatten().map(|e| e.file_name()).collect::<Vec<_>>();
                assert!(how == ":abort" || left.is_empty() || to.exists(), "at operation {n}: {left:?}");
            }
        }
        if finished {
            return n - 1;
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_end_is_no_backup() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    engine.maintenance().backup(&owner(), &backup).await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    // Nothing, or after the last rename everything.
    let whole = |backup: &Path, label: &str| {
        if backup.exists() {
            let place = tempfile::tempdir().unwrap();
            restore(backup, &place.path().join("data")).unwrap_or_else(|error| panic!("{label}: {error}"));
        }
    };
    let root = site.root();
    let copied = tokio::task::spawn_blocking(move || walk("backup::child_backs_up", &root, whole)).await.unwrap();
    assert!(copied >= 15, "only {copied} operations were reached");
    let restored = tokio::task::spawn_blocking(move || {
        walk("backup::child_restores", &backup, |data, label| {
            assert!(!data.exists() || data.join("state/system.duckdb").exists(), "{label}");
        })
    });
    let restored = restored.await.unwrap();
    assert!(restored >= 8, "only {restored} operations were reached");
}

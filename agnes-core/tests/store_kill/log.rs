//! A write-ahead log that is damaged: the newest state that can be read answers, what is
//! dropped is kept aside and told, and where nothing can be read nothing is touched.

use std::path::{Path, PathBuf};

use agnes_core::audit::AuditFilter;
use agnes_core::identity::User;
use agnes_core::store::Store;
use agnes_core::store::duckdb::DuckStore;
use chrono::{DateTime, TimeZone, Utc};

use crate::{child, names, state_of_child};

fn now() -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000, 0).unwrap()
}

fn user(n: usize) -> User {
    User {
        id: format!("u{n:02}"),
        email: format!("u{n:02}@example.com"),
        name: None,
        active: true,
        deactivated_at: None,
        deactivated_by: None,
        created_at: Some(now()),
        updated_at: None,
        onboarded: false,
        last_pull_at: None,
    }
}

/// How many users are in the file, and how many more only in its log.
const IN_FILE: usize = 3;
const IN_LOG: usize = 20;

/// The child: some users in the file, more in the log, then an end without a word.
#[tokio::test(flavor = "multi_thread")]
async fn writing_child() {
    let Some(path) = state_of_child() else { return };
    let store = DuckStore::open(&path, now()).unwrap();
    for n in 0..IN_FILE {
        store.users().insert(&user(n)).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    for n in IN_FILE..IN_FILE + IN_LOG {
        store.users().insert(&user(n)).await.unwrap();
    }
    std::process::abort();
}

/// A state whose process was killed, to be copied and damaged.
struct Killed {
    file: Vec<u8>,
    log: Vec<u8>,
}

impl Killed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        let done = child("log::writing_child", &path, "").output().unwrap();
        assert!(!done.status.success());
        assert_eq!(names(folder.path()), ["system.duckdb", "system.duckdb.wal"]);
        Self { file: std::fs::read(&path).unwrap(), log: std::fs::read(path.with_extension("duckdb.wal")).unwrap() }
    }

    /// The same in a folder of its own, with this log.
    fn with_log(&self, log: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        std::fs::write(&path, &self.file).unwrap();
        std::fs::write(wal(&path), log).unwrap();
        (folder, path)
    }

    /// Where entries of the log begin.
    fn entries(&self) -> Vec<usize> {
        let mut at = 8;
        let mut found = Vec::new();
        while at < self.log.len() {
            found.push(at);
            at += 16 + usize::try_from(u64::from_le_bytes(self.log[at..at + 8].try_into().unwrap())).unwrap();
        }
        assert_eq!(at, self.log.len());
        found
    }
}

fn wal(path: &Path) -> PathBuf {
    path.with_extension("duckdb.wal")
}

/// Users that are there, which are the first ones, and what the audit says of a recovery.
async fn opened(path: &Path) -> (usize, Option<serde_json::Value>) {
    let store = DuckStore::open(path, now()).unwrap();
    let users = store.users().list().await.unwrap();
    assert!(users.iter().enumerate().all(|(n, found)| found.id == user(n).id), "{users:?}");
    let filter = AuditFilter { action_prefix: Some("state.recovered".into()), limit: 9, ..AuditFilter::default() };
    let mut told = store.audit().list(&filter).await.unwrap();
    assert!(told.len() < 2);
    // It goes on as if nothing had been.
    store.users().insert(&user(users.len())).await.unwrap();
    store.close().await.unwrap();
    let store = DuckStore::open(path, now()).unwrap();
    assert_eq!(store.users().list().await.unwrap().len(), users.len() + 1);
    store.close().await.unwrap();
    (users.len(), told.pop().and_then(|event| event.params))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_log_is_replayed_and_nothing_said() {
    let killed = Killed::new();
    let (folder, path) = killed.with_log(&killed.log);
    assert_eq!(opened(&path).await, (IN_FILE + IN_LOG, None));
    assert_eq!(names(folder.path()), ["system.duckdb"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_within_an_entry_gives_what_was_before_and_is_kept() {
    let killed = Killed::new();
    let entries = killed.entries();
    let middle = entries[entries.len() / 2];
    let mut too_long = killed.log.clone();
    too_long[middle + 3] = 0xff;
    for log in [&killed.log[..killed.log.len() - 3], &killed.log[..middle + 7], &killed.log[..4], &too_long[..]] {
        let (folder, path) = killed.with_log(log);
        let (users, told) = opened(&path).await;
        assert!((IN_FILE..IN_FILE + IN_LOG).contains(&users), "{users}");
        let told = told.unwrap();
        assert_eq!(told["from"], "log_cut_short");
        let kept = told["kept"][0].as_str().unwrap();
        assert_eq!(std::fs::read(folder.path().join(kept)).unwrap(), log);
        assert_eq!(names(folder.path()).len(), 2);
    }
    let (_folder, path) = killed.with_log(&too_long);
    assert!(opened(&path).await.0 > IN_FILE + 3, "what is before the damage is not lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_log_gives_the_newest_state_before_the_damage() {
    let killed = Killed::new();
    let entries = killed.entries();
    let middle = entries[entries.len() / 2];
    let garbled = |at: usize, with: &[u8]| {
        let mut log = killed.log.clone();
        log[at..at + with.len()].copy_from_slice(with);
        log
    };
    let zeros_at_the_end = [&killed.log[..middle], &[0; 4096][..]].concat();
    let cases = [
        ("log_before_damage", garbled(middle + 20, b"?"), true),
        ("log_before_damage", garbled(middle + 9, b"?"), true),
        ("log_before_damage", zeros_at_the_end, true),
        ("last_checkpoint", garbled(entries[0] + 17, b"???"), false),
        ("last_checkpoint", garbled(0, b"not a log at all"), false),
        ("last_checkpoint", garbled(6, b"?"), false),
        ("last_checkpoint", b"somebody else's file".to_vec(), false),
    ];
    for (n, (from, log, some)) in cases.iter().enumerate() {
        let (folder, path) = killed.with_log(log);
        let (users, told) = opened(&path).await;
        let told = told.unwrap_or_else(|| panic!("case {n}: nothing was told of {users} users"));
        if *some {
            assert_eq!(told["from"], *from, "case {n}");
            assert!((IN_FILE + 4..IN_FILE + IN_LOG).contains(&users), "case {n}: {users}");
        } else {
            assert_eq!(users, IN_FILE, "case {n}: {told}");
        }
        let broken = format!("system.duckdb.broken.{}", now().timestamp());
        assert_eq!(told["kept"], serde_json::json!([format!("{broken}.wal"), broken]), "case {n}");
        assert_eq!(names(folder.path()), ["system.duckdb", &broken, &format!("{broken}.wal")], "case {n}");
        assert_eq!(std::fs::read(folder.path().join(&broken)).unwrap(), killed.file, "case {n}");
        assert_eq!(std::fs::read(folder.path().join(format!("{broken}.wal"))).unwrap(), *log, "case {n}");
    }
}

/// Every block after the headers, so that no table can be read.
fn unreadable(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[3 * 4096..].iter_mut().skip(100).step_by(997).for_each(|byte| *byte ^= 0x55);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_made_before_a_migration_is_the_last_way() {
    let killed = Killed::new();
    let (folder, path) = killed.with_log(b"not a log");
    std::fs::write(&path, unreadable(&killed.file)).unwrap();
    let before = names(folder.path());
    let error = DuckStore::open(&path, now()).unwrap_err();
    assert!(["state_log_broken", "state_unreadable"].contains(&error.code()), "{error}");
    assert!(error.hint().unwrap().contains("agnes restore"));
    assert_eq!(names(folder.path()), before, "what is broken stays as it is");
    assert_eq!(std::fs::read(&path).unwrap(), unreadable(&killed.file));
    assert_eq!(std::fs::read(wal(&path)).unwrap(), b"not a log");

    // A data block of the file is damaged, its head is not: the copy is taken.
    let (_folder, path) = killed.with_log(b"not a log");
    let snapshot = path.with_extension("duckdb.pre-migrate");
    std::fs::write(&snapshot, &killed.file).unwrap();
    let mut damaged = 0;
    for at in (3 * 4096 + 50..killed.file.len()).step_by(256 << 10) {
        let mut file = killed.file.clone();
        file[at] ^= 1;
        for name in names(path.parent().unwrap()).iter().filter(|name| !name.ends_with("pre-migrate")) {
            std::fs::remove_file(path.with_file_name(name)).unwrap();
        }
        std::fs::write(&path, &file).unwrap();
        std::fs::write(wal(&path), b"not a log").unwrap();
        let Ok(store) = DuckStore::open(&path, now()) else { continue };
        assert_eq!(store.users().list().await.unwrap().len(), IN_FILE);
        let filter = AuditFilter { action_prefix: Some("state.recovered".into()), limit: 9, ..AuditFilter::default() };
        let told = store.audit().list(&filter).await.unwrap().pop().unwrap().params.unwrap();
        damaged += i32::from(told["from"] == "before_migration");
        store.close().await.unwrap();
    }
    assert!(damaged > 0, "no damage was noticed");
}

/// The child: opens the state, which recovers it.
#[test]
fn recovering_child() {
    let Some(path) = state_of_child() else { return };
    match DuckStore::open(&path, now()) {
        Ok(_) => println!("recovered"),
        Err(error) => println!("refused with {}", error.code()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_may_end_at_any_step() {
    let killed = Killed::new();
    let entries = killed.entries();
    let mut log = killed.log.clone();
    log[entries[entries.len() / 2] + 20] ^= 1;
    let expected = opened(&killed.with_log(&log).1).await.0;
    for how in ["", ":abort"] {
        let mut stopped = 0;
        for n in 1.. {
            let (folder, path) = killed.with_log(&log);
            let done = child("log::recovering_child", &path, format!("{n}{how}")).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(!said.contains("panicked"), "step {n}{how}: {said}");
            let finished = said.contains("recovered");
            assert!(finished || how == ":abort" || said.contains("refused with disk_full"), "step {n}: {said}");
            let (users, told) = opened(&path).await;
            assert_eq!(users, expected, "step {n}{how}: {told:?} {:?}", names(folder.path()));
            let logs =
                names(folder.path()).into_iter().filter(|name| name.contains("broken") && name.ends_with(".wal"));
            let logs: Vec<_> = logs.map(|name| std::fs::read(folder.path().join(name)).unwrap()).collect();
            assert_eq!(logs, [log.clone()], "step {n}{how}");
            assert!(names(folder.path()).iter().all(|name| !name.contains(".tmp") && !name.contains("restoring")));
            if finished {
                break;
            }
            stopped += 1;
        }
        assert!(stopped >= 8, "only {stopped} steps were reached");
    }
}

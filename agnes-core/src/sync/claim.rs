//! Who makes a copy of a table just now, said beside it for every program that writes into this
//! folder: a lock on `data/<table>.parquet.lock`, which says which process of which machine took it.
//!
//! Inside Agnes runs of a source follow one another; this is for others that keep the same rule. The
//! file stays when its lock goes: a program that opened it would lock what has no name any more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file_lock::FileLock;
use crate::ident::TableName;
use crate::layout;

/// Whose lock it is.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    /// The machine; none where it has no name.
    host: Option<String>,
    pid: u32,
    started_at: DateTime<Utc>,
}

/// A table that this process copies, until dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: FileLock,
}

impl Claim {
    /// Takes a table of the extract in `folder` without waiting; `None` while somebody else has it. A
    /// lock that is older than `ttl` counts for nothing, unless its owner runs on this machine.
    /// Blocks.
    pub(super) fn take(folder: &Path, table: &TableName, ttl: Duration, now: DateTime<Utc>) -> Result<Option<Self>> {
        let path = layout::lock_file(folder, table);
        let io = |e| Error::io("claim a table", e);
        std::fs::create_dir_all(folder.join("data")).map_err(io)?;
        // What is removed below is made anew in the next round.
        for _ in 0..3 {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
            match file.try_lock() {
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    let owner = Owner { host: host(), pid: std::process::id(), started_at: now };
                    let text = serde_json::to_vec(&owner).map_err(|e| Error::internal("claim a table", e))?;
                    let mut write = || -> std::io::Result<()> {
                        file.set_len(0)?;
                        file.seek(SeekFrom::Start(0))?;
                        file.write_all(&text)
                    };
                    write().map_err(io)?;
                    return Ok(Some(Self { _lock: FileLock::held(file) }));
                }
                Err(TryLockError::WouldBlock) if is_forgotten(&mut file, ttl, now) => {
                    tracing::warn!(%table, "a lock that nobody seems to hold any more is taken over");
                    remove(&path).map_err(io)?;
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(io(e)),
            }
        }
        Ok(None)
    }
}

/// Removes files of locks that are older than `ttl` and that nobody holds, below the folder of
/// extracts. What cannot be looked at stays. Blocks.
pub(crate) fn sweep(extracts: &Path, ttl: Duration, now: DateTime<Utc>) {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    for extract in entries(extracts) {
        for file in entries(&extract.path().join("data")) {
            let path = file.path();
            if !file.file_name().to_string_lossy().ends_with(layout::LOCK_SUFFIX) {
                continue;
            }
            let Ok(mut opened) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
            let unused = match opened.try_lock() {
                Ok(()) => is_old(&opened, ttl, now),
                Err(TryLockError::WouldBlock) => is_forgotten(&mut opened, ttl, now),
                Err(TryLockError::Error(_)) => false,
            };
            if unused && let Err(error) = remove(&path) {
                tracing::debug!(%error, "the file of an old lock stays");
            }
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether the path still leads to this file: somebody may have removed it in between.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let there = path.metadata().and_then(|there| Ok((there, file.metadata()?)));
    there.is_ok_and(|(there, here)| (there.dev(), there.ino()) == (here.dev(), here.ino()))
}

fn is_old(file: &File, ttl: Duration, now: DateTime<Utc>) -> bool {
    let changed = file.metadata().and_then(|meta| meta.modified()).map(DateTime::<Utc>::from);
    let ttl = TimeDelta::from_std(ttl).unwrap_or(TimeDelta::MAX);
    changed.is_ok_and(|changed| now - changed > ttl)
}

/// Whether a lock that is held is that of a process which seems to be gone.
fn is_forgotten(file: &mut File, ttl: Duration, now: DateTime<Utc>) -> bool {
    if !is_old(file, ttl, now) {
        return false;
    }
    let mut text = String::new();
    let owner = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str::<Owner>(&text).ok());
    // Of another machine nothing can be said but how long ago it was.
    owner.is_none_or(|owner| owner.host != host() || !runs(owner.pid))
}

fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The name of this machine; of a container, its own.
fn host() -> Option<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(place.0.path().join("shop/data")).unwrap();
            place
        }
        fn take(&self, later: i64) -> Option<Claim> {
            let now = Utc::now() + TimeDelta::seconds(later);
            Claim::take(&self.0.path().join("shop"), &TableName::parse("orders").unwrap(), TTL, now).unwrap()
        }
        fn path(&self) -> PathBuf {
            self.0.path().join("shop/data/orders.parquet.lock")
        }
        /// As another program leaves it, which holds it until the file is dropped.
        fn held_by(&self, owner: &str) -> File {
            std::fs::write(self.path(), owner).unwrap();
            let file = File::open(self.path()).unwrap();
            file.lock().unwrap();
            file
        }
    }

    fn owner(host: Option<String>, pid: u32) -> String {
        serde_json::to_string(&Owner { host, pid, started_at: Utc::now() }).unwrap()
    }

    /// A process that has ended.
    fn gone() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn one_has_a_table_at_a_time_and_the_file_says_who() {
        let place = Place::new();
        let first = place.take(0).unwrap();
        let said: Owner = serde_json::from_str(&std::fs::read_to_string(place.path()).unwrap()).unwrap();
        assert_eq!((said.pid, said.host), (std::process::id(), host()));
        // However old: its owner runs.
        assert!(place.take(0).is_none() && place.take(1_000_000).is_none());
        drop(first);
        assert!(place.path().is_file());
        assert!(place.take(0).is_some());
    }

    #[test]
    fn an_old_lock_of_nobody_counts_for_nothing() {
        let place = Place::new();
        let elsewhere = Some("another-machine".to_owned());
        for (words, forgotten) in [
            (owner(host(), gone()), true),
            (owner(elsewhere, std::process::id()), true),
            (String::new(), true),
            ("\u{0}not JSON".to_owned(), true),
            (owner(host(), std::process::id()), false),
        ] {
            let held = place.held_by(&words);
            assert!(place.take(30).is_none(), "{words}");
            let taken = place.take(120);
            assert_eq!(taken.is_some(), forgotten, "{words}");
            // Who comes next sees the new one, not the old one.
            assert!(taken.is_none() || place.take(120).is_none());
            drop((held, taken));
        }
    }

    #[test]
    fn a_start_removes_what_is_left_of_old_locks() {
        let place = Place::new();
        let sweep = |later: i64| sweep(place.0.path(), TTL, Utc::now() + TimeDelta::seconds(later));
        drop(place.take(0));
        sweep(30);
        assert!(place.path().is_file());
        sweep(120);
        assert!(!place.path().exists());
        let mine = place.take(0).unwrap();
        sweep(120);
        assert!(place.path().is_file() && place.take(0).is_none());
        drop(mine);
        let theirs = place.held_by(&owner(host(), gone()));
        sweep(120);
        assert!(!place.path().exists());
        drop(theirs);
        // Nothing else of the folder is a lock.
        let data = place.0.path().join("shop/data/orders.parquet");
        std::fs::write(&data, b"PAR1").unwrap();
        sweep(120);
        assert!(data.is_file());
    }
}

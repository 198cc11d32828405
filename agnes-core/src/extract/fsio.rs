//! The one place for crash-safe file work: write beside the target under a name of its
//! own, sync, rename, sync the folder. A kill leaves the old file or the new one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Suffix of everything that is being written. Readers never look at it.
pub(crate) const TMP: &str = ".tmp";

/// Stops the process at the n-th file operation, so that tests can walk every one.
///
/// `AGNES_FAULT_AT=7` makes the seventh operation of the process fail as a full disk
/// would; `AGNES_FAULT_AT=7:abort` ends the process there. Only with feature `testing`.
///
/// # Errors
/// The fault that was asked for.
#[cfg(feature = "testing")]
pub(crate) fn fault_point() -> std::io::Result<()> {
    match fault::wanted() {
        Some((at, "abort")) if fault::reached(at) => std::process::abort(),
        Some((at, "")) if fault::reached(at) => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        _ => Ok(()),
    }
}

/// Before and after each commit of the state: `AGNES_FAULT_AT=7:commit` ends the process at
/// the seventh of these.
pub(crate) fn kill_point() {
    #[cfg(feature = "testing")]
    if let Some((at, "commit")) = fault::wanted()
        && fault::reached(at)
    {
        // No destructor runs: as close to `kill -9` as a process can do to itself.
        std::process::abort();
    }
}

/// What tests ask for, and how far it is.
#[cfg(feature = "testing")]
mod fault {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    static WANTED: OnceLock<Option<String>> = OnceLock::new();

    /// Which operation, and what shall happen there.
    pub(super) fn wanted() -> Option<(u64, &'static str)> {
        let text = WANTED.get_or_init(|| std::env::var("AGNES_FAULT_AT").ok()).as_deref()?;
        let (number, how) = text.split_once(':').unwrap_or((text, ""));
        Some((number.parse().ok()?, how))
    }

    pub(super) fn reached(at: u64) -> bool {
        COUNT.fetch_add(1, Ordering::SeqCst) + 1 == at
    }
}

#[cfg(not(feature = "testing"))]
#[expect(clippy::unnecessary_wraps, reason = "the testing build can fail here")]
pub(crate) fn fault_point() -> std::io::Result<()> {
    Ok(())
}

/// A name beside `target` that nobody else uses and no reader looks at.
pub(crate) fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!("{name}.{}{TMP}", uuid::Uuid::new_v4().simple()))
}

/// A file that is being written; removed when dropped before [`Staged::publish`].
#[derive(Debug)]
pub(crate) struct Staged {
    path: Option<PathBuf>,
}

impl Staged {
    /// Stages a file that will become `target`; its folder is made when missing.
    pub(crate) fn beside(target: &Path) -> Result<Self> {
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make a folder", e))?;
        }
        fault_point().map_err(|e| Error::io("make a file", e))?;
        Ok(Self { path: Some(temporary(target)) })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Puts its bytes on the disk, so that the rename cannot be there before them.
    pub(crate) fn sync(&self) -> Result<()> {
        fault_point()
            .and_then(|()| File::open(self.path())?.sync_all())
            .map_err(|e| Error::io("write a file to disk", e))
    }

    /// Renames it to `target`. Sync it before, and the folder afterwards.
    pub(crate) fn publish(mut self, target: &Path) -> Result<()> {
        fault_point()
            .and_then(|()| std::fs::rename(self.path(), target))
            .map_err(|e| Error::io("publish a file", e))?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    fault_point().and_then(|()| File::open(folder)?.sync_all()).map_err(|e| Error::io("write a folder to disk", e))
}

/// Copies a file to `to`, which is written over, and puts it on the disk. `action` is for
/// the error.
pub(crate) fn copy_file(action: &'static str, from: &Path, to: &Path) -> Result<()> {
    fault_point()
        .and_then(|()| std::fs::copy(from, to))
        .and_then(|_| fault_point())
        .and_then(|()| File::open(to)?.sync_all())
        .map_err(|e| Error::io(action, e))
}

/// Replaces `target` by `bytes`, or leaves it as it is.
///
/// # Errors
/// I/O errors, `disk_full` among them.
pub fn write_atomically(target: &Path, bytes: &[u8]) -> Result<()> {
    let staged = Staged::beside(target)?;
    fault_point()
        .and_then(|()| File::create(staged.path())?.write_all(bytes))
        .map_err(|e| Error::io("write a file", e))?;
    staged.sync()?;
    staged.publish(target)?;
    sync_folder(target.parent().unwrap_or(Path::new(".")))
}

/// Deletes what interrupted writers left below `folder`: files and folders whose names end
/// in `.tmp`, as this module makes them. A folder that was being exchanged when the process
/// died, and is now missing under its name, comes back.
pub(crate) fn sweep(folder: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_temporary(&name) {
            if let Some(original) = name.split_once(OLD).map(|(stem, _)| path.with_file_name(stem))
                && kind.is_dir()
                && !original.exists()
            {
                drop(std::fs::rename(&path, &original));
                continue;
            }
            drop(if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) });
        } else if kind.is_dir() && depth > 0 {
            sweep(&path, depth - 1);
        }
    }
}

/// Opens a regular file below `folder`, however a producer laid links: one that leads
/// outside is refused, so that nobody has Agnes read for him what he may not read himself.
pub(crate) fn open_beneath(folder: &Path, relative: &Path) -> Result<File> {
    let opened = open_beneath_as_is(folder, relative)?;
    let regular = opened.metadata().is_ok_and(|meta| meta.is_file());
    if regular { Ok(opened) } else { Err(super::ExtractError::Outside.into()) }
}

fn open_beneath_as_is(folder: &Path, relative: &Path) -> Result<File> {
    let fail = |e: std::io::Error| Error::io("read a file of an extract", e);
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
        let root = File::open(folder).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        match openat2(&root, relative, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Ok(file) => return Ok(file.into()),
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => return Err(super::ExtractError::Outside.into()),
            // Kernels and filters that do not know the call.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(fail(e.into())),
        }
    }
    let real = folder.join(relative).canonicalize().map_err(fail)?;
    if !real.starts_with(folder.canonicalize().map_err(fail)?) || !real.is_file() {
        return Err(super::ExtractError::Outside.into());
    }
    File::open(real).map_err(fail)
}

/// Marks the old folder while it is exchanged where the system cannot do that in one step.
const OLD: &str = ".old-";

/// Whether this module made the name: `<name>.<32 hex digits>.tmp`, or DuckDB made it for
/// a file of that name (`...tmp.wal`).
pub(crate) fn is_temporary(name: &str) -> bool {
    let name = name.strip_suffix(".wal").unwrap_or(name);
    name.strip_suffix(TMP)
        .and_then(|stem| stem.rsplit_once(['.', '-']))
        .is_some_and(|(_, id)| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Puts the folder `staged` in place of `target`, which may be missing; the old content is
/// deleted afterwards.
pub(crate) fn exchange_folders(staged: &Path, target: &Path) -> Result<()> {
    let done = || -> std::io::Result<()> {
        fault_point()?;
        if !target.exists() {
            return std::fs::rename(staged, target);
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            match renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
                Ok(()) => return std::fs::remove_dir_all(staged),
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // Two steps: a sweep brings the old folder back when the process dies between them.
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let old = target.with_file_name(format!("{name}{OLD}{}{TMP}", uuid::Uuid::new_v4().simple()));
        std::fs::rename(target, &old)?;
        fault_point()?;
        std::fs::rename(staged, target)?;
        std::fs::remove_dir_all(&old)
    };
    done().map_err(|e| Error::io("publish the parts", e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_sweeps() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        write_atomically(&target, b"1").unwrap();
        write_atomically(&target, b"2").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"2");
        std::fs::write(temporary(&target), b"half").unwrap();
        std::fs::write(folder.path().join("notes.tmp"), b"somebody's own").unwrap();
        sweep(folder.path(), 1);
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.json", "notes.tmp"]);
    }

    #[test]
    fn folders_are_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, target) = (folder.path().join("new"), folder.path().join("parts"));
        for round in ["1", "2"] {
            std::fs::create_dir(&staged).unwrap();
            std::fs::write(staged.join("x"), round).unwrap();
            exchange_folders(&staged, &target).unwrap();
            assert_eq!(std::fs::read_to_string(target.join("x")).unwrap(), round);
            assert!(!staged.exists());
        }
    }
}

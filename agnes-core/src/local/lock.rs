//! The lock of a data folder: one process holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::LocalError;
use crate::error::{Error, Result};
use crate::file_lock::FileLock;
use crate::layout::DataFolder;

/// Who holds a data folder, as the lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// When it took the folder.
    pub since: DateTime<Utc>,
}

impl Holder {
    /// What the lock file says; `None` when it says nothing (yet). The process may have
    /// ended: only the lock itself tells.
    #[must_use]
    pub fn read(folder: &DataFolder) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(folder.holder_lock()).ok()?).ok()
    }
}

/// The lock of a data folder. Held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct HolderLock {
    file: FileLock,
}

impl HolderLock {
    /// Takes the lock without waiting; makes the state folder when missing.
    ///
    /// The lock file is never removed: a second process could lock the old file while a
    /// third one locks a new file of the same name.
    ///
    /// # Errors
    /// `data_folder_held`, naming the process that has it; I/O errors.
    pub fn acquire(folder: &DataFolder) -> Result<Self> {
        std::fs::create_dir_all(folder.state_dir()).map_err(|e| Error::io("make the state folder", e))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(folder.holder_lock()).map_err(|e| Error::io("open the holder lock", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                let pid = serde_json::from_str::<Holder>(&text).ok().map(|holder| holder.pid);
                return Err(LocalError::Held { pid }.into());
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock the data folder", e)),
        }
        let holder = Holder { pid: std::process::id(), since: Utc::now() };
        let text = serde_json::to_string(&holder).map_err(|e| Error::internal("write the holder lock", e))?;
        let lock = Self { file: FileLock::held(file) };
        lock.write(&text).map_err(|e| Error::io("write the holder lock", e))?;
        Ok(lock)
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut file: &File = &self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for HolderLock {
    fn drop(&mut self) {
        // So that nobody is told of a process that let go.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(dir.path());
        let lock = HolderLock::acquire(&folder).unwrap();
        let error = HolderLock::acquire(&folder).unwrap_err();
        assert_eq!(error.code(), "data_folder_held");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        assert_eq!(Holder::read(&folder).unwrap().pid, std::process::id());
        drop(lock);
        assert!(Holder::read(&folder).is_none());
        HolderLock::acquire(&folder).unwrap();
    }

    #[test]
    fn a_damaged_lock_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(dir.path());
        std::fs::create_dir_all(folder.state_dir()).unwrap();
        std::fs::write(folder.holder_lock(), "x".repeat(9000)).unwrap();
        let _lock = HolderLock::acquire(&folder).unwrap();
        assert_eq!(Holder::read(&folder).unwrap().pid, std::process::id());
    }
}

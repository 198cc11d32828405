//! The lock of a file, let go of when it is dropped.

use std::fs::File;
use std::ops::Deref;

/// A file that this process locked, until dropped.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Lets go of the lock of `file`, which is locked already, when it is dropped.
    #[must_use]
    pub fn held(file: File) -> Self {
        Self(file)
    }
}

impl Deref for FileLock {
    type Target = File;
    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A program that is just being started may have the file, too, and would keep the lock.
        let _ = self.0.unlock();
    }
}

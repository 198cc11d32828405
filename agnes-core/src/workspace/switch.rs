//! The switch from one generation to the next: written down first, so that whoever is killed in
//! the middle is finished by the next one to come, without any server.
//!
//! Order: what is to be (`switch.json`), links under `server`, views, the state, and only
//! then is what nothing names any more deleted.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use super::plan::stamp;
use super::readers::kept;
use super::state::LocalFile;
use super::{SyncState, Workspace};
use crate::error::{Error, Result};
use crate::extract::fsio::temporary;

/// What a switch has to say.
#[derive(Debug, Default)]
pub(super) struct Switched {
    pub(super) state: SyncState,
    /// Tables and snapshots without a view, and why; files that somebody changed here.
    pub(super) warnings: Vec<String>,
}

impl Workspace {
    /// Makes the folders that a pull needs.
    pub(super) fn make_folders(&self) -> Result<()> {
        for folder in [self.blobs(), self.incoming(), self.parquet(), self.snapshots()] {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make the folders of the workspace", e))?;
        }
        Ok(())
    }

    /// Changes what the workspace holds to `next`, whose contents are all there.
    pub(super) fn switch(&self, mut next: SyncState) -> Result<Switched> {
        let tables = next.tables.values_mut().flat_map(|table| &mut table.files);
        for file in tables.chain(&mut next.assets) {
            if let Some((_, modified)) = stamp(&self.blob(&file.blob)) {
                file.modified_ns = modified;
            }
        }
        // Their names must not be on the disk before they are.
        let blobs = File::open(self.blobs()).map_err(|e| Error::io("write the tables to disk", e))?;
        flush(&blobs)?;
        next.write(&self.switch_file())?;
        self.finish_switch(next)
    }

    /// Goes on with a switch that was begun and not finished; gives what it has to say.
    pub(super) fn recover(&self) -> Result<Vec<String>> {
        match self.begun()? {
            Some(next) => Ok(self.finish_switch(next)?.warnings),
            None => Ok(Vec::new()),
        }
    }

    fn finish_switch(&self, mut next: SyncState) -> Result<Switched> {
        let before = self.state()?;
        let root = self.parquet();
        for file in next.files() {
            self.link(&root, file)?;
        }
        let named: BTreeSet<&str> = next.files().map(|file| file.path.as_str()).collect();
        for gone in before.files().filter(|file| !named.contains(file.path.as_str())) {
            let path = root.join(&gone.path);
            let _ = std::fs::remove_file(&path);
            prune(&root, &path);
        }
        let mut warnings = self.place_assets(&before, &next)?;
        let ours = before.views.union(&next.views).cloned().collect();
        let made = self.publish_views(&next, &ours)?;
        // Of the owner's own they say nothing about the table of that name.
        for (name, columns) in made.columns.into_iter().filter(|(name, _)| made.views.contains(name)) {
            if let Some(table) = next.tables.get_mut(&name) {
                table.columns = columns;
            }
        }
        (next.views, next.database) = (made.views, made.database);
        // Held until the old contents are gone: who begins to read meanwhile waits for the new ones.
        let unread = self.unread();
        next.kept = kept(&before, &next, unread.is_none());
        if made.is_late {
            // The next pull sees that something is not as it should be.
            next.root = String::new();
        }
        next.write(&self.state_file())?;
        std::fs::remove_file(self.switch_file()).map_err(|e| Error::io("finish a switch", e))?;
        self.collect(&next);
        drop(unread);
        warnings.extend(made.warnings);
        Ok(Switched { state: next, warnings })
    }

    /// Gives a content its name.
    pub(super) fn link(&self, root: &Path, file: &LocalFile) -> Result<()> {
        let (blob, target) = (self.blob(&file.blob), root.join(&file.path));
        if is_same(&blob, &target) {
            return Ok(());
        }
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make a file's folder", e))?;
        }
        let beside = temporary(&target);
        let put = || -> std::io::Result<()> {
            if std::fs::hard_link(&blob, &beside).is_err() {
                // A file system without links.
                std::fs::copy(&blob, &beside)?;
                let modified = blob.metadata()?.modified()?;
                File::options().append(true).open(&beside).and_then(|file| file.set_modified(modified)).ok();
            }
            std::fs::rename(&beside, &target)
        };
        let done = put();
        // Two names of one file: then a rename does nothing, and leaves both.
        let _ = std::fs::remove_file(&beside);
        done.map_err(|e| Error::io("put a file in its place", e))
    }

    /// Deletes what killed processes left beside what is the owner's, and spill files.
    pub(super) fn sweep_interrupted(&self) {
        if let Some(folder) = self.database().parent() {
            crate::extract::fsio::sweep(folder, 0);
        }
        crate::query::sweep_spill(&self.scratch());
        self.sweep_snapshots();
    }

    /// Deletes contents that neither this generation nor what is kept beside it names, and what arrived
    /// in vain.
    fn collect(&self, state: &SyncState) {
        let named = state.blobs();
        let is_named = |name: &str| named.contains(name) || state.kept.contains_key(name);
        for entry in std::fs::read_dir(self.blobs()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_none_or(|name| !is_named(name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        for entry in std::fs::read_dir(self.incoming()).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        crate::extract::fsio::sweep(&self.parquet(), 3);
        crate::extract::fsio::sweep(&self.from_server(), 9);
        crate::extract::fsio::sweep(&self.own(), 1);
    }

    /// Deletes what arrived of contents that nobody wants any more.
    pub(super) fn forget_incoming(&self, wanted: &BTreeSet<&str>) {
        for entry in std::fs::read_dir(self.incoming()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains(name.trim_end_matches(".done")) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Removes the folders that `path` was in, below `root`, that are empty now.
pub(super) fn prune(root: &Path, path: &Path) {
    let mut folder = path.parent();
    while let Some(empty) = folder.filter(|folder| *folder != root) {
        if std::fs::remove_dir(empty).is_err() {
            break;
        }
        folder = empty.parent();
    }
}

/// Whether both are names of one file, or a copy that was not touched.
fn is_same(blob: &Path, target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |path: &Path| path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    let blob_inode = inode(blob);
    blob_inode.is_some() && (blob_inode == inode(target))
}

/// Puts everything that was written in this file system on the disk.
fn flush(folder: &File) -> Result<()> {
    #[cfg(target_os = "linux")]
    let done = rustix::fs::syncfs(folder).map_err(std::io::Error::from);
    #[cfg(not(target_os = "linux"))]
    let done = folder.sync_all();
    done.map_err(|e| Error::io("write the tables to disk", e))
}

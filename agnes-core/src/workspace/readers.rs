//! Contents of older generations: how long they stay for whoever began to read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use super::{SyncState, Workspace};
use crate::file_lock::FileLock;

impl Workspace {
    /// No content goes as long as it is held, but those of tables that may not be read any more;
    /// none where files cannot be locked.
    pub(super) fn reading(&self) -> Option<FileLock> {
        let file = self.readers()?;
        file.lock_shared().ok()?;
        Some(FileLock::held(file))
    }

    /// Nobody begins to read as long as it is held; none while somebody reads.
    pub(super) fn unread(&self) -> Option<FileLock> {
        let file = self.readers()?;
        file.try_lock().ok()?;
        Some(FileLock::held(file))
    }

    fn readers(&self) -> Option<File> {
        File::options().create(true).truncate(false).write(true).open(self.readers_file()).ok()
    }

    /// Makes room for what comes: of older generations only what `next` has again stays, unless
    /// somebody reads.
    pub(super) fn make_room(&self, state: &SyncState, next: &SyncState) {
        let Some(_unread) = self.unread() else { return };
        let named = next.blobs();
        for blob in state.kept.keys().filter(|blob| !named.contains(blob.as_str())) {
            let _ = std::fs::remove_file(self.blob(blob));
        }
    }
}

/// Contents that stay beside those of `next`, with the table of each: those of the generation before
/// and, while somebody reads, older ones. Nothing of a table that may not be read any more, nor of a
/// part of one that other rules made.
pub(super) fn kept(before: &SyncState, next: &SyncState, is_read: bool) -> BTreeMap<String, String> {
    let blobs = |state: &SyncState| state.files().map(|file| file.blob.clone()).collect::<BTreeSet<_>>();
    let named = blobs(next);
    let is_any_new = !named.is_subset(&blobs(before));
    let tables = before.tables.iter();
    let of_before = tables.flat_map(|(name, table)| table.files.iter().map(|file| (file.blob.clone(), name.clone())));
    let older = before.kept.clone().into_iter().filter(|_| is_read || !is_any_new);
    let may_stay = |table: &String| match (before.tables.get(table), next.tables.get(table)) {
        (Some(old), Some(new)) => !new.slice || (old.slice && old.rules.is_some() && old.rules == new.rules),
        _ => false,
    };
    older.chain(of_before).filter(|(blob, table)| !named.contains(blob) && may_stay(table)).collect()
}

//! Files under `server` that are no tables: put where people read them, and nothing of theirs lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::Utc;

use super::fetch::fits_file;
use super::plan::{Digest, stamp};
use super::state::LocalFile;
use super::switch::prune;
use super::{SyncState, Workspace};
use crate::error::{Error, Result};

/// What the content of an asset is called behind its hash.
const SUFFIX: &str = ".file";

/// The name of a content.
pub(super) fn blob_of(sha256: &str) -> String {
    format!("{sha256}{SUFFIX}")
}

impl Workspace {
    /// Takes away the files that `next` does not name and links those that it names. What somebody
    /// changed here, or put where a file has to be, stays beside it under another name: what to say
    /// of that comes back. Done again after a kill it does the rest.
    pub(super) fn place_assets(&self, before: &SyncState, next: &SyncState) -> Result<Vec<String>> {
        let root = self.from_server();
        let named: BTreeSet<&str> = next.assets.iter().map(|file| file.path.as_str()).collect();
        let old: BTreeMap<&str, &LocalFile> = before.assets.iter().map(|file| (file.path.as_str(), file)).collect();
        let is_as_put = |place: &Path, file: &LocalFile| stamp(place) == Some((file.size_bytes, file.modified_ns));
        let mut told = Vec::new();
        // First: a folder may have to be where a file was.
        for (path, gone) in old.iter().filter(|(path, _)| !named.contains(*path)) {
            let place = root.join(path);
            let is_folder_now = || place.is_dir() && named.iter().any(|name| Path::new(name).starts_with(path));
            if is_as_put(&place, gone) {
                std::fs::remove_file(&place).map_err(|e| Error::io("take a document away", e))?;
            } else if !is_folder_now() {
                told.extend(set_aside(&root, &place)?);
            }
            prune(&root, &place);
        }
        for file in &next.assets {
            let place = root.join(&file.path);
            let above = place.ancestors().skip(1).take_while(|folder| *folder != root);
            for folder in above.filter(|folder| !folder.is_dir()) {
                told.extend(set_aside(&root, folder)?);
            }
            let is_ours = is_as_put(&place, file)
                || old.get(file.path.as_str()).is_some_and(|old| is_as_put(&place, old))
                || is_content(&place, file);
            if !is_ours {
                told.extend(set_aside(&root, &place)?);
            }
            self.link(&root, file)?;
        }
        Ok(told)
    }
}

/// Whether a file has the bytes that it is to have, whoever put it there.
fn is_content(place: &Path, file: &LocalFile) -> bool {
    let digest = file.blob.strip_suffix(SUFFIX).map(|hash| Digest::Sha256(hash.to_owned()));
    stamp(place).is_some_and(|(size, _)| size == file.size_bytes)
        && digest.is_some_and(|digest| fits_file(&digest, place).unwrap_or(false))
}

/// Gives what is at `place`, if anything is, another name in the same folder.
fn set_aside(root: &Path, place: &Path) -> Result<Option<String>> {
    if place.symlink_metadata().is_err() {
        return Ok(None);
    }
    let aside = backup_of(place)?;
    std::fs::rename(place, &aside).map_err(|e| Error::io("keep a file of yours", e))?;
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Some(format!(
        "`server/{}` is not as it was put there: yours is kept as `server/{}`",
        shown(place),
        shown(&aside)
    )))
}

/// A name that is free, in the same folder, for a file of the owner's that is in the way.
pub(super) fn backup_of(place: &Path) -> Result<PathBuf> {
    let named = |n: u32| {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".bak.{}", Utc::now().format("%Y%m%dT%H%M%SZ")));
        if n > 0 {
            name.push(format!(".{n}"));
        }
        place.with_file_name(name)
    };
    let free = (0..1000).map(named).find(|path| path.symlink_metadata().is_err());
    free.ok_or_else(|| Error::io("keep a file of yours", std::io::ErrorKind::AlreadyExists.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::orchestrator::hex;

    struct Place {
        folder: tempfile::TempDir,
        workspace: Workspace,
        state: SyncState,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let workspace = Workspace::at(folder.path()).unwrap();
            workspace.make_folders().unwrap();
            Self { folder, workspace, state: SyncState::default() }
        }

        /// Brings these files, by path and text; gives what is told.
        fn bring(&mut self, files: &[(&str, &str)]) -> Vec<String> {
            let assets = files.iter().map(|(path, text)| {
                use sha2::Digest as _;
                let blob = blob_of(&hex(&sha2::Sha256::digest(text)));
                let file = self.workspace.blob(&blob);
                if std::fs::read_to_string(&file).is_ok_and(|kept| kept != *text) || !file.exists() {
                    let beside = file.with_extension("new");
                    std::fs::write(&beside, text).unwrap();
                    std::fs::rename(beside, &file).unwrap();
                }
                let modified_ns = stamp(&file).unwrap().1;
                LocalFile { path: (*path).to_owned(), blob, size_bytes: text.len() as u64, modified_ns }
            });
            let next = SyncState { assets: assets.collect(), ..SyncState::default() };
            let told = self.workspace.place_assets(&self.state, &next).unwrap();
            // Whoever was killed does it all again.
            assert_eq!(self.workspace.place_assets(&self.state, &next).unwrap(), Vec::<String>::new());
            self.state = next;
            told
        }

        /// Paths and texts of what lies below `server`, dates cut off.
        fn there(&self) -> Vec<(String, String)> {
            let mut found: Vec<_> = walkdir::WalkDir::new(self.workspace.from_server())
                .into_iter()
                .flatten()
                .filter(|entry| entry.file_type().is_file())
                .map(|entry| {
                    let path = entry.path().strip_prefix(self.workspace.from_server()).unwrap();
                    let path = path.to_string_lossy();
                    let path = path.split_once(".bak.").map_or(path.to_string(), |(name, _)| format!("{name}.bak"));
                    (path, std::fs::read_to_string(entry.path()).unwrap())
                })
                .collect();
            found.sort();
            found
        }
    }

    fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn files_come_change_and_go() {
        let mut place = Place::new();
        assert!(place.bring(&[("docs/a.md", "one"), ("docs/deep/b.md", "two"), ("docs/deep/c.md", "two")]).is_empty());
        assert_eq!(place.there().len(), 3);
        let inode = |path: &str| place.folder.path().join(path).metadata().unwrap().ino();
        assert_eq!(inode("server/docs/deep/b.md"), inode("server/docs/deep/c.md"), "one content, once");
        assert!(place.bring(&[("docs/a.md", "three")]).is_empty());
        assert_eq!(place.there(), pairs(&[("docs/a.md", "three")]));
        assert!(!place.folder.path().join("server/docs/deep").exists());
        // A folder where a file was, and a file where a folder was.
        assert!(place.bring(&[("docs/a.md/x", "in"), ("docs/b", "four")]).is_empty());
        assert!(place.bring(&[("docs/a.md", "five"), ("docs/b/y", "six")]).is_empty());
        assert_eq!(place.there(), pairs(&[("docs/a.md", "five"), ("docs/b/y", "six")]));
        assert!(place.bring(&[]).is_empty());
        assert!(place.there().is_empty());
    }

    #[test]
    fn what_somebody_changed_or_put_there_stays_beside() {
        let mut place = Place::new();
        let docs = place.folder.path().join("server/docs");
        std::fs::create_dir_all(&docs).unwrap();
        std::fs::write(docs.join("a.md"), "mine").unwrap();
        std::fs::write(docs.join("folder"), "a file of mine").unwrap();
        std::fs::write(docs.join("same.md"), "same").unwrap();
        std::fs::write(docs.join("own.md"), "own").unwrap();
        let told = place.bring(&[("docs/a.md", "one"), ("docs/folder/b.md", "two"), ("docs/same.md", "same")]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("`server/docs/a.md` is not as it was put there"), "{told:?}");
        // Changed by an editor that writes a new file, then in place.
        std::fs::remove_file(docs.join("a.md")).unwrap();
        std::fs::write(docs.join("a.md"), "edited").unwrap();
        std::fs::write(docs.join("folder/b.md"), "in place").unwrap();
        let told = place.bring(&[("docs/a.md", "one"), ("docs/folder/b.md", "two")]);
        assert_eq!(told.len(), 2, "{told:?}");
        // Taken away, where somebody changed it.
        std::fs::remove_file(docs.join("a.md")).unwrap();
        std::fs::write(docs.join("a.md"), "edited again").unwrap();
        assert_eq!(place.bring(&[]).len(), 1);
        let expected = [
            ("docs/a.md.bak", "edited"),
            ("docs/a.md.bak", "edited again"),
            ("docs/a.md.bak", "mine"),
            ("docs/folder.bak", "a file of mine"),
            ("docs/folder/b.md.bak", "in place"),
            ("docs/own.md", "own"),
        ];
        assert_eq!(place.there(), pairs(&expected));
    }
}

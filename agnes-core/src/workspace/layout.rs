//! Where what is in a workspace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::WorkspaceError;
use crate::error::Result;
use crate::query::FileQueries;

/// An analyst's folder. Cheap to clone; opening one reads nothing.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    /// What asks queries here, from the first one on.
    pub(super) queries: Arc<OnceCell<FileQueries>>,
}

impl PartialEq for Workspace {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

impl Eq for Workspace {}

impl Workspace {
    fn new(root: PathBuf) -> Self {
        Self { root, queries: Arc::default() }
    }

    /// The workspace in this folder, which may not be there yet.
    ///
    /// # Errors
    /// `permission_denied` and the like where the folder cannot be named.
    pub fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| crate::Error::io("find the folder", e))?;
        Ok(Self::new(root))
    }

    /// The workspace that `from` is in: the nearest folder upwards that `agnes init` finished.
    ///
    /// # Errors
    /// `no_workspace`.
    pub fn find(from: &Path) -> Result<Self> {
        let from = Self::at(from)?.root;
        let found = from.ancestors().find(|folder| Self::new((*folder).to_owned()).sentinel().is_file());
        match found {
            Some(root) => Ok(Self::new(root.to_owned())),
            None => Err(WorkspaceError::NoWorkspace.into()),
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `.claude/init-complete`: its being there says that `agnes init` finished.
    #[must_use]
    pub fn sentinel(&self) -> PathBuf {
        self.root.join(".claude").join("init-complete")
    }

    /// Whether `agnes init` finished here.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.sentinel().is_file()
    }

    /// Agnes's own files.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.root.join(".agnes")
    }

    /// Which generation is here.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.own().join("sync_state.json")
    }

    /// A switch that was begun.
    pub(super) fn switch_file(&self) -> PathBuf {
        self.own().join("switch.json")
    }

    /// Says that the views are not those of the snapshots.
    pub(super) fn late_file(&self) -> PathBuf {
        self.own().join("views-late")
    }

    /// Locked by whoever reads contents.
    pub(super) fn readers_file(&self) -> PathBuf {
        self.own().join("readers")
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.own().join("lock")
    }

    /// Parquet named by content hash, read-only.
    pub(super) fn blobs(&self) -> PathBuf {
        self.own().join("blobs")
    }

    /// One of [`blobs`](Self::blobs).
    pub(super) fn blob(&self, name: &str) -> PathBuf {
        self.blobs().join(name)
    }

    /// What has arrived of files that are not whole yet.
    pub(super) fn incoming(&self) -> PathBuf {
        self.own().join("incoming")
    }

    /// Spill files of queries.
    pub(super) fn scratch(&self) -> PathBuf {
        self.own().join("tmp")
    }

    /// `server`: what a pull brings.
    #[must_use]
    pub fn from_server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// `server/parquet`: the tables, for any tool that reads Parquet.
    #[must_use]
    pub fn parquet(&self) -> PathBuf {
        self.from_server().join("parquet")
    }

    /// `user/duckdb/analytics.duckdb`: views over the tables, beside what its owner keeps there.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("user").join("duckdb").join("analytics.duckdb")
    }

    /// `user/snapshots`: results that were kept.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("user").join("snapshots")
    }

    /// `.claude`: what an assistant reads.
    #[must_use]
    pub fn assistant(&self) -> PathBuf {
        self.root.join(".claude")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_workspace_upwards_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(Workspace::find(&deep).unwrap_err().code(), "no_workspace");
        let workspace = Workspace::at(folder.path()).unwrap();
        std::fs::create_dir_all(workspace.assistant()).unwrap();
        assert!(!workspace.is_initialized());
        std::fs::write(workspace.sentinel(), "{}").unwrap();
        assert_eq!(Workspace::find(&deep).unwrap(), workspace);
    }
}

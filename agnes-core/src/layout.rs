//! Where things are inside a data folder.

use std::path::{Path, PathBuf};

use crate::ident::{SourceName, TableName};

/// A data folder: everything an installation consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
    state: PathBuf,
}

fn absolute(path: PathBuf) -> PathBuf {
    // Fails for an empty path and where the working folder is gone: then the path stays as it is.
    std::path::absolute(&path).unwrap_or(path)
}

impl DataFolder {
    /// The folder at `root`, state under `root/state`. A relative path is one of the folder that
    /// the process works in now: the processes of queries work in others.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = absolute(root.into());
        let state = root.join("state");
        Self { root, state }
    }

    /// The same folder with its state elsewhere (`STATE_DIR`).
    #[must_use]
    pub fn with_state_dir(mut self, state: impl Into<PathBuf>) -> Self {
        self.state = absolute(state.into());
        self
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `state/`.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }
    /// `state/system.duckdb`.
    #[must_use]
    pub fn state_db(&self) -> PathBuf {
        self.state.join("system.duckdb")
    }
    /// `state/instance.yaml`, the writable configuration overlay.
    #[must_use]
    pub fn config_overlay(&self) -> PathBuf {
        self.state.join("instance.yaml")
    }
    /// `state/.env_overlay`, secrets that were entered while the server ran.
    #[must_use]
    pub fn env_overlay(&self) -> PathBuf {
        self.state.join(".env_overlay")
    }
    /// `state/instance.key`, a secret.
    #[must_use]
    pub fn instance_key(&self) -> PathBuf {
        self.state.join("instance.key")
    }
    /// `state/.jwt_secret`, a secret: signs sessions and tokens.
    #[must_use]
    pub fn session_secret(&self) -> PathBuf {
        self.state.join(".jwt_secret")
    }
    /// `state/.session_secret`, a secret: signs what browsers keep for a short time.
    #[must_use]
    pub fn cookie_secret(&self) -> PathBuf {
        self.state.join(".session_secret")
    }
    /// `state/.scheduler_token`, a secret: the token of a scheduler that shares this folder.
    #[must_use]
    pub fn scheduler_token(&self) -> PathBuf {
        self.state.join(".scheduler_token")
    }
    /// `state/holder.lock`, locked by the process that holds the folder.
    #[must_use]
    pub fn holder_lock(&self) -> PathBuf {
        self.state.join("holder.lock")
    }
    /// `state/holder.sock`, where the holder listens.
    #[must_use]
    pub fn holder_socket(&self) -> PathBuf {
        self.state.join("holder.sock")
    }
    /// `extracts/`.
    #[must_use]
    pub fn extracts(&self) -> PathBuf {
        self.root.join("extracts")
    }
    /// `extracts/<source>/`.
    #[must_use]
    pub fn extract(&self, source: &SourceName) -> PathBuf {
        self.extracts().join(source.as_str())
    }
    /// `analytics/`.
    #[must_use]
    pub fn analytics(&self) -> PathBuf {
        self.root.join("analytics")
    }
    /// `analytics/server.duckdb`, the master of views that other tools open.
    #[must_use]
    pub fn master(&self) -> PathBuf {
        self.analytics().join("server.duckdb")
    }
    /// `analytics/blobs/`.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.analytics().join("blobs")
    }
    /// `analytics/blobs/<first two digits>/<sha256>.parquet`.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.blobs().join(&sha256[..2.min(sha256.len())]).join(format!("{sha256}.parquet"))
    }
    /// `analytics/slices/`: which blob is whose part of a table.
    #[must_use]
    pub fn slices(&self) -> PathBuf {
        self.analytics().join("slices")
    }
    /// `analytics/leases/`: what receipts keep.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.analytics().join("leases")
    }
    /// `analytics/generations/`.
    #[must_use]
    pub fn generations(&self) -> PathBuf {
        self.analytics().join("generations")
    }
    /// `analytics/generations/<number>.json`.
    #[must_use]
    pub fn generation(&self, number: u64) -> PathBuf {
        self.generations().join(format!("{number:010}.json"))
    }
    /// `analytics/current`, the number of the published generation.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.analytics().join("current")
    }
    /// `uploads/`: files that became tables, one folder for each.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }
    /// `user_sessions/`: what people uploaded of their sessions, one folder for each person.
    #[must_use]
    pub fn user_sessions(&self) -> PathBuf {
        self.root.join("user_sessions")
    }
    /// `user_artifacts/`: other files that people uploaded, one folder for each person.
    #[must_use]
    pub fn user_artifacts(&self) -> PathBuf {
        self.root.join("user_artifacts")
    }
    /// `user_local_md/`: notes that people keep on their laptops, one file for each person.
    #[must_use]
    pub fn user_local_md(&self) -> PathBuf {
        self.root.join("user_local_md")
    }
    /// `initial-workspace/`: the files of the repository that workspaces begin with, by commit.
    #[must_use]
    pub fn initial_workspace(&self) -> PathBuf {
        self.root.join("initial-workspace")
    }
    /// Folders of what people uploaded.
    #[must_use]
    pub(crate) fn all_uploads(&self) -> [PathBuf; 4] {
        [self.uploads(), self.user_sessions(), self.user_artifacts(), self.user_local_md()]
    }
    /// `docs/`: documentation and helpers that laptops pull along; what is in `docs/tables` is about
    /// the table of its name.
    #[must_use]
    pub fn docs(&self) -> PathBuf {
        self.root.join("docs")
    }
    /// Profiles as older versions kept them.
    #[must_use]
    pub(crate) fn legacy_profiles(&self) -> PathBuf {
        self.root.join("src_data/metadata/profiles.json")
    }
    /// `tmp/`, parent of scratch folders unless `AGNES_TEMP_DIR` says otherwise.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// `data/<table>.parquet` inside an extract folder.
#[must_use]
pub fn single_file(extract: &Path, table: &TableName) -> PathBuf {
    extract.join("data").join(format!("{table}.parquet"))
}

/// Ends the name of a file that says who copies a table.
pub(crate) const LOCK_SUFFIX: &str = ".parquet.lock";

/// `data/<table>.parquet.lock` inside an extract folder.
pub(crate) fn lock_file(extract: &Path, table: &TableName) -> PathBuf {
    extract.join("data").join(format!("{table}{LOCK_SUFFIX}"))
}

/// `data/<table>/` inside an extract folder, for partitioned tables.
#[must_use]
pub fn parts_folder(extract: &Path, table: &TableName) -> PathBuf {
    extract.join("data").join(table.as_str())
}

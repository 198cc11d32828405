//! Which generation a workspace holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Workspace, WorkspaceError};
use crate::error::{Error, Result};
use crate::extract::fsio::write_atomically;
use crate::policy::RowScope;
use crate::registry::QueryMode;

/// The newest format of the state that this version reads.
const FORMAT: u32 = 1;

/// What a workspace holds: exactly one generation of what one server publishes for one person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncState {
    /// Format of this file.
    #[serde(default)]
    pub format: u32,
    /// Address of the server.
    #[serde(default)]
    pub server: String,
    /// Whose it is: their id at the server.
    #[serde(default)]
    pub user_id: String,
    /// Their address.
    #[serde(default)]
    pub email: String,
    /// Key that signs manifests, as the first one had it.
    #[serde(default)]
    pub public_key: Option<String>,
    /// Number of the generation; 0 before the first pull.
    #[serde(default)]
    pub generation: u64,
    /// Tag of the manifest; empty when something of it is missing here.
    #[serde(default)]
    pub etag: String,
    /// Until when the manifest may be worked from.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last brought up to date.
    #[serde(default)]
    pub last_sync: Option<DateTime<Utc>>,
    /// Whether tables come only when they are asked for.
    #[serde(default)]
    pub lazy: bool,
    /// Tables that are here, by name.
    #[serde(default)]
    pub tables: BTreeMap<String, LocalTable>,
    /// Tables that may be read but are not here, by name.
    #[serde(default)]
    pub known: BTreeMap<String, KnownTable>,
    /// Files that are no tables: documentation and helpers of the server. Their paths are below
    /// `server`: `docs/start.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assets: Vec<LocalFile>,
    /// Contents of the generation before, each with its table: who began to read them can go on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, String>,
    /// Views of Agnes in the database.
    #[serde(default)]
    pub views: BTreeSet<String>,
    /// Folder that the views name: whoever moved the workspace needs new ones.
    #[serde(default)]
    pub root: String,
    /// Size and time, as those of files, of the database when it was last known to open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<(u64, i64)>,
}

/// A table that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTable {
    /// What grants name.
    #[serde(default)]
    pub id: String,
    /// MD5 of its file, or the rollup of its parts.
    pub hash: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// `local` or `materialized`.
    pub query_mode: QueryMode,
    /// Kind of the source.
    #[serde(default)]
    pub source_type: String,
    /// When the server last brought it up to date.
    #[serde(default)]
    pub updated: Option<DateTime<Utc>>,
    /// Whether these are the rows that one person may see, not all.
    #[serde(default)]
    pub slice: bool,
    /// What a policy took from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_scope: Option<RowScope>,
    /// Of such rows: equal as long as the same rules choose them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Whether its files are united by column name.
    #[serde(default)]
    pub partitioned: bool,
    /// Its files.
    #[serde(default)]
    pub files: Vec<LocalFile>,
    /// `(name, type, nullable)` of its columns; empty where they could not be read.
    #[serde(default)]
    pub columns: Vec<(String, String, bool)>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFile {
    /// Path below `server/parquet`, `/`-separated.
    pub path: String,
    /// Name of its content.
    pub blob: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When its content was put there, nanoseconds since 1970: it changes when somebody writes
    /// into it.
    #[serde(default)]
    pub modified_ns: i64,
}

/// A table that may be read but is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// What grants name.
    pub id: String,
    /// `local`, `materialized` or `remote`.
    pub query_mode: QueryMode,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl SyncState {
    /// Names of all contents that it is made of.
    pub(super) fn blobs(&self) -> BTreeSet<&str> {
        self.files().chain(&self.assets).map(|file| file.blob.as_str()).collect()
    }

    /// Files of all tables.
    pub(super) fn files(&self) -> impl Iterator<Item = &LocalFile> {
        self.tables.values().flat_map(|table| &table.files)
    }

    /// The table of this name, in any case.
    pub(super) fn table(&self, name: &str) -> Option<(&String, &LocalTable)> {
        self.tables.get_key_value(name).or_else(|| self.tables.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)))
    }

    /// Says that it is of another person or server, of which nothing is known yet.
    pub(super) fn of_another(&mut self, user_id: &str) {
        self.user_id = user_id.to_owned();
        (self.public_key, self.generation, self.expires_at) = (None, 0, None);
        self.etag = String::new();
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read the state of the workspace", e)),
        };
        let state: Self = serde_json::from_slice(&text).map_err(|_| WorkspaceError::StateUnreadable)?;
        if state.format > FORMAT {
            return Err(WorkspaceError::StateTooNew.into());
        }
        Ok(Some(state))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let state = Self { format: FORMAT, ..self.clone() };
        let text = serde_json::to_vec_pretty(&state).map_err(|e| Error::internal("write the state", e))?;
        write_atomically(path, &text)
    }
}

impl Workspace {
    /// What is here; the empty state before there is a workspace.
    ///
    /// # Errors
    /// `workspace_unreadable`, `workspace_too_new`, I/O errors.
    pub fn state(&self) -> Result<SyncState> {
        match SyncState::read(&self.state_file())? {
            Some(state) => Ok(state),
            // Somebody took it away: whose the files here are, nobody knows.
            None if self.is_initialized() => Err(WorkspaceError::StateUnreadable.into()),
            None => Ok(SyncState::default()),
        }
    }

    /// Address of its server, which is known without its state too.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        let of_sentinel = || {
            let text = std::fs::read(self.sentinel()).ok()?;
            Some(serde_json::from_slice::<serde_json::Value>(&text).ok()?["server_url"].as_str()?.to_owned())
        };
        let of_state = self.state().map(|state| state.server).unwrap_or_default();
        Some(of_state).filter(|server| !server.is_empty()).or_else(of_sentinel)
    }

    /// What a switch that was begun and not finished leads to.
    pub(super) fn begun(&self) -> Result<Option<SyncState>> {
        SyncState::read(&self.switch_file())
    }

    /// Has pulls bring only the tables that were asked for.
    ///
    /// # Errors
    /// `workspace_busy` while somebody pulls, `workspace_unreadable`, I/O errors.
    pub fn keep_lazy(&self) -> Result<()> {
        let _turn = self.turn()?;
        SyncState { lazy: true, ..self.state()? }.write(&self.state_file())
    }

    /// Says whose workspace this is, before the first pull. What is here of somebody else, or of
    /// another server, is forgotten: the next pull takes it away.
    ///
    /// # Errors
    /// `workspace_busy`; `workspace_database_in_use` where the state is lost; I/O errors.
    pub fn claim(&self, server: &str, user_id: &str, email: &str) -> Result<()> {
        let _turn = self.turn()?;
        // What was begun for whose it was would make it theirs again.
        if self.recover().is_err() && self.switch_file().exists() {
            std::fs::remove_file(self.switch_file()).map_err(|e| Error::io("make the workspace", e))?;
        }
        let mut state = match SyncState::read(&self.state_file()).ok().flatten() {
            Some(state) => state,
            None => {
                let views = self.views_like_ours()?;
                if self.parquet().exists() {
                    // Nobody knows whose these are; what is theirs still is linked again.
                    std::fs::remove_dir_all(self.parquet()).map_err(|e| Error::io("make the workspace", e))?;
                }
                SyncState { views, ..SyncState::default() }
            }
        };
        if state.server != server || state.user_id != user_id {
            state.of_another(user_id);
        }
        (state.server, state.email) = (server.to_owned(), email.to_owned());
        // The next pull asks for the whole manifest.
        state.etag = String::new();
        state.write(&self.state_file())
    }
}

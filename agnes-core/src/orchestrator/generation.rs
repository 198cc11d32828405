//! A published catalog as a value.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ident::{SourceName, TableName};
use crate::registry::QueryMode;

/// Layout version of a generation file.
pub const GENERATION_LAYOUT: u32 = 1;

/// What a file looked like when it was hashed: hashed again only when this changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileSignature {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// Status change time, nanoseconds since the epoch; 0 where the platform has none.
    pub ctime_ns: i128,
    /// Inode; 0 where the platform has none.
    pub inode: u64,
}

/// One Parquet file of a table: a blob named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Path inside the extract's `data/` folder, `/`-separated: `orders.parquet`,
    /// `orders/2024-01.parquet`.
    pub path: String,
    /// Identity of the content, 64 hex digits.
    pub sha256: String,
    /// MD5 of the content, 32 hex digits: the manifest's compatible field.
    #[serde(rename = "hash")]
    pub md5: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Rows, from the Parquet footer.
    pub rows: u64,
    /// What the file in `data/` looked like when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<FileSignature>,
}

/// A column of a published table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// As in the data.
    pub name: String,
    /// DuckDB type, e.g. `DECIMAL(18,2)`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// A table that is asked at its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTable {
    /// Attach alias of the extract's `_remote_attach` row.
    pub alias: String,
    /// The checked definition: a single SELECT over relations of that alias.
    pub select: String,
}

/// One row of an extract's `_remote_attach`, after it passed the trust boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteAttach {
    /// Alias used inside the views.
    pub alias: String,
    /// Engine extension.
    pub extension: String,
    /// URL or DSN, without any secret.
    pub url: String,
    /// NAME of the environment variable with the token; empty for none.
    pub token_env: String,
}

/// One table of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTable {
    /// The view's name.
    pub name: TableName,
    /// The source that owns the name.
    pub source: SourceName,
    /// Where its rows are.
    pub mode: QueryMode,
    /// From the extract's `_meta`.
    pub description: Option<String>,
    /// Columns in order. For partitioned tables the union by name.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: u64,
    /// Bytes of Parquet.
    pub size_bytes: u64,
    /// Blobs it reads, in path order; empty for remote tables.
    pub parts: Vec<Part>,
    /// Whether `data/<name>/` (parts unioned by name) rather than `data/<name>.parquet`.
    pub partitioned: bool,
    /// Set for remote tables.
    pub remote: Option<RemoteTable>,
    /// When the source was read.
    pub extracted_at: Option<DateTime<Utc>>,
    /// SHA-256 over the parts' identities and paths, and over the remote definition: equal
    /// exactly when a query would read the same bytes.
    pub content_hash: String,
    /// The manifest's `hash`: the file's MD5, a rollup over the parts, or empty for remote.
    pub manifest_hash: String,
}

/// What a source contributed to a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceGeneration {
    /// Fingerprint of `extract.duckdb` and of the listing of `data/` when it was read.
    pub signature: String,
    /// Whether these are last good blobs of a source that could not be read since.
    pub degraded: bool,
    /// Its remote attachments.
    pub attaches: Vec<RemoteAttach>,
    /// Its published tables, by name.
    pub tables: Vec<PublishedTable>,
}

/// A published catalog: complete, immutable, numbered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// [`GENERATION_LAYOUT`].
    pub layout: u32,
    /// Grows by one with each publication; 0 is the empty catalog before the first.
    pub number: u64,
    /// When it was published.
    pub published_at: DateTime<Utc>,
    /// Sources by name.
    pub sources: BTreeMap<SourceName, SourceGeneration>,
    /// What happened at its rebuild.
    pub outcome: RebuildOutcome,
}

impl Generation {
    /// The empty catalog before the first publication.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            layout: GENERATION_LAYOUT,
            number: 0,
            published_at: DateTime::<Utc>::UNIX_EPOCH,
            sources: BTreeMap::new(),
            outcome: RebuildOutcome::default(),
        }
    }

    /// All tables in name order of their sources.
    pub fn tables(&self) -> impl Iterator<Item = &PublishedTable> {
        self.sources.values().flat_map(|source| source.tables.iter())
    }

    /// The table with this name, compared case-folded (linear: index it where that matters).
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&PublishedTable> {
        self.tables().find(|table| table.name.as_str().eq_ignore_ascii_case(name))
    }
}

/// How a source fared in a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceStatus {
    /// Read.
    Ok,
    /// Nothing changed since the last generation: not read.
    Unchanged,
    /// Could not be read; its last good tables are kept.
    Unreadable,
    /// The folder's name is not a source name.
    RejectedName,
    /// Its folder is gone; its tables are no longer published.
    Removed,
}

/// Why one row of an extract was not published as it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SkippedRow {
    /// The row's `table_name`, printable.
    pub table: String,
    /// `unsafe_name`, `no_object`, `collision`, `missing_data`, `unreadable_data`,
    /// `bad_remote_view`, `attach_refused`, `attach_failed`, `zero_rows`, ...
    pub reason: String,
    /// For people; no path, no secret.
    pub detail: String,
}

/// One source's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceOutcome {
    /// The folder's name, printable.
    pub source: String,
    /// How it fared.
    pub status: SourceStatus,
    /// What went wrong with the whole source.
    pub error: Option<String>,
    /// Names of its published views.
    pub views: Vec<String>,
    /// Rows not published as they say.
    pub skipped: Vec<SkippedRow>,
    /// Worth an admin's eye though published: rows dropped to zero, drift.
    pub alerts: Vec<SkippedRow>,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// What happened at a rebuild; every rebuild leaves one that an admin can read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RebuildOutcome {
    /// Whether something is not as it should be.
    pub degraded: bool,
    /// Why, when the whole rebuild is affected (ownership unreadable, ...).
    pub reasons: Vec<String>,
    /// By folder name.
    pub sources: Vec<SourceOutcome>,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Whether a new generation was published (not when nothing changed).
    pub published: bool,
}

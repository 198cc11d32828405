//! Rows of the catalog, as frontends show them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind};
use crate::policy::RowScope;
use crate::registry::QueryMode;

/// One table that the caller may read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogTable {
    /// What grants name.
    pub id: String,
    /// What SQL names.
    pub name: String,
    /// For people and their assistants.
    pub description: Option<String>,
    /// The source it belongs to.
    pub source: Option<String>,
    /// Its bucket or dataset at the source.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Kind of the source.
    pub source_type: Option<String>,
    /// How it is brought up to date.
    pub sync_strategy: String,
    /// Where its rows are.
    pub query_mode: QueryMode,
    /// SQL dialect of predicates on it: `duckdb` or `bigquery`.
    pub sql_flavor: String,
    /// `small` (up to 100 MiB), `medium` (1 GiB), `large` (10 GiB), `very_large`; none when
    /// unknown.
    pub rough_size_hint: Option<String>,
    /// Rows; none when unknown.
    pub rows: Option<u64>,
    /// Bytes of Parquet; none when unknown.
    pub size_bytes: Option<u64>,
    /// How many columns; none when unknown.
    pub columns: Option<usize>,
    /// Column that names the part a row belongs to.
    pub partition_by: Option<String>,
    /// Columns its warehouse clusters by.
    #[serde(default)]
    pub clustered_by: Vec<String>,
    /// What its warehouse calls it, e.g. `VIEW`; none when unknown.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Predicates to begin with, in the dialect of its warehouse.
    #[serde(default)]
    pub where_examples: Vec<String>,
    /// How old what its warehouse told is: `never_fetched`, `fresh`, `stale`, `error`; none for
    /// tables that do not stay in one.
    #[serde(default)]
    pub metadata_freshness: Option<String>,
    /// When it was last brought up to date.
    pub last_sync: Option<DateTime<Utc>>,
    /// What policies take from it for the caller; then rows and size are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_scope: Option<RowScope>,
    /// Whether it can be queried now; a registered table may wait for its first sync.
    pub published: bool,
}

/// A table that the caller may not read, but may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedTable {
    /// What to ask for.
    pub id: String,
    /// What SQL would name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
}

/// Columns of one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableSchema {
    /// What grants name.
    pub table_id: String,
    /// What SQL names.
    pub name: String,
    /// Kind of the source.
    pub source_type: Option<String>,
    /// SQL dialect of predicates on it.
    pub sql_flavor: String,
    /// In order.
    pub columns: Vec<ColumnSchema>,
    /// Column that names the part a row belongs to.
    pub partition_by: Option<String>,
    /// Columns the source clusters by.
    pub clustered_by: Vec<String>,
    /// What policies take from it for the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_scope: Option<RowScope>,
    /// Hints for predicates in a warehouse's dialect.
    pub where_dialect_hints: BTreeMap<String, String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnSchema {
    /// As in the data.
    pub name: String,
    /// DuckDB type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
    /// For people and their assistants; empty when nobody wrote any.
    pub description: String,
    /// How its values are masked for the caller: `expression`, `partial`, `hash`, `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<String>,
}

/// The first rows of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What grants name.
    pub table_id: String,
    /// Column to value, in column order; NaN and infinities are null.
    pub rows: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Kind of the source.
    pub source: Option<String>,
}

/// What can go wrong with the catalog.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CatalogError {
    /// For those from whom nothing is hidden.
    #[error("there is no table `{table}`")]
    NotFound { table: String, suggestion: Option<String> },
    /// The same answer for a table that does not exist and for one that the caller may not
    /// know of.
    #[error("there is no table `{table}` that you may read")]
    Denied { table: String, suggestion: Option<String> },
    #[error("table `{table}` stays on the server: it can be queried, not downloaded")]
    NotDistributable { table: String },
    #[error("{}", no_part(table, part.as_deref()))]
    NoPart { table: String, part: Option<String> },
    #[error("table `{table}` has no data yet")]
    NoData { table: String, last_error: Option<String> },
    #[error("there is no file `{path}` that you may pull")]
    NoAsset { path: String },
    #[error("table `{table}` has no profile yet")]
    NoProfile { table: String },
    #[error("this is no manifest")]
    ManifestUnreadable,
    #[error("this manifest was not made here for you, or was changed since")]
    ManifestNotOurs,
    #[error("this manifest has expired")]
    ManifestExpired,
    #[error("at most {limit} tables can be switched at once")]
    TooManyEntries { limit: usize },
    #[error("a sample has 1 to 100 rows, not {n}")]
    BadSampleSize { n: usize },
}

impl Coded for CatalogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadSampleSize { .. } | Self::TooManyEntries { .. } => ErrorKind::InvalidInput,
            Self::ManifestUnreadable | Self::ManifestNotOurs | Self::ManifestExpired => ErrorKind::DataInvalid,
            Self::Denied { .. } | Self::NotDistributable { .. } => ErrorKind::Forbidden,
            _ => ErrorKind::NotFound,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotFound { .. } => "table_not_found",
            Self::Denied { .. } => "access_denied",
            Self::NotDistributable { .. } => "not_distributable",
            Self::NoPart { .. } => "no_such_part",
            Self::NoData { .. } => "no_data",
            Self::NoAsset { .. } => "asset_not_found",
            Self::NoProfile { .. } => "no_profile",
            Self::BadSampleSize { .. } => "bad_sample_size",
            Self::ManifestUnreadable => "manifest_unreadable",
            Self::ManifestNotOurs => "manifest_not_ours",
            Self::ManifestExpired => "manifest_expired",
            Self::TooManyEntries { .. } => "too_many_entries",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { suggestion: Some(near), .. } | Self::Denied { suggestion: Some(near), .. } => {
                Some(format!("did you mean `{near}`?"))
            }
            Self::NotFound { .. } => Some("`agnes catalog` shows the tables".to_owned()),
            Self::Denied { .. } => {
                Some("`agnes catalog` shows the tables you may read; an admin can grant more".to_owned())
            }
            Self::NotDistributable { .. } => Some("ask it with a query".to_owned()),
            Self::NoPart { .. } => Some("the manifest names the parts of a table".to_owned()),
            Self::NoAsset { .. } => Some("the manifest names the files there are".to_owned()),
            Self::NoData { last_error: Some(error), .. } => Some(format!("its last sync failed: {error}")),
            Self::NoData { .. } => Some("`agnes sync` brings it".to_owned()),
            Self::NoProfile { .. } => Some("profiles are made after a sync; a remote table has none".to_owned()),
            Self::ManifestUnreadable | Self::ManifestNotOurs | Self::ManifestExpired => {
                Some("ask for a new one".to_owned())
            }
            Self::BadSampleSize { .. } | Self::TooManyEntries { .. } => None,
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::NotDistributable { .. } => Some(serde_json::json!({"reason": "not_distributable"})),
            _ => None,
        }
    }
}

fn no_part(table: &str, part: Option<&str>) -> String {
    match part {
        Some(part) => format!("table `{table}` has no part `{part}`"),
        None => format!("table `{table}` has several parts: take them one by one"),
    }
}

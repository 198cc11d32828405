//! Registered sources and tables, and the repositories that keep them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::SyncConfig;
use crate::error::{Coded, ErrorKind, Result};
use crate::ident::{SourceName, TableName};

/// Where a table's rows are when a query asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum QueryMode {
    /// Parquet kept here.
    Local,
    /// Asked at the source.
    Remote,
    /// Result of a stored query, kept here.
    Materialized,
    /// A view of Agnes's own state, filtered per caller.
    Internal,
}

impl QueryMode {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Materialized => "materialized",
            Self::Internal => "internal",
        }
    }

    /// Parses the text; `None` when unknown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Local, Self::Remote, Self::Materialized, Self::Internal].into_iter().find(|m| m.as_str() == text)
    }
}

/// How a table is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SyncStrategy {
    /// Everything, each time.
    FullRefresh,
    /// What changed.
    Incremental,
    /// One Parquet file for each value of a column or each period.
    Partitioned,
}

impl SyncStrategy {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FullRefresh => "full_refresh",
            Self::Incremental => "incremental",
            Self::Partitioned => "partitioned",
        }
    }

    /// Parses the text; `None` when unknown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::FullRefresh, Self::Incremental, Self::Partitioned].into_iter().find(|m| m.as_str() == text)
    }
}

/// One table of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisteredTable {
    /// Slug that grants name. New rows have `id == name`; older rows may differ.
    pub id: String,
    /// View name, Parquet stem, key of sync state and profiles.
    pub name: String,
    /// Kind of the connector (`files`, `keboola`, `bigquery`, `jira`, `local`, `internal`).
    pub source_type: Option<String>,
    /// The source it belongs to, a folder under `extracts/`. Rows of older versions have
    /// none: there the source is the one named like `source_type`.
    pub source: Option<String>,
    /// Bucket, dataset, folder: the container at the source.
    pub bucket: Option<String>,
    /// The table's own name at the source.
    pub source_table: Option<String>,
    /// SQL of a materialized table.
    pub source_query: Option<String>,
    /// How it is brought up to date.
    pub sync_strategy: SyncStrategy,
    /// Where its rows are.
    pub query_mode: QueryMode,
    /// `every 15m`, `daily 05:00`, `cron 0 5 * * 1`.
    pub sync_schedule: Option<String>,
    /// Columns that identify a row.
    pub primary_key: Option<Vec<String>>,
    /// Display folder.
    pub folder: Option<String>,
    /// For people and their assistants.
    pub description: Option<String>,
    /// Who registered it.
    pub registered_by: Option<String>,
    /// When; kept on update.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub registered_at: Option<DateTime<Utc>>,
    /// Days re-read by an incremental sync.
    pub incremental_window_days: Option<i32>,
    /// Oldest data to keep, in days.
    pub max_history_days: Option<i32>,
    /// Reserved.
    pub incremental_column: Option<String>,
    /// Row filters at the source.
    pub where_filters: Option<serde_json::Value>,
    /// Column that names the part a row belongs to.
    pub partition_by: Option<String>,
    /// `day`, `month` or `year`.
    pub partition_granularity: Option<String>,
    /// Days per request of the first load.
    pub initial_load_chunk_days: Option<i32>,
    /// Full BigQuery path, when it differs from project.bucket.source_table.
    pub bq_fqn: Option<String>,
    /// Never offered for download.
    pub server_only: bool,
    /// Settings of the connector for this table alone, a JSON object without secrets.
    pub options: Option<serde_json::Value>,
}

impl RegisteredTable {
    /// A local, fully refreshed table named `name` of `source`.
    #[must_use]
    pub fn new(name: &TableName, source_type: &str, source: &SourceName) -> Self {
        let source = Some(source.as_str().to_owned());
        Self { source, ..Self::named(name.as_str().to_lowercase(), source_type, QueryMode::Local) }
    }

    /// The row of one of the tables that Agnes keeps about itself.
    pub(crate) fn internal(id: &str) -> Self {
        Self {
            bucket: Some("Agnes Internal".to_owned()),
            registered_by: Some("system_seed".to_owned()),
            ..Self::named(id.to_owned(), "internal", QueryMode::Internal)
        }
    }

    pub(super) fn named(name: String, source_type: &str, query_mode: QueryMode) -> Self {
        Self {
            id: name.clone(),
            name,
            source_type: Some(source_type.to_owned()),
            source: None,
            bucket: None,
            source_table: None,
            source_query: None,
            sync_strategy: SyncStrategy::FullRefresh,
            query_mode,
            sync_schedule: None,
            primary_key: None,
            folder: None,
            description: None,
            registered_by: None,
            registered_at: None,
            incremental_window_days: None,
            max_history_days: None,
            incremental_column: None,
            where_filters: None,
            partition_by: None,
            partition_granularity: None,
            initial_load_chunk_days: None,
            bq_fqn: None,
            server_only: false,
            options: None,
        }
    }

    /// When it is due: as it says itself, else as its source says, else, materialized, as
    /// `config` says.
    #[must_use]
    pub fn schedule<'a>(&'a self, source: Option<&'a RegisteredSource>, config: &'a SyncConfig) -> Option<&'a str> {
        let own = self.sync_schedule.as_deref().or(source.and_then(|source| source.schedule.as_deref()));
        own.or((self.query_mode == QueryMode::Materialized).then_some(config.materialized_schedule.as_str()))
    }

    /// The source this row belongs to: `source`, else `source_type`.
    #[must_use]
    pub fn source_name(&self) -> Option<&str> {
        self.source.as_deref().or(self.source_type.as_deref())
    }
}

/// A configured source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisteredSource {
    /// The folder under `extracts/`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: SourceName,
    /// Kind of the connector.
    pub kind: String,
    /// Settings, a JSON object. Secrets appear only as names of environment variables.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub config: serde_json::Value,
    /// Schedule of its tables that have none of their own.
    pub schedule: Option<String>,
    /// When it was added.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created_at: Option<DateTime<Utc>>,
    /// Who added it.
    pub created_by: Option<String>,
}

/// Keeps the table registry.
#[async_trait]
pub trait TableRepository: Send + Sync {
    /// Inserts; `false` when the id or the name is that of another row, case-folded.
    async fn insert(&self, table: &RegisteredTable) -> Result<bool>;
    /// Inserts or replaces by id: all columns but `id`, `registered_by`, `registered_at`,
    /// which an update keeps.
    async fn upsert(&self, table: &RegisteredTable) -> Result<()>;
    /// One row by id, else by name, both case-folded.
    async fn find(&self, id_or_name: &str) -> Result<Option<RegisteredTable>>;
    /// All rows by name.
    async fn list(&self) -> Result<Vec<RegisteredTable>>;
    /// Deletes by id, with sync state, history, profile, column metadata, ownership and
    /// grants of the table, in one transaction. `false` when there was none.
    async fn delete(&self, id: &str) -> Result<bool>;
    /// What people wrote about columns: `(column, type, description)` by column name.
    async fn column_metadata(&self, table_id: &str) -> Result<Vec<ColumnMetadata>>;
    /// Inserts or replaces descriptions of columns.
    async fn set_column_metadata(&self, table_id: &str, columns: &[ColumnMetadata], now: DateTime<Utc>) -> Result<()>;
}

/// What is known about a column from outside its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnMetadata {
    /// The column.
    pub column_name: String,
    /// Type at the source.
    pub basetype: Option<String>,
    /// For people and their assistants.
    pub description: Option<String>,
    /// `manual`, or how sure a machine was.
    #[serde(default = "manual")]
    pub confidence: String,
    /// When it was written; set by whoever keeps it.
    #[serde(default)]
    pub updated_at: Option<DateTime<Utc>>,
}

fn manual() -> String {
    "manual".to_owned()
}

/// Keeps the configured sources.
#[async_trait]
pub trait SourceRepository: Send + Sync {
    /// Inserts. `source_exists` when the name is taken, case-folded.
    async fn insert(&self, source: &RegisteredSource) -> Result<()>;
    /// Replaces config and schedule. `source_not_found`.
    async fn update(&self, source: &RegisteredSource) -> Result<()>;
    /// One by name, case-folded.
    async fn get(&self, name: &str) -> Result<Option<RegisteredSource>>;
    /// All by name.
    async fn list(&self) -> Result<Vec<RegisteredSource>>;
    /// Deletes the source alone; `false` when there was none.
    async fn delete(&self, name: &str) -> Result<bool>;
}

/// `view_ownership`: which source published a view name first.
#[async_trait]
pub trait OwnershipRepository: Send + Sync {
    /// All `(view name, source)` pairs.
    async fn all(&self) -> Result<Vec<(String, String)>>;
    /// Claims and releases in one transaction: `claims` are inserted unless another
    /// source owns the name, `releases` are deleted when they belong to that source.
    async fn apply(&self, claims: &[(String, String)], releases: &[(String, String)], now: DateTime<Utc>)
    -> Result<()>;
}

/// What can go wrong in the registry.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RegistryError {
    #[error("there is no table `{table}`")]
    TableNotFound { table: String, suggestion: Option<String> },
    #[error("a table `{table}` is registered already")]
    TableExists { table: String },
    #[error("there is no source `{source_name}`")]
    SourceNotFound { source_name: String, suggestion: Option<String> },
    #[error("a source `{source_name}` exists already")]
    SourceExists { source_name: String },
    #[error("there is no connector `{connector}`")]
    UnknownConnector { connector: String, known: String },
    #[error("the settings of the source are not valid: {reason}")]
    InvalidConfig { reason: String },
    #[error("`{field}` is not valid: {reason}")]
    InvalidField { field: &'static str, reason: String },
    #[error("`{field}` is not what the source takes: {reason}")]
    InvalidSourceField { field: &'static str, reason: String },
    #[error("the source of `{table}` takes no descriptions of columns")]
    PushUnsupported { table: String },
    #[error("no source of kind `{kind}` is configured")]
    NoSourceOfKind { kind: String },
    #[error("this source is not added through a server: {reason}")]
    ForOperators { reason: String },
    #[error("source `{source_name}` could not list its tables: {reason}")]
    SourceFailed { source_name: String, reason: String, cause: String, advice: Option<String> },
    #[error("source `{source_name}` did not list its tables within {seconds} s")]
    DiscoveryTimeout { source_name: String, seconds: u64 },
}

impl Coded for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TableNotFound { .. } | Self::SourceNotFound { .. } => ErrorKind::NotFound,
            Self::TableExists { .. } | Self::SourceExists { .. } => ErrorKind::Conflict,
            Self::UnknownConnector { .. }
            | Self::InvalidConfig { .. }
            | Self::InvalidField { .. }
            | Self::InvalidSourceField { .. }
            | Self::PushUnsupported { .. }
            | Self::NoSourceOfKind { .. } => ErrorKind::InvalidInput,
            Self::ForOperators { .. } => ErrorKind::Forbidden,
            Self::SourceFailed { .. } | Self::DiscoveryTimeout { .. } => ErrorKind::Unavailable,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TableNotFound { .. } => "table_not_found",
            Self::TableExists { .. } => "table_exists",
            Self::SourceNotFound { .. } => "source_not_found",
            Self::SourceExists { .. } => "source_exists",
            Self::UnknownConnector { .. } => "unknown_connector",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::InvalidField { .. } => "invalid_field",
            Self::InvalidSourceField { .. } => "invalid_source_field",
            Self::PushUnsupported { .. } => "metadata_push_unsupported",
            Self::NoSourceOfKind { .. } => "source_not_configured",
            Self::ForOperators { .. } => "source_for_operators",
            Self::SourceFailed { .. } => "source_failed",
            Self::DiscoveryTimeout { .. } => "discovery_timeout",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TableNotFound { suggestion: Some(name), .. }
            | Self::SourceNotFound { suggestion: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::TableNotFound { .. } => Some("`agnes catalog` shows the tables you may read".to_owned()),
            Self::SourceNotFound { .. } => Some("`agnes source list` shows the sources".to_owned()),
            Self::UnknownConnector { known, .. } => Some(format!("known connectors: {known}")),
            Self::PushUnsupported { .. } => {
                Some("descriptions are kept here; tables of Keboola can be told".to_owned())
            }
            Self::NoSourceOfKind { kind } => Some(format!("`agnes source add NAME --kind {kind}` adds one")),
            Self::ForOperators { .. } => Some(
                "on the server's machine: `agnes source add NAME .. --data-dir DIR`; it works while the server runs"
                    .to_owned(),
            ),
            Self::SourceFailed { advice, .. } => advice.clone(),
            Self::DiscoveryTimeout { .. } => Some("`agnes source check` shows whether it answers".to_owned()),
            _ => None,
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::InvalidField { field, .. } | Self::InvalidSourceField { field, .. } => {
                Some(serde_json::json!({"field": field}))
            }
            Self::SourceFailed { source_name, cause, .. } => {
                Some(serde_json::json!({"source": source_name, "kind": cause}))
            }
            _ => None,
        }
    }
}

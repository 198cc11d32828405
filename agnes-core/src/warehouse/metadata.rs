//! What warehouses told of tables that stay there, kept between the times they are asked.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::connector::WarehouseTable;
use crate::error::Result;

/// What is known of a table that stays in its warehouse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMetadata {
    /// Id of the registered table.
    pub table_id: String,
    /// Rows; none for views.
    pub rows: Option<u64>,
    /// Bytes; none for views.
    pub size_bytes: Option<u64>,
    /// The column it is partitioned by.
    pub partition_by: Option<String>,
    /// The columns it is clustered by, in order.
    pub clustered_by: Vec<String>,
    /// `BASE TABLE`, `VIEW`, ...
    pub entity_type: Option<String>,
    /// Names of its columns, in order.
    pub known_columns: Vec<String>,
    /// When it was last told.
    pub refreshed_at: Option<DateTime<Utc>>,
    /// When asking last failed, if it did since.
    pub error_at: Option<DateTime<Utc>>,
    /// Why, in at most 512 characters.
    pub error_msg: Option<String>,
}

impl TableMetadata {
    /// What was told of a table.
    pub(crate) fn of(table_id: &str, told: WarehouseTable, now: DateTime<Utc>) -> Self {
        Self {
            table_id: table_id.to_owned(),
            rows: told.rows,
            size_bytes: told.size_bytes,
            partition_by: told.partition_by,
            clustered_by: told.clustered_by,
            entity_type: told.entity_type,
            known_columns: told.columns.into_iter().map(|(name, _)| name).collect(),
            refreshed_at: Some(now),
            error_at: None,
            error_msg: None,
        }
    }

    /// Predicates to begin with, where the columns are such that they mean something.
    pub(crate) fn where_examples(&self) -> Vec<String> {
        let has = |name: &str| self.known_columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        let mut examples = Vec::new();
        if has("event_date") {
            examples.push("event_date >= DATE '2026-01-01'".to_owned());
        }
        if has("country_code") && has("platform") {
            examples.push("country_code = 'CZ' AND platform = 'web'".to_owned());
        }
        examples
    }

    /// Whether nothing was told.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = Self { table_id: self.table_id.clone(), refreshed_at: self.refreshed_at, ..Self::default() };
        *self == nothing
    }
}

/// Keeps what warehouses told.
#[async_trait]
pub trait MetadataRepository: Send + Sync {
    /// All of it, by id of the table.
    async fn list(&self) -> Result<Vec<TableMetadata>>;
    /// Keeps what was told of a table, in the place of what was there.
    async fn put(&self, metadata: &TableMetadata) -> Result<()>;
    /// Notes that a table could not be asked about; what it told before stays.
    async fn fail(&self, table_id: &str, words: &str, now: DateTime<Utc>) -> Result<()>;
}

//! What a source is asked that answers queries itself.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::SourceContext;
use crate::error::Result;
use crate::registry::RegisteredTable;

/// Where a table is in a warehouse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WarehousePath {
    /// The project.
    pub project: String,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
}

/// A query for a warehouse, in its own dialect. Core wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarehouseQuery {
    /// The statement.
    pub sql: String,
    /// Most bytes it may read, where there is a limit.
    pub max_bytes: Option<u64>,
    /// Whether the order of its rows counts.
    pub ordered: bool,
    /// Who asks, as a word that names nobody; for the warehouse's own books.
    pub asker: String,
}

/// What a warehouse says of a query before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarehouseEstimate {
    /// Bytes it would read. A warehouse that cannot tell gives no estimate.
    pub bytes: u64,
    /// Whether it is one query that writes nothing.
    pub only_reads: bool,
}

/// Rows of a warehouse on their way.
#[derive(Debug)]
pub struct WarehouseRows {
    /// Their columns.
    pub schema: arrow::datatypes::SchemaRef,
    /// Batches until the channel closes.
    pub batches: tokio::sync::mpsc::Receiver<Result<arrow::record_batch::RecordBatch>>,
}

/// What a warehouse knows of a table without reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarehouseTable {
    /// `BASE TABLE`, `VIEW`, ...
    pub entity_type: Option<String>,
    /// Rows; views have none of their own.
    pub rows: Option<u64>,
    /// Bytes; views have none of their own.
    pub size_bytes: Option<u64>,
    /// The column it is partitioned by.
    pub partition_by: Option<String>,
    /// The columns it is clustered by, in order.
    pub clustered_by: Vec<String>,
    /// Names and DuckDB types of its columns, in order.
    pub columns: Vec<(String, String)>,
}

/// A source that answers queries itself. Dropping the future of a call does not end what runs
/// there: [`SourceContext::cancel`] does.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// The project of paths that name none.
    ///
    /// # Errors
    /// Where none is configured.
    fn home(&self, source: &SourceContext) -> Result<String>;
    /// The project that runs and pays for queries.
    ///
    /// # Errors
    /// Where none is configured.
    fn billing(&self, source: &SourceContext) -> Result<String>;
    /// The datasets that its tables are offered from, by name.
    ///
    /// # Errors
    /// What the warehouse said.
    async fn datasets(&self, source: &SourceContext) -> Result<Vec<String>>;
    /// Where a registered table is.
    ///
    /// # Errors
    /// Where the row does not say.
    fn path(&self, source: &SourceContext, table: &RegisteredTable) -> Result<WarehousePath>;
    /// What a query would read. Costs nothing.
    ///
    /// # Errors
    /// Of kind `invalid_input` where it does not understand the query.
    async fn estimate(&self, source: &SourceContext, sql: &str) -> Result<WarehouseEstimate>;
    /// Runs a query; returns once it has ended there.
    ///
    /// # Errors
    /// What the warehouse said.
    async fn rows(&self, source: &SourceContext, query: &WarehouseQuery) -> Result<WarehouseRows>;
    /// What is known of a table.
    ///
    /// # Errors
    /// What the warehouse said.
    async fn describe(&self, source: &SourceContext, path: &WarehousePath) -> Result<WarehouseTable>;
}

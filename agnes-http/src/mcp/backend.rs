//! Where tools get their answers.

use agnes_core::catalog::{CatalogTable, Sample, TableSchema};
use agnes_core::local::Rows;
use agnes_core::query::Query;
use agnes_core::scan::{ScanEstimate, ScanRequest};
use agnes_core::workspace::{PullReport, SnapshotMeta};
use agnes_core::{CallContext, Engine, Result};
use async_trait::async_trait;
use serde_json::Value;

/// What tools are answered from, on behalf of one caller. Each method is the engine's of that
/// name, with its errors.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Address of the server; `None` for a data folder of this machine.
    fn server(&self) -> Option<String>;
    /// Address of the caller; `None` for the scheduler, who is no person.
    async fn user(&self) -> Result<Option<String>>;
    /// `ok` or `unhealthy`; a data folder that answers is well.
    async fn health(&self) -> Result<String> {
        Ok("ok".to_owned())
    }
    /// The tables that the caller may read.
    async fn tables(&self) -> Result<Vec<CatalogTable>>;
    /// Columns of a table, by id or name.
    async fn schema(&self, table: &str) -> Result<TableSchema>;
    /// The first rows of a table.
    async fn sample(&self, table: &str, rows: usize) -> Result<Sample>;
    /// Statistics of a table.
    async fn profile(&self, table: &str) -> Result<Value>;
    /// How much a scan would read.
    async fn estimate(&self, request: ScanRequest) -> Result<ScanEstimate>;
    /// The rows of a query. Dropping them stops it.
    async fn query(&self, query: Query) -> Result<Rows>;
    /// The workspace of the assistant, where it has one.
    fn laptop(&self) -> Option<&dyn Laptop> {
        None
    }
}

/// A workspace beside the assistant: its queries need no server.
#[async_trait]
pub trait Laptop: Send + Sync {
    /// The rows of a query of the files here.
    async fn query(&self, query: Query) -> Result<Rows>;
    /// Brings the files up to date, and these tables.
    async fn pull(&self, tables: Vec<String>, skip_materialized: bool) -> Result<PullReport>;
    /// Keeps the rows of a scan as a table here; one of that name is replaced only by `force`. What is to
    /// be said of it comes with it.
    async fn snapshot(&self, request: ScanRequest, force: bool) -> Result<(SnapshotMeta, Vec<String>)>;
}

/// The engine of this server, asked by whoever sent a request.
pub(crate) struct Served {
    pub(crate) engine: Engine,
    pub(crate) ctx: CallContext,
    pub(crate) origin: String,
    pub(crate) health: &'static str,
}

#[async_trait]
impl Backend for Served {
    fn server(&self) -> Option<String> {
        Some(self.origin.clone())
    }

    async fn user(&self) -> Result<Option<String>> {
        match self.engine.sign_in().me(&self.ctx).await {
            Ok(me) => Ok(Some(me.email)),
            Err(error) if error.code() == "service_forbidden" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn health(&self) -> Result<String> {
        Ok(self.health.to_owned())
    }

    async fn tables(&self) -> Result<Vec<CatalogTable>> {
        self.engine.catalog().tables(&self.ctx).await
    }

    async fn schema(&self, table: &str) -> Result<TableSchema> {
        self.engine.catalog().schema(&self.ctx, table).await
    }

    async fn sample(&self, table: &str, rows: usize) -> Result<Sample> {
        self.engine.catalog().sample(&self.ctx, table, rows).await
    }

    async fn profile(&self, table: &str) -> Result<Value> {
        self.engine.catalog().profile(&self.ctx, table).await
    }

    async fn estimate(&self, request: ScanRequest) -> Result<ScanEstimate> {
        self.engine.estimate_scan(&self.ctx, &request).await
    }

    async fn query(&self, query: Query) -> Result<Rows> {
        Ok(self.engine.query(&self.ctx, query).await?.into())
    }
}

//! Governed queries: who asks, what may they read, run it sealed, stream the rows.
//!
//! [`Engine::query`] lets the [sandbox](crate::sandbox) read the text, decides every relation
//! against the caller's grants as of now, and hands a [checked](crate::sandbox::Checked)
//! query to a [`Runtime`]. Results are Arrow batches with backpressure; dropping a
//! [`QueryResult`] stops the engine. Every query leaves an audit row, refused ones too.

mod alone;
mod arrow_end;
mod batches;
mod encoded;
mod error;
mod files;
mod frames;
mod hybrid;
mod in_process;
mod instance;
mod internal;
mod json;
mod lease;
mod native;
mod params;
mod pivot;
mod plain;
mod readable;
mod receipt;
mod remote;
mod replay;
mod result;
mod rows;
mod runtime;
mod scrub;
#[cfg(feature = "testing")]
mod sealed;
mod service;
mod text;
mod threads;
mod write;

pub use alone::Alone;
pub(crate) use alone::{Asked, Attached, Loaded};
pub use batches::Batches;
pub(crate) use batches::Next;
pub use encoded::EncodedRows;
pub use error::QueryError;
pub(crate) use files::{FileQueries, lock_file, sweep_spill};
pub use frames::{Frame, FrameError};
pub use hybrid::{HybridAnswer, HybridQuery, WarehouseCheck};
pub use in_process::InProcess;
pub(crate) use in_process::{no_thread, run};
pub(crate) use instance::{Instance, Wall, open_engine};
pub use json::{json_column, json_rows};
pub(crate) use lease::leased_blobs;
pub use native::{
    KnownTable, MetadataRefresh, MetadataStatus, TableRefresh, WarmUp, WarmUpBegun, WarmUpEvent, WarmUpEvents,
    WarmUpRow,
};
pub(crate) use native::{MetadataRuns, WarmUps};
pub(crate) use native::{estimate as estimate_native, facts as warehouse_facts};
pub use params::{Params, Value};
pub use receipt::{Receipt, ReceiptBody, ReceiptError, ReceiptTable};
pub use replay::{Replay, ReplayedOn};
pub use result::{QueryResult, QueryStats};
pub use runtime::{GrantSet, Isolation, QueryJob, QueryLimits, Relation, RunningQuery, Runtime};
pub(crate) use scrub::scrub;
#[cfg(feature = "testing")]
pub use sealed::Sealed;
pub(crate) use service::{Manner, Queries, RuntimeChoice, probe};
pub use text::{value_text, writable};
pub use write::{RowFormat, RowWriteError, RowWriter, RowsEnd};

use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;

/// A query to ask.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Query {
    /// One read-only query.
    pub sql: String,
    /// Values of its parameters.
    #[serde(default)]
    pub params: Params,
    /// Most rows to return; more make the result [truncated](QueryResult::truncated).
    #[serde(default)]
    pub limit: Option<usize>,
    /// Most bytes to return, as Arrow has them.
    #[serde(default)]
    pub max_bytes: Option<usize>,
    /// Write a [`Receipt`], and keep the data it is of as long as its lease lasts.
    #[serde(default)]
    pub receipt: bool,
    /// Rows that come along, to be joined with what the caller may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
}

impl Query {
    /// Asks `sql`, without parameters and limits of its own.
    #[must_use]
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }

    /// Asks how many rows `table` has, as one number `n`.
    ///
    /// ```
    /// assert_eq!(agnes_core::query::Query::row_count("a b").sql, "SELECT count(*)::UBIGINT AS n FROM \"a b\"");
    /// ```
    #[must_use]
    pub fn row_count(table: &str) -> Self {
        Self::new(format!("SELECT count(*)::UBIGINT AS n FROM {}", crate::ident::quote_ident(table)))
    }

    /// Values of the parameters.
    #[must_use]
    pub fn params(mut self, params: Params) -> Self {
        self.params = params;
        self
    }

    /// Returns at most `rows` rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Writes a receipt.
    #[must_use]
    pub fn receipt(mut self) -> Self {
        self.receipt = true;
        self
    }

    /// Brings rows along.
    #[must_use]
    pub fn frame(mut self, frame: Frame) -> Self {
        self.frames.push(frame);
        self
    }

    /// Returns at most about `bytes` bytes.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}

impl Engine {
    /// Asks a query of what the caller may read, now.
    ///
    /// # Errors
    /// Any [`SandboxError`](crate::sandbox::SandboxError) and [`QueryError`];
    /// any [`FrameError`]; `inactive_user`, `scope_denied`.
    pub async fn query(&self, ctx: &CallContext, query: Query) -> Result<QueryResult> {
        ctx.principal().require(crate::rbac::Ability::Rows)?;
        service::query(self, ctx, query, None, Manner::default()).await
    }

    /// Asks a query on behalf of something else, whose name and limits it has.
    pub(crate) async fn query_in_manner(&self, ctx: &CallContext, query: Query, manner: Manner) -> Result<QueryResult> {
        service::query(self, ctx, query, None, manner).await
    }
}

//! A result as it arrives.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::Stream;

use super::receipt::{Pending, Receipt};
use super::runtime::RunningQuery;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::policy::RowScope;

/// What a query has done so far.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueryStats {
    /// Rows returned.
    pub rows: u64,
    /// Bytes of Arrow memory returned.
    pub bytes: u64,
    /// Number of the published catalog it reads.
    pub generation: u64,
    /// Relations it names.
    pub relations: Vec<String>,
    /// Time since it was asked.
    pub elapsed: Duration,
}

/// What goes into the audit row.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) engine: Engine,
    pub(super) ctx: CallContext,
    pub(super) action: &'static str,
    pub(super) sql: String,
    pub(super) relations: Vec<String>,
    pub(super) generation: u64,
    pub(super) scope: Vec<RowScope>,
    pub(super) asked: Instant,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Report {
    /// Queues the audit row.
    pub(super) fn write(&self, outcome: &Result<()>, rows: u64, bytes: u64, truncated: bool) {
        let _inside = self.runtime.enter();
        let resource = self.relations.first().map_or_else(|| "adhoc".to_owned(), |name| format!("table:{name}"));
        let preview: String = self.sql.chars().take(200).collect();
        let mut params = serde_json::json!({
            "sql": preview,
            "rows_returned": rows,
            "bytes": bytes,
            "generation": self.generation,
        });
        if !self.scope.is_empty() {
            params["row_scope"] = serde_json::json!(self.scope);
        }
        if truncated {
            params["truncated"] = true.into();
        }
        if self.relations.len() > 1 {
            params["relations"] = self.relations.clone().into();
        }
        self.engine
            .audit()
            .event(&self.ctx, self.action)
            .resource(resource)
            .params(params)
            .outcome(outcome)
            .took(self.asked.elapsed())
            .later();
    }
}

/// The rows of a query as they are made. Dropping it stops the query.
#[derive(Debug)]
pub struct QueryResult {
    running: Option<RunningQuery>,
    schema: SchemaRef,
    scope: Vec<RowScope>,
    limit: Option<usize>,
    max_bytes: Option<usize>,
    rows: u64,
    bytes: u64,
    truncated: bool,
    report: Option<Report>,
    /// Until the last row.
    pending: Option<Pending>,
    receipt: Option<Receipt>,
    stats: (u64, Vec<String>, Instant),
}

impl QueryResult {
    pub(super) fn new(
        running: RunningQuery,
        limit: Option<usize>,
        max_bytes: Option<usize>,
        report: Report,
        pending: Option<Pending>,
    ) -> Self {
        Self {
            schema: RowScope::into_schema(&report.scope, &running.schema),
            scope: report.scope.clone(),
            running: Some(running),
            limit,
            max_bytes,
            rows: 0,
            bytes: 0,
            truncated: false,
            stats: (report.generation, report.relations.clone(), report.asked),
            report: Some(report),
            pending,
            receipt: None,
        }
    }

    /// Columns of the result. Names may repeat.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// What policies took from the tables it names; also in the schema's metadata.
    #[must_use]
    pub fn row_scope(&self) -> &[RowScope] {
        &self.scope
    }

    /// The receipt that was asked for; known once the rows have ended.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Whether more rows existed than were returned; known once the rows have ended.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> QueryStats {
        QueryStats {
            rows: self.rows,
            bytes: self.bytes,
            generation: self.stats.0,
            relations: self.stats.1.clone(),
            elapsed: self.stats.2.elapsed(),
        }
    }

    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// All rows. For results that fit into memory.
    ///
    /// # Errors
    /// What the engine said half way.
    pub async fn collect(&mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    fn end(&mut self, outcome: &Result<()>) {
        self.running = None;
        if let Some(report) = self.report.take() {
            report.write(outcome, self.rows, self.bytes, self.truncated);
        }
    }

    /// Writes the receipt: all rows were returned that will be.
    fn close(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        match pending.finish(&self.schema, self.truncated) {
            Ok(receipt) => self.receipt = Some(receipt),
            Err(error) => tracing::error!(code = error.code(), "a receipt was not written: {error}"),
        }
    }

    fn cut(&mut self) {
        self.truncated = true;
        self.close();
        self.end(&Ok(()));
    }
}

impl Stream for QueryResult {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = self.running.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(next) = running.batches.poll_recv(cx) else { return Poll::Pending };
        let batch = match next {
            None => {
                self.close();
                self.end(&Ok(()));
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                let error = Error::from(error.without_values(!self.scope.is_empty()));
                let wire = error.to_wire();
                self.end(&Err(wire.into()));
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(batch)) => batch,
        };
        let left = self
            .limit
            .map_or(usize::MAX, |limit| limit.saturating_sub(usize::try_from(self.rows).unwrap_or(usize::MAX)));
        let size = batch.get_array_memory_size();
        let full = self.max_bytes.is_some_and(|max| self.rows > 0 && self.bytes + size as u64 > max as u64);
        if left == 0 || full {
            self.cut();
            return Poll::Ready(None);
        }
        let more = batch.num_rows() > left;
        let batch = if more { batch.slice(0, left) } else { batch };
        self.rows += batch.num_rows() as u64;
        self.bytes += size as u64;
        if let Some(pending) = self.pending.as_mut() {
            pending.add(&batch);
        }
        if more {
            self.cut();
        }
        let batch = if self.scope.is_empty() { Ok(batch) } else { batch.with_schema(self.schema.clone()) };
        Poll::Ready(Some(batch.map_err(|e| Error::internal("hand out rows", e))))
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // Left before its end: what was read is what was returned.
        self.end(&Ok(()));
    }
}

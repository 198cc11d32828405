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
use crate::scan::Slot;

/// What a query has done so far.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueryStats {
    /// Rows returned.
    pub rows: u64,
    /// Bytes returned, as Arrow has them.
    pub bytes: u64,
    /// Number of the published catalog it reads.
    pub generation: u64,
    /// Relations it names.
    pub relations: Vec<String>,
    /// Time since it was asked.
    pub elapsed: Duration,
    /// Bytes that a warehouse read for it, as estimated; none where none was asked.
    pub bytes_scanned: Option<u64>,
}

/// What goes into the audit row.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) engine: Engine,
    pub(super) ctx: CallContext,
    pub(super) action: &'static str,
    /// Further facts, an object or nothing.
    pub(super) facts: serde_json::Value,
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
        for (name, fact) in self.facts.as_object().into_iter().flatten() {
            params[name] = fact.clone();
        }
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
    stats: (u64, Vec<String>, Instant, Option<u64>),
    slot: Option<Slot>,
}

/// Bytes of the rows of a batch alone: its buffers may be part of a larger piece of memory.
pub(super) fn size_of(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size()) as u64
    });
    sizes.sum()
}

impl QueryResult {
    pub(super) fn new(
        running: RunningQuery,
        (limit, max_bytes): (Option<usize>, Option<usize>),
        report: Report,
        pending: Option<Pending>,
        slot: Option<Slot>,
    ) -> Self {
        let scanned = running.scanned;
        Self {
            schema: RowScope::into_schema(&report.scope, &running.schema),
            scope: report.scope.clone(),
            running: Some(running),
            limit,
            max_bytes,
            rows: 0,
            bytes: 0,
            truncated: false,
            stats: (report.generation, report.relations.clone(), report.asked, scanned),
            report: Some(report),
            pending,
            receipt: None,
            slot,
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
            bytes_scanned: self.stats.3,
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
        self.slot = None;
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

    /// Leaves out the rows that did not come yet.
    pub(super) fn cut(&mut self) {
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
        let (size, rows) = (size_of(&batch), batch.num_rows());
        let room = self.max_bytes.map_or(u64::MAX, |max| (max as u64).saturating_sub(self.bytes));
        let fitting = match size > room {
            true => usize::try_from(u128::from(room) * rows as u128 / u128::from(size)).unwrap_or(rows),
            false => rows,
        };
        // One at least: an answer without any row would not say what is too large.
        let keep = if self.rows == 0 { fitting.max(1) } else { fitting }.min(left).min(rows);
        if keep == 0 && rows > 0 {
            self.cut();
            return Poll::Ready(None);
        }
        let more = rows > keep;
        let (batch, size) = if more { (batch.slice(0, keep), size * keep as u64 / rows as u64) } else { (batch, size) };
        self.rows += keep as u64;
        self.bytes += size;
        if let Some(slot) = &self.slot {
            slot.charge(size);
        }
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

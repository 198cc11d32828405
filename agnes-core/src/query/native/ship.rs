//! A query that its warehouse answers as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;

use super::calls::{CancelOnDrop, ask};
use super::{Natives, QUEUE};
use crate::connector::{Cancel, WarehouseRows};
use crate::error::{ErrorKind, Result};
use crate::query::remote::Sources;
use crate::query::runtime::{GrantSet, QueryJob, RunningQuery};
use crate::query::{Alone, QueryError};
use crate::scan::Slot;
use crate::warehouse::Dialect;

/// What came of shipping a query.
pub(super) enum Shipped {
    Runs(RunningQuery),
    Here(Box<QueryJob>, Option<String>),
}

fn nothing() -> Arc<GrantSet> {
    Arc::new(GrantSet { fingerprint: String::new(), relations: BTreeMap::new() })
}

impl Natives {
    /// Runs the whole query there. The job comes back where it has to run here, with the words of
    /// the warehouse if it was asked.
    pub(super) async fn ship(&mut self, sources: &Sources, tree: &serde_json::Value, job: QueryJob) -> Result<Shipped> {
        let here = |job: QueryJob, words: Option<String>| Ok(Shipped::Here(Box::new(job), words));
        let tables = self.dialect_tables();
        let rows = self.limit.map(|limit| limit as u64 + 1);
        let Some(native) = self.one_source().cloned() else { return here(job, None) };
        let known = self.tables.values().all(|native| !native.columns.is_empty());
        let sql = Dialect::new(&tables, &job.params).statement(tree, rows).filter(|_| known);
        let Some(sql) = sql else { return here(job, None) };
        // The columns that it has here, of tables without rows: also whether it is right at all.
        let look = QueryJob {
            grant_set: nothing(),
            query: job.query.clone(),
            params: job.params.clone(),
            deadline: job.deadline,
            alone: Some(Alone { tables: self.empty(), remote: None }),
            guard: Box::new(()),
        };
        let schema = sources.runtime.start(look).await?.schema;
        let warehouse = native.warehouse()?;
        let bytes = match warehouse.estimate(&native.source, &sql).await {
            Ok(estimate) => estimate.bytes,
            // It reads this text otherwise than the parser here.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return here(job, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        self.check(bytes).await?;
        let ordered = crate::warehouse::is_ordered(tree);
        let rows = ask(&native, self.query(sql, ordered)).await?;
        if !fits(&rows.schema, &schema) {
            tracing::warn!("a warehouse gave other columns than the query has here; it is computed here");
            return here(job, None);
        }
        self.charge(bytes);
        Ok(Shipped::Runs(forward(rows, schema, bytes, job, std::mem::take(&mut self.cancel), self.slot.take())))
    }
}

/// Whether rows of one schema can be written as the other.
fn fits(given: &SchemaRef, wanted: &SchemaRef) -> bool {
    given.fields().len() == wanted.fields().len()
        && given.fields().iter().zip(wanted.fields()).all(|(given, wanted)| {
            let generated = given.name().strip_prefix("_c").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            (generated || given.name().eq_ignore_ascii_case(wanted.name()))
                && (given.data_type() == wanted.data_type()
                    || arrow::compute::can_cast_types(given.data_type(), wanted.data_type()))
        })
}

fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let strict = arrow::compute::CastOptions { safe: false, ..arrow::compute::CastOptions::default() };
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(column.clone()),
        false => arrow::compute::cast_with_options(column, field.data_type(), &strict),
    });
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|columns| RecordBatch::try_new_with_options(schema.clone(), columns, &options))
        .map_err(|error| {
            tracing::warn!(%error, "rows of a warehouse do not fit the query's columns");
            QueryError::Failed { message: "a value is out of range".to_owned(), code: "query_failed" }
        })
}

/// The rows of a warehouse as those of a query of this engine.
fn forward(
    mut rows: WarehouseRows,
    schema: SchemaRef,
    scanned: u64,
    job: QueryJob,
    cancel: Cancel,
    slot: Option<Slot>,
) -> RunningQuery {
    let nullable = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let schema: SchemaRef =
        Arc::new(arrow::datatypes::Schema::new(nullable.collect::<Vec<_>>()).with_metadata(schema.metadata().clone()));
    let (send, batches) = mpsc::channel(QUEUE);
    let told = schema.clone();
    tokio::spawn(async move {
        let (deadline, _held) = (job.deadline, (job.guard, slot));
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
        loop {
            let next = match tokio::time::timeout_at(deadline.into(), rows.batches.recv()).await {
                Ok(Some(Ok(batch))) => fit(&batch, &schema),
                Ok(Some(Err(error))) => Err(QueryError::Told(Box::new(error.to_wire()))),
                Ok(None) => return,
                Err(_) => Err(QueryError::Timeout { seconds }),
            };
            let failed = next.is_err();
            if send.send(next).await.is_err() || failed {
                return;
            }
        }
    });
    RunningQuery {
        schema: told,
        batches: batches.into(),
        stop: Box::new(CancelOnDrop::new(&cancel)),
        scanned: Some(scanned),
    }
}

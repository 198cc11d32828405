//! Internal tables: Agnes's own state, the caller's rows alone.
//!
//! A query of them runs in a fresh instance that holds filtered copies and nothing else, so
//! no table of the state can be named by any trick.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::readable::CallerSet;
use super::remote::duckdb_type;
use super::runtime::{GrantSet, QueryJob, Relation, RunningQuery, Runtime};
use super::{Alone, Loaded};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::quote_ident;
use crate::rbac::Principal;
use crate::store::InternalScope;

/// The rows with plain types only: what is none of them becomes text.
fn plain(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let kind = match field.data_type() {
                DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
                kind if kind.is_integer()
                    || matches!(kind, DataType::Boolean | DataType::Float64 | DataType::Date32) =>
                {
                    kind.clone()
                }
                _ => DataType::Utf8,
            };
            arrow::datatypes::Field::new(field.name(), kind, true)
        })
        .collect();
    let columns =
        batch.columns().iter().zip(&fields).map(|(column, field)| arrow::compute::cast(column, field.data_type()));
    columns
        .collect::<arrow::error::Result<Vec<_>>>()
        .and_then(|columns| RecordBatch::try_new(Arc::new(Schema::new(fields)), columns))
        .map_err(|e| Error::internal("prepare internal rows", e))
}

/// Runs a query that names internal tables alone.
pub(super) async fn start(
    engine: &Engine,
    caller: &CallerSet,
    principal: &Principal,
    runtime: &dyn Runtime,
    mut job: QueryJob,
) -> Result<RunningQuery> {
    let scope = (!caller.admin).then(|| InternalScope {
        user_id: principal.user_id().to_owned(),
        email: caller.access.active_users.get(principal.user_id()).cloned(),
    });
    // With what the caller did a moment ago.
    engine.audit_log().flush().await;
    let mut relations = BTreeMap::new();
    let mut tables = Vec::new();
    for (name, _) in job.query.relations() {
        let rows = engine.store().internal_rows(name, scope.clone()).await?;
        let rows = rows.iter().map(plain).collect::<Result<Vec<_>>>()?;
        let Some(schema) = rows.first().map(RecordBatch::schema) else {
            return Err(Error::internal("read an internal table", "it has no columns"));
        };
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", quote_ident(field.name()), duckdb_type(field.data_type())))
            .collect();
        let create = format!("CREATE TABLE {} ({})", quote_ident(name), columns.join(", "));
        tables.push(Loaded { name: name.clone(), create, rows });
        let relation = Relation {
            name: name.clone(),
            description: None,
            columns: Vec::new(),
            blobs: Vec::new(),
            partitioned: false,
        };
        relations.insert(name.clone(), relation);
    }
    job.grant_set = Arc::new(GrantSet { fingerprint: String::new(), relations });
    job.alone = Some(Alone { tables, remote: None });
    runtime.start(job).await
}

//! Queries that ask a source: in an instance of their own, with the extension loaded and the
//! source attached before the lock, and no local data. When a query joins remote and local
//! relations, the remote ones cross as Arrow, under caps, into an instance without extensions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::native::{Natives, Others};
use super::readable::CallerSet;
use super::runtime::{GrantSet, QueryJob, Relation, RunningQuery, Runtime};
use super::{Alone, Asked, Attached, Loaded, Params, QueryError};
use crate::config::RemoteQueryConfig;
use crate::error::Result;
use crate::ident::quote_ident;
use crate::orchestrator::{AttachPolicy, Generation};
use crate::sandbox::{Gate, RelationKind};
use crate::secret::SecretSource;

/// What a query of remote tables needs besides the job.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) policy: AttachPolicy,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) caps: RemoteQueryConfig,
    pub(super) gate: Gate,
    pub(super) runtime: Arc<dyn Runtime>,
}

fn asked(generation: &Generation, caller: &CallerSet, job: &QueryJob) -> Vec<Asked> {
    let remote = job.query.relations().iter().filter(|(_, kind)| *kind == RelationKind::Remote);
    remote
        .filter_map(|(name, _)| {
            let source = caller.remote.get(name)?;
            let (_, source) = generation.sources.iter().find(|(key, _)| key.as_str() == source)?;
            let table = source.tables.iter().find(|table| table.name.as_str().eq_ignore_ascii_case(name))?;
            let remote = table.remote.clone()?;
            let attach = source.attaches.iter().find(|attach| attach.alias == remote.alias)?.clone();
            Some((name.clone(), remote, attach))
        })
        .collect()
}

/// Runs a query that names remote tables; `natives` are those whose warehouse answers by itself,
/// `tables` those whose rows are here already.
pub(super) async fn start(
    sources: Sources,
    generation: &Generation,
    caller: &CallerSet,
    mut job: QueryJob,
    natives: Option<Natives>,
    mut tables: Vec<Loaded>,
) -> Result<RunningQuery> {
    let mut asked = asked(generation, caller, &job);
    if let Some(natives) = &natives {
        asked.retain(|(name, ..)| !natives.tables.contains_key(name));
    }
    let locals: BTreeMap<String, Relation> = job
        .query
        .relations()
        .iter()
        .filter(|(_, kind)| *kind == RelationKind::Local)
        .filter_map(|(name, _)| Some((name.clone(), caller.set.relations.get(name)?.clone())))
        .collect();
    let mixed = !locals.is_empty() || !job.query.system().is_empty() || !tables.is_empty();
    let alone = !mixed && asked.is_empty();
    let Sources { policy, secrets, caps, gate, runtime } = sources.clone();
    let nothing = Arc::new(GrantSet { fingerprint: String::new(), relations: BTreeMap::new() });
    if !mixed && natives.is_none() {
        job.grant_set = nothing;
        job.alone = Some(Alone { tables: Vec::new(), remote: Some(Attached { policy, secrets, asked }) });
        return runtime.start(job).await;
    }
    let moved = |table: &Loaded| table.rows.iter().map(|rows| rows.get_array_memory_size() as u64).sum::<u64>();
    let mut left = caps.max_bytes.saturating_sub(tables.iter().map(moved).sum());
    for one in asked {
        // A query of its own, checked as any other: all rows of one relation.
        let name = one.0.clone();
        let all = gate.parse(&format!("SELECT * FROM {}", quote_ident(&name))).await?.resolve(caller)?;
        let remote = Attached { policy: policy.clone(), secrets: secrets.clone(), asked: vec![one] };
        let part = QueryJob {
            grant_set: nothing.clone(),
            query: all,
            params: Params::None,
            deadline: job.deadline,
            alone: Some(Alone { tables: Vec::new(), remote: Some(remote) }),
            guard: Box::new(()),
        };
        let (schema, rows) = fetch(runtime.start(part).await?, &caps, &mut left).await?;
        tables.push(Loaded { create: create(&name, &schema), name, rows });
    }
    // The catalog shows the whole grant set; files are open only to what the query names.
    let relations = if job.query.system().is_empty() { locals } else { caller.set.relations.clone() };
    let set = Arc::new(GrantSet { fingerprint: String::new(), relations });
    if let Some(natives) = natives {
        return super::native::start(sources, natives, job, Others { alone, set, tables, left }).await;
    }
    job.grant_set = set;
    job.alone = Some(Alone { tables, remote: None });
    runtime.start(job).await
}

/// The rows of one remote relation, under caps.
async fn fetch(
    mut running: RunningQuery,
    caps: &RemoteQueryConfig,
    left: &mut u64,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let (mut batches, mut rows) = (Vec::new(), 0);
    while let Some(batch) = running.batches.recv().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let size = batch.get_array_memory_size() as u64;
        if rows > caps.max_rows {
            return Err(QueryError::RemoteTooLarge { limit: format!("{} rows", caps.max_rows) }.into());
        }
        if size > *left {
            return Err(QueryError::RemoteTooLarge { limit: format!("{} MiB", caps.max_bytes >> 20) }.into());
        }
        *left -= size;
        batches.push(batch);
    }
    Ok((running.schema, batches))
}

pub(super) fn create(name: &str, schema: &Schema) -> String {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", quote_ident(field.name()), duckdb_type(field.data_type())))
        .collect();
    format!("CREATE TABLE {} ({})", quote_ident(name), columns.join(", "))
}

/// The DuckDB type that takes values of an Arrow type.
pub(super) fn duckdb_type(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "UTINYINT".to_owned(),
        DataType::UInt16 => "USMALLINT".to_owned(),
        DataType::UInt32 => "UINTEGER".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(width, scale) => format!("DECIMAL({width},{scale})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP_MS".to_owned(),
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP_S".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".to_owned(),
        DataType::Interval(_) => "INTERVAL".to_owned(),
        DataType::Binary | DataType::LargeBinary => "BLOB".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", duckdb_type(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", quote_ident(field.name()), duckdb_type(field.data_type())))
                .collect();
            format!("STRUCT({})", fields.join(", "))
        }
        _ => "VARCHAR".to_owned(),
    }
}

#[cfg(test)]
mod tests;

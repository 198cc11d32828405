//! Queries that ask a source: in an instance of their own, with the extension loaded and the
//! source attached before the lock, and no local data. When a query joins remote and local
//! relations, the remote ones cross as Arrow, under caps, into an instance without extensions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::QueryError;
use super::in_process::run;
use super::instance::Instance;
use super::readable::CallerSet;
use super::runtime::{GrantSet, QueryJob, QueryLimits, Relation, RunningQuery};
use crate::config::RemoteQueryConfig;
use crate::error::Result;
use crate::ident::quote_ident;
use crate::orchestrator::{AttachPolicy, Generation, RemoteAttach, RemoteTable, attach};
use crate::sandbox::RelationKind;
use crate::secret::SecretSource;

/// What a query of remote tables needs besides the job.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) policy: AttachPolicy,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) caps: RemoteQueryConfig,
    pub(super) limits: QueryLimits,
    pub(super) scratch: PathBuf,
}

/// A remote relation of a query: its name, definition and attachment.
type Asked = (String, RemoteTable, RemoteAttach);

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

/// Runs a query that names remote tables.
pub(super) async fn start(
    sources: Sources,
    generation: &Generation,
    caller: &CallerSet,
    mut job: QueryJob,
) -> Result<RunningQuery> {
    let asked = asked(generation, caller, &job);
    let locals: BTreeMap<String, Relation> = job
        .query
        .relations()
        .iter()
        .filter(|(_, kind)| *kind == RelationKind::Local)
        .filter_map(|(name, _)| Some((name.clone(), caller.set.relations.get(name)?.clone())))
        .collect();
    let mixed = !locals.is_empty() || !job.query.system().is_empty();
    let deadline = job.deadline;
    // The catalog shows the whole grant set; files are open only to what the query names.
    let mut relations = if job.query.system().is_empty() { locals } else { caller.set.relations.clone() };
    if !mixed {
        relations.clear();
    }
    let set = Arc::new(GrantSet { fingerprint: String::new(), relations });
    job.grant_set = set.clone();
    let instance = crate::duck::blocking(move || {
        let remote = open_remote(&sources, &asked)?;
        if !mixed {
            return Ok(remote);
        }
        let mut tables = Vec::new();
        let mut left = sources.caps.max_bytes;
        for (name, _, _) in &asked {
            let batches = fetch(&remote, name, &sources.caps, &mut left, deadline)?;
            tables.push((name.clone(), batches));
        }
        drop(remote);
        Instance::open(set, &sources.limits, &sources.scratch, |_, db| {
            for (name, (schema, batches)) in &tables {
                db.load(&create(name, schema), name, batches)?;
            }
            Ok(Vec::new())
        })
    })
    .await?;
    run(Arc::new(instance), job).await
}

/// An instance that holds the attached sources and views of the asked relations.
fn open_remote(sources: &Sources, asked: &[Asked]) -> Result<Instance> {
    let set = Arc::new(GrantSet { fingerprint: String::new(), relations: BTreeMap::new() });
    Instance::open(set, &sources.limits, &sources.scratch, |conn, db| {
        let mut attached: BTreeMap<&str, String> = BTreeMap::new();
        for (_, _, row) in asked {
            if !attached.contains_key(row.alias.as_str()) {
                db.with_connection(|conn| attach(conn, row, &sources.policy, &*sources.secrets))??;
                attached.insert(&row.alias, row.url.clone());
            }
        }
        for (name, table, row) in asked {
            conn.execute(&format!("CREATE VIEW {} AS {}", quote_ident(name), table.select)).map_err(|failure| {
                tracing::warn!(table = name, alias = row.alias, cause = %super::scrub::scrub(failure.words()), "a remote table cannot be asked");
                QueryError::Remote { table: name.clone() }
            })?;
        }
        Ok(attached.into_values().collect())
    })
}

/// The rows of one remote relation, under caps.
fn fetch(
    remote: &Instance,
    name: &str,
    caps: &RemoteQueryConfig,
    left: &mut u64,
    deadline: Instant,
) -> Result<(Arc<Schema>, Vec<RecordBatch>)> {
    let failed = |_| QueryError::Remote { table: name.to_owned() };
    let conn = remote.raw_connection()?;
    let mut stream = conn.stream(&format!("SELECT * FROM {}", quote_ident(name)), &|_| None).map_err(failed)?;
    let (mut batches, mut rows) = (Vec::new(), 0);
    while let Some(batch) = stream.next().map_err(failed)? {
        rows += batch.num_rows() as u64;
        let size = batch.get_array_memory_size() as u64;
        if rows > caps.max_rows {
            return Err(QueryError::RemoteTooLarge { limit: format!("{} rows", caps.max_rows) }.into());
        }
        if size > *left {
            return Err(QueryError::RemoteTooLarge { limit: format!("{} MiB", caps.max_bytes >> 20) }.into());
        }
        *left -= size;
        if Instant::now() > deadline {
            return Err(QueryError::Timeout { seconds: caps.timeout.as_secs() }.into());
        }
        batches.push(batch);
    }
    Ok((stream.schema(), batches))
}

fn create(name: &str, schema: &Schema) -> String {
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

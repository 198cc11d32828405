//! Hybrid queries: an admin's own statements run at the warehouse, their rows stand under names
//! of the admin's choice beside the local tables, and one checked query runs over all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::native::{Natives, Statement};
use super::readable::CallerSet;
use super::runtime::{QueryJob, RunningQuery};
use super::service::Service;
use super::{Loaded, Params, json_column, remote};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::{StrictName, printable};
use crate::rbac::Ability;
use crate::sandbox::{Readable, RelationKind, SandboxError};
use crate::warehouse::WarehouseError;

/// How long a warehouse may take to show that it answers.
const CHECK: Duration = Duration::from_secs(10);
/// Most statements of one query.
const MOST: usize = 20;

/// A hybrid query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HybridQuery {
    /// One read-only query, over tables and aliases.
    pub sql: String,
    /// Statements of the warehouse, in its own dialect, by the alias of their rows.
    pub statements: Vec<(String, String)>,
}

/// The answer to a hybrid query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HybridAnswer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values in the order of the columns.
    pub rows: Vec<Vec<Value>>,
    /// How many rows there are.
    pub row_count: usize,
    /// Whether more rows existed.
    pub truncated: bool,
    /// The aliases under which rows of the warehouse stood.
    pub registered_aliases: Vec<String>,
    /// Bytes that the warehouse read, as estimated.
    pub bytes_scanned: Option<u64>,
}

/// What the caller may read, and the aliases.
struct WithAliases<'a> {
    caller: &'a CallerSet,
    aliases: BTreeSet<String>,
}

impl Readable for WithAliases<'_> {
    fn find(&self, name: &str) -> Option<RelationKind> {
        if self.aliases.contains(name) { Some(RelationKind::Remote) } else { self.caller.find(name) }
    }
    fn names(&self) -> Vec<&str> {
        self.caller.names().into_iter().chain(self.aliases.iter().map(String::as_str)).collect()
    }
    fn sees_everything(&self) -> bool {
        self.caller.sees_everything()
    }
}

impl Engine {
    /// Runs statements at the warehouse and one query over their rows and the tables here. For
    /// admins: a statement may name whatever the server's account may read.
    ///
    /// # Errors
    /// `admin_required`, `bad_alias`, `hybrid_failed` with whose part failed, quotas.
    pub async fn hybrid(&self, ctx: &CallContext, query: &HybridQuery) -> Result<HybridAnswer> {
        let asked = Instant::now();
        let done = self.hybrid_held(ctx, query, asked).await;
        let first = query.statements.first().map_or("local", |(alias, _)| alias.as_str());
        let preview: String = query.sql.chars().take(200).collect();
        let mut params = json!({"sql": preview, "aliases": query.statements.len()});
        if let Ok(answer) = &done {
            params["rows_returned"] = answer.row_count.into();
            params["bytes_scanned"] = json!(answer.bytes_scanned);
        }
        let resource = format!("hybrid:{}", printable(first, 64));
        let event = self.audit().event(ctx, "query.hybrid").resource(resource).params(params);
        event.outcome(&done).took(asked.elapsed()).record().await;
        done
    }

    async fn hybrid_held(&self, ctx: &CallContext, query: &HybridQuery, asked: Instant) -> Result<HybridAnswer> {
        ctx.principal().require(Ability::Everything)?;
        self.access().await?.require_admin(ctx.principal())?;
        let aliases = aliases(&query.statements)?;
        let config = &self.config().remote_query;
        let deadline = asked + config.timeout;
        let deadline = ctx.deadline().map_or(deadline, |given| given.min(deadline));
        let service = self.queries().service().await?;
        let _turn = service.permits(ctx.principal().user_id(), deadline).await?;
        let mut left = config.max_bytes;
        let (mut tables, mut scanned) = (Vec::new(), None);
        let slot = match query.statements.is_empty() {
            true => None,
            false => Some(Natives::slot(self, ctx)?),
        };
        for (alias, sql) in &query.statements {
            // Those before may have used up the day's bytes.
            if let Some(slot) = &slot {
                Natives::again(self, slot)?;
            }
            let failed = |error: Error| of_statement(alias, error);
            let statement = Statement { alias, sql, max_rows: config.max_rows };
            let run = statement.run(self, ctx, &mut left);
            let (loaded, bytes) = match tokio::time::timeout_at(deadline.into(), run).await {
                Ok(done) => done.map_err(failed)?,
                Err(_) => return Err(timeout(&format!("BQ '{}'", printable(alias, 64)), config.timeout.as_secs())),
            };
            if let Some(slot) = &slot {
                slot.charge(bytes);
            }
            scanned = Some(scanned.unwrap_or(0) + bytes);
            tables.push(loaded);
        }
        let over = async {
            let running = start(self, ctx, service, query, &aliases, tables, deadline).await?;
            rows(running, config.max_result_rows).await
        };
        let (columns, rows, truncated) = match tokio::time::timeout_at(deadline.into(), over).await {
            Ok(done) => done.map_err(of_query)?,
            Err(_) => return Err(timeout("Query", config.timeout.as_secs())),
        };
        let registered_aliases = query.statements.iter().map(|(alias, _)| alias.clone()).collect();
        Ok(HybridAnswer { columns, row_count: rows.len(), rows, truncated, registered_aliases, bytes_scanned: scanned })
    }
}

/// A warehouse that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarehouseCheck {
    /// The project that runs and pays for queries.
    pub billing_project: String,
    /// The project of the data.
    pub data_project: String,
    /// How long it took.
    pub elapsed_ms: u64,
}

impl Engine {
    /// Whether the warehouse runs a query.
    ///
    /// # Errors
    /// `admin_required`, `not_configured`, `warehouse_timeout`; what the warehouse says.
    pub async fn test_warehouse(&self, ctx: &CallContext) -> Result<WarehouseCheck> {
        let asked = Instant::now();
        let checked = async {
            self.access().await?.require_admin(ctx.principal())?;
            let check = super::native::check(self, ctx);
            match tokio::time::timeout(CHECK, check).await {
                Ok(done) => done,
                Err(_) => {
                    let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    Err(WarehouseError::Timeout { seconds: CHECK.as_secs(), elapsed_ms }.into())
                }
            }
        };
        let checked = checked.await;
        let event = self.audit().event(ctx, "warehouse.check").resource("warehouse");
        event.outcome(&checked).took(asked.elapsed()).record().await;
        let (billing_project, data_project) = checked?;
        let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(WarehouseCheck { billing_project, data_project, elapsed_ms })
    }
}

/// The aliases in lower case.
fn aliases(statements: &[(String, String)]) -> Result<BTreeSet<String>, WarehouseError> {
    let mut seen = BTreeSet::new();
    for (alias, sql) in statements {
        let bad = |reason| WarehouseError::Alias { alias: printable(alias, 64), reason };
        let lower = alias.to_ascii_lowercase();
        if StrictName::parse(alias).is_err() {
            return Err(bad("is not a name of letters, digits and `_`"));
        }
        if super::frames::is_reserved(&lower) {
            return Err(bad("is a name of the engine's own"));
        }
        if sql.trim().is_empty() {
            return Err(bad("has no statement"));
        }
        if !seen.insert(lower) {
            return Err(bad("stands there twice"));
        }
        if seen.len() > MOST {
            return Err(bad("is one too many"));
        }
    }
    Ok(seen)
}

/// Starts the query over all of it.
async fn start(
    engine: &Engine,
    ctx: &CallContext,
    service: &Service,
    query: &HybridQuery,
    aliases: &BTreeSet<String>,
    tables: Vec<Loaded>,
    deadline: Instant,
) -> Result<RunningQuery> {
    let (caller, generation) = service.caller(engine, ctx.principal()).await?;
    let sql = super::native::named(engine, &service.gate, &caller, &query.sql).await?;
    let parsed = service.gate.parse(&sql).await?;
    let checked = parsed.resolve(&WithAliases { caller: &caller, aliases: aliases.clone() })?;
    if checked.has(RelationKind::Internal) || !parsed.pivots().is_empty() {
        let what = "a hybrid query of internal tables, or one with a PIVOT without values".to_owned();
        return Err(SandboxError::Unsupported { what }.into());
    }
    let names: Vec<&str> = checked.relations().iter().map(|(name, _)| name.as_str()).collect();
    let own = names.iter().copied().filter(|name| !aliases.contains(*name));
    let (caller, slices) = caller.with_slices(engine, own.clone()).await?;
    let own: Vec<&str> = own.collect();
    // An alias stands before a table of the same name.
    let natives = Natives::of(engine, ctx, &caller, &own, None, false).await?;
    let guard = Box::new((generation.clone(), slices));
    let job =
        QueryJob { grant_set: caller.set.clone(), query: checked, params: Params::None, deadline, alone: None, guard };
    remote::start(service.sources(engine), &generation, &caller, job, natives, tables).await
}

type Rows = (Vec<String>, Vec<Vec<Value>>, bool);

async fn rows(mut running: RunningQuery, most: usize) -> Result<Rows> {
    let columns = running.schema.fields().iter().map(|field| field.name().clone()).collect();
    let (mut rows, mut truncated) = (Vec::new(), false);
    while let Some(batch) = running.batches.recv().await {
        let mut batch = batch?;
        if rows.len() + batch.num_rows() > most {
            truncated = true;
            batch = batch.slice(0, most - rows.len());
        }
        let cells: Vec<Vec<Value>> = batch.columns().iter().map(|column| json_column(column)).collect();
        let mut cells: Vec<_> = cells.into_iter().map(Vec::into_iter).collect();
        rows.extend((0..batch.num_rows()).map(|_| cells.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()));
        if truncated {
            break;
        }
    }
    Ok((columns, rows, truncated))
}

fn timeout(place: &str, seconds: u64) -> Error {
    let message = format!("it ran longer than {seconds} s");
    WarehouseError::Hybrid { place: place.to_owned(), kind: "timeout", message }.into()
}

fn of_statement(alias: &str, error: Error) -> Error {
    let kind = match error.code() {
        "daily_byte_cap_exceeded" | "concurrent_slot_exceeded" | "cancelled" => return error,
        "remote_too_large" if error.to_string().ends_with("rows") => "row_limit",
        "remote_too_large" => "memory_limit",
        "bigquery_job_timeout" => "timeout",
        _ => "bq_error",
    };
    let place = format!("BQ '{}'", printable(alias, 64));
    WarehouseError::Hybrid { place, kind, message: error.to_string() }.into()
}

fn of_query(error: Error) -> Error {
    let kind = match (error.code(), error.kind()) {
        ("query_timeout", _) => "timeout",
        ("query_memory" | "query_spill", _) => "memory_limit",
        ("remote_too_large", _) => "row_limit",
        (_, ErrorKind::InvalidInput | ErrorKind::QueryRefused | ErrorKind::Forbidden | ErrorKind::LimitExceeded) => {
            "query_error"
        }
        _ => return error,
    };
    WarehouseError::Hybrid { place: "Query".to_owned(), kind, message: error.to_string() }.into()
}

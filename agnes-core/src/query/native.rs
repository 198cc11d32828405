//! Queries of tables that stay in a warehouse which answers by itself: shipped as a whole where
//! that can be said in its dialect, else computed here over as little as has to be moved. What
//! it costs is looked at first.

mod calls;
mod facts;
mod fetch;
mod metadata;
mod paths;
mod ship;
mod statement;
mod warmup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::readable::CallerSet;
use super::remote::Sources;
use super::runtime::{GrantSet, QueryJob, RunningQuery};
use super::{Alone, Loaded, QueryError};
use crate::connector::{Cancel, Connector, SourceContext, Warehouse, WarehousePath, WarehouseQuery};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::quote_ident;
use crate::scan::{ScanError, Slot};
use crate::warehouse::{Tables, WarehouseError, only_describes};

use calls::CancelOnDrop;
pub(crate) use facts::{estimate, facts};
pub(crate) use metadata::MetadataRuns;
pub use metadata::{KnownTable, MetadataRefresh, MetadataStatus, TableRefresh};
pub(super) use paths::named;
use paths::registered;
use ship::Shipped;
pub(super) use statement::{Statement, check};
pub(crate) use warmup::WarmUps;
pub use warmup::{WarmUp, WarmUpBegun, WarmUpEvent, WarmUpEvents, WarmUpRow};

/// Batches that wait to be read.
const QUEUE: usize = 8;

/// A table of a query that its warehouse answers for.
#[derive(Clone)]
pub(super) struct Native {
    pub(super) path: WarehousePath,
    columns: Vec<(String, String, bool)>,
    source: SourceContext,
    connector: Arc<dyn Connector>,
}

impl Native {
    fn warehouse(&self) -> Result<&dyn Warehouse> {
        self.connector.warehouse().ok_or_else(|| Error::internal("ask a warehouse", "its connector is none"))
    }
}

/// The tables of a query that warehouses answer for, and what the query may use of them.
pub(super) struct Natives {
    pub(super) tables: BTreeMap<String, Native>,
    /// Most rows that are returned; one more tells that there are more.
    pub(super) limit: Option<usize>,
    /// Most bytes that may be read there.
    max_bytes: Option<u64>,
    /// The caller's turn; none where somebody else keeps it.
    slot: Option<Slot>,
    asker: String,
    cancel: Cancel,
}

impl Natives {
    /// Those of a caller's query, with a turn for it; none where there are none.
    pub(super) async fn of(
        engine: &Engine,
        ctx: &CallContext,
        caller: &CallerSet,
        names: &[&str],
        limit: Option<usize>,
        own_slot: bool,
    ) -> Result<Option<Self>> {
        if names.is_empty() {
            return Ok(None);
        }
        let cancel = Cancel::default();
        let mut tables = BTreeMap::new();
        for (row, mut native, _) in registered(engine).await? {
            let name = row.name.to_ascii_lowercase();
            let source = caller.remote.get(&name);
            if !names.contains(&name.as_str()) || source.is_none_or(|source| source != native.source.name.as_str()) {
                continue;
            }
            native.columns = caller.set.relations.get(&name).map(|set| set.columns.clone()).unwrap_or_default();
            native.source.cancel = cancel.clone();
            tables.insert(name, native);
        }
        if tables.is_empty() {
            return Ok(None);
        }
        let slot = if own_slot { Some(Self::slot(engine, ctx)?) } else { None };
        Ok(Some(Self { tables, limit, max_bytes: most_bytes(engine), slot, asker: asker(ctx), cancel }))
    }

    /// A turn for a query of a warehouse.
    pub(super) fn slot(engine: &Engine, ctx: &CallContext) -> Result<Slot, WarehouseError> {
        let (user, now) = (ctx.principal().user_id(), engine.clock().now());
        engine.scans().begin(user, &engine.config().scan, now).map_err(quota)
    }

    /// Whether a turn may go on with another statement.
    pub(super) fn again(engine: &Engine, slot: &Slot) -> Result<(), WarehouseError> {
        slot.check(&engine.config().scan, engine.clock().now()).map_err(quota)
    }

    /// Whether a query of these alone asks one source.
    fn one_source(&self) -> Option<&Native> {
        let first = self.tables.values().next()?;
        self.tables.values().all(|native| native.source.name == first.source.name).then_some(first)
    }

    fn dialect_tables(&self) -> Tables {
        let tables = self.tables.iter();
        tables.map(|(name, native)| (name.clone(), (native.path.clone(), native.columns.clone()))).collect()
    }

    /// Refuses what would read too much.
    async fn check(&self, bytes: u64) -> Result<()> {
        let Some(limit) = self.max_bytes.filter(|limit| bytes > *limit) else { return Ok(()) };
        let mut view_targets = Vec::new();
        for (name, native) in &self.tables {
            let told = native.warehouse()?.describe(&native.source, &native.path).await;
            if told.is_ok_and(|told| told.entity_type.is_some_and(|kind| kind.contains("VIEW"))) {
                view_targets.push(name.clone());
            }
        }
        let tables = self.tables.values().map(|native| format!("{}.{}", native.path.dataset, native.path.table));
        Err(WarehouseError::TooLarge { bytes, limit, tables: tables.collect(), view_targets }.into())
    }

    fn charge(&self, bytes: u64) {
        if let Some(slot) = &self.slot {
            slot.charge(bytes);
        }
    }

    fn query(&self, sql: String, ordered: bool) -> WarehouseQuery {
        WarehouseQuery { sql, max_bytes: self.max_bytes, ordered, asker: self.asker.clone() }
    }

    /// Tables of the query's instance without rows: what it is like shows without asking.
    fn empty(&self) -> Vec<Loaded> {
        let tables = self.tables.iter();
        tables
            .map(|(name, native)| Loaded {
                name: name.clone(),
                create: create(name, &native.columns),
                rows: Vec::new(),
            })
            .collect()
    }
}

fn create(name: &str, columns: &[(String, String, bool)]) -> String {
    let columns: Vec<String> = columns.iter().map(|(name, kind, _)| format!("{} {kind}", quote_ident(name))).collect();
    let columns = if columns.is_empty() { "\"_rows\" BIGINT".to_owned() } else { columns.join(", ") };
    format!("CREATE TABLE {} ({columns})", quote_ident(name))
}

fn quota(error: ScanError) -> WarehouseError {
    match error {
        ScanError::Quota { kind: "daily_bytes", current, limit, retry_after } => {
            WarehouseError::DailyBytes { current, limit, retry_after }
        }
        ScanError::Quota { current, limit, retry_after, .. } => WarehouseError::Slots { current, limit, retry_after },
        _ => WarehouseError::Slots { current: 0, limit: 0, retry_after: 1 },
    }
}

/// Most bytes that one query may read at a warehouse.
fn most_bytes(engine: &Engine) -> Option<u64> {
    Some(engine.config().bigquery.max_scan_bytes).filter(|most| *most > 0)
}

/// Who asks, as a word that names nobody.
fn asker(ctx: &CallContext) -> String {
    crate::orchestrator::hex(&Sha256::digest(ctx.principal().user_id()))[..16].to_owned()
}

/// Starts a query of which `natives` are all or some relations; `others` are the remaining ones.
pub(super) async fn start(
    sources: Sources,
    mut natives: Natives,
    mut job: QueryJob,
    others: Others,
) -> Result<RunningQuery> {
    let stop = CancelOnDrop::new(&natives.cancel);
    let tree = sources.gate.tree(job.query.sql()).await?;
    let looks = job.query.is_explain() || only_describes(&tree);
    let mut words = None;
    let (mut tables, mut scanned) = (others.tables, None);
    if looks {
        tables.extend(natives.empty());
    } else {
        if others.alone && tables.is_empty() {
            let deadline = job.deadline;
            let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
            let shipped = natives.ship(&sources, &tree, job);
            match tokio::time::timeout_at(deadline.into(), shipped).await {
                Err(_) => return Err(QueryError::Timeout { seconds }.into()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Shipped::Runs(running))) => {
                    stop.leave();
                    return Ok(running);
                }
                Ok(Ok(Shipped::Here(back, said))) => (job, words) = (*back, said),
            }
        }
        let mut left = others.left;
        let seconds = job.deadline.saturating_duration_since(Instant::now()).as_secs();
        let fetched = natives.fetch(&tree, &job.params, (sources.caps.max_rows, &mut left), words);
        let (fetched, bytes) = match tokio::time::timeout_at(job.deadline.into(), fetched).await {
            Ok(fetched) => fetched?,
            Err(_) => return Err(QueryError::Timeout { seconds }.into()),
        };
        tables.extend(fetched);
        scanned = Some(bytes);
    }
    job.grant_set = others.set;
    job.alone = Some(Alone { tables, remote: None });
    let mut running = sources.runtime.start(job).await?;
    running.scanned = scanned;
    running.stop = Box::new((running.stop, stop, natives.slot.take()));
    Ok(running)
}

/// What a query reads besides natives.
pub(super) struct Others {
    /// Nothing at all.
    pub(super) alone: bool,
    /// Local relations.
    pub(super) set: Arc<GrantSet>,
    /// Rows of other sources.
    pub(super) tables: Vec<Loaded>,
    /// Bytes that may still be moved.
    pub(super) left: u64,
}

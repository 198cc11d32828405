//! One query from the question to its first row.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::frames::WithFrames;
use super::native::Natives;
use super::readable::{CallerSet, CallerSets, HeldSlices};
use super::receipt::Pending;
use super::result::{QueryResult, Report};
use super::runtime::{GrantSet, Isolation, QueryJob, QueryLimits, RunningQuery, Runtime};
use super::{Frame, Query, QueryError, internal, native, remote};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::Generation;
use crate::policy::{NarrowedTables, RowScope};
use crate::rbac::{Principal, ResourceType};
use crate::sandbox::{Checked, Gate, RelationKind, SandboxError};
use crate::scan::Slot;

/// Tables of warehouses that are remembered, and for how long.
const FACTS: u64 = 512;
const FACTS_LIVE: Duration = Duration::from_secs(3600);

/// What an engine keeps to answer queries; started by the first one.
#[derive(Debug)]
pub(crate) struct Queries {
    limits: QueryLimits,
    scratch: PathBuf,
    runtime: RuntimeChoice,
    service: OnceCell<Service>,
    /// What warehouses said of tables that stay there, by name in lower case.
    facts: moka::sync::Cache<String, Arc<crate::connector::WarehouseTable>>,
}

/// Where queries run.
#[derive(Debug)]
pub(crate) enum RuntimeChoice {
    /// There.
    Given(Arc<dyn Runtime>),
    /// As the configuration says.
    Configured(crate::cell::Choice),
}

impl Queries {
    pub(crate) fn new(limits: QueryLimits, scratch: PathBuf, runtime: RuntimeChoice) -> Self {
        let facts = moka::sync::Cache::builder().max_capacity(FACTS).time_to_live(FACTS_LIVE).build();
        Self { limits, scratch, runtime, service: OnceCell::new(), facts }
    }

    /// What warehouses said of tables that stay there.
    pub(super) fn facts(&self) -> &moka::sync::Cache<String, Arc<crate::connector::WarehouseTable>> {
        &self.facts
    }

    /// Forgets what callers may read, so that nothing of it is held.
    pub(crate) fn forget_callers(&self) {
        if let Some(service) = self.service.get() {
            service.sets.forget();
        }
    }

    /// The tables of which `principal` reads a part, as of now.
    pub(crate) async fn narrowed(&self, engine: &Engine, principal: &Principal) -> Result<Arc<NarrowedTables>> {
        let service = self.service().await?;
        Ok(service.sets.of(engine, &service.gate, principal).await?.0.narrowed.clone())
    }

    /// Reads what callers write.
    pub(crate) async fn gate(&self) -> Result<&Gate> {
        Ok(&self.service().await?.gate)
    }

    pub(super) async fn service(&self) -> Result<&Service> {
        self.service
            .get_or_try_init(|| async {
                let runtime = match &self.runtime {
                    RuntimeChoice::Given(runtime) => runtime.clone(),
                    RuntimeChoice::Configured(choice) => choice.start(self.limits, &self.scratch)?,
                };
                Service::start(self.limits, runtime).await
            })
            .await
    }

    /// How far queries are kept apart from this process and from each other.
    pub(crate) async fn isolation(&self) -> Result<Isolation> {
        self.service().await?.runtime.isolation().await
    }

    /// Ends what runs.
    pub(crate) async fn close(&self) {
        if let Some(service) = self.service.get() {
            service.runtime.close().await;
        }
    }
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
    pub(super) runtime: Arc<dyn Runtime>,
    limits: QueryLimits,
    sets: CallerSets,
    total: Arc<Semaphore>,
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// What is known of a query when it is refused or started, for the audit row.
struct Seen {
    action: &'static str,
    relations: Vec<String>,
    generation: u64,
    /// What policies took from the tables it names.
    scope: Vec<RowScope>,
    receipt: Option<Pending>,
}

/// What a caller may ask now, without asking it.
pub(super) struct Look {
    pub(super) checked: Checked,
    pub(super) caller: Arc<CallerSet>,
    pub(super) generation: Arc<Generation>,
    /// Kept for as long as their content may be compared.
    _slices: HeldSlices,
}

/// Reads a query and decides, without running it.
pub(super) async fn look(engine: &Engine, ctx: &CallContext, query: &Query) -> Result<Look> {
    let service = engine.queries().service().await?;
    let (caller, generation) = service.sets.of(engine, &service.gate, ctx.principal()).await?;
    let sql = native::named(engine, &service.gate, &caller, &query.sql).await?;
    let parsed = service.gate.parse(&sql).await?;
    let checked = parsed.resolve(&*caller).map_err(|e| not_yet(e, &caller, ctx))?;
    let names = checked.relations().iter().map(|(name, _)| name.as_str());
    let (caller, slices) = caller.with_slices(engine, names).await?;
    Ok(Look { checked, caller, generation, _slices: slices })
}

/// How a query is asked on behalf of something else.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// Action of the audit row, where it is not the query's own.
    pub(crate) action: Option<&'static str>,
    /// Further facts of the audit row, an object or nothing.
    pub(crate) facts: serde_json::Value,
    /// Wall clock, where it is not that of queries.
    pub(crate) timeout: Option<Duration>,
    /// Told how much was returned; held until the last row.
    pub(crate) slot: Option<Slot>,
}

/// Asks a query: of what the caller may read now, or, once that was compared, of `leased`.
pub(super) async fn query(
    engine: &Engine,
    ctx: &CallContext,
    query: Query,
    leased: Option<Arc<GrantSet>>,
    manner: Manner,
) -> Result<QueryResult> {
    let asked = Instant::now();
    let mut seen = Seen {
        action: "query.local",
        relations: Vec::new(),
        generation: engine.generation().number,
        scope: Vec::new(),
        receipt: None,
    };
    let turn = Turn::OfUser { timeout: manner.timeout, slotted: manner.slot.is_some() };
    let started = begin(engine, ctx, &query, asked, &mut seen, leased, turn).await;
    let started = if seen.scope.is_empty() { started } else { started.map_err(super::error::without_values) };
    let report = Report {
        engine: engine.clone(),
        ctx: ctx.clone(),
        action: manner.action.unwrap_or(seen.action),
        facts: manner.facts,
        sql: query.sql,
        relations: seen.relations,
        generation: seen.generation,
        scope: seen.scope,
        asked,
        runtime: tokio::runtime::Handle::current(),
    };
    let mut report = report;
    let scanned = started.as_ref().ok().and_then(|running| running.scanned);
    if report.facts.is_null() && (scanned.is_some() || !query.frames.is_empty()) {
        report.facts = serde_json::json!({});
    }
    if let Some(bytes) = scanned {
        report.facts["bytes_scanned"] = bytes.into();
    }
    if !query.frames.is_empty() {
        report.facts["frames"] = query.frames.iter().take(20).map(Frame::name).collect();
    }
    match started {
        Ok(running) => Ok(QueryResult::new(running, (query.limit, query.max_bytes), report, seen.receipt, manner.slot)),
        Err(error) => {
            report.write(&Err(error.to_wire().into()), 0, 0, false);
            Err(error)
        }
    }
}

/// Whose turn a query takes.
#[derive(Clone, Copy)]
enum Turn {
    /// One of the caller's, and of all.
    OfUser {
        timeout: Option<Duration>,
        /// Whether a turn among scans is kept already.
        slotted: bool,
    },
    /// One that nobody else may take: however many queries run and wait, it is asked at once.
    OfProbe,
}

/// Asks for one row of a published table, else for a constant, and forgets the answer. It
/// has an instance of its own, so that no query of anybody stands in its way.
pub(crate) async fn probe(engine: &Engine, ctx: &CallContext) -> Result<()> {
    let service = engine.queries().service().await?;
    let (caller, generation) = service.sets.of(engine, &service.gate, ctx.principal()).await?;
    let relations = caller.set.relations.iter();
    let table = relations.filter(|(_, relation)| !relation.blobs.is_empty()).min_by_key(|(name, _)| name.as_str());
    let from = table.map(|(_, relation)| format!(" FROM {}", crate::ident::quote_ident(&relation.name)));
    let query = Query::new(format!("SELECT 1{} LIMIT 1", from.unwrap_or_default()));
    let blobs: Vec<_> = table.iter().flat_map(|(_, relation)| &relation.blobs).collect();
    let set = GrantSet {
        fingerprint: format!("probe {blobs:?}"),
        relations: table.map(|(name, relation)| (name.clone(), relation.clone())).into_iter().collect(),
    };
    let (action, number) = ("query.probe", generation.number);
    let mut seen = Seen { action, relations: Vec::new(), generation: number, scope: Vec::new(), receipt: None };
    let asked = Instant::now();
    let mut running = begin(engine, ctx, &query, asked, &mut seen, Some(Arc::new(set)), Turn::OfProbe).await?;
    while let Some(batch) = running.batches.recv().await {
        batch?;
    }
    Ok(())
}

async fn begin(
    engine: &Engine,
    ctx: &CallContext,
    query: &Query,
    asked: Instant,
    seen: &mut Seen,
    leased: Option<Arc<GrantSet>>,
    turn: Turn,
) -> Result<RunningQuery> {
    let service = engine.queries().service().await?;
    // Who asks comes first: a stranger learns nothing, not even about syntax.
    let (caller, generation) = service.sets.of(engine, &service.gate, ctx.principal()).await?;
    seen.generation = generation.number;
    if query.sql.len() > service.limits.max_sql_bytes {
        return Err(SandboxError::TooLong { bytes: query.sql.len(), limit: service.limits.max_sql_bytes }.into());
    }
    let sql = native::named(engine, &service.gate, &caller, &query.sql).await?;
    let parsed = service.gate.parse(&sql).await?;
    seen.relations = parsed.named().map(|name| crate::ident::printable(name, 128)).take(20).collect();
    let asker = caller.clone();
    let readable = WithFrames::new(&asker, &query.frames, engine.config().remote_query.max_bytes)?;
    let checked = parsed.resolve(&readable).map_err(|e| not_yet(e, &caller, ctx))?;
    let mut sources = checked.relations().iter().filter(|(_, kind)| *kind == RelationKind::Remote);
    let asks_source = sources.any(|(name, _)| !readable.has(name));
    if checked.has(RelationKind::Internal) {
        seen.action = "query.internal";
    } else if asks_source {
        seen.action = "query.remote";
    }
    query.params.check(checked.params())?;
    let names = || checked.relations().iter().map(|(name, _)| name.as_str());
    seen.scope = caller.row_scope(names());
    let usual = if asks_source { service.limits.remote_timeout } else { service.limits.timeout };
    let own = asked
        + match turn {
            Turn::OfUser { timeout: Some(given), .. } => given,
            _ => usual,
        };
    let deadline = ctx.deadline().map_or(own, |deadline| deadline.min(own));
    let permits = match turn {
        Turn::OfUser { .. } => Some(service.permits(ctx.principal().user_id(), deadline).await?),
        Turn::OfProbe => None,
    };
    let sliced = async {
        match leased {
            Some(set) => Ok((Arc::new(CallerSet { set, ..(*caller).clone() }), Vec::new())),
            None => caller.with_slices(engine, names()).await,
        }
    };
    let (caller, slices) = match tokio::time::timeout_at(deadline.into(), sliced).await {
        Ok(made) => made?,
        Err(_) => return Err(QueryError::Timeout { seconds: own.duration_since(asked).as_secs() }.into()),
    };
    if query.receipt {
        let receipt = Pending::begin(engine, ctx, query, &checked, &caller, &generation).await?;
        seen.receipt = Some(receipt);
    }
    let own_slot = !matches!(turn, Turn::OfUser { slotted: true, .. });
    // With the turn go generation and slices: their blobs stay as long as the query reads them.
    let guard = Box::new((permits, generation.clone(), slices));
    let start = |checked: Checked, guard: Box<dyn Send>| -> BoxFuture<'_, Result<RunningQuery>> {
        let (internal, remote) = (checked.has(RelationKind::Internal), checked.has(RelationKind::Remote));
        let (grant_set, params) = (caller.set.clone(), query.params.clone());
        let job = QueryJob { grant_set, query: checked, params, deadline, alone: None, guard };
        if internal {
            return Box::pin(internal::start(engine, &caller, ctx.principal(), &*service.runtime, job));
        }
        if remote {
            let sources = service.sources(engine);
            let (caller, generation, limit, readable) = (&caller, &generation, query.limit, &readable);
            return Box::pin(async move {
                let names = job.query.relations().iter().map(|(name, _)| name.as_str());
                let names = names.filter(|name| !readable.has(name)).collect::<Vec<_>>();
                let natives = Natives::of(engine, ctx, caller, &names, limit, own_slot).await?;
                let tables = readable.tables(job.query.relations());
                remote::start(sources, generation, caller, job, natives, tables).await
            });
        }
        Box::pin(service.runtime.start(job))
    };
    let checked = if parsed.pivots().is_empty() {
        checked
    } else {
        let lookup = |checked: Checked| start(checked, Box::new(()));
        service.expand_pivots(&parsed, &readable, &lookup).await?.resolve(&readable)?
    };
    start(checked, guard).await
}

/// A table that is registered and granted, but has no data yet, is told apart from one that
/// does not exist.
fn not_yet(error: SandboxError, caller: &CallerSet, ctx: &CallContext) -> crate::Error {
    let (SandboxError::RelationDenied { name, .. } | SandboxError::RelationUnknown { name, .. }) = &error else {
        return error.into();
    };
    if let Some(error) = caller.narrowed.blocked.get(&name.to_ascii_lowercase()) {
        return error.clone().into();
    }
    let accessible = caller.access.accessible(ctx.principal(), ResourceType::Table);
    match caller.index.by_name(name) {
        Some(row) if accessible.contains(&row.id.to_lowercase()) => QueryError::NotPublished {
            table: row.name.clone(),
            materialized: row.query_mode == crate::registry::QueryMode::Materialized,
        }
        .into(),
        _ => error.into(),
    }
}

impl Service {
    pub(super) async fn start(limits: QueryLimits, runtime: Arc<dyn Runtime>) -> Result<Self> {
        Ok(Self {
            gate: Gate::start().await?,
            runtime,
            limits,
            sets: CallerSets::new(),
            total: Arc::new(Semaphore::new(limits.total)),
            users: Mutex::new(HashMap::new()),
        })
    }

    /// What a query of remote tables needs besides the job.
    pub(super) fn sources(&self, engine: &Engine) -> remote::Sources {
        remote::Sources {
            policy: crate::orchestrator::AttachPolicy::of(engine.config()),
            secrets: engine.source_secrets(),
            caps: engine.config().remote_query.clone(),
            gate: self.gate.clone(),
            runtime: self.runtime.clone(),
        }
    }

    /// What a caller may read, as of now.
    pub(super) async fn caller(
        &self,
        engine: &Engine,
        principal: &Principal,
    ) -> Result<(Arc<CallerSet>, Arc<Generation>)> {
        self.sets.of(engine, &self.gate, principal).await
    }

    /// A turn for one query of `user`: of theirs first, so that waiting takes nobody else's.
    pub(super) async fn permits(
        &self,
        user: &str,
        deadline: Instant,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let mine = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            match users.get(user).and_then(Weak::upgrade) {
                Some(semaphore) => semaphore,
                None => {
                    users.retain(|_, semaphore| semaphore.strong_count() > 0);
                    let semaphore = Arc::new(Semaphore::new(self.limits.per_user));
                    users.insert(user.to_owned(), Arc::downgrade(&semaphore));
                    semaphore
                }
            }
        };
        let until = deadline.min(Instant::now() + self.limits.wait);
        let turn = |semaphore: Arc<Semaphore>, limit: usize, per_user: bool| async move {
            match tokio::time::timeout_at(until.into(), semaphore.acquire_owned()).await {
                Ok(Ok(permit)) => Ok(permit),
                _ => Err(QueryError::TooMany { limit, per_user }),
            }
        };
        let mine = turn(mine, self.limits.per_user, true).await?;
        let total = turn(self.total.clone(), self.limits.total, false).await?;
        Ok((mine, total))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::query::InProcess;

    #[tokio::test]
    async fn turns_are_limited_per_user_and_in_all() {
        let limits = QueryLimits { per_user: 2, total: 3, wait: Duration::from_millis(30), ..QueryLimits::default() };
        let scratch = tempfile::tempdir().unwrap();
        let runtime = Arc::new(InProcess::new(limits, scratch.path().to_owned()));
        let service = Service::start(limits, runtime).await.unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        let first = service.permits("ann", later).await.unwrap();
        let _second = service.permits("ann", later).await.unwrap();
        assert_eq!(service.permits("ann", later).await.unwrap_err().code(), "too_many_queries");
        let _third = service.permits("bob", later).await.unwrap();
        let full = service.permits("bob", later).await.unwrap_err();
        assert_eq!(full.facts().unwrap()["per_user"], false);
        assert!(full.is_retryable());
        drop(first);
        // One that waits gets its turn.
        let _fourth = service.permits("bob", later).await.unwrap();
        assert!(service.permits("ann", later).await.is_err());
    }
}

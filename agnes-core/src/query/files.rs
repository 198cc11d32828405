//! Queries over files of one's own: the same walls, and nobody to ask for rights.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::future::BoxFuture;

use super::instance::{Instance, open_engine};
use super::runtime::{GrantSet, QueryJob, QueryLimits, RunningQuery};
use super::{Query, QueryError, Receipt, pivot};
use crate::duck::{MemoryConn, MemoryDb};
use crate::error::{Error, Result};
use crate::local::{RowSource, Rows};
use crate::policy::RowScope;
use crate::sandbox::{Gate, Parsed, Readable, RelationKind};

/// Asks queries of files.
#[derive(Debug)]
pub(crate) struct FileQueries {
    gate: Gate,
    limits: QueryLimits,
    scratch: PathBuf,
    /// The engine for the first query.
    first: Mutex<Option<Arc<MemoryDb>>>,
    /// Keeps sweepers from the spill files; none where files cannot be locked.
    asking: Arc<Option<File>>,
}

/// Shared by all who ask, had alone by who sweeps.
const LOCK: &str = ".lock";

/// The file that says who uses a scratch folder, made when missing.
pub(crate) fn lock_file(scratch: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(scratch)?;
    File::options().create(true).truncate(false).write(true).open(scratch.join(LOCK))
}

/// Deletes spill files of processes that are gone; none while anybody asks.
pub(crate) fn sweep_spill(scratch: &Path) {
    let Ok(lock) = File::open(scratch.join(LOCK)) else { return };
    if lock.try_lock().is_ok() {
        crate::orchestrator::sweep_scratch(scratch, std::time::Duration::ZERO);
    }
}

/// Everything in a set may be read.
struct All<'a>(&'a GrantSet);

impl Readable for All<'_> {
    fn find(&self, name: &str) -> Option<RelationKind> {
        self.0.relations.contains_key(name).then_some(RelationKind::Local)
    }
    fn names(&self) -> Vec<&str> {
        self.0.relations.values().map(|relation| relation.name.as_str()).collect()
    }
    fn sees_everything(&self) -> bool {
        true
    }
}

/// What an instance holds besides the files, made before its lock.
pub(crate) type Fill = Box<dyn FnOnce(&MemoryConn, &Arc<MemoryDb>) -> Result<Vec<String>> + Send>;

impl FileQueries {
    pub(crate) async fn start(limits: QueryLimits, scratch: PathBuf) -> Result<Self> {
        // Each takes its time, and a query needs both.
        let folder = scratch.clone();
        let engine = crate::duck::blocking(move || {
            let asking = lock_file(&folder).and_then(|lock| lock.lock_shared().map(|()| lock)).ok();
            Ok((open_engine(false)?, asking))
        });
        let (gate, (first, asking)) = tokio::try_join!(Gate::start_single(), engine)?;
        Ok(Self { gate, limits, scratch, first: Mutex::new(Some(first)), asking: Arc::new(asking) })
    }

    /// Reads a text, which has to be one read-only query.
    pub(crate) async fn parse(&self, sql: &str) -> Result<Arc<Parsed>> {
        self.gate.parse(sql).await
    }

    /// Asks a query of a set of files, of which these hold a part of their table; `guard` is held as
    /// long as they are read.
    pub(crate) async fn ask(
        &self,
        parsed: &Parsed,
        query: Query,
        (set, scope): (GrantSet, &[RowScope]),
        fill: Fill,
        guard: Box<dyn Send>,
    ) -> Result<Rows> {
        let set = Arc::new(set);
        let checked = parsed.resolve(&All(&set))?;
        query.params.check(checked.params())?;
        let deadline = Instant::now() + self.limits.timeout;
        let (limits, scratch, of) = (self.limits, self.scratch.clone(), set.clone());
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = move || {
            let engine = first.map_or_else(|| open_engine(false), Ok)?;
            Instance::lock(engine, of, &limits, &scratch, fill)
        };
        let instance = Arc::new(crate::duck::blocking(open).await?);
        let start = |checked| -> BoxFuture<'static, Result<RunningQuery>> {
            let (instance, grant_set, params) = (instance.clone(), set.clone(), query.params.clone());
            let job = QueryJob { grant_set, query: checked, params, deadline, alone: None, guard: Box::new(()) };
            Box::pin(super::run(instance, job))
        };
        let checked = match parsed.pivots().is_empty() {
            true => checked,
            false => pivot::expand_pivots(&self.gate, parsed, &All(&set), &start).await?.resolve(&All(&set))?,
        };
        let running = start(checked).await?;
        let schema = RowScope::into_schema(scope, &running.schema);
        let left = query.limit;
        let asking = self.asking.clone();
        let held = (instance, asking, guard);
        let rows = FileRows { running: Some(running), schema: schema.clone(), left, truncated: false, _held: held };
        Ok(Rows::of(schema, Box::new(rows)))
    }
}

/// Rows of files, as many as were asked for.
struct FileRows {
    running: Option<RunningQuery>,
    schema: SchemaRef,
    /// How many more are wanted.
    left: Option<usize>,
    truncated: bool,
    /// The spill folder goes with the instance.
    _held: (Arc<Instance>, Arc<Option<File>>, Box<dyn Send>),
}

#[async_trait]
impl RowSource for FileRows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(running) = &mut self.running else { return Ok(None) };
            let batch: RecordBatch = match running.batches.recv().await {
                None => {
                    self.running = None;
                    return Ok(None);
                }
                Some(Err(error)) => {
                    self.running = None;
                    return Err(QueryError::into(error));
                }
                Some(Ok(batch)) => {
                    batch.with_schema(self.schema.clone()).map_err(|e| Error::internal("say what rows are of", e))?
                }
            };
            let Some(left) = self.left else { return Ok(Some(batch)) };
            if batch.num_rows() == 0 {
                continue;
            }
            if batch.num_rows() > left {
                self.truncated = true;
                self.running = None;
                return Ok((left > 0).then(|| batch.slice(0, left)));
            }
            self.left = Some(left - batch.num_rows());
            return Ok(Some(batch));
        }
    }

    fn end(&mut self) -> (bool, Option<Receipt>) {
        (self.truncated, None)
    }
}

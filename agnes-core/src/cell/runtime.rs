//! The [`Runtime`] that runs queries in workers.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::keeper::{Order, keep};
use super::process::{Failure, Guard, Question, Worker};
use super::shelf::Shelf;
use super::wire::{Guarantee, Hooks, Reach};
use crate::error::{Error, Result};
use crate::query::{Alone, GrantSet, Isolation, QueryError, QueryJob, QueryLimits, RunningQuery, Runtime};

/// How long closing waits for workers to be gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How workers are run.
#[derive(Debug, Clone)]
pub struct CellOptions {
    /// Executable whose `main` calls [`super::serve_if_asked`] first.
    pub worker: PathBuf,
    /// Limits of each worker's engine; `instances` is how many grant sets keep a worker.
    pub limits: QueryLimits,
    /// Parent of their spill folders.
    pub scratch: PathBuf,
    /// Folders in which the blobs of all grant sets lie.
    pub blobs: Vec<PathBuf>,
    /// Where extension files lie.
    pub extensions: Option<PathBuf>,
    /// Idle workers kept ready.
    pub warm: usize,
    /// Queries that a worker serves before another takes its place.
    pub recycle_after: u64,
    /// How long a query may take to stop before its worker is ended.
    pub grace: Duration,
    /// How long a grant set that nobody asks keeps its worker.
    pub idle_for: Duration,
    /// Whether to refuse queries where the kernel cannot enforce every guarantee.
    pub strict: bool,
    /// Walls to leave out in tests; without effect but with the feature `testing`.
    pub hooks: Hooks,
}

impl CellOptions {
    /// Those of an engine's defaults: one idle worker, 2 s of grace, a new worker after 10,000
    /// queries or 15 minutes without any.
    #[must_use]
    pub fn new(worker: PathBuf, limits: QueryLimits, scratch: PathBuf, blobs: Vec<PathBuf>) -> Self {
        Self {
            worker,
            limits,
            scratch,
            blobs,
            extensions: None,
            warm: 1,
            recycle_after: 10_000,
            grace: Duration::from_secs(2),
            idle_for: Duration::from_secs(15 * 60),
            strict: false,
            hooks: Hooks::default(),
        }
    }
}

/// Runs queries in confined worker processes. Dropping it ends them.
#[derive(Debug)]
pub struct Cells {
    options: Arc<CellOptions>,
    shelf: Arc<Shelf>,
    /// To the keeper, and its end; gone once closed.
    keeper: Mutex<Option<(Sender<Order>, oneshot::Receiver<()>)>>,
}

impl Cells {
    /// Starts the keeper, and it the idle workers.
    ///
    /// # Errors
    /// I/O errors of folders and threads.
    pub fn start(options: CellOptions) -> Result<Self> {
        let io = |error| Error::io("prepare for query workers", error);
        std::fs::create_dir_all(&options.scratch).map_err(io)?;
        for folder in &options.blobs {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let canary = tempfile::Builder::new().prefix("canary-").tempdir_in(&options.scratch).map_err(io)?;
        std::fs::write(canary.path().join("canary"), "outside every grant set").map_err(io)?;
        let (options, shelf) = (Arc::new(options), Arc::new(Shelf::default()));
        let (orders, inbox) = channel();
        let (ended_in, ended) = oneshot::channel();
        let (kept, weak) = (options.clone(), Arc::downgrade(&shelf));
        std::thread::Builder::new()
            .name("agnes-cells".to_owned())
            .spawn(move || {
                keep(&kept, &canary, &weak, &inbox);
                drop(canary);
                // Whoever closes waits for this, and finds nothing left.
                drop(ended_in);
            })
            .map_err(io)?;
        let _ = orders.send(Order::Fill(orders.clone()));
        Ok(Self { options, shelf, keeper: Mutex::new(Some((orders, ended))) })
    }

    fn orders(&self) -> Result<Sender<Order>, QueryError> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.as_ref().map(|(orders, _)| orders.clone()).ok_or(QueryError::WorkerStart)
    }

    /// A new worker, one that asks sources or an ordinary one.
    async fn spawn(&self, reach: Option<Reach>) -> Result<Arc<Worker>, QueryError> {
        let orders = self.orders()?;
        let (reply, answer) = oneshot::channel();
        let _ = orders.send(Order::Spawn(orders.clone(), reach.map(Box::new), reply));
        let worker = answer.await.map_err(|_| QueryError::WorkerStart)?;
        worker.map_err(|error| {
            tracing::error!(%error, "a worker for queries could not be started");
            QueryError::WorkerStart
        })
    }

    /// A worker that holds nothing yet.
    async fn idle(&self) -> Result<Arc<Worker>, QueryError> {
        let worker = match self.shelf.take_idle() {
            Some(worker) => worker,
            None => self.spawn(None).await?,
        };
        let orders = self.orders()?;
        let _ = orders.send(Order::Fill(orders.clone()));
        Ok(worker)
    }

    /// A worker that holds `set`, and what comes along for one query.
    async fn fresh(&self, set: &GrantSet, alone: Option<Alone>) -> Result<Arc<Worker>> {
        let alone = alone.unwrap_or_default();
        let worker = match &alone.remote {
            Some(remote) => self.spawn(Some(Reach::of(remote))).await?,
            None => self.idle().await?,
        };
        self.check(&worker.ready().await?)?;
        worker.assign(set, alone).await?;
        Ok(worker)
    }

    fn check(&self, missing: &[Guarantee]) -> Result<(), QueryError> {
        if missing.is_empty() || !self.options.strict {
            return Ok(());
        }
        let words: Vec<&str> = missing.iter().map(|guarantee| guarantee.words()).collect();
        Err(QueryError::IsolationMissing { missing: words.join(", ") })
    }

    /// The worker of a grant set.
    async fn worker(&self, set: &GrantSet) -> Result<Arc<Worker>> {
        let slot = self.shelf.slot(&set.fingerprint, self.options.limits.instances);
        let mut held = slot.lock().await;
        if let Some(worker) = held.as_ref().filter(|worker| worker.serves(self.options.recycle_after)) {
            return Ok(worker.clone());
        }
        let worker = self.fresh(set, None).await?;
        *held = Some(worker.clone());
        Ok(worker)
    }

    /// Processes of the workers that hold a grant set, and of idle ones.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn processes(&self) -> (Vec<u32>, Vec<u32>) {
        self.shelf.processes()
    }
}

#[async_trait]
impl Runtime for Cells {
    async fn start(&self, job: QueryJob) -> Result<RunningQuery> {
        let QueryJob { grant_set, query, params, deadline, mut alone, guard } = job;
        let (job, guard) = (Question { query, params, deadline }, Guard::new(Mutex::new(guard)));
        let seconds = job.deadline.saturating_duration_since(Instant::now()).as_millis().div_ceil(1000) as u64;
        let shared = alone.is_none();
        for attempt in 0..2 {
            let alone = alone.take();
            let worker = async {
                // One that lost its worker beside others gets one of its own: were it to blame,
                // nobody else would pay.
                if shared && attempt == 0 { self.worker(&grant_set).await } else { self.fresh(&grant_set, alone).await }
            };
            let worker = match tokio::time::timeout_at(job.deadline.into(), worker).await {
                Ok(worker) => worker?,
                Err(_) => return Err(QueryError::Timeout { seconds }.into()),
            };
            match worker.ask(&job, guard.clone()).await {
                Ok(running) => return Ok(running),
                Err(Failure::Failed(error)) => return Err(error),
                Err(Failure::Lost) if !shared => break,
                Err(Failure::Lost) => tracing::info!(pid = worker.pid, "a query lost its worker before its first row"),
            }
        }
        Err(QueryError::WorkerLost.into())
    }

    async fn isolation(&self) -> Result<Isolation> {
        let worker = self.idle().await?;
        let missing = worker.ready().await?;
        self.shelf.put_idle(worker);
        self.check(&missing)?;
        Ok(Isolation::Process { missing: missing.iter().map(|guarantee| guarantee.words().to_owned()).collect() })
    }

    async fn close(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shelf.clear();
        if let Some((orders, ended)) = keeper {
            drop(orders);
            let _ = tokio::time::timeout(LAST_WORDS, ended).await;
        }
    }
}

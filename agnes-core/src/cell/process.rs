//! One worker process as its parent sees it: its messages, its queries, its end.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

use super::CellOptions;
use super::frame::{self, Frame, Kind};
use super::keeper::Order;
use super::rows::{record_batch, stream};
use super::usage::{Ceilings, bytes_below, processor_time, resident_bytes, yield_to_others};
use super::wire::{Assign, Guarantee, Reach, Ready, Refused, Setup, Sources, Start};
use crate::error::{Coded, Error, Result, WireError};
use crate::query::{Alone, Batches, GrantSet, Params, QueryError, RunningQuery};
use crate::sandbox::Checked;

/// Stack of the threads that pass messages on.
const STACK_BYTES: usize = 512 << 10;
/// A worker is told that rows were taken when they are as many bytes.
pub(super) const TELL_AFTER: u32 = 1 << 20;
/// How long a worker may take to be ready, or to hold what it was assigned.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far a worker has come.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Starting,
    Idle,
    Assigned,
    Gone(QueryError),
}

/// A query as the reader of messages knows it.
struct Entry {
    schema: Option<oneshot::Sender<Result<SchemaRef, Failure>>>,
    rows: Option<mpsc::UnboundedSender<(crate::query::Next, u32)>>,
    /// When it has to end, and how many seconds it was given.
    deadline: Instant,
    seconds: u64,
    /// Processor time of the worker when it was first looked at.
    used: Option<Duration>,
    /// Since when nobody wants it.
    unwanted: Option<Instant>,
    /// Of the job; let go when the query has ended in the engine.
    _guard: Guard,
}

/// A job without what cannot be shared.
pub(super) struct Question {
    pub(super) query: Checked,
    pub(super) params: Params,
    pub(super) deadline: Instant,
}

/// Why a query did not start.
pub(super) enum Failure {
    /// It failed.
    Failed(Error),
    /// Its worker ended for a reason that other queries may have been.
    Lost,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Entry {
    fn fail(&mut self, error: QueryError) {
        if let Some(schema) = self.schema.take() {
            let _ = schema.send(Err(error.clone().into()));
        }
        if let Some(rows) = self.rows.take() {
            let _ = rows.send((Err(error), 0));
        }
    }
}

/// What a job holds until it has ended; shared by its attempts.
pub(super) type Guard = Arc<Mutex<Box<dyn Send>>>;

/// A worker process. Ended when dropped.
pub(super) struct Worker {
    /// Of the process.
    pub(super) pid: u32,
    child: Mutex<Option<(Child, TempDir)>>,
    keeper: Sender<Order>,
    out: Sender<Vec<u8>>,
    phase: watch::Sender<Phase>,
    queries: Mutex<HashMap<u64, Entry>>,
    asked: AtomicU64,
    /// Takes no more queries.
    retired: AtomicBool,
    /// Runs when nobody else wants to.
    yields: AtomicBool,
    missing: Mutex<Vec<Guarantee>>,
    /// Longest message it may send.
    most: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a process. It confines itself and then waits to be assigned. Called by the
    /// keeper's thread: the process ends when the thread that made it does.
    pub(super) fn spawn(
        options: &CellOptions,
        reach: Option<Reach>,
        canary: &TempDir,
        keeper: Sender<Order>,
    ) -> io::Result<Arc<Self>> {
        let spill = tempfile::Builder::new().prefix("cell-").tempdir_in(&options.scratch)?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&options.worker);
        command.arg(super::ARGUMENT).env_clear().current_dir("/");
        // The loader may need it to find the engine; nothing else of the environment crosses.
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", path);
        }
        if reach.is_some()
            && let Some(home) = std::env::var_os("HOME")
        {
            // Extensions that were installed lie below it.
            command.env("HOME", home);
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        drop(command);
        let setup = Setup {
            parent: std::process::id(),
            limits: options.limits,
            spill: spill.path().to_owned(),
            // Who asks sources has no local data.
            blobs: if reach.is_some() { Vec::new() } else { options.blobs.clone() },
            canary: canary.path().join("canary"),
            extensions: options.extensions.clone(),
            reach,
            hooks: options.hooks.clone(),
        };
        let (out, outbox) = channel();
        let worker = Arc::new(Self {
            pid: child.id(),
            child: Mutex::new(Some((child, spill))),
            keeper,
            out,
            phase: watch::Sender::new(Phase::Starting),
            queries: Mutex::default(),
            asked: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            yields: AtomicBool::new(false),
            missing: Mutex::default(),
            most: options.limits.memory_bytes.max(64 << 20),
        });
        worker.send(frame::json(Kind::Setup, 0, &setup)?);
        let (reader, weak) = (ours.try_clone()?, Arc::downgrade(&worker));
        let thread = || std::thread::Builder::new().stack_size(STACK_BYTES);
        thread().name("agnes-cell-out".to_owned()).spawn(move || write(&outbox, &ours))?;
        thread().name("agnes-cell-in".to_owned()).spawn(move || read(reader, &weak))?;
        Ok(worker)
    }

    fn send(&self, bytes: Vec<u8>) {
        // Where the worker is gone, the reader says so to whoever waits.
        let _ = self.out.send(bytes);
    }

    async fn wait_for(&self, reached: impl Fn(&Phase) -> bool) -> Result<(), QueryError> {
        let mut phase = self.phase.subscribe();
        let reached = phase.wait_for(|phase| reached(phase) || matches!(phase, Phase::Gone(_)));
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Gone(why) => Err(why.clone()),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(QueryError::WorkerStart),
            Err(_) => {
                tracing::error!(pid = self.pid, "a worker does not answer");
                self.end(QueryError::WorkerStart);
                Err(QueryError::WorkerStart)
            }
        }
    }

    /// Waits until it is confined; what its kernel cannot enforce.
    pub(super) async fn ready(&self) -> Result<Vec<Guarantee>, QueryError> {
        self.wait_for(|phase| *phase != Phase::Starting).await?;
        Ok(self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Gives it the one grant set it serves from now on.
    pub(super) async fn assign(&self, set: &GrantSet, alone: Alone) -> Result<(), Error> {
        let io = |error: io::Error| Error::internal("assign a worker", error);
        self.ready().await?;
        let loads = alone.tables.iter().map(|table| (table.name.clone(), table.create.clone())).collect();
        let assign = Assign { set: set.clone(), loads, sources: alone.remote.as_ref().map(Sources::of) };
        self.send(frame::json(Kind::Assign, 0, &assign).map_err(io)?);
        for table in &alone.tables {
            let rows = stream(&table.rows).map_err(|e| Error::internal("assign a worker", e))?;
            self.send(frame::finish(Kind::Load, 0, rows));
        }
        Ok(self.wait_for(|phase| *phase == Phase::Assigned).await?)
    }

    /// Whether it is not gone.
    pub(super) fn lives(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Gone(_))
    }

    /// Whether it takes one more query, of `most` in its life.
    pub(super) fn serves(&self, most: u64) -> bool {
        self.lives() && !self.retired.load(Ordering::Relaxed) && self.asked.load(Ordering::Relaxed) < most
    }

    /// Lets it take no more queries; it ends with those it has.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Queries that have not ended.
    pub(super) fn busy(&self) -> usize {
        self.queries().len()
    }

    /// Starts a query; returns when its columns are known.
    pub(super) async fn ask(self: &Arc<Self>, job: &Question, guard: Guard) -> Result<RunningQuery, Failure> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let left = job.deadline.saturating_duration_since(Instant::now());
        let start = Start { query: job.query.to_wire(), params: job.params.clone(), left };
        let start = frame::json(Kind::Start, id, &start).map_err(|e| Error::internal("start a query", e))?;
        let (schema, columns) = oneshot::channel();
        let (rows, batches) = mpsc::unbounded_channel();
        let entry = Entry {
            schema: Some(schema),
            rows: Some(rows),
            deadline: job.deadline,
            seconds: left.as_millis().div_ceil(1000) as u64,
            used: None,
            unwanted: None,
            _guard: guard,
        };
        self.queries().insert(id, entry);
        let stop = Box::new(Stop { id, worker: self.clone() });
        // Looked at after the entry was made: whoever ends the worker later finds the entry.
        if !self.lives() {
            self.queries().remove(&id);
            return Err(Failure::Lost);
        }
        self.send(start);
        let schema = columns.await.map_err(|_| Failure::Lost)??;
        let (weak, untold) = (Arc::downgrade(self), AtomicU32::new(0));
        let taken = Box::new(move |bytes: u32| {
            let bytes = untold.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
            if bytes >= TELL_AFTER
                && let (Some(worker), Ok(credit)) = (weak.upgrade(), frame::json(Kind::Credit, id, &bytes))
            {
                untold.store(0, Ordering::Relaxed);
                worker.send(credit);
            }
        });
        Ok(RunningQuery { schema, batches: Batches::elsewhere(batches, taken), stop, scanned: None })
    }

    fn queries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one message of the worker.
    fn take(&self, message: Frame, schemas: &mut HashMap<u64, SchemaRef>) -> io::Result<()> {
        let Frame { kind, id, .. } = message;
        match kind {
            Kind::Ready => {
                let Ready { missing, checked } = message.json()?;
                // Said before it has read a query; later nothing it says is believed.
                if self.is_starting() {
                    crate::orchestrator::take_over_checked(checked);
                }
                *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
                self.reach(Phase::Idle);
            }
            Kind::Refused => {
                let Refused { guarantee, cause, error } = message.json()?;
                tracing::error!(pid = self.pid, ?guarantee, cause, "a worker will not serve");
                self.end(match guarantee {
                    Some(guarantee) => QueryError::NotConfined { guarantee: guarantee.words() },
                    None => error.map_or(QueryError::WorkerStart, |error| QueryError::Told(Box::new(error))),
                });
            }
            Kind::Assigned => self.reach(Phase::Assigned),
            Kind::Schema => {
                let schema = StreamReader::try_new(&message.body[..], None).map_err(io::Error::other)?.schema();
                schemas.insert(id, schema.clone());
                if let Some(told) = self.queries().get_mut(&id).and_then(|entry| entry.schema.take()) {
                    let _ = told.send(Ok(schema));
                }
            }
            Kind::Rows => {
                let schema = schemas.get(&id).ok_or_else(|| io::Error::other("rows without columns"))?;
                let bytes = u32::try_from(message.body.len()).unwrap_or(u32::MAX);
                let batch = record_batch(message.body, schema).map_err(io::Error::other)?;
                if let Some(rows) = self.queries().get(&id).and_then(|entry| entry.rows.as_ref()) {
                    let _ = rows.send((Ok(batch), bytes));
                }
            }
            Kind::End => drop(self.queries().get_mut(&id).and_then(|entry| entry.rows.take())),
            Kind::Failed => {
                let error: WireError = message.json()?;
                if invalidates(&error) {
                    self.retire();
                }
                if let Some(entry) = self.queries().get_mut(&id) {
                    match entry.schema.take() {
                        // Nothing of it has run: another worker may have room.
                        Some(schema) if has_no_room(&error) => drop(schema.send(Err(Failure::Lost))),
                        schema => {
                            entry.schema = schema;
                            entry.fail(QueryError::Told(Box::new(error)));
                        }
                    }
                }
            }
            Kind::Free => {
                schemas.remove(&id);
                let entry = self.queries().remove(&id);
                if let Some(mut entry) = entry {
                    entry.fail(QueryError::WorkerLost);
                }
            }
            _ => return Err(io::Error::other("a message that is not for the parent")),
        }
        Ok(())
    }

    fn is_starting(&self) -> bool {
        *self.phase.borrow() == Phase::Starting
    }

    fn reach(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let lives = !matches!(phase, Phase::Gone(_));
            if lives {
                *phase = next;
            }
            lives
        });
    }

    /// The process has ended, or is no longer believed.
    fn gone(&self) {
        self.end(QueryError::WorkerLost);
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((child, spill)) = child {
            let _ = self.keeper.send(Order::Bury(child, spill));
        }
        let mut lost = std::mem::take(&mut *self.queries());
        let alone = lost.len() == 1;
        for entry in lost.values_mut() {
            match entry.schema.take() {
                // Which of several brought it down cannot be told.
                Some(schema) if !alone => {
                    let _ = schema.send(Err(Failure::Lost));
                }
                Some(schema) => {
                    let _ = schema.send(Err(QueryError::WorkerLost.into()));
                }
                None => entry.fail(QueryError::WorkerLost),
            }
        }
    }

    /// Looked at now and then: ends what runs past its time, and a worker that grew too large.
    pub(super) fn look(&self, limits: &Ceilings) {
        let now = Instant::now();
        let mut queries = self.queries();
        let alone = queries.len() == 1;
        let (mut stuck, mut long) = (false, false);
        let used = if queries.is_empty() { Duration::ZERO } else { processor_time(self.pid) };
        for entry in queries.values_mut() {
            if now > entry.deadline + limits.grace {
                entry.fail(QueryError::Timeout { seconds: entry.seconds });
                stuck = true;
            }
            // What waits for its turn, or for its reader, is in nobody's way.
            long |= used > *entry.used.get_or_insert(used) + limits.long;
            // Others may go on as long as they have time.
            stuck |= alone && entry.unwanted.is_some_and(|since| now > since + limits.grace);
        }
        let idle = queries.is_empty();
        drop(queries);
        if long && !self.yields.swap(true, Ordering::Relaxed) {
            yield_to_others(self.pid);
            // Short queries of the same grant set go to a worker that need not yield.
            self.retire();
        }
        let resident = resident_bytes(self.pid);
        let spilled = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|(_, spill)| bytes_below(spill.path()));
        if stuck {
            tracing::warn!(pid = self.pid, "a worker did not stop its query and was ended");
            self.end(QueryError::WorkerLost);
        } else if resident > limits.resident {
            tracing::warn!(pid = self.pid, resident, "a worker grew too large and was ended");
            self.end(QueryError::WorkerLost);
        } else if spilled.is_some_and(|bytes| bytes > limits.spill) {
            tracing::warn!(pid = self.pid, spilled, "a worker filled its spill folder and was ended");
            self.end(QueryError::WorkerLost);
        } else if idle && resident > limits.idle {
            self.retire();
        }
    }

    /// Ends the process; whoever waits for it hears `why`.
    pub(super) fn end(&self, why: QueryError) {
        self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Gone(_));
            if first {
                *phase = Phase::Gone(why);
            }
            first
        });
        if let Some((child, _)) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = child.kill();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut child, spill)) = child {
            let _ = child.kill();
            // Waiting for its memory to be given back is not for whoever drops it.
            let _ = self.keeper.send(Order::Bury(child, spill));
        }
    }
}

/// Tells the worker that nobody wants the rows of a query any more.
struct Stop {
    id: u64,
    worker: Arc<Worker>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        let wanted = match self.worker.queries().get_mut(&self.id) {
            Some(entry) => {
                entry.unwanted = Some(Instant::now());
                entry.rows.take().is_some()
            }
            None => false,
        };
        if wanted {
            self.worker.send(frame::empty(Kind::Cancel, self.id));
        }
    }
}

/// Whether the engine that said this cannot be trusted with another query.
fn invalidates(error: &WireError) -> bool {
    let message = error.message.to_ascii_lowercase();
    matches!(error.code.as_str(), "internal" | "engine_error" | "data_missing" | "instance_not_sealed")
        || has_no_room(error)
        || message.starts_with("fatal error")
        || message.starts_with("internal error")
        || message.contains("database has been invalidated")
}

/// Whether it could not even begin.
fn has_no_room(error: &WireError) -> bool {
    error.code == QueryError::WorkerStart.code()
}

fn write(outbox: &Receiver<Vec<u8>>, mut to: &UnixStream) {
    while let Ok(message) = outbox.recv() {
        if frame::write(&mut to, &message).is_err() {
            break;
        }
    }
    // The reader, and the worker, see the end.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn read(from: UnixStream, worker: &Weak<Worker>) {
    // Small, for what is larger than it is read without a copy.
    let mut from = BufReader::with_capacity(2 << 10, from);
    let mut schemas = HashMap::new();
    let most = worker.upgrade().map_or(0, |worker| worker.most);
    let mut next = || {
        let Some(message) = frame::read(&mut from, most)? else { return Ok(false) };
        let Some(worker) = worker.upgrade() else { return Ok(false) };
        worker.take(message, &mut schemas).map(|()| true)
    };
    loop {
        // What a worker sends is not trusted: a decoder that panics over it ends the worker only.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut next)) {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                let error: io::Error = error;
                if error.kind() != io::ErrorKind::ConnectionReset {
                    tracing::error!(%error, "a worker was not understood");
                }
            }
            Err(_) => tracing::error!("a worker sent what cannot be read"),
        }
        break;
    }
    if let Some(worker) = worker.upgrade() {
        worker.gone();
    }
}

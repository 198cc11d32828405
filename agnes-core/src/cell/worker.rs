//! The inside of a worker: confine, prove it, hold one grant set, run its queries.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use arrow::ipc::writer::{
    CompressionContext, DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteOptions, StreamWriter, write_message,
};
use arrow::record_batch::RecordBatch;
use tokio::sync::oneshot;

use super::confine::{self, Missing, Open, Threads};
use super::frame::{self, Frame, HEAD, Kind};
use super::sys;
use super::wire::{Assign, Guarantee, Reach, Ready, Refused, Setup, Start};
use crate::duck::MemoryDb;
use crate::error::{Error, Result, WireError};
use crate::orchestrator::{CheckedFile, checked_files, take_over_checked};
use crate::query::{Alone, GrantSet, Instance, Loaded, QueryError, QueryJob, RunningQuery, Wall, no_thread, run};

/// Longest message to a worker.
const MAX_MESSAGE: u64 = u32::MAX as u64;
/// Bytes of rows of one query that may be on their way.
const WINDOW: u64 = 4 << 20;
/// As many may be on their way before any message, however large: the parent may have taken
/// them and not said so yet.
const UNTOLD: u64 = super::process::TELL_AFTER as u64;
/// A batch larger than this crosses in pieces.
const PIECE: usize = 4 << 20;

/// What it takes to find a host by its name and to trust its certificate.
const NAMES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
];

type Out = Arc<Mutex<File>>;

/// Serves until the parent closes its end; never returns.
pub(super) fn serve() -> ! {
    let code = match start() {
        Ok(()) => 0,
        Err(_) => 1,
    };
    // Engine threads may still run; nothing they do is wanted any more.
    sys::exit_now(code)
}

fn start() -> io::Result<()> {
    sys::close_from(3)?;
    let _ = rustix::process::setsid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // As a file: sockets send and receive by calls that a worker may not make.
    let stream = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut input = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    let out: Out = Arc::new(Mutex::new(stream));
    let Some(first) = frame::read(&mut input, MAX_MESSAGE)? else { return Ok(()) };
    let mut setup: Setup = first.json()?;
    setup.hooks = std::mem::take(&mut setup.hooks).in_force();
    // The parent may have gone before its end could be noticed.
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get().unsigned_abs() != setup.parent) {
        return Ok(());
    }
    let Confined { db, mut threads, missing, checked } = match confine(&setup) {
        Ok(confined) => confined,
        Err((guarantee, cause)) => return refuse(&out, Some(guarantee), cause, None),
    };
    send(&out, &frame::json(Kind::Ready, 0, &Ready { missing: missing.clone(), checked })?)?;
    let Some(next) = frame::read(&mut input, MAX_MESSAGE)? else { return Ok(()) };
    let assign: Assign = next.json()?;
    if let Err((guarantee, cause)) = narrow(&setup, &mut threads, &missing, &assign.set) {
        return refuse(&out, Some(guarantee), cause, None);
    }
    drop(threads);
    let instance = match hold(&setup, db, assign, &mut input) {
        Ok(instance) => Arc::new(instance),
        Err(error) => return refuse(&out, None, error.to_string(), Some(error.to_wire())),
    };
    send(&out, &frame::empty(Kind::Assigned, 0))?;
    // From here on there are more threads; all of them inherit what this one gave up.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("agnes-cell")
        .enable_time()
        .build()?;
    Cell { instance, out, runtime, memory: setup.limits.memory_bytes, queries: Arc::default() }.serve(&mut input)
}

fn refuse(out: &Out, guarantee: Option<Guarantee>, cause: String, error: Option<WireError>) -> io::Result<()> {
    send(out, &frame::json(Kind::Refused, 0, &Refused { guarantee, cause, error })?)
}

fn send(out: &Out, bytes: &[u8]) -> io::Result<()> {
    frame::write(&mut *out.lock().unwrap_or_else(PoisonError::into_inner), bytes)
}

/// A process that gave up what no query needs.
struct Confined {
    db: Arc<MemoryDb>,
    threads: Threads,
    missing: Vec<Guarantee>,
    /// Files of extensions whose signatures were checked on the way.
    checked: Vec<CheckedFile>,
}

/// The base confinement: opens the engine, then gives up everything but the folders of blobs
/// and the spill folder, then tries what must not work.
fn confine(setup: &Setup) -> Result<Confined, Missing> {
    let engine = |error: &dyn std::fmt::Display| (Guarantee::Files, format!("open the engine: {error}"));
    if let Some(folder) = &setup.extensions {
        crate::duck::look_for_extensions_in(folder);
    }
    let known = setup.reach.as_ref().and_then(|reach| reach.checked.clone());
    let is_known = known.is_some();
    take_over_checked(known.into_iter().flatten());
    let db = crate::query::open_engine(is_known).map_err(|e| engine(&e))?;
    let conn = db.connect().map_err(|e| engine(&e))?;
    conn.execute(crate::duck::utc()).map_err(|e| engine(&e))?;
    drop(conn);
    for extension in setup.reach.iter().flat_map(|reach| &reach.extensions) {
        let policy = setup.reach.as_ref().map(|reach| &reach.policy);
        // One that is missing is told when the source is attached.
        let load = |conn: &_| policy.map(|policy| crate::orchestrator::load_extension(conn, extension, policy));
        let _ = db.with_connection(load).map_err(|e| engine(&e))?;
    }
    let now = setup.reach.as_ref().filter(|_| !is_known).and_then(|r| checked_files(&r.extensions, &r.policy));
    let mut threads = Threads::open().map_err(|e| engine(&e))?;
    confine::limit(setup)?;
    confine::seal_process()?;
    threads.check_alone()?;
    let network = setup.reach.as_ref().is_some_and(Reach::network);
    let mut missing = Vec::new();
    if !setup.hooks.no_landlock {
        let mut open = opened(setup, setup.blobs.iter());
        open.read.push(&setup.canary);
        missing = confine::narrow(&open)?;
        if !network {
            // No socket is made at all: the filter sees to it.
            missing.retain(|guarantee| *guarantee != Guarantee::Ports);
        }
    }
    if setup.hooks.older_kernel {
        missing.push(Guarantee::Truncation);
    }
    if !setup.hooks.no_seccomp {
        confine::filter(network)?;
    }
    confine::probe_base(network, &missing, &setup.canary)?;
    Ok(Confined { db, threads, missing, checked: now.unwrap_or_default() })
}

/// What a Landlock layer leaves open, besides these blobs.
fn opened<'a>(setup: &'a Setup, blobs: impl Iterator<Item = &'a PathBuf>) -> Open<'a> {
    let mut read: Vec<_> = blobs.map(PathBuf::as_path).collect();
    let mut ports = Vec::new();
    if let Some(reach) = &setup.reach {
        read.extend(reach.files.iter().map(PathBuf::as_path));
        if reach.network() {
            read.extend(NAMES.iter().map(Path::new));
            ports.extend(&reach.ports);
            // Of names, where an answer is too long for a datagram.
            ports.push(53);
        }
    }
    Open { read, write: vec![&setup.spill], connect: Some(ports) }
}

/// Gives up every blob outside the grant set.
fn narrow(setup: &Setup, threads: &mut Threads, missing: &[Guarantee], set: &GrantSet) -> Result<(), Missing> {
    threads.check_alone()?;
    let blobs: Vec<_> = set.relations.values().flat_map(|relation| relation.blobs.iter().cloned()).collect();
    if !setup.hooks.no_landlock && !setup.hooks.no_narrowing {
        confine::narrow(&opened(setup, blobs.iter()))?;
    }
    confine::probe_narrowed(missing, &setup.canary, &blobs)
}

/// An instance of the grant set, with the rows that come along.
fn hold(setup: &Setup, db: Arc<MemoryDb>, assign: Assign, input: &mut BufReader<File>) -> Result<Instance> {
    let unreadable = |cause: &dyn std::fmt::Display| Error::internal("load rows in a worker", cause.to_string());
    let Assign { set, loads, sources } = assign;
    let mut alone = Alone::default();
    for (name, create) in loads {
        let Some(Frame { body, .. }) = frame::read(input, MAX_MESSAGE).map_err(|e| unreadable(&e))? else {
            return Err(unreadable(&"the parent has gone"));
        };
        let mut rows = Vec::new();
        if !body.is_empty() {
            let stream = arrow::ipc::reader::StreamReader::try_new(&body[..], None).map_err(|e| unreadable(&e))?;
            rows = stream.collect::<arrow::error::Result<_>>().map_err(|e| unreadable(&e))?;
        }
        alone.tables.push(Loaded { name, create, rows });
    }
    if let (Some(sources), Some(reach)) = (sources, &setup.reach) {
        alone.remote = Some(sources.into_attached(reach.policy.clone()));
    }
    let wall = if setup.hooks.no_engine_wall { Wall::Open } else { Wall::Closed };
    Instance::seal(db, Arc::new(set), &setup.limits, &setup.spill, wall, |conn, db| alone.fill(conn, db))
}

/// A worker at work.
struct Cell {
    instance: Arc<Instance>,
    out: Out,
    runtime: tokio::runtime::Runtime,
    memory: u64,
    queries: Arc<Mutex<HashMap<u64, Asked>>>,
}

/// A query as the reader of messages knows it.
struct Asked {
    credit: Arc<Credit>,
    /// Ends it when dropped, as long as its columns are not known.
    _cancel: oneshot::Sender<()>,
    /// Ends it when dropped, from then on.
    stop: Option<Box<dyn Send + Sync>>,
}

/// How many bytes of rows may be sent.
#[derive(Default)]
struct Credit {
    /// Bytes on their way, and whether anybody still wants more.
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Credit {
    fn change(&self, change: impl FnOnce(&mut (u64, bool))) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until `bytes` may be sent; an error when that is never, or not in time.
    fn take(&self, bytes: u64, deadline: Instant, seconds: u64) -> Result<(), QueryError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.1 {
                return Err(QueryError::Cancelled);
            }
            if state.0 < UNTOLD || state.0 + bytes <= WINDOW {
                state.0 += bytes;
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QueryError::Timeout { seconds });
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Tells the parent that nothing of a query is left, when the last holder drops it.
struct Tell(u64, Out);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = send(&self.1, &frame::empty(Kind::Free, self.0));
    }
}

impl Cell {
    fn serve(self, input: &mut BufReader<File>) -> io::Result<()> {
        while let Some(message) = frame::read(input, MAX_MESSAGE)? {
            match message.kind {
                Kind::Start => self.start(message.id, message.json()?)?,
                Kind::Credit => {
                    let bytes: u64 = message.json()?;
                    let queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(asked) = queries.get(&message.id) {
                        asked.credit.change(|(away, _)| *away = away.saturating_sub(bytes));
                    }
                }
                Kind::Cancel => {
                    let asked = self.queries.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.id);
                    if let Some(asked) = asked {
                        asked.credit.change(|(_, unwanted)| *unwanted = true);
                    }
                }
                _ => return Err(io::Error::other("a message that is not for a worker")),
            }
        }
        Ok(())
    }

    /// Runs a query on a thread of its own.
    fn start(&self, id: u64, start: Start) -> io::Result<()> {
        let deadline = Instant::now() + start.left;
        let tell = Arc::new(Tell(id, self.out.clone()));
        let job = QueryJob {
            grant_set: Arc::new(GrantSet { fingerprint: String::new(), relations: Default::default() }),
            query: start.query.into_checked(),
            params: start.params,
            deadline,
            alone: None,
            guard: Box::new(tell.clone()),
        };
        let (cancel, cancelled) = oneshot::channel();
        let credit = Arc::new(Credit::default());
        let asked = Asked { credit: credit.clone(), _cancel: cancel, stop: None };
        self.queries.lock().unwrap_or_else(PoisonError::into_inner).insert(id, asked);
        let query = Query {
            id,
            deadline,
            seconds: start.left.as_millis().div_ceil(1000) as u64,
            memory: self.memory,
            credit,
            out: self.out.clone(),
            queries: self.queries.clone(),
        };
        let (instance, handle) = (self.instance.clone(), self.runtime.handle().clone());
        let told = tell.clone();
        let thread = std::thread::Builder::new().name("agnes-rows".to_owned()).spawn(move || {
            let outcome = query.run(&handle, instance, job, cancelled);
            let last = match outcome {
                Ok(()) => Ok(frame::empty(Kind::End, id)),
                Err(error) => frame::json(Kind::Failed, id, &error.to_wire()),
            };
            query.queries.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            let _ = last.and_then(|last| send(&query.out, &last));
            drop(tell);
        });
        if let Err(error) = thread {
            self.queries.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            send(&self.out, &frame::json(Kind::Failed, id, &Error::from(no_thread(error)).to_wire())?)?;
        }
        drop(told);
        Ok(())
    }
}

/// A query as the thread that sends its rows knows it.
struct Query {
    id: u64,
    deadline: Instant,
    seconds: u64,
    memory: u64,
    credit: Arc<Credit>,
    out: Out,
    queries: Arc<Mutex<HashMap<u64, Asked>>>,
}

impl Query {
    fn run(
        &self,
        handle: &tokio::runtime::Handle,
        instance: Arc<Instance>,
        job: QueryJob,
        cancelled: oneshot::Receiver<()>,
    ) -> Result<()> {
        let running = handle.block_on(async {
            tokio::select! {
                running = run(instance, job) => running,
                _ = cancelled => Err(QueryError::Cancelled.into()),
            }
        });
        let RunningQuery { schema, batches: mut rows, stop, .. } = running?;
        match self.queries.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&self.id) {
            Some(asked) => asked.stop = Some(stop),
            None => drop(stop),
        }
        let broken = |error: arrow::error::ArrowError| Error::internal("encode rows", error);
        let gone = |error: io::Error| Error::internal("send rows", error);
        let head = StreamWriter::try_new(vec![0; HEAD], &schema).and_then(StreamWriter::into_inner).map_err(broken)?;
        send(&self.out, &frame::finish(Kind::Schema, self.id, head)).map_err(gone)?;
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let (mut tracker, mut compression) = (DictionaryTracker::new(false), CompressionContext::default());
        let mut head = Vec::new();
        while let Some(batch) = rows.blocking_recv() {
            let batch = batch?;
            for piece in self.pieces(&batch)? {
                let encoded = generator.encode(&piece, &mut tracker, &options, &mut compression);
                let (_, EncodedData { ipc_message, arrow_data }) = encoded.map_err(broken)?;
                head.clear();
                head.resize(HEAD, 0);
                // The columns follow from where they are: they are most of it.
                let about = EncodedData { ipc_message, arrow_data: Vec::new() };
                write_message(&mut head, about, &options).map_err(broken)?;
                let length = head.len() - HEAD + arrow_data.len();
                frame::fill_head(Kind::Rows, self.id, length, &mut head);
                self.credit.take(length as u64, self.deadline, self.seconds)?;
                let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
                frame::write_both(&*out, &head, &arrow_data).map_err(gone)?;
            }
        }
        Ok(())
    }

    /// The batch in pieces that are not too large to wait in memory.
    fn pieces(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>, QueryError> {
        let size = batch.get_array_memory_size();
        if size as u64 > self.memory / 4 {
            return Err(QueryError::OutOfMemory);
        }
        let count = size.div_ceil(PIECE).clamp(1, batch.num_rows().max(1));
        let rows = batch.num_rows().div_ceil(count).max(1);
        Ok((0..count)
            .map(|n| (n * rows).min(batch.num_rows()))
            .map(|from| batch.slice(from, rows.min(batch.num_rows() - from)))
            .filter(|piece| count == 1 || piece.num_rows() > 0)
            .collect())
    }
}

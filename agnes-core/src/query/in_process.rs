//! Runs queries in this process: a bounded cache of locked instances, one thread a query.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::QueryError;
use super::instance::Instance;
use super::plain::Plain;
use super::runtime::{GrantSet, Isolation, QueryJob, QueryLimits, RunningQuery, Runtime};
use super::scrub::{engine_words, scrub};
use super::threads::run_apart;
use crate::duck::{EngineFailure, MemoryConn, Stream, StreamInterrupter, failure_of_words};
use crate::error::{Error, Result};
use crate::sandbox::RelationKind;

/// Batches between engine and reader.
const CHANNEL: usize = 4;
/// What the engine's threads may make ahead of who reads. With its own 1 MB the second thread
/// waits for the first at every few rows; this holds most of a row group. Of text it counts 16
/// bytes a value, so results whose first rows are wide get the little.
const AHEAD: &str = "SET streaming_buffer_size='64MB'";
const HARDLY_AHEAD: &str = "SET streaming_buffer_size='1MB'";
/// Bytes of a wide row, rows that tell, and how long their query may have taken to be begun again.
const WIDE: usize = 512;
const TELLING: usize = 64;
const AGAIN: Duration = Duration::from_millis(500);
/// An interrupt that meets the engine between two steps is lost, so it is repeated.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(50);

/// Runs queries in this process.
///
/// The walls against files, network and settings stand; what is missing is the ceiling that
/// only a process has: one function call may use more memory than the limit, and is stopped
/// only when it returns.
pub struct InProcess {
    limits: QueryLimits,
    scratch: PathBuf,
    instances: moka::sync::Cache<String, Arc<Instance>>,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl InProcess {
    /// Spill folders go below `scratch`.
    #[must_use]
    pub fn new(limits: QueryLimits, scratch: PathBuf) -> Self {
        let instances = moka::sync::Cache::builder()
            .max_capacity(limits.instances as u64)
            .time_to_idle(Duration::from_secs(15 * 60))
            .build();
        Self { limits, scratch, instances }
    }

    async fn instance(&self, set: &Arc<GrantSet>) -> Result<Arc<Instance>> {
        let key = &set.fingerprint;
        if let Some(instance) = self.instances.get(key) {
            return Ok(instance);
        }
        let (cache, key, set) = (self.instances.clone(), key.clone(), set.clone());
        let (limits, scratch) = (self.limits, self.scratch.clone());
        crate::duck::blocking(move || {
            cache
                .try_get_with(key, || Instance::open(set, &limits, &scratch, |_, _| Ok(Vec::new())).map(Arc::new))
                .map_err(|e: Arc<Error>| e.to_wire().into())
        })
        .await
    }
}

#[async_trait]
impl Runtime for InProcess {
    async fn start(&self, mut job: QueryJob) -> Result<RunningQuery> {
        let instance = match job.alone.take() {
            None => self.instance(&job.grant_set).await?,
            Some(alone) => {
                let (set, limits, scratch) = (job.grant_set.clone(), self.limits, self.scratch.clone());
                let open = move || Instance::open(set, &limits, &scratch, |conn, db| alone.fill(conn, db));
                Arc::new(crate::duck::blocking(open).await?)
            }
        };
        run(instance, job).await
    }

    async fn isolation(&self) -> Result<Isolation> {
        Ok(Isolation::InProcess)
    }
}

const RUNS: u8 = 0;
const STOPPED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// How a running query is told to end, and why it was.
#[derive(Debug, Default)]
struct Control {
    why: AtomicU8,
    done: AtomicBool,
}

impl Control {
    fn end(&self, why: u8) {
        let _ = self.why.compare_exchange(RUNS, why, Ordering::SeqCst, Ordering::SeqCst);
    }
    fn check(&self, seconds: u64) -> Result<(), QueryError> {
        match self.why.load(Ordering::SeqCst) {
            STOPPED => Err(QueryError::Cancelled),
            TIMED_OUT => Err(QueryError::Timeout { seconds }),
            _ => Ok(()),
        }
    }
}

/// Ends the query when dropped.
struct Stop(Arc<Control>, #[expect(dead_code, reason = "wakes the watcher when dropped")] oneshot::Sender<()>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.end(STOPPED);
    }
}

/// Where memory or threads have run out, another worker may still have them.
pub(crate) fn no_thread(error: std::io::Error) -> QueryError {
    tracing::warn!(%error, "a thread for a query could not be started");
    QueryError::WorkerStart
}

/// Runs `job` on `instance`; returns when the columns are known.
pub(crate) async fn run(instance: Arc<Instance>, job: QueryJob) -> Result<RunningQuery> {
    let control = Arc::new(Control::default());
    let (batches_in, batches) = mpsc::channel(CHANNEL);
    let (schema_in, schema_out) = oneshot::channel();
    let (interrupt_in, interrupt_out) = oneshot::channel();
    let (stop_in, stopped) = oneshot::channel();
    let deadline = job.deadline;
    let seconds = (deadline.saturating_duration_since(Instant::now()).as_millis().div_ceil(1000)) as u64;
    let watched = control.clone();
    let work = Work { control: control.clone(), seconds, interrupt_in, schema_in, batches_in };
    let last = work.batches_in.clone();
    run_apart(move || {
        work.run(&instance, job);
        // Who reads the last row may leave at once: its engine goes before the rows end.
        drop(instance);
        drop(last);
    })
    .map_err(no_thread)?;
    tokio::spawn(watch(watched, deadline, interrupt_out, stopped));
    let stop = Box::new(Stop(control, stop_in));
    let schema: SchemaRef = schema_out.await.map_err(|_| Error::internal("run a query", "its thread is gone"))??;
    Ok(RunningQuery { schema, batches: batches.into(), stop, scanned: None })
}

/// Interrupts the engine when the deadline passes or the reader has gone.
async fn watch(
    control: Arc<Control>,
    deadline: Instant,
    interrupter: oneshot::Receiver<StreamInterrupter>,
    stopped: oneshot::Receiver<()>,
) {
    // Gone without one: the query failed before it began.
    let Ok(interrupter) = interrupter.await else { return };
    tokio::select! {
        () = tokio::time::sleep_until(deadline.into()) => control.end(TIMED_OUT),
        _ = stopped => {}
    }
    while !control.done.load(Ordering::SeqCst) {
        interrupter.interrupt();
        tokio::time::sleep(INTERRUPT_AGAIN).await;
    }
}

struct Work {
    control: Arc<Control>,
    seconds: u64,
    interrupt_in: oneshot::Sender<StreamInterrupter>,
    schema_in: oneshot::Sender<Result<SchemaRef>>,
    batches_in: mpsc::Sender<Result<RecordBatch, QueryError>>,
}

impl Work {
    fn run(self, instance: &Instance, job: QueryJob) {
        let done = Done(self.control.clone());
        let conn = match instance.connect(&job.query) {
            Ok(conn) => conn,
            Err(e) => return drop(self.schema_in.send(Err(e))),
        };
        let _ = self.interrupt_in.send(conn.interrupter());
        let refuse = |failure: EngineFailure| {
            tracing::debug!(cause = failure.words(), "a query failed");
            let remote = job.query.relations().iter().find(|(_, kind)| *kind == RelationKind::Remote);
            let error = match (engine_words(failure.words()), remote) {
                // What a source says may hold its address and names that are nobody's business.
                (QueryError::DataMissing | QueryError::Failed { code: "query_failed", .. }, Some((table, _))) => {
                    tracing::warn!(table, cause = %scrub(failure.words()), "a source refused a query");
                    QueryError::Remote { table: table.clone() }
                }
                (error, _) => error,
            };
            self.control.check(self.seconds).err().unwrap_or(error)
        };
        let ended = || self.control.check(self.seconds).is_err();
        // What a source sends comes in small pieces.
        let here = job.query.relations().iter().all(|(_, kind)| *kind == RelationKind::Local);
        let ahead = instance.ahead && here && !job.query.relations().is_empty();
        let (mut stream, mut first) = match begin(&conn, &job, ahead) {
            Ok(begun) => begun,
            Err(failure) => {
                let failure = in_full(&conn, &job, failure, &ended);
                return drop(self.schema_in.send(Err(refuse(failure).into())));
            }
        };
        let plain = Plain::of(&stream.schema());
        if self.schema_in.send(Ok(plain.schema())).is_err() {
            return;
        }
        let failed = loop {
            if let Err(ended) = self.control.check(self.seconds) {
                break Some(Err(ended));
            }
            let next = match first.take().map_or_else(|| stream.next(), |first| Ok(Some(first))) {
                Ok(Some(batch)) if job.query.is_explain() => scrub_plan(&batch),
                Ok(Some(batch)) => match plain.rows(batch) {
                    Ok(batch) => batch,
                    Err(e) => break Some(Ok(failure_of_words("read rows", e.to_string()))),
                },
                Ok(None) => break None,
                Err(failure) => break Some(Ok(failure)),
            };
            if self.batches_in.blocking_send(Ok(next)).is_err() {
                break None;
            }
        };
        drop(stream);
        if let Some(failed) = failed {
            let error = match failed {
                Ok(failure) => refuse(in_full(&conn, &job, failure, &ended)),
                Err(stopped) => stopped,
            };
            let _ = self.batches_in.blocking_send(Err(error));
        }
        drop(conn);
        drop(done);
        drop(job.guard);
    }
}

/// Starts the query; with its first rows, where the engine reads `ahead` and they had to be looked at.
fn begin<'c>(
    conn: &'c MemoryConn,
    job: &QueryJob,
    ahead: bool,
) -> Result<(Stream<'c>, Option<RecordBatch>), EngineFailure> {
    if !ahead {
        return Ok((start(conn, job)?, None));
    }
    conn.execute(AHEAD)?;
    let began = Instant::now();
    let mut stream = start(conn, job)?;
    let first = stream.next()?;
    if first.as_ref().is_some_and(is_wide) && began.elapsed() < AGAIN {
        drop(stream);
        conn.execute(HARDLY_AHEAD)?;
        return Ok((start(conn, job)?, None));
    }
    Ok((stream, first))
}

/// What went wrong. A thread of the engine that fails interrupts the others, and the one
/// that reads may tell of the interruption alone: then the query runs once more for the
/// words, its rows unread. `ended` tells that it was stopped.
fn in_full(conn: &MemoryConn, job: &QueryJob, failure: EngineFailure, ended: &dyn Fn() -> bool) -> EngineFailure {
    let lost = |f: &EngineFailure| engine_words(f.words()) == QueryError::Cancelled;
    if !lost(&failure) || ended() {
        return failure;
    }
    let again = start(conn, job).and_then(|mut stream| {
        while !ended() && stream.next()?.is_some() {}
        Ok(())
    });
    let said = again.err().filter(|f| !lost(f));
    said.unwrap_or_else(|| failure_of_words("run the query", "the query failed while it ran".to_owned()))
}

/// Says that nothing is left to interrupt, also when the thread unwinds.
struct Done(Arc<Control>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::SeqCst);
    }
}

fn start<'c>(conn: &'c MemoryConn, job: &QueryJob) -> Result<Stream<'c>, EngineFailure> {
    let sql = job.query.sql();
    let explained;
    let text = if job.query.is_explain() {
        // The query was checked as a whole; a word in front of it changes nothing inside.
        explained = format!("EXPLAIN {sql}");
        &explained
    } else {
        sql
    };
    if job.query.is_unguarded() {
        conn.execute(sql)?;
        return conn.stream("SELECT 1", &|_| None);
    }
    conn.stream(text, &|name| job.params.get(name).map(super::Value::bind))
}

fn is_wide(batch: &RecordBatch) -> bool {
    let size = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX / 64);
    batch.num_rows() >= TELLING && batch.columns().iter().map(size).sum::<usize>() > WIDE * batch.num_rows()
}

/// A plan without file names.
fn scrub_plan(batch: &RecordBatch) -> RecordBatch {
    use arrow::array::{AsArray, StringArray};
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| match column.as_string_opt::<i32>() {
            Some(texts) => {
                let scrubbed: StringArray =
                    (0..texts.len()).map(|n| texts.is_valid(n).then(|| scrub(texts.value(n)))).collect();
                Arc::new(scrubbed) as ArrayRef
            }
            None => column.clone(),
        })
        .collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap_or_else(|_| RecordBatch::new_empty(batch.schema()))
}

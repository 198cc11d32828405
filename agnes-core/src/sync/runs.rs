//! What people ask of a sync: run it, follow it, stop it, read what happened.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    Job, JobError, JobState, NewJob, RunProgress, SyncHistory, SyncOutcome, SyncRequest, SyncRun, SyncState,
    TableStatus,
};
use crate::connector::{Cancel, Progress};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::registry::{QueryMode, RegistryError};

/// Kind of the jobs that are sync runs.
pub const SYNC_JOB: &str = "sync";

/// How long a run counts as going on once it was triggered, however short it is: whoever
/// triggered it asks again and again whether it does.
const HOLD: Duration = Duration::from_secs(30);

/// How long a worker may be silent before another takes its job over.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Runs of earlier processes that are looked at for what their sources asked: each that goes by the
/// schedule tells it again.
const RECALLED: usize = 20;

/// The runs that are going on in this process.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    busy: Arc<Mutex<BTreeSet<String>>>,
    cancels: Mutex<HashMap<String, Cancel>>,
    progress: Arc<Mutex<HashMap<String, RunProgress>>>,
    background: Mutex<tokio::task::JoinSet<()>>,
    stopping: AtomicBool,
    /// When a run was last started in the background.
    triggered: Mutex<Option<Instant>>,
    /// Tables of runs that ended, as [`TableStatus::ALL`] names how.
    counted: [AtomicU64; 4],
    /// Tables whose source asked to be left alone, and until when.
    asked: Mutex<HashMap<String, DateTime<Utc>>>,
    /// Set once those of earlier processes are among them.
    recalled: tokio::sync::OnceCell<()>,
}

/// Sources that nobody else may touch until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    busy: Arc<Mutex<BTreeSet<String>>>,
    sources: Vec<String>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for source in &self.sources {
            busy.remove(source);
        }
    }
}

/// A run whose progress is kept until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    all: Arc<Mutex<HashMap<String, RunProgress>>>,
    id: String,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Runs {
    /// Keeps how far the run `id` is, for whoever asks after it, and hands its events on to `told`.
    pub(crate) fn watch(&self, id: &str, told: Progress) -> (Watched, Progress) {
        let watched = Watched { all: self.progress.clone(), id: id.to_owned() };
        watched.all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), RunProgress::default());
        let (all, id) = (watched.all.clone(), watched.id.clone());
        let progress = Progress::to(move |event| {
            if let Some(run) = all.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
                run.take(&event);
            }
            told.report(event);
        });
        (watched, progress)
    }

    /// A run as it is kept, with how far it is.
    fn run_of(&self, job: Job) -> SyncRun {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(&job.id).cloned();
        SyncRun { progress: progress.filter(|_| job.finished_at.is_none()), ..job.into() }
    }

    /// Takes all of `sources` or none: one run at a time per source.
    pub(crate) fn reserve(&self, sources: &[String]) -> Result<Reservation> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = sources.iter().find(|source| busy.contains(*source)) {
            return Err(JobError::InProgress { source_name: taken.clone() }.into());
        }
        busy.extend(sources.iter().cloned());
        Ok(Reservation { busy: self.busy.clone(), sources: sources.to_vec() })
    }

    /// Whether some source is being synced, or was asked to be just now.
    pub(crate) fn is_busy(&self) -> bool {
        let triggered = *self.triggered.lock().unwrap_or_else(PoisonError::into_inner);
        triggered.is_some_and(|at| at.elapsed() < HOLD)
            || !self.busy.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Until when the source of a table asked to be left alone, if that has not passed.
    pub(super) fn asked(&self, table: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(table).copied().filter(|until| *until > now)
    }

    /// Keeps that the source of a table asked to be left alone `until` then; none where it did not.
    pub(super) fn keep_asked(&self, table: &str, until: Option<DateTime<Utc>>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => drop(asked.insert(table.to_owned(), until)),
            None => drop(asked.remove(table)),
        }
    }

    /// Counts how the tables of a run fared.
    pub(crate) fn count(&self, outcome: &SyncOutcome) {
        for (status, counted) in TableStatus::ALL.iter().zip(&self.counted) {
            let tables = outcome.tables.iter().filter(|table| table.status == *status).count();
            counted.fetch_add(tables as u64, Ordering::Relaxed);
        }
    }

    /// Whether the engine is being closed.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Runs `work` until it ends, also when nobody waits for it; closing waits for it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.is_stopping() {
            return;
        }
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        while background.try_join_next().is_some() {}
        background.spawn(work);
    }

    /// Ends every run and waits for it.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        loop {
            for cancel in self.cancels.lock().unwrap_or_else(PoisonError::into_inner).values() {
                cancel.cancel();
            }
            let mut running = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
            if running.is_empty() {
                return;
            }
            while running.join_next().await.is_some() {}
        }
    }

    /// What ends the job `id`; cancelled at once where the engine is being closed.
    pub(crate) fn begin(&self, id: &str) -> Cancel {
        let cancel = Cancel::default();
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), cancel.clone());
        if self.is_stopping() {
            cancel.cancel();
        }
        cancel
    }

    pub(crate) fn end(&self, id: &str) {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Cancels a run nobody waits for any more; a run that ended is not touched.
struct CancelOnDrop<'a> {
    runs: &'a Runs,
    id: &'a str,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(cancel) = self.runs.cancels.lock().unwrap_or_else(PoisonError::into_inner).get(self.id) {
            cancel.cancel();
        }
    }
}

/// The sync runs of an engine. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Sync<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// What sources asked earlier processes holds for this one.
    pub(super) async fn recall_asked(&self) -> Result<()> {
        let recalled = self.sync_runs().recalled.get_or_try_init(|| async {
            let ended = [JobState::Succeeded, JobState::Failed];
            let mut told = BTreeSet::new();
            for job in self.store().jobs().list(Some(SYNC_JOB), &ended, RECALLED).await? {
                let outcome = job.outcome.and_then(|outcome| serde_json::from_value::<SyncOutcome>(outcome).ok());
                for table in outcome.into_iter().flat_map(|outcome| outcome.tables) {
                    // One that was left out for another reason tells nothing.
                    let tells = table.asked_until.is_some() || table.status != TableStatus::Skipped;
                    if tells && told.insert(table.table.clone()) && table.asked_until.is_some() {
                        self.sync_runs().keep_asked(&table.table, table.asked_until);
                    }
                }
            }
            Ok(())
        });
        recalled.await.copied()
    }

    /// Sync runs.
    #[must_use]
    pub fn sync(&self) -> Sync<'_> {
        Sync { engine: self }
    }
}

impl Sync<'_> {
    /// How many tables fared how, in runs of this process that ended: a figure for whoever watches
    /// it, without names.
    #[must_use]
    pub fn counted(&self) -> [(TableStatus, u64); 4] {
        let counted = &self.engine.sync_runs().counted;
        std::array::from_fn(|n| (TableStatus::ALL[n], counted[n].load(Ordering::Relaxed)))
    }

    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    /// Runs a sync and waits for its end. Runs that an earlier process left unfinished are
    /// finished first. Dropping the future cancels the run, which still ends in good order.
    ///
    /// # Errors
    /// `sync_already_in_progress`, `table_not_found`, `source_not_found`, `admin_required`.
    /// Tables that fail are in the outcome.
    pub async fn run(&self, ctx: &CallContext, request: SyncRequest, progress: Progress) -> Result<SyncRun> {
        self.admin(ctx).await?;
        self.finish_leftovers(progress.clone()).await?;
        let (job, reserved) = self.enqueue(ctx, request).await?;
        let (engine, id) = (self.engine.clone(), job.id.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        self.engine.sync_runs().spawn(async move {
            let _ = tell.send(engine.execute_sync(&id, reserved, progress).await);
        });
        let watched = CancelOnDrop { runs: self.engine.sync_runs(), id: &job.id };
        told.await.map_err(|e| Error::internal("wait for a sync run", e))??;
        drop(watched);
        self.find(&job.id).await
    }

    /// Starts a sync in the background and returns at once.
    ///
    /// # Errors
    /// As [`Sync::run`].
    pub async fn trigger(&self, ctx: &CallContext, request: SyncRequest) -> Result<SyncRun> {
        let (job, reserved) = self.enqueue(ctx, request).await?;
        let (engine, id) = (self.engine.clone(), job.id.clone());
        *self.engine.sync_runs().triggered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.engine.sync_runs().spawn(async move {
            if let Err(error) = engine.execute_sync(&id, reserved, Progress::default()).await {
                tracing::error!(run = id, code = error.code(), "sync run failed: {error}");
            }
        });
        Ok(job.into())
    }

    /// Runs the oldest run that waits or was left unfinished, if there is one: what a
    /// scheduler's worker does. Returns its id.
    ///
    /// # Errors
    /// What the state said; tables that fail are in the run's outcome.
    pub(crate) async fn work_once(&self, progress: Progress) -> Result<Option<String>> {
        let waiting = self.engine.store().jobs().list(Some(SYNC_JOB), &[JobState::Queued], 100).await?;
        for job in waiting.into_iter().rev() {
            let request: SyncRequest = serde_json::from_value(job.payload.clone()).unwrap_or_default();
            let Ok(sources) = self.sources_of(&request).await else {
                // What it asked for is gone: let the attempt say so.
                self.engine.execute_sync(&job.id, self.engine.sync_runs().reserve(&[])?, progress.clone()).await?;
                return Ok(Some(job.id));
            };
            if let Ok(reserved) = self.engine.sync_runs().reserve(&sources) {
                self.engine.execute_sync(&job.id, reserved, progress).await?;
                return Ok(Some(job.id));
            }
        }
        Ok(None)
    }

    async fn finish_leftovers(&self, progress: Progress) -> Result<()> {
        while let Some(id) = self.work_once(progress.clone()).await? {
            tracing::info!(run = id, "finished a sync run that an earlier process left");
        }
        Ok(())
    }

    async fn enqueue(&self, ctx: &CallContext, request: SyncRequest) -> Result<(Job, super::Reservation)> {
        self.admin(ctx).await?;
        let now = self.engine.clock().now();
        let accepted = async {
            let sources = self.sources_of(&request).await?;
            let reserved = self.engine.sync_runs().reserve(&sources)?;
            let job = NewJob {
                kind: SYNC_JOB.to_owned(),
                payload: serde_json::to_value(&request).map_err(|e| Error::internal("write a sync request", e))?,
                max_attempts: 3,
                idempotency_key: None,
                concurrency_key: None,
                run_after: now,
                created_by: Some(ctx.principal().user_id().to_owned()),
            };
            Ok((self.engine.store().jobs().enqueue(job, now).await?.0, reserved))
        }
        .await;
        let resource = match (request.tables.as_slice(), request.sources.as_slice()) {
            ([table], []) => format!("table:{}", crate::ident::printable(table, 80)),
            ([], [source]) => format!("source:{}", crate::ident::printable(source, 80)),
            ([], []) => "all_tables".to_owned(),
            (tables, sources) => format!("{} tables, {} sources", tables.len(), sources.len()),
        };
        self.engine
            .audit()
            .event(ctx, "sync.trigger")
            .resource(resource)
            .params(json!({"tables": request.tables, "sources": request.sources, "full": request.full, "requested_at": now}))
            .outcome(&accepted)
            .record()
            .await;
        accepted
    }

    /// The sources a request touches; unknown names are refused here.
    async fn sources_of(&self, request: &SyncRequest) -> Result<Vec<String>> {
        let configured = self.engine.store().sources().list().await?;
        let mut names = BTreeSet::new();
        for wanted in &request.sources {
            let found = configured.iter().find(|s| s.name.as_str().eq_ignore_ascii_case(wanted));
            names.insert(found.map(|s| s.name.to_string()).ok_or_else(|| {
                let known = configured.iter().map(|s| s.name.as_str());
                RegistryError::SourceNotFound {
                    source_name: crate::ident::printable(wanted, 64),
                    suggestion: crate::ident::nearest(wanted, known).map(str::to_owned),
                }
            })?);
        }
        let index = self.engine.table_index().await?;
        for wanted in &request.tables {
            let table = index.find(wanted).ok_or_else(|| RegistryError::TableNotFound {
                table: crate::ident::printable(wanted, 80),
                suggestion: crate::ident::nearest(wanted, index.iter().map(|t| t.name.as_str())).map(str::to_owned),
            })?;
            names.extend(table.source_name().map(str::to_owned));
        }
        if request.sources.is_empty() && request.tables.is_empty() {
            names.extend(configured.into_iter().map(|s| s.name.to_string()));
            let local = index.iter().filter(|t| t.query_mode != QueryMode::Internal);
            names.extend(local.filter_map(|t| t.source_name().map(str::to_owned)));
        }
        Ok(names.into_iter().collect())
    }

    /// Whether a sync runs, or was triggered less than 30 seconds ago. No more than that:
    /// everybody may know it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.engine.sync_runs().is_busy()
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn runs(&self, ctx: &CallContext, limit: usize) -> Result<Vec<SyncRun>> {
        self.admin(ctx).await?;
        let jobs = self.engine.store().jobs().list(Some(SYNC_JOB), &[], limit.clamp(1, 1000)).await?;
        Ok(jobs.into_iter().map(|job| self.engine.sync_runs().run_of(job)).collect())
    }

    /// One run.
    ///
    /// # Errors
    /// `run_not_found`, `admin_required`.
    pub async fn get(&self, ctx: &CallContext, id: &str) -> Result<SyncRun> {
        self.admin(ctx).await?;
        self.find(id).await
    }

    async fn find(&self, id: &str) -> Result<SyncRun> {
        let job = self.engine.store().jobs().get(id).await?.filter(|job| job.kind == SYNC_JOB);
        job.map(|job| self.engine.sync_runs().run_of(job))
            .ok_or_else(|| JobError::NotFound { id: crate::ident::printable(id, 64) }.into())
    }

    /// Cancels a run that did not end; `false` when it had.
    ///
    /// # Errors
    /// `run_not_found`, `admin_required`.
    pub async fn cancel(&self, ctx: &CallContext, id: &str) -> Result<bool> {
        self.admin(ctx).await?;
        self.find(id).await?;
        let cancelled = self.engine.store().jobs().cancel(id, self.engine.clock().now()).await?;
        // In this order: a run that starts just now looks at its job once it can be told.
        let running = self.engine.sync_runs().cancels.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(cancel) = running {
            cancel.cancel();
        }
        self.engine.audit().event(ctx, "sync.cancel").resource(format!("run:{id}")).record().await;
        Ok(cancelled)
    }

    /// State of all tables by name.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn state(&self, ctx: &CallContext) -> Result<Vec<SyncState>> {
        self.admin(ctx).await?;
        self.engine.store().sync().all().await
    }

    /// Past runs of one table, newest first.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn history(&self, ctx: &CallContext, table: &str, limit: usize) -> Result<Vec<SyncHistory>> {
        self.admin(ctx).await?;
        let index = self.engine.table_index().await?;
        let name = index.find(table).map_or_else(|| table.to_owned(), |row| row.name.clone());
        self.engine.store().sync().history(&name, limit.clamp(1, 1000)).await
    }
}

//! One run from its first table to the published generation. Failures stay where they
//! happen: a table's failure never stops another table, nor the publication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures::StreamExt;

use super::attempt::{RunError, Target, retry_after};
use super::claim::Claim;
use super::outcome::{SyncOutcome, SyncRequest, TableOutcome, TableStatus};
use super::runs::{LEASE, Reservation};
use super::{Heart, Job, JobState, SyncUpdate};
use crate::connector::{Cancel, Connector, Progress, ProgressEvent};
use crate::engine::Engine;
use crate::error::{Coded, Error, Result};
use crate::extract::{self, TableChange, TableData};
use crate::ident::TableName;
use crate::orchestrator::{self, Generation};
use crate::registry::{self, QueryMode, RegisteredSource, RegisteredTable};
use crate::schedule::{Due, Schedule, due};

/// Why a table is left out whose source asked for that.
const ASKED: &str = "asked_to_wait";
/// Whoever asks to be left alone for longer is tried once in so long.
const LONGEST_ASKED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What came of one table before publication.
struct Extracted {
    outcome: TableOutcome,
    name: TableName,
    change: Option<TableChange>,
    cursor: Option<serde_json::Value>,
    /// When it is tried again, if it failed.
    again: Again,
    /// Kept until it is published.
    _claim: Option<Claim>,
}

/// When a table is tried again.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// By every run of the scheduler.
    EachRun,
    /// As its schedule says; `None` where that names no moment any more.
    At(Option<DateTime<Utc>>),
}

impl Engine {
    /// Claims and runs one job, keeps its lease alive, and records how it ended.
    pub(super) async fn execute_sync(&self, id: &str, reserved: Reservation, progress: Progress) -> Result<()> {
        let worker = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let jobs = self.store().jobs();
        // Cancelled meanwhile, or taken by another worker: nothing to do.
        let Some(job) = jobs.claim_one(id, &worker, LEASE, self.clock().now()).await? else { return Ok(()) };
        let cancel = self.sync_runs().begin(id);
        if jobs.get(id).await?.is_some_and(|job| job.state == JobState::Cancelled) {
            cancel.cancel();
        }
        let heart = Heart::beat(jobs.clone(), self.clock().clone(), id, &worker, &cancel);
        let (_watched, progress) = self.sync_runs().watch(id, progress);
        let result = self.run_job(&job, &cancel, &progress).await;
        drop(heart);
        self.sync_runs().end(id);
        drop(reserved);
        let now = self.clock().now();
        if cancel.is_cancelled() {
            let mine = jobs.get(id).await?.is_some_and(|job| job.lease_owner.as_deref() == Some(worker.as_str()));
            // A run that a shutdown cut off stays unfinished: the next process finishes it.
            if mine && !self.sync_runs().is_stopping() {
                jobs.cancel(id, now).await?;
            }
            return Ok(());
        }
        match result {
            Ok(outcome) => {
                self.sync_runs().count(&outcome);
                let failed = outcome.tables.iter().filter(|t| t.status == TableStatus::Error).count();
                let all_failed = failed > 0 && failed == outcome.tables.len();
                let value = serde_json::to_value(&outcome).map_err(|e| Error::internal("write a sync outcome", e))?;
                if all_failed {
                    let words =
                        if failed == 1 { "the table failed".to_owned() } else { format!("all {failed} tables failed") };
                    jobs.fail(id, &worker, &words, Some(&value), None, now).await
                } else {
                    jobs.succeed(id, &worker, &value, now).await
                }
            }
            Err(error) => {
                tracing::error!(run = id, code = error.code(), "sync run failed: {error}");
                jobs.fail(id, &worker, &error.to_string(), None, None, now).await?;
                Err(error)
            }
        }
    }

    async fn run_job(&self, job: &Job, cancel: &Cancel, progress: &Progress) -> Result<SyncOutcome> {
        let request: SyncRequest = serde_json::from_value(job.payload.clone()).unwrap_or_default();
        let by = job.created_by.clone().unwrap_or_default();
        let mut outcome = SyncOutcome::default();
        progress.report(ProgressEvent::Stage { name: "extract".to_owned() });
        let plan = self.targets(&request, &by, &mut outcome).await?;
        let sources: Vec<RegisteredSource> = plan.iter().map(|(source, _)| source.clone()).collect();
        let touched: Vec<String> = sources.iter().map(|source| source.name.to_string()).collect();

        let parallel = self.config().sync.parallel_sources.max(1);
        let full = request.full;
        let mut done = futures::stream::iter(plan)
            .map(|(source, targets)| self.sync_source(source, targets, full, cancel.clone(), progress.clone()))
            .buffer_unordered(parallel);
        let mut extracted = Vec::new();
        while let Some(tables) = done.next().await {
            extracted.extend(tables);
        }
        drop(done);
        let everything = request.sources.is_empty() && request.tables.is_empty();
        #[cfg(unix)]
        {
            let wanted = |name: &str| everything || request.sources.iter().any(|source| source == name);
            match self.run_programs(&wanted, cancel).await {
                Ok(notes) => outcome.notes.extend(notes),
                Err(error) => outcome.notes.push(format!("connector programs were not run: {error}")),
            }
        }

        progress.report(ProgressEvent::Stage { name: "publish".to_owned() });
        let rebuilt = match everything {
            true => orchestrator::rebuild_all(self).await,
            false => orchestrator::rebuild_sources(self, &touched).await,
        };
        if let Err(error) = &rebuilt {
            outcome.notes.push(format!("nothing new was published: {error}"));
        }
        let generation = self.generation();
        outcome.generation = generation.number;
        self.settle(&mut extracted, &generation, rebuilt.as_ref().err()).await?;
        for source in sources {
            if let Ok(connector) = registry::connector(self, &source.kind) {
                crate::push::lacking_files(self, source, connector);
            }
        }
        outcome.tables.extend(extracted.into_iter().map(|e| e.outcome));
        outcome.tables.sort_by(|a, b| (&a.source, &a.table).cmp(&(&b.source, &b.table)));
        let failed = outcome.tables.iter().any(|t| t.status == TableStatus::Error);
        outcome.partial = failed && outcome.tables.iter().any(|t| t.status != TableStatus::Error);
        Ok(outcome)
    }

    /// Which tables of which source, with what is left out recorded in `outcome`.
    async fn targets(
        &self,
        request: &SyncRequest,
        by: &str,
        outcome: &mut SyncOutcome,
    ) -> Result<Vec<(RegisteredSource, Vec<Target>)>> {
        let named = |name: &str| {
            request.sources.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
                || request.sources.is_empty() && request.tables.is_empty()
        };
        let by_schedule = request.sources.is_empty() && request.tables.is_empty() && !request.full;
        self.recall_asked().await?;
        let mut plan = Vec::new();
        for source in self.store().sources().list().await? {
            if named(source.name.as_str()) {
                self.discover_new(&source, by, outcome).await;
            }
            let index = self.table_index().await?;
            let mut rows: Vec<_> = index
                .iter()
                .filter(|row| row.source.as_deref() == Some(source.name.as_str()))
                .filter(|row| {
                    let listed = |wanted: &String| {
                        wanted.eq_ignore_ascii_case(&row.id) || wanted.eq_ignore_ascii_case(&row.name)
                    };
                    named(source.name.as_str()) || request.tables.iter().any(listed)
                })
                .cloned()
                .collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            let mut targets = Vec::new();
            for row in rows {
                let state = self.store().sync().get(&row.name).await?;
                let schedule = row.schedule(Some(&source), &self.config().sync);
                let last = state.as_ref().and_then(|s| s.last_sync);
                if by_schedule && due(schedule, last, self.clock().now()) == Due::No {
                    self.store().sync().set_skipped(&row.name, "due_check").await?;
                    outcome.tables.push(blank(&row, source.name.as_str(), TableStatus::Skipped, Some("due_check")));
                    continue;
                }
                if let Some(until) = self.sync_runs().asked(&row.name, self.clock().now()).filter(|_| by_schedule) {
                    self.store().sync().set_skipped(&row.name, ASKED).await?;
                    let mut left = blank(&row, source.name.as_str(), TableStatus::Skipped, Some(ASKED));
                    left.asked_until = Some(until);
                    left.next_try = self.next_try(until).await?;
                    outcome.tables.push(left);
                    continue;
                }
                match TableName::parse(&row.name) {
                    Ok(name) => targets.push(Target { row, name, state }),
                    Err(error) => {
                        let mut failed = blank(&row, source.name.as_str(), TableStatus::Error, Some(error.code()));
                        failed.error = Some(error.to_string());
                        outcome.tables.push(failed);
                    }
                }
            }
            if !targets.is_empty() {
                plan.push((source, targets));
            }
        }
        Ok(plan)
    }

    /// Registers tables that appeared at the source since the last run.
    async fn discover_new(&self, source: &RegisteredSource, by: &str, outcome: &mut SyncOutcome) {
        let found = async {
            let connector = registry::connector(self, &source.kind)?;
            if !connector.capability().discover || !self.registers_what_it_finds(source).await? {
                return Ok((Vec::new(), Vec::new()));
            }
            let context = registry::context(self, source, Cancel::default(), Progress::default());
            self.register_discovered(source, connector.discover(&context).await?, by).await
        };
        match found.await {
            Ok((added, skipped)) => {
                outcome.notes.extend(added.iter().map(|t| format!("`{}` is new in `{}`", t.name, source.name)));
                outcome.notes.extend(skipped);
            }
            Err(error) => outcome.notes.push(format!("`{}` could not list its tables: {error}", source.name)),
        }
    }

    /// Reads the tables of one source and publishes its extract.
    async fn sync_source(
        &self,
        source: RegisteredSource,
        targets: Vec<Target>,
        full: bool,
        cancel: Cancel,
        progress: Progress,
    ) -> Vec<Extracted> {
        let mut connector = registry::connector(self, &source.kind);
        if let Ok(known) = &connector {
            let context = registry::context(self, &source, cancel.clone(), progress.clone());
            let prepared = known.prepare(&context, &self.folder().extract(&source.name), full).await;
            if let Err(error) = prepared {
                connector = Err(error);
            }
        }
        // Deliveries of a source that tells by itself change the same files.
        let tells = connector.as_ref().is_ok_and(|connector| connector.push().is_some());
        let turn = self.push_state().turn(source.name.as_str());
        let _mine = if tells { Some(turn.lock().await) } else { None };
        let parallel = connector.as_ref().map_or(1, |connector| {
            connector.parallel_tables(&registry::context(self, &source, cancel.clone(), progress.clone()))
        });
        let one = |target| self.extract_one(&connector, &source, target, full, &cancel, &progress);
        let mut extracted: Vec<Extracted> =
            futures::stream::iter(targets).map(one).buffered(parallel.max(1)).collect().await;
        self.publish_source(&source, &mut extracted).await;
        extracted
    }

    /// Reads one table, and tells how that went.
    async fn extract_one(
        &self,
        connector: &Result<Arc<dyn Connector>>,
        source: &RegisteredSource,
        target: Target,
        full: bool,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Extracted {
        let started = Instant::now();
        // The connector says it again once it knows how much there is to read.
        progress.report(ProgressEvent::TableStarted {
            source: source.name.to_string(),
            table: target.name.to_string(),
            total_bytes: None,
        });
        let claim = self.claim(source, &target).await;
        let result = match (&claim, connector) {
            (Ok(_), Ok(connector)) => self.sync_table(connector, source, &target, full, cancel, progress).await,
            (Err(error), _) | (_, Err(error)) => Err(error.to_wire().into()),
        };
        let mut outcome = blank(&target.row, source.name.as_str(), TableStatus::Ok, None);
        outcome.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = self.clock().now();
        let schedule = target.row.schedule(Some(source), &self.config().sync).and_then(Schedule::parse);
        let last = target.state.as_ref().and_then(|s| s.last_sync);
        let asked = |error: &Error| {
            let wait = chrono::Duration::from_std(retry_after(error).min(LONGEST_ASKED)).ok()?;
            now.checked_add_signed(wait).filter(|until| *until > now)
        };
        let again = match &schedule {
            Some(schedule) => Again::At(schedule.next_after(last, now)),
            None => Again::EachRun,
        };
        let (name, _claim) = (target.name.clone(), claim.ok().flatten());
        let mut one = Extracted { outcome, name, change: None, cursor: None, again, _claim };
        match result {
            Ok((writer, report)) => {
                one.outcome.rejected_rows = report.rejected_rows;
                one.outcome.notes = report.notes;
                one.cursor = report.cursor;
                if report.unchanged {
                    one.outcome.status = TableStatus::Unchanged;
                } else {
                    one.change = Some(TableChange {
                        name: target.name,
                        description: target.row.description.clone(),
                        data: match (report.remote, target.row.query_mode) {
                            (Some(remote), _) => TableData::Remote(remote),
                            (None, QueryMode::Materialized) => TableData::Materialized(writer),
                            (None, _) => TableData::Local(writer),
                        },
                    });
                }
            }
            Err(error) if error.code() == RunError::InFlight.code() => {
                one.outcome.status = TableStatus::Skipped;
                one.outcome.reason = Some(error.code().to_owned());
                one.outcome.notes.push(error.to_string());
            }
            Err(error) => {
                fail(&mut one.outcome, &error);
                one.outcome.asked_until = asked(&error);
            }
        }
        progress.report(ProgressEvent::TableFinished {
            source: source.name.to_string(),
            table: one.outcome.table.clone(),
            status: one.outcome.status.as_str().to_owned(),
            rows: one.outcome.rows,
            bytes: one.outcome.bytes,
        });
        one
    }

    /// Publishes what was read of one source; a table that cannot be published fails alone
    /// where the publisher can tell it apart.
    async fn publish_source(&self, source: &RegisteredSource, extracted: &mut [Extracted]) {
        let mut changes: Vec<TableChange> = extracted.iter_mut().filter_map(|one| one.change.take()).collect();
        if changes.is_empty() {
            return;
        }
        let names: Vec<TableName> = changes.iter().map(|change| change.name.clone()).collect();
        let published = async {
            let index = self.table_index().await?;
            // What was taken out of the registry meanwhile does not come back.
            changes.retain(|change| index.by_name(change.name.as_str()).is_some());
            let (folder, now) = (self.folder().extract(&source.name), self.clock().now());
            let keep = move |table: &TableName| {
                // Rejected rows live and die with their table.
                let name = table.as_str().strip_suffix(extract::REJECTED_SUFFIX).unwrap_or(table.as_str());
                index.by_name(name).is_some() || index.by_name(table.as_str()).is_some()
            };
            crate::duck::blocking(move || extract::publish(&folder, changes, &keep, now)).await
        };
        match published.await {
            Ok(tables) => {
                for table in tables {
                    let Some(one) = extracted.iter_mut().find(|one| one.name == table.name) else { continue };
                    one.outcome.rows = table.rows;
                    one.outcome.bytes = table.size_bytes;
                    if let Some(drift) = &table.drift {
                        one.outcome.notes.push(drift.to_string());
                        if let Ok(value) = serde_json::to_value(drift)
                            && let Err(error) = self.store().sync().set_drift(one.name.as_str(), &value).await
                        {
                            tracing::warn!(code = error.code(), "schema drift was not recorded: {error}");
                        }
                    }
                    if let Some(error) = &table.error {
                        fail(&mut one.outcome, error);
                    }
                }
            }
            Err(error) => {
                for one in extracted.iter_mut().filter(|one| names.contains(&one.name)) {
                    fail(&mut one.outcome, &error);
                }
            }
        }
    }

    /// Records how each table ended, now that the generation says what is really there.
    async fn settle(&self, extracted: &mut [Extracted], generation: &Generation, failed: Option<&Error>) -> Result<()> {
        let published: BTreeMap<&str, _> = generation.tables().map(|t| (t.name.as_str(), t)).collect();
        let sync = self.store().sync();
        let now: DateTime<Utc> = self.clock().now();
        let mut updates = Vec::new();
        let index = self.table_index().await?;
        for one in extracted.iter_mut() {
            if one.outcome.status == TableStatus::Skipped {
                continue;
            }
            let name = one.name.as_str().to_owned();
            if index.by_name(&name).is_none() {
                one.outcome.status = TableStatus::Skipped;
                one.outcome.reason = Some("unregistered".to_owned());
                one.cursor = None;
                continue;
            }
            if one.outcome.status != TableStatus::Error {
                match (published.get(name.as_str()), failed) {
                    (_, Some(error)) if one.outcome.status == TableStatus::Ok => fail(&mut one.outcome, error),
                    (Some(table), _) if table.source.as_str() == one.outcome.source => {
                        one.outcome.rows = table.rows;
                        one.outcome.bytes = table.size_bytes;
                        updates.push(SyncUpdate {
                            table_id: name.clone(),
                            rows: i64::try_from(table.rows).unwrap_or(i64::MAX),
                            file_size_bytes: i64::try_from(table.size_bytes).unwrap_or(i64::MAX),
                            columns: i32::try_from(table.columns.len()).ok(),
                            hash: table.manifest_hash.clone(),
                            parts: table.partitioned.then(|| table.parts.clone()),
                            duration_ms: i64::try_from(one.outcome.duration_ms).ok(),
                            bump_last_sync: true,
                            history: one.outcome.status == TableStatus::Ok,
                        });
                    }
                    _ => {
                        let (reason, detail) = why_not_published(generation, &one.outcome);
                        fail(&mut one.outcome, &RunError::NotPublished { reason, detail }.into());
                    }
                }
            }
            let asked = one.outcome.asked_until;
            self.sync_runs().keep_asked(&name, asked);
            if one.outcome.status == TableStatus::Error {
                sync.set_error(&name, one.outcome.error.as_deref().unwrap_or("failed"), now).await?;
                let next = match one.again {
                    Again::At(next) => next,
                    Again::EachRun => Some(now),
                };
                one.outcome.next_try = match next {
                    Some(next) => self.next_try(asked.map_or(next, |asked| next.max(asked))).await?,
                    None => None,
                };
            }
        }
        sync.update(&updates, now).await?;
        for one in extracted.iter().filter(|one| one.outcome.status != TableStatus::Error) {
            if let Some(cursor) = &one.cursor {
                sync.set_cursor(one.name.as_str(), cursor).await?;
            }
        }
        Ok(())
    }

    /// When a table is tried again that is due at `next`: by a run of the scheduler, where one waits.
    async fn next_try(&self, next: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        Ok(Some(self.next_refresh().await?.map_or(next, |refresh| refresh.max(next))))
    }
}

fn why_not_published(generation: &Generation, outcome: &TableOutcome) -> (String, String) {
    let source = generation.outcome.sources.iter().find(|s| s.source == outcome.source);
    let row = source.and_then(|s| s.skipped.iter().find(|row| row.table.eq_ignore_ascii_case(&outcome.table)));
    match (row, source.and_then(|s| s.error.as_ref())) {
        (Some(row), _) => (row.reason.clone(), row.detail.clone()),
        (None, Some(error)) => ("unreadable_source".to_owned(), error.clone()),
        (None, None) => ("not_published".to_owned(), "the last rebuild did not publish it".to_owned()),
    }
}

fn blank(row: &RegisteredTable, source: &str, status: TableStatus, reason: Option<&str>) -> TableOutcome {
    TableOutcome {
        table: row.name.clone(),
        source: source.to_owned(),
        status,
        reason: reason.map(str::to_owned),
        error: None,
        hint: None,
        kind: None,
        next_try: None,
        asked_until: None,
        rows: 0,
        bytes: 0,
        rejected_rows: 0,
        duration_ms: 0,
        notes: Vec::new(),
    }
}

fn fail(outcome: &mut TableOutcome, error: &Error) {
    outcome.status = TableStatus::Error;
    outcome.reason = Some(error.code().to_owned());
    outcome.error = Some(error.to_string());
    outcome.hint = error.hint();
    outcome.kind = Some(error.kind());
}

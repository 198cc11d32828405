//! A pull: from whatever is here to exactly one generation of what the server publishes.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde::Serialize;

use super::error::FULL_DISK;
use super::fetch::{Fetcher, Missed};
use super::plan::{Plan, Want, WouldDownload, revoked};
use super::state::LocalTable;
use super::switch::Switched;
use super::{Origin, PullLimits, SyncState, Workspace, WorkspaceError};
use crate::catalog::{CatalogError, Manifest, ManifestError};
use crate::connector::{Progress, ProgressEvent};
use crate::duck::blocking;
use crate::error::{Error, Result};
use crate::file_lock::FileLock;

/// How often a server may publish while files come.
const ROUNDS: usize = 5;
/// How far clocks may differ.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// Bytes that stay free.
const SPARE: u64 = 64 << 20;

/// What to pull, and how.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Tables to bring, by name or id, beside those that are kept up to date anyway.
    pub tables: Vec<String>,
    /// Whether tables come only when they are asked for, from now on; as before without.
    pub lazy: Option<bool>,
    /// Only say what would come.
    pub dry_run: bool,
    /// Leave materialized tables as they are.
    pub skip_materialized: bool,
    /// Take what came, though some tables did not: those stay as they were.
    pub partial: bool,
    /// Take a manifest that is older than the last one.
    pub accept_older: bool,
    /// Take a manifest signed by another key, and remember that one.
    pub accept_new_key: bool,
    /// Whose the workspace is from now on, by their id: that of the same person at a server that was
    /// set up anew.
    pub user_id: Option<String>,
    /// How files are fetched.
    pub limits: PullLimits,
}

/// What went wrong with one table, or at one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullError {
    /// The table; of another file its kind and path: `docs/start.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// `manifest`, `disk` or `views`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// In words.
    pub error: String,
    /// Stable name.
    pub code: String,
    /// One thing to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PullError {
    fn of_table(table: &str, error: &Error) -> Self {
        Self { table: Some(table.to_owned()), stage: None, ..Self::of(error) }
    }

    /// Why the server gives nothing of a table now.
    pub(super) fn of_manifest(table: &str, error: &ManifestError) -> Self {
        let (error, code, hint) = (error.message.clone(), error.code.clone(), error.hint.clone());
        Self { table: Some(table.to_owned()), stage: None, error, code, hint }
    }

    /// What went wrong at a stage.
    #[must_use]
    pub fn at(stage: &str, error: &Error) -> Self {
        Self { table: None, stage: Some(stage.to_owned()), ..Self::of(error) }
    }

    fn of(error: &Error) -> Self {
        let (code, hint) = (error.code().to_owned(), error.hint());
        Self { table: None, stage: None, error: error.to_string(), code, hint }
    }
}

/// What a pull did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PullReport {
    /// How many tables are new or have other content.
    pub tables_updated: usize,
    /// How many files that are no tables are new or have other content.
    pub assets_updated: usize,
    /// How many files of tables are here.
    pub parquets_total: usize,
    /// How many rules for assistants came.
    pub rules_count: usize,
    /// Seconds.
    pub duration_s: f64,
    /// What went wrong.
    pub errors: Vec<PullError>,
    /// Tables, and other files by kind and path, that went, as they may not be read any more, or are
    /// not there.
    pub removed: Vec<String>,
    /// Names of the tables that are new or have other content.
    pub updated: Vec<String>,
    /// Bytes that came over the network.
    pub bytes_downloaded: u64,
    /// Number of the generation that is here.
    pub generation: u64,
    /// Whether the server signed what is here.
    pub signed: bool,
    /// What is not as it could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What would come, of a pull that only says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_download: Option<Vec<WouldDownload>>,
    /// What would go, of a pull that only says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_remove: Option<Vec<String>>,
}

/// A pull of this process: the next one waits for its turn.
pub(super) struct Turn(#[expect(dead_code, reason = "let go of when dropped")] FileLock);

impl Workspace {
    pub(super) fn turn(&self) -> Result<Turn> {
        std::fs::create_dir_all(self.own()).map_err(|e| Error::io("make the workspace", e))?;
        let file = File::options().create(true).truncate(false).write(true).open(self.lock_file());
        let file = file.map_err(|e| Error::io("lock the workspace", e))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(FileLock::held(file))),
            Err(TryLockError::WouldBlock) => Err(WorkspaceError::Busy.into()),
            Err(TryLockError::Error(e)) => Err(Error::io("lock the workspace", e)),
        }
    }

    /// Brings the workspace to the generation that its server publishes now. All tables come, or
    /// all stay as they were; but what may not be read any more always goes. Whatever ends it, the
    /// next pull goes on with what has arrived.
    ///
    /// What goes wrong with single tables is in the report.
    ///
    /// # Errors
    /// `workspace_busy`, `workspace_unreadable`, `disk_full`, those of the origin's manifest;
    /// `manifest_unreadable`, `manifest_not_ours`, `manifest_other_key`, `manifest_expired`,
    /// `manifest_rollback`, `manifest_bad_name`; `table_not_offered`, `table_not_here`;
    /// `server_keeps_changing`.
    pub fn pull<'a>(
        &'a self,
        origin: &'a dyn Origin,
        options: &'a PullOptions,
        progress: Progress,
    ) -> BoxFuture<'a, Result<PullReport>> {
        Box::pin(async move { self.pull_now(origin, options, progress).await.map_err(of_this_disk) })
    }

    async fn pull_now(&self, origin: &dyn Origin, options: &PullOptions, progress: Progress) -> Result<PullReport> {
        let started = Instant::now();
        let workspace = self.clone();
        let (turn, mut state, is_whole, mut told) = blocking(move || {
            workspace.make_folders()?;
            let turn = workspace.turn()?;
            let told = workspace.recover()?;
            workspace.sweep_interrupted();
            let mut state = workspace.state()?;
            state.database = workspace.good_database(&state);
            let is_whole = workspace.is_whole(&state)
                && state.database.is_some()
                && state.root == workspace.root().to_string_lossy();
            Ok((turn, state, is_whole, told))
        })
        .await?;
        if let Some(id) = options.user_id.as_ref().filter(|id| **id != state.user_id) {
            state.of_another(id);
        }
        let wants_more = options.tables.iter().any(|name| state.table(name).is_none())
            || options.lazy.is_some_and(|lazy| lazy != state.lazy);
        // That nothing changed is signed by nobody: it is taken as long as what is held is good. Who
        // signs nothing says no time either.
        let is_good = state.public_key.is_none() || state.expires_at.is_some_and(|end| end > Utc::now());
        let held = Some(state.etag.as_str()).filter(|tag| is_whole && is_good && !wants_more && !tag.is_empty());
        progress.report(ProgressEvent::Stage { name: "manifest".to_owned() });
        let mut report = match self.read_manifest(origin, held, &state, options).await? {
            None => self.unchanged(&state, options).await?,
            Some((manifest, signed)) => {
                let mut report = self.bring(origin, options, state, manifest, &progress, &mut told).await?;
                report.signed = signed;
                report
            }
        };
        let workspace = self.clone();
        told.extend(blocking(move || workspace.make_late_views()).await?);
        drop(turn);
        told.retain(|one| !report.warnings.contains(one));
        report.warnings.splice(..0, told);
        report.duration_s = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        Ok(report)
    }

    /// The server's manifest, checked; `None` when it is the one that is here.
    async fn read_manifest(
        &self,
        origin: &dyn Origin,
        held: Option<&str>,
        state: &SyncState,
        options: &PullOptions,
    ) -> Result<Option<(Manifest, bool)>> {
        let Some(body) = origin.manifest(held).await? else { return Ok(None) };
        let pinned = state.public_key.as_deref().filter(|_| !options.accept_new_key);
        let read = Manifest::read(&body, &state.user_id, pinned);
        let read = read.map_err(|error| match error.code() {
            "manifest_not_ours" if pinned.is_some() && key_of(&body).as_deref() != pinned => {
                WorkspaceError::OtherKey.into()
            }
            "manifest_not_ours" => WorkspaceError::OtherOwner { of: state.email.clone() }.into(),
            _ => error,
        })?;
        let manifest = read.manifest;
        if read.is_signed {
            if manifest.expires_at + SKEW < Utc::now() {
                return Err(CatalogError::ManifestExpired.into());
            }
            // An old manifest brings back what was revoked since; its time tells it from the newer
            // one also where the generation is the same.
            let is_older = manifest.generation < state.generation
                || state.expires_at.is_some_and(|end| manifest.expires_at + SKEW < end);
            if is_older && !options.accept_older {
                return Err(WorkspaceError::Rollback { sent: manifest.generation, here: state.generation }.into());
            }
        }
        Ok(Some((manifest, read.is_signed)))
    }

    async fn unchanged(&self, state: &SyncState, options: &PullOptions) -> Result<PullReport> {
        if !options.dry_run {
            let (workspace, state) = (self.clone(), SyncState { last_sync: Some(Utc::now()), ..state.clone() });
            blocking(move || state.write(&workspace.state_file())).await?;
        }
        Ok(PullReport {
            parquets_total: state.files().count(),
            generation: state.generation,
            signed: state.public_key.is_some(),
            would_download: options.dry_run.then(Vec::new),
            would_remove: options.dry_run.then(Vec::new),
            ..PullReport::default()
        })
    }

    async fn bring(
        &self,
        origin: &dyn Origin,
        options: &PullOptions,
        mut state: SyncState,
        mut manifest: Manifest,
        progress: &Progress,
        told: &mut Vec<String>,
    ) -> Result<PullReport> {
        let fetcher = Fetcher {
            workspace: self,
            origin,
            limits: options.limits,
            progress: progress.clone(),
            server: state.server.clone(),
            moved: AtomicU64::new(0),
            fetched: Mutex::default(),
        };
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for round in 0..ROUNDS {
            let (workspace, found, of, how) = (self.clone(), manifest.clone(), state.clone(), options.clone());
            let fetched = fetcher.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let plan = blocking(move || workspace.plan(&found, &of, &how, &fetched)).await;
            // First, and whatever else happens: what may not be read any more.
            let (tables, assets) = revoked(&manifest, &state);
            let is_any_gone = !tables.is_empty() || !assets.is_empty();
            let is_all_here = plan.as_ref().is_ok_and(|plan| plan.wants.is_empty());
            if is_any_gone && !is_all_here && !options.dry_run {
                let switched = self.without(state, &tables, &assets).await?;
                told.extend(switched.warnings);
                state = switched.state;
            }
            let plan = plan?;
            if options.dry_run {
                return Ok(PullReport {
                    parquets_total: state.files().count(),
                    generation: state.generation,
                    would_download: Some(plan.would),
                    would_remove: Some([plan.removed, plan.removed_assets].concat()),
                    errors: plan.withheld,
                    ..PullReport::default()
                });
            }
            gone.extend(tables);
            gone.extend(assets);
            self.forget_incoming(&plan.wants.iter().map(|want| want.blob.as_str()).collect());
            if !plan.wants.is_empty() {
                self.make_room(&state, &plan.next);
            }
            self.check_space(&plan)?;
            progress.report(ProgressEvent::Stage { name: "download".to_owned() });
            let (vanished, mut failed) = fetch_all(&fetcher, &plan).await;
            let is_changed = !vanished.is_empty() || failed.iter().any(|(_, error)| error.code() == "download_corrupt");
            if is_changed {
                // What came stays: most of it is in the next manifest too.
                if round > 0 {
                    tokio::time::sleep(Duration::from_millis(200 << round)).await;
                }
                let now = self.read_manifest(origin, None, &state, options).await?;
                let Some((newer, _)) = now else { return Err(WorkspaceError::KeepsChanging.into()) };
                let is_other = newer.etag != manifest.etag;
                if is_other || (round == 0 && !vanished.is_empty()) {
                    manifest = newer;
                    continue;
                }
                // The manifest still names what the server does not give.
                failed.extend(vanished.into_iter().map(|table| {
                    let error = match table.contains('/') {
                        true => CatalogError::NoAsset { path: table.clone() }.into(),
                        false => WorkspaceError::NotOffered { table: table.clone(), suggestion: None }.into(),
                    };
                    (table, error)
                }));
            }
            let came = fetcher.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let lost = plan.wants.iter().map(|want| want.blob.clone()).filter(|blob| !came.contains(blob)).collect();
            let moved = fetcher.moved.load(Ordering::Relaxed);
            return self.end(state, plan, (failed, lost), gone, options, moved).await;
        }
        Err(WorkspaceError::KeepsChanging.into())
    }

    /// The end of a pull whose files have all come or failed.
    async fn end(
        &self,
        state: SyncState,
        plan: Plan,
        (failed, lost): (Vec<(String, Error)>, BTreeSet<String>),
        mut gone: BTreeSet<String>,
        options: &PullOptions,
        bytes_downloaded: u64,
    ) -> Result<PullReport> {
        let errors = failed.iter().map(|(table, error)| PullError::of_table(table, error));
        let errors: Vec<PullError> = errors.chain(plan.withheld).collect();
        let mut next = plan.next;
        if !failed.is_empty() {
            if !options.partial {
                return Ok(PullReport {
                    parquets_total: state.files().count(),
                    generation: state.generation,
                    removed: gone.into_iter().collect(),
                    errors,
                    bytes_downloaded,
                    ..PullReport::default()
                });
            }
            let is_lost = |table: &LocalTable| table.files.iter().any(|file| lost.contains(&file.blob));
            let without: Vec<String> =
                next.tables.iter().filter(|(_, table)| is_lost(table)).map(|(name, _)| name.clone()).collect();
            for table in without {
                // The old one may be what is missing.
                match state.tables.get(&table).filter(|old| !is_lost(old)) {
                    Some(old) => drop(next.tables.insert(table, old.clone())),
                    None => drop(next.tables.remove(&table)),
                }
            }
            let old =
                |path: &str| state.assets.iter().find(|old| old.path == path && !lost.contains(&old.blob)).cloned();
            let kept = next.assets.into_iter().filter_map(|file| match lost.contains(&file.blob) {
                true => old(&file.path),
                false => Some(file),
            });
            next.assets = kept.collect();
            next.etag = String::new();
        }
        gone.extend(plan.removed);
        let is_updated = |name: &String| {
            let blobs = |state: &SyncState| {
                state.tables.get(name).map(|table| table.files.iter().map(|file| file.blob.clone()).collect::<Vec<_>>())
            };
            blobs(&state) != blobs(&next)
        };
        let came = plan.would.iter().map(|would| &would.table).filter(|name| !failed.iter().any(|(f, _)| f == *name));
        let (assets, repaired): (Vec<&String>, Vec<&String>) = came.partition(|name| name.contains('/'));
        let updated: BTreeSet<String> =
            next.tables.keys().filter(|name| is_updated(name)).chain(repaired).cloned().collect();
        let assets_updated = assets.len();
        next.last_sync = Some(Utc::now());
        let workspace = self.clone();
        let switched = blocking(move || workspace.switch(next)).await?;
        Ok(PullReport {
            tables_updated: updated.len(),
            assets_updated,
            updated: updated.into_iter().collect(),
            parquets_total: switched.state.files().count(),
            removed: gone.into_iter().collect(),
            errors,
            bytes_downloaded,
            generation: switched.state.generation,
            warnings: switched.warnings,
            ..PullReport::default()
        })
    }

    /// Takes tables and other files away, and leaves the rest as it is.
    async fn without(&self, mut state: SyncState, tables: &[String], assets: &[String]) -> Result<Switched> {
        for table in tables {
            state.tables.remove(table);
        }
        state.assets.retain(|file| !assets.contains(&file.path));
        state.etag = String::new();
        let workspace = self.clone();
        blocking(move || workspace.switch(state)).await
    }

    fn check_space(&self, plan: &Plan) -> Result<()> {
        let needed = plan.still_needed(&self.incoming());
        let free = crate::sync::free_bytes(&self.own())?;
        if needed > 0 && needed.saturating_add(SPARE) > free {
            return Err(WorkspaceError::DiskTooFull { needed, spare: SPARE, free }.into());
        }
        Ok(())
    }
}

/// Fetches all that is wanted: the tables of which the server has another content by now, and those
/// that did not come.
async fn fetch_all(fetcher: &Fetcher<'_>, plan: &Plan) -> (Vec<String>, Vec<(String, Error)>) {
    let at_once = fetcher.limits.files.max(1);
    let fetches: Vec<BoxFuture<'_, _>> = plan.wants.iter().map(|want| one(fetcher, want)).collect();
    let mut fetching = futures::stream::iter(fetches).buffer_unordered(at_once);
    let (mut vanished, mut failed) = (Vec::<String>::new(), Vec::<(String, Error)>::new());
    while let Some((want, came)) = fetching.next().await {
        match came {
            Ok(()) => {}
            Err(Missed::Republished) => {
                if !vanished.contains(&want.table) {
                    vanished.push(want.table.clone());
                }
            }
            Err(Missed::Failed(error)) => {
                let is_fatal = matches!(error.code(), "disk_full" | "permission_denied")
                    || error.kind() == crate::ErrorKind::Unauthenticated;
                if !failed.iter().any(|(table, _)| *table == want.table) {
                    failed.push((want.table.clone(), of_this_disk(error)));
                }
                if is_fatal {
                    break;
                }
            }
        }
    }
    (vanished, failed)
}

/// One file, and what became of it.
fn one<'a>(fetcher: &'a Fetcher<'_>, want: &'a Want) -> BoxFuture<'a, (&'a Want, Result<(), Missed>)> {
    Box::pin(async move { (want, fetcher.fetch(want).await) })
}

/// What is said of a full disk: it is not that of a server.
fn of_this_disk(error: Error) -> Error {
    if error.code() != "disk_full" {
        return error;
    }
    let hint = Some(FULL_DISK.to_owned());
    crate::error::WireError { hint, ..error.to_wire() }.into()
}

/// The key that a manifest says it is signed by.
fn key_of(body: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
    manifest["public_key"].as_str().map(ToOwned::to_owned)
}

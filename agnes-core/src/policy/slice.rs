//! Slices: Parquet files that hold one caller's part of a table and nothing else.
//!
//! A slice is a blob like any other, named by its content. `analytics/slices/<key>.json`
//! says which blob is the slice of which rules, content and caller's values; callers with
//! equal ones share it. Both are made when first needed and collected when the rules or
//! the content are gone, or nobody asked for a week.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore};

use super::{InstanceKey, Narrowed, PolicyError};
use crate::config::PolicyConfig;
use crate::duck::{EngineFailure, ScratchDb, ScratchLimits};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, write_atomically};
use crate::extract::parquet;
use crate::ident::{quote_ident, quote_literal};
use crate::layout::DataFolder;
use crate::orchestrator::{Column, Part, PublishedTable};

/// Slices made at a time: each may use the memory of a query.
const AT_ONCE: usize = 2;
/// How long a slice that nobody asks for is kept.
const UNUSED: Duration = Duration::from_secs(7 * 86_400);

/// A slice, as it is remembered on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Which slice.
    key: String,
    /// Content of the table it was made of.
    content_hash: String,
    /// Policies it was made under.
    policies: BTreeSet<(String, u32)>,
    /// The file.
    pub(crate) part: Part,
}

/// Makes slices, each once, and keeps those that somebody reads.
#[derive(Debug)]
pub(crate) struct Slices {
    /// Read by whoever looks for or makes a slice, written by whoever deletes some.
    gate: Arc<RwLock<()>>,
    turns: Arc<Semaphore>,
    known: Mutex<HashMap<String, Known>>,
    profiles: moka::sync::Cache<String, Arc<serde_json::Value>>,
}

#[derive(Debug, Default)]
struct Known {
    made: Weak<Slice>,
    making: Weak<tokio::sync::Mutex<()>>,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            gate: Arc::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            known: Mutex::default(),
            profiles: moka::sync::Cache::new(64),
        }
    }
}

/// No slice is looked for or made as long as it lives.
#[derive(Debug)]
pub(crate) struct NoSlices {
    _gate: OwnedRwLockWriteGuard<()>,
    in_use: HashSet<String>,
}

fn record(folder: &DataFolder, key: &str) -> PathBuf {
    folder.slices().join(format!("{key}.json"))
}

impl Slices {
    /// Profiles of slices, by their key.
    pub(super) fn profiles(&self) -> &moka::sync::Cache<String, Arc<serde_json::Value>> {
        &self.profiles
    }

    /// A turn for work that may use the memory of a query.
    pub(super) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.turns.acquire().await.map_err(|e| Error::internal("wait for a slice", e))
    }

    /// Stops slices from being made, for whoever deletes blobs.
    pub(crate) async fn pause(&self) -> NoSlices {
        let gate = self.gate.clone().write_owned().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.made.strong_count() > 0);
        NoSlices { _gate: gate, in_use: known.keys().cloned().collect() }
    }

    /// Nothing is collected as long as it is held. Do not ask for a slice meanwhile.
    pub(crate) async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        self.gate.clone().read_owned().await
    }

    fn made(&self, key: &str) -> Option<Arc<Slice>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key)?.made.upgrade()
    }

    /// Whose turn it is to make this slice.
    fn making(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.made.strong_count() > 0 || known.making.strong_count() > 0);
        let entry = known.entry(key.to_owned()).or_default();
        entry.making.upgrade().unwrap_or_else(|| {
            let making = Arc::default();
            entry.making = Arc::downgrade(&making);
            making
        })
    }

    /// The slice, made when it is not there. It is not collected as long as it is held.
    /// Once begun, making it goes on although the caller may leave.
    ///
    /// # Errors
    /// `policy_failed`, `slice_too_large`, `slice_too_slow`, `instance_key_unreadable`,
    /// I/O errors.
    pub(crate) async fn get(&self, engine: &Engine, narrowed: &Arc<Narrowed>) -> Result<Arc<Slice>> {
        if let Some(slice) = self.made(&narrowed.key) {
            return Ok(slice);
        }
        let (engine, narrowed) = (engine.clone(), narrowed.clone());
        let gate = self.gate.clone().read_owned().await;
        let task = tokio::spawn(async move { engine.slices().look_or_make(&engine, narrowed, gate).await });
        task.await.map_err(|panic| Error::internal("make a slice", panic))?
    }

    async fn look_or_make(
        &self,
        engine: &Engine,
        narrowed: Arc<Narrowed>,
        _gate: OwnedRwLockReadGuard<()>,
    ) -> Result<Arc<Slice>> {
        let making = self.making(&narrowed.key);
        let _mine = making.lock().await;
        if let Some(slice) = self.made(&narrowed.key) {
            return Ok(slice);
        }
        let (folder, key) = (engine.folder().clone(), narrowed.key.clone());
        let slice = match crate::duck::blocking(move || Ok(look(&folder, &key))).await? {
            Some(slice) => slice,
            None => {
                let _turn = self.turn().await?;
                let key = engine.instance_key().await?.clone();
                let (folder, scratch) = (engine.folder().clone(), engine.scratch().to_owned());
                let (limits, work) = (Limits::of(engine), narrowed.clone());
                crate::duck::blocking(move || make(&folder, &scratch, &work, &key, limits)).await?
            }
        };
        let slice = Arc::new(slice);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(narrowed.key.clone()).or_default().made = Arc::downgrade(&slice);
        Ok(slice)
    }
}

/// The slice on disk, if it is whole. It was used now.
fn look(folder: &DataFolder, key: &str) -> Option<Slice> {
    let path = record(folder, key);
    let slice: Slice = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let blob = folder.blob(&slice.part.sha256);
    let whole = slice.key == key && blob.metadata().is_ok_and(|meta| meta.len() == slice.part.size_bytes);
    if whole && let Ok(file) = std::fs::File::options().append(true).open(&path) {
        let _ = file.set_modified(std::time::SystemTime::now());
    }
    whole.then_some(slice)
}

#[derive(Debug, Clone)]
struct Limits {
    policy: PolicyConfig,
    scratch: ScratchLimits,
}

impl Limits {
    fn of(engine: &Engine) -> Self {
        let query = &engine.config().query;
        let scratch = ScratchLimits {
            memory_bytes: query.memory_bytes,
            threads: query.threads,
            spill_bytes: query.spill_bytes.max(1 << 30),
        };
        Self { policy: engine.config().policy.clone(), scratch }
    }
}

/// A view of a table's own files.
fn view(folder: &DataFolder, table: &PublishedTable) -> String {
    let columns: Vec<String> = table.columns.iter().map(|c: &Column| quote_ident(&c.name)).collect();
    let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
    let (name, scan) = (quote_ident(table.name.as_str()), crate::orchestrator::scan(folder, table));
    format!("CREATE VIEW {name} AS SELECT {columns} FROM {scan}")
}

/// An engine that sees `tables` and can reach their files and `more`, and nothing else.
pub(super) fn sealed(
    folder: &DataFolder,
    scratch: &Path,
    limits: &ScratchLimits,
    tables: &[&PublishedTable],
    more: &[&Path],
    key: &InstanceKey,
) -> Result<ScratchDb, EngineFailureOr> {
    let db = ScratchDb::open(scratch, limits).map_err(EngineFailureOr::Error)?;
    let (inner, outer) = key.mask_blocks();
    let blob = |block: &[u8]| format!("unhex('{}')", crate::orchestrator::hex(block));
    // Values, not part of a statement whose text an error may quote.
    db.execute(&format!("SET VARIABLE agnes_inner={}; SET VARIABLE agnes_outer={};", blob(&inner), blob(&outer)))?;
    for table in tables {
        db.execute(&view(folder, table))?;
    }
    let blobs = tables.iter().flat_map(|table| &table.parts).map(|part| folder.blob(&part.sha256));
    let paths: Vec<String> = blobs
        .chain(more.iter().map(|path| path.to_path_buf()))
        .map(|path| quote_literal(&path.to_string_lossy()))
        .collect();
    db.execute(&format!(
        "SET preserve_insertion_order=true; SET allowed_paths=[{}]; SET enable_external_access=false; \
         SET lock_configuration=true",
        paths.join(", ")
    ))?;
    Ok(db)
}

/// What went wrong: of the engine, whose words may quote values, or anything else.
pub(super) enum EngineFailureOr {
    Engine(EngineFailure),
    Error(Error),
}

impl From<EngineFailure> for EngineFailureOr {
    fn from(failure: EngineFailure) -> Self {
        Self::Engine(failure)
    }
}

/// What an engine said, without any value: its kind of error.
pub(super) fn kind_of(failure: &EngineFailure) -> String {
    failure.words().split(':').next().unwrap_or_default().chars().take(60).collect()
}

/// Runs `work` on `db`, and interrupts it once `over` says so.
pub(super) fn watched<T>(db: &ScratchDb, over: &(dyn Fn() -> bool + Sync), work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let interrupter = db.interrupter();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                if over() {
                    interrupter.interrupt();
                }
                std::thread::park_timeout(Duration::from_millis(25));
            }
        });
        let result = work();
        done.store(true, Ordering::SeqCst);
        watcher.thread().unpark();
        result
    })
}

const RUNS: u8 = 0;
const TOO_LARGE: u8 = 1;
const TOO_SLOW: u8 = 2;

fn make(folder: &DataFolder, scratch: &Path, narrowed: &Narrowed, key: &InstanceKey, limits: Limits) -> Result<Slice> {
    let started = Instant::now();
    let name = narrowed.table.name.as_str();
    let staged = Staged::beside(&folder.blobs().join("slice.parquet"))?;
    let tables: Vec<&PublishedTable> = std::iter::once(&narrowed.table).chain(&narrowed.mapping).collect();
    let failed = |failure: EngineFailureOr| -> Error {
        match failure {
            EngineFailureOr::Engine(failure) if failure_is_ours(&failure) => failure.into(),
            EngineFailureOr::Engine(failure) => {
                tracing::error!(table = name, kind = kind_of(&failure), "a slice could not be made");
                PolicyError::Failed { table: name.to_owned() }.into()
            }
            EngineFailureOr::Error(error) => error,
        }
    };
    let db = sealed(folder, scratch, &limits.scratch, &tables, &[staged.path()], key).map_err(failed)?;
    let why = AtomicU8::new(RUNS);
    let (timeout, largest) = (limits.policy.slice_timeout, limits.policy.slice_max_bytes);
    let size = || staged.path().metadata().map_or(0, |meta| meta.len());
    let over = || {
        if size() > largest {
            why.store(TOO_LARGE, Ordering::SeqCst);
        } else if started.elapsed() > timeout {
            why.store(TOO_SLOW, Ordering::SeqCst);
        }
        why.load(Ordering::SeqCst) != RUNS
    };
    let written = watched(&db, &over, || db.execute(&parquet::copy(&narrowed.sql, &staged)));
    match why.load(Ordering::SeqCst) {
        TOO_SLOW if written.is_err() => {
            return Err(PolicyError::TooSlow { table: name.to_owned(), seconds: timeout.as_secs() }.into());
        }
        TOO_LARGE => return Err(PolicyError::TooLarge { table: name.to_owned(), limit_mb: largest >> 20 }.into()),
        _ if size() > largest => {
            return Err(PolicyError::TooLarge { table: name.to_owned(), limit_mb: largest >> 20 }.into());
        }
        _ => {}
    }
    written.map_err(|e| failed(e.into()))?;
    staged.sync()?;
    drop(db);
    let part = crate::orchestrator::adopt(folder, staged)?;
    let slice = Slice {
        key: narrowed.key.clone(),
        content_hash: narrowed.table.content_hash.clone(),
        policies: narrowed.narrowing.policies.clone(),
        part: Part { path: format!("{name}.parquet"), ..part },
    };
    let text = serde_json::to_vec(&slice).map_err(|e| Error::internal("remember a slice", e))?;
    std::fs::create_dir_all(folder.slices()).map_err(|e| Error::io("make the slices' folder", e))?;
    write_atomically(&record(folder, &narrowed.key), &text)?;
    tracing::debug!(table = name, rows = slice.part.rows, took = ?started.elapsed(), "made a slice");
    Ok(slice)
}

/// A full disk and the like are not the policy's.
fn failure_is_ours(failure: &EngineFailure) -> bool {
    use crate::error::Coded;
    failure.code() != "engine_error"
}

/// What is still somebody's, for whoever collects the rest.
#[derive(Debug)]
pub(crate) struct StillUsed {
    /// Contents of tables in generations that are kept.
    pub(crate) contents: HashSet<String>,
    /// Policies as they are now.
    pub(crate) policies: BTreeSet<(String, u32)>,
}

/// Forgets slices that nobody can ask for any more. Returns the blobs of those that stay
/// and of those that went.
pub(crate) fn collect(
    folder: &DataFolder,
    still: &StillUsed,
    pause: &NoSlices,
    dry_run: bool,
) -> (HashSet<String>, HashSet<String>) {
    let (mut kept, mut gone) = (HashSet::new(), HashSet::new());
    for entry in std::fs::read_dir(folder.slices()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let slice = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Slice>(&text).ok());
        let used =
            entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|t| t < UNUSED));
        let stays = slice.as_ref().is_some_and(|slice| {
            pause.in_use.contains(&slice.key)
                || used && still.contents.contains(&slice.content_hash) && slice.policies.is_subset(&still.policies)
        });
        if stays {
            kept.extend(slice.map(|slice| slice.part.sha256));
            continue;
        }
        gone.extend(slice.map(|slice| slice.part.sha256));
        if !dry_run {
            drop(std::fs::remove_file(path));
        }
    }
    (kept, gone)
}

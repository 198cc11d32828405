//! The one handle every frontend holds.

mod kept;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};

use self::kept::Kept;
pub(crate) use self::kept::TableIndex;
use crate::audit::AuditLog;
use crate::catalog::{AssetHashes, SampleCache};
use crate::cell::Choice;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, IsolationMode};
use crate::connector::ConnectorRegistry;
use crate::error::{Error, Result};
use crate::file_lock::FileLock;
use crate::identity::SignInState;
use crate::layout::DataFolder;
use crate::local::{HolderLock, Listener};
use crate::mail::{MailState, Mailer};
use crate::orchestrator::{Generation, Rebuilds};
use crate::policy::{InstanceKey, Slices};
use crate::push::PushState;
use crate::query::{Queries, QueryLimits, Runtime, RuntimeChoice};
use crate::secret::{EnvSecrets, SecretSource};
use crate::settings::{AddressRules, ConfigFiles, MailerOf};
use crate::store::Store;
use crate::store::duckdb::DuckStore;
use crate::sync::Runs;
use crate::uploads::UploadState;

/// How long [`Engine::close`] waits for calls of other processes that are being answered.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// When an engine goes on with profiles that an earlier process left: not in a command that
/// ends at once.
const RESUME_AFTER: Duration = Duration::from_secs(5);

/// A data folder, opened: sync, publish, grant, query. Cheap to clone.
///
/// Its methods are grouped by domain ([`Engine::sources`], [`Engine::sync`],
/// [`Engine::catalog`], [`Engine::identity`], ...); each takes a
/// [`CallContext`](crate::CallContext) and decides inside who may.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: DataFolder,
    scratch: PathBuf,
    config: Config,
    store: Arc<dyn Store>,
    connectors: ConnectorRegistry,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    generation: RwLock<Arc<Generation>>,
    kept: Kept,
    audit: AuditLog,
    queries: Queries,
    runs: Runs,
    rebuilds: Rebuilds,
    samples: SampleCache,
    assets: AssetHashes,
    scans: crate::scan::Quotas,
    metadata_runs: crate::query::MetadataRuns,
    warm_ups: crate::query::WarmUps,
    settings: crate::settings::SettingsState,
    initial: crate::initial::InitialState,
    profiles: crate::profile::Turns,
    slices: Slices,
    sign_in: SignInState,
    mail: MailState,
    uploads: UploadState,
    push: PushState,
    pulse: crate::maintenance::LastPulse,
    instance_key: tokio::sync::OnceCell<InstanceKey>,
    opened_at: DateTime<Utc>,
    /// Generations that somebody may still read.
    held: Mutex<Vec<Weak<Generation>>>,
    /// Serves other processes of the same user, until closed.
    listener: Mutex<Option<Listener>>,
    /// Held until closed, or as long as the engine lives.
    lock: Mutex<Option<(HolderLock, Option<FileLock>)>>,
}

/// An [`Engine`] that may be gone.
#[derive(Debug, Clone)]
pub struct WeakEngine(Weak<Inner>);

impl WeakEngine {
    /// The engine, if somebody still holds it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(|inner| Engine { inner })
    }
}

impl Engine {
    /// Says how to open the data folder at `root`.
    #[must_use]
    pub fn builder(root: impl Into<PathBuf>) -> EngineBuilder {
        EngineBuilder::new(root)
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.inner.folder
    }

    /// Parent of scratch folders.
    #[must_use]
    pub(crate) fn scratch(&self) -> &std::path::Path {
        &self.inner.scratch
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn profiles(&self) -> &crate::profile::Turns {
        &self.inner.profiles
    }

    pub(crate) fn connectors(&self) -> &ConnectorRegistry {
        &self.inner.connectors
    }

    pub(crate) fn secrets(&self) -> &Arc<dyn SecretSource> {
        &self.inner.secrets
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(crate) fn audit_log(&self) -> &AuditLog {
        &self.inner.audit
    }

    pub(crate) fn sync_runs(&self) -> &Runs {
        &self.inner.runs
    }

    pub(crate) fn asset_hashes(&self) -> &AssetHashes {
        &self.inner.assets
    }

    pub(crate) fn samples(&self) -> &SampleCache {
        &self.inner.samples
    }

    pub(crate) fn settings_state(&self) -> &crate::settings::SettingsState {
        &self.inner.settings
    }

    pub(crate) fn initial_state(&self) -> &crate::initial::InitialState {
        &self.inner.initial
    }

    pub(crate) fn metadata_runs(&self) -> &crate::query::MetadataRuns {
        &self.inner.metadata_runs
    }

    pub(crate) fn warm_ups(&self) -> &crate::query::WarmUps {
        &self.inner.warm_ups
    }

    pub(crate) fn scans(&self) -> &crate::scan::Quotas {
        &self.inner.scans
    }

    pub(crate) fn slices(&self) -> &Slices {
        &self.inner.slices
    }

    pub(crate) fn sign_in_state(&self) -> &SignInState {
        &self.inner.sign_in
    }

    pub(crate) fn mail_state(&self) -> &MailState {
        &self.inner.mail
    }

    pub(crate) fn upload_state(&self) -> &UploadState {
        &self.inner.uploads
    }

    pub(crate) fn push_state(&self) -> &PushState {
        &self.inner.push
    }

    pub(crate) fn last_pulse(&self) -> &crate::maintenance::LastPulse {
        &self.inner.pulse
    }

    /// When it was opened.
    pub(crate) fn opened_at(&self) -> DateTime<Utc> {
        self.inner.opened_at
    }

    /// The key of this installation, read or made when it is first needed.
    pub(crate) async fn instance_key(&self) -> Result<&InstanceKey> {
        let load = || {
            let (folder, secrets) = (self.folder().clone(), self.secrets().clone());
            crate::duck::blocking(move || InstanceKey::load(&folder, &*secrets))
        };
        self.inner.instance_key.get_or_try_init(load).await
    }

    pub(crate) fn rebuilds(&self) -> &Rebuilds {
        &self.inner.rebuilds
    }

    pub(crate) fn queries(&self) -> &Queries {
        &self.inner.queries
    }

    /// A handle that does not keep the engine alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.inner))
    }

    /// Ends background work, writes what is queued, and closes the state. Later calls fail.
    ///
    /// # Errors
    /// What the state said on closing.
    pub async fn close(&self) -> Result<()> {
        self.close_within(LAST_ANSWERS).await
    }

    /// As [`Engine::close`], but calls of other processes may take no longer than `patience`: for
    /// whoever has a time of their own to end in.
    ///
    /// # Errors
    /// What the state said on closing.
    pub async fn close_within(&self, patience: Duration) -> Result<()> {
        let listener = self.inner.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.finish(patience).await;
        }
        self.sync_runs().stop().await;
        self.queries().close().await;
        self.mail_state().settle().await;
        self.sign_in_state().settle().await;
        self.scans().settle().await;
        self.audit_log().flush().await;
        let closed = self.store().close().await;
        drop(self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        closed
    }

    /// The published catalog, as of now. It stays valid however long it is held.
    #[must_use]
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.inner.generation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `generation` the one that later calls see.
    pub(crate) fn set_generation(&self, generation: Arc<Generation>) {
        let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|old| old.strong_count() > 0);
        held.push(Arc::downgrade(&generation));
        drop(held);
        *self.inner.generation.write().unwrap_or_else(PoisonError::into_inner) = generation;
    }

    /// Generations that a query or another reader still holds.
    pub(crate) fn generations_in_use(&self) -> Vec<Arc<Generation>> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }
}

/// Says how an [`Engine`] is opened.
#[derive(Debug)]
pub struct EngineBuilder {
    folder: DataFolder,
    config: Config,
    connectors: ConnectorRegistry,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    store: Option<Arc<dyn Store>>,
    scratch: Option<PathBuf>,
    query_limits: Option<QueryLimits>,
    runtime: Option<Arc<dyn Runtime>>,
    worker: Option<PathBuf>,
    mailer: Option<Arc<dyn Mailer>>,
    one_command: bool,
    settings: crate::settings::SettingsState,
    initial: crate::initial::InitialState,
}

impl EngineBuilder {
    /// For the data folder at `root`; defaults for everything else.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            folder: DataFolder::new(root),
            config: Config::default(),
            connectors: ConnectorRegistry::new(),
            secrets: Arc::new(EnvSecrets),
            clock: Arc::new(SystemClock),
            store: None,
            scratch: None,
            query_limits: None,
            runtime: None,
            worker: None,
            mailer: None,
            one_command: false,
            settings: crate::settings::SettingsState::default(),
            initial: crate::initial::InitialState::default(),
        }
    }

    /// Uses this configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Says where that configuration comes from, so that admins can change it while the engine
    /// runs ([`Engine::settings`]).
    #[must_use]
    pub fn config_files(mut self, files: ConfigFiles) -> Self {
        self.settings.files = Some(files);
        self
    }

    /// Decides which addresses of other servers admins may enter.
    #[must_use]
    pub fn address_rules(mut self, rules: Arc<dyn AddressRules>) -> Self {
        self.settings.addresses = Some(rules);
        self
    }

    /// Reads repositories of git by this.
    #[must_use]
    pub fn repositories(mut self, repositories: Arc<dyn crate::initial::Repositories>) -> Self {
        self.initial.repositories = Some(repositories);
        self
    }

    /// Knows these connectors.
    #[must_use]
    pub fn connectors(mut self, connectors: ConnectorRegistry) -> Self {
        self.connectors = connectors;
        self
    }

    /// Takes secrets from here instead of the process environment.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<dyn SecretSource>) -> Self {
        self.secrets = secrets;
        self
    }

    /// Takes the time from here.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The data folder it opens.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Keeps state here instead of in `state/system.duckdb`.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Puts scratch folders below this folder instead of `tmp/` in the data folder.
    #[must_use]
    pub fn scratch(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch = Some(folder.into());
        self
    }

    /// Limits of queries instead of the configuration's.
    #[must_use]
    pub fn query_limits(mut self, limits: QueryLimits) -> Self {
        self.query_limits = Some(limits);
        self
    }

    /// Runs queries here instead of in this process.
    #[must_use]
    pub fn query_runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Runs queries in processes of this executable, whose `main` calls
    /// [`cell::serve_if_asked`](crate::cell::serve_if_asked) first, instead of in processes of
    /// this one. Linux only.
    #[must_use]
    pub fn query_worker(mut self, executable: impl Into<PathBuf>) -> Self {
        self.worker = Some(executable.into());
        self
    }

    /// Sends mails with this; without it there are none.
    #[must_use]
    pub fn mailer(mut self, mailer: Arc<dyn Mailer>) -> Self {
        self.mailer = Some(mailer);
        self
    }

    /// Sends mails with the mailer of its configuration, and of each one that an admin wants to
    /// keep: what this refuses is not kept.
    #[must_use]
    pub fn mailer_of(mut self, make: MailerOf) -> Self {
        self.settings.mailer_of = Some(make);
        self
    }

    /// Says that it is opened for one command of the folder's owner: a worker process takes
    /// longer to start (60 ms) than most queries, so `query.isolation: auto` means none.
    #[must_use]
    pub fn for_one_command(mut self) -> Self {
        self.one_command = true;
        self
    }

    /// Keeps state in this folder instead of `state/` in the data folder.
    #[must_use]
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = self.folder.with_state_dir(folder);
        self
    }

    /// Opens the folder, makes it when missing, migrates its state and repairs what a kill
    /// left behind. Call it inside a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// `data_folder_held` when another process holds the folder, `state_too_new`,
    /// `state_unreadable`, `mail_setup_invalid`, I/O errors; with `query.strict` also `isolation_missing`.
    pub async fn open(self) -> Result<Engine> {
        let mailer = match (self.mailer, self.settings.mailer_of) {
            (None, Some(mailer_of)) => mailer_of(&self.config)?,
            (given, _) => given,
        };
        if let Some(extensions) = &self.config.attach.extension_folder {
            crate::duck::look_for_extensions_in(extensions);
        }
        let scratch = self.scratch.unwrap_or_else(|| self.folder.scratch());
        let folder = self.folder.clone();
        let (clock, given) = (self.clock.clone(), self.store);
        let scratch_now = scratch.clone();
        let (lock, store, generation) = crate::duck::blocking(move || {
            for dir in [folder.root(), folder.state_dir(), &folder.extracts(), &scratch_now] {
                std::fs::create_dir_all(dir).map_err(|e| Error::io("make the data folder", e))?;
            }
            let lock = HolderLock::acquire(&folder)?;
            let store: Arc<dyn Store> = match given {
                Some(store) => store,
                None => Arc::new(DuckStore::open(&folder.state_db(), clock.now())?),
            };
            let generation = Arc::new(crate::orchestrator::load_current(&folder)?);
            // Below the data folder its holder is alone.
            let shared = (scratch_now != folder.scratch()).then(|| crate::orchestrator::share_scratch(&scratch_now));
            Ok(((lock, shared.flatten()), store, generation))
        })
        .await?;
        let now = self.clock.now();
        store.access().seed_system_groups(now).await?;
        // Nobody else runs jobs of this folder while its lock is ours.
        store.jobs().release_all("", now).await?;
        let scans = crate::scan::Quotas::of(store.usage(), now).await?;
        let samples = SampleCache::new(self.config.cache.sample);
        let runtime = match self.runtime {
            Some(runtime) => RuntimeChoice::Given(runtime),
            None => RuntimeChoice::Configured(Choice {
                mode: match self.config.query.isolation {
                    IsolationMode::Auto if self.one_command && !self.config.query.strict => IsolationMode::InProcess,
                    mode => mode,
                },
                strict: self.config.query.strict,
                worker: self.worker,
                blobs: self.folder.blobs(),
                extensions: self.config.attach.extension_folder.clone(),
            }),
        };
        let engine = Engine {
            inner: Arc::new(Inner {
                audit: AuditLog::start(store.audit()),
                queries: Queries::new(
                    self.query_limits.unwrap_or_else(|| QueryLimits::of(&self.config)),
                    scratch.clone(),
                    runtime,
                ),
                folder: self.folder,
                scratch,
                config: self.config,
                store,
                connectors: self.connectors,
                secrets: self.secrets,
                clock: self.clock,
                runs: Runs::default(),
                rebuilds: Rebuilds::default(),
                samples,
                assets: AssetHashes::default(),
                scans,
                metadata_runs: crate::query::MetadataRuns::default(),
                warm_ups: crate::query::WarmUps::default(),
                settings: self.settings,
                initial: self.initial,
                profiles: crate::profile::Turns::default(),
                slices: Slices::default(),
                sign_in: SignInState::default(),
                mail: MailState::new(mailer),
                uploads: UploadState::default(),
                push: PushState::default(),
                pulse: crate::maintenance::LastPulse::default(),
                instance_key: tokio::sync::OnceCell::new(),
                opened_at: now,
                held: Mutex::new(vec![Arc::downgrade(&generation)]),
                generation: RwLock::new(generation),
                kept: Kept::default(),
                listener: Mutex::new(None),
                lock: Mutex::new(Some(lock)),
            }),
        };
        if engine.config().query.strict {
            engine.queries().isolation().await?;
        }
        if crate::orchestrator::is_behind(engine.folder(), &engine.generation())
            && let Err(error) = crate::orchestrator::rebuild_all(&engine).await
        {
            tracing::error!(code = error.code(), "a damaged catalog could not be made anew: {error}");
        }
        let attach = &engine.config().attach;
        let effective = crate::orchestrator::AttachPolicy::of(engine.config());
        tracing::info!(
            extensions = effective.extensions.join(","),
            extensions_overridden = attach.extensions.is_some(),
            token_envs = effective.token_envs.join(","),
            token_envs_overridden = attach.token_envs.is_some(),
            "what extracts may ask to attach"
        );
        engine.keep_configured_sources(&engine.config().data_source).await;
        if let Some(folder) = &engine.config().data_source.jira_raw
            && let Err(error) = engine.keep_raw_folder(folder)
        {
            tracing::error!(code = error.code(), hint = error.hint(), "`JIRA_DATA_DIR` is not used: {error}");
        }
        engine.warn_of_sources().await;
        let (extracts, ttl) = (engine.folder().extracts(), engine.config().sync.materialize_lock_ttl);
        crate::duck::blocking(move || {
            crate::sync::sweep_claims(&extracts, ttl, now);
            Ok(())
        })
        .await?;
        let listener = Listener::start(engine.folder(), engine.downgrade())?;
        *engine.inner.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        let weak = engine.downgrade();
        tokio::spawn(async move {
            tokio::time::sleep(RESUME_AFTER).await;
            if let Some(engine) = weak.upgrade() {
                crate::profile::start(&engine);
            }
        });
        Ok(engine)
    }
}

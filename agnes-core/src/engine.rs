//! The one handle every frontend holds.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::connector::ConnectorRegistry;
use crate::error::Result;
use crate::layout::DataFolder;
use crate::orchestrator::Generation;
use crate::rbac::AccessSnapshot;
use crate::secret::{EnvSecrets, SecretSource};
use crate::store::Store;

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
    access: RwLock<Option<Arc<AccessSnapshot>>>,
}

impl Engine {
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

    pub(crate) fn connectors(&self) -> &ConnectorRegistry {
        &self.inner.connectors
    }

    pub(crate) fn secrets(&self) -> &Arc<dyn SecretSource> {
        &self.inner.secrets
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The published catalog, as of now. It stays valid however long it is held.
    #[must_use]
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.inner.generation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `generation` the one that later calls see.
    pub(crate) fn set_generation(&self, generation: Arc<Generation>) {
        *self.inner.generation.write().unwrap_or_else(PoisonError::into_inner) = generation;
    }

    /// Users, groups and grants as of the current revision.
    pub(crate) async fn access(&self) -> Result<Arc<AccessSnapshot>> {
        let revision = self.store().revision();
        if let Some(snapshot) = self.inner.access.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && snapshot.revision == revision
        {
            return Ok(snapshot.clone());
        }
        let snapshot = Arc::new(self.store().access().snapshot().await?);
        *self.inner.access.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
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
        }
    }
}

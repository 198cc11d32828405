//! What a source satisfies. Core owns the run, isolation, deadline, carry-forward,
//! publication and state; a connector speaks to the source and fills a writer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::extract::TableWriter;
use crate::ident::{SourceName, TableName};
use crate::registry::{RegisteredTable, SyncStrategy};
use crate::secret::SecretSource;

/// What a connector can do. Core asks, and answers `unsupported` in one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Lists the source's tables.
    pub discover: bool,
    /// Reads only what changed.
    pub incremental: bool,
    /// Writes one part for each value of a column or period.
    pub partitioned: bool,
    /// Leaves tables at the source.
    pub remote: bool,
    /// Runs stored queries at the source.
    pub materialize: bool,
}

/// A source a connector works for.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// Its name.
    pub name: SourceName,
    /// Its settings, a JSON object.
    pub config: serde_json::Value,
    /// Where its secrets come from.
    pub secrets: Arc<dyn SecretSource>,
    /// Parent of scratch folders.
    pub scratch: PathBuf,
    /// Set when the run should end.
    pub cancel: Cancel,
    /// Told about progress.
    pub progress: Progress,
}

/// Says that a run should end; cheap to ask, so ask often.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    parent: Option<Arc<Cancel>>,
    hooks: Arc<std::sync::Mutex<Vec<crate::duck::Interrupter>>>,
}

impl Cancel {
    /// Asks the run to end, and interrupts the engine work registered by [`Cancel::interrupts`].
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        for hook in self.hooks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            hook.interrupt();
        }
    }

    /// Whether the run should end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// One that can be cancelled alone, and is cancelled with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { parent: Some(Arc::new(self.clone())), ..Self::default() }
    }

    /// Has `interrupter` interrupted when the run is cancelled (at once, if it already is).
    pub fn interrupts(&self, interrupter: crate::duck::Interrupter) {
        if self.is_cancelled() {
            interrupter.interrupt();
        }
        if let Some(parent) = &self.parent {
            parent.interrupts(interrupter.clone());
        }
        self.hooks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(interrupter);
    }

    /// Ends the work with `cancelled` when the run should end.
    ///
    /// # Errors
    /// `cancelled`.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Cancelled.into()) } else { Ok(()) }
    }
}

/// The run was cancelled or its deadline passed.
#[derive(Debug, thiserror::Error)]
#[error("the run was cancelled")]
pub struct Cancelled;

impl crate::error::Coded for Cancelled {
    fn kind(&self) -> crate::error::ErrorKind {
        crate::error::ErrorKind::Unavailable
    }
    fn code(&self) -> &str {
        "cancelled"
    }
}

/// One step of progress, for progress bars and run logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProgressEvent {
    /// A table was started; `total_bytes` of input are expected, when known. Comes again when
    /// that is known only later.
    TableStarted {
        /// The source.
        source: String,
        /// The table.
        table: String,
        /// Bytes of input, when known.
        total_bytes: Option<u64>,
    },
    /// Input read so far.
    TableProgress {
        /// The source.
        source: String,
        /// The table.
        table: String,
        /// Bytes of input read so far.
        bytes: u64,
    },
    /// A table ended.
    TableFinished {
        /// The source.
        source: String,
        /// The table.
        table: String,
        /// `ok`, `unchanged`, `skipped` or `error`.
        status: String,
        /// Rows now.
        rows: u64,
        /// Bytes of Parquet now.
        bytes: u64,
    },
    /// A stage of the whole run began: `extract`, `publish`, `profile`.
    Stage {
        /// Its name.
        name: String,
    },
}

/// Where progress goes.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(ProgressEvent) + Send + Sync>>);

impl Progress {
    /// Hands every event to `sink`, on whatever thread it happens.
    #[must_use]
    pub fn to(sink: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    /// Reports one event.
    pub fn report(&self, event: ProgressEvent) {
        if let Some(sink) = &self.0 {
            sink(event);
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(..)" } else { "Progress(none)" })
    }
}

/// A table found at a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiscoveredTable {
    /// Name to publish it under.
    pub name: TableName,
    /// Its own name at the source.
    pub source_table: String,
    /// For people.
    pub description: Option<String>,
    /// How it should be brought up to date.
    pub sync_strategy: SyncStrategy,
    /// Column that names the part a row belongs to.
    pub partition_by: Option<String>,
    /// Columns that identify a row, when known.
    pub primary_key: Option<Vec<String>>,
    /// Settings of the connector for this table alone.
    pub options: Option<serde_json::Value>,
    /// Bytes at the source, when known.
    pub size_bytes: Option<u64>,
}

/// One line of a connection check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckItem {
    /// What was checked.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// For people; no path outside the configuration, no secret.
    pub detail: String,
}

/// What core asks of a connector for one table.
#[derive(Debug, Clone)]
pub struct ExtractRequest {
    /// The registry row.
    pub table: RegisteredTable,
    /// Its published name.
    pub name: TableName,
    /// The cursor the last good run left, opaque to core.
    pub cursor: Option<serde_json::Value>,
    /// When the last good run ended.
    pub last_sync: Option<chrono::DateTime<chrono::Utc>>,
    /// Ignore the cursor: read everything.
    pub full: bool,
}

/// What a connector leaves behind for one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExtractReport {
    /// Nothing changed at the source: the last data stays as it is.
    pub unchanged: bool,
    /// Cursor for the next run.
    pub cursor: Option<serde_json::Value>,
    /// Rows put aside because they do not fit.
    pub rejected_rows: u64,
    /// For the run's log: one sentence each.
    pub notes: Vec<String>,
}

/// One kind of source. Implementations are registered by an ordinary function.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// Its kind: `files`, `keboola`, ... the registry's `source_type`.
    fn kind(&self) -> &'static str;
    /// What it can do.
    fn capability(&self) -> Capability;
    /// Reads the settings of a source and returns them as they should be stored (defaults
    /// left out, paths made absolute); refuses unknown keys and impossible values.
    ///
    /// # Errors
    /// `invalid_config` and whatever else the settings deserve.
    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value>;
    /// Checks that the source answers.
    ///
    /// # Errors
    /// Only when the check itself cannot run; a source that does not answer is an item.
    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>>;
    /// Lists the source's tables.
    ///
    /// # Errors
    /// Whatever the source said, in plain words.
    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>>;
    /// Reads one table into `writer`. On an error nothing that was written counts.
    ///
    /// # Errors
    /// Whatever went wrong with this table.
    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)>;
}

/// The connectors an engine knows, by kind.
#[derive(Debug, Clone, Default)]
pub struct ConnectorRegistry(BTreeMap<&'static str, Arc<dyn Connector>>);

impl ConnectorRegistry {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `connector` added; one of the same kind is replaced.
    #[must_use]
    pub fn with(mut self, connector: impl Connector + 'static) -> Self {
        self.0.insert(connector.kind(), Arc::new(connector));
        self
    }

    /// The connector of this kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Connector>> {
        self.0.get(kind).cloned()
    }

    /// The known kinds.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

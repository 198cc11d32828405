//! What a source satisfies. Core owns the run, isolation, deadline, carry-forward,
//! publication and state; a connector speaks to the source and fills a writer.

mod warehouse;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::extract::{RemoteRelation, TableWriter};
use crate::ident::{SourceName, TableName};
use crate::orchestrator::AttachPolicy;
use crate::registry::{ColumnMetadata, QueryMode, RegisteredTable, SyncStrategy};
use crate::secret::SecretSource;

pub use warehouse::*;

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
    /// What the operator lets connectors reach: hosts of databases, folders, extensions.
    pub attach: Arc<AttachPolicy>,
    /// How long one table may take, to tell a server when to give up.
    pub timeout: Duration,
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
    /// The container it is in, at a source that has such: bucket, dataset.
    #[serde(default)]
    pub bucket: Option<String>,
    /// What people call that container, where it is told apart from its id.
    #[serde(default)]
    pub bucket_name: Option<String>,
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
    /// Rows at the source, as it estimates them.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Names and types of its columns, when listing them costs nothing more.
    #[serde(default)]
    pub columns: Vec<(String, String)>,
    /// When it was changed last at the source, as the source writes it.
    #[serde(default)]
    pub last_change: Option<String>,
    /// When something was last written into it at the source, as the source writes it.
    #[serde(default)]
    pub last_import: Option<String>,
    /// Where its rows should be.
    #[serde(default = "local")]
    pub query_mode: QueryMode,
    /// SQL of a materialized table.
    #[serde(default)]
    pub source_query: Option<String>,
}

fn local() -> QueryMode {
    QueryMode::Local
}

impl DiscoveredTable {
    /// Its name at the source, after that of its container where it is in one.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.bucket {
            Some(bucket) => format!("{bucket}.{}", self.source_table),
            None => self.source_table.clone(),
        }
    }

    /// A local table that is read whole each time, of which nothing else is known.
    #[must_use]
    pub fn new(name: TableName, source_table: impl Into<String>) -> Self {
        Self {
            name,
            bucket: None,
            bucket_name: None,
            source_table: source_table.into(),
            description: None,
            sync_strategy: SyncStrategy::FullRefresh,
            partition_by: None,
            primary_key: None,
            options: None,
            size_bytes: None,
            rows: None,
            columns: Vec::new(),
            last_change: None,
            last_import: None,
            query_mode: QueryMode::Local,
            source_query: None,
        }
    }
}

/// One line of a connection check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Where a table that stays at its source is; nothing was written then.
    pub remote: Option<RemoteRelation>,
}

/// What came of telling a source about columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnsTold {
    /// Columns that it knows more of now.
    pub pushed: usize,
    /// One sentence for each column that it did not take.
    pub errors: Vec<String>,
}

/// One kind of source. Implementations are registered by an ordinary function.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// Its kind: `files`, `keboola`, ... the registry's `source_type`.
    fn kind(&self) -> &'static str;
    /// What it can do.
    fn capability(&self) -> Capability;
    /// What in the settings of a source will cost people time later, a sentence each.
    fn warnings(&self, _config: &serde_json::Value) -> Vec<String> {
        Vec::new()
    }
    /// The same source, where it answers queries itself.
    fn warehouse(&self) -> Option<&dyn Warehouse> {
        None
    }
    /// The engine's extension that asks tables which stay at the source, where it takes one.
    fn remote_extension(&self) -> Option<&'static str> {
        None
    }
    /// Where the settings say that the source is, as the engine's extension names it: its extract may
    /// have tables asked there although the operator lists no host.
    fn remote_address(&self, _source: &SourceContext) -> Option<String> {
        None
    }
    /// How many of a source's tables may be read at a time.
    fn parallel_tables(&self, _source: &SourceContext) -> usize {
        1
    }
    /// Reads the settings of a source and returns them as they should be stored (defaults
    /// left out, paths made absolute); refuses unknown keys and impossible values.
    ///
    /// # Errors
    /// `invalid_config` and whatever else the settings deserve.
    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value>;
    /// Why these settings are for whoever runs the machine alone, in words: they name a file of it, or
    /// send its secrets to a host that its operator did not name. Nothing where an admin may add the
    /// source from afar, through a server.
    fn for_operators(&self, _source: &SourceContext) -> Option<String> {
        Some("a source of this kind may read whatever the server's machine can".to_owned())
    }
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
    /// Columns that identify a row of a table, none where it has no such; `None` where the source does
    /// not say, or where the table's strategy needs none.
    ///
    /// # Errors
    /// What keeps it from being asked.
    async fn primary_key(&self, _source: &SourceContext, _table: &RegisteredTable) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
    /// Tells the source what people wrote about columns of a table; none where it takes nothing
    /// of that.
    ///
    /// # Errors
    /// What keeps it from being told anything.
    async fn tell_columns(
        &self,
        _source: &SourceContext,
        _table: &RegisteredTable,
        _columns: &[ColumnMetadata],
    ) -> Result<Option<ColumnsTold>> {
        Ok(None)
    }
    /// Reads what the tables of a run share, once before any of them is read; `folder` is that of
    /// the extract. Nobody waits for it who publishes this source meanwhile.
    ///
    /// # Errors
    /// Whatever keeps all tables from being read.
    async fn prepare(&self, _source: &SourceContext, _folder: &std::path::Path, _full: bool) -> Result<()> {
        Ok(())
    }
    /// What it does beyond, where its sources tell of their changes by themselves.
    fn push(&self) -> Option<&dyn crate::push::Push> {
        None
    }
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

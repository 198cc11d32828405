//! Sources that tell of their changes by themselves.
//!
//! A delivery is proven by the connector ([`Push::receive`]), kept in the source's inbox, and
//! acknowledged once it is on the disk. A worker takes what waits, one task for each thing that
//! deliveries were about, has the connector fetch what it is now, keeps that as a
//! [document](Documents), and puts the document's rows into the monthly parts of the source's
//! tables ([`apply`]). Then that source alone is published. A document knows its own time of change,
//! so the order in which deliveries arrive does not matter.

mod apply;
mod documents;
mod error;
mod inbox;
mod service;
mod shards;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

pub use documents::{DocumentFile, Documents};
pub use error::PushError;
pub use service::{Attachment, Delivered, PushHealth, Pushes};
pub use shards::{RowsOf, apply, read_columns, rewrite};
pub(crate) use worker::lacking_files;

use crate::connector::SourceContext;
use crate::error::{Error, Result};
use crate::ident::TableName;
use crate::registry::RegisteredSource;

/// A delivery as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, every byte.
    pub body: Vec<u8>,
}

impl Delivery {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a proven delivery says.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The delivery's own id: the same when it is sent again.
    pub id: String,
    /// What kind of event it was.
    pub event: String,
    /// The document it is about.
    pub subject: String,
    /// Whether the document is gone at the source.
    pub deleted: bool,
    /// Whether it tells what the document is now, at least in part.
    pub tells: bool,
    /// All it says.
    pub body: Value,
}

/// How far a source is set up to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Whether what its documents are fetched with is there.
    pub configured: bool,
    /// Whether the secret of its deliveries is there.
    pub secret: bool,
}

/// What fetching a document gave.
#[derive(Debug)]
pub enum Fetched {
    /// There is none of this key.
    Gone,
    /// This one.
    Found {
        /// Its key, which may be another than was asked for.
        key: String,
        /// All of it that could be had.
        document: Value,
        /// What of it could not be had now, where another try may help.
        lacking: Option<Error>,
        /// Other keys that it had before.
        former: Vec<String>,
    },
}

/// What is known anew of a document.
#[derive(Debug)]
pub enum News {
    /// It was fetched.
    Fetched(Value),
    /// A delivery told this.
    Told(Value),
    /// It is gone.
    Gone(DateTime<Utc>),
}

/// One of the tables that documents have rows in.
#[derive(Debug, Clone)]
pub struct PushTable {
    /// Its published name.
    pub name: TableName,
    /// What the source calls it.
    pub source_table: String,
    /// Its columns, the same in every part.
    pub schema: SchemaRef,
    /// The column that names the document; text.
    pub document_column: &'static str,
    /// Columns that identify a row.
    pub primary_key: Vec<String>,
    /// For people.
    pub description: String,
}

/// The rows of one document.
#[derive(Debug, Clone)]
pub struct DocumentRows {
    /// The part they belong to.
    pub part: String,
    /// Other parts that may still hold rows of it.
    pub earlier: Vec<String>,
    /// For each table, in the order of [`Push::tables`]; `None` where nothing is known.
    pub tables: Vec<Option<RecordBatch>>,
}

/// What a longer piece of work on documents did.
#[derive(Debug, Default)]
pub struct Looked {
    /// Documents whose rows may be others now.
    pub changed: BTreeSet<String>,
    /// What to tell of it, an object.
    pub report: Value,
}

/// A source that tells of its changes by itself; part of a [`Connector`](crate::connector::Connector).
#[async_trait]
pub trait Push: Send + Sync {
    /// Whether what it needs is set up.
    fn readiness(&self, source: &SourceContext) -> Readiness;
    /// Proves that the source sent a delivery, and reads it. The signature is checked before
    /// anything of the body is looked at.
    ///
    /// # Errors
    /// `webhook_signature_invalid`, `webhook_invalid`, `push_not_configured`.
    fn receive(&self, source: &SourceContext, delivery: &Delivery) -> Result<Notice>;
    /// The tables its documents have rows in, always the same ones of one configuration.
    ///
    /// # Errors
    /// Where the settings are not usable.
    fn tables(&self, source: &SourceContext) -> Result<Vec<PushTable>>;
    /// Fetches a document with everything that belongs to it.
    ///
    /// # Errors
    /// Where it cannot be had now.
    async fn fetch(&self, source: &SourceContext, documents: &Documents, key: &str) -> Result<Fetched>;
    /// What is kept of a document from now on; `None` where what is there stays. Pure: by the
    /// document's own time of change, not by when it came.
    fn settle(&self, there: Option<&Value>, news: News) -> Option<Value>;
    /// The rows of a document that is kept.
    ///
    /// # Errors
    /// Where it is not a document of this source.
    fn rows(&self, source: &SourceContext, documents: &Documents, key: &str, document: &Value) -> Result<DocumentRows>;
    /// Fetches files that belong to a document and are not here yet; whether any came.
    async fn files(&self, source: &SourceContext, documents: &Documents, key: &str) -> bool;
    /// Documents that files belong to which are not here yet, of all that are kept.
    ///
    /// # Errors
    /// Where the settings are not usable, or documents cannot be read.
    async fn lacking(&self, source: &SourceContext, documents: &Documents) -> Result<Vec<String>>;
    /// Asks for what changes without the source telling.
    ///
    /// # Errors
    /// Where it is not configured, or cannot be asked.
    async fn poll(&self, source: &SourceContext, documents: &Documents) -> Result<Looked>;
    /// Compares the documents of the last `days` with the source, and fetches what is missing.
    ///
    /// # Errors
    /// Where it is not configured, or cannot be asked.
    async fn check(&self, source: &SourceContext, documents: &Documents, days: u32) -> Result<Looked>;
    /// The report of a check that ended, to which documents whose rows could not be taken belong.
    /// Blocks.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn checked(&self, documents: &Documents, report: Value, failed: &[String]) -> Result<Value>;
}

/// How long the list of sources is good for deliveries.
const SOURCES: Duration = Duration::from_secs(1);
/// How long profiles of tables wait that are published again and again.
const PROFILES: Duration = Duration::from_secs(600);

/// What keeps sources that tell by themselves in order.
#[derive(Debug, Default)]
pub(crate) struct PushState {
    /// Inboxes that are open, by source.
    lines: tokio::sync::Mutex<HashMap<String, Arc<worker::Line>>>,
    sources: Mutex<Option<(Instant, Arc<Vec<RegisteredSource>>)>>,
    /// Held while the extract of a source is changed.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// When profiles were last asked for after a publication.
    profiled: Mutex<HashMap<String, Instant>>,
    /// When a delivery was last refused that is in the audit log.
    refused: Mutex<Option<Instant>>,
    /// What is going on that goes on once.
    running: Mutex<BTreeSet<String>>,
    /// Files that are to be fetched, by source.
    files: Mutex<HashMap<String, worker::Files>>,
}

impl PushState {
    /// Held by whoever changes the extract of this source.
    pub(crate) fn turn(&self, source: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(source.to_owned()).or_default().clone()
    }

    /// Whether profiles can wait: all that was published is of sources that are published again
    /// and again, and had their turn a moment ago.
    pub(crate) async fn profiles_can_wait(&self, sources: &BTreeSet<String>) -> bool {
        let lines = self.lines.lock().await;
        if sources.is_empty() || !sources.iter().all(|source| lines.contains_key(source)) {
            return false;
        }
        let mut profiled = self.profiled.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if sources.iter().all(|source| profiled.get(source).is_some_and(|at| now - *at < PROFILES)) {
            return true;
        }
        profiled.extend(sources.iter().map(|source| (source.clone(), now)));
        false
    }

    /// Notes files that are to be fetched: of these documents, else of all that lack some.
    fn want_files(&self, source: &str, keys: Option<BTreeSet<String>>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = files.entry(source.to_owned()).or_default();
        wanted.all |= keys.is_none();
        wanted.told.extend(keys.into_iter().flatten());
    }

    fn wants_files(&self, source: &str) -> bool {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).contains_key(source)
    }

    /// Takes what was noted; that all are wanted stays noted unless `all`.
    fn take_files(&self, source: &str, all: bool) -> worker::Files {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = files.remove(source).unwrap_or_default();
        if taken.all && !all {
            taken.all = false;
            files.insert(source.to_owned(), worker::Files { all: true, ..worker::Files::default() });
        }
        taken
    }

    /// Whether a refusal was written down a moment ago: another one says nothing new.
    fn refused_a_moment_ago(&self) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = refused.is_some_and(|at| at.elapsed() < SOURCES);
        if !recent {
            *refused = Some(Instant::now());
        }
        recent
    }

    /// Ends what is open for a source.
    pub(crate) async fn forget(&self, source: &str) {
        if let Some(line) = self.lines.lock().await.remove(source) {
            line.inbox.close();
        }
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Ends something that goes on once.
struct Once<'a> {
    state: &'a PushState,
    what: String,
}

impl PushState {
    fn once(&self, what: String) -> Result<Once<'_>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert(what.clone()) {
            return Err(PushError::Running.into());
        }
        Ok(Once { state: self, what })
    }
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.state.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

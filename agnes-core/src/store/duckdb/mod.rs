//! State in one embedded DuckDB file. One connection writes, a few read; every write is a
//! transaction. Calls block, so they run on blocking threads.

mod access;
mod audit;
mod copies;
mod credentials;
mod directory;
mod internal;
mod jobs;
mod metadata;
mod migrate;
mod oauth;
mod ownership;
mod policies;
mod preferences;
mod profiles;
mod recover;
mod requests;
mod rules;
mod schema;
mod sources;
mod sync;
mod tables;
mod templates;
mod tokens;
mod usage;
mod users;
mod values;
mod views;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::duckdb::Connection;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{InternalScope, STATE_SCHEMA_VERSION, SchemaInfo, Store};
use crate::audit::{AuditRepository, ViewRepository};
use crate::duck::{blocking, engine_error};
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::extract::fsio;
use crate::identity::{
    AccessRequestRepository, CredentialRepository, OAuthRepository, TokenRepository, UserRepository,
};
use crate::policy::PolicyRepository;
use crate::rbac::AccessRepository;
use crate::registry::{OwnershipRepository, SourceRepository, TableRepository};
use crate::sync::{JobRepository, PreferenceRepository, ProfileRepository, SyncRepository};

/// Connections kept for readers; more are opened when needed and closed afterwards.
const READERS: usize = 4;

/// The embedded state store.
#[derive(Debug, Clone)]
pub struct DuckStore {
    db: Db,
}

/// What can be wrong with a state file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StateError {
    #[error("the state has schema version {found}, this Agnes writes version {STATE_SCHEMA_VERSION}")]
    TooNew { found: i32 },
    #[error("the state file cannot be opened")]
    Unreadable,
    #[error("the state is closed")]
    Closed,
    #[error("the state file is open in another process")]
    Locked,
    #[error("the write-ahead log of the state cannot be replayed, and no earlier state can be read")]
    LogBroken,
    #[error("a copy of the state is not what the state is")]
    CopyBroken,
}

impl Coded for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooNew { .. } | Self::Unreadable | Self::LogBroken | Self::CopyBroken => ErrorKind::DataInvalid,
            Self::Closed | Self::Locked => ErrorKind::Unavailable,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TooNew { .. } => "state_too_new",
            Self::Unreadable => "state_unreadable",
            Self::Closed => "state_closed",
            Self::Locked => "state_locked",
            Self::LogBroken => "state_log_broken",
            Self::CopyBroken => "state_copy_broken",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooNew { .. } => Some("upgrade Agnes, or restore a backup that this version made".to_owned()),
            Self::Unreadable => Some("restore a backup with `agnes restore`; the log has the cause".to_owned()),
            Self::Closed => None,
            Self::Locked => Some("stop the other process, or use its data folder through it".to_owned()),
            Self::LogBroken => Some(
                "nothing was changed: keep the state folder, and restore a backup into a new one with `agnes restore`"
                    .to_owned(),
            ),
            Self::CopyBroken => Some("check the disk of the target folder; the log has the cause".to_owned()),
        }
    }
}

/// The connections, shared by all repositories.
#[derive(Debug, Clone)]
struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
    revision: AtomicU64,
    credentials: AtomicU64,
    syncs: AtomicU64,
}

impl Db {
    /// Runs `work` on a connection of its own for reading, in one transaction.
    async fn read<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> ::duckdb::Result<T> + Send + 'static,
    {
        let inner = self.inner.clone();
        blocking(move || {
            let conn = inner.reader()?;
            let result = transaction(&conn, |conn| work(conn).map_err(|e| engine_error(action, &e)));
            if result.is_ok() {
                inner.give_back(conn);
            }
            result
        })
        .await
    }

    /// Runs `work` in one transaction of the writer; an error rolls it back.
    async fn write<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        self.write_then(action, work, |_, _| ()).await
    }

    /// As [`Db::write`]; what follows the transaction happens even if nobody waits for it any
    /// more, as when a client hangs up.
    async fn write_then<T, F, A>(&self, action: &'static str, work: F, after: A) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
        A: FnOnce(&Inner, &Result<T>) + Send + 'static,
    {
        let inner = self.inner.clone();
        blocking(move || {
            let writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let conn = writer.as_ref().ok_or(StateError::Closed)?;
            let done = transaction(conn, |conn| {
                let done = work(conn).map_err(|fail| match fail {
                    Fail::Engine(error) => engine_error(action, &error),
                    Fail::Domain(error) => error,
                });
                fsio::kill_point();
                done
            });
            after(&inner, &done);
            fsio::kill_point();
            done
        })
        .await
    }

    /// As [`Db::write`], for changes that access decisions depend on.
    async fn write_access<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        let moved = |inner: &Inner, _: &Result<T>| _ = inner.revision.fetch_add(1, Ordering::SeqCst);
        self.write_then(action, work, moved).await
    }

    /// As [`Db::write`], for changes of the state of syncs, and of what people want of them.
    async fn write_syncs<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        let moved = |inner: &Inner, _: &Result<T>| _ = inner.syncs.fetch_add(1, Ordering::SeqCst);
        self.write_then(action, work, moved).await
    }

    /// As [`Db::write`], for changes of what credentials are worth.
    async fn write_credentials<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fail> + Send + 'static,
    {
        let moved = |inner: &Inner, _: &Result<T>| _ = inner.credentials.fetch_add(1, Ordering::SeqCst);
        self.write_then(action, work, moved).await
    }
}

impl Inner {
    /// The sum moves whichever of the two does.
    fn credential_revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst) + self.credentials.load(Ordering::SeqCst)
    }

    fn reader(&self) -> Result<Connection> {
        if let Some(conn) = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(conn);
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = writer.as_ref().ok_or(StateError::Closed)?;
        let conn = conn.try_clone().map_err(|e| engine_error("open the state", &e))?;
        conn.execute_batch(crate::duck::utc()).map_err(|e| engine_error("open the state", &e))?;
        Ok(conn)
    }

    fn give_back(&self, conn: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS {
            readers.push(conn);
        }
    }
}

/// Why a write ends: the engine, or a rule of the domain.
enum Fail {
    Engine(::duckdb::Error),
    Domain(Error),
}

impl From<::duckdb::Error> for Fail {
    fn from(error: ::duckdb::Error) -> Self {
        Self::Engine(error)
    }
}

/// Ends a write with an error of the domain.
fn refuse<T>(error: impl Coded + Send + Sync + 'static) -> Result<T, Fail> {
    Err(Fail::Domain(error.into()))
}

fn transaction<T>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    conn.execute_batch("BEGIN").map_err(|e| engine_error("begin a transaction of the state", &e))?;
    match work(conn) {
        Ok(value) => match conn.execute_batch("COMMIT") {
            Ok(()) => Ok(value),
            Err(error) => {
                drop(conn.execute_batch("ROLLBACK"));
                Err(engine_error("commit a transaction of the state", &error))
            }
        },
        Err(error) => {
            drop(conn.execute_batch("ROLLBACK"));
            Err(error)
        }
    }
}

fn open_file(path: &Path) -> Result<Connection> {
    let open = || -> ::duckdb::Result<Connection> {
        // Each statement on the thread that asks: another one would take part in what is over sooner
        // than it wakes up, while the asking one spins.
        let config = ::duckdb::Config::default()
            .with("autoinstall_known_extensions", "false")?
            .with("autoload_known_extensions", "false")?
            .threads(1)?;
        let conn = Connection::open_with_flags(path, config)?;
        conn.execute_batch(&format!("{} SET memory_limit='1GB'", crate::duck::utc()))?;
        Ok(conn)
    };
    open().map_err(|error| open_error(&error.to_string()))
}

fn open_error(words: &str) -> Error {
    tracing::error!("the state file cannot be opened: {words}");
    let locked = words.contains("Could not set lock");
    if locked { StateError::Locked } else { StateError::Unreadable }.into()
}

impl DuckStore {
    /// Opens the state file at `path`, makes it when missing, migrates an older one. Where
    /// its write-ahead log is broken it takes the newest state that can be read, keeps the
    /// broken files aside as `<file>.broken.<seconds>` and says so in the audit. Blocks.
    ///
    /// # Errors
    /// `state_too_new`, `state_unreadable`, `state_log_broken`, `state_locked`, `disk_full`.
    pub fn open(path: &Path, now: DateTime<Utc>) -> Result<Self> {
        let recovered = migrate::prepare(path, now)?;
        let conn = open_file(path)?;
        schema::bring_up_to_date(&conn, now)?;
        if let Some(recovered) = recovered {
            recover::record(&conn, &recovered, now)?;
        }
        if has_bytes(&wal_of(path)) {
            // What a kill left in the log is in the file from now on.
            checkpoint(&conn)?;
        }
        let inner = Inner {
            path: path.to_owned(),
            writer: Mutex::new(Some(conn)),
            readers: Mutex::new(Vec::new()),
            revision: AtomicU64::new(1),
            credentials: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        };
        Ok(Self { db: Db { inner: Arc::new(inner) } })
    }
}

#[async_trait]
impl Store for DuckStore {
    fn users(&self) -> Arc<dyn UserRepository> {
        Arc::new(users::Users(self.db.clone()))
    }
    fn credentials(&self) -> Arc<dyn CredentialRepository> {
        Arc::new(credentials::Credentials(self.db.clone()))
    }
    fn tokens(&self) -> Arc<dyn TokenRepository> {
        Arc::new(tokens::Tokens(self.db.clone()))
    }
    fn oauth(&self) -> Arc<dyn OAuthRepository> {
        Arc::new(oauth::OAuth(self.db.clone()))
    }
    fn access_requests(&self) -> Arc<dyn AccessRequestRepository> {
        Arc::new(requests::Requests(self.db.clone()))
    }
    fn access(&self) -> Arc<dyn AccessRepository> {
        Arc::new(access::Access(self.db.clone()))
    }
    fn policies(&self) -> Arc<dyn PolicyRepository> {
        Arc::new(policies::Policies(self.db.clone()))
    }
    fn tables(&self) -> Arc<dyn TableRepository> {
        Arc::new(tables::Tables(self.db.clone()))
    }
    fn sources(&self) -> Arc<dyn SourceRepository> {
        Arc::new(sources::Sources(self.db.clone()))
    }
    fn ownership(&self) -> Arc<dyn OwnershipRepository> {
        Arc::new(ownership::Ownership(self.db.clone()))
    }
    fn sync(&self) -> Arc<dyn SyncRepository> {
        Arc::new(sync::Syncs(self.db.clone()))
    }
    fn profiles(&self) -> Arc<dyn ProfileRepository> {
        Arc::new(profiles::Profiles(self.db.clone()))
    }
    fn preferences(&self) -> Arc<dyn PreferenceRepository> {
        Arc::new(preferences::Preferences(self.db.clone()))
    }
    fn jobs(&self) -> Arc<dyn JobRepository> {
        Arc::new(jobs::Jobs(self.db.clone()))
    }
    fn metadata(&self) -> Arc<dyn crate::warehouse::MetadataRepository> {
        Arc::new(metadata::Metadata(self.db.clone()))
    }
    fn usage(&self) -> Arc<dyn crate::scan::UsageRepository> {
        Arc::new(usage::Usages(self.db.clone()))
    }
    fn views(&self) -> Arc<dyn ViewRepository> {
        Arc::new(views::Views(self.db.clone()))
    }
    fn templates(&self) -> Arc<dyn crate::templates::TemplateRepository> {
        Arc::new(templates::Templates(self.db.clone()))
    }
    fn audit(&self) -> Arc<dyn AuditRepository> {
        Arc::new(audit::Audits(self.db.clone()))
    }

    fn revision(&self) -> u64 {
        self.db.inner.revision.load(Ordering::SeqCst)
    }

    fn credential_revision(&self) -> u64 {
        self.db.inner.credential_revision()
    }

    fn sync_revision(&self) -> u64 {
        self.db.inner.syncs.load(Ordering::SeqCst)
    }

    async fn internal_rows(&self, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>> {
        internal::rows(&self.db, table, only).await
    }

    async fn schema(&self) -> Result<SchemaInfo> {
        let version = self.db.read("read the state's version", schema::version).await?;
        Ok(SchemaInfo { version, writable: version <= STATE_SCHEMA_VERSION })
    }

    async fn checkpoint(&self) -> Result<()> {
        let inner = self.db.inner.clone();
        blocking(move || inner.with_writer(checkpoint)).await
    }

    async fn backup_to(&self, folder: &Path) -> Result<()> {
        let (inner, folder) = (self.db.inner.clone(), folder.to_owned());
        blocking(move || {
            std::fs::create_dir_all(&folder).map_err(|e| Error::io("make the backup's folder", e))?;
            let target = folder.join("system.duckdb");
            let held = inner.with_writer(|conn| {
                // Nobody else writes meanwhile.
                checkpoint(conn)?;
                let held = copies::Contents::of(conn)?;
                copies::copy(&inner.path, &target)?;
                Ok(held)
            })?;
            copies::verify(&target, Some(&held)).map(drop)
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        let inner = self.db.inner.clone();
        blocking(move || {
            inner.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let Some(conn) = inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
            // Best effort: what is committed is in the write-ahead log anyway.
            if let Err(error) = checkpoint(&conn) {
                tracing::warn!(code = error.code(), "the state was closed without a checkpoint: {error}");
            }
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn with_writer<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        work(writer.as_ref().ok_or(StateError::Closed)?)
    }
}

fn checkpoint(conn: &Connection) -> Result<()> {
    conn.execute_batch("CHECKPOINT").map_err(|e| engine_error("checkpoint the state", &e))
}

fn wal_of(path: &Path) -> PathBuf {
    copies::beside(path, ".wal")
}

fn has_bytes(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

//! One table of a run: read by its connector in bounded time, again where that may help.

use std::sync::Arc;
use std::time::Duration;

use super::SyncState;
use super::claim::Claim;
use crate::connector::{Cancel, Cancelled, Connector, ExtractReport, ExtractRequest, Progress};
use crate::engine::Engine;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::extract::{self, TableWriter};
use crate::ident::TableName;
use crate::registry::{self, QueryMode, RegisteredSource, RegisteredTable};

/// How long a connector may take to end once it was told to.
const GRACE: Duration = Duration::from_secs(10);
/// Below this much free space nothing is started.
const MIN_FREE_BYTES: u64 = 16 << 20;
/// Longest wait before another attempt at a table.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What can keep a table from being brought up to date, beside its source.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("reading it took longer than {seconds} s")]
    Deadline { seconds: u64 },
    #[error("only {free} MiB are free on the disk of the data folder")]
    DiskNearlyFull { free: u64 },
    #[error("`{mode}` tables are not supported by a source of kind `{kind}`")]
    Unsupported { mode: &'static str, kind: String },
    #[error("another program copies it just now")]
    InFlight,
    #[error("it was read but not published: {detail}")]
    NotPublished { reason: String, detail: String },
}

impl Coded for RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Deadline { .. } | Self::DiskNearlyFull { .. } | Self::InFlight => ErrorKind::Unavailable,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NotPublished { .. } => ErrorKind::DataInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Deadline { .. } => "extract_timeout",
            Self::DiskNearlyFull { .. } => "disk_full",
            Self::Unsupported { .. } => "unsupported_query_mode",
            Self::InFlight => "in_flight",
            Self::NotPublished { reason, .. } => reason,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Deadline { .. } => {
                Some("raise `sync.table_timeout_seconds`, or split the table into parts".to_owned())
            }
            Self::DiskNearlyFull { .. } => Some("free some space, or run `agnes gc`".to_owned()),
            Self::InFlight => {
                Some("`materialize.lock_ttl_seconds` says when a forgotten lock is taken over".to_owned())
            }
            Self::Unsupported { .. } => None,
            Self::NotPublished { .. } => Some("`agnes rebuild` shows what each source published".to_owned()),
        }
    }
    fn only_later_helps(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::DiskNearlyFull { .. })
    }
}

/// How long the source asked to be left alone.
pub(super) fn retry_after(error: &Error) -> Duration {
    let seconds = error.facts().and_then(|facts| facts.get("retry_after_seconds")?.as_u64());
    Duration::from_secs(seconds.unwrap_or_default())
}

/// A table of a run with what its last run left.
pub(super) struct Target {
    pub(super) row: Arc<RegisteredTable>,
    pub(super) name: TableName,
    pub(super) state: Option<SyncState>,
}

impl Engine {
    /// Says that this process copies a table, where copies are made by a stored query: other programs
    /// may write the same folder.
    pub(super) async fn claim(&self, source: &RegisteredSource, target: &Target) -> Result<Option<Claim>> {
        if target.row.query_mode != QueryMode::Materialized {
            return Ok(None);
        }
        let (folder, name) = (self.folder().extract(&source.name), target.name.clone());
        let (ttl, now) = (self.config().sync.materialize_lock_ttl, self.clock().now());
        let claim = crate::duck::blocking(move || Claim::take(&folder, &name, ttl, now)).await?;
        claim.map(Some).ok_or_else(|| RunError::InFlight.into())
    }

    /// One table, with deadline and further attempts where the error says they may help.
    pub(super) async fn sync_table(
        &self,
        connector: &Arc<dyn Connector>,
        source: &RegisteredSource,
        target: &Target,
        full: bool,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<(TableWriter, ExtractReport)> {
        let supported = match target.row.query_mode {
            QueryMode::Local => true,
            QueryMode::Remote => connector.capability().remote,
            QueryMode::Materialized => connector.capability().materialize,
            QueryMode::Internal => false,
        };
        if !supported {
            return Err(
                RunError::Unsupported { mode: target.row.query_mode.as_str(), kind: source.kind.clone() }.into()
            );
        }
        let attempts = self.config().sync.attempts.max(1);
        let mut wait = Duration::from_secs(1);
        let mut attempt = 1;
        loop {
            cancel.check()?;
            self.check_free_space()?;
            let result = self.attempt(connector, source, target, full, cancel, progress).await;
            match result {
                Err(error)
                    if attempt < attempts
                        && error.is_retryable()
                        && !error.only_later_helps()
                        && retry_after(&error) <= MAX_BACKOFF
                        && !cancel.is_cancelled() =>
                {
                    tracing::warn!(table = %target.name, attempt, code = error.code(), "reading a table failed, trying again: {error}");
                    tokio::time::sleep(wait.max(retry_after(&error))).await;
                    wait = (wait * 4).min(MAX_BACKOFF);
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn attempt(
        &self,
        connector: &Arc<dyn Connector>,
        source: &RegisteredSource,
        target: &Target,
        full: bool,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<(TableWriter, ExtractReport)> {
        let own = cancel.child();
        let context = registry::context(self, source, own.clone(), progress.clone());
        let extract = self.folder().extract(&source.name);
        // "Nothing new since" means nothing where what there was is gone.
        let (folder, name) = (extract.clone(), target.name.clone());
        let has_data = crate::duck::blocking(move || Ok(extract::table_files(&folder, &name)?.is_some())).await?;
        let request = ExtractRequest {
            table: (*target.row).clone(),
            name: target.name.clone(),
            cursor: target.state.as_ref().filter(|_| has_data).and_then(|s| s.cursor.clone()),
            last_sync: target.state.as_ref().and_then(|s| s.last_sync),
            full,
        };
        let writer = TableWriter::new(&extract, target.name.clone());
        let connector = connector.clone();
        // A task of its own: a panic in a connector stays in its table.
        let mut task = tokio::spawn(async move { connector.extract(&context, &request, writer).await });
        let deadline = self.config().sync.table_timeout;
        let joined = tokio::select! {
            joined = &mut task => joined,
            () = tokio::time::sleep(deadline) => {
                own.cancel();
                if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                    task.abort();
                }
                return Err(RunError::Deadline { seconds: deadline.as_secs() }.into());
            }
        };
        let result = joined.map_err(|panic| Error::internal("run a connector", panic))?;
        if cancel.is_cancelled() { Err(Cancelled.into()) } else { result }
    }

    fn check_free_space(&self) -> Result<()> {
        let free = free_bytes(self.folder().root())?;
        if free < MIN_FREE_BYTES { Err(RunError::DiskNearlyFull { free: free >> 20 }.into()) } else { Ok(()) }
    }
}

/// Bytes that this process may still write on the disk of `folder`.
pub(crate) fn free_bytes(folder: &std::path::Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder).map_err(|e| Error::io("ask for the free space", e.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

//! The bridge to DuckDB: with [`crate::store::duckdb`], the only modules that name `::duckdb`.
//!
//! DuckDB blocks its thread: cross into async once, by [`blocking`].

mod columns;
mod icu;
mod memory;
mod scratch;
mod stream;

pub(crate) use icu::{look_for_extensions_in, utc};
pub(crate) use memory::{Bind, MemoryConn, MemoryDb, StreamInterrupter};
pub use scratch::*;
pub(crate) use stream::Stream;

use crate::error::{Coded, Error, ErrorKind, Result};

/// Version of the DuckDB library this build is linked to, e.g. `v1.5.5`.
///
/// # Errors
/// `internal` when the library cannot be opened.
pub fn version() -> Result<String> {
    let conn = ::duckdb::Connection::open_in_memory().map_err(|e| engine_error("open the engine", &e))?;
    conn.version().map_err(|e| engine_error("ask the engine's version", &e))
}

/// Runs `work` on a thread that may block.
///
/// # Errors
/// Those of `work`; `internal` when it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(Error::internal("run a blocking task", panic)),
    }
}

/// DuckDB refused or failed a statement of Agnes's own. The engine's words are kept as the
/// source for the log, never in the message: they may hold paths and secrets.
#[derive(Debug, thiserror::Error)]
#[error("the engine could not {action}")]
pub struct EngineFailure {
    action: &'static str,
    kind: ErrorKind,
    code: &'static str,
    words: String,
    #[source]
    cause: EngineWords,
}

/// What DuckDB said. Only for logs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct EngineWords(String);

impl EngineFailure {
    /// What DuckDB said. It may hold paths and values: scrub it before anybody sees it.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }
}

impl Coded for EngineFailure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
    fn code(&self) -> &str {
        self.code
    }
    fn hint(&self) -> Option<String> {
        (self.code == "disk_full").then(|| "free some space on the disk that holds the data folder".to_owned())
    }
    fn only_later_helps(&self) -> bool {
        self.code == "disk_full"
    }
}

/// `cause` as an engine failure; `action` is a phrase such as "read the footer".
#[must_use]
pub fn engine_failure(action: &'static str, cause: &::duckdb::Error) -> EngineFailure {
    failure_of_words(action, cause.to_string())
}

/// An engine failure from what the engine said.
pub(crate) fn failure_of_words(action: &'static str, words: String) -> EngineFailure {
    let lower = words.to_lowercase();
    let (kind, code) = if lower.contains("no space left") || lower.contains("disk quota") {
        (ErrorKind::Unavailable, "disk_full")
    } else if lower.contains("out of memory") {
        (ErrorKind::LimitExceeded, "out_of_memory")
    } else if lower.contains("interrupt") {
        (ErrorKind::Unavailable, "interrupted")
    } else {
        (ErrorKind::Internal, "engine_error")
    };
    EngineFailure { action, kind, code, cause: EngineWords(words.clone()), words }
}

/// [`engine_failure`] as an [`Error`].
#[must_use]
pub fn engine_error(action: &'static str, cause: &::duckdb::Error) -> Error {
    engine_failure(action, cause).into()
}

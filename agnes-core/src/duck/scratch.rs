//! A private in-memory DuckDB for bulk work: conversions, profiles, footers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::{EngineFailure, engine_failure};
use crate::error::{Error, Result};
use crate::ident::quote_literal;

/// Resources of a [`ScratchDb`].
#[derive(Debug, Clone)]
pub struct ScratchLimits {
    /// Memory cap, bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// Spill cap, bytes.
    pub spill_bytes: u64,
}

impl Default for ScratchLimits {
    /// 2 GiB, 2 threads, 10 GiB of spill.
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, threads: 2, spill_bytes: 10 << 30 }
    }
}

/// An in-memory DuckDB with a private spill folder that is deleted afterwards. Insertion
/// order is not preserved, time zone is UTC, no extension is installed or autoloaded.
///
/// It may read and write files: never hand it SQL of a user.
#[derive(Debug)]
pub struct ScratchDb {
    conn: ::duckdb::Connection,
    folder: TempDir,
}

impl ScratchDb {
    /// Opens one with its spill folder below `parent` (made when missing).
    ///
    /// # Errors
    /// I/O errors; `internal` when the engine cannot be opened.
    pub fn open(parent: &Path, limits: &ScratchLimits) -> Result<Self> {
        Self::open_as(parent, limits, false)
    }

    /// The same, which checks no signature of an extension: whoever loads one has to know it.
    pub(crate) fn open_unsigned(parent: &Path, limits: &ScratchLimits) -> Result<Self> {
        Self::open_as(parent, limits, true)
    }

    fn open_as(parent: &Path, limits: &ScratchLimits, unsigned: bool) -> Result<Self> {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("make the scratch folder", e))?;
        let folder = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(parent)
            .map_err(|e| Error::io("make a scratch folder", e))?;
        let open = || -> ::duckdb::Result<::duckdb::Connection> {
            let config = ::duckdb::Config::default()
                .with("allow_unsigned_extensions", if unsigned { "true" } else { "false" })?
                .with("autoinstall_known_extensions", "false")?
                .with("autoload_known_extensions", "false")?
                .threads(i64::try_from(limits.threads).unwrap_or(2))?;
            let conn = ::duckdb::Connection::open_in_memory_with_flags(config)?;
            conn.execute_batch(&format!(
                "{} SET preserve_insertion_order=false; SET memory_limit='{}B'; \
                 SET temp_directory={}; SET max_temp_directory_size='{}B';",
                super::utc(),
                limits.memory_bytes,
                quote_literal(&folder.path().to_string_lossy()),
                limits.spill_bytes,
            ))?;
            Ok(conn)
        };
        let conn = open().map_err(|e| engine_failure("open a scratch database", &e))?;
        Ok(Self { conn, folder })
    }

    /// The connection, for code of core that speaks to it otherwise.
    pub(crate) fn conn(&self) -> &::duckdb::Connection {
        &self.conn
    }

    /// A folder of its own that is deleted with it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs one or several statements.
    ///
    /// # Errors
    /// What the engine said, see [`EngineFailure::words`].
    pub fn execute(&self, sql: &str) -> Result<(), EngineFailure> {
        self.conn.execute_batch(sql).map_err(|e| engine_failure("run a statement", &e))
    }

    /// All rows of a query as text, `None` for null. For small answers.
    ///
    /// # Errors
    /// What the engine said, see [`EngineFailure::words`].
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, EngineFailure> {
        let run = || -> ::duckdb::Result<Vec<Vec<Option<String>>>> {
            let mut statement = self.conn.prepare(&format!("SELECT COLUMNS(*)::VARCHAR FROM ({sql}) AS q"))?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let width = row.as_ref().column_count();
                out.push((0..width).map(|i| row.get(i)).collect::<::duckdb::Result<Vec<_>>>()?);
            }
            Ok(out)
        };
        run().map_err(|e| engine_failure("run a query", &e))
    }

    /// All record batches of a query. For small answers.
    ///
    /// # Errors
    /// What the engine said, see [`EngineFailure::words`].
    pub fn arrow(&self, sql: &str) -> Result<Vec<arrow::record_batch::RecordBatch>, EngineFailure> {
        let run = || -> ::duckdb::Result<Vec<arrow::record_batch::RecordBatch>> {
            Ok(self.conn.prepare(sql)?.query_arrow([])?.collect())
        };
        run().map_err(|e| engine_failure("run a query", &e))
    }

    /// Makes the rows of `batches` a temporary table named `name`.
    ///
    /// # Errors
    /// What the engine said, see [`EngineFailure::words`].
    pub fn append(&self, name: &str, batches: &[arrow::record_batch::RecordBatch]) -> Result<(), EngineFailure> {
        let run = || -> ::duckdb::Result<()> {
            let mut appender = self.conn.appender(name)?;
            for batch in batches {
                appender.append_record_batch(batch.clone())?;
            }
            appender.flush()
        };
        run().map_err(|e| engine_failure("append rows", &e))
    }

    /// A handle that interrupts whatever statement runs now, from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.conn.interrupt_handle())
    }
}

/// Interrupts the statement that runs on one connection.
#[derive(Clone)]
pub struct Interrupter(pub(crate) Arc<::duckdb::InterruptHandle>);

impl Interrupter {
    /// Interrupts; nothing happens when no statement runs.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl std::fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let db = ScratchDb::open(parent.path(), &ScratchLimits::default()).unwrap();
        assert_eq!(db.rows("SELECT 1 AS a, NULL AS b").unwrap(), vec![vec![Some("1".to_owned()), None]]);
        assert!(db.execute("SELECT * FROM nothing").unwrap_err().words().contains("nothing"));
        drop(db);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}

//! In-memory databases and their connections over DuckDB's C interface, errors as values.
//!
//! The `duckdb` crate's own stream panics when a query fails half way, and binds no
//! parameter by name; both are needed here. What is `unsafe` of it is in this file and
//! in those beside it that hand over rows, [`super::stream`] and [`super::columns`].
#![expect(unsafe_code, reason = "the C interface of DuckDB has no safe streaming of results")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ::duckdb::ffi;
use arrow::record_batch::RecordBatch;

use super::stream::{Prepared, QueryHandle, Stream};
use super::{EngineFailure, failure_of_words};

pub(super) type Result<T> = std::result::Result<T, EngineFailure>;

pub(super) fn words(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: DuckDB hands out NUL-terminated text that lives as long as its owner, which
    // the caller of this function still holds.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| failure_of_words("read the SQL", "NUL character".to_owned()))
}

/// An in-memory database. Closed when it and its connections are gone.
#[derive(Debug)]
pub(crate) struct MemoryDb(ffi::duckdb_database);

// SAFETY: DuckDB's database handle may be used from any thread, also at the same time.
unsafe impl Send for MemoryDb {}
// SAFETY: as above.
unsafe impl Sync for MemoryDb {}

impl MemoryDb {
    /// Opens one with these settings.
    pub(crate) fn open(settings: &[(&str, &str)]) -> Result<Arc<Self>> {
        let mut db: ffi::duckdb_database = ptr::null_mut();
        // SAFETY: out-pointers are valid; the configuration and the error text are freed once.
        unsafe {
            let mut config: ffi::duckdb_config = ptr::null_mut();
            ffi::duckdb_create_config(&mut config);
            let mut outcome = Ok(());
            for (name, value) in settings {
                let (name, value) = (c_text(name)?, c_text(value)?);
                if ffi::duckdb_set_config(config, name.as_ptr(), value.as_ptr()) != ffi::DuckDBSuccess {
                    outcome = Err(failure_of_words("set up an instance", "unknown setting".to_owned()));
                }
            }
            let mut error: *mut c_char = ptr::null_mut();
            if outcome.is_ok()
                && ffi::duckdb_open_ext(c":memory:".as_ptr(), &mut db, config, &mut error) != ffi::DuckDBSuccess
            {
                outcome = Err(failure_of_words("open an instance", words(error)));
                ffi::duckdb_free(error.cast());
            }
            ffi::duckdb_destroy_config(&mut config);
            outcome?;
        }
        Ok(Arc::new(Self(db)))
    }

    /// A new connection to it.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<MemoryConn> {
        let mut raw: ffi::duckdb_connection = ptr::null_mut();
        // SAFETY: the database is open as long as `self` lives.
        if unsafe { ffi::duckdb_connect(self.0, &mut raw) } != ffi::DuckDBSuccess {
            return Err(failure_of_words("connect to an instance", "connect failed".to_owned()));
        }
        Ok(MemoryConn { interrupt: StreamInterrupter(Arc::new(Mutex::new(Raw(raw)))), raw, db: self.clone() })
    }

    /// Runs `work` on a connection of the `duckdb` crate.
    pub(crate) fn with_connection<T>(&self, work: impl FnOnce(&::duckdb::Connection) -> T) -> Result<T> {
        // SAFETY: `self` keeps the database open meanwhile; the connection does not close it.
        let conn = unsafe { ::duckdb::Connection::open_from_raw(self.0) };
        Ok(work(&conn.map_err(|e| super::engine_failure("connect to an instance", &e))?))
    }

    /// Runs every statement of `sql`; the rows of the last one. Panics when that fails half way.
    #[cfg(feature = "testing")]
    pub(crate) fn run_any(&self, sql: &str) -> Result<(arrow::datatypes::SchemaRef, Vec<RecordBatch>)> {
        let run = |conn: &::duckdb::Connection| -> ::duckdb::Result<_> {
            let mut statement = conn.prepare(sql)?;
            let batches = statement.query_arrow([])?.collect();
            Ok((statement.schema(), batches))
        };
        self.with_connection(run)?.map_err(|e| super::engine_failure("run statements", &e))
    }

    /// Makes the rows of `batches` a table; `create` is its `CREATE TABLE`.
    pub(crate) fn load(&self, create: &str, table: &str, batches: &[RecordBatch]) -> Result<()> {
        let run = |conn: &::duckdb::Connection| -> ::duckdb::Result<()> {
            conn.execute_batch(create)?;
            let mut appender = conn.appender(table)?;
            for batch in batches {
                appender.append_record_batch(batch.clone())?;
            }
            appender.flush()
        };
        self.with_connection(run)?.map_err(|e| super::engine_failure("load rows", &e))
    }
}

impl Drop for MemoryDb {
    fn drop(&mut self) {
        // SAFETY: connections hold the `Arc`, so none is open any more.
        unsafe { ffi::duckdb_close(&mut self.0) };
    }
}

struct Raw(ffi::duckdb_connection);

// SAFETY: only `duckdb_interrupt` is called through it, which any thread may call.
unsafe impl Send for Raw {}

/// Interrupts what runs on one connection; nothing happens once it is gone.
#[derive(Clone)]
pub(crate) struct StreamInterrupter(Arc<Mutex<Raw>>);

impl StreamInterrupter {
    pub(crate) fn interrupt(&self) {
        let raw = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !raw.0.is_null() {
            // SAFETY: the lock keeps the connection from being closed meanwhile.
            unsafe { ffi::duckdb_interrupt(raw.0) };
        }
    }
}

impl std::fmt::Debug for StreamInterrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamInterrupter")
    }
}

/// One connection.
pub(crate) struct MemoryConn {
    raw: ffi::duckdb_connection,
    interrupt: StreamInterrupter,
    db: Arc<MemoryDb>,
}

// SAFETY: a connection may move between threads; it is not shared (no `Sync`).
unsafe impl Send for MemoryConn {}

impl std::fmt::Debug for MemoryConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryConn").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Drop for MemoryConn {
    fn drop(&mut self) {
        let mut raw = self.interrupt.0.lock().unwrap_or_else(PoisonError::into_inner);
        raw.0 = ptr::null_mut();
        // SAFETY: closed once; statements and results borrow `self` and are gone.
        unsafe { ffi::duckdb_disconnect(&mut self.raw) };
    }
}

/// A parameter's value on its way into a statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bind<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'a str),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    TimestampTz(i64),
    Blob(&'a [u8]),
    List(Vec<Bind<'a>>),
}

impl Bind<'_> {
    /// SAFETY: the caller destroys the value.
    unsafe fn value(&self) -> ffi::duckdb_value {
        // SAFETY: pointers live during the call, DuckDB copies.
        unsafe {
            match self {
                Self::Null => ffi::duckdb_create_null_value(),
                Self::Bool(v) => ffi::duckdb_create_bool(*v),
                Self::Int(v) => ffi::duckdb_create_int64(*v),
                Self::UInt(v) => ffi::duckdb_create_uint64(*v),
                Self::Float(v) => ffi::duckdb_create_double(*v),
                Self::Text(v) => ffi::duckdb_create_varchar_length(v.as_ptr().cast(), v.len() as ffi::idx_t),
                Self::Date(days) => ffi::duckdb_create_date(ffi::duckdb_date { days: *days }),
                Self::Time(micros) => ffi::duckdb_create_time(ffi::duckdb_time { micros: *micros }),
                Self::Timestamp(micros) => ffi::duckdb_create_timestamp(ffi::duckdb_timestamp { micros: *micros }),
                Self::TimestampTz(micros) => ffi::duckdb_create_timestamp_tz(ffi::duckdb_timestamp { micros: *micros }),
                Self::Blob(v) => ffi::duckdb_create_blob(v.as_ptr(), v.len() as ffi::idx_t),
                Self::List(items) => {
                    let mut values: Vec<_> = items.iter().map(|item| item.value()).collect();
                    let first =
                        items.iter().zip(&values).find(|(item, _)| **item != Bind::Null).map(|(_, value)| *value);
                    // The type of a value belongs to the value.
                    let mut null = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_SQLNULL);
                    let kind = first.map_or(null, |value| ffi::duckdb_get_value_type(value));
                    let list = ffi::duckdb_create_list_value(kind, values.as_mut_ptr(), values.len() as ffi::idx_t);
                    ffi::duckdb_destroy_logical_type(&mut null);
                    for value in &mut values {
                        ffi::duckdb_destroy_value(value);
                    }
                    list
                }
            }
        }
    }
}

impl MemoryConn {
    /// Interrupts what runs here, from any thread.
    pub(crate) fn interrupter(&self) -> StreamInterrupter {
        self.interrupt.clone()
    }

    /// Runs statements of Agnes's own.
    pub(crate) fn execute(&self, sql: &str) -> Result<()> {
        let text = c_text(sql)?;
        // SAFETY: the connection is open; the result is destroyed in both cases.
        unsafe {
            let mut out: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_query(self.raw, text.as_ptr(), &mut out);
            let outcome = if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(failure_of_words("run a statement", words(ffi::duckdb_result_error(&mut out))))
            };
            ffi::duckdb_destroy_result(&mut out);
            outcome
        }
    }

    /// All rows of a query of Agnes's own. For small answers.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut stream = self.stream(sql, &|_| None)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next()? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Starts one query; `values` gives the value of each parameter by name (`1`, `2`, ...
    /// for positional ones). Anything but a query or its plan is refused.
    pub(crate) fn stream<'v>(&self, sql: &str, values: &dyn Fn(&str) -> Option<Bind<'v>>) -> Result<Stream<'_>> {
        let text = c_text(sql)?;
        let mut prepared = Prepared(ptr::null_mut());
        // SAFETY: handles are owned by `prepared` and `Stream` and destroyed once; text that
        // DuckDB hands out is copied while its owner lives.
        unsafe {
            if ffi::duckdb_prepare(self.raw, text.as_ptr(), &mut prepared.0) != ffi::DuckDBSuccess {
                return Err(failure_of_words("prepare the query", words(ffi::duckdb_prepare_error(prepared.0))));
            }
            let kind = ffi::duckdb_prepared_statement_type(prepared.0);
            if kind != ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SELECT
                && kind != ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN
            {
                return Err(failure_of_words("prepare the query", "not a query".to_owned()));
            }
            for index in 1..=ffi::duckdb_nparams(prepared.0) {
                let name = ffi::duckdb_parameter_name(prepared.0, index);
                let text = words(name);
                ffi::duckdb_free(name.cast_mut().cast());
                let Some(bind) = values(&text) else {
                    return Err(failure_of_words("bind the parameters", format!("parameter {text} has no value")));
                };
                let mut value = bind.value();
                let state = ffi::duckdb_bind_value(prepared.0, index, value);
                ffi::duckdb_destroy_value(&mut value);
                if state != ffi::DuckDBSuccess {
                    let said = words(ffi::duckdb_prepare_error(prepared.0));
                    return Err(failure_of_words("bind the parameters", said));
                }
            }
            let mut result = QueryHandle(std::mem::zeroed());
            if ffi::duckdb_execute_prepared_streaming(prepared.0, &mut result.0) != ffi::DuckDBSuccess {
                return Err(failure_of_words("run the query", words(ffi::duckdb_result_error(&mut result.0))));
            }
            Stream::start(result, prepared, self)
        }
    }
}

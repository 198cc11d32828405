//! Rows of a query: Arrow to whoever speaks it, plain Python values to whoever asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use agnes_core::error::ErrorKind;
use agnes_core::local::Rows;
use agnes_core::policy::RowScope;
use agnes_core::query::Receipt;
use agnes_core::{Error, Result};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ffi::FFI_ArrowSchema;
use arrow::ffi_stream::FFI_ArrowArrayStream;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyCapsule, PyDict, PyList, PyTuple};

use crate::cell;
use crate::convert::to_python;
use crate::errors::{OrRaise, misuse, to_py_err};
use crate::runtime::{runtime, wait};

/// Rows shown in a notebook or terminal.
const SHOWN: usize = 20;

/// A library that is there only if somebody installed it, by itself or with an extra of ours.
fn optional<'py>(py: Python<'py>, library: &str, extra: &str) -> PyResult<Bound<'py, PyModule>> {
    py.import(library).map_err(|error| {
        if !error.is_instance_of::<PyModuleNotFoundError>(py) {
            return error;
        }
        let told = PyModuleNotFoundError::new_err(format!(
            "this needs `{library}`, which is not installed: install `agnes[{extra}]` (`.rows()` needs nothing)"
        ));
        told.set_cause(py, Some(error));
        told
    })
}

/// Batches that other libraries take at a time.
const GROUP: usize = 32;

/// Rows that are still to come, in order. Dropping it ends the query.
struct Stream {
    schema: SchemaRef,
    /// Read ahead, for a look at the first rows.
    ahead: VecDeque<RecordBatch>,
    rows: Option<Rows>,
    truncated: Arc<OnceLock<bool>>,
    receipt: Arc<OnceLock<Receipt>>,
}

impl Stream {
    /// The next batch; the GIL plays no part here.
    async fn pull(&mut self) -> Result<Option<RecordBatch>> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        let next = rows.next().await;
        if !matches!(next, Ok(Some(_))) {
            if next.is_ok() {
                let _ = self.truncated.set(rows.truncated());
                if let Some(receipt) = rows.receipt() {
                    let _ = self.receipt.set(receipt.clone());
                }
            }
            self.rows = None;
        }
        next
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match self.ahead.pop_front() {
            Some(batch) => Ok(Some(batch)),
            None => self.pull().await,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Ending a query may need the runtime's threads; the last owner may be any thread.
        if let Ok(runtime) = runtime() {
            let _inside = runtime.enter();
            self.rows = None;
        }
    }
}

impl Iterator for Stream {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = runtime().and_then(|runtime| runtime.block_on(self.next_batch()));
        next.map_err(|e| ArrowError::ExternalError(Box::new(e))).transpose()
    }
}

impl RecordBatchReader for Stream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// Batches already in memory.
struct Held {
    schema: SchemaRef,
    batches: std::vec::IntoIter<RecordBatch>,
}

impl Iterator for Held {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next().map(Ok)
    }
}

impl RecordBatchReader for Held {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

enum State {
    /// Nobody took the rows yet.
    Coming(Stream),
    /// All in memory, to be read any number of times.
    Held(Vec<RecordBatch>),
    /// A stream or an iterator took them.
    Taken,
}

/// The answer to a query.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct QueryResult {
    schema: SchemaRef,
    truncated: Arc<OnceLock<bool>>,
    receipt: Arc<OnceLock<Receipt>>,
    state: Mutex<State>,
}

impl QueryResult {
    pub(crate) fn new(rows: Rows) -> Self {
        let (schema, truncated) = (rows.schema(), Arc::new(OnceLock::new()));
        let receipt = Arc::new(OnceLock::new());
        let stream = Stream {
            schema: schema.clone(),
            ahead: VecDeque::new(),
            rows: Some(rows),
            truncated: truncated.clone(),
            receipt: receipt.clone(),
        };
        Self { schema, truncated, receipt, state: Mutex::new(State::Coming(stream)) }
    }

    fn state(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        // Another thread may hold the lock and wait for the GIL.
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows in memory, kept for the next time.
    fn hold(&self, py: Python<'_>) -> PyResult<Vec<RecordBatch>> {
        self.hold_seen(py, |_| Ok(()))
    }

    /// The same; `see` is shown them a group at a time, while the query makes the next.
    fn hold_seen(
        &self,
        py: Python<'_>,
        mut see: impl FnMut(&[RecordBatch]) -> PyResult<()>,
    ) -> PyResult<Vec<RecordBatch>> {
        let mut state = self.state(py);
        // Rows that broke off half way are none: who asked once more would take a part for the whole.
        let mut stream = match std::mem::replace(&mut *state, State::Taken) {
            State::Taken => return Err(to_py_err(py, &taken())),
            State::Coming(stream) => stream,
            State::Held(batches) => {
                *state = State::Held(batches.clone());
                drop(state);
                see(&batches)?;
                return Ok(batches);
            }
        };
        let mut batches = Vec::new();
        loop {
            let seen = batches.len();
            wait(py, async {
                while batches.len() < seen + GROUP
                    && let Some(batch) = stream.next_batch().await?
                {
                    batches.push(batch);
                }
                Ok(())
            })?;
            if batches.len() == seen {
                break;
            }
            see(&batches[seen..])?;
        }
        *state = State::Held(batches.clone());
        Ok(batches)
    }

    /// A result of its own, of these rows.
    fn of(&self, batches: &[RecordBatch]) -> Self {
        let (schema, state) = (self.schema.clone(), Mutex::new(State::Held(batches.to_vec())));
        Self { schema, truncated: self.truncated.clone(), receipt: self.receipt.clone(), state }
    }

    /// The rows as a stream: a view of what is in memory, else the rows themselves.
    fn stream(&self, py: Python<'_>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
        let mut state = self.state(py);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Taken => Err(to_py_err(py, &taken())),
            State::Coming(stream) => Ok(Box::new(stream)),
            State::Held(batches) => {
                *state = State::Held(batches.clone());
                Ok(Box::new(Held { schema: self.schema.clone(), batches: batches.into_iter() }))
            }
        }
    }

    /// The first rows, without taking them, and whether there are more.
    fn peek(&self, py: Python<'_>) -> PyResult<Option<(Vec<RecordBatch>, bool)>> {
        let mut state = self.state(py);
        let batches = match &mut *state {
            State::Taken => return Ok(None),
            State::Held(batches) => batches.clone(),
            State::Coming(stream) => {
                let looked = wait(py, async {
                    while stream.ahead.iter().map(RecordBatch::num_rows).sum::<usize>() <= SHOWN {
                        match stream.pull().await? {
                            Some(batch) => stream.ahead.push_back(batch),
                            None => break,
                        }
                    }
                    Ok(())
                });
                let ahead = stream.ahead.iter().cloned().collect();
                if let Err(error) = looked {
                    *state = State::Taken;
                    return Err(error);
                }
                ahead
            }
        };
        let mut shown = Vec::new();
        let mut room = SHOWN;
        let mut more = false;
        for batch in batches {
            more |= batch.num_rows() > room;
            let rows = batch.num_rows().min(room);
            room -= rows;
            shown.push(batch.slice(0, rows));
        }
        Ok(Some((shown, more)))
    }
}

fn taken() -> Error {
    misuse(
        ErrorKind::InvalidInput,
        "rows_taken",
        "the rows of this result were read already",
        "ask the query again, or keep them at first: `to_arrow`, `to_pandas`, `to_polars` and `rows` can be repeated",
    )
}

#[pymethods]
impl QueryResult {
    /// Names of the columns.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// What policies took from the tables of the query.
    #[getter]
    fn row_scope(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(py, &RowScope::of_schema(&self.schema))
    }

    /// The receipt that was asked for; `None` until the last row was read.
    #[getter]
    fn receipt(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.receipt.get().map(|receipt| to_python(py, receipt)).transpose()
    }

    /// Whether rows were left out by a limit; `None` until the last row was read.
    #[getter]
    fn truncated(&self) -> Option<bool> {
        self.truncated.get().copied()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(self.stream(py)?), c"arrow_array_stream")
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref())
            .map_err(|e| Error::internal("export a schema", e))
            .or_raise(py)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    /// The whole result as a `pyarrow.Table`.
    fn to_arrow(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let pyarrow = optional(py, "pyarrow", "pyarrow")?;
        let (this, mut tables) = (slf.get(), Vec::new());
        this.hold_seen(py, |batches| {
            tables.push(pyarrow.call_method1("table", (this.of(batches),))?);
            Ok(())
        })?;
        match tables.len() {
            0 => Ok(pyarrow.call_method1("table", (slf,))?.unbind()),
            _ => Ok(pyarrow.call_method1("concat_tables", (tables,))?.unbind()),
        }
    }

    /// The whole result as a `pandas.DataFrame`.
    fn to_pandas(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        optional(slf.py(), "pandas", "pandas")?;
        optional(slf.py(), "pyarrow", "pandas")?;
        Self::to_arrow(slf)?.call_method0(slf.py(), "to_pandas")
    }

    /// The whole result as a `polars.DataFrame`.
    fn to_polars(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let polars = optional(slf.py(), "polars", "polars")?;
        slf.get().hold(slf.py())?;
        Ok(polars.call_method1("DataFrame", (slf,))?.unbind())
    }

    /// The whole result as a list of tuples, or of dicts.
    #[pyo3(signature = (*, named=false))]
    fn rows<'py>(&self, py: Python<'py>, named: bool) -> PyResult<Bound<'py, PyList>> {
        let rows = PyList::empty(py);
        for batch in self.hold(py)? {
            for index in 0..batch.num_rows() {
                let row = cell::row(py, &batch, index)?;
                if named {
                    let dict = PyDict::new(py);
                    for (field, value) in self.schema.fields().iter().zip(row) {
                        dict.set_item(field.name(), value)?;
                    }
                    rows.append(dict)?;
                } else {
                    rows.append(PyTuple::new(py, row)?)?;
                }
            }
        }
        Ok(rows)
    }

    /// Results of one batch each, as they come.
    fn batches(&self, py: Python<'_>) -> PyResult<BatchIterator> {
        let source = Mutex::new(self.stream(py)?);
        let (truncated, receipt) = (self.truncated.clone(), self.receipt.clone());
        Ok(BatchIterator { schema: self.schema.clone(), truncated, receipt, source })
    }

    /// Reads all rows into memory, where they stay; the result itself.
    fn load(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().hold(slf.py())?;
        Ok(slf)
    }

    /// `load` for asyncio.
    fn aload<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("agnes._aio")?.call_method1("in_thread", (slf.getattr("load")?,))
    }

    /// Tuples, one at a time, as they come.
    fn __iter__(&self, py: Python<'_>) -> PyResult<RowIterator> {
        let source = self.stream(py)?;
        Ok(RowIterator(Mutex::new(Cursor { source, batch: None, next: 0 })))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Some((batches, more)) = self.peek(py)? else {
            return Ok(format!("<agnes.QueryResult {:?}, rows read already>", self.columns()));
        };
        Ok(format!("{}{}", cell::text_table(&self.schema, &batches), if more { "\n..." } else { "" }))
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let Some((batches, more)) = self.peek(py)? else {
            return Ok("<p>The rows of this result were read already.</p>".to_owned());
        };
        let note = if more { format!("<p>first {SHOWN} rows</p>") } else { String::new() };
        Ok(format!("{}{note}", cell::html_table(&self.schema, &batches)))
    }
}

/// Results of one batch each.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct BatchIterator {
    schema: SchemaRef,
    truncated: Arc<OnceLock<bool>>,
    receipt: Arc<OnceLock<Receipt>>,
    source: Mutex<Box<dyn RecordBatchReader + Send>>,
}

#[pymethods]
impl BatchIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<QueryResult>> {
        let mut source = self.source.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let source = &mut *source;
        let batch = match py.detach(|| source.next()) {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return Err(to_py_err(py, &own(error))),
            None => return Ok(None),
        };
        let (truncated, receipt) = (self.truncated.clone(), self.receipt.clone());
        let state = Mutex::new(State::Held(vec![batch]));
        Ok(Some(QueryResult { schema: self.schema.clone(), truncated, receipt, state }))
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("agnes._aio")?.call_method1("next_of", (slf,))
    }
}

struct Cursor {
    source: Box<dyn RecordBatchReader + Send>,
    batch: Option<RecordBatch>,
    next: usize,
}

/// Rows of a result, one at a time.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct RowIterator(Mutex<Cursor>);

#[pymethods]
impl RowIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let mut cursor = self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        loop {
            let index = cursor.next;
            if let Some(batch) = &cursor.batch
                && index < batch.num_rows()
            {
                let row = PyTuple::new(py, cell::row(py, batch, index)?)?;
                cursor.next += 1;
                return Ok(Some(row));
            }
            let source = &mut cursor.source;
            match py.detach(|| source.next()) {
                Some(Ok(batch)) => (cursor.batch, cursor.next) = (Some(batch), 0),
                Some(Err(error)) => return Err(to_py_err(py, &own(error))),
                None => return Ok(None),
            }
        }
    }
}

/// The engine's error inside an Arrow error.
fn own(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(cause) => match cause.downcast::<Error>() {
            Ok(error) => *error,
            Err(cause) => Error::internal("read rows", cause),
        },
        other => Error::internal("read rows", other),
    }
}

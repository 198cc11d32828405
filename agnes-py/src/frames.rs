//! Frames of others, read through the Arrow PyCapsule interface: pandas, polars, pyarrow, DuckDB.

use agnes_core::error::ErrorKind;
use agnes_core::query::Frame;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyMapping};

use crate::errors::{OrRaise, misuse, to_py_err};

/// The frames of a mapping of names to anything with `__arrow_c_stream__`.
pub(crate) fn frames(given: &Bound<'_, PyAny>) -> PyResult<Vec<Frame>> {
    let py = given.py();
    let Ok(mapping) = given.cast::<PyMapping>() else {
        let error = misuse(
            ErrorKind::InvalidInput,
            "invalid_value",
            "`frames` is no mapping of names to frames",
            "write `frames={\"targets\": df}`",
        );
        return Err(to_py_err(py, &error));
    };
    let mut frames = Vec::new();
    for item in mapping.items()?.iter() {
        let (name, rows): (String, Bound<'_, PyAny>) = item.extract()?;
        frames.push(frame(&name, &rows)?);
    }
    Ok(frames)
}

/// One frame, its rows read whole.
pub(crate) fn frame(name: &str, rows: &Bound<'_, PyAny>) -> PyResult<Frame> {
    let py = rows.py();
    if !rows.hasattr("__arrow_c_stream__")? {
        let message = format!("a `{}` gives no rows of Arrow", rows.get_type().name()?);
        let hint = "give a DataFrame of pandas or polars, a table of pyarrow, a result of a query";
        return Err(to_py_err(py, &misuse(ErrorKind::InvalidInput, "bad_frame", &message, hint)));
    }
    let read = read(rows).or_else(|error| {
        // Some write a form of Arrow that only its own library forgives: empty buffers of a column of nulls.
        let again = py.import("pyarrow").and_then(|pyarrow| pyarrow.call_method1("table", (rows,)));
        again.and_then(|table| self::read(&table)).map_err(|_| error)
    });
    let (schema, batches) = read.map_err(|error| match error.is_instance_of::<PyRuntimeError>(py) {
        true => {
            let message = format!("the rows of `{name}` cannot be read: {}", error.value(py));
            let hint = "see whether `pyarrow.table(frame)` reads them";
            to_py_err(py, &misuse(ErrorKind::InvalidInput, "bad_frame", &message, hint))
        }
        false => error,
    })?;
    py.detach(|| Frame::new(name, &schema, batches)).or_raise(py)
}

/// Reads a stream of Arrow to its end.
fn read(rows: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    let capsule = rows.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
    let stream = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds a stream of the C interface, as the PyCapsule protocol says;
    // it is moved out, which leaves the capsule one that was released.
    #[expect(unsafe_code, reason = "the C interface is pointers")]
    let reader = unsafe { ArrowArrayStreamReader::from_raw(stream.as_ptr()) };
    let unreadable = |error: ArrowError| PyRuntimeError::new_err(error.to_string());
    let reader = reader.map_err(unreadable)?;
    let schema = reader.schema();
    // Whoever gives them may need the GIL, so it is kept.
    Ok((schema, reader.collect::<Result<_, _>>().map_err(unreadable)?))
}

//! Values between Rust and Python: whatever serde writes becomes dicts, lists and scalars.

use agnes_core::error::ErrorKind;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::{misuse, to_py_err};

/// `value` as Python data.
pub(crate) fn to_python(py: Python<'_>, value: &impl Serialize) -> PyResult<Py<PyAny>> {
    let text = serde_json::to_string(value)
        .map_err(|e| to_py_err(py, &agnes_core::Error::internal("encode a value for Python", e)))?;
    Ok(py.import("json")?.call_method1("loads", (text,))?.unbind())
}

/// Python data as a `T`. Paths count as text; what JSON cannot say is refused.
pub(crate) fn from_python<T: DeserializeOwned>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    let py = value.py();
    let options = PyDict::new(py);
    options.set_item("default", py.import("os")?.getattr("fspath")?)?;
    options.set_item("allow_nan", false)?;
    let text: String = py.import("json")?.call_method("dumps", (value,), Some(&options))?.extract()?;
    serde_json::from_str(&text).map_err(|e| {
        let message = format!("this value does not fit: {e}");
        to_py_err(
            py,
            &misuse(ErrorKind::InvalidInput, "invalid_value", &message, "see the documentation of the method"),
        )
    })
}

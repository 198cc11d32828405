//! Errors of the engine as the exceptions of `agnes._errors`.

use agnes_core::error::{ErrorKind, WireError};
use agnes_core::{Error, Result};
use pyo3::prelude::*;

use crate::convert::to_python;

/// `error` as the exception of its kind.
pub(crate) fn to_py_err(py: Python<'_>, error: &Error) -> PyErr {
    let exception = || -> PyResult<PyErr> {
        let facts = to_python(py, &error.to_wire())?;
        Ok(PyErr::from_value(py.import("agnes._errors")?.call_method1("from_wire", (facts,))?))
    };
    exception().unwrap_or_else(|failed| failed)
}

/// A mistake in how this package is used, as an error like any other.
pub(crate) fn misuse(kind: ErrorKind, code: &str, message: &str, hint: &str) -> Error {
    WireError {
        kind,
        code: code.to_owned(),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        retryable: false,
        facts: None,
    }
    .into()
}

/// `Result` of the engine to one of Python.
pub(crate) trait OrRaise<T> {
    /// Raises the error's exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|e| to_py_err(py, &e))
    }
}

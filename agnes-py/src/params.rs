//! Values for the parameters of a query.

use agnes_core::error::ErrorKind;
use agnes_core::query::{Params, Value};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTime, PyTuple,
};

use crate::errors::{misuse, to_py_err};

/// A list or tuple gives positional parameters, a mapping named ones.
pub(crate) fn params(given: &Bound<'_, PyAny>) -> PyResult<Params> {
    if let Ok(mapping) = given.cast::<PyMapping>() {
        let mut named = Vec::new();
        for item in mapping.items()?.iter() {
            let (name, item): (String, Bound<'_, PyAny>) = item.extract()?;
            named.push((name, value(&item)?));
        }
        return Ok(Params::Named(named.into_iter().collect()));
    }
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>() {
        let error = misuse(
            ErrorKind::InvalidInput,
            "invalid_value",
            "`params` is one text",
            "give a list for `?` or a dict for `$name`: `params=[value]`",
        );
        return Err(to_py_err(given.py(), &error));
    }
    Ok(Params::Positional(given.try_iter()?.map(|item| value(&item?)).collect::<PyResult<_>>()?))
}

fn value(given: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = given.py();
    let kind = given.get_type().name()?;
    // What pandas has for a value that is missing. bool is an int and datetime a date: the narrower type
    // first.
    if given.is_none() || kind == "NaTType" || kind == "NAType" {
        Ok(Value::Null)
    } else if given.is_instance_of::<PyBool>() {
        Ok(Value::Bool(given.extract()?))
    } else if given.is_instance_of::<PyInt>() {
        let int = given.extract().map(Value::Int).or_else(|_| given.extract().map(Value::UInt));
        // The engine casts text to its widest integers.
        int.or_else(|_: PyErr| Ok(Value::Text(given.str()?.to_string())))
    } else if given.is_instance_of::<PyFloat>() {
        Ok(Value::Float(given.extract()?))
    } else if given.is_instance_of::<PyString>() {
        Ok(Value::Text(given.extract()?))
    } else if let Ok(bytes) = given.cast::<PyBytes>() {
        Ok(Value::Blob(bytes.as_bytes().to_vec()))
    } else if given.is_instance_of::<PyDateTime>() {
        if given.getattr("tzinfo")?.is_none() {
            return Ok(Value::Timestamp(given.extract::<NaiveDateTime>()?));
        }
        let utc = given.call_method1("astimezone", (py.import("datetime")?.getattr("timezone")?.getattr("utc")?,))?;
        Ok(Value::TimestampTz(utc.extract::<DateTime<Utc>>()?))
    } else if given.is_instance_of::<PyDate>() {
        Ok(Value::Date(given.extract::<NaiveDate>()?))
    } else if given.is_instance_of::<PyTime>() {
        Ok(Value::Time(given.extract::<NaiveTime>()?))
    } else if given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>() {
        Ok(Value::List(given.try_iter()?.map(|item| value(&item?)).collect::<PyResult<_>>()?))
    } else if let Some(plain) = plain(given)? {
        value(&plain)
    } else if is_text(given)? {
        Ok(Value::Text(given.str()?.to_string()))
    } else {
        let message = format!("a `{kind}` cannot be a parameter");
        let error = misuse(
            ErrorKind::InvalidInput,
            "invalid_value",
            &message,
            "pass a number, text, date, time, bytes or a list",
        );
        Err(to_py_err(py, &error))
    }
}

/// What a scalar or an array of numpy, pandas or polars is in Python.
fn plain<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if given.is_instance_of::<PyDict>() {
        return Ok(None);
    }
    let given = match given.getattr_opt("dtype")? {
        // Times of nanoseconds would be numbers.
        Some(dtype) if given.hasattr("tobytes")? && dtype.str()?.to_string_lossy().ends_with("datetime64[ns]") => {
            given.call_method1("astype", ("datetime64[us]",))?
        }
        _ => given.clone(),
    };
    for method in ["tolist", "to_list", "item"] {
        if let Some(method) = given.getattr_opt(method)? {
            return method.call0().map(Some);
        }
    }
    Ok(None)
}

/// Whether the engine reads its text: `Decimal`, `UUID`, paths.
fn is_text(given: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = given.py();
    let kinds = [("decimal", "Decimal"), ("uuid", "UUID"), ("pathlib", "PurePath")];
    for (module, name) in kinds {
        if given.is_instance(&py.import(module)?.getattr(name)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

//! One cell of a result as a Python value, and small tables for people to look at.

use agnes_core::query::value_text;
use arrow::array::{Array, ArrayRef, AsArray, MapArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::temporal_conversions as temporal;
use chrono::{Datelike, NaiveDateTime, TimeZone, Utc};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use pyo3::{BoundObject, IntoPyObject};

/// Characters of a cell in a notebook: longer ones are there whole in the rows.
const LONGEST: usize = 1000;

/// Row `index` of `batch`.
pub(crate) fn row<'py>(py: Python<'py>, batch: &RecordBatch, index: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    batch.columns().iter().map(|column| value(py, column, index)).collect()
}

fn plain<'py, T: IntoPyObject<'py>>(py: Python<'py>, value: T) -> PyResult<Bound<'py, PyAny>> {
    Ok(value.into_pyobject(py).map_err(Into::into)?.into_any().into_bound())
}

fn value<'py>(py: Python<'py>, array: &ArrayRef, i: usize) -> PyResult<Bound<'py, PyAny>> {
    if array.is_null(i) {
        return Ok(py.None().into_bound(py));
    }
    match array.data_type() {
        DataType::Null => Ok(py.None().into_bound(py)),
        DataType::Boolean => plain(py, array.as_boolean().value(i)),
        DataType::Int8 => plain(py, array.as_primitive::<Int8Type>().value(i)),
        DataType::Int16 => plain(py, array.as_primitive::<Int16Type>().value(i)),
        DataType::Int32 => plain(py, array.as_primitive::<Int32Type>().value(i)),
        DataType::Int64 => plain(py, array.as_primitive::<Int64Type>().value(i)),
        DataType::UInt8 => plain(py, array.as_primitive::<UInt8Type>().value(i)),
        DataType::UInt16 => plain(py, array.as_primitive::<UInt16Type>().value(i)),
        DataType::UInt32 => plain(py, array.as_primitive::<UInt32Type>().value(i)),
        DataType::UInt64 => plain(py, array.as_primitive::<UInt64Type>().value(i)),
        DataType::Float32 => plain(py, array.as_primitive::<Float32Type>().value(i)),
        DataType::Float64 => plain(py, array.as_primitive::<Float64Type>().value(i)),
        DataType::Decimal128(_, 0) => plain(py, array.as_primitive::<Decimal128Type>().value(i)),
        DataType::Decimal128(..) => {
            let text = array.as_primitive::<Decimal128Type>().value_as_string(i);
            py.import("decimal")?.call_method1("Decimal", (text,))
        }
        DataType::Utf8 => plain(py, array.as_string::<i32>().value(i)),
        DataType::LargeUtf8 => plain(py, array.as_string::<i64>().value(i)),
        DataType::Utf8View => plain(py, array.as_string_view().value(i)),
        DataType::Binary => Ok(PyBytes::new(py, array.as_binary::<i32>().value(i)).into_any()),
        DataType::LargeBinary => Ok(PyBytes::new(py, array.as_binary::<i64>().value(i)).into_any()),
        DataType::BinaryView => Ok(PyBytes::new(py, array.as_binary_view().value(i)).into_any()),
        DataType::FixedSizeBinary(_) => Ok(PyBytes::new(py, array.as_fixed_size_binary().value(i)).into_any()),
        DataType::Date32 => match temporal::as_date::<Date32Type>(array.as_primitive::<Date32Type>().value(i).into()) {
            Some(date) if in_python(date.year()) => plain(py, date),
            _ => text(py, array, i),
        },
        DataType::Time64(unit) => {
            let time = match unit {
                TimeUnit::Nanosecond => {
                    temporal::as_time::<Time64NanosecondType>(array.as_primitive::<Time64NanosecondType>().value(i))
                }
                _ => temporal::as_time::<Time64MicrosecondType>(array.as_primitive::<Time64MicrosecondType>().value(i)),
            };
            time.map_or_else(|| text(py, array, i), |time| plain(py, time))
        }
        DataType::Timestamp(unit, zone) => match timestamp(array, unit, i) {
            Some(naive) if in_python(naive.year()) => match zone {
                None => plain(py, naive),
                Some(zone) => in_zone(py, naive, zone),
            },
            _ => text(py, array, i),
        },
        DataType::List(_) => list(py, &array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(py, &array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => list(py, &array.as_fixed_size_list().value(i)),
        DataType::Struct(fields) => {
            let dict = PyDict::new(py);
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                dict.set_item(field.name(), value(py, column, i)?)?;
            }
            Ok(dict.into_any())
        }
        DataType::Map(..) => map(py, array.as_map(), i),
        DataType::Dictionary(..) => match array.as_any_dictionary_opt() {
            Some(dictionary) => value(py, dictionary.values(), dictionary.normalized_keys()[i]),
            None => text(py, array, i),
        },
        _ => text(py, array, i),
    }
}

/// Whether `datetime` can say this year.
fn in_python(year: i32) -> bool {
    (1..=9999).contains(&year)
}

fn timestamp(array: &ArrayRef, unit: &TimeUnit, i: usize) -> Option<NaiveDateTime> {
    match unit {
        TimeUnit::Second => temporal::timestamp_s_to_datetime(array.as_primitive::<TimestampSecondType>().value(i)),
        TimeUnit::Millisecond => {
            temporal::timestamp_ms_to_datetime(array.as_primitive::<TimestampMillisecondType>().value(i))
        }
        TimeUnit::Microsecond => {
            temporal::timestamp_us_to_datetime(array.as_primitive::<TimestampMicrosecondType>().value(i))
        }
        TimeUnit::Nanosecond => {
            temporal::timestamp_ns_to_datetime(array.as_primitive::<TimestampNanosecondType>().value(i))
        }
    }
}

fn in_zone<'py>(py: Python<'py>, utc: NaiveDateTime, zone: &str) -> PyResult<Bound<'py, PyAny>> {
    let at = plain(py, Utc.from_utc_datetime(&utc))?;
    if matches!(zone, "+00:00" | "UTC" | "Etc/UTC") {
        return Ok(at);
    }
    at.call_method1("astimezone", (py.import("zoneinfo")?.call_method1("ZoneInfo", (zone,))?,))
}

fn list<'py>(py: Python<'py>, items: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for i in 0..items.len() {
        list.append(value(py, items, i)?)?;
    }
    Ok(list.into_any())
}

fn map<'py>(py: Python<'py>, array: &MapArray, i: usize) -> PyResult<Bound<'py, PyAny>> {
    let entries = array.value(i);
    let dict = PyDict::new(py);
    for j in 0..entries.len() {
        dict.set_item(value(py, entries.column(0), j)?, value(py, entries.column(1), j)?)?;
    }
    Ok(dict.into_any())
}

/// As text, what Python has no value for: dates beyond the year 9999, infinity, intervals.
fn text<'py>(py: Python<'py>, array: &ArrayRef, i: usize) -> PyResult<Bound<'py, PyAny>> {
    plain(py, value_text(array, i))
}

fn cells(batches: &[RecordBatch]) -> impl Iterator<Item = Vec<String>> {
    batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(|i| batch.columns().iter().map(|column| value_text(column, i)).collect())
    })
}

/// A table of fixed-width text.
pub(crate) fn text_table(schema: &SchemaRef, batches: &[RecordBatch]) -> String {
    let header: Vec<String> = schema.fields().iter().map(|field| cut(field.name())).collect();
    let rows: Vec<Vec<String>> = cells(batches).map(|row| row.iter().map(|cell| cut(cell)).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|c| rows.iter().chain([&header]).map(|row| row[c].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    [line(&header), rule.join("  ")].into_iter().chain(rows.iter().map(|row| line(row))).collect::<Vec<_>>().join("\n")
}

/// On one line, not endless, and without power over a terminal.
fn cut(cell: &str) -> String {
    let plain = |c: char| {
        if c.is_whitespace() {
            ' '
        } else if c.is_control() {
            '\u{fffd}'
        } else {
            c
        }
    };
    shortened(cell, 60).chars().map(plain).collect()
}

/// At most so many characters.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A table for a notebook; every text is escaped.
pub(crate) fn html_table(schema: &SchemaRef, batches: &[RecordBatch]) -> String {
    let header: String = schema.fields().iter().map(|field| format!("<th>{}</th>", escape(field.name()))).collect();
    let rows: String = cells(batches)
        .map(|row| {
            let cells: String =
                row.iter().map(|cell| format!("<td>{}</td>", escape(&shortened(cell, LONGEST)))).collect();
            format!("<tr>{cells}</tr>")
        })
        .collect();
    format!("<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

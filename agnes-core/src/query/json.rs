//! Record batches as JSON: null, bool, numbers and text pass through, everything else is
//! its text. NaN and infinities are null; integers beyond 2^53 and decimals are texts, so
//! that no reader rounds them.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::text::{beyond, holds_widest};
use super::value_text;

/// Largest integer that every JSON reader keeps exact (2^53).
const EXACT: u64 = 1 << 53;

/// The rows of a batch, column to value, in column order.
#[must_use]
pub fn json_rows(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let mut rows = vec![Map::with_capacity(batch.num_columns()); batch.num_rows()];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        for (row, value) in rows.iter_mut().zip(json_column(column)) {
            row.insert(field.name().clone(), value);
        }
    }
    rows
}

/// The values of one column.
#[must_use]
pub fn json_column(column: &dyn Array) -> Vec<Value> {
    let cells = JsonCells::new(column);
    (0..column.len()).map(|row| cells.value(row)).collect()
}

/// The values of one column, one at a time.
pub(super) enum JsonCells<'a> {
    Bool(&'a BooleanArray),
    Signed(Box<dyn Fn(usize) -> i64 + 'a>, &'a dyn Array),
    Unsigned(Box<dyn Fn(usize) -> u64 + 'a>, &'a dyn Array),
    Float(Box<dyn Fn(usize) -> f64 + 'a>, &'a dyn Array),
    Text(Box<dyn Fn(usize) -> &'a str + 'a>, &'a dyn Array),
    /// Everything else, as text.
    Other(Option<ArrayFormatter<'a>>, &'a dyn Array),
}

/// How values of the rest are written.
const AS_TEXT: FormatOptions<'static> = FormatOptions::new().with_display_error(false);

impl<'a> JsonCells<'a> {
    pub(super) fn new(column: &'a dyn Array) -> Self {
        macro_rules! number {
            ($kind:ident, $type:ty, $wide:ty) => {{
                let values = column.as_primitive::<$type>().values();
                Self::$kind(Box::new(|row| <$wide>::from(values[row])), column)
            }};
        }
        match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int8 => number!(Signed, Int8Type, i64),
            DataType::Int16 => number!(Signed, Int16Type, i64),
            DataType::Int32 => number!(Signed, Int32Type, i64),
            DataType::Int64 => number!(Signed, Int64Type, i64),
            DataType::UInt8 => number!(Unsigned, UInt8Type, u64),
            DataType::UInt16 => number!(Unsigned, UInt16Type, u64),
            DataType::UInt32 => number!(Unsigned, UInt32Type, u64),
            DataType::UInt64 => number!(Unsigned, UInt64Type, u64),
            DataType::Float32 => number!(Float, Float32Type, f64),
            DataType::Float64 => number!(Float, Float64Type, f64),
            DataType::Utf8 => Self::Text(Box::new(|row| column.as_string::<i32>().value(row)), column),
            DataType::LargeUtf8 => Self::Text(Box::new(|row| column.as_string::<i64>().value(row)), column),
            DataType::Utf8View => Self::Text(Box::new(|row| column.as_string_view().value(row)), column),
            // It would cut the widest numbers.
            kind if holds_widest(kind) => Self::Other(None, column),
            _ => Self::Other(ArrayFormatter::try_new(column, &AS_TEXT).ok(), column),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(column) => column.is_null(row),
            Self::Signed(_, column)
            | Self::Unsigned(_, column)
            | Self::Float(_, column)
            | Self::Text(_, column)
            | Self::Other(_, column) => column.is_null(row),
        }
    }

    fn other(formatter: Option<&ArrayFormatter<'_>>, column: &dyn Array, row: usize) -> String {
        let text = beyond(column, row);
        let text = text.or_else(|| formatter?.value(row).try_to_string().ok());
        text.unwrap_or_else(|| value_text(column, row))
    }

    fn value(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match self {
            Self::Bool(column) => column.value(row).into(),
            Self::Signed(value, _) => match value(row) {
                n if n.unsigned_abs() > EXACT => n.to_string().into(),
                n => n.into(),
            },
            Self::Unsigned(value, _) => match value(row) {
                n if n > EXACT => n.to_string().into(),
                n => n.into(),
            },
            // A number that JSON has no word for becomes null.
            Self::Float(value, _) => value(row).into(),
            Self::Text(value, _) => value(row).into(),
            Self::Other(formatter, column) => Self::other(formatter.as_ref(), *column, row).into(),
        }
    }

    /// Writes one value, as [`json_column`] gives it.
    pub(super) fn write(&self, row: usize, to: &mut Vec<u8>) -> serde_json::Result<()> {
        if self.is_null(row) {
            to.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Self::Bool(column) => serde_json::to_writer(to, &column.value(row)),
            Self::Signed(value, _) => match value(row) {
                n if n.unsigned_abs() > EXACT => serde_json::to_writer(to, &n.to_string()),
                n => serde_json::to_writer(to, &n),
            },
            Self::Unsigned(value, _) => match value(row) {
                n if n > EXACT => serde_json::to_writer(to, &n.to_string()),
                n => serde_json::to_writer(to, &n),
            },
            Self::Float(value, _) => serde_json::to_writer(to, &value(row)),
            Self::Text(value, _) => serde_json::to_writer(to, value(row)),
            Self::Other(formatter, column) => serde_json::to_writer(to, &Self::other(formatter.as_ref(), *column, row)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn values_survive_a_json_reader() {
        let batch = RecordBatch::try_from_iter([
            ("f", Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None])) as _),
            ("i", Arc::new(Int64Array::from(vec![Some(1), Some(i64::MAX), Some(-(1 << 53))])) as _),
            ("s", Arc::new(StringArray::from(vec![Some("a"), None, Some("")])) as _),
        ])
        .unwrap();
        let rows = serde_json::to_string(&json_rows(&batch)).unwrap();
        assert_eq!(
            rows,
            r#"[{"f":1.5,"i":1,"s":"a"},{"f":null,"i":"9223372036854775807","s":null},{"f":null,"i":-9007199254740992,"s":""}]"#
        );
    }
}

//! Record batches as JSON: null, bool, numbers and text pass through, everything else is
//! its text. NaN and infinities are null; integers beyond 2^53 and decimals are texts, so
//! that no reader rounds them.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

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
    macro_rules! whole {
        ($type:ty) => {
            column
                .as_primitive::<$type>()
                .iter()
                .map(|value| match value {
                    None => Value::Null,
                    #[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "one arm for all widths")]
                    Some(n) if (n as i128).unsigned_abs() > u128::from(EXACT) => Value::from(n.to_string()),
                    Some(n) => Value::from(n),
                })
                .collect()
        };
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().iter().map(|v| v.map_or(Value::Null, Value::from)).collect(),
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        // A number that JSON has no word for becomes null.
        DataType::Float32 => column
            .as_primitive::<Float32Type>()
            .iter()
            .map(|v| v.map_or(Value::Null, |v| Value::from(f64::from(v))))
            .collect(),
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().iter().map(|v| v.map_or(Value::Null, Value::from)).collect()
        }
        DataType::Utf8 => column.as_string::<i32>().iter().map(|v| v.map_or(Value::Null, Value::from)).collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(|v| v.map_or(Value::Null, Value::from)).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(|v| v.map_or(Value::Null, Value::from)).collect(),
        _ => {
            let options = FormatOptions::default().with_display_error(false);
            let formatter = ArrayFormatter::try_new(column, &options).ok();
            let text = |row| {
                let text = formatter.as_ref().and_then(|formatter| formatter.value(row).try_to_string().ok());
                text.unwrap_or_else(|| value_text(column, row))
            };
            (0..column.len())
                .map(|row| if column.is_null(row) { Value::Null } else { Value::from(text(row)) })
                .collect()
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

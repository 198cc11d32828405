//! Types of BigQuery: as Arrow, as DuckDB writes them, and values of its JSON as what Arrow's
//! reader of JSON takes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as Column, Fields, Schema as Columns, SchemaRef, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::error::BigQueryError;
use super::model::{Cell, Field, Row, Schema};

/// The columns of a result. What no type here holds exactly (`BIGNUMERIC`, `INTERVAL`) is text.
pub(crate) fn columns(schema: &Schema) -> SchemaRef {
    Arc::new(Columns::new(schema.fields.iter().map(column).collect::<Vec<_>>()))
}

fn column(field: &Field) -> Column {
    let one = one(field);
    match field.mode.as_deref() {
        Some("REPEATED") => Column::new(&field.name, DataType::List(Arc::new(Column::new("item", one, true))), true),
        _ => Column::new(&field.name, one, true),
    }
}

fn one(field: &Field) -> DataType {
    match field.kind.as_str() {
        "INTEGER" | "INT64" => DataType::Int64,
        "FLOAT" | "FLOAT64" => DataType::Float64,
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "NUMERIC" => DataType::Decimal128(38, 9),
        "DATE" => DataType::Date32,
        "TIME" => DataType::Time64(TimeUnit::Microsecond),
        "DATETIME" => DataType::Timestamp(TimeUnit::Microsecond, None),
        // Arrow's reader of JSON knows no zone by name.
        "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        "BYTES" => DataType::Binary,
        "RECORD" | "STRUCT" => DataType::Struct(field.fields.iter().map(column).collect::<Fields>()),
        _ => DataType::Utf8,
    }
}

/// The type of a column as DuckDB spells it.
pub(crate) fn sql(field: &Field) -> String {
    let one = match field.kind.as_str() {
        "INTEGER" | "INT64" => "BIGINT".to_owned(),
        "FLOAT" | "FLOAT64" => "DOUBLE".to_owned(),
        "BOOLEAN" | "BOOL" => "BOOLEAN".to_owned(),
        "NUMERIC" => "DECIMAL(38,9)".to_owned(),
        "DATE" => "DATE".to_owned(),
        "TIME" => "TIME".to_owned(),
        "DATETIME" => "TIMESTAMP".to_owned(),
        "TIMESTAMP" => "TIMESTAMP WITH TIME ZONE".to_owned(),
        "BYTES" => "BLOB".to_owned(),
        "RECORD" | "STRUCT" => {
            let parts = field.fields.iter().map(|part| {
                let name = agnes_core::ident::quote_ident(&part.name);
                format!("{name} {}", sql(part))
            });
            format!("STRUCT({})", parts.collect::<Vec<_>>().join(", "))
        }
        _ => "VARCHAR".to_owned(),
    };
    if field.mode.as_deref() == Some("REPEATED") { format!("{one}[]") } else { one }
}

/// A row as an object.
pub(crate) fn object(schema: &Schema, row: Row) -> Result<Value, BigQueryError> {
    fields(&schema.fields, row.f)
}

fn fields(fields: &[Field], cells: Vec<Cell>) -> Result<Value, BigQueryError> {
    let mut out = Map::new();
    for (field, cell) in fields.iter().zip(cells) {
        out.insert(field.name.clone(), value(field, cell.v)?);
    }
    Ok(Value::Object(out))
}

fn value(field: &Field, given: Value) -> Result<Value, BigQueryError> {
    let bad = || BigQueryError::Value { column: agnes_core::ident::printable(&field.name, 60) };
    if field.mode.as_deref() == Some("REPEATED") {
        let Value::Array(items) = given else { return if given.is_null() { Ok(given) } else { Err(bad()) } };
        let single = Field { mode: None, ..field.clone() };
        let items = items.into_iter().map(|mut item| value(&single, item["v"].take()));
        return Ok(Value::Array(items.collect::<Result<_, _>>()?));
    }
    if given.is_null() {
        return Ok(given);
    }
    if matches!(field.kind.as_str(), "RECORD" | "STRUCT") {
        let row: Row = serde_json::from_value(given).map_err(|_| bad())?;
        return fields(&field.fields, row.f);
    }
    let Value::String(text) = given else { return Err(bad()) };
    Ok(match field.kind.as_str() {
        "INTEGER" | "INT64" | "TIMESTAMP" => text.parse::<i64>().map_err(|_| bad())?.into(),
        "BOOLEAN" | "BOOL" => text.eq_ignore_ascii_case("true").into(),
        // The reader of JSON takes bytes as hexadecimal digits.
        "BYTES" => {
            let bytes = STANDARD.decode(&text).map_err(|_| bad())?;
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
        _ => Value::String(text),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_become_objects_and_columns() {
        let schema: Schema = serde_json::from_value(json!({"fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "at", "type": "TIMESTAMP"},
            {"name": "raw", "type": "BYTES"}, {"name": "tags", "type": "STRING", "mode": "REPEATED"},
            {"name": "who", "type": "RECORD", "fields": [{"name": "age", "type": "INTEGER"}]},
        ]}))
        .unwrap();
        let row: Row = serde_json::from_value(json!({"f": [
            {"v": "9007199254740993"}, {"v": "1700000000000000"}, {"v": "AP8="}, {"v": [{"v": "a"}, {"v": "b"}]},
            {"v": {"f": [{"v": null}]}},
        ]}))
        .unwrap();
        assert_eq!(
            object(&schema, row).unwrap(),
            json!({"id": 9_007_199_254_740_993_i64, "at": 1_700_000_000_000_000_i64, "raw": "00ff", "tags": ["a", "b"], "who": {"age": null}})
        );
        let kinds: Vec<String> = schema.fields.iter().map(sql).collect();
        assert_eq!(kinds, ["BIGINT", "TIMESTAMP WITH TIME ZONE", "BLOB", "VARCHAR[]", "STRUCT(\"age\" BIGINT)"]);
        assert_eq!(columns(&schema).fields().len(), 5);
    }
}

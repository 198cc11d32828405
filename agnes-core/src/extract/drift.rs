//! Schema drift: what changed in a table's columns, and whether taking it loses data.

use std::fmt;
use std::path::Path;

use arrow::datatypes::{DataType, Schema};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaDataReader;
use serde::{Deserialize, Serialize};

use super::ExtractError;
use crate::error::{Error, Result};

/// What changed in a table's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaDrift {
    /// Columns that are new.
    pub added: Vec<String>,
    /// Columns that are gone.
    pub removed: Vec<String>,
    /// Columns whose type changed: name, before, after.
    pub changed: Vec<(String, String, String)>,
}

impl fmt::Display for SchemaDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        let names = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        if !self.added.is_empty() {
            said.push(format!("new: {}", names(&self.added)));
        }
        if !self.removed.is_empty() {
            said.push(format!("gone: {}", names(&self.removed)));
        }
        for (name, before, after) in &self.changed {
            said.push(format!("`{name}` was {before}, is {after}"));
        }
        write!(f, "columns changed; {}", said.join("; "))
    }
}

/// The columns of a Parquet file.
pub(super) fn schema(path: &Path) -> Result<Schema> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("read a Parquet file", e))?;
    let meta = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|_| ExtractError::NotParquet)?;
    let file = meta.file_metadata();
    parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).map_err(|_| ExtractError::NotParquet.into())
}

/// One schema for several files, by name; the widest type of each column.
///
/// # Errors
/// [`ExtractError::IncompatibleDrift`] when no query could read them together.
pub(super) fn union(schemas: Vec<Schema>) -> Result<Schema, ExtractError> {
    let mut fields: Vec<arrow::datatypes::FieldRef> = Vec::new();
    for schema in schemas {
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.clone()),
                Some(known) if !compatible(known.data_type(), field.data_type()) => {
                    return Err(ExtractError::IncompatibleDrift {
                        column: field.name().clone(),
                        before: known.data_type().to_string(),
                        after: field.data_type().to_string(),
                    });
                }
                Some(known) if wider(known.data_type(), field.data_type()) => *known = field.clone(),
                Some(_) => {}
            }
        }
    }
    Ok(Schema::new(fields))
}

/// Whether `new` takes more values than `known`, both of kinds that go together.
fn wider(known: &DataType, new: &DataType) -> bool {
    match (known, new) {
        (DataType::Null, _) => true,
        (_, DataType::Null) => false,
        (known, new) if family(known) == Family::Text || family(new) == Family::Text => family(known) != Family::Text,
        (known, new) => new.primitive_width() > known.primitive_width() || new.is_floating() && !known.is_floating(),
    }
}

/// What changed from `before` to `after`; `None` when nothing did.
///
/// # Errors
/// [`ExtractError::IncompatibleDrift`] when values of one kind became values of another
/// (numbers became dates): taking them would break what people built on the column.
pub(super) fn compare(before: &Schema, after: &Schema) -> Result<Option<SchemaDrift>, ExtractError> {
    let mut drift = SchemaDrift::default();
    for field in after.fields() {
        let Ok(old) = before.field_with_name(field.name()) else {
            drift.added.push(field.name().clone());
            continue;
        };
        if old.data_type() == field.data_type() {
            continue;
        }
        let (was, is) = (old.data_type().to_string(), field.data_type().to_string());
        if !compatible(old.data_type(), field.data_type()) {
            return Err(ExtractError::IncompatibleDrift { column: field.name().clone(), before: was, after: is });
        }
        drift.changed.push((field.name().clone(), was, is));
    }
    for field in before.fields() {
        if after.field_with_name(field.name()).is_err() {
            drift.removed.push(field.name().clone());
        }
    }
    Ok((drift != SchemaDrift::default()).then_some(drift))
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Family {
    Text,
    Number,
    Time,
    Truth,
    Bytes,
    Nested,
}

fn family(data_type: &DataType) -> Family {
    use DataType as T;
    match data_type {
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null | T::Dictionary(..) => Family::Text,
        T::Boolean => Family::Truth,
        T::Date32 | T::Date64 | T::Timestamp(..) | T::Time32(_) | T::Time64(_) | T::Interval(_) | T::Duration(_) => {
            Family::Time
        }
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => Family::Bytes,
        t if t.is_nested() => Family::Nested,
        _ => Family::Number,
    }
}

/// Text takes every value, and what is text today may be something narrower tomorrow;
/// otherwise a column stays in its family.
fn compatible(before: &DataType, after: &DataType) -> bool {
    let (before, after) = (family(before), family(after));
    before == after || before == Family::Text || after == Family::Text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;

    fn schema(columns: &[(&str, DataType)]) -> Schema {
        Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn widening_is_taken_and_other_kinds_are_not() {
        let before = schema(&[("id", DataType::Int32), ("day", DataType::Date32), ("gone", DataType::Utf8)]);
        let wider = schema(&[("id", DataType::Int64), ("day", DataType::Utf8), ("new", DataType::Utf8)]);
        let drift = compare(&before, &wider).ok().flatten();
        assert_eq!(drift.as_ref().map(|d| (d.added.len(), d.removed.len(), d.changed.len())), Some((1, 1, 2)));
        let together = union(vec![before.clone(), wider.clone()]);
        assert_eq!(together.ok().map(|s| s.field(0).data_type().clone()), Some(DataType::Int64));
        assert!(union(vec![before.clone(), schema(&[("id", DataType::Date32)])]).is_err());
        let other = schema(&[("id", DataType::Date32), ("day", DataType::Date32), ("gone", DataType::Utf8)]);
        assert!(compare(&before, &other).is_err());
        assert!(matches!(compare(&before, &before), Ok(None)));
    }
}

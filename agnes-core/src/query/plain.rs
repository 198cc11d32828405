//! Columns without dictionaries: DuckDB hands over an `ENUM` as indexes into a dictionary, which
//! not every way to a reader carries. A value is what a reader wants.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

/// How the rows of one query become plain.
pub(super) struct Plain {
    schema: SchemaRef,
    changes: bool,
}

impl Plain {
    pub(super) fn of(schema: &SchemaRef) -> Self {
        let fields = fields(schema.fields());
        let changes = fields != *schema.fields();
        let plain = || Arc::new(Schema::new_with_metadata(fields.clone(), schema.metadata().clone()));
        Self { schema: if changes { plain() } else { schema.clone() }, changes }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub(super) fn rows(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if !self.changes {
            return Ok(batch);
        }
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)
    }
}

fn fields(of: &Fields) -> Fields {
    of.iter().map(field).collect()
}

fn field(of: &Arc<Field>) -> Arc<Field> {
    let plain = data_type(of.data_type());
    if plain == *of.data_type() { of.clone() } else { Arc::new(of.as_ref().clone().with_data_type(plain)) }
}

fn data_type(of: &DataType) -> DataType {
    match of {
        DataType::Dictionary(_, values) => data_type(values),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
        DataType::Struct(of) => DataType::Struct(fields(of)),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Array as _, ArrayRef, DictionaryArray, Int64Array, StringArray, StructArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn dictionaries_become_their_values_wherever_they_are() {
        let words: DictionaryArray<Int32Type> = [Some("a"), None, Some("b")].into_iter().collect();
        let words: ArrayRef = Arc::new(words);
        let field = Arc::new(Field::new("w", words.data_type().clone(), true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, words.clone())]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("w", words), ("s", nested), ("n", numbers)]).unwrap();
        let plain = Plain::of(&batch.schema());
        let rows = plain.rows(batch.clone()).unwrap();
        let texts = StringArray::from(vec![Some("a"), None, Some("b")]);
        assert_eq!(rows.column(0).as_any().downcast_ref::<StringArray>(), Some(&texts));
        let inside = rows.column(1).as_any().downcast_ref::<StructArray>().unwrap().column(0).clone();
        assert_eq!(inside.as_any().downcast_ref::<StringArray>(), Some(&texts));
        assert_eq!(rows.column(2), batch.column(2));
        let same = Plain::of(&rows.schema());
        assert!(!same.changes && Arc::ptr_eq(&same.schema(), &rows.schema()));
    }
}

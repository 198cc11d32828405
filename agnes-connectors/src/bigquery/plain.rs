//! Columns of streams as they are written: no file here holds 76 digits or a span of time, so both are
//! text as BigQuery itself writes it, wherever in a value they are.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, GenericListArray, OffsetSizeTrait, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{
    DataType, Decimal256Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema,
    SchemaRef,
};

/// The columns as they are written.
pub(super) fn written(given: &Schema) -> SchemaRef {
    let fields = given.fields().iter().map(|field| Field::new(field.name(), kind(field.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn kind(given: &DataType) -> DataType {
    let inside = |field: &FieldRef| Arc::new(Field::new(field.name(), kind(field.data_type()), true));
    match given {
        DataType::Decimal256(..) | DataType::Interval(IntervalUnit::MonthDayNano) => DataType::Utf8,
        DataType::List(item) => DataType::List(inside(item)),
        DataType::LargeList(item) => DataType::LargeList(inside(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inside).collect()),
        kind => kind.clone(),
    }
}

/// A batch in these columns; none where it has others.
pub(super) fn fit(batch: RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| plain(column, field.data_type()));
    RecordBatch::try_new(schema.clone(), columns.collect::<Option<_>>()?).ok()
}

fn plain(column: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    if column.data_type() == wanted {
        return Some(column.clone());
    }
    match (column.data_type(), wanted) {
        (DataType::Decimal256(..), DataType::Utf8) => {
            let values = column.as_primitive_opt::<Decimal256Type>()?;
            let text = |row| values.is_valid(row).then(|| digits(&values.value_as_string(row)));
            Some(Arc::new((0..values.len()).map(text).collect::<StringArray>()))
        }
        (DataType::Interval(_), DataType::Utf8) => {
            let values = column.as_primitive_opt::<IntervalMonthDayNanoType>()?;
            Some(Arc::new(values.iter().map(|value| value.map(span)).collect::<StringArray>()))
        }
        (DataType::List(_), DataType::List(item)) => list::<i32>(column, item),
        (DataType::LargeList(_), DataType::LargeList(item)) => list::<i64>(column, item),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let values = column.as_struct_opt()?;
            let parts = values.columns().iter().zip(fields).map(|(part, field)| plain(part, field.data_type()));
            let parts = parts.collect::<Option<Vec<_>>>()?;
            Some(Arc::new(StructArray::try_new(fields.clone(), parts, values.nulls().cloned()).ok()?))
        }
        _ => arrow::compute::cast(column, wanted).ok(),
    }
}

fn list<O: OffsetSizeTrait>(column: &ArrayRef, item: &FieldRef) -> Option<ArrayRef> {
    let values = column.as_list_opt::<O>()?;
    let inside = plain(values.values(), item.data_type())?;
    let nulls = values.nulls().cloned();
    Some(Arc::new(GenericListArray::try_new(item.clone(), values.offsets().clone(), inside, nulls).ok()?))
}

/// A number without the zeros that say nothing.
fn digits(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

/// A span of time as the reference of `INTERVAL` has it: `[sign]Y-M [sign]D [sign]H:M:S[.F]`.
fn span(of: IntervalMonthDayNano) -> String {
    let sign = |is_negative| if is_negative { "-" } else { "" };
    let (months, nanos) = (of.months.unsigned_abs(), of.nanoseconds.unsigned_abs());
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = match fraction {
        0 => String::new(),
        of if of % 1_000_000 == 0 => format!(".{:03}", of / 1_000_000),
        of if of % 1_000 == 0 => format!(".{:06}", of / 1_000),
        of => format!(".{of:09}"),
    };
    format!(
        "{}{}-{} {} {}{}:{}:{}{fraction}",
        sign(of.months < 0),
        months / 12,
        months % 12,
        of.days,
        sign(of.nanoseconds < 0),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Decimal256Array, IntervalMonthDayNanoArray, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Fields, i256};

    use super::*;

    #[test]
    fn what_no_file_holds_is_text_wherever_it_is() {
        let numbers = Decimal256Array::from(vec![Some(i256::from(15)), None, Some(i256::from(-200))]);
        let numbers: ArrayRef = Arc::new(numbers.with_precision_and_scale(76, 1).unwrap());
        let spans = [(14, 3, 14_706_789_000_000), (0, 0, 0), (-1, -2, -1_500_000_000)];
        let spans = spans.map(|(months, days, nanos)| IntervalMonthDayNano::new(months, days, nanos));
        let spans: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(spans.to_vec()));
        let item = Arc::new(Field::new("item", numbers.data_type().clone(), true));
        let list: ArrayRef =
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), numbers.clone(), None));
        let fields = Fields::from(vec![Field::new("i", spans.data_type().clone(), true)]);
        let record: ArrayRef = Arc::new(StructArray::new(fields, vec![spans.clone()], None));
        let columns = [("n", numbers), ("s", spans), ("l", list), ("r", record)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let schema = written(&batch.schema());
        let fitted = fit(batch, &schema).unwrap();
        let shown = |column: usize| {
            let options = arrow::util::display::FormatOptions::default().with_null("-");
            let column = arrow::util::display::ArrayFormatter::try_new(fitted.column(column), &options).unwrap();
            (0..3).map(|row| column.value(row).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(0), ["1.5", "-", "-20"]);
        assert_eq!(shown(1), ["1-2 3 4:5:6.789", "0-0 0 0:0:0", "-0-1 -2 -0:0:1.500"]);
        assert_eq!(shown(2), ["[1.5, -]", "[]", "[-20]"]);
        assert_eq!(shown(3)[0], "{i: 1-2 3 4:5:6.789}");
    }
}

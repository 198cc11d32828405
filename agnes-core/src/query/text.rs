//! Values as text. Arrow's own formatting ends at the year 262,143 and knows no infinity;
//! the engine's dates reach the year 5,881,580. It also cuts whole numbers after 38 digits, where
//! those of the engine have 39.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, ListArray, MapArray, StringArray, StructArray, UInt64Array,
    new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

const DAY_MICROS: i128 = 86_400_000_000;

/// Digits of a decimal that Arrow writes.
const MOST_DIGITS: u8 = 38;

/// The value at `row` as text; `NULL` for null. Lists and structs holding a date beyond
/// what Arrow writes are shown with that date as text too.
#[must_use]
pub fn value_text(array: &dyn Array, row: usize) -> String {
    if let Some(text) = beyond(array, row) {
        return text;
    }
    let options = FormatOptions::default().with_null("NULL").with_display_error(false);
    let written = |array: &dyn Array, row| {
        ArrayFormatter::try_new(array, &options).and_then(|formatter| formatter.value(row).try_to_string())
    };
    if holds_widest(array.data_type())
        && let Ok(alone) = take(array, &UInt64Array::from(vec![row as u64]), None)
    {
        return written(&within_range(&alone), 0).unwrap_or_else(|_| "out of range".to_owned());
    }
    written(array, row)
        .or_else(|_| written(&within_range(&array.slice(row, 1)), 0))
        .unwrap_or_else(|_| "out of range".to_owned())
}

/// Whether there are whole numbers in it, below its surface, that Arrow may cut.
pub(super) fn holds_widest(kind: &DataType) -> bool {
    let is_widest = |field: &FieldRef| {
        let kind = field.data_type();
        *kind == DataType::Decimal128(MOST_DIGITS, 0) || holds_widest(kind)
    };
    match kind {
        DataType::List(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => is_widest(field),
        DataType::Struct(fields) => fields.iter().any(is_widest),
        _ => false,
    }
}

/// The batch with every column of dates or times that Arrow's writers (text, CSV, JSON)
/// would fail on as a column of text. Most batches come back as they are.
#[must_use]
pub fn writable(batch: &RecordBatch) -> RecordBatch {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(within_range).collect();
    if columns.iter().zip(batch.columns()).all(|(new, old)| Arc::ptr_eq(new, old)) {
        return batch.clone();
    }
    let fields: Vec<Field> = batch
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap_or_else(|_| batch.clone())
}

fn within_range(array: &ArrayRef) -> ArrayRef {
    let renamed = |field: &FieldRef, items: &ArrayRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(items.data_type().clone()))
    };
    match array.data_type() {
        DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(MOST_DIGITS, 0)
            if (0..array.len()).any(|row| beyond(array, row).is_some()) =>
        {
            let texts = (0..array.len()).map(|row| (!array.is_null(row)).then(|| value_text(array, row)));
            Arc::new(texts.collect::<StringArray>())
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let items = within_range(list.values());
            if Arc::ptr_eq(&items, list.values()) {
                return array.clone();
            }
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            kept(array, ListArray::try_new(renamed(field, &items), offsets, items, nulls))
        }
        DataType::FixedSizeList(field, size) => {
            let list = array.as_fixed_size_list();
            let items = within_range(list.values());
            if Arc::ptr_eq(&items, list.values()) {
                return array.clone();
            }
            kept(array, FixedSizeListArray::try_new(renamed(field, &items), *size, items, list.nulls().cloned()))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let new: Vec<ArrayRef> = columns.columns().iter().map(within_range).collect();
            if new.iter().zip(columns.columns()).all(|(new, old)| Arc::ptr_eq(new, old)) {
                return array.clone();
            }
            let fields = fields.iter().zip(&new).map(|(field, column)| renamed(field, column)).collect();
            kept(array, StructArray::try_new(fields, new, columns.nulls().cloned()))
        }
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let old: ArrayRef = Arc::new(map.entries().clone());
            let entries = within_range(&old);
            if Arc::ptr_eq(&entries, &old) {
                return array.clone();
            }
            let (offsets, nulls, field) = (map.offsets().clone(), map.nulls().cloned(), renamed(field, &entries));
            kept(array, MapArray::try_new(field, offsets, entries.as_struct().clone(), nulls, *sorted))
        }
        _ => array.clone(),
    }
}

fn kept<A: Array + 'static>(old: &ArrayRef, new: Result<A, arrow::error::ArrowError>) -> ArrayRef {
    new.map_or_else(|_| new_null_array(old.data_type(), old.len()), |array| Arc::new(array))
}

/// The text of a date, time or number that Arrow cannot write; `None` for everything else.
pub(super) fn beyond(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    if *array.data_type() == DataType::Decimal128(MOST_DIGITS, 0) {
        let number = array.as_primitive::<Decimal128Type>().value(row);
        return (number.unsigned_abs() >= 10_u128.pow(u32::from(MOST_DIGITS))).then(|| number.to_string());
    }
    let (micros, most, time) = match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            (i128::from(days) * DAY_MICROS, i128::from(i32::MAX) * DAY_MICROS, None)
        }
        DataType::Timestamp(unit, zone) => {
            let (value, scale) = match unit {
                TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 1_000_000),
                TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
                TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1),
                // 64 bits of nanoseconds end in the year 2262.
                TimeUnit::Nanosecond => return None,
            };
            (i128::from(value) * scale, i128::from(i64::MAX) * scale, Some(if zone.is_some() { "Z" } else { "" }))
        }
        _ => return None,
    };
    // How the engine keeps infinity.
    if micros.abs() == most {
        return Some(if micros < 0 { "-infinity" } else { "infinity" }.to_owned());
    }
    let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    let known = chrono::DateTime::from_timestamp(i64::try_from(days).ok()? * 86_400, 0).is_some();
    (!known).then(|| {
        let date = date_text(days);
        let Some(zone) = time else { return date };
        let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
        let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
        format!("{date}T{:02}:{:02}:{:02}{fraction}{zone}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    })
}

/// A day counted from 1970-01-01 in the proleptic Gregorian calendar, as ISO 8601 writes
/// years of more than four digits: with a sign.
fn date_text(days: i128) -> String {
    // Years begin in March, so that the leap day is the last one; 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:+05}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Decimal128Array, TimestampMicrosecondArray};

    #[test]
    fn dates_agree_with_the_calendar_and_go_on_after_it() {
        for days in [-719_529, -1, 0, 59, 60, 789, 11_016, 19_782, 2_932_896, 90_000_000, -90_000_000] {
            let date = chrono::DateTime::from_timestamp(days * 86_400, 0).unwrap().date_naive();
            let year: i32 = chrono::Datelike::year(&date);
            let expected = format!("{year:+05}{}", date.format("-%m-%d"));
            assert_eq!(date_text(i128::from(days)), expected, "{days}");
        }
        // The last and the first day the engine knows.
        assert_eq!(date_text(2_147_483_646), "+5881580-07-10");
        assert_eq!(date_text(-2_147_483_646), "-5877641-06-25");
    }

    #[test]
    fn columns_that_cannot_be_written_become_text() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(0), Some(i32::MAX), Some(-i32::MAX), None]));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
            Some(0),
            Some(9_089_348_860_800_000_000),
            Some(i64::MAX),
            Some(-i64::MAX),
        ]));
        let fine: ArrayRef = Arc::new(Date32Array::from(vec![1, 2, 3, 4]));
        let field = Arc::new(Field::new("item", DataType::Date32, true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 1, 1, 0]);
        let list: ArrayRef = Arc::new(ListArray::new(field, offsets, dates.clone(), None));
        let batch = RecordBatch::try_from_iter([("d", dates), ("t", times), ("f", fine.clone()), ("l", list)]).unwrap();
        let out = writable(&batch);
        let texts = |n: usize| (0..4).map(|row| value_text(out.column(n), row)).collect::<Vec<_>>();
        assert_eq!(texts(0), ["1970-01-01", "infinity", "-infinity", "NULL"]);
        assert_eq!(texts(1), ["1970-01-01T00:00:00", "+290000-01-01T00:00:00", "infinity", "-infinity"]);
        assert_eq!(texts(3), ["[1970-01-01, infinity]", "[-infinity]", "[NULL]", "[]"]);
        assert!(Arc::ptr_eq(out.column(2), batch.column(2)));
        assert_eq!(value_text(batch.column(3), 0), "[1970-01-01, infinity]");
    }

    #[test]
    fn the_widest_numbers_keep_their_last_digit() {
        let widest = |values: Vec<i128>| -> ArrayRef {
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(MOST_DIGITS, 0).unwrap())
        };
        let numbers = widest(vec![i128::MAX, i128::MIN, 10_i128.pow(38) - 1]);
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 2, 0]);
        let field = Arc::new(Field::new("item", numbers.data_type().clone(), true));
        let list: ArrayRef = Arc::new(ListArray::new(field, offsets, numbers.clone(), None));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("l", list)]).unwrap();
        let texts = |n: usize| (0..3).map(|row| value_text(batch.column(n), row)).collect::<Vec<_>>();
        let (most, least, fits) = (i128::MAX.to_string(), i128::MIN.to_string(), (10_i128.pow(38) - 1).to_string());
        assert_eq!(texts(0), [most.clone(), least.clone(), fits.clone()]);
        assert_eq!(texts(1), [format!("[{most}]"), format!("[{least}, {fits}]"), "[]".to_owned()]);
        let rows = serde_json::to_string(&crate::query::json_rows(&batch)).unwrap();
        assert!(rows.contains(&format!(r#""n":"{most}","l":"[{most}]""#)), "{rows}");
        assert_eq!(writable(&batch).column(0).data_type(), &DataType::Utf8);
    }
}

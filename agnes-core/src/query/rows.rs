//! Small answers of the engine as values.

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;

/// Column `index` of `batches` as text; it must be of type VARCHAR.
pub(super) fn text(batches: &[RecordBatch], index: usize) -> Vec<Option<String>> {
    batches
        .iter()
        .filter_map(|batch| batch.columns().get(index)?.as_string_opt::<i32>().cloned())
        .flat_map(|column| {
            (0..column.len()).map(|n| column.is_valid(n).then(|| column.value(n).to_owned())).collect::<Vec<_>>()
        })
        .collect()
}

//! Record batches as Parquet: the columns of a row group are encoded side by side.

use std::fs::File;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

use arrow::array::Array;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::ExtractError;
use crate::error::{Error, Result};

/// Bytes of a row group's values before they are encoded, about.
const GROUP_BYTES: usize = 128 << 20;
/// Most rows of a row group: queries read row groups side by side, and one that is whole is
/// written while the next ones come.
const GROUP_ROWS: usize = super::parquet::ROW_GROUP_ROWS;
/// Threads that share the columns of a row group: some more than processors even out columns
/// of different cost.
const MOST_LANES: usize = 8;
/// Batches that wait for one of them.
const QUEUE: usize = 2;

/// Writes `batches` to `file`; how many rows they had.
pub(super) fn write(
    file: File,
    schema: &SchemaRef,
    properties: WriterProperties,
    batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
) -> Result<u64> {
    let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(failed)?;
    let (mut file, groups) = writer.into_serialized_writer().map_err(failed)?;
    let leaves = file.schema_descr();
    let roots: Vec<usize> = (0..leaves.num_columns()).map(|leaf| leaves.get_column_root_idx(leaf)).collect();
    let lanes = thread::available_parallelism().map_or(2, |n| n.get() * 2).min(MOST_LANES);
    let lanes = lanes.min(schema.fields().len()).max(1);
    // A row group without rows is none.
    let mut batches = batches.filter(|batch| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0));
    let (mut rows, mut index, mut left) = (0, 0, None::<RecordBatch>);
    while let Some(first) = left.take().map(Ok).or_else(|| batches.next()).transpose()? {
        let writers = groups.create_column_writers(index).map_err(failed)?;
        let chunks = thread::scope(|scope| {
            let (mut senders, mut running) = (Vec::new(), Vec::<Lane<'_>>::new());
            for columns in share(writers, &roots, lanes) {
                let (send, receive) = mpsc::sync_channel(QUEUE);
                senders.push(send);
                running.push(scope.spawn(move || lane(schema, columns, &receive)));
            }
            let (mut next, mut group, mut bytes) = (Some(first), 0, 0);
            while let Some(mut batch) = next.take() {
                if batch.num_columns() != schema.fields().len() {
                    return Err(ExtractError::BadBatch.into());
                }
                let room = GROUP_ROWS - group;
                if batch.num_rows() > room {
                    left = Some(batch.slice(room, batch.num_rows() - room));
                    batch = batch.slice(0, room);
                }
                (group, bytes) = (group + batch.num_rows(), bytes + size(&batch));
                // A lane that ended says why when it is joined.
                let ended = senders.iter().any(|send| send.send(batch.clone()).is_err());
                if ended || group >= GROUP_ROWS || bytes >= GROUP_BYTES {
                    break;
                }
                next = batches.next().transpose()?;
            }
            drop(senders);
            rows += group as u64;
            let mut chunks = Vec::new();
            for lane in running {
                let panicked = |_| Error::internal("encode columns", std::io::Error::other("a thread panicked"));
                chunks.extend(lane.join().map_err(panicked)?.map_err(failed)?);
            }
            chunks.sort_by_key(|(leaf, _)| *leaf);
            Ok::<_, Error>(chunks)
        })?;
        let mut group = file.next_row_group().map_err(failed)?;
        for (_, chunk) in chunks {
            chunk.append_to_row_group(&mut group).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        index += 1;
    }
    file.close().map_err(failed)?;
    Ok(rows)
}

/// What becomes of one lane's columns, by number of the leaf.
type Lane<'scope> = ScopedJoinHandle<'scope, Result<Vec<(usize, ArrowColumnChunk)>, ParquetError>>;

/// One column of the batches, and the leaves it has in the file.
struct Column {
    field: usize,
    leaves: Vec<(usize, ArrowColumnWriter)>,
}

/// The columns, in turn, to so many lanes.
fn share(writers: Vec<ArrowColumnWriter>, roots: &[usize], lanes: usize) -> Vec<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    for (leaf, (writer, &field)) in writers.into_iter().zip(roots).enumerate() {
        match columns.last_mut().filter(|column| column.field == field) {
            Some(column) => column.leaves.push((leaf, writer)),
            None => columns.push(Column { field, leaves: vec![(leaf, writer)] }),
        }
    }
    let mut shared: Vec<Vec<Column>> = (0..lanes).map(|_| Vec::new()).collect();
    for (n, column) in columns.into_iter().enumerate() {
        shared[n % lanes].push(column);
    }
    shared
}

/// Encodes some columns of all batches.
fn lane(
    schema: &Schema,
    mut columns: Vec<Column>,
    batches: &mpsc::Receiver<RecordBatch>,
) -> Result<Vec<(usize, ArrowColumnChunk)>, ParquetError> {
    for batch in batches {
        for column in &mut columns {
            let leaves = compute_leaves(schema.field(column.field), batch.column(column.field))?;
            for ((_, writer), leaf) in column.leaves.iter_mut().zip(&leaves) {
                writer.write(leaf)?;
            }
        }
    }
    columns.into_iter().flat_map(|column| column.leaves).map(|(leaf, writer)| Ok((leaf, writer.close()?))).collect()
}

/// Bytes of a batch's values, without what its buffers hold beside them.
fn size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

fn failed(error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => Error::io("write a Parquet file", *io),
            Err(_) => ExtractError::BadBatch.into(),
        },
        _ => ExtractError::BadBatch.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn rows_of_all_columns_and_groups_are_there_in_their_order() {
        let inner = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("pair", DataType::Struct(inner.clone().into()), true),
            Field::new("text", DataType::Utf8, true),
        ]));
        let batch = |from: i64, rows: i64| {
            let n = Arc::new(Int64Array::from_iter_values(from..from + rows));
            let text = Arc::new(StringArray::from_iter_values((from..from + rows).map(|n| format!("row {n}"))));
            let pair = StructArray::new(inner.clone().into(), vec![n.clone(), text.clone()], None);
            RecordBatch::try_new(schema.clone(), vec![n, Arc::new(pair), text]).unwrap()
        };
        // More than a row group, and batches that do not end where groups do.
        let rows = GROUP_ROWS as i64 + 5;
        let batches: Vec<RecordBatch> =
            vec![batch(0, 0), batch(0, 7), batch(7, 0), batch(7, rows - 7 - 1), batch(rows - 1, 1)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let file = File::create(&path).unwrap();
        let written = write(file, &schema, WriterProperties::default(), &mut batches.into_iter().map(Ok)).unwrap();
        assert_eq!(written, rows as u64);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.schema().fields(), schema.fields());
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let mut from = 0;
        for read in reader.build().unwrap() {
            let read = read.unwrap();
            let wanted = batch(from, read.num_rows() as i64);
            assert_eq!(read.columns(), wanted.columns());
            from += read.num_rows() as i64;
        }
        assert_eq!(from, rows);
    }

    #[test]
    fn a_batch_that_does_not_fit_and_one_that_does_not_come_are_told() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let folder = tempfile::tempdir().unwrap();
        let write = |batch: Result<RecordBatch>| {
            let file = File::create(folder.path().join("t.parquet")).unwrap();
            write(file, &schema, WriterProperties::default(), &mut std::iter::once(batch)).unwrap_err()
        };
        let other = Arc::new(Schema::new(vec![Field::new("n", DataType::Utf8, true)]));
        let text = RecordBatch::try_new(other, vec![Arc::new(StringArray::from(vec!["a"]))]).unwrap();
        assert_eq!(write(Ok(text)).code(), "bad_batch");
        assert_eq!(write(Err(crate::connector::Cancelled.into())).code(), "cancelled");
    }
}

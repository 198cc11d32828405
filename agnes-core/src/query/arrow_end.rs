//! The last message of an Arrow stream: a batch without rows whose custom metadata say what is
//! known only after the last row.
//!
//! The schema comes first and cannot say it. A reader that does not look at a message's metadata
//! sees a batch without rows; `pyarrow` shows it by `read_next_batch_with_custom_metadata`.

use std::io::Write;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{
    CompressionContext, DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteOptions, write_message,
};
use arrow::ipc::{KeyValue, KeyValueArgs, MessageBuilder, MessageHeader, RecordBatchBuilder};
use arrow::record_batch::RecordBatch;
use flatbuffers::FlatBufferBuilder;

/// Writes the message. `is_first` where no batch came before it: then the dictionaries that its
/// columns name come with it.
pub(super) fn write<W: Write>(
    to: &mut W,
    schema: &SchemaRef,
    is_first: bool,
    metadata: &[(&str, String)],
) -> Result<(), ArrowError> {
    let (options, generator) = (IpcWriteOptions::default(), IpcDataGenerator::default());
    let mut dictionaries = DictionaryTracker::new(false);
    // Gives the dictionaries their ids, as at the begin of the stream.
    drop(generator.schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options));
    let nothing = RecordBatch::new_empty(schema.clone());
    let (named, batch) = generator.encode(&nothing, &mut dictionaries, &options, &mut CompressionContext::default())?;
    if is_first {
        for dictionary in named {
            write_message(&mut *to, dictionary, &options)?;
        }
    }
    let ipc_message = with_metadata(&batch.ipc_message, metadata)?;
    write_message(to, EncodedData { ipc_message, arrow_data: batch.arrow_data }, &options)?;
    Ok(())
}

/// The message of a batch again, with metadata of its own.
fn with_metadata(message: &[u8], metadata: &[(&str, String)]) -> Result<Vec<u8>, ArrowError> {
    let broken = |what: String| ArrowError::IpcError(what);
    let message = arrow::ipc::root_as_message(message).map_err(|e| broken(e.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| broken("it is no batch".to_owned()))?;
    let mut text = FlatBufferBuilder::new();
    let nodes: Vec<_> = batch.nodes().iter().flatten().copied().collect();
    let buffers: Vec<_> = batch.buffers().iter().flatten().copied().collect();
    let nodes = text.create_vector(&nodes);
    let buffers = text.create_vector(&buffers);
    let counts = batch.variadicBufferCounts().map(|counts| counts.iter().collect::<Vec<i64>>());
    let counts = counts.map(|counts| text.create_vector(&counts));
    let mut header = RecordBatchBuilder::new(&mut text);
    header.add_length(batch.length());
    header.add_nodes(nodes);
    header.add_buffers(buffers);
    if let Some(counts) = counts {
        header.add_variadicBufferCounts(counts);
    }
    let header = header.finish().as_union_value();
    let mut pairs = Vec::with_capacity(metadata.len());
    for (key, value) in metadata {
        let (key, value) = (Some(text.create_string(key)), Some(text.create_string(value)));
        pairs.push(KeyValue::create(&mut text, &KeyValueArgs { key, value }));
    }
    let pairs = text.create_vector(&pairs);
    let mut again = MessageBuilder::new(&mut text);
    again.add_version(message.version());
    again.add_header_type(MessageHeader::RecordBatch);
    again.add_bodyLength(message.bodyLength());
    again.add_header(header);
    again.add_custom_metadata(pairs);
    let root = again.finish();
    text.finish(root, None);
    Ok(text.finished_data().to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};
    use arrow::ipc::reader::StreamReader;
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn batch() -> RecordBatch {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let field = Arc::new(Field::new("n", numbers.data_type().clone(), true));
        RecordBatch::try_from_iter_with_nullable([
            ("n", numbers.clone(), true),
            ("w", Arc::new(words) as ArrayRef, true),
            ("s", Arc::new(StructArray::from(vec![(field, numbers)])), true),
            ("l", Arc::new(list), true),
            ("t", Arc::new(StringArray::from(vec!["x", "y", "z"])), true),
        ])
        .unwrap()
    }

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch().schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        let metadata = [("agnes.truncated", "true".to_owned()), ("agnes.receipt", "{}".to_owned())];
        write(writer.get_mut(), &batch().schema(), batches.is_empty(), &metadata).unwrap();
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn other_readers_see_a_batch_without_rows() {
        let bytes = stream(&[batch(), batch()]);
        let read: Vec<RecordBatch> =
            StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 3, 0]);
        assert_eq!(read[1], batch());
        let bytes = stream(&[]);
        let read: Vec<RecordBatch> =
            StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn the_message_says_what_it_was_given() {
        let schema = batch().schema();
        let mut bytes = Vec::new();
        write(&mut bytes, &schema, false, &[("agnes.truncated", "false".to_owned())]).unwrap();
        // Four bytes that mark a message, four of its length.
        let message = arrow::ipc::root_as_message(&bytes[8..]).unwrap();
        let pair = message.custom_metadata().unwrap().get(0);
        assert_eq!((pair.key(), pair.value()), (Some("agnes.truncated"), Some("false")));
        assert_eq!(message.header_as_record_batch().unwrap().length(), 0);
    }
}

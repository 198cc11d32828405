//! Rows as messages carry them: Arrow IPC.

use std::collections::HashMap;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::frame;
use crate::error::Result;

/// The one batch of a message, without copying its columns. Checked: a worker may send
/// anything.
pub(super) fn record_batch(body: Vec<u8>, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let bad = || ArrowError::IpcError("not a record batch".to_owned());
    let body = Buffer::from_vec(body);
    // A marker, the length of the head, the head, the columns.
    let head = body.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes).ok_or_else(bad)?;
    let end = 8 + head as usize;
    let message = arrow::ipc::root_as_message(body.get(8..end).ok_or_else(bad)?).map_err(|_| bad())?;
    let batch = message.header_as_record_batch().ok_or_else(bad)?;
    read_record_batch(&body.slice(end), batch, schema.clone(), &HashMap::new(), None, &message.version())
}

/// Batches as one stream, with room for the head of a message; no stream where there are none.
pub(super) fn stream(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let bytes = vec![0; frame::HEAD];
    let Some(first) = batches.first() else { return Ok(bytes) };
    let mut writer = StreamWriter::try_new(bytes, &first.schema())?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

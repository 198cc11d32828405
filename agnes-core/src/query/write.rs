//! Rows in the formats in which they leave Agnes, written as they come: one implementation
//! for every frontend.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::json;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::json::JsonCells;
use super::{Receipt, value_text, writable};
use crate::error::{Coded, ErrorKind};
use crate::policy::RowScope;

/// Rows of a row group: what the Parquet writer keeps in memory.
const ROW_GROUP: usize = 128 << 10;

/// A format for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowFormat {
    /// With a header; lists and structs are text.
    Csv,
    /// One array of objects, column to value. Of columns that share a name the later ones are `name_1`,
    /// `name_2`.
    Json,
    /// One object: `columns`, `rows` (arrays of values as [`json_column`](super::json_column)
    /// gives them), `row_count`, `truncated`, and what [`RowsEnd`] says.
    JsonTable,
    /// One object a line.
    Ndjson,
    /// Compressed with Zstandard; intervals are text.
    Parquet,
    /// An IPC stream. Its last message is a batch without rows with what [`RowsEnd`] says as
    /// custom metadata: `agnes.truncated`, `agnes.row_scope`, `agnes.receipt`.
    Arrow,
}

/// What is known when the last row was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowsEnd<'a> {
    /// Whether rows were left out.
    pub truncated: bool,
    /// What policies took from the tables of the query.
    pub row_scope: &'a [RowScope],
    /// The receipt, where one was asked for.
    pub receipt: Option<&'a Receipt>,
    /// Bytes that a warehouse read for it, as estimated.
    pub bytes_scanned: Option<u64>,
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RowWriteError {
    /// The file or pipe below failed.
    #[error("cannot write the rows")]
    Io(#[source] std::io::Error),
    /// The format has no place for a type or value of the rows.
    #[error("cannot write the rows in this format: {message}")]
    Format {
        /// What the writer said.
        message: String,
    },
}

impl Coded for RowWriteError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::Internal,
            Self::Format { .. } => ErrorKind::Unsupported,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Io(_) => "io_error",
            Self::Format { .. } => "rows_not_writable",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(_) => None,
            Self::Format { .. } => Some("choose another format, or cast the column to text".to_owned()),
        }
    }
}

impl From<std::io::Error> for RowWriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<arrow::error::ArrowError> for RowWriteError {
    fn from(error: arrow::error::ArrowError) -> Self {
        match error {
            arrow::error::ArrowError::IoError(_, io) => Self::Io(io),
            other => Self::Format { message: other.to_string() },
        }
    }
}

impl From<parquet::errors::ParquetError> for RowWriteError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(io) => Self::Io(*io),
                Err(other) => Self::Format { message: other.to_string() },
            },
            other => Self::Format { message: other.to_string() },
        }
    }
}

impl From<serde_json::Error> for RowWriteError {
    fn from(error: serde_json::Error) -> Self {
        Self::Io(error.into())
    }
}

/// Writes record batches in one format.
pub struct RowWriter<W: Write + Send>(Sink<W>);

enum Sink<W: Write + Send> {
    Csv(Box<csv::Writer<W>>),
    Json(json::Writer<W, json::writer::JsonArray>),
    JsonTable(JsonTable<W>),
    Ndjson(json::Writer<W, json::writer::LineDelimited>),
    Parquet(Box<ArrowWriter<W>>),
    Arrow(Box<ArrowStream<W>>),
}

impl<W: Write + Send> fmt::Debug for RowWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowWriter")
    }
}

impl<W: Write + Send> RowWriter<W> {
    /// Begins to write rows of `schema` to `to`.
    ///
    /// # Errors
    /// [`RowWriteError`].
    pub fn new(format: RowFormat, schema: &SchemaRef, mut to: W) -> Result<Self, RowWriteError> {
        let objects = json::WriterBuilder::new().with_explicit_nulls(true);
        Ok(Self(match format {
            RowFormat::Csv => {
                let mut csv = csv::WriterBuilder::new().with_header(true).build(to);
                // The header comes even when no row does.
                csv.write(&flat(&RecordBatch::new_empty(schema.clone()))?)?;
                Sink::Csv(Box::new(csv))
            }
            RowFormat::Json => Sink::Json(objects.build(to)),
            RowFormat::JsonTable => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                write!(to, r#"{{"columns":{},"rows":["#, json!(names))?;
                Sink::JsonTable(JsonTable { to, rows: 0, text: Vec::new() })
            }
            RowFormat::Ndjson => Sink::Ndjson(objects.build(to)),
            RowFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP))
                    .build();
                let schema = without_intervals(&RecordBatch::new_empty(schema.clone()))?.schema();
                Sink::Parquet(Box::new(ArrowWriter::try_new(to, schema, Some(properties))?))
            }
            RowFormat::Arrow => {
                let to = StreamWriter::try_new(to, schema)?;
                Sink::Arrow(Box::new(ArrowStream { to, schema: schema.clone(), is_empty: true }))
            }
        }))
    }

    /// Writes rows.
    ///
    /// # Errors
    /// [`RowWriteError`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), RowWriteError> {
        match &mut self.0 {
            Sink::Csv(csv) => csv.write(&flat(&writable(batch))?)?,
            Sink::Json(json) => json.write(&keyed(writable(batch))?)?,
            Sink::JsonTable(table) => table.write(batch)?,
            Sink::Ndjson(json) => json.write(&keyed(writable(batch))?)?,
            Sink::Parquet(parquet) => parquet.write(&without_intervals(batch)?)?,
            Sink::Arrow(arrow) => {
                arrow.to.write(batch)?;
                arrow.is_empty = false;
            }
        }
        Ok(())
    }

    /// Writes what comes after the last row.
    ///
    /// # Errors
    /// [`RowWriteError`].
    pub fn finish(self, end: &RowsEnd<'_>) -> Result<(), RowWriteError> {
        match self.0 {
            Sink::Csv(_) => {}
            Sink::Json(mut json) => {
                json.finish()?;
                writeln!(json.into_inner())?;
            }
            Sink::JsonTable(table) => table.finish(end)?,
            Sink::Ndjson(mut json) => json.finish()?,
            Sink::Parquet(parquet) => drop(parquet.close()?),
            Sink::Arrow(arrow) => arrow.finish(end)?,
        }
        Ok(())
    }
}

/// Rows whose columns each have a name of their own, as a table made of them has: who reads an object
/// keeps one value of a name.
fn keyed(batch: RecordBatch) -> Result<RecordBatch, RowWriteError> {
    let schema = batch.schema();
    let mut taken: HashSet<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    if taken.len() == schema.fields().len() {
        return Ok(batch);
    }
    let mut seen = HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        if seen.insert(field.name()) {
            return field.clone();
        }
        let mut names = (1..).map(|n: usize| format!("{}_{n}", field.name()));
        let name = names.find(|name| taken.insert(name.clone())).unwrap_or_default();
        Arc::new(field.as_ref().clone().with_name(name))
    });
    let renamed = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
    Ok(RecordBatch::try_new(Arc::new(renamed), batch.columns().to_vec())?)
}

/// The stream of [`RowFormat::Arrow`].
struct ArrowStream<W: Write> {
    to: StreamWriter<W>,
    schema: SchemaRef,
    is_empty: bool,
}

impl<W: Write> ArrowStream<W> {
    fn finish(mut self, end: &RowsEnd<'_>) -> Result<(), RowWriteError> {
        let mut metadata = vec![("agnes.truncated", end.truncated.to_string())];
        if !end.row_scope.is_empty() {
            metadata.push((crate::policy::ROW_SCOPE_KEY, json!(end.row_scope).to_string()));
        }
        if let Some(receipt) = end.receipt {
            metadata.push(("agnes.receipt", json!(receipt).to_string()));
        }
        super::arrow_end::write(self.to.get_mut(), &self.schema, self.is_empty, &metadata)?;
        Ok(self.to.finish()?)
    }
}

/// The object of [`RowFormat::JsonTable`].
struct JsonTable<W> {
    to: W,
    rows: u64,
    /// Kept between batches for its room.
    text: Vec<u8>,
}

impl<W: Write> JsonTable<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), RowWriteError> {
        let columns: Vec<JsonCells<'_>> = batch.columns().iter().map(|column| JsonCells::new(column)).collect();
        let text = &mut self.text;
        text.clear();
        for row in 0..batch.num_rows() {
            text.extend_from_slice(if self.rows == 0 { b"[" } else { b",[" });
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                column.write(row, text)?;
            }
            text.push(b']');
            self.rows += 1;
        }
        Ok(self.to.write_all(text)?)
    }

    fn finish(mut self, end: &RowsEnd<'_>) -> Result<(), RowWriteError> {
        let scanned = json!(end.bytes_scanned);
        write!(self.to, r#"],"row_count":{},"truncated":{},"bytes_scanned":{scanned}"#, self.rows, end.truncated)?;
        if !end.row_scope.is_empty() {
            write!(self.to, r#","row_scope":{}"#, json!(end.row_scope))?;
        }
        if let Some(receipt) = end.receipt {
            write!(self.to, r#","receipt":{}"#, json!(receipt))?;
        }
        Ok(self.to.write_all(b"}")?)
    }
}

/// The batch with lists, structs and maps as text, for a format that has no place for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, RowWriteError> {
    as_text(batch, |data_type| data_type.is_nested())
}

/// The batch with intervals as text, which the Parquet writer does not know.
fn without_intervals(batch: &RecordBatch) -> Result<RecordBatch, RowWriteError> {
    fn holds_interval(data_type: &DataType) -> bool {
        match data_type {
            DataType::Interval(_) => true,
            DataType::List(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
                holds_interval(field.data_type())
            }
            DataType::Struct(fields) => fields.iter().any(|field| holds_interval(field.data_type())),
            _ => false,
        }
    }
    as_text(batch, holds_interval)
}

/// The batch with the columns of some types as text.
fn as_text(batch: &RecordBatch, wanted: impl Fn(&DataType) -> bool) -> Result<RecordBatch, RowWriteError> {
    if !batch.schema().fields().iter().any(|field| wanted(field.data_type())) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if wanted(field.data_type()) {
            let texts = (0..column.len()).map(|row| (!column.is_null(row)).then(|| value_text(column, row)));
            columns.push(Arc::new(texts.collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    fn batch() -> RecordBatch {
        let decimals = Decimal128Array::from(vec![Some(1050), None, Some(-7)]).with_precision_and_scale(10, 2).unwrap();
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        RecordBatch::try_from_iter([
            ("i", Arc::new(Int64Array::from(vec![Some(1), Some(i64::MAX), Some(-(1 << 53))])) as ArrayRef),
            ("u", Arc::new(UInt64Array::from(vec![None, Some(u64::MAX), Some(7)]))),
            ("f", Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(1e300)]))),
            ("g", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::INFINITY), None]))),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            ("s", Arc::new(StringArray::from(vec![Some("a\"\n\u{7f}é"), None, Some("")]))),
            ("d", Arc::new(Date32Array::from(vec![Some(0), None, Some(i32::MAX)]))),
            ("m", Arc::new(decimals)),
            ("l", Arc::new(list)),
        ])
        .unwrap()
    }

    fn written(format: RowFormat, batches: &[RecordBatch]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(format, &batch().schema(), &mut bytes).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish(&RowsEnd { truncated: true, ..RowsEnd::default() }).unwrap();
        bytes
    }

    #[test]
    fn the_table_holds_the_values_of_every_other_json() {
        let batch = batch();
        let table: serde_json::Value =
            serde_json::from_slice(&written(RowFormat::JsonTable, &[batch.clone(), batch.slice(0, 1)])).unwrap();
        let mut expected: Vec<serde_json::Value> =
            super::super::json_rows(&batch).into_iter().map(|row| row.into_values().collect()).collect();
        expected.push(expected[0].clone());
        assert_eq!(table["rows"], json!(expected));
        assert_eq!(table["columns"], json!(["i", "u", "f", "g", "b", "s", "d", "m", "l"]));
        assert_eq!((&table["row_count"], &table["truncated"]), (&json!(4), &json!(true)));
        let empty: serde_json::Value = serde_json::from_slice(&written(RowFormat::JsonTable, &[])).unwrap();
        assert_eq!(empty["rows"], json!([]));
    }

    #[test]
    fn columns_of_one_name_all_stand_in_an_object() {
        let schema =
            Schema::new(["a", "a_1", "a", "A", "a"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec());
        let columns = (0..5).map(|n| Arc::new(StringArray::from(vec![n.to_string()])) as ArrayRef).collect();
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let expected = r#"{"a":"0","a_1":"1","a_2":"2","A":"3","a_3":"4"}"#;
        for (format, expected) in
            [(RowFormat::Json, format!("[{expected}]\n")), (RowFormat::Ndjson, format!("{expected}\n"))]
        {
            let mut bytes = Vec::new();
            let mut writer = RowWriter::new(format, &batch.schema(), &mut bytes).unwrap();
            writer.write(&batch).unwrap();
            writer.finish(&RowsEnd::default()).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn every_format_takes_every_type_and_no_rows() {
        for format in [RowFormat::Csv, RowFormat::Json, RowFormat::Ndjson, RowFormat::Parquet, RowFormat::Arrow] {
            assert!(written(format, &[batch()]).len() > written(format, &[]).len(), "{format:?}");
        }
    }

    #[test]
    fn binary_formats_give_back_the_rows() {
        let arrow = written(RowFormat::Arrow, &[batch()]);
        let mut reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), batch());
        let parquet = written(RowFormat::Parquet, &[batch()]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), parquet).unwrap();
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file.reopen().unwrap()).unwrap();
        assert_eq!(reader.build().unwrap().next().unwrap().unwrap().num_rows(), 3);
    }
}

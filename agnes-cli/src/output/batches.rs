//! Rows of a query in each format, written as they come.

use std::io::Write;

use agnes_core::local::Rows;
use agnes_core::query::{value_text, writable};
use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, Width};

use super::{Output, text};
use crate::args::Format;
use crate::failure::{Failure, Outcome};

/// Rows whose widths decide how wide the columns of a table are; later rows follow in
/// blocks of as many.
const BLOCK: usize = 1000;

/// Longest text of one cell in a table; the other formats give all of it.
const LONGEST_CELL: usize = 200;

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    pub(crate) rows: u64,
    pub(crate) truncated: bool,
}

/// Writes all rows to `to`.
pub(crate) async fn write(
    out: Output,
    format: Format,
    rows: &mut Rows,
    to: &mut (dyn Write + Send),
) -> Outcome<Written> {
    let mut watched = Watched { to, closed: false };
    let result = write_all(out, format, rows, &mut watched).await;
    match result {
        // Some writers turn every error of the file below them into words of their own.
        Err(Failure::File { .. }) if watched.closed => Err(Failure::PipeClosed),
        result => result,
    }
}

async fn write_all(out: Output, format: Format, rows: &mut Rows, to: &mut (dyn Write + Send)) -> Outcome<Written> {
    let mut sink = Sink::new(out, format, rows.schema(), to)?;
    let mut written = Written::default();
    while let Some(batch) = rows.next().await? {
        written.rows += batch.num_rows() as u64;
        sink.add(batch)?;
    }
    sink.finish()?;
    written.truncated = rows.truncated();
    Ok(written)
}

/// Notes that the reader of a pipe went away.
struct Watched<'a> {
    to: &'a mut (dyn Write + Send),
    closed: bool,
}

impl Watched<'_> {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.closed |= result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.to.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.to.flush();
        self.note(result)
    }
}

enum Sink<'a> {
    Table(Box<TableSink<'a>>),
    Csv(Box<arrow::csv::Writer<&'a mut (dyn Write + Send)>>),
    Json(arrow::json::Writer<&'a mut (dyn Write + Send), arrow::json::writer::JsonArray>),
    Ndjson(arrow::json::Writer<&'a mut (dyn Write + Send), arrow::json::writer::LineDelimited>),
    Parquet(Box<parquet::arrow::ArrowWriter<&'a mut (dyn Write + Send)>>),
    Arrow(arrow::ipc::writer::StreamWriter<&'a mut (dyn Write + Send)>),
}

impl<'a> Sink<'a> {
    fn new(out: Output, format: Format, schema: SchemaRef, to: &'a mut (dyn Write + Send)) -> Outcome<Self> {
        let json = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        Ok(match format {
            Format::Table => Self::Table(Box::new(TableSink::new(out, schema, to))),
            Format::Csv => {
                let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(to);
                // The header comes even when no row does.
                csv.write(&flat(&RecordBatch::new_empty(schema))?).map_err(told)?;
                Self::Csv(Box::new(csv))
            }
            Format::Json => Self::Json(json.build(to)),
            Format::Ndjson => Self::Ndjson(json.build(to)),
            Format::Parquet => {
                let properties = parquet::file::properties::WriterProperties::builder()
                    .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
                    .build();
                let schema = without_intervals(&RecordBatch::new_empty(schema))?.schema();
                let writer =
                    parquet::arrow::ArrowWriter::try_new(to, schema, Some(properties)).map_err(parquet_told)?;
                Self::Parquet(Box::new(writer))
            }
            Format::Arrow => Self::Arrow(arrow::ipc::writer::StreamWriter::try_new(to, &schema).map_err(told)?),
        })
    }

    fn add(&mut self, batch: RecordBatch) -> Outcome {
        match self {
            Self::Table(table) => table.add(&batch),
            Self::Csv(csv) => csv.write(&flat(&writable(&batch))?).map_err(told),
            Self::Json(json) => json.write(&writable(&batch)).map_err(told),
            Self::Ndjson(json) => json.write(&writable(&batch)).map_err(told),
            Self::Parquet(parquet) => parquet.write(&without_intervals(&batch)?).map_err(parquet_told),
            Self::Arrow(arrow) => arrow.write(&batch).map_err(told),
        }
    }

    fn finish(self) -> Outcome {
        match self {
            Self::Table(table) => table.finish(),
            Self::Csv(_) => Ok(()),
            Self::Json(mut json) => {
                json.finish().map_err(told)?;
                Ok(writeln!(json.into_inner())?)
            }
            Self::Ndjson(mut json) => json.finish().map_err(told),
            Self::Parquet(parquet) => parquet.close().map(|_| ()).map_err(parquet_told),
            Self::Arrow(mut arrow) => arrow.finish().map_err(told),
        }
    }
}

/// The batch with lists, structs and maps as text, for a format that has no place for them.
fn flat(batch: &RecordBatch) -> Outcome<RecordBatch> {
    as_text(batch, |data_type| data_type.is_nested())
}

/// The batch with intervals as text, which the Parquet writer does not know.
fn without_intervals(batch: &RecordBatch) -> Outcome<RecordBatch> {
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
fn as_text(batch: &RecordBatch, wanted: impl Fn(&DataType) -> bool) -> Outcome<RecordBatch> {
    if !batch.schema().fields().iter().any(|field| wanted(field.data_type())) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if wanted(field.data_type()) {
            let texts = (0..column.len()).map(|row| (!column.is_null(row)).then(|| value_text(column, row)));
            columns.push(std::sync::Arc::new(texts.collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
        }
    }
    RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns).map_err(told)
}

/// Rows as a table for people, in blocks.
struct TableSink<'a> {
    out: Output,
    schema: SchemaRef,
    to: &'a mut (dyn Write + Send),
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<u16>>,
    record: u64,
}

impl<'a> TableSink<'a> {
    fn new(out: Output, schema: SchemaRef, to: &'a mut (dyn Write + Send)) -> Self {
        Self { out, schema, to, waiting: Vec::new(), widths: None, record: 0 }
    }

    fn add(&mut self, batch: &RecordBatch) -> Outcome {
        for row in 0..batch.num_rows() {
            self.waiting.push(batch.columns().iter().map(|column| cell(&value_text(column, row))).collect());
            if self.waiting.len() == BLOCK {
                self.block()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        if !self.waiting.is_empty() || self.widths.is_none() && self.record == 0 {
            self.block()?;
        }
        Ok(())
    }

    fn block(&mut self) -> Outcome {
        let columns = self.schema.fields().len();
        let rows = std::mem::take(&mut self.waiting);
        // More columns than fit side by side: one line a field.
        if self.out.width().is_some_and(|width| columns * 6 > usize::from(width)) {
            return self.records(rows);
        }
        let mut table = self.out.table();
        let first = self.widths.is_none();
        if first {
            table.set_header(
                self.schema.fields().iter().map(|f| Cell::new(cell(f.name())).add_attribute(Attribute::Bold)),
            );
        }
        table.add_rows(rows);
        for (index, field) in self.schema.fields().iter().enumerate() {
            let Some(column) = table.column_mut(index) else { continue };
            if field.data_type().is_numeric() {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if !self.out.terminal {
                column.set_padding((0, 2));
            }
            if let Some(width) = self.widths.as_ref().and_then(|widths| widths.get(index)) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
            }
        }
        if first {
            self.widths = Some(table.column_max_content_widths());
        }
        for line in table.lines() {
            writeln!(self.to, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn records(&mut self, rows: Vec<Vec<String>>) -> Outcome {
        let names: Vec<String> = self.schema.fields().iter().map(|field| cell(field.name())).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for row in rows {
            self.record += 1;
            writeln!(self.to, "{}", self.out.bold(&format!("-- record {}", self.record)))?;
            for (name, value) in names.iter().zip(row) {
                writeln!(self.to, "{name:<width$}  {value}")?;
            }
        }
        Ok(())
    }
}

/// Text of one cell: on one line, not endless, and without power over the terminal.
fn cell(value: &str) -> String {
    let mut shown = text::safe(value);
    if shown.contains(['\n', '\t']) {
        shown = shown.replace('\n', "\\n").replace('\t', "\\t");
    }
    match shown.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// A writer's error: mostly that of the file or pipe below it.
fn told(cause: arrow::error::ArrowError) -> Failure {
    match cause {
        arrow::error::ArrowError::IoError(_, io) => io.into(),
        other => Failure::File { message: format!("cannot write the rows in this format: {other}") },
    }
}

fn parquet_told(cause: parquet::errors::ParquetError) -> Failure {
    if let parquet::errors::ParquetError::External(source) = &cause
        && let Some(io) = source.downcast_ref::<std::io::Error>()
    {
        return Failure::file("write the output", io);
    }
    Failure::File { message: format!("cannot write the rows as Parquet: {cause}") }
}

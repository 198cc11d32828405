//! Rows of a query in each format, written as they come.

use std::io::Write;

use agnes_core::local::Rows;
use agnes_core::query::{RowFormat, RowWriter, RowsEnd, value_text};
use arrow::datatypes::SchemaRef;
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
        Err(Failure::File { .. } | Failure::Engine(_)) if watched.closed => Err(Failure::PipeClosed),
        result => result,
    }
}

async fn write_all(out: Output, format: Format, rows: &mut Rows, to: &mut (dyn Write + Send)) -> Outcome<Written> {
    let mut sink = Sink::new(out, format, rows.schema(), to)?;
    let mut written = Written::default();
    while let Some(batch) = rows.next().await? {
        written.rows += batch.num_rows() as u64;
        sink.add(&batch)?;
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
    Rows(Box<RowWriter<&'a mut (dyn Write + Send)>>),
}

impl<'a> Sink<'a> {
    fn new(out: Output, format: Format, schema: SchemaRef, to: &'a mut (dyn Write + Send)) -> Outcome<Self> {
        let format = match format {
            Format::Table | Format::Expanded => {
                let is_expanded = format == Format::Expanded;
                return Ok(Self::Table(Box::new(TableSink::new(out, schema, to, is_expanded))));
            }
            Format::Csv => RowFormat::Csv,
            Format::Json => RowFormat::Json,
            Format::Ndjson => RowFormat::Ndjson,
            Format::Parquet => RowFormat::Parquet,
            Format::Arrow => RowFormat::Arrow,
        };
        Ok(Self::Rows(Box::new(RowWriter::new(format, &schema, to)?)))
    }

    fn add(&mut self, batch: &RecordBatch) -> Outcome {
        match self {
            Self::Table(table) => table.add(batch),
            Self::Rows(rows) => Ok(rows.write(batch)?),
        }
    }

    fn finish(self) -> Outcome {
        match self {
            Self::Table(table) => table.finish(),
            Self::Rows(rows) => Ok(rows.finish(&RowsEnd::default())?),
        }
    }
}

/// Rows as a table for people, in blocks.
struct TableSink<'a> {
    out: Output,
    schema: SchemaRef,
    to: &'a mut (dyn Write + Send),
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<u16>>,
    record: u64,
    is_expanded: bool,
}

impl<'a> TableSink<'a> {
    fn new(out: Output, schema: SchemaRef, to: &'a mut (dyn Write + Send), is_expanded: bool) -> Self {
        Self { out, schema, to, waiting: Vec::new(), widths: None, record: 0, is_expanded }
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
        if self.is_expanded || !self.out.fits(columns) {
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
        for row in rows {
            self.record += 1;
            self.out.record(self.to, self.record, &names, row)?;
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

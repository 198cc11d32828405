//! Delimited text. The good path is one pass of DuckDB's reader; the dialect and the names
//! are found here first, because the reader's own guess fails on the first untidy row.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use agnes_core::connector::Cancel;
use agnes_core::duck::ScratchDb;
use agnes_core::error::{Error, Result};
use agnes_core::ident::quote_literal;

use super::head::{self, Head, Marks, Record};
use super::{FileColumn, Inspected, Reader};
use crate::files::config::{Format, TableOptions};
use crate::files::error::FilesError;
use crate::files::infer::names;
use crate::files::infer::shape::Shape;
use crate::files::listing::FileEntry;
use crate::files::text::{Transport, create, scratch_error};

/// Tables in which the reader leaves the rows it rejects.
pub(crate) const REJECTS: &str = "agnes_csv_errors";
/// Their files.
pub(crate) const SCANS: &str = "agnes_csv_scans";

/// How a delimited file is read.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    pub(crate) marks: Marks,
    /// Whether the reader skips a header itself.
    pub(crate) header: bool,
    /// Lines skipped before.
    pub(crate) skip: u64,
    /// Fill rows that are too short with nulls.
    pub(crate) pad: bool,
    /// Refuse text that breaks the rules of quoting.
    pub(crate) strict: bool,
    /// Allow lines of up to 64 MiB (slower).
    pub(crate) long_lines: bool,
    pub(crate) date_format: Option<String>,
    pub(crate) timestamp_format: Option<String>,
    pub(crate) decimal: Option<String>,
    pub(crate) thousands: Option<String>,
    pub(crate) nulls: Vec<String>,
    /// Lines (counted from 1) that were taken out because a quote is never closed.
    pub(crate) cut: Vec<(u64, String)>,
    /// Rows of a sheet (counted from 1) that the text leaves out; set for sheets, where a
    /// row is a line however many line ends its values have.
    pub(crate) gaps: Option<Vec<u64>>,
}

/// Finds out how to read a delimited file and which columns it has.
pub(crate) fn inspect(db: &ScratchDb, entry: &FileEntry, format: Format, options: &TableOptions) -> Result<Inspected> {
    let transport = Transport::detect(entry, options.encoding.as_deref())?;
    let read = |e: std::io::Error| crate::files::text::read_error(entry, &e);
    let head = Head::read(&mut *transport.reader(entry)?).map_err(read)?;
    if head.is_blank() {
        return Err(FilesError::NoColumns { file: entry.rel.clone() }.into());
    }
    let quote = options.quote.clone().unwrap_or_else(|| "\"".to_owned());
    let escape = options
        .escape
        .clone()
        .unwrap_or_else(|| if head.escapes_with_backslash(&quote) { "\\".to_owned() } else { quote.clone() });
    let mut skip = options.skip.unwrap_or(0);
    let declared = if skip == 0 { head.declared_delimiter() } else { None };
    skip += u64::from(declared.is_some());
    let delimiter = match (&options.delimiter, format) {
        (Some(delimiter), _) => delimiter.replace("\\t", "\t"),
        (None, _) if declared.is_some() => declared.unwrap_or_default(),
        (None, Format::Tsv) => "\t".to_owned(),
        _ => head.delimiter(&quote, &escape, skip, options.decimal.as_deref() == Some(",")),
    };
    let marks = Marks { delimiter, quote, escape };
    let mut records = head.records(&marks, skip);
    let title_lines = head::title_lines(&records);
    if title_lines > 0 && options.skip.is_none() && options.header != Some(false) {
        records.drain(..title_lines);
    }
    let header = options.header.unwrap_or_else(|| head::has_header(&records));
    let (first, rows) = match records.split_first() {
        Some((first, rest)) if header => (Some(first), rest),
        _ => (None, &records[..]),
    };
    let (usual, _) = head::usual_width(rows);
    let named = first.map_or(0, |record| record.fields.len());
    let width = named.max(usual).max(1);
    let raw: Vec<String> = (0..width)
        .map(|index| first.and_then(|record| record.fields.get(index)).cloned().unwrap_or_default())
        .collect();
    let (published, mut notes) = names::columns(&raw);
    if first.is_none() {
        notes = vec!["the file has no header; columns are named `column_1`, ...".to_owned()];
    }
    if title_lines > 0 && options.skip.is_none() && options.header != Some(false) {
        notes.push(format!("{title_lines} lines above the header were left out"));
    }
    if first.is_some() && usual > named {
        notes.push(format!("the header names {named} columns, rows have {usual}"));
    }
    if !head.is_utf8() {
        notes.push("the file is not valid UTF-8; set `encoding`, for example to windows-1252".to_owned());
    }
    let nulls: Vec<String> = options.null_values.iter().flat_map(|values| values.as_slice().iter().cloned()).collect();
    // The reader takes the header itself only where it is the first line.
    let start = first.or(rows.first()).map_or(0, |record| head.lines_before(record.start));
    let mut dialect = Dialect {
        header: header && start == 0,
        skip: match first {
            Some(record) if start > 0 => head.lines_before(record.end),
            _ => start,
        },
        pad: !rows.is_empty() && usual < width,
        strict: true,
        long_lines: false,
        date_format: options.date_format.clone(),
        timestamp_format: options.timestamp_format.clone(),
        decimal: options.decimal.clone().filter(|decimal| decimal != "."),
        thousands: options.thousands.clone().filter(|thousands| !thousands.is_empty()),
        nulls,
        cut: Vec::new(),
        gaps: None,
        marks,
    };
    let sniffed = sniff(db, &head, rows, usual, &mut dialect)?;
    let columns = published
        .into_iter()
        .zip(raw)
        .enumerate()
        .map(|(index, (name, source))| FileColumn {
            name,
            source,
            source_type: String::new(),
            data_type: refine(sniffed.get(index).map_or("VARCHAR", String::as_str), rows, index, &dialect)
                .map(Shape::Leaf),
        })
        .collect();
    Ok(Inspected {
        columns,
        reader: Reader::Csv { dialect: Box::new(dialect), ready: None },
        notes,
        rejected: Vec::new(),
    })
}

/// The types DuckDB finds in the well-formed rows of the head, in order.
fn sniff(db: &ScratchDb, head: &Head, rows: &[Record], width: usize, dialect: &mut Dialect) -> Result<Vec<String>> {
    let mut sample: Vec<u8> = Vec::new();
    for row in rows.iter().filter(|row| row.fields.len() == width) {
        sample.extend_from_slice(head.slice(row).trim_ascii_end());
        sample.push(b'\n');
    }
    if sample.is_empty() {
        return Ok(Vec::new());
    }
    let path = db.folder().join("sample.csv");
    std::fs::write(&path, &sample).map_err(scratch_error)?;
    let read = format!(
        "SELECT array_to_string([c.type FOR c IN Columns], '|') AS t, DateFormat, TimestampFormat \
         FROM sniff_csv({}, header=false, ignore_errors=true, max_line_size={}{})",
        quote_literal(&path.to_string_lossy()),
        head::MAX_LINE,
        dialect.marks_sql(),
    );
    // Where even the sample cannot be read, text is the honest type.
    let Ok(answer) = db.rows(&read) else { return Ok(Vec::new()) };
    let Some([types, date, timestamp]) = answer.into_iter().next().and_then(|row| <[_; 3]>::try_from(row).ok()) else {
        return Ok(Vec::new());
    };
    dialect.date_format = dialect.date_format.take().or(date);
    dialect.timestamp_format = dialect.timestamp_format.take().or(timestamp);
    Ok(types.unwrap_or_default().split('|').map(str::to_owned).collect())
}

/// The sniffed type, unless it would change values: codes with leading zeros stay text, whole
/// numbers that do not fit 64 bits do not become inexact ones.
fn refine(sniffed: &str, rows: &[Record], index: usize, dialect: &Dialect) -> Option<String> {
    let is_null = |text: &str| text.is_empty() || dialect.nulls.iter().any(|null| null == text);
    let values =
        || rows.iter().filter_map(|row| row.fields.get(index)).filter(|text| !is_null(text)).map(|text| text.trim());
    values().next()?;
    let digits = |text: &str| text.trim_start_matches(['-', '+']).len();
    let is_whole =
        |text: &str| digits(text) > 0 && text.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit());
    let is_code = |text: &str| {
        (text.starts_with('+') && digits(text) > 6)
            || (digits(text) > 1 && is_whole(text) && text.trim_start_matches('-').starts_with('0'))
    };
    Some(match sniffed {
        "BIGINT" | "DOUBLE" if values().any(is_code) => "VARCHAR".to_owned(),
        "DOUBLE" if values().all(is_whole) => {
            if values().all(|text| digits(text) <= 38) { "DECIMAL(38,0)" } else { "VARCHAR" }.to_owned()
        }
        // `1 2 3` is no day, whatever the reader says.
        "DATE" | "TIMESTAMP" if values().any(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b' ')) => {
            "VARCHAR".to_owned()
        }
        "TIMESTAMP WITH TIME ZONE" => "TIMESTAMPTZ".to_owned(),
        other => other.to_owned(),
    })
}

impl Dialect {
    /// For the text made from a sheet: comma, double quotes, no header, short rows filled.
    pub(crate) fn of_sheet(gaps: Vec<u64>) -> Self {
        Self {
            marks: Marks { delimiter: ",".to_owned(), quote: "\"".to_owned(), escape: "\"".to_owned() },
            header: false,
            skip: 0,
            pad: true,
            strict: true,
            long_lines: true,
            date_format: None,
            timestamp_format: None,
            decimal: None,
            thousands: None,
            nulls: Vec::new(),
            cut: Vec::new(),
            gaps: Some(gaps),
        }
    }

    fn marks_sql(&self) -> String {
        let mut sql = format!(
            ", delim={}, quote={}, escape={}",
            quote_literal(&self.marks.delimiter),
            quote_literal(&self.marks.quote),
            quote_literal(&self.marks.escape)
        );
        let mut add = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                sql += &format!(", {key}={}", quote_literal(value));
            }
        };
        add("decimal_separator", &self.decimal);
        add("thousands", &self.thousands);
        add("dateformat", &self.date_format);
        add("timestampformat", &self.timestamp_format);
        if !self.nulls.is_empty() {
            let nulls: Vec<_> =
                std::iter::once("''".to_owned()).chain(self.nulls.iter().map(|n| quote_literal(n))).collect();
            sql += &format!(", nullstr=[{}]", nulls.join(", "));
        }
        sql
    }

    /// SQL of the rows of the file at `path` with these columns, all that the file has.
    pub(crate) fn scan(&self, path: &Path, columns: &[(String, String)]) -> String {
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, data_type)| format!("{}: {}", quote_literal(name), quote_literal(data_type)))
            .collect();
        // `new_line` is never set: with it the reader drops rows that end otherwise.
        format!(
            "SELECT * FROM read_csv({}, auto_detect=false, header={}, skip={}, null_padding={}{}, strict_mode={}{}{}, \
             hive_partitioning=false, store_rejects=true, rejects_table='{REJECTS}', rejects_scan='{SCANS}', columns={{{}}})",
            quote_literal(&path.to_string_lossy()),
            self.header,
            self.skip,
            self.pad,
            if self.pad { ", parallel=false" } else { "" },
            self.strict,
            if self.long_lines { format!(", max_line_size={}", head::MAX_LINE) } else { String::new() },
            self.marks_sql(),
            columns.join(", ")
        )
    }
}

/// Copies the text at `from` without the lines that start at `offsets` (sorted); what they
/// held, with their line numbers counted from 1.
pub(crate) fn cut_lines(from: &Path, to: &Path, offsets: &[u64], cancel: &Cancel) -> Result<Vec<(u64, String)>> {
    let file = std::fs::File::open(from).map_err(|e| Error::io("read a scratch file", e))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut writer = BufWriter::with_capacity(1 << 18, create(to)?);
    let (mut at, mut number, mut line, mut cut) = (0, 0_u64, Vec::new(), Vec::new());
    loop {
        if number.is_multiple_of(65_536) {
            cancel.check()?;
        }
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read a scratch file", e))?;
        if length == 0 {
            break;
        }
        number += 1;
        let end = at + length as u64;
        if offsets.iter().any(|offset| (at..end).contains(offset)) {
            line.truncate(10_000);
            cut.push((number, String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
        } else {
            writer.write_all(&line).map_err(scratch_error)?;
        }
        at = end;
    }
    writer.flush().map_err(scratch_error)?;
    Ok(cut)
}

/// Sorted line numbers of a text from which the lines `gone` (sorted) were taken, as they
/// were before.
pub(crate) fn original_lines(mut numbers: Vec<u64>, gone: &[u64]) -> Vec<u64> {
    let (mut shift, mut next) = (0, gone.iter().peekable());
    for number in &mut numbers {
        while next.next_if(|gone| **gone <= *number + shift).is_some() {
            shift += 1;
        }
        *number += shift;
    }
    numbers
}

/// The line numbers (counted from 1) of sorted offsets in the text at `path`.
pub(crate) fn line_numbers(path: &Path, offsets: &[u64]) -> Result<Vec<u64>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("read a scratch file", e))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut at, mut line, mut numbers) = (0_u64, 1_u64, Vec::with_capacity(offsets.len()));
    let mut offsets = offsets.iter().peekable();
    while offsets.peek().is_some() {
        let buffer = reader.fill_buf().map_err(|e| Error::io("read a scratch file", e))?;
        if buffer.is_empty() {
            numbers.extend(offsets.by_ref().map(|_| line));
            break;
        }
        let mut from = 0;
        while let Some(offset) = offsets.next_if(|offset| **offset < at + buffer.len() as u64) {
            let to = usize::try_from(offset.saturating_sub(at)).unwrap_or(0).max(from);
            line += buffer[from..to].iter().filter(|byte| **byte == b'\n').count() as u64;
            from = to;
            numbers.push(line);
        }
        line += buffer[from..].iter().filter(|byte| **byte == b'\n').count() as u64;
        at += buffer.len() as u64;
        let length = buffer.len();
        reader.consume(length);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::original_lines;

    #[test]
    fn lines_are_counted_as_they_were() {
        assert_eq!(original_lines(vec![1, 2, 3, 7], &[1, 3, 4]), [2, 5, 6, 10]);
        assert_eq!(original_lines(vec![1, 2], &[]), [1, 2]);
        assert_eq!(original_lines(vec![1, 1, 2], &[3]), [1, 1, 2]);
    }
}

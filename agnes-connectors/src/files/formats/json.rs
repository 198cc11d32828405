//! JSON: an array, one object, or one object a line.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use agnes_core::connector::Cancel;
use agnes_core::duck::ScratchDb;
use agnes_core::error::{Error, Result};
use agnes_core::ident::quote_literal;

use super::{FileColumn, Inspected, Reader, head, structured};
use crate::files::config::{Format, TableOptions};
use crate::files::engine_words;
use crate::files::error::FilesError;
use crate::files::listing::FileEntry;
use crate::files::text::{self, Transport, create, scratch_error};

/// Reads a JSON file through once: a key that first appears in the last object is a column.
pub(crate) fn inspect(
    db: &ScratchDb,
    entry: &FileEntry,
    format: Format,
    options: &TableOptions,
    index: usize,
    cancel: &Cancel,
) -> Result<Inspected> {
    let transport = Transport::detect(entry, options.encoding.as_deref())?.without_mark(entry)?;
    let mut path = db.folder().join(format!("input-{index}.json"));
    let mut notes = Vec::new();
    if transport.is_plain() {
        path = text::link(entry, &db.folder(), &format!("input-{index}.json"))?;
    } else {
        let replaced = transport.unpack(entry, &path, cancel)?;
        if replaced > 0 {
            notes.push(format!("{replaced} characters could not be decoded and were replaced"));
        }
    }
    let first = first_byte(&path)?;
    let Some(first) = first else { return Err(FilesError::NoColumns { file: entry.rel.clone() }.into()) };
    let lines = format == Format::Ndjson || first != b'[';
    let mut rejected = Vec::new();
    let described = match structured::describe(db, &relation(&path)) {
        Ok(described) => described,
        Err(error) if engine_words::is_plain(agnes_core::error::Coded::code(&error)) && lines => {
            let repaired = db.folder().join(format!("repaired-{index}.json"));
            let (good, bad) = keep_valid_lines(&path, &repaired, cancel)?;
            if good == 0 || bad.is_empty() {
                return Err(engine_words::damaged(entry, &path, error));
            }
            path = repaired;
            rejected = bad;
            structured::describe(db, &relation(&path)).map_err(|e| engine_words::damaged(entry, &path, e))?
        }
        Err(error) => return Err(engine_words::damaged(entry, &path, error)),
    };
    let (mut columns, renamed) = described;
    // What the reader calls an array without objects.
    if matches!(&columns[..], [only] if only.source == "json" && only.source_type == "JSON") {
        return Err(FilesError::NoColumns { file: entry.rel.clone() }.into());
    }
    notes.extend(renamed);
    let relation = widen_whole_numbers(db, &path, &mut columns);
    Ok(Inspected { columns, reader: Reader::Structured { relation, row_number: None }, notes, rejected })
}

fn relation(path: &Path) -> String {
    format!(
        "read_json({}, sample_size=-1, map_inference_threshold=-1, maximum_object_size={}, hive_partitioning=false)",
        quote_literal(&path.to_string_lossy()),
        head::MAX_LINE
    )
}

/// Whole numbers over 64 bits come as inexact ones; columns that hold nothing else are read
/// as text and become exact where they fit.
fn widen_whole_numbers(db: &ScratchDb, path: &Path, columns: &mut [FileColumn]) -> String {
    let plain = relation(path);
    let mut texts = Vec::new();
    for column in columns.iter_mut().filter(|column| column.source_type == "DOUBLE") {
        let key = quote_literal(&column.source);
        let value = agnes_core::ident::quote_ident(&column.source);
        let text = format!("read_json({}, columns={{{key}: 'VARCHAR'}}, maximum_object_size={})", quote_literal(&path.to_string_lossy()), head::MAX_LINE);
        let ask = format!(
            "SELECT coalesce(bool_and(regexp_full_match({value}, '-?[0-9]+')), false), max(length({value})) FROM {text}"
        );
        let Ok(answer) = db.rows(&ask) else { continue };
        let Some([Some(whole), Some(length)]) = answer.first().map(Vec::as_slice) else { continue };
        if whole == "true" {
            let fits = length.parse::<u32>().is_ok_and(|length| length <= 38);
            column.source_type = "VARCHAR".to_owned();
            column.data_type = Some(if fits { "DECIMAL(38,0)" } else { "VARCHAR" }.to_owned());
            texts.push(key);
        }
    }
    if texts.is_empty() {
        return plain;
    }
    // All columns are named then, those of the same name but for case apart.
    let mut all = Vec::new();
    for column in columns.iter() {
        all.push(format!("{}: {}", quote_literal(&column.source), quote_literal(&column.source_type)));
    }
    format!(
        "read_json({}, columns={{{}}}, maximum_object_size={}, hive_partitioning=false)",
        quote_literal(&path.to_string_lossy()),
        all.join(", "),
        head::MAX_LINE
    )
}

fn first_byte(path: &PathBuf) -> Result<Option<u8>> {
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(|e| Error::io("read a scratch file", e))?);
    loop {
        let buffer = reader.fill_buf().map_err(|e| Error::io("read a scratch file", e))?;
        if buffer.is_empty() {
            return Ok(None);
        }
        if let Some(first) = buffer.iter().find(|byte| !byte.is_ascii_whitespace()) {
            return Ok(Some(*first));
        }
        let length = buffer.len();
        reader.consume(length);
    }
}

/// A line put aside: its number, why, and its text.
type BadLine = (u64, String, String);

/// Copies the lines that are JSON objects; how many, and the others.
fn keep_valid_lines(from: &Path, to: &Path, cancel: &Cancel) -> Result<(u64, Vec<BadLine>)> {
    let file = std::fs::File::open(from).map_err(|e| Error::io("read a scratch file", e))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut writer = BufWriter::with_capacity(1 << 18, create(to)?);
    let (mut good, mut bad, mut number, mut line) = (0, Vec::new(), 0_u64, Vec::new());
    loop {
        if number.is_multiple_of(65_536) {
            cancel.check()?;
        }
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read a scratch file", e))? == 0 {
            break;
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            Ok(_) if text.len() <= head::MAX_LINE && std::str::from_utf8(text).is_ok() => {
                writer.write_all(text).and_then(|()| writer.write_all(b"\n")).map_err(scratch_error)?;
                good += 1;
            }
            Ok(_) => bad.push((number, "the line is too long or not valid UTF-8".to_owned(), raw(text))),
            Err(error) => bad.push((number, format!("malformed: {error}"), raw(text))),
        }
    }
    writer.flush().map_err(scratch_error)?;
    Ok((good, bad))
}

fn raw(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(10_000)]).into_owned()
}

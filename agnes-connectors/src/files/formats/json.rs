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
use crate::files::infer::shape::Shape;
use crate::files::listing::FileEntry;
use crate::files::text::{self, Transport, create, scratch_error};

/// Levels of nesting that become types; what is deeper stays JSON text.
const MAX_DEPTH: usize = 32;
/// Levels of nesting that are read at all: the engine's stack does not survive thousands.
const MAX_NESTING: u32 = 120;

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
    let first_try = if is_too_deep(&path, cancel)? {
        Err(FilesError::damaged(&entry.rel, format!("values are nested deeper than {MAX_NESTING} levels")).into())
    } else {
        read(db, entry, path.clone(), lines)
    };
    match first_try {
        Ok(found) if !(lines && is_mixed(&found)) => Ok(with_notes(found, notes)),
        first_try => {
            if let Err(error) = &first_try
                && !(lines && error.code() == "file_damaged")
            {
                return first_try;
            }
            match repair(db, entry, &path, index, cancel)? {
                Some(found) => Ok(with_notes(found, notes)),
                None => first_try.map(|found| with_notes(found, notes)),
            }
        }
    }
}

fn with_notes(mut found: Inspected, notes: Vec<String>) -> Inspected {
    found.notes.extend(notes);
    found
}

/// Whether the reader found values that are no objects, and gives each as it is.
fn is_mixed(found: &Inspected) -> bool {
    matches!(&found.columns[..], [only] if only.source == "json" && only.source_type == "JSON")
}

/// Reads a file of lines again without those that are no JSON objects; none when that does
/// not help.
pub(crate) fn repair(
    db: &ScratchDb,
    entry: &FileEntry,
    path: &Path,
    index: usize,
    cancel: &Cancel,
) -> Result<Option<Inspected>> {
    let repaired = db.folder().join(format!("repaired-{index}.json"));
    let (good, bad) = keep_valid_lines(path, &repaired, cancel)?;
    if good == 0 || bad.is_empty() {
        return Ok(None);
    }
    let mut found = read(db, entry, repaired, false)?;
    found.rejected = bad;
    Ok(Some(found))
}

fn read(db: &ScratchDb, entry: &FileEntry, path: PathBuf, lines: bool) -> Result<Inspected> {
    let (mut columns, notes) =
        structured::describe(db, &relation(&path)).map_err(|e| engine_words::damaged(entry, &path, e))?;
    let relation = widen_whole_numbers(db, &path, &mut columns);
    tell_nulls(db, &relation, &mut columns);
    let found = Inspected {
        columns,
        reader: Reader::Structured {
            path: path.clone(),
            relation: relation.clone(),
            row_number: None,
            lines,
            json: true,
        },
        notes,
        rejected: Vec::new(),
    };
    // The reader says so for an empty array, and for nothing but nulls, too.
    if is_mixed(&found) {
        let any = db.rows(&format!("SELECT count(*) FROM {relation} WHERE json::VARCHAR NOT IN ('null', '{{}}')"));
        let any = any.map_err(|e| engine_words::damaged(entry, &path, e))?;
        if any == [[Some("0".to_owned())]] {
            return Err(FilesError::NoColumns { file: entry.rel.clone() }.into());
        }
    }
    Ok(found)
}

fn relation(path: &Path) -> String {
    format!(
        "read_json({}, sample_size=-1, map_inference_threshold=-1, maximum_depth={MAX_DEPTH}, maximum_object_size={}, hive_partitioning=false)",
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
        let text = format!(
            "read_json({}, columns={{{key}: 'VARCHAR'}}, maximum_object_size={})",
            quote_literal(&path.to_string_lossy()),
            head::MAX_LINE
        );
        let ask = format!(
            "SELECT coalesce(bool_and(regexp_full_match({value}, '-?[0-9]+')), false), max(length({value})) FROM {text}"
        );
        let Ok(answer) = db.rows(&ask) else { continue };
        let Some([Some(whole), Some(length)]) = answer.first().map(Vec::as_slice) else { continue };
        if whole == "true" {
            let fits = length.parse::<u32>().is_ok_and(|length| length <= 38);
            column.source_type = "VARCHAR".to_owned();
            column.data_type = Some(Shape::Leaf(if fits { "DECIMAL(38,0)" } else { "VARCHAR" }.to_owned()));
            texts.push(key);
        }
    }
    if texts.is_empty() {
        return plain;
    }
    typed(path, columns.iter().map(|column| (column.source.as_str(), column.source_type.as_str())))
}

/// The relation of a file under given types of all its columns, those of the same name but
/// for case apart.
pub(crate) fn typed<'a>(path: &Path, columns: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let all: Vec<_> =
        columns.map(|(name, data_type)| format!("{}: {}", quote_literal(name), quote_literal(data_type))).collect();
    format!(
        "read_json({}, columns={{{}}}, maximum_object_size={}, hive_partitioning=false)",
        quote_literal(&path.to_string_lossy()),
        all.join(", "),
        head::MAX_LINE
    )
}

/// Finds parts that are nothing but null, and columns of nothing but empty objects: the reader
/// calls them JSON like a mixture, but they go with any type.
fn tell_nulls(db: &ScratchDb, relation: &str, columns: &mut [FileColumn]) {
    let shapes = columns.iter_mut().map(|column| (Shape::parse(&column.source_type), column));
    let mut unclear: Vec<_> = shapes.filter(|(shape, _)| shape.has_json()).collect();
    let asked: Vec<_> = unclear
        .iter()
        .map(|(_, column)| {
            let value = agnes_core::ident::quote_ident(&column.source);
            format!(
                "json_group_structure(to_json({value}))::VARCHAR, bool_and(to_json({value})::VARCHAR IN ('{{}}', 'null'))"
            )
        })
        .collect();
    if asked.is_empty() {
        return;
    }
    let Ok(answer) = db.rows(&format!("SELECT {} FROM {relation}", asked.join(", "))) else { return };
    let answers = answer.first().map(Vec::as_slice).unwrap_or_default();
    for ((shape, column), answer) in unclear.iter_mut().zip(answers.chunks(2)) {
        let [structure, empty] = answer else { continue };
        let structure = structure.as_deref().and_then(|text| serde_json::from_str(text).ok());
        shape.refine(&structure.unwrap_or_default());
        column.data_type = match shape {
            Shape::Unknown => None,
            Shape::Json if empty.as_deref() == Some("true") => Some(Shape::Empty),
            Shape::Json => continue,
            shape => Some(shape.clone()),
        };
    }
}

/// Whether any value in the text is nested too deep.
fn is_too_deep(path: &Path, cancel: &Cancel) -> Result<bool> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("read a scratch file", e))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    loop {
        cancel.check()?;
        let buffer = reader.fill_buf().map_err(|e| Error::io("read a scratch file", e))?;
        if buffer.is_empty() {
            return Ok(false);
        }
        for byte in buffer {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                // A line ends whatever a broken one before it left open.
                b'\n' => quoted = false,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_NESTING {
                return Ok(true);
            }
        }
        let length = buffer.len();
        reader.consume(length);
    }
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
        match serde_json::from_slice::<Strict<true>>(text) {
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

/// JSON as the engine takes it: an object at the top, no key twice.
struct Strict<const TOP: bool>;

impl<'de, const TOP: bool> serde::Deserialize<'de> for Strict<TOP> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de, const TOP: bool> serde::de::Visitor<'de> for Strict<TOP> {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if TOP { "an object" } else { "a value" })
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Strict<false>>()?;
            if !keys.insert(key) {
                return Err(serde::de::Error::custom("a key is there twice"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        if TOP {
            return Err(serde::de::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        while seq.next_element::<Strict<false>>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)) } else { Ok(self) }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)) } else { Ok(self) }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Unsigned(value), &self)) } else { Ok(self) }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)) } else { Ok(self) }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Str(value), &self)) } else { Ok(self) }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self, E> {
        if TOP { Err(E::invalid_type(serde::de::Unexpected::Unit, &self)) } else { Ok(self) }
    }
}

fn raw(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(10_000)]).into_owned()
}

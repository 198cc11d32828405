//! Workbooks: the values of one sheet, streamed into a delimited text with known types.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};

use agnes_core::connector::Cancel;
use agnes_core::duck::ScratchDb;
use agnes_core::error::Result;
use agnes_core::ident::printable;
use calamine::{DataRef, Reader as _, SheetType, SheetVisible, Xlsx, XlsxError};

use super::csv::Dialect;
use super::{FileColumn, Inspected, Reader};
use crate::files::config::TableOptions;
use crate::files::error::FilesError;
use crate::files::infer::names;
use crate::files::infer::shape::Shape;
use crate::files::listing::FileEntry;
use crate::files::text::{self, create, scratch_error};

/// Columns a sheet may have.
const MAX_COLUMNS: u32 = 16_384;

fn open(entry: &FileEntry) -> Result<Xlsx<BufReader<File>>, FilesError> {
    if entry.signature.size == 0 {
        return Err(FilesError::Empty { file: entry.rel.clone() });
    }
    Xlsx::new(BufReader::new(text::open(entry)?)).map_err(|e| damaged(entry, &e))
}

fn damaged(entry: &FileEntry, error: &XlsxError) -> FilesError {
    let reason = match error {
        XlsxError::Password => "it is protected by a password".to_owned(),
        other => printable(&other.to_string(), 200),
    };
    FilesError::damaged(&entry.rel, reason)
}

/// Names of the visible sheets that hold cells.
pub(crate) fn sheets(entry: &FileEntry) -> Result<Vec<String>> {
    let book = open(entry)?;
    let visible =
        |sheet: &&calamine::Sheet| sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible;
    Ok(book.sheets_metadata().iter().filter(visible).map(|sheet| sheet.name.clone()).collect())
}

/// What the cells of a column were.
#[derive(Debug, Default, Clone, Copy)]
struct Kinds {
    whole: bool,
    broken: bool,
    date: bool,
    moment: bool,
    time: bool,
    flag: bool,
    text: bool,
}

impl Kinds {
    fn data_type(self) -> Option<String> {
        let Self { whole, broken, date, moment, time, flag, text } = self;
        let name = match (whole || broken, date || moment, time, flag, text) {
            (false, false, false, false, false) => return None,
            (true, false, false, false, false) => {
                if broken {
                    "DOUBLE"
                } else {
                    "BIGINT"
                }
            }
            (false, true, false, false, false) => {
                if moment {
                    "TIMESTAMP"
                } else {
                    "DATE"
                }
            }
            (false, false, true, false, false) => "TIME",
            (false, false, false, true, false) => "BOOLEAN",
            _ => "VARCHAR",
        };
        Some(name.to_owned())
    }
}

/// Reads a sheet: the one the settings name, else the first visible one.
pub(crate) fn inspect(
    db: &ScratchDb,
    entry: &FileEntry,
    options: &TableOptions,
    index: usize,
    cancel: &Cancel,
) -> Result<Inspected> {
    let known = sheets(entry)?;
    let mut notes = Vec::new();
    let sheet = match &options.sheet {
        Some(wanted) => known
            .iter()
            .find(|name| *name == wanted)
            .or_else(|| known.iter().find(|name| name.eq_ignore_ascii_case(wanted))),
        None => known.first(),
    };
    let Some(sheet) = sheet else {
        return Err(FilesError::NoSheet {
            file: entry.rel.clone(),
            sheet: printable(options.sheet.as_deref().unwrap_or("(any)"), 60),
            known: known.iter().map(|name| format!("`{}`", printable(name, 60))).collect::<Vec<_>>().join(", "),
        }
        .into());
    };
    if options.sheet.is_none() && known.len() > 1 {
        notes.push(format!("read from sheet `{}`, the first of {}", printable(sheet, 60), known.len()));
    }
    let mut book = open(entry)?;
    let path = db.folder().join(format!("input-{index}.csv"));
    let mut sink = Sink {
        out: BufWriter::new(create(&path)?),
        kinds: Vec::new(),
        header: None,
        wants_header: options.header,
        errors: 0,
        at: 0,
        gaps: Vec::new(),
    };
    let mut cells = book.worksheet_cells_reader(sheet).map_err(|e| damaged(entry, &e))?;
    let mut skip = options.skip.unwrap_or(0);
    let mut row: (u32, BTreeMap<u32, DataRef<'_>>) = (0, BTreeMap::new());
    let mut count = 0_u64;
    while let Some(cell) = cells.next_cell().map_err(|e| damaged(entry, &e))? {
        count += 1;
        if count.is_multiple_of(65_536) {
            cancel.check()?;
        }
        let (at, column) = cell.get_position();
        if at != row.0 {
            sink.flush(row.0, &mut row.1, &mut skip)?;
            row.0 = at;
        }
        let empty = matches!(cell.get_value(), DataRef::Empty)
            || matches!(cell.get_value(), DataRef::String(s) if s.is_empty())
            || matches!(cell.get_value(), DataRef::SharedString(""));
        if column < MAX_COLUMNS && !empty {
            row.1.insert(column, cell.get_value().clone());
        }
    }
    sink.flush(row.0, &mut row.1, &mut skip)?;
    let Sink { mut out, kinds, header, errors, gaps, .. } = sink;
    out.flush().map_err(scratch_error)?;
    let width = kinds.len().max(header.as_ref().map_or(0, Vec::len));
    if width == 0 {
        return Err(FilesError::NoColumns { file: entry.rel.clone() }.into());
    }
    if errors > 0 {
        notes.push(format!("{errors} cells hold a formula error and were read as null"));
    }
    let mut raw = header.unwrap_or_default();
    raw.resize(width, String::new());
    let (published, renamed) = names::columns(&raw);
    notes.extend(renamed);
    let columns = published
        .into_iter()
        .zip(raw)
        .enumerate()
        .map(|(index, (name, source))| FileColumn {
            name,
            source,
            source_type: String::new(),
            data_type: kinds.get(index).copied().unwrap_or_default().data_type().map(Shape::Leaf),
        })
        .collect();
    Ok(Inspected {
        columns,
        reader: Reader::Csv { dialect: Box::new(Dialect::of_sheet(gaps)), ready: Some(path) },
        notes,
        rejected: Vec::new(),
    })
}

struct Sink {
    out: BufWriter<File>,
    kinds: Vec<Kinds>,
    header: Option<Vec<String>>,
    wants_header: Option<bool>,
    errors: u64,
    /// Rows of the sheet seen so far.
    at: u64,
    /// Rows that are not written, counted from 1.
    gaps: Vec<u64>,
}

impl Sink {
    /// Writes a row, or takes it for the header.
    fn flush(&mut self, number: u32, row: &mut BTreeMap<u32, DataRef<'_>>, skip: &mut u64) -> Result<()> {
        let cells = std::mem::take(row);
        let Some(last) = cells.keys().next_back().copied() else { return Ok(()) };
        let number = u64::from(number) + 1;
        self.gaps.extend(self.at + 1..number);
        self.at = self.at.max(number);
        if *skip > 0 {
            *skip -= 1;
            self.gaps.push(number);
            return Ok(());
        }
        let width = last as usize + 1;
        if self.header.is_none() {
            let texts = cells.values().all(|value| matches!(value, DataRef::String(_) | DataRef::SharedString(_)));
            if self.wants_header.unwrap_or(texts) {
                let mut names = vec![String::new(); width];
                for (column, value) in &cells {
                    names[*column as usize] = self.text(value, &mut Kinds::default()).unwrap_or_default();
                }
                self.header = Some(names);
                self.gaps.push(number);
                return Ok(());
            }
            self.header = Some(Vec::new());
        }
        if self.kinds.len() < width {
            self.kinds.resize(width, Kinds::default());
        }
        let mut line = String::new();
        for column in 0..width {
            if column > 0 {
                line.push(',');
            }
            let Some(value) = u32::try_from(column).ok().and_then(|column| cells.get(&column)) else { continue };
            let mut kinds = self.kinds[column];
            if let Some(text) = self.text(value, &mut kinds) {
                line.push('"');
                line.push_str(&text.replace('"', "\"\""));
                line.push('"');
            }
            self.kinds[column] = kinds;
        }
        line.push('\n');
        self.out.write_all(line.as_bytes()).map_err(scratch_error)
    }

    /// A value as text; none for null.
    fn text(&mut self, value: &DataRef<'_>, kinds: &mut Kinds) -> Option<String> {
        match value {
            DataRef::Empty => None,
            DataRef::Int(number) => {
                kinds.whole = true;
                Some(number.to_string())
            }
            DataRef::Float(number) if !number.is_finite() => None,
            DataRef::Float(number) => {
                let whole = number.fract() == 0.0 && number.abs() < 9.007_199_254_740_992e15;
                *(if whole { &mut kinds.whole } else { &mut kinds.broken }) = true;
                Some(number.to_string())
            }
            DataRef::String(text) => {
                kinds.text = true;
                Some(text.clone())
            }
            DataRef::SharedString(text) => {
                kinds.text = true;
                Some((*text).to_owned())
            }
            DataRef::Bool(flag) => {
                kinds.flag = true;
                Some(flag.to_string())
            }
            DataRef::DateTime(moment) => {
                let (year, month, day, hour, minute, second, milli) = moment.to_ymd_hms_milli();
                if moment.is_duration() {
                    kinds.text = true;
                    let seconds = (moment.as_f64() * 86_400.0).round();
                    return Some(format!(
                        "{}:{:02}:{:02}",
                        (seconds / 3600.0).trunc(),
                        (seconds / 60.0).trunc() % 60.0,
                        seconds % 60.0
                    ));
                }
                if moment.as_f64() < 1.0 {
                    kinds.time = true;
                    return Some(format!("{hour:02}:{minute:02}:{second:02}.{milli:03}"));
                }
                let midnight = (hour, minute, second, milli) == (0, 0, 0, 0);
                *(if midnight { &mut kinds.date } else { &mut kinds.moment }) = true;
                let date = format!("{year:04}-{month:02}-{day:02}");
                Some(if midnight { date } else { format!("{date} {hour:02}:{minute:02}:{second:02}.{milli:03}") })
            }
            DataRef::DateTimeIso(text) => {
                *(if text.contains(['T', ' ']) { &mut kinds.moment } else { &mut kinds.date }) = true;
                Some(text.clone())
            }
            DataRef::DurationIso(text) => {
                kinds.text = true;
                Some(text.clone())
            }
            DataRef::Error(_) => {
                self.errors += 1;
                None
            }
        }
    }
}

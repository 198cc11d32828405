//! Writing the files that are read: one part after the other, under the table's types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use agnes_core::connector::{ProgressEvent, SourceContext};
use agnes_core::duck::ScratchDb;
use agnes_core::error::{Error, Result};
use agnes_core::extract::TableWriter;
use agnes_core::ident::{nearest, printable};

use super::{Layout, Run};
use crate::files::config::TableOptions;
use crate::files::error::FilesError;
use crate::files::formats::structured::{self, Wanted};
use crate::files::formats::{Inspected, Reader, json};
use crate::files::listing::FileEntry;
use crate::files::schema::Schema;
use crate::files::text::{self, Transport};
use crate::files::watch::{Watched, watch};
use crate::files::{cursor, engine_words, rejects};
use crate::watch::Watch;

/// Attempts at reading one set of files, each after another repair.
const MAX_REPAIRS: usize = 12;

/// How a pass over the files ended.
pub(super) enum Written {
    Done { good: u64, rejected: u64 },
    Widen(BTreeMap<String, u64>),
}

impl Run<'_> {
    /// Writes every file that is read, under the types of `schema`.
    pub(super) fn write(&mut self, db: &ScratchDb, writer: &mut TableWriter, schema: &Schema) -> Result<Written> {
        rejects::reset(db)?;
        for index in 0..self.read.len() {
            if let Some(dialect) = self.dialect(index) {
                dialect.cut.clear();
            }
        }
        let live: Vec<usize> = (0..self.read.len()).filter(|index| self.read[*index].found.is_some()).collect();
        let units: Vec<Vec<usize>> = match self.layout {
            Layout::ByColumn(_) => vec![live],
            _ => live.into_iter().map(|index| vec![index]).collect(),
        };
        self.source.progress.report(ProgressEvent::TableStarted {
            source: self.source.name.to_string(),
            table: self.request.name.to_string(),
            total_bytes: Some(self.read.iter().map(|file| file.entry.signature.size).sum()),
        });
        let (mut good, mut bytes, mut widen) = (0, 0, BTreeMap::new());
        for unit in &units {
            self.source.cancel.check()?;
            let rows = self.write_unit(db, writer, schema, unit, bytes, &mut widen)?;
            // The other files still say whether more columns have to be widened.
            good += rows;
            for index in unit {
                let file = &mut self.read[*index];
                bytes += file.entry.signature.size;
                if let (Some(ready), Some(Inspected { reader: Reader::Csv { ready: None, .. }, .. })) =
                    (file.ready.take(), &file.found)
                {
                    let _ = std::fs::remove_file(ready);
                }
            }
            self.source.progress.report(ProgressEvent::TableProgress {
                source: self.source.name.to_string(),
                table: self.request.name.to_string(),
                bytes,
            });
        }
        if !widen.is_empty() {
            return Ok(Written::Widen(widen));
        }
        if self.layout == Layout::ByFile {
            let last = self.last.as_ref();
            for part in self.kept.iter().filter_map(|entry| last?.files.get(&entry.rel)?.part.as_deref()) {
                writer.keep_part(part)?;
            }
        }
        Ok(Written::Done { good, rejected: rejects::count(db, None)? })
    }

    /// Writes the files of one statement; repairs what can be, and reads again.
    fn write_unit(
        &mut self,
        db: &ScratchDb,
        writer: &mut TableWriter,
        schema: &Schema,
        unit: &[usize],
        before: u64,
        widen: &mut BTreeMap<String, u64>,
    ) -> Result<u64> {
        for attempt in 0.. {
            rejects::forget(db)?;
            let selects = unit.iter().map(|index| self.select(db, schema, *index)).collect::<Result<Vec<_>>>()?;
            let select = selects.join(" UNION ALL BY NAME ");
            let watch = self.watch(unit, before);
            let written = match &self.layout {
                Layout::One => writer.write_query(db, &select, None).map(|part| part.rows),
                Layout::ByFile => {
                    let key = cursor::part_key(&self.read[unit[0]].entry.rel);
                    writer.write_query(db, &select, Some(&key)).map(|part| part.rows)
                }
                Layout::ByColumn(column) => {
                    let name = schema.get(column).map(|column| column.name.clone()).ok_or_else(|| {
                        let names = schema.columns.iter().map(|column| column.name.as_str());
                        FilesError::NoPartitionColumn {
                            column: printable(column, 60),
                            suggestion: nearest(column, names).map(|near| printable(near, 60)),
                        }
                    })?;
                    writer.write_partitioned(db, &select, &name).map(|parts| parts.iter().map(|part| part.rows).sum())
                }
            };
            drop(watch);
            let may_repair = attempt < MAX_REPAIRS;
            let rows = match written {
                Ok(rows) => rows,
                Err(error) if may_repair && self.loosen(unit, &error) => continue,
                Err(error) if may_repair && self.take_out_bad_lines(db, unit, &error)? => continue,
                Err(error) => return Err(self.blame(unit, error)),
            };
            if may_repair && self.repair(db, unit)? {
                continue;
            }
            self.collect(db, schema, unit, rows, widen)?;
            return Ok(rows);
        }
        Ok(0)
    }

    /// Tells how far the files of a statement are read, where that can be seen: after `before`
    /// bytes of other files.
    fn watch(&self, unit: &[usize], before: u64) -> Option<Watch> {
        let files = unit.iter().filter_map(|index| {
            let file = self.read.get(*index)?;
            Watched::new(file.ready.as_deref()?, file.entry.signature.size)
        });
        let (source, table) = (self.source.name.to_string(), self.request.name.to_string());
        let progress = self.source.progress.clone();
        watch(files.collect(), move |bytes| {
            let (source, table) = (source.clone(), table.clone());
            progress.report(ProgressEvent::TableProgress { source, table, bytes: before + bytes });
        })
    }

    /// SQL of one file's rows under the table's names and types.
    fn select(&mut self, db: &ScratchDb, schema: &Schema, index: usize) -> Result<String> {
        let file = &mut self.read[index];
        let Some(found) = &file.found else { return Ok("SELECT NULL WHERE false".to_owned()) };
        let wanted: Vec<Wanted<'_>> = wanted(found, schema);
        match &found.reader {
            Reader::Structured { .. } => Ok(structured::scan(&relation(found, &wanted), &wanted)),
            Reader::Csv { dialect, ready } => {
                if file.ready.is_none() {
                    file.ready = match ready {
                        Some(ready) => Some(ready.clone()),
                        None => Some(make_ready(self.source, db, &file.entry, self.options, index, &mut self.notes)?),
                    };
                }
                let columns: Vec<_> = wanted.iter().map(|w| (w.name.to_owned(), w.data_type.to_owned())).collect();
                Ok(dialect.scan(file.ready.as_deref().unwrap_or_else(|| std::path::Path::new("")), &columns))
            }
        }
    }

    /// Adds the rejected rows of a unit to the table of rejected rows, and names columns
    /// whose inferred type too many rows do not fit.
    fn collect(
        &mut self,
        db: &ScratchDb,
        schema: &Schema,
        unit: &[usize],
        rows: u64,
        widen: &mut BTreeMap<String, u64>,
    ) -> Result<()> {
        for index in unit {
            let file = &self.read[*index];
            let Some(found) = &file.found else { continue };
            rejects::add(db, &file.entry.rel, &found.rejected)?;
            match &found.reader {
                Reader::Structured { row_number, .. } => {
                    let wanted = wanted(found, schema);
                    let relation = relation(found, &wanted);
                    if let Some(misfits) = structured::misfits(&relation, *row_number, &file.entry.rel, &wanted) {
                        db.execute(&format!("INSERT INTO agnes_rejected {misfits}"))?;
                    }
                }
                Reader::Csv { dialect, .. } => {
                    let Some(path) = &file.ready else { continue };
                    let unclosed = dialect.cut.iter().map(|(line, raw)| {
                        (*line, "unquoted value: a quote is opened and never closed".to_owned(), raw.clone())
                    });
                    rejects::add(db, &file.entry.rel, &unclosed.collect::<Vec<_>>())?;
                    let rejected = rejects::look(db, path)?;
                    for (column, count) in rejected.by_column {
                        let inferred = schema.get(&column).is_some_and(|column| !column.declared);
                        if inferred && count * 100 > rows + rejected.rows {
                            *widen.entry(column).or_default() += count;
                        }
                    }
                    if rejected.rows > 0 {
                        rejects::collect(db, path, &file.entry.rel, rejected.rows, dialect)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The engine's failure as one of the file, where there is one file only.
    fn blame(&self, unit: &[usize], error: Error) -> Error {
        let [index] = unit else { return error };
        let file = &self.read[*index];
        let path = match &file.found {
            Some(Inspected { reader: Reader::Structured { path, .. }, .. }) => Some(path),
            _ => file.ready.as_ref(),
        };
        engine_words::damaged_error(&file.entry, path.map_or_else(|| std::path::Path::new(""), PathBuf::as_path), error)
    }
}

/// The file's columns as the table wants them.
fn wanted<'a>(found: &'a Inspected, schema: &'a Schema) -> Vec<Wanted<'a>> {
    let columns = found.columns.iter().filter_map(|column| Some((column, schema.get(&column.name)?)));
    columns
        .map(|(column, table)| Wanted {
            column,
            source_type: match found.is_json().then(|| table.read_as(column)).flatten() {
                Some(told) => told.into(),
                None => column.source_type.as_str().into(),
            },
            name: &table.name,
            data_type: table.data_type(),
            declared: table.declared,
        })
        .collect()
}

/// SQL of the file's rows; a reader of JSON is told what it has to read otherwise.
fn relation<'a>(found: &'a Inspected, wanted: &[Wanted<'_>]) -> Cow<'a, str> {
    match &found.reader {
        Reader::Structured { path, json: true, .. } if wanted.iter().any(Wanted::is_told) => {
            json::typed(path, wanted.iter().map(|w| (w.column.source.as_str(), w.source_type.as_ref()))).into()
        }
        Reader::Structured { relation, .. } => relation.into(),
        Reader::Csv { .. } => "".into(),
    }
}

/// The file under a name and in an encoding the reader takes.
fn make_ready(
    source: &SourceContext,
    db: &ScratchDb,
    entry: &FileEntry,
    options: &TableOptions,
    index: usize,
    notes: &mut Vec<String>,
) -> Result<PathBuf> {
    let transport = Transport::detect(entry, options.encoding.as_deref())?;
    let name = format!("input-{index}.csv");
    if transport.is_plain() {
        return text::link(entry, &db.folder(), &name);
    }
    let target = db.folder().join(name);
    let replaced = transport.unpack(entry, &target, &source.cancel)?;
    if replaced > 0 {
        notes.push(format!(
            "`{}`: {replaced} characters could not be decoded and were replaced",
            printable(&entry.rel, 80)
        ));
    }
    Ok(target)
}

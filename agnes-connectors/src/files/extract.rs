//! One table: which files have to be read, the types they agree on, and the reading.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agnes_core::connector::{Cancelled, ExtractReport, ExtractRequest, ProgressEvent, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::{Error, Result};
use agnes_core::extract::TableWriter;
use agnes_core::ident::{nearest, printable};
use agnes_core::registry::SyncStrategy;

use super::config::{FilesConfig, Format, MaxRejected, OneOrMany, TableOptions};
use super::cursor::{self, Cursor, SeenFile, same_file};
use super::error::FilesError;
use super::formats::csv::{self, Dialect};
use super::formats::structured::{self, Wanted};
use super::formats::{Inspected, Reader};
use super::listing::{self, FileEntry};
use super::schema::Schema;
use super::text::{self, Transport};
use super::{engine_words, formats, inspect, rejects};

/// Attempts at reading one set of files, each after another repair.
const MAX_REPAIRS: usize = 12;
/// Notes of one run.
const MAX_NOTES: usize = 30;

/// Which Parquet files the table becomes.
#[derive(Debug, Clone, PartialEq)]
enum Layout {
    /// One.
    One,
    /// One for each source file.
    ByFile,
    /// One for each value of a column.
    ByColumn(String),
}

/// Reads one table into `writer`.
pub(crate) fn extract(
    source: &SourceContext,
    request: &ExtractRequest,
    mut writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let config = FilesConfig::parse(&source.config)?;
    let options = config.options_of(request.name.as_str(), request.table.options.as_ref())?;
    let mut twice = false;
    loop {
        let mut run = Run::plan(source, request, &config, &options)?;
        if run.is_unchanged(&writer)? {
            let cursor = request.cursor.clone();
            return Ok((writer, ExtractReport { unchanged: true, cursor, ..ExtractReport::default() }));
        }
        let outcome = run.read(&mut writer);
        if source.cancel.is_cancelled() {
            return Err(Cancelled.into());
        }
        let changed = run.read.iter().find(|file| {
            let now = std::fs::metadata(&file.entry.path).map(|meta| listing::signature(&meta));
            !now.is_ok_and(|now| same_file(&now, &file.entry.signature))
        });
        match (changed, twice) {
            (None, _) => return outcome.map(|report| (writer, report)),
            (Some(file), true) => return Err(FilesError::Changed { file: file.entry.rel.clone() }.into()),
            (Some(_), false) => {
                twice = true;
                writer.restart();
            }
        }
    }
}

/// A file that is read in this run.
struct ReadFile {
    entry: FileEntry,
    format: Format,
    /// None for a file that holds nothing.
    found: Option<Inspected>,
    /// Where the reader of delimited text finds it; set while it is read.
    ready: Option<PathBuf>,
}

struct Run<'a> {
    source: &'a SourceContext,
    request: &'a ExtractRequest,
    options: &'a TableOptions,
    layout: Layout,
    settings: String,
    last: Option<Cursor>,
    kept: Vec<FileEntry>,
    read: Vec<ReadFile>,
    removed: bool,
    notes: Vec<String>,
}

impl<'a> Run<'a> {
    fn plan(
        source: &'a SourceContext,
        request: &'a ExtractRequest,
        config: &FilesConfig,
        options: &'a TableOptions,
    ) -> Result<Self> {
        let patterns: Vec<String> = match (&options.files, &request.table.source_table) {
            (Some(files), _) => files.as_slice().to_vec(),
            (None, Some(name)) => vec![name.clone()],
            (None, None) => vec!["*".to_owned()],
        };
        let listing = listing::list(config)?;
        let one = matches!(&patterns[..], [only] if listing.files.contains_key(only.as_str()));
        let mut entries = listing.matching(&patterns)?;
        if !one {
            entries.retain(|entry| options.format.is_some() || Format::of(&entry.rel).is_some());
        }
        if entries.is_empty() {
            let pattern = OneOrMany::Many(patterns).as_slice().join("`, `");
            return Err(FilesError::NoFiles { pattern: printable(&pattern, 200) }.into());
        }
        let partition = request.table.partition_by.as_ref().or(options.partition_by.as_ref());
        let layout = match partition {
            Some(column) => Layout::ByColumn(column.clone()),
            None if one => Layout::One,
            None => Layout::ByFile,
        };
        let settings = cursor::settings(options, &format!("{layout:?}"));
        let last = if request.full { None } else { Cursor::usable(request.cursor.as_ref(), &settings) };
        let mut run = Self {
            source,
            request,
            options,
            layout,
            settings,
            last,
            kept: Vec::new(),
            read: Vec::new(),
            removed: false,
            notes: listing.notes,
        };
        let seen = |entry: &FileEntry| run.last.as_ref().and_then(|last| last.has(&entry.rel, &entry.signature));
        let all_seen = entries.iter().all(|entry| seen(entry).is_some());
        run.removed = run.last.as_ref().is_some_and(|last| last.files.len() != entries.len());
        let keeps = run.layout == Layout::ByFile && request.table.sync_strategy == SyncStrategy::Incremental;
        let (kept, read): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| match seen(entry) {
            Some(file) => (all_seen && !run.removed) || (keeps && file.rejected == 0),
            None => false,
        });
        run.kept = kept;
        for entry in read {
            run.push(entry)?;
        }
        Ok(run)
    }

    fn push(&mut self, entry: FileEntry) -> Result<(), FilesError> {
        let format = self.options.format.or_else(|| Format::of(&entry.rel));
        let format = format.ok_or_else(|| FilesError::UnknownFormat { file: printable(&entry.rel, 200) })?;
        self.read.push(ReadFile { entry, format, found: None, ready: None });
        Ok(())
    }

    /// Whether every file is as it was. Parts that are gone from the extract are read again.
    fn is_unchanged(&mut self, writer: &TableWriter) -> Result<bool> {
        if let (Some(last), Layout::ByFile) = (&self.last, &self.layout) {
            let published = writer.published_parts()?;
            let lost = |entry: &FileEntry| {
                last.files
                    .get(&entry.rel)
                    .and_then(|seen| seen.part.as_ref())
                    .is_some_and(|part| !published.contains(part))
            };
            let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.kept).into_iter().partition(lost);
            self.kept = kept;
            for entry in gone {
                self.push(entry)?;
            }
        }
        Ok(self.last.is_some() && self.read.is_empty() && !self.removed)
    }

    fn read(&mut self, writer: &mut TableWriter) -> Result<ExtractReport> {
        let db = ScratchDb::open(&self.source.scratch, &ScratchLimits::default())?;
        self.source.cancel.interrupts(db.interrupter());
        let before = self.last.as_ref().map(|last| last.columns.clone()).unwrap_or_default();
        let kept_columns = if self.kept.is_empty() { Vec::new() } else { before.clone() };
        let mut schema = Schema::new(self.options, &kept_columns);
        self.inspect_all(&db, &mut schema)?;
        // Kept parts have the types of last time: read them again when those changed.
        if !self.kept.is_empty() && !schema.changed(&kept_columns).is_empty() {
            self.read_everything(&db, &mut schema)?;
        }
        if self.read.iter().all(|file| file.found.is_none()) && self.kept.is_empty() {
            return self.nothing(&db, writer, &before);
        }
        schema.remember(&before);
        let files: Vec<_> = self.read.iter().filter_map(|file| Some(file.found.as_ref()?.columns.as_slice())).collect();
        if self.kept.is_empty() {
            self.notes.extend(schema.missing(self.options, &files));
        }
        let (good, rejected) = loop {
            match self.write(&db, writer, &schema)? {
                Written::Done { good, rejected } => break (good, rejected),
                Written::Widen(columns) => {
                    for (column, rows) in columns {
                        if schema.widen(&column) {
                            self.notes.push(format!(
                                "column `{}` is text: {rows} rows do not fit the type found first",
                                printable(&column, 60)
                            ));
                        }
                    }
                    if !self.kept.is_empty() {
                        self.read_everything(&db, &mut schema)?;
                    }
                }
            }
        };
        self.check_rejected(&db, good, rejected)?;
        self.notes.extend(schema.changed(&before));
        let cursor = self.cursor(&db, &schema)?;
        writer.write_rejected(&db, rejects::ALL)?;
        Ok(self.report(cursor, rejected))
    }

    /// Finds out the columns of every file that is read.
    fn inspect_all(&mut self, db: &ScratchDb, schema: &mut Schema) -> Result<()> {
        let only = self.read.len() + self.kept.len() == 1;
        for (index, file) in self.read.iter_mut().enumerate().filter(|(_, file)| file.found.is_none()) {
            self.source.cancel.check()?;
            match inspect(db, &file.entry, file.format, self.options, index, &self.source.cancel) {
                Ok(found) => {
                    schema.add(&found.columns);
                    let prefix = if only { String::new() } else { format!("`{}`: ", printable(&file.entry.rel, 80)) };
                    self.notes.extend(found.notes.iter().map(|note| format!("{prefix}{note}")));
                    file.found = Some(found);
                }
                // One file without content among others is no reason to lose the table; one
                // that is alone is told apart later.
                Err(error) if error.code() == "file_without_columns" || (!only && error.code() == "file_empty") => {
                    self.notes.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_everything(&mut self, db: &ScratchDb, schema: &mut Schema) -> Result<()> {
        for entry in std::mem::take(&mut self.kept) {
            self.push(entry)?;
        }
        self.inspect_all(db, schema)
    }

    /// No file has any row: no rows under the columns of last time, when there was one.
    fn nothing(
        &mut self,
        db: &ScratchDb,
        writer: &mut TableWriter,
        before: &[(String, String)],
    ) -> Result<ExtractReport> {
        let Some(file) = self.read.first() else {
            return Err(FilesError::NoFiles { pattern: "*".to_owned() }.into());
        };
        // A file of 0 bytes is never an answer; `[]` is.
        if before.is_empty() || self.read.iter().any(|file| file.entry.signature.size == 0) {
            let file = file.entry.rel.clone();
            let empty = self.read.iter().all(|file| file.entry.signature.size == 0);
            return Err(if empty { FilesError::Empty { file } } else { FilesError::NoColumns { file } }.into());
        }
        let columns: Vec<_> = before
            .iter()
            .map(|(name, data_type)| format!("CAST(NULL AS {data_type}) AS {}", agnes_core::ident::quote_ident(name)))
            .collect();
        let select = format!("SELECT {} WHERE false", columns.join(", "));
        let key = if self.layout == Layout::One { None } else { Some("empty") };
        writer.write_query(db, &select, key)?;
        rejects::reset(db)?;
        writer.write_rejected(db, rejects::ALL)?;
        let schema = Schema::new(&TableOptions::default(), before);
        let cursor = self.cursor(db, &schema)?;
        Ok(self.report(cursor, 0))
    }

    /// Writes every file that is read, under the types of `schema`.
    fn write(&mut self, db: &ScratchDb, writer: &mut TableWriter, schema: &Schema) -> Result<Written> {
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
            let rows = self.write_unit(db, writer, schema, unit, &mut widen)?;
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
        widen: &mut BTreeMap<String, u64>,
    ) -> Result<u64> {
        for attempt in 0.. {
            rejects::forget(db)?;
            let selects = unit.iter().map(|index| self.select(db, schema, *index)).collect::<Result<Vec<_>>>()?;
            let select = selects.join(" UNION ALL BY NAME ");
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

    /// SQL of one file's rows under the table's names and types.
    fn select(&mut self, db: &ScratchDb, schema: &Schema, index: usize) -> Result<String> {
        let file = &mut self.read[index];
        let Some(found) = &file.found else { return Ok("SELECT NULL WHERE false".to_owned()) };
        let wanted: Vec<Wanted<'_>> = wanted(found, schema);
        match &found.reader {
            Reader::Structured { relation, .. } => Ok(structured::scan(relation, &wanted)),
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

    /// Lets text through that breaks the rules of the format but can be understood.
    fn loosen(&mut self, unit: &[usize], error: &Error) -> bool {
        if !engine_words::is_plain(error.code()) || !engine_words::words(error).contains("invalid state") {
            return false;
        }
        let mut loosened = false;
        for index in unit {
            if let Some(dialect) = self.dialect(*index)
                && dialect.strict
            {
                dialect.strict = false;
                loosened = true;
            }
        }
        if loosened {
            self.notes.push("line ends or quotes are not regular; the file was read leniently".to_owned());
        }
        loosened
    }

    /// Reads files of JSON lines again without lines that cannot be read, such as those with a
    /// key twice; whether there are any.
    fn take_out_bad_lines(&mut self, db: &ScratchDb, unit: &[usize], error: &Error) -> Result<bool> {
        if !engine_words::is_plain(error.code()) {
            return Ok(false);
        }
        let mut again = false;
        for index in unit {
            let file = &mut self.read[*index];
            let Some(Inspected { reader: Reader::Structured { path, lines: true, .. }, .. }) = &file.found else {
                continue;
            };
            if let Some(found) = formats::json::repair(db, &file.entry, path, *index, &self.source.cancel)? {
                file.found = Some(found);
                again = true;
            }
        }
        Ok(again)
    }

    /// Takes lines out whose quote is never closed, and allows long lines; whether to read again.
    fn repair(&mut self, db: &ScratchDb, unit: &[usize]) -> Result<bool> {
        let mut again = false;
        for index in unit {
            let Some(path) = self.read[*index].ready.clone() else { continue };
            let rejected = rejects::look(db, &path)?;
            let cancel = self.source.cancel.clone();
            let Some(dialect) = self.dialect(*index) else { continue };
            if rejected.too_long && !dialect.long_lines {
                dialect.long_lines = true;
                again = true;
            }
            if !rejected.unclosed.is_empty() {
                let round = dialect.cut.len();
                let target = db.folder().join(format!("cut-{index}-{round}.csv"));
                let lines = csv::cut_lines(&path, &target, &rejected.unclosed, &cancel)?;
                again |= !lines.is_empty();
                let gone: Vec<u64> = dialect.cut.iter().map(|(line, _)| *line).collect();
                let (numbers, texts): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
                dialect.cut.extend(csv::original_lines(numbers, &gone).into_iter().zip(texts));
                dialect.cut.sort_unstable();
                if path.starts_with(db.folder()) {
                    let _ = std::fs::remove_file(&path);
                }
                self.read[*index].ready = Some(target);
            }
        }
        Ok(again)
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
                Reader::Structured { relation, row_number, .. } => {
                    let wanted = wanted(found, schema);
                    if let Some(misfits) = structured::misfits(relation, *row_number, &file.entry.rel, &wanted) {
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

    fn dialect(&mut self, index: usize) -> Option<&mut Dialect> {
        match self.read.get_mut(index)?.found.as_mut().map(|found| &mut found.reader) {
            Some(Reader::Csv { dialect, .. }) => Some(dialect),
            _ => None,
        }
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

    fn check_rejected(&self, db: &ScratchDb, good: u64, rejected: u64) -> Result<()> {
        let total = good + rejected;
        #[allow(clippy::cast_precision_loss)]
        let too_many = match self.options.max_rejected {
            _ if rejected == 0 => false,
            Some(MaxRejected::Count(most)) => rejected > most,
            Some(MaxRejected::Fraction(most)) => rejected as f64 > total as f64 * most,
            None => good == 0 && self.kept.is_empty(),
        };
        if !too_many {
            return Ok(());
        }
        let (line, reason) = rejects::first(db)?;
        Err(FilesError::TooManyRejected { rejected, total, line, reason }.into())
    }

    fn cursor(&self, db: &ScratchDb, schema: &Schema) -> Result<Cursor> {
        let mut files = BTreeMap::new();
        for entry in &self.kept {
            if let Some(seen) = self.last.as_ref().and_then(|last| last.files.get(&entry.rel)) {
                files.insert(entry.rel.clone(), seen.clone());
            }
        }
        for file in &self.read {
            let part =
                (self.layout == Layout::ByFile && file.found.is_some()).then(|| cursor::part_key(&file.entry.rel));
            let rejected = rejects::count(db, Some(&file.entry.rel))?;
            files.insert(file.entry.rel.clone(), SeenFile { signature: file.entry.signature, part, rejected });
        }
        Ok(Cursor { settings: self.settings.clone(), columns: schema.list(), files })
    }

    fn report(&mut self, cursor: Cursor, rejected_rows: u64) -> ExtractReport {
        let mut notes = std::mem::take(&mut self.notes);
        notes.dedup();
        if notes.len() > MAX_NOTES {
            let more = notes.len() - MAX_NOTES;
            notes.truncate(MAX_NOTES);
            notes.push(format!("and {more} more notes"));
        }
        ExtractReport { unchanged: false, cursor: serde_json::to_value(cursor).ok(), rejected_rows, notes }
    }
}

/// How a pass over the files ended.
enum Written {
    Done { good: u64, rejected: u64 },
    Widen(BTreeMap<String, u64>),
}

/// The file's columns as the table wants them.
fn wanted<'a>(found: &'a Inspected, schema: &'a Schema) -> Vec<Wanted<'a>> {
    let columns = found.columns.iter().filter_map(|column| Some((column, schema.get(&column.name)?)));
    columns
        .map(|(column, table)| Wanted {
            column,
            name: &table.name,
            data_type: table.data_type(),
            declared: table.declared,
        })
        .collect()
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

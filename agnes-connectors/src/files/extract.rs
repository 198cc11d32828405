//! One table: which files have to be read, the types they agree on, and the reading.

mod repair;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;

use agnes_core::connector::{Cancelled, ExtractReport, ExtractRequest, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::ident::printable;
use agnes_core::registry::SyncStrategy;

use super::config::{FilesConfig, Format, MaxRejected, OneOrMany, TableOptions};
use super::cursor::{self, Cursor, SeenFile, same_file};
use super::error::FilesError;
use super::formats::Inspected;
use super::listing::{self, FileEntry};
use super::schema::Schema;
use super::{inspect, rejects};
use write::Written;

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
        // An object is downloaded as the one that was listed, or not at all.
        let changed = run.read.iter().filter(|file| file.entry.object.is_none()).find(|file| {
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
        let listing = listing::list(config, source)?;
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
        self.notes.extend(schema.torn());
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
            file.entry.fetch()?;
            match inspect(db, &file.entry, file.format, self.options, index, &self.source.cancel) {
                Ok(found) => {
                    schema.add(&found);
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
        ExtractReport {
            unchanged: false,
            cursor: serde_json::to_value(cursor).ok(),
            rejected_rows,
            notes,
            remote: None,
        }
    }
}

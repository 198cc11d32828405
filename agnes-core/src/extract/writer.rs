//! Fills one table of an extract. Nothing is visible before the source's publication.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::ExtractError;
use super::fsio::{Staged, temporary};
use super::parquet::{self, Footer};
use crate::duck::ScratchDb;
use crate::error::{Error, Result};
use crate::ident::{TableName, quote_ident, quote_literal};
use crate::layout;

/// Ends the name of the table that keeps the rows put aside of another.
pub const REJECTED_SUFFIX: &str = "_rejected";

/// Longest file stem of a part.
const MAX_PART_KEY: usize = 120;

/// The table that keeps the rows put aside of `table`.
#[must_use]
pub fn rejected_table(table: &TableName) -> TableName {
    let stem: String = table.as_str().chars().take(64 - REJECTED_SUFFIX.len()).collect();
    // Still a strict identifier: ASCII, not longer than before.
    TableName::parse(&format!("{stem}{REJECTED_SUFFIX}")).unwrap_or_else(|_| table.clone())
}

/// A file stem for any text: what is not a letter, digit, `.`, `_` or `-` becomes `_`, and
/// a checksum keeps different texts apart.
#[must_use]
pub fn part_key(text: &str) -> String {
    let safe: String = text
        .chars()
        .take(MAX_PART_KEY - 17)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' })
        .collect();
    if safe == text && is_part_key(text) {
        return safe;
    }
    use sha2::Digest;
    let sum = sha2::Sha256::digest(text.as_bytes());
    let sum: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{sum}", if safe.starts_with('.') { safe.replacen('.', "_", 1) } else { safe })
}

fn is_part_key(key: &str) -> bool {
    (1..=MAX_PART_KEY).contains(&key.len())
        && !key.starts_with('.')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// What a file that is being written holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPart {
    /// File stem of the part; `None` for a single-file table.
    pub key: Option<String>,
    /// Rows, from the footer.
    pub rows: u64,
    /// Bytes.
    pub size_bytes: u64,
}

/// Collects the Parquet of one table. A table is either one file (`write_query`,
/// `write_batches` with no key) or a set of parts by key; mixing is an error.
///
/// Files go to unique temporary names beside their targets, are verified and synced;
/// the run that owns the writer renames them all at publication, or drops them.
#[derive(Debug)]
pub struct TableWriter {
    pub(super) extract: PathBuf,
    pub(super) table: TableName,
    pub(super) single: Option<Staged>,
    pub(super) parts: Option<StagedParts>,
    pub(super) rejected: Rejected,
}

/// Parts that are being collected in a folder of their own.
#[derive(Debug)]
pub(super) struct StagedParts {
    pub(super) folder: PathBuf,
    pub(super) written: BTreeMap<String, Footer>,
    pub(super) kept: BTreeSet<String>,
}

impl Drop for StagedParts {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// What the writer was told about rows put aside.
#[derive(Debug, Default)]
pub(super) enum Rejected {
    /// Nothing: what is published stays.
    #[default]
    Unknown,
    /// There are none: what is published goes.
    None,
    /// These.
    Some(Staged),
}

impl TableWriter {
    /// A writer for `table` in the extract folder `extract`.
    #[must_use]
    pub fn new(extract: &Path, table: TableName) -> Self {
        Self { extract: extract.to_owned(), table, single: None, parts: None, rejected: Rejected::Unknown }
    }

    /// The table it writes.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The folder of the extract, which everything is written below.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.extract
    }

    /// Forgets what was written so far: the connector starts the table again.
    pub fn restart(&mut self) {
        (self.single, self.parts, self.rejected) = (None, None, Rejected::Unknown);
    }

    fn stage_parts(&mut self) -> Result<&mut StagedParts> {
        if self.single.is_some() {
            return Err(ExtractError::MixedLayout.into());
        }
        if self.parts.is_none() {
            let folder = temporary(&layout::parts_folder(&self.extract, &self.table));
            std::fs::create_dir_all(&folder).map_err(|e| Error::io("make a folder", e))?;
            self.parts = Some(StagedParts { folder, written: BTreeMap::new(), kept: BTreeSet::new() });
        }
        self.parts.as_mut().ok_or_else(|| ExtractError::NothingWritten.into())
    }

    fn write(&mut self, key: Option<&str>, write: impl FnOnce(&Staged) -> Result<Footer>) -> Result<WrittenPart> {
        let Some(key) = key else {
            if self.parts.is_some() {
                return Err(ExtractError::MixedLayout.into());
            }
            let staged = Staged::beside(&layout::single_file(&self.extract, &self.table))?;
            let footer = write(&staged)?;
            let part = written(None, footer, staged.path())?;
            self.single = Some(staged);
            return Ok(part);
        };
        if !is_part_key(key) {
            return Err(ExtractError::BadPartKey { key: crate::ident::printable(key, 80) }.into());
        }
        let parts = self.stage_parts()?;
        let target = parts.folder.join(format!("{key}.parquet"));
        let staged = Staged::beside(&target)?;
        let footer = write(&staged)?;
        let part = written(Some(key.to_owned()), footer, staged.path())?;
        staged.publish(&target)?;
        parts.kept.remove(key);
        parts.written.insert(key.to_owned(), footer);
        Ok(part)
    }

    /// Writes the rows of `select` (SQL of the connector, never of a user) as the whole
    /// table, or as the part `key`. Blocks: call it on a blocking thread.
    ///
    /// # Errors
    /// `disk_full`, `bad_part_key`, `engine_error` with the engine's words as source.
    pub fn write_query(&mut self, db: &ScratchDb, select: &str, key: Option<&str>) -> Result<WrittenPart> {
        self.write(key, |staged| parquet::write_query(db, select, staged))
    }

    /// Writes the rows of `select` as one part for each value of `column`; the part's key is
    /// [`part_key`] of the value as text (`null` for nulls). Replaces all parts. Blocks.
    ///
    /// # Errors
    /// As [`TableWriter::write_query`].
    pub fn write_partitioned(&mut self, db: &ScratchDb, select: &str, column: &str) -> Result<Vec<WrittenPart>> {
        const KEY: &str = "__agnes_part";
        let folder = {
            let parts = self.stage_parts()?;
            parts.written.clear();
            parts.kept.clear();
            parts.folder.join("values")
        };
        super::fsio::fault_point().map_err(|e| Error::io("write the parts", e))?;
        db.execute(&format!(
            "COPY (SELECT *, CASE WHEN {column} IS NULL THEN 'n' ELSE 'v' || {column}::VARCHAR END AS {KEY} FROM ({select})) \
             TO {} ({format}, PARTITION_BY ({KEY}))",
            quote_literal(&folder.to_string_lossy()),
            column = quote_ident(column),
            format = parquet::FORMAT,
        ))?;
        let mut out = Vec::new();
        for (value, files) in partition_files(&folder, KEY)? {
            for (n, file) in files.into_iter().enumerate() {
                let mut key = match value.split_at_checked(1) {
                    Some(("v", text)) => part_key(text),
                    _ => "null".to_owned(),
                };
                // A text that reads `null`, and further files of one value.
                let parts = self.stage_parts()?;
                if n > 0 || parts.written.contains_key(&key) {
                    key =
                        (1..).map(|n| format!("{key}-{n}")).find(|key| !parts.written.contains_key(key)).unwrap_or(key);
                }
                let footer = parquet::footer(&file)?;
                let target = parts.folder.join(format!("{key}.parquet"));
                std::fs::File::open(&file)
                    .and_then(|f| f.sync_all())
                    .map_err(|e| Error::io("write a part to disk", e))?;
                std::fs::rename(&file, &target).map_err(|e| Error::io("name a part", e))?;
                out.push(written(Some(key.clone()), footer, &target)?);
                parts.written.insert(key, footer);
            }
        }
        drop(std::fs::remove_dir_all(&folder));
        if out.is_empty() {
            // No rows: one part that still tells the columns.
            out.push(self.write_query(db, select, Some("empty"))?);
        }
        Ok(out)
    }

    /// Writes record batches as the whole table, or as the part `key`. Blocks.
    ///
    /// # Errors
    /// `disk_full`, `bad_batch` when a batch does not fit the schema.
    pub fn write_batches(
        &mut self,
        schema: SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
        key: Option<&str>,
    ) -> Result<WrittenPart> {
        self.write(key, |staged| parquet::write_batches(schema, batches, staged))
    }

    /// The files of the table that are published now, to put what changed into them.
    ///
    /// # Errors
    /// I/O errors.
    pub fn published_files(&self) -> Result<Option<super::TableFiles>> {
        super::table_files(&self.extract, &self.table)
    }

    /// Keys of the parts that are published now.
    ///
    /// # Errors
    /// I/O errors.
    pub fn published_parts(&self) -> Result<Vec<String>> {
        let mut keys: Vec<String> = layout_files(&layout::parts_folder(&self.extract, &self.table))?
            .into_iter()
            .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
            .collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Path of a published part, to read it again (for instance to widen its types).
    ///
    /// # Errors
    /// `part_not_found`.
    pub fn published_part(&self, key: &str) -> Result<PathBuf> {
        let path = layout::parts_folder(&self.extract, &self.table).join(format!("{key}.parquet"));
        if is_part_key(key) && path.is_file() {
            Ok(path)
        } else {
            Err(ExtractError::PartNotFound { key: crate::ident::printable(key, 80) }.into())
        }
    }

    /// Keeps a published part as it is. Parts neither written nor kept are dropped.
    ///
    /// # Errors
    /// `part_not_found`.
    pub fn keep_part(&mut self, key: &str) -> Result<()> {
        self.published_part(key)?;
        let parts = self.stage_parts()?;
        if !parts.written.contains_key(key) {
            parts.kept.insert(key.to_owned());
        }
        Ok(())
    }

    /// Rows put aside: published as the table `<table>_rejected` beside it (columns
    /// `file`, `line`, `column`, `reason`, `raw`). No rows publish none and drop an earlier
    /// one. Returns how many rows there are. Blocks.
    ///
    /// # Errors
    /// As [`TableWriter::write_query`].
    pub fn write_rejected(&mut self, db: &ScratchDb, select: &str) -> Result<u64> {
        let staged = Staged::beside(&layout::single_file(&self.extract, &rejected_table(&self.table)))?;
        let footer = parquet::write_query(db, select, &staged)?;
        self.rejected = if footer.rows == 0 { Rejected::None } else { Rejected::Some(staged) };
        Ok(footer.rows)
    }
}

fn written(key: Option<String>, footer: Footer, path: &Path) -> Result<WrittenPart> {
    let size_bytes = path.metadata().map_err(|e| Error::io("read a written file", e))?.len();
    Ok(WrittenPart { key, rows: footer.rows, size_bytes })
}

/// The Parquet files directly in `folder`, by name; none when it is missing.
pub(crate) fn layout_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || e.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Error::io("list the parts of a table", e)),
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "parquet") && path.is_file())
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Files by value of a folder written with `PARTITION_BY`, in order of the values.
fn partition_files(folder: &Path, key: &str) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(value) = name.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            out.insert(percent_decoded(value), layout_files(&entry.path())?);
        }
    }
    Ok(out)
}

/// Undoes the `%XX` that DuckDB writes into folder names.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn part_keys_are_safe_and_distinct() {
        assert_eq!(part_key("2024-01"), "2024-01");
        let hostile = ["../../x", "a/b", "a\\b", ".hidden", "", "é", "a b", "..", &"x".repeat(500)];
        let keys: BTreeSet<String> = hostile.iter().map(|text| part_key(text)).collect();
        assert_eq!(keys.len(), hostile.len());
        assert!(keys.iter().all(|key| is_part_key(key)), "{keys:?}");
    }

    #[test]
    fn rejected_tables_have_valid_names() {
        let long = TableName::parse(&"x".repeat(64)).unwrap();
        assert_eq!(rejected_table(&long).as_str().len(), 64);
        assert_eq!(rejected_table(&TableName::parse("orders").unwrap()).as_str(), "orders_rejected");
    }
}

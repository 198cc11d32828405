//! Fills one table of an extract. Nothing is visible before the source's publication.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::duck::ScratchDb;
use crate::error::Result;
use crate::ident::TableName;

/// What a file that is being written, or already published, holds.
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
    #[allow(dead_code)]
    extract: PathBuf,
    #[allow(dead_code)]
    table: TableName,
}

impl TableWriter {
    /// A writer for `table` in the extract folder `extract`.
    #[must_use]
    pub fn new(extract: &Path, table: TableName) -> Self {
        Self { extract: extract.to_owned(), table }
    }

    /// Writes the rows of `select` (SQL of the connector, never of a user) as the whole
    /// table, or as the part `key`. Blocks: call it on a blocking thread.
    ///
    /// # Errors
    /// `disk_full`, `engine_error` with the engine's words as source.
    pub fn write_query(&mut self, db: &ScratchDb, select: &str, key: Option<&str>) -> Result<WrittenPart> {
        let _ = (db, select, key);
        unimplemented!()
    }

    /// Writes the rows of `select` as one part for each value of `column`; the part's key is
    /// the value as text made safe for a file name (`null` for nulls). Replaces all parts.
    ///
    /// # Errors
    /// As [`TableWriter::write_query`].
    pub fn write_partitioned(&mut self, db: &ScratchDb, select: &str, column: &str) -> Result<Vec<WrittenPart>> {
        let _ = (db, select, column);
        unimplemented!()
    }

    /// Writes record batches as the whole table, or as the part `key`.
    ///
    /// # Errors
    /// `disk_full`, `invalid_data` when a batch does not fit the schema.
    pub fn write_batches(
        &mut self,
        schema: SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
        key: Option<&str>,
    ) -> Result<WrittenPart> {
        let _ = (schema, batches, key);
        unimplemented!()
    }

    /// Keys of the parts that are published now.
    ///
    /// # Errors
    /// I/O errors.
    pub fn published_parts(&self) -> Result<Vec<String>> {
        unimplemented!()
    }

    /// Keeps a published part as it is. Parts neither written nor kept are dropped.
    ///
    /// # Errors
    /// `part_not_found`.
    pub fn keep_part(&mut self, key: &str) -> Result<()> {
        let _ = key;
        unimplemented!()
    }

    /// Rows put aside: published as the table `<table>_rejected` beside it (columns
    /// `file`, `line`, `column`, `reason`, `raw`). An empty `select` result publishes none
    /// and drops an earlier one.
    ///
    /// # Errors
    /// As [`TableWriter::write_query`].
    pub fn write_rejected(&mut self, db: &ScratchDb, select: &str) -> Result<u64> {
        let _ = (db, select);
        unimplemented!()
    }
}

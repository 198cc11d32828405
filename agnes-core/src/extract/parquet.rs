//! The one Parquet publisher: bounded row groups, zstd, verified before anybody sees it.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use super::fsio::{Staged, fault_point};
use super::{ExtractError, encode};
use crate::duck::ScratchDb;
use crate::error::{Error, Result};
use crate::ident::quote_literal;

/// Rows of a row group where their width is not known.
pub(super) const ROW_GROUP_ROWS: usize = 122_880;
/// Bytes of the largest dictionary of a column where no engine writes it: a fifth of a row group's rows in
/// 8 bytes each, as the engine has it. Looking values up that hardly repeat takes longer than writing them.
const DICTIONARY_BYTES: usize = ROW_GROUP_ROWS / 5 * 8;
/// How the engine writes Parquet. Against its defaults (version 1, level 3) tables of mixed
/// columns are written in about half the time, take a fifth less room and are read faster.
pub(super) const FORMAT: &str = "FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd, COMPRESSION_LEVEL 1";

/// What a Parquet footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) rows: u64,
    pub(crate) columns: usize,
    /// Bytes of values, uncompressed.
    pub(crate) uncompressed: u64,
}

/// Reads the footer of a Parquet file.
///
/// # Errors
/// `not_parquet` when the file is not complete Parquet.
pub(crate) fn footer(path: &Path) -> Result<Footer> {
    let meta = metadata(path)?;
    let rows = meta.file_metadata().num_rows();
    let uncompressed = meta.row_groups().iter().map(|group| group.total_byte_size()).sum::<i64>();
    Ok(Footer {
        rows: u64::try_from(rows).map_err(|_| ExtractError::NotParquet)?,
        columns: meta.file_metadata().schema_descr().root_schema().get_fields().len(),
        uncompressed: u64::try_from(uncompressed).unwrap_or(0),
    })
}

fn metadata(path: &Path) -> Result<ParquetMetaData> {
    let file = File::open(path).map_err(|e| Error::io("read a Parquet file", e))?;
    ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|_| ExtractError::NotParquet.into())
}

/// Writes the rows of `select` to `staged` and verifies the result.
pub(crate) fn write_query(db: &ScratchDb, select: &str, staged: &Staged) -> Result<Footer> {
    fault_point().map_err(|e| Error::io("write a Parquet file", e))?;
    db.execute(&copy(select, staged))?;
    let footer = footer(staged.path())?;
    staged.sync()?;
    Ok(footer)
}

/// The statement that writes the rows of `select` to `staged`.
pub(crate) fn copy(select: &str, staged: &Staged) -> String {
    format!(
        "COPY ({select}) TO {} ({FORMAT}, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, USE_TMP_FILE false)",
        quote_literal(&staged.path().to_string_lossy()),
    )
}

/// Writes record batches to `staged` and verifies the result.
pub(crate) fn write_batches(
    schema: SchemaRef,
    batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    staged: &Staged,
) -> Result<Footer> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let properties = properties.set_dictionary_page_size_limit(DICTIONARY_BYTES).build();
    let file =
        fault_point().and_then(|()| File::create(staged.path())).map_err(|e| Error::io("write a Parquet file", e))?;
    let rows = encode::write(file, &schema, properties, batches)?;
    let footer = footer(staged.path())?;
    if footer.rows != rows {
        return Err(ExtractError::NotParquet.into());
    }
    staged.sync()?;
    Ok(footer)
}

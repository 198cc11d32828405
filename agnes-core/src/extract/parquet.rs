//! The one Parquet publisher: bounded row groups, zstd, verified before anybody sees it.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use super::ExtractError;
use super::fsio::{Staged, fault_point};
use crate::duck::ScratchDb;
use crate::error::{Error, Result};
use crate::ident::quote_literal;

/// Uncompressed bytes of a row group, about.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Rows of a row group where their width is not known.
const ROW_GROUP_ROWS: usize = 122_880;

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
        "COPY ({select}) TO {} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, USE_TMP_FILE false)",
        quote_literal(&staged.path().to_string_lossy()),
    )
}

/// Writes record batches to `staged` and verifies the result.
pub(crate) fn write_batches(
    schema: SchemaRef,
    batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    staged: &Staged,
) -> Result<Footer> {
    let fail = |e: ::parquet::errors::ParquetError| -> Error {
        match e {
            ::parquet::errors::ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
                Ok(io) => Error::io("write a Parquet file", *io),
                Err(_) => ExtractError::BadBatch.into(),
            },
            _ => ExtractError::BadBatch.into(),
        }
    };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .build();
    let file =
        fault_point().and_then(|()| File::create(staged.path())).map_err(|e| Error::io("write a Parquet file", e))?;
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(fail)?;
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        writer.write(&batch).map_err(fail)?;
    }
    writer.close().map_err(fail)?;
    let footer = footer(staged.path())?;
    if footer.rows != rows {
        return Err(ExtractError::NotParquet.into());
    }
    staged.sync()?;
    Ok(footer)
}

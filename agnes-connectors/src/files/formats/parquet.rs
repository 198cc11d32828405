//! Parquet: read as it is.

use agnes_core::duck::ScratchDb;
use agnes_core::error::Result;
use agnes_core::ident::quote_literal;

use super::{Inspected, Reader, structured};
use crate::files::engine_words;
use crate::files::error::FilesError;
use crate::files::listing::FileEntry;
use crate::files::text;

/// Reads the footer of a Parquet file.
pub(crate) fn inspect(db: &ScratchDb, entry: &FileEntry, index: usize) -> Result<Inspected> {
    if entry.signature.size == 0 {
        return Err(FilesError::Empty { file: entry.rel.clone() }.into());
    }
    drop(text::open(entry)?);
    let path = text::link(entry, &db.folder(), &format!("input-{index}.parquet"))?;
    let literal = quote_literal(&path.to_string_lossy());
    let numbered = format!("read_parquet({literal}, hive_partitioning=false, file_row_number=true)");
    let relation = format!("read_parquet({literal}, hive_partitioning=false)");
    let (columns, notes) = structured::describe(db, &relation).map_err(|e| engine_words::damaged(entry, &path, e))?;
    if columns.is_empty() {
        return Err(FilesError::NoColumns { file: entry.rel.clone() }.into());
    }
    // The reader's own row number, unless the file has a column of that name.
    let free = columns.iter().all(|column| !column.source.eq_ignore_ascii_case("file_row_number"));
    let reader = if free {
        Reader::Structured {
            path,
            relation: numbered,
            row_number: Some("file_row_number + 1"),
            lines: false,
            json: false,
        }
    } else {
        Reader::Structured { path, relation, row_number: None, lines: false, json: false }
    };
    Ok(Inspected { columns, reader, notes, rejected: Vec::new() })
}

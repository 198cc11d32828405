//! One module for each format. Each answers two questions about a file: which columns it
//! has (`inspect`), and by which SQL its rows are read under the table's types (`scan`).

pub(crate) mod csv;
pub(crate) mod head;
pub(crate) mod json;
pub(crate) mod parquet;
pub(crate) mod structured;
pub(crate) mod xlsx;

use std::path::PathBuf;

use super::infer::shape::Shape;

/// A column of one file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileColumn {
    /// Name it is published under.
    pub(crate) name: String,
    /// Name by which the engine's reader knows it.
    pub(crate) source: String,
    /// Type that reader gives it; empty for delimited text.
    pub(crate) source_type: String,
    /// Type its values have; none when the file shows nothing but nulls.
    pub(crate) data_type: Option<Shape>,
}

/// How a file is read.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    /// DuckDB's CSV reader on the file, or on its unpacked copy.
    Csv { dialect: Box<csv::Dialect>, ready: Option<PathBuf> },
    /// A relation with the file's own names and types.
    Structured {
        /// Where the engine finds it.
        path: PathBuf,
        /// SQL of the relation.
        relation: String,
        /// SQL of a row's number, where the format has one.
        row_number: Option<&'static str>,
        /// Whether each line is a value of its own, so that bad ones can be taken out.
        lines: bool,
        /// Whether the engine's JSON reader can be told which types to read.
        json: bool,
    },
}

/// What was found out about one file.
#[derive(Debug, Clone)]
pub(crate) struct Inspected {
    /// Its columns, in order.
    pub(crate) columns: Vec<FileColumn>,
    /// How to read it.
    pub(crate) reader: Reader,
    /// For the run's log.
    pub(crate) notes: Vec<String>,
    /// Rows already put aside while the file was prepared: `(line, reason, raw)`.
    pub(crate) rejected: Vec<(u64, String, String)>,
}

impl Inspected {
    /// Whether it is JSON, whose values are read under any type that holds them.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.reader, Reader::Structured { json: true, .. })
    }
}

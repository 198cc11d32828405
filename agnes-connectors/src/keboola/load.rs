//! From the files of an export to rows with types, by the engine, in bounded memory. First every
//! value has to be of its type; only where one is not are all looked at, and told.

use std::path::Path;

use agnes_core::duck::ScratchDb;
use agnes_core::error::{Error, Result};
use agnes_core::ident::{printable, quote_ident, quote_literal};

use super::download::Files;
use super::error::KeboolaError;
use super::export::FileType;
use super::types::{Column, Kind, NOT_ITS_TYPE, count_list, select_list};

/// Longest line, bytes.
const MAX_LINE: usize = 64 << 20;
/// How an export's columns read once they are typed: name and type of the engine.
pub(crate) type Shape = Vec<(String, String)>;

/// What to read.
pub(crate) struct Load<'a> {
    pub(crate) db: &'a ScratchDb,
    pub(crate) files: &'a Files,
    pub(crate) file_type: FileType,
    pub(crate) columns: &'a [Column],
    /// Types that are there already, by column: they stay.
    pub(crate) stored: Option<&'a Shape>,
    /// Columns whose values all have to be of their type.
    pub(crate) keys: &'a [String],
}

impl Load<'_> {
    /// Hands `write` the typed rows as SQL, perhaps more than once. Sentences for the run's log
    /// go to `notes`.
    ///
    /// # Errors
    /// `keboola_slice_invalid`, `keboola_schema_changed`, `keboola_key_type`, those of `write`.
    pub(crate) fn read<T>(
        &self,
        notes: &mut Vec<String>,
        mut write: impl FnMut(&str, &Shape) -> Result<T>,
    ) -> Result<T> {
        let stored_text: Vec<String> = self
            .columns
            .iter()
            .filter(|column| column.kind != Kind::Text && self.stored_type(&column.name) == Some("VARCHAR"))
            .map(|column| column.name.clone())
            .collect();
        if self.files.paths.is_empty() {
            let none: Vec<String> = self
                .shape(&stored_text)
                .iter()
                .map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {}", quote_ident(name)))
                .collect();
            return write(&format!("SELECT {} WHERE false", none.join(", ")), &self.shape(&stored_text));
        }
        let mut long_lines = false;
        loop {
            let rows = self.text(long_lines)?;
            let select = format!("SELECT {} FROM ({rows})", select_list(self.columns, &stored_text, true));
            let error = match write(&select, &self.shape(&stored_text)) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let words = engine_words(&error);
            if words.contains("Maximum line size") && !long_lines {
                long_lines = true;
            } else if words.contains(NOT_ITS_TYPE) {
                let text = self.judge(&rows, &stored_text, notes)?;
                let select = format!("SELECT {} FROM ({rows})", select_list(self.columns, &text, false));
                return write(&select, &self.shape(&text)).map_err(|error| self.damaged(error));
            } else {
                return Err(self.damaged(error));
            }
        }
    }

    fn stored_type(&self, column: &str) -> Option<&str> {
        self.stored?.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.as_str())
    }

    fn shape(&self, text: &[String]) -> Shape {
        let kind = |column: &Column| if text.contains(&column.name) { Kind::Text } else { column.kind };
        self.columns.iter().map(|column| (column.name.clone(), kind(column).sql())).collect()
    }

    /// The rows of the files with all values as text, as SQL.
    fn text(&self, long_lines: bool) -> Result<String> {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let paths = list(self.files.paths.iter().map(|path| quote_literal(&path.to_string_lossy())).collect());
        if self.file_type == FileType::Parquet {
            let found = self.db.rows(&format!(
                "SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet({paths}, union_by_name=false))"
            ));
            let found = found.map_err(|error| self.damaged(error.into()))?;
            let has = |column: &Column| found.iter().any(|row| row.first() == Some(&Some(column.name.clone())));
            if !self.columns.iter().all(has) || found.len() != self.columns.len() {
                return Err(KeboolaError::SchemaChanged.into());
            }
            // Text of a value is read back as the same value; most columns are text anyway.
            let columns = self.columns.iter().map(|column| {
                let name = quote_ident(&column.name);
                format!("CAST({name} AS VARCHAR) AS {name}")
            });
            return Ok(format!("SELECT {} FROM read_parquet({paths})", columns.collect::<Vec<_>>().join(", ")));
        }
        let columns = self.columns.iter().map(|column| format!("{}: 'VARCHAR'", quote_literal(&column.name)));
        let names = list(self.columns.iter().map(|column| quote_literal(&column.name)).collect());
        Ok(format!(
            "SELECT * FROM read_csv({paths}, columns={{{}}}, auto_detect=false, header={}, delim=',', quote='\"', \
             escape='\"'{}, strict_mode=true, force_not_null={names}{})",
            columns.collect::<Vec<_>>().join(", "),
            self.files.header,
            // Told of CR LF, the strict reader of 1.5.5 loses rows; untold it finds them.
            if self.files.crlf { "" } else { ", new_line='\\n'" },
            // The engine's buffers grow with the line.
            if long_lines {
                format!(", max_line_size={MAX_LINE}, buffer_size={}", MAX_LINE * 2)
            } else {
                String::new()
            },
        ))
    }

    /// Looks at every value: which columns hold none of their type at all and stay text, and
    /// what becomes null in the others.
    fn judge(&self, rows: &str, stored_text: &[String], notes: &mut Vec<String>) -> Result<Vec<String>> {
        let counts = self.db.rows(&format!("SELECT {} FROM ({rows})", count_list(self.columns)));
        let counts = counts.map_err(|error| self.damaged(error.into()))?.into_iter().next().unwrap_or_default();
        let mut text = stored_text.to_vec();
        let typed = self.columns.iter().filter(|column| column.kind != Kind::Text);
        for (column, found) in typed.zip(counts.chunks(5)) {
            let count = |n: usize| found.get(n).cloned().flatten().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            let (there, bad) = (count(0), count(1));
            if bad == 0 || text.contains(&column.name) {
                continue;
            }
            let (name, kind) = (printable(&column.name, 60), column.kind.sql());
            if self.keys.contains(&column.name) {
                return Err(KeboolaError::KeyType { column: name, kind }.into());
            }
            if bad == there && self.stored.is_none() {
                text.push(column.name.clone());
                notes.push(format!("column `{name}` stays text: no value of it is a {kind}"));
                continue;
            }
            let mut examples: Vec<String> =
                found.iter().skip(2).flatten().map(|v| format!("`{}`", printable(v, 40))).collect();
            examples.sort_unstable();
            examples.dedup();
            notes.push(format!(
                "column `{name}`: {bad} values are no {kind} and became null, such as {}",
                examples.join(", ")
            ));
        }
        Ok(text)
    }

    /// An error of reading the files, told by the number of the slice; others as they are.
    fn damaged(&self, error: Error) -> Error {
        let words = engine_words(&error);
        let reason = if words.contains("Expected Number of Columns") {
            "a line does not have as many values as the table has columns"
        } else if words.contains("not utf-8") || words.contains("Invalid unicode") || words.contains("UTF8") {
            "it is not UTF-8"
        } else if words.contains("Maximum line size") {
            "a line is longer than 64 MiB"
        } else if words.contains("unterminated quote") {
            "a quote is not closed"
        } else if words.contains("CSV Error") {
            "it is not the CSV it should be"
        } else if self.file_type == FileType::Parquet && is_parquet_trouble(&words) {
            "it is not whole Parquet"
        } else {
            return error;
        };
        tracing::debug!("the engine on a damaged slice: {words}");
        let at = self.files.paths.iter().position(|path| names(&words, path)).unwrap_or(0);
        let total = self.files.paths.len();
        KeboolaError::Slice { number: at + 1, total, reason: reason.to_owned() }.into()
    }
}

fn is_parquet_trouble(words: &str) -> bool {
    ["magic bytes", "No magic", "too small to be a Parquet", "footer", "parquet", "Parquet", "thrift"]
        .iter()
        .any(|part| words.contains(part))
}

fn names(words: &str, path: &Path) -> bool {
    path.file_name().is_some_and(|name| words.contains(&*name.to_string_lossy()))
}

/// What the engine said, for looking at; it may hold paths and values.
pub(crate) fn engine_words(error: &Error) -> String {
    let mut words = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}

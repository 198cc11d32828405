//! Taking an increment into the parts of a table: only parts that hold superseded rows are
//! written anew, so the work grows with the change.

use super::Rule;
use crate::duck::ScratchDb;
use crate::error::Result;
use crate::extract::TableWriter;
use crate::ident::{quote_ident, quote_literal};

/// Parts of one table before the small ones are joined.
pub const MAX_PARTS: usize = 16;
/// Parts that stay apart when the others are joined.
const LARGE_PARTS: usize = 4;

/// What an increment did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows that were read.
    pub read: u64,
    /// Rows that were replaced or are gone.
    pub superseded: u64,
    /// Rows that were read and share their key with a newer one.
    pub doubled: u64,
}

/// Replaces the published rows that `scope` (a predicate) names, and those with the key of a
/// row of `pulled` (a relation of the same columns), by the rows of `pulled`. `writer` is
/// empty before and whole afterwards. Blocks.
///
/// # Errors
/// As [`TableWriter::write_query`].
pub fn merge(db: &ScratchDb, writer: &mut TableWriter, rule: &Rule, scope: &str, pulled: &str) -> Result<Merged> {
    let number = |sql: &str| -> Result<u64> {
        Ok(db.rows(sql)?.into_iter().flatten().flatten().next().and_then(|n| n.parse().ok()).unwrap_or(0))
    };
    let read = number(&format!("SELECT count(*) FROM {pulled}"))?;
    let (mut fresh, mut gone, mut doubled) = (format!("SELECT * FROM {pulled}"), scope.to_owned(), 0);
    if !rule.key.is_empty() {
        let key = rule.key.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", ");
        fresh = format!(
            "SELECT * FROM {pulled} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {} DESC NULLS LAST) = 1",
            quote_ident(&rule.cursor)
        );
        doubled = read - number(&format!("SELECT count(*) FROM (SELECT DISTINCT {key} FROM {pulled}) AS k"))?;
        gone = format!("({gone}) OR (({key}) IN (SELECT ({key}) FROM {pulled}))");
    }
    let mut merged = Merged { read, superseded: 0, doubled };
    let mut parts = Vec::new();
    for key in writer.published_parts()? {
        let path = writer.published_part(&key)?;
        let scan = format!("read_parquet({}, hive_partitioning=false)", quote_literal(&path.to_string_lossy()));
        let rows = number(&format!("SELECT count(*) FROM {scan}"))?;
        let out = number(&format!("SELECT count(*) FROM {scan} WHERE {gone}"))?;
        merged.superseded += out;
        parts.push((key, scan, rows, out));
    }
    let next = parts.iter().filter_map(|(key, ..)| key.strip_prefix('r')?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    let mut joined = Vec::new();
    if parts.len() >= MAX_PARTS {
        parts.sort_by_key(|(_, _, rows, _)| std::cmp::Reverse(*rows));
        joined = parts.split_off(LARGE_PARTS);
    }
    let (mut written, kept) = (false, |scan: &str| format!("SELECT * FROM {scan} WHERE NOT coalesce({gone}, false)"));
    for (key, scan, rows, out) in &parts {
        match *out {
            0 => writer.keep_part(key)?,
            out if out == *rows => continue,
            _ => drop(writer.write_query(db, &kept(scan), Some(key))?),
        }
        written = true;
    }
    if read > 0 || !joined.is_empty() || !written {
        let mut all: Vec<String> = joined.iter().map(|(_, scan, ..)| kept(scan)).collect();
        all.push(format!("SELECT * FROM ({fresh}) AS fresh"));
        writer.write_query(db, &all.join(" UNION ALL BY NAME "), Some(&format!("r{next:08}")))?;
    }
    Ok(merged)
}

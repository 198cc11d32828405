//! What JSON and Parquet share: a relation with names and types of its own, read under the
//! table's types.

use std::borrow::Cow;

use agnes_core::duck::ScratchDb;
use agnes_core::error::Result;
use agnes_core::ident::{quote_ident, quote_literal};

use super::FileColumn;
use crate::files::infer::shape::Shape;
use crate::files::infer::{names, types};

/// The columns of a relation, and notes about renamed ones.
pub(crate) fn describe(
    db: &ScratchDb,
    relation: &str,
) -> Result<(Vec<FileColumn>, Vec<String>), agnes_core::duck::EngineFailure> {
    let rows = db.rows(&format!("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {relation})"))?;
    let (raw, found): (Vec<String>, Vec<String>) = rows
        .into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().flatten();
            Some((cells.next()?, cells.next()?))
        })
        .unzip();
    let (published, notes) = names::columns(&raw);
    let columns = published.into_iter().zip(raw).zip(found).map(|((name, source), source_type)| {
        let leaf = |name: &str| Some(Shape::Leaf(name.to_owned()));
        let data_type = match source_type.as_str() {
            // A 128-bit integer would be written as an inexact number.
            "HUGEINT" | "UHUGEINT" => leaf("DECIMAL(38,0)"),
            "JSON" | "BIT" | "BIGNUM" | "VARINT" => leaf("VARCHAR"),
            "TIMESTAMP WITH TIME ZONE" => leaf("TIMESTAMPTZ"),
            "\"NULL\"" | "NULL" => None,
            other if other.starts_with("ENUM(") && !other.ends_with(']') => leaf("VARCHAR"),
            other => Some(Shape::parse(other)),
        };
        FileColumn { name, source, source_type, data_type }
    });
    Ok((columns.collect(), notes))
}

/// A column as the table wants it.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// As the file has it.
    pub(crate) column: &'a FileColumn,
    /// Type its values are read under.
    pub(crate) source_type: Cow<'a, str>,
    /// Name in the table.
    pub(crate) name: &'a str,
    /// Type in the table.
    pub(crate) data_type: &'a str,
    /// Whether that type was declared, so that values may not fit.
    pub(crate) declared: bool,
}

impl Wanted<'_> {
    /// Whether a reader has to be told the type, which is not the one it finds by itself.
    pub(crate) fn is_told(&self) -> bool {
        self.source_type != self.column.source_type
    }

    fn same(&self) -> bool {
        self.source_type == self.data_type
    }

    fn expression(&self) -> String {
        let source = quote_ident(&self.column.source);
        match (self.source_type.as_ref(), self.data_type) {
            _ if self.same() => source,
            ("JSON", "VARCHAR") => format!("({source} ->> '$')"),
            (nested, "VARCHAR") if types::is_nested(nested) => format!("CAST(to_json({source}) AS VARCHAR)"),
            ("JSON", wanted) => format!("TRY_CAST(({source} ->> '$') AS {wanted})"),
            (_, wanted) if self.declared => format!("TRY_CAST({source} AS {wanted})"),
            (_, wanted) => format!("CAST({source} AS {wanted})"),
        }
    }

    /// True for rows whose value does not fit.
    fn misfit(&self) -> Option<String> {
        (self.declared && !self.same()).then(|| {
            let source = quote_ident(&self.column.source);
            format!("({source} IS NOT NULL AND {} IS NULL)", self.expression())
        })
    }
}

/// SQL of the rows that fit.
pub(crate) fn scan(relation: &str, wanted: &[Wanted<'_>]) -> String {
    let columns: Vec<_> = wanted.iter().map(|w| format!("{} AS {}", w.expression(), quote_ident(w.name))).collect();
    let misfits: Vec<_> = wanted.iter().filter_map(Wanted::misfit).collect();
    let filter = if misfits.is_empty() { String::new() } else { format!(" WHERE NOT ({})", misfits.join(" OR ")) };
    format!("SELECT {} FROM {relation}{filter}", columns.join(", "))
}

/// SQL of the rows that do not, in the shape of the table of rejected rows; none where all do.
pub(crate) fn misfits(relation: &str, row_number: Option<&str>, file: &str, wanted: &[Wanted<'_>]) -> Option<String> {
    let cases: Vec<_> = wanted.iter().filter_map(|w| Some((w.misfit()?, w))).collect();
    if cases.is_empty() {
        return None;
    }
    let pick = |then: &dyn Fn(&Wanted<'_>) -> String| {
        cases.iter().map(|(misfit, w)| format!("WHEN {misfit} THEN {}", then(w))).collect::<Vec<_>>().join(" ")
    };
    let any: Vec<_> = cases.iter().map(|(misfit, _)| misfit.clone()).collect();
    Some(format!(
        "SELECT {} AS file, {} AS line, CASE {} END AS \"column\", CASE {} END AS reason, CAST(to_json(q) AS VARCHAR) AS raw FROM {relation} AS q WHERE {}",
        quote_literal(file),
        row_number.unwrap_or("NULL::UBIGINT"),
        pick(&|w| quote_literal(w.name)),
        pick(&|w| quote_literal(&format!("cast: the value is not of type {}", w.data_type))),
        any.join(" OR ")
    ))
}

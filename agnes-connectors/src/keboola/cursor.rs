//! What a run leaves for the next one.

use agnes_core::connector::ExtractRequest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::load::Shape;
use super::model::Table;
use super::place::hex;
use super::types::Column;

/// A change at the source within this many seconds before it was asked for may have been
/// followed by another in the same second: the table does not count as unchanged yet.
const SETTLED: i64 = 120;

/// What a run leaves for the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Of all that says which rows there are.
    pub(crate) settings: String,
    /// The stack and the project the rows are of; none where an earlier version left it.
    #[serde(default)]
    pub(crate) project: Option<String>,
    /// Name, type at the source, type here.
    pub(crate) columns: Vec<(String, String, String)>,
    /// When the last export began, Unix seconds.
    pub(crate) started_at: i64,
    /// When everything was read, Unix seconds.
    pub(crate) full_at: i64,
    /// When the table was imported to and changed last, once that is settled.
    pub(crate) stamp: Option<String>,
    /// Rows that are marked as deleted there, and so not here.
    #[serde(default)]
    pub(crate) marked: u64,
    /// Whether jobs tell how many rows the table has, whatever was asked for.
    #[serde(default)]
    pub(crate) counts_table: bool,
}

impl Cursor {
    /// The cursor of the last run, if what it says still holds.
    pub(crate) fn usable(request: &ExtractRequest, settings: &str, project: &str) -> Option<Self> {
        if request.full {
            return None;
        }
        let cursor: Self = serde_json::from_value(request.cursor.clone()?).ok()?;
        // What changed in one project says nothing of the rows of another, whatever their tables are called.
        let same = cursor.project.as_ref().is_none_or(|known| known == project);
        (cursor.settings == settings && same).then(|| Self { project: Some(project.to_owned()), ..cursor })
    }

    /// Whether the columns are still those of `columns`.
    pub(crate) fn has_columns(&self, columns: &[Column]) -> bool {
        self.columns.len() == columns.len()
            && self
                .columns
                .iter()
                .zip(columns)
                .all(|((name, kind, _), column)| *name == column.name && *kind == column.kind.sql())
    }

    /// The types the columns have here.
    pub(crate) fn shape(&self) -> Shape {
        self.columns.iter().map(|(name, _, here)| (name.clone(), here.clone())).collect()
    }

    pub(crate) fn to_value(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }
}

/// Columns as a cursor keeps them.
pub(crate) fn columns(columns: &[Column], shape: &Shape) -> Vec<(String, String, String)> {
    columns.iter().zip(shape).map(|(column, (name, here))| (name.clone(), column.kind.sql(), here.clone())).collect()
}

/// A sum of what says which rows there are.
pub(crate) fn settings(parts: &[&str]) -> String {
    hex(&Sha256::digest(parts.join("\n").as_bytes())[..16])
}

/// When a table was imported to and changed last; none while that is too fresh to tell.
pub(crate) fn stamp(table: &Table, now: DateTime<Utc>) -> Option<String> {
    // A linked table may change without saying so.
    if table.is_alias {
        return None;
    }
    let (import, change) = (table.last_import_date.as_deref()?, table.last_change_date.as_deref()?);
    for text in [import, change] {
        let at = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%z").ok()?;
        if (now - at.to_utc()).num_seconds() < SETTLED {
            return None;
        }
    }
    Some(format!("{import} {change}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fresh_change_is_no_stamp() {
        let table = |change: &str| -> Table {
            let import = "2026-01-01T10:00:00+0100";
            serde_json::from_value(json!({"id": "x", "lastImportDate": import, "lastChangeDate": change})).unwrap()
        };
        let now = "2026-01-01T10:00:00Z".parse().unwrap();
        assert!(stamp(&table("2026-01-01T10:00:00+0100"), now).is_some());
        assert!(stamp(&table("2026-01-01T10:58:30+0100"), now).is_none());
        assert!(stamp(&table("just now"), now).is_none());
        assert!(stamp(&Table { is_alias: true, ..table("2026-01-01T10:00:00+0100") }, now).is_none());
    }
}

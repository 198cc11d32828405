//! Puts what changed into what is there: by primary key, the last word of a row counts.

use agnes_core::ident::{quote_ident, quote_literal};
use std::path::Path;

/// Rows of a Parquet file that is being merged, as SQL.
pub(crate) fn parquet(path: &Path) -> String {
    format!("read_parquet({})", quote_literal(&path.to_string_lossy()))
}

/// Rows of several Parquet files with the file of each as `filename`, as SQL.
pub(crate) fn parquets<'a>(paths: impl IntoIterator<Item = &'a Path>) -> String {
    let paths: Vec<String> = paths.into_iter().map(|path| quote_literal(&path.to_string_lossy())).collect();
    format!("read_parquet([{}], union_by_name=true, filename=true)", paths.join(", "))
}

/// How rows are told apart, and which of them are gone.
pub(crate) struct Keys<'a> {
    /// The primary key.
    pub(crate) keys: &'a [String],
    /// A column that says that a row is gone.
    pub(crate) deleted: Option<&'a str>,
}

impl Keys<'_> {
    fn list(&self) -> String {
        self.keys.iter().map(|key| quote_ident(key)).collect::<Vec<_>>().join(", ")
    }

    /// Of several rows with one key in `rows` the one that `order` (SQL) puts last, those that
    /// are gone among them.
    pub(crate) fn last(&self, rows: &str, order: &str) -> String {
        format!(
            "SELECT * FROM {rows} QUALIFY row_number() OVER (PARTITION BY {} ORDER BY {order} DESC) = 1",
            self.list()
        )
    }

    /// Whether a row is not gone, as SQL.
    pub(crate) fn alive(&self) -> String {
        match self.deleted {
            None => "true".to_owned(),
            Some(column) => format!(
                "coalesce(lower(trim(CAST({} AS VARCHAR))), '') IN ('', '0', 'false', 'no', 'f', 'n')",
                quote_ident(column)
            ),
        }
    }

    /// The rows of `before` (SQL) whose keys are not in `after`.
    pub(crate) fn without(&self, before: &str, after: &str) -> String {
        format!("SELECT before.* FROM {}", self.joined("ANTI", before, after))
    }

    /// The rows of `before` whose keys are in `after`.
    pub(crate) fn also_in(&self, columns: &str, before: &str, after: &str) -> String {
        format!("SELECT {columns} FROM {}", self.joined("SEMI", before, after))
    }

    fn joined(&self, how: &str, before: &str, after: &str) -> String {
        let keys = self.keys.iter().map(|key| quote_ident(key));
        let same: Vec<String> = keys.map(|key| format!("before.{key} IS NOT DISTINCT FROM after.{key}")).collect();
        format!("{before} AS before {how} JOIN {after} AS after ON {}", same.join(" AND "))
    }
}

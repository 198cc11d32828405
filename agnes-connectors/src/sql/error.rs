//! What can go wrong with a database. Messages hold neither its address nor a credential:
//! DuckDB's extensions print both.

use agnes_core::duck::EngineFailure;
use agnes_core::error::{Coded, Error, ErrorKind};
use agnes_core::ident::printable;
use agnes_core::secret::Secret;

/// What can go wrong with a database.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SqlError {
    #[error("setting `{key}` is not known")]
    UnknownSetting { key: String, suggestion: Option<String> },
    #[error("setting `{key}` is not valid: {reason}")]
    InvalidSetting { key: String, reason: String },
    #[error("the source has no table `{table}`")]
    TableMissing { table: String },
    #[error("table `{table}` has no column `{column}`")]
    ColumnMissing { table: String, column: String, suggestion: Option<String> },
    #[error("the source does not let its user read `{table}`")]
    Forbidden { table: String },
    #[error("the connection to the source was lost")]
    Lost,
    #[error("the source gave up on a statement that took too long")]
    TimedOut,
    #[error("values of `{table}` do not fit the type their column has at the source: {reason}")]
    Mismatch { table: String, reason: String },
    #[error("the source refuses the query of `{table}`: {reason}")]
    Query { table: String, reason: String },
    #[error("the source could not be read: {reason}")]
    Failed { reason: String },
}

impl SqlError {
    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting { key: key.into(), reason: reason.into() }
    }
}

impl Coded for SqlError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSetting { .. }
            | Self::InvalidSetting { .. }
            | Self::ColumnMissing { .. }
            | Self::Query { .. } => ErrorKind::InvalidInput,
            Self::TableMissing { .. } => ErrorKind::NotFound,
            Self::Forbidden { .. } => ErrorKind::ConfigInvalid,
            Self::Lost | Self::TimedOut | Self::Failed { .. } => ErrorKind::Unavailable,
            Self::Mismatch { .. } => ErrorKind::DataInvalid,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } => "invalid_config",
            Self::TableMissing { .. } => "source_table_missing",
            Self::ColumnMissing { .. } => "column_not_found",
            Self::Forbidden { .. } => "source_forbidden",
            Self::Lost => "source_lost",
            Self::TimedOut => "source_timeout",
            Self::Mismatch { .. } => "source_type_mismatch",
            Self::Query { .. } => "source_query_refused",
            Self::Failed { .. } => "source_read_failed",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownSetting { suggestion: Some(near), .. }
            | Self::ColumnMissing { suggestion: Some(near), .. } => {
                format!("did you mean `{near}`?")
            }
            Self::TableMissing { .. } => {
                "it was dropped or renamed, or its user may not see it; the last good data stays".to_owned()
            }
            Self::Forbidden { .. } => "grant SELECT on it to the source's user".to_owned(),
            Self::Lost | Self::Failed { .. } => "it is tried again; the last good data stays".to_owned(),
            Self::TimedOut => "raise `sync.table_timeout_seconds`, or read the table incrementally".to_owned(),
            Self::Mismatch { .. } => "correct the rows, or set `all_text` to read every column as text".to_owned(),
            Self::Query { .. } => "correct the query of the materialized table".to_owned(),
            _ => return None,
        })
    }

    fn only_later_helps(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

/// What must not be seen of a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrub {
    pub(crate) password: Option<Secret>,
    /// Address, host and path, longest first.
    pub(crate) places: Vec<String>,
}

impl Scrub {
    /// The first telling line of what the engine said.
    fn line(&self, words: &str) -> String {
        let mut text = self.password.as_ref().map_or_else(|| words.to_owned(), |password| password.scrub(words));
        for place in self.places.iter().filter(|place| !place.is_empty()) {
            text = text.replace(place, "***");
        }
        let text = text.split("\n\nLINE 1").next().unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it does not say why");
        // `Binder Error: Failed to prepare query "..": ERROR:  what it is about`
        let line = line.rsplit_once("ERROR:").map_or(line, |(_, rest)| rest);
        let line = line.split_once("Error: ").map_or(line, |(_, rest)| rest);
        // Whatever path is left is not for users.
        let is_path = |word: &&str| word.trim_start_matches(['"', '\'', '(']).starts_with('/');
        let words: Vec<_> = line.split(' ').map(|word| if is_path(&word) { "***" } else { word }).collect();
        printable(words.join(" ").trim().trim_end_matches('.'), 300)
    }

    /// The failure of a statement about `table`; `query` says that the statement holds SQL of
    /// an admin.
    pub(crate) fn failure(&self, failure: EngineFailure, table: &str, query: bool) -> Error {
        if failure.code() != "engine_error" {
            return failure.into();
        }
        self.of_words(failure.words(), table, query).into()
    }

    /// The same for an error that came through the writer.
    pub(crate) fn error(&self, error: Error, table: &str, query: bool) -> Error {
        if error.code() != "engine_error" {
            return error;
        }
        self.of_words(&crate::files::words(&error), table, query).into()
    }

    fn of_words(&self, words: &str, table: &str, query: bool) -> SqlError {
        let (lower, table) = (words.to_lowercase(), printable(table, 120));
        let says = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
        if says(&[
            "closed the connection",
            "lost connection",
            "gone away",
            "connection refused",
            "can't connect",
            "unable to connect",
            "failed to connect",
            "terminating connection",
            "no connection to the server",
            "could not receive data",
            "ssl syscall error",
            "database is locked",
            "database system is",
        ]) {
            SqlError::Lost
        } else if says(&[
            "statement timeout",
            "max_statement_time",
            "maximum statement execution time",
            "lock timeout",
            "query execution was interrupted",
        ]) {
            SqlError::TimedOut
        } else if says(&["permission denied", "command denied", "access denied"]) {
            SqlError::Forbidden { table }
        } else if lower.contains("failed to fetch result row") {
            // MySQL's extension does not say why: what is wrong with a query it says before.
            SqlError::Failed { reason: "it broke off while its rows came".to_owned() }
        } else if query {
            SqlError::Query { table, reason: self.line(words) }
        } else if says(&["mismatch type error", "invalid type in column"]) {
            let reason = self.line(words);
            let reason = reason.split(" * SET").next().unwrap_or_default().trim().to_owned();
            SqlError::Mismatch { table, reason }
        } else if (lower.contains("relation") || lower.contains("table") || lower.contains("schema"))
            && says(&["does not exist", "doesn't exist", "no such table"])
        {
            SqlError::TableMissing { table }
        } else {
            SqlError::Failed { reason: self.line(words) }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_of_extensions_lose_every_secret_and_say_whose_move_it_is() {
        let dsn = "host=10.1.2.3 port=5432 dbname=shop user=agnes";
        let scrub =
            Scrub { password: Some(Secret::new("hunter2")), places: vec![dsn.to_owned(), "10.1.2.3".to_owned()] };
        for (words, query, code) in [
            (
                "IO Error: Unable to connect to Postgres at \"host=10.1.2.3 port=5432 dbname=shop user=agnes password=hunter2\": server closed the connection",
                false,
                "source_lost",
            ),
            (
                "IO Error: Failed to connect to MySQL database with parameters \"passwd=hunter2\": Lost connection",
                true,
                "source_lost",
            ),
            ("Catalog Error: Table with name orders does not exist!\n\nLINE 1: SELECT", false, "source_table_missing"),
            ("Failed to prepare COPY: ERROR:  permission denied for table orders", false, "source_forbidden"),
            ("ERROR:  canceling statement due to statement timeout", true, "source_timeout"),
            ("Failed to execute MySQL query \"SELECT 1\": Query execution was interrupted", true, "source_timeout"),
            (
                "Binder Error: Failed to prepare query \"SELECT hunter2\": ERROR:  syntax error at or near \"FORM\"\nLINE 1: SELECT",
                true,
                "source_query_refused",
            ),
            (
                "Mismatch Type Error: Invalid type in column \"v\": column was declared as integer, found \"x\" of type \"text\" instead.",
                false,
                "source_type_mismatch",
            ),
            (
                "IO Error: Failed to fetch result row for MySQL query \"SELECT 'hunter2'\": \n",
                true,
                "source_read_failed",
            ),
            ("something else at 10.1.2.3 with hunter2", false, "source_read_failed"),
        ] {
            let error = scrub.of_words(words, "orders", query);
            assert_eq!(error.code(), code, "{words}");
            let shown = format!("{error} {:?}", error.hint());
            assert!(!shown.contains("hunter2") && !shown.contains("10.1.2.3"), "{shown}");
        }
        let told = scrub.of_words("Failed: ERROR:  syntax error at or near \"FORM\"\nLINE 1", "orders", true);
        assert_eq!(told.to_string(), "the source refuses the query of `orders`: syntax error at or near \"FORM\"");
    }
}

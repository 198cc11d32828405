//! Increments that miss nothing at their boundary, for every connector that reads what
//! changed by a cursor column.
//!
//! A cursor column tells where the last read ended, but rows may share that value, be
//! committed late with a smaller one, change, or vanish. So a [`Mark`] keeps the newest value
//! with the count of rows that have it and of those inside an overlap window; the next read
//! takes the whole window again and replaces it ([`Rule::window`], [`merge`]), and one row far in the
//! future does not count as the newest ([`Rule::latest`]): it would hide all that come. Rows are told
//! apart by key, and from time to time the keys of the source are compared with those here
//! ([`differing`]), which finds what a cursor cannot show: rows that change far back, or that go
//! between two reads while as many others come to the same place.
//!
//! Relations are SQL of the connector over its [`ScratchDb`], never of a user.

mod merge;
mod reconcile;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use merge::{MAX_PARTS, Merged, merge};
pub use reconcile::{Differing, differing};

use crate::duck::{EngineFailure, ScratchDb};
use crate::error::Result;
use crate::ident::{quote_ident, quote_literal};

/// How a table is read incrementally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Column that grows with every change of a row.
    pub cursor: String,
    /// Its DuckDB type.
    pub cursor_type: String,
    /// Columns that identify a row at the source; none where rows never change.
    pub key: Vec<String>,
    /// How far below the newest value rows may still appear: seconds for times, days for
    /// dates, units for numbers. Texts have no window.
    pub overlap: u64,
    /// Seconds between two comparisons of all keys; none compares never.
    pub reconcile_every: Option<u64>,
}

/// The upper edge of a table, as its source shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Newest value of the cursor column up to [`Rule::latest`], as DuckDB's text; none where no row
    /// has one.
    pub value: Option<String>,
    /// Rows that have it.
    pub at_value: u64,
    /// Rows without a value.
    pub without: u64,
    /// Newest value beyond [`Rule::latest`], where a row has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<String>,
    /// Rows beyond.
    #[serde(default)]
    pub rows_beyond: u64,
}

/// What a read leaves for the next: part of a connector's cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The edge that was read.
    pub edge: Edge,
    /// Rows inside the overlap window below that edge, the edge included.
    pub in_window: u64,
    /// When all keys were compared last, or everything was read.
    pub reconciled: Option<DateTime<Utc>>,
}

/// What a read has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the source shows what was read last.
    Nothing,
    /// Read everything.
    Everything,
    /// Read the window from this value on (all rows with a value where there is none), and
    /// the rows without a value. `reconcile` says that all keys are to be compared too.
    Window {
        /// DuckDB text of the lowest value to read.
        from: Option<String>,
        /// Whether all keys are compared too.
        reconcile: bool,
    },
}

impl Rule {
    fn column(&self) -> String {
        quote_ident(&self.cursor)
    }

    fn typed(&self, value: &str) -> String {
        format!("CAST({} AS {})", quote_literal(value), self.cursor_type)
    }

    /// The last time or date that counts as the newest one, as DuckDB's text: a day from now, for
    /// clocks and zones of others. None for cursors of other types.
    #[must_use]
    pub fn latest(&self, now: DateTime<Utc>) -> Option<String> {
        let format = match self.cursor_type.to_ascii_uppercase().as_str() {
            "DATE" => "%Y-%m-%d",
            "TIMESTAMP WITH TIME ZONE" | "TIMESTAMPTZ" => "%Y-%m-%d %H:%M:%S+00",
            kind if kind.starts_with("TIMESTAMP") => "%Y-%m-%d %H:%M:%S",
            _ => return None,
        };
        Some(now.checked_add_signed(TimeDelta::days(1))?.format(format).to_string())
    }

    /// SQL that answers the [`Edge`] of a relation in one row, for [`Edge::of_row`].
    #[must_use]
    pub fn edge_sql(&self, relation: &str, now: DateTime<Utc>) -> String {
        let column = self.column();
        let (until, beyond) = match self.latest(now).map(|latest| self.typed(&latest)) {
            None => (String::new(), String::new()),
            Some(latest) => {
                let beyond = format!("FROM {relation} WHERE {column} > {latest}");
                let beyond = format!(", (SELECT max({column})::VARCHAR {beyond}), (SELECT count(*) {beyond})");
                (format!(" WHERE {column} <= {latest}"), beyond)
            }
        };
        // A name that no column of the relation has.
        format!(
            "SELECT agnes_newest::VARCHAR, (SELECT count(*) FROM {relation} WHERE {column} = agnes_newest), \
             (SELECT count(*) FROM {relation} WHERE {column} IS NULL){beyond} \
             FROM (SELECT max({column}) AS agnes_newest FROM {relation}{until}) AS newest"
        )
    }

    /// SQL that counts the rows of a relation from `from` on.
    #[must_use]
    pub fn count_sql(&self, relation: &str, from: Option<&str>) -> String {
        match from {
            Some(from) => format!("SELECT count(*) FROM {relation} WHERE {} >= {}", self.column(), self.typed(from)),
            None => "SELECT 0".to_owned(),
        }
    }

    /// The lowest value inside the overlap window below `value`.
    ///
    /// # Errors
    /// What the engine said: the value does not have the cursor's type.
    pub fn lower(&self, db: &ScratchDb, value: &str) -> Result<String, EngineFailure> {
        self.lowest(db, &[value])
    }

    fn lowest(&self, db: &ScratchDb, values: &[&str]) -> Result<String, EngineFailure> {
        let typed: Vec<_> = values.iter().map(|value| self.typed(value)).collect();
        let least = format!("least({})", typed.join(", "));
        let kind = self.cursor_type.to_ascii_uppercase();
        let overlap = self.overlap;
        let less = match kind.as_str() {
            _ if overlap == 0 => least,
            "DATE" => format!("CAST({least} - INTERVAL ({overlap}) DAY AS DATE)"),
            kind if kind.starts_with("TIMESTAMP") => {
                format!("CAST({least} - INTERVAL ({overlap}) SECOND AS {})", self.cursor_type)
            }
            // The window would leave the type's range.
            "TINYINT" => least,
            // An unsigned number has nothing below zero.
            kind if kind.starts_with('U') && is_number(kind) => {
                format!("CASE WHEN {least} < {overlap} THEN 0 ELSE {least} - {overlap} END")
            }
            kind if is_number(kind) => format!("{least} - {overlap}"),
            _ => least,
        };
        let rows = db.rows(&format!("SELECT {less}"))?;
        Ok(rows
            .into_iter()
            .flatten()
            .flatten()
            .next()
            .unwrap_or_else(|| values.first().copied().unwrap_or("").to_owned()))
    }

    /// What has to be read, by what was read last and what the source shows now. `in_window`
    /// counts the source's rows inside the window of `last`, see [`Rule::count_sql`].
    ///
    /// # Errors
    /// As [`Rule::lower`].
    pub fn step(
        &self,
        db: &ScratchDb,
        last: Option<&Mark>,
        now_there: &Edge,
        in_window: u64,
        now: DateTime<Utc>,
    ) -> Result<Step, EngineFailure> {
        let Some(last) = last else { return Ok(Step::Everything) };
        let reconcile = match (self.reconcile_every, last.reconciled) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(every), Some(at)) => {
                now.signed_duration_since(at).num_seconds() >= i64::try_from(every).unwrap_or(i64::MAX)
            }
        };
        if reconcile && self.key.is_empty() {
            return Ok(Step::Everything);
        }
        // Rows without a value tell nothing of their changes: they are read each time.
        if !reconcile && last.edge == *now_there && last.in_window == in_window && now_there.without == 0 {
            return Ok(Step::Nothing);
        }
        // An edge that went back (rows were deleted, a backup restored) pulls the window down.
        let values: Vec<&str> =
            [&last.edge.value, &now_there.value].into_iter().filter_map(|value| value.as_deref()).collect();
        let from = match values.as_slice() {
            // Where nothing had a value before, all that has one now is new.
            _ if last.edge.value.is_none() => None,
            values => Some(self.lowest(db, values)?),
        };
        Ok(Step::Window { from, reconcile })
    }

    /// SQL predicate of the rows that a window replaces.
    #[must_use]
    pub fn scope(&self, from: Option<&str>) -> String {
        match from {
            Some(from) => format!("coalesce({} >= {}, true)", self.column(), self.typed(from)),
            None => "true".to_owned(),
        }
    }

    /// SQL of the rows of a relation that a window holds: two plain filters, so that a source
    /// can apply them itself.
    #[must_use]
    pub fn window(&self, relation: &str, from: Option<&str>) -> String {
        match from {
            Some(from) => format!(
                "SELECT * FROM {relation} WHERE {column} >= {} UNION ALL SELECT * FROM {relation} WHERE {column} IS NULL",
                self.typed(from),
                column = self.column(),
            ),
            None => format!("SELECT * FROM {relation}"),
        }
    }
}

impl Edge {
    /// The answer to [`Rule::edge_sql`].
    #[must_use]
    pub fn of_row(row: &[Option<String>]) -> Self {
        let count = |index: usize| row.get(index).and_then(|cell| cell.as_deref()?.parse().ok()).unwrap_or(0);
        let text = |index: usize| row.get(index).cloned().flatten();
        Self { value: text(0), at_value: count(1), without: count(2), beyond: text(3), rows_beyond: count(4) }
    }
}

/// Whether a DuckDB type is a number that can be counted down.
pub(crate) fn is_number(kind: &str) -> bool {
    kind.ends_with("INT")
        || kind.ends_with("INTEGER")
        || kind.starts_with("DECIMAL")
        || kind == "DOUBLE"
        || kind == "FLOAT"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

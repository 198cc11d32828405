//! How far a run is that goes on: what its events add up to, and the events between two looks.

use serde::{Deserialize, Serialize};

use crate::connector::ProgressEvent;

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunProgress {
    /// What it does now: `extract`, `publish` or `profile`.
    pub stage: Option<String>,
    /// Tables that were begun, the first one first.
    pub tables: Vec<TableProgress>,
}

/// How far one table of a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableProgress {
    /// Its source.
    pub source: String,
    /// Its name.
    pub table: String,
    /// `ok`, `unchanged`, `skipped` or `error`, once it was read; it is published with the others.
    pub status: Option<String>,
    /// Bytes of input read so far; of Parquet, once it was read.
    pub bytes: u64,
    /// Bytes of input, when known.
    pub total_bytes: Option<u64>,
    /// Rows, once it was read.
    pub rows: Option<u64>,
}

impl RunProgress {
    /// Takes one event in.
    pub fn take(&mut self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Stage { name } => self.stage = Some(name.clone()),
            ProgressEvent::TableStarted { source, table, total_bytes } => {
                self.table(source, table).total_bytes = *total_bytes;
            }
            ProgressEvent::TableProgress { source, table, bytes } => self.table(source, table).bytes = *bytes,
            ProgressEvent::TableFinished { source, table, status, rows, bytes } => {
                let one = self.table(source, table);
                (one.status, one.rows, one.bytes) = (Some(status.clone()), Some(*rows), *bytes);
            }
        }
    }

    fn table(&mut self, source: &str, table: &str) -> &mut TableProgress {
        let is_it = |one: &TableProgress| one.source == source && one.table == table;
        let at = self.tables.iter().rposition(is_it).unwrap_or_else(|| {
            let new = TableProgress { source: source.to_owned(), table: table.to_owned(), ..TableProgress::default() };
            self.tables.push(new);
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// The events that lead from `before` to here.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<ProgressEvent> {
        let mut events = Vec::new();
        if let Some(name) = self.stage.as_ref().filter(|_| self.stage != before.stage) {
            events.push(ProgressEvent::Stage { name: name.clone() });
        }
        for (at, one) in self.tables.iter().enumerate() {
            // Tables are only added, so the same one stands at the same place.
            let known = before.tables.get(at).filter(|known| known.source == one.source && known.table == one.table);
            let (source, table) = (one.source.clone(), one.table.clone());
            if known.is_none_or(|known| known.total_bytes != one.total_bytes) {
                let total_bytes = one.total_bytes;
                events.push(ProgressEvent::TableStarted { source: source.clone(), table: table.clone(), total_bytes });
            }
            match &one.status {
                Some(_) if known.is_some_and(|known| known.status == one.status) => {}
                Some(status) => events.push(ProgressEvent::TableFinished {
                    source,
                    table,
                    status: status.clone(),
                    rows: one.rows.unwrap_or_default(),
                    bytes: one.bytes,
                }),
                None if one.bytes != known.map_or(0, |known| known.bytes) => {
                    events.push(ProgressEvent::TableProgress { source, table, bytes: one.bytes });
                }
                None => {}
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(table: &str, total_bytes: Option<u64>) -> ProgressEvent {
        ProgressEvent::TableStarted { source: "s".to_owned(), table: table.to_owned(), total_bytes }
    }

    fn read(table: &str, bytes: u64) -> ProgressEvent {
        ProgressEvent::TableProgress { source: "s".to_owned(), table: table.to_owned(), bytes }
    }

    fn finished(table: &str) -> ProgressEvent {
        let status = "ok".to_owned();
        ProgressEvent::TableFinished { source: "s".to_owned(), table: table.to_owned(), status, rows: 3, bytes: 9 }
    }

    fn after(mut at: RunProgress, events: &[ProgressEvent]) -> RunProgress {
        events.iter().for_each(|event| at.take(event));
        at
    }

    #[test]
    fn who_looks_now_and_then_hears_what_happened_in_between() {
        let begin = RunProgress::default();
        let stage = ProgressEvent::Stage { name: "extract".to_owned() };
        let first = after(begin.clone(), &[stage.clone(), started("a", None), started("a", Some(90)), read("a", 30)]);
        assert_eq!(first.since(&begin), [stage, started("a", Some(90)), read("a", 30)]);
        assert_eq!(first.since(&first), []);
        let second = after(first.clone(), &[read("a", 60), started("b", None), finished("a"), finished("b")]);
        assert_eq!(second.since(&first), [finished("a"), started("b", None), finished("b")]);
        // Whoever takes those events is where the run is.
        assert_eq!(after(first.clone(), &second.since(&first)), second);
        let third = after(second.clone(), &[ProgressEvent::Stage { name: "publish".to_owned() }]);
        assert_eq!(third.since(&second), [ProgressEvent::Stage { name: "publish".to_owned() }]);
    }
}

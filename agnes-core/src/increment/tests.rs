//! Tables that change under a connector's eyes: what a window sees, and what only a comparison of keys does.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::duck::ScratchLimits;
use crate::extract::{TableChange, TableWriter, publish, table_files};
use crate::ident::TableName;

/// A source table in an engine of its own kind, and its copy here.
struct Bench {
    db: ScratchDb,
    folder: tempfile::TempDir,
    rule: Rule,
    mark: Option<Mark>,
    now: DateTime<Utc>,
}

/// `(id, moment, v)`: `moment` is the cursor.
const SOURCE: &str = "source";

impl Bench {
    fn new(rule: Rule) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = ScratchDb::open(&folder.path().join("tmp"), &ScratchLimits::default()).unwrap();
        db.execute(&format!("CREATE TABLE {SOURCE} (id BIGINT, moment {}, v BIGINT)", rule.cursor_type)).unwrap();
        // When the rows of tests come.
        Self { db, folder, rule, mark: None, now: "2024-01-01T00:00:00Z".parse().unwrap() }
    }

    fn number(&self, sql: &str) -> u64 {
        self.db.rows(sql).unwrap()[0][0].as_deref().unwrap().parse().unwrap()
    }

    fn here(&self) -> String {
        let extract = self.folder.path().join("extract");
        let files = table_files(&extract, &TableName::parse("t").unwrap()).unwrap().unwrap().files;
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        format!("read_parquet([{}], union_by_name=true)", files.join(", "))
    }

    /// What a connector does; whether anything was read.
    fn pull(&mut self) -> bool {
        let extract = self.folder.path().join("extract");
        let edge = Edge::of_row(&self.db.rows(&self.rule.edge_sql(SOURCE, self.now)).unwrap()[0]);
        let from =
            self.mark.as_ref().and_then(|m| m.edge.value.clone()).map(|v| self.rule.lower(&self.db, &v).unwrap());
        let in_window = self.number(&self.rule.count_sql(SOURCE, from.as_deref()));
        let step = self.rule.step(&self.db, self.mark.as_ref(), &edge, in_window, self.now).unwrap();
        let mut writer = TableWriter::new(&extract, TableName::parse("t").unwrap());
        let mut reconciled = self.mark.as_ref().and_then(|m| m.reconciled);
        match step {
            Step::Nothing => return false,
            Step::Everything => {
                writer.write_query(&self.db, &format!("SELECT * FROM {SOURCE}"), Some("all")).unwrap();
                reconciled = Some(self.now);
            }
            Step::Window { from, reconcile } => {
                let mut scope = self.rule.scope(from.as_deref());
                let mut select = self.rule.window(SOURCE, from.as_deref());
                if reconcile {
                    reconciled = Some(self.now);
                    let found = differing(&self.db, &self.rule, SOURCE, &self.here()).unwrap();
                    if let Some(more) = found.scope(&self.rule) {
                        select = format!("{select} UNION ALL SELECT * FROM {SOURCE} WHERE ({more}) AND NOT ({scope})");
                        scope = format!("({scope}) OR ({more})");
                    }
                }
                self.db.execute(&format!("CREATE OR REPLACE TEMP TABLE pulled AS {select}")).unwrap();
                merge(&self.db, &mut writer, &self.rule, &scope, "pulled").unwrap();
            }
        }
        let data = writer.into();
        let change = TableChange { name: TableName::parse("t").unwrap(), description: None, data };
        let done = publish(&extract, vec![change], &|_| true, self.now).unwrap();
        assert!(done.iter().all(|table| table.error.is_none()), "{done:?}");
        let from = edge.value.as_deref().map(|value| self.rule.lower(&self.db, value).unwrap());
        let in_window = self.number(&self.rule.count_sql(SOURCE, from.as_deref()));
        self.mark = Some(Mark { edge, in_window, reconciled });
        true
    }

    /// Rows that are only there, or only here.
    fn differences(&self) -> Vec<Vec<Option<String>>> {
        let (there, here) = (SOURCE, self.here());
        let sql = format!(
            "(FROM {there} EXCEPT ALL FROM {here}) UNION ALL (FROM {here} EXCEPT ALL FROM {there}) ORDER BY ALL"
        );
        self.db.rows(&sql).unwrap()
    }

    fn parts(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("extract/data/t")).unwrap().count()
    }
}

fn rule(cursor_type: &str, key: &[&str], overlap: u64, reconcile_every: Option<u64>) -> Rule {
    Rule {
        cursor: "moment".to_owned(),
        cursor_type: cursor_type.to_owned(),
        key: key.iter().map(ToString::to_string).collect(),
        overlap,
        reconcile_every,
    }
}

/// Something that happens at a source.
#[derive(Debug, Clone)]
enum Event {
    /// New rows at a moment so far below the newest one.
    Insert { late: u8, rows: u8 },
    /// A row without a cursor.
    Without,
    /// A row changes now.
    Touch { id: u8 },
    /// A row inside the window goes.
    DeleteNew,
    /// Any row goes, unseen by the cursor.
    DeleteOld { id: u8 },
    /// A row appears far in the past.
    Backdate,
    /// A sync.
    Pull,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4_u8, 1..4_u8).prop_map(|(late, rows)| Event::Insert { late, rows }),
        1 => Just(Event::Without),
        2 => any::<u8>().prop_map(|id| Event::Touch { id }),
        1 => Just(Event::DeleteNew),
        1 => any::<u8>().prop_map(|id| Event::DeleteOld { id }),
        1 => Just(Event::Backdate),
        3 => Just(Event::Pull),
    ]
}

/// Plays events; `hidden` ones too, which only a comparison of keys finds. The clock of the
/// source stands still now and then, so that rows share a moment.
fn play(bench: &mut Bench, events: &[Event], keyed: bool, hidden: bool) {
    let (mut id, mut clock) = (0_u64, 1000_u64);
    let number = bench.rule.cursor_type == "BIGINT";
    let at = |value: u64| match number {
        true => value.to_string(),
        false => format!("TIMESTAMP '2024-01-01' + INTERVAL ({value}) SECOND"),
    };
    let synced = |bench: &mut Bench| {
        bench.now += TimeDelta::hours(1);
        bench.pull();
        assert_eq!(bench.differences(), Vec::<Vec<_>>::new(), "after {events:?}");
    };
    for event in events {
        match event {
            Event::Insert { late, rows } => {
                clock += u64::from(*rows % 2);
                for _ in 0..*rows {
                    id += 1;
                    let when = at(clock - u64::from(*late));
                    bench.db.execute(&format!("INSERT INTO {SOURCE} VALUES ({id}, {when}, {id})")).unwrap();
                }
            }
            Event::Without => {
                id += 1;
                bench.db.execute(&format!("INSERT INTO {SOURCE} VALUES ({id}, NULL, 0)")).unwrap();
            }
            Event::Touch { id: which } if keyed => {
                clock += 1;
                let (which, when) = (u64::from(*which) % (id + 1), at(clock));
                bench
                    .db
                    .execute(&format!("UPDATE {SOURCE} SET moment = {when}, v = v + 1000 WHERE id = {which}"))
                    .unwrap();
            }
            Event::DeleteNew => {
                // As many rows that come between the same two reads would leave the counts as they were.
                synced(bench);
                let edge = bench.mark.as_ref().and_then(|mark| mark.edge.value.clone());
                let seen = edge.map_or_else(
                    || "true".to_owned(),
                    |edge| bench.rule.scope(Some(&bench.rule.lower(&bench.db, &edge).unwrap())),
                );
                bench
                    .db
                    .execute(&format!(
                        "DELETE FROM {SOURCE} WHERE id = (SELECT id FROM {SOURCE} WHERE {seen} \
                         ORDER BY moment DESC NULLS LAST, id LIMIT 1)"
                    ))
                    .unwrap();
                synced(bench);
            }
            Event::DeleteOld { id: which } if hidden => {
                bench.db.execute(&format!("DELETE FROM {SOURCE} WHERE id = {}", u64::from(*which) % (id + 1))).unwrap();
            }
            Event::Backdate if hidden => {
                id += 1;
                bench.db.execute(&format!("INSERT INTO {SOURCE} VALUES ({id}, {}, 7)", at(1))).unwrap();
            }
            Event::Pull => synced(bench),
            Event::Touch { .. } | Event::DeleteOld { .. } | Event::Backdate => {}
        }
    }
    synced(bench);
    assert!(
        !bench.pull()
            || bench.mark.as_ref().is_some_and(|m| m.edge.without > 0 || bench.rule.reconcile_every == Some(0))
    );
    assert!(bench.parts() <= MAX_PARTS + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Rows that share the boundary, come late inside the window, change or go near the edge:
    /// a window with a key shows them all.
    #[test]
    fn a_window_with_a_key_misses_nothing(events in prop::collection::vec(event(), 1..40), number in any::<bool>()) {
        let kind = if number { "BIGINT" } else { "TIMESTAMP" };
        // Deleting the newest again and again eats further back than any window.
        let deletes = u64::try_from(events.len()).unwrap();
        play(&mut Bench::new(rule(kind, &["id"], 1000 + deletes, None)), &events, true, false);
    }

    /// Without a key rows never change; the window itself is replaced.
    #[test]
    fn a_window_without_a_key_misses_nothing(events in prop::collection::vec(event(), 1..40)) {
        play(&mut Bench::new(rule("TIMESTAMP", &[], 4, None)), &events, false, false);
    }

    /// What no cursor shows, the comparison of keys does, with no window at all.
    #[test]
    fn comparing_keys_finds_the_rest(events in prop::collection::vec(event(), 1..30)) {
        play(&mut Bench::new(rule("BIGINT", &["id"], 0, Some(0))), &events, true, true);
    }
}

#[test]
fn rows_that_join_the_boundary_later_are_seen() {
    let mut bench = Bench::new(rule("BIGINT", &[], 0, None));
    bench.db.execute("INSERT INTO source VALUES (1, 5, 1), (2, 5, 2)").unwrap();
    assert!(bench.pull());
    assert!(!bench.pull(), "nothing changed");
    bench.db.execute("INSERT INTO source VALUES (3, 5, 3)").unwrap();
    assert!(bench.pull(), "a third row of the same moment");
    assert_eq!(bench.differences(), Vec::<Vec<_>>::new());
}

#[test]
fn a_row_far_in_the_future_hides_no_others() {
    for kind in ["TIMESTAMP", "DATE", "TIMESTAMP WITH TIME ZONE"] {
        let mut bench = Bench::new(rule(kind, &["id"], 0, None));
        bench.db.execute("INSERT INTO source VALUES (1, '2023-12-30', 1), (2, '9999-12-30', 2)").unwrap();
        assert!(bench.pull());
        bench.db.execute("INSERT INTO source VALUES (3, '2023-12-31', 3), (4, '2024-01-02', 4)").unwrap();
        assert!(bench.pull(), "{kind}");
        assert_eq!(bench.differences(), Vec::<Vec<_>>::new(), "{kind}");
        assert!(!bench.pull(), "{kind}: nothing changed");
        for change in ["UPDATE source SET moment = '9999-12-29', v = 5 WHERE id = 2", "DELETE FROM source WHERE id = 2"]
        {
            bench.db.execute(change).unwrap();
            assert!(bench.pull(), "{kind}: {change}");
            assert_eq!(bench.differences(), Vec::<Vec<_>>::new(), "{kind}: {change}");
        }
    }
}

#[test]
fn only_ranges_that_differ_are_named() {
    let bench = Bench::new(rule("BIGINT", &["id"], 0, Some(0)));
    bench.db.execute("INSERT INTO source SELECT i, i, i FROM range(100000) t(i)").unwrap();
    let found = differing(&bench.db, &bench.rule, SOURCE, "(SELECT * FROM source WHERE id <> 50000)").unwrap();
    let Differing::Ranges(ranges) = found else { panic!("{found:?}") };
    let [(from, to)] = ranges.as_slice() else { panic!("{ranges:?}") };
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    assert!(from <= 50_000 && 50_000 <= to && to - from < 1000, "{from}..{to}");
    assert_eq!(differing(&bench.db, &bench.rule, SOURCE, SOURCE).unwrap(), Differing::Nowhere);
    let text = rule("BIGINT", &["id"], 0, Some(0));
    let texts = "(SELECT 'k' || id AS id, moment, v FROM source)";
    let fewer = "(SELECT 'k' || id AS id, moment, v FROM source WHERE id > 0)";
    assert_eq!(differing(&bench.db, &text, texts, texts).unwrap(), Differing::Nowhere);
    assert_eq!(differing(&bench.db, &text, texts, fewer).unwrap(), Differing::Everywhere);
}

#[test]
fn windows_of_every_type_have_a_lower_end() {
    let bench = Bench::new(rule("BIGINT", &[], 0, None));
    for (kind, value, overlap, wanted) in [
        ("BIGINT", "5", 7, "-2"),
        ("UBIGINT", "5", 7, "0"),
        ("UBIGINT", "18446744073709551615", 15, "18446744073709551600"),
        ("DATE", "2024-03-01", 1, "2024-02-29"),
        ("TIMESTAMP", "2024-03-01 00:00:00.5", 1, "2024-02-29 23:59:59.5"),
        ("TIMESTAMP WITH TIME ZONE", "2024-03-01 00:00:00+00", 60, "2024-02-29 23:59:00+00"),
        ("DECIMAL(10,2)", "5.25", 1, "4.25"),
        ("VARCHAR", "b", 1, "b"),
        ("UUID", "ff000000-0000-0000-0000-000000000000", 9, "ff000000-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(rule(kind, &[], overlap, None).lower(&bench.db, value).unwrap(), wanted, "{kind}");
    }
}

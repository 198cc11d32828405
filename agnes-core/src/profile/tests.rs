//! Profiles of Parquet files that the tests write.

use serde_json::{Value, json};

use super::compute::profile;
use super::{ColumnProfile, Profile};
use crate::config::ProfilerConfig;
use crate::connector::Cancel;
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::{ErrorKind, Result};
use crate::ident::{SourceName, TableName, quote_literal};
use crate::orchestrator::{Column, PublishedTable};
use crate::registry::{QueryMode, RegisteredTable};

struct Made {
    folder: tempfile::TempDir,
    table: PublishedTable,
    scan: String,
}

/// Writes the rows of `select` as Parquet.
fn made(select: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let file = quote_literal(&folder.path().join("t.parquet").to_string_lossy());
    let db = ScratchDb::open(folder.path(), &ScratchLimits::default()).unwrap();
    db.execute(&format!("SET preserve_insertion_order=true; COPY ({select}) TO {file} (FORMAT parquet)")).unwrap();
    let scan = format!("read_parquet({file})");
    let cell = |row: &[Option<String>], n: usize| row[n].clone().unwrap_or_default();
    let columns = db.rows(&format!("DESCRIBE SELECT * FROM {scan}")).unwrap();
    let table = PublishedTable {
        name: TableName::parse("t").unwrap(),
        source: SourceName::parse("shop").unwrap(),
        mode: QueryMode::Local,
        description: Some("of the extract".to_owned()),
        columns: columns
            .iter()
            .map(|row| Column { name: cell(row, 0), data_type: cell(row, 1), nullable: true })
            .collect(),
        rows: cell(&db.rows(&format!("SELECT count(*) FROM {scan}")).unwrap()[0], 0).parse().unwrap(),
        size_bytes: 3 << 20,
        parts: Vec::new(),
        partitioned: false,
        remote: None,
        extracted_at: None,
        content_hash: String::new(),
        manifest_hash: String::new(),
    };
    Made { folder, table, scan }
}

impl Made {
    fn profile(&self, config: &ProfilerConfig, key: &[&str]) -> Result<Profile> {
        let mut row = RegisteredTable::new(&self.table.name, "files", &self.table.source);
        row.primary_key = Some(key.iter().map(|k| (*k).to_owned()).collect());
        profile(&self.table, Some(&row), &self.scan, config, self.folder.path(), &Cancel::default())
    }
}

fn of(select: &str, key: &[&str]) -> Profile {
    made(select).profile(&ProfilerConfig::default(), key).unwrap()
}

fn column<'p>(profile: &'p Profile, name: &str) -> &'p ColumnProfile {
    profile.columns.iter().find(|c| c.name == name).unwrap()
}

#[test]
fn the_shape_is_the_one_clients_know() {
    let found = serde_json::to_value(of(
        "SELECT i AS n, 'a' || i % 2 AS s, DATE '2026-01-01' + i::INTEGER AS d, i % 2 = 0 AS b FROM range(4) AS r(i)",
        &["n"],
    ))
    .unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&found),
        "table_id description primary_key sync_strategy row_count column_count file_size_mb avg_completeness \
         missing_cells missing_cells_pct duplicate_rows variable_types date_range alerts sampled last_sync \
         related_tables used_by_metrics columns sample_rows"
    );
    let common = "name type type_category completeness_pct null_count unique_count unique_pct sample_values \
                  is_primary_key alerts";
    let columns = found["columns"].as_array().unwrap();
    for (n, (block, inside)) in [
        ("numeric_stats", "min max mean median stddev p5 p25 p75 p95 zeros zeros_pct negative negative_pct histogram"),
        ("string_stats", "min_length max_length avg_length top_values"),
        ("date_stats", "earliest latest span_days histogram"),
        ("boolean_stats", "true_count false_count true_pct"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(keys(&columns[n]), format!("{common} {block}"), "exactly one block");
        assert_eq!(keys(&columns[n][block]), inside);
    }
    assert_eq!(found["table_id"], "t");
    assert_eq!((&found["description"], &found["file_size_mb"]), (&json!("of the extract"), &json!(3.0)));
    assert_eq!(found["variable_types"], json!({"BOOLEAN": 1, "DATE": 1, "NUMERIC": 1, "STRING": 1}));
    assert_eq!(found["date_range"], json!({"earliest": "2026-01-01", "latest": "2026-01-04", "span_days": 3}));
    assert_eq!(found["sample_rows"][0], json!({"n": "0", "s": "a0", "d": "2026-01-01", "b": "true"}));
    assert_eq!(columns[0]["is_primary_key"], true);
    assert_eq!(columns[1]["string_stats"]["top_values"][0], json!({"value": "a0", "count": 2, "pct": 50.0}));
    assert_eq!(columns[3]["boolean_stats"], json!({"true_count": 2, "false_count": 2, "true_pct": 50.0}));
}

#[test]
fn figures_of_numbers() {
    let found = of(
        "SELECT * FROM (VALUES (0, '1.5'), (0, NULL), (-3, '2.5'), (4, 'nan'), (9, 'inf'), (20, '-inf')) \
         AS v(n, f_text), LATERAL (SELECT f_text::VARCHAR::DOUBLE AS f)",
        &["n"],
    );
    let n = column(&found, "n").numeric_stats.clone().unwrap();
    assert_eq!((n.min, n.max, n.mean, n.median), (Some(-3.0), Some(20.0), Some(5.0), Some(2.0)));
    assert_eq!((n.zeros, n.zeros_pct, n.negative, n.negative_pct), (2, 33.33, 1, 16.67));
    assert_eq!((n.p25, n.p75), (Some(0.0), Some(7.75)));
    assert!((n.stddev.unwrap() - 71.2_f64.sqrt()).abs() < 1e-9, "{:?}", n.stddev);
    let histogram = n.histogram.unwrap();
    assert_eq!((histogram.bins.len(), histogram.counts.iter().sum::<u64>()), (15, 6));
    assert_eq!((histogram.counts[0], histogram.counts[14], histogram.bins[14].as_str()), (1, 1, "18.47-20"));
    assert_eq!(found.duplicate_rows, 1);
    let f = column(&found, "f");
    assert_eq!((f.null_count, f.completeness_pct), (1, 83.33));
    let f = f.numeric_stats.clone().unwrap();
    assert_eq!((f.min, f.max, f.mean), (Some(1.5), Some(2.5), Some(2.0)), "what is not finite has no place in figures");
    assert!(serde_json::to_string(&found).unwrap().contains("\"mean\":2.0"));
}

#[test]
fn figures_of_dates_are_in_quarters_and_in_order() {
    let found = of(
        "SELECT DATE '2019-11-01' + (i * 40)::INTEGER AS d, \
                CASE WHEN i = 3 THEN 'infinity'::TIMESTAMP ELSE TIMESTAMP '2026-02-03 04:05:06' END AS t, NULL::DATE AS none \
         FROM range(40) AS r(i) ORDER BY hash(i)",
        &[],
    );
    let d = column(&found, "d").date_stats.clone().unwrap();
    assert_eq!((d.earliest.as_str(), d.latest.as_str(), d.span_days), ("2019-11-01", "2024-02-08", 1560));
    assert_eq!((d.histogram.bins[0].as_str(), d.histogram.bins.last().unwrap().as_str()), ("2019-Q4", "2024-Q1"));
    assert!(d.histogram.bins.is_sorted(), "{:?}", d.histogram.bins);
    assert_eq!(d.histogram.counts.iter().sum::<u64>(), 40);
    let t = column(&found, "t").date_stats.clone().unwrap();
    assert_eq!((t.earliest, t.span_days), ("2026-02-03 04:05:06".to_owned(), 0));
    assert_eq!((t.histogram.bins, t.histogram.counts), (vec!["2026-Q1".to_owned()], vec![39]));
    assert_eq!((column(&found, "none").null_count, &column(&found, "none").date_stats), (40, &None));
    assert_eq!(found.date_range.unwrap().earliest, "2019-11-01");
}

#[test]
fn alerts() {
    let found = of(
        "SELECT i AS id, 7 AS same, CASE WHEN i < 60 THEN 1 END AS forty_pct, CASE WHEN i < 90 THEN i END AS ten_pct, \
                CASE WHEN i < 95 THEN i END AS five_pct, CASE WHEN i < 51 THEN 0 ELSE i END AS zeros, \
                CASE WHEN i < 50 THEN 0 ELSE i END AS half, CASE WHEN i < 61 THEN 'a' ELSE 'b' END AS lopsided, \
                CASE WHEN i < 60 THEN 'a' ELSE 'b' END AS sixty, 'v' || (i % 51) AS many, 'v' || (i % 50) AS few \
         FROM range(100) AS r(i)",
        &["id"],
    );
    let alerts: Vec<String> = found.columns.iter().map(|c| format!("{}:{}", c.name, c.alerts.join("+"))).collect();
    assert_eq!(
        alerts,
        [
            "id:unique",
            "same:constant",
            "forty_pct:high_missing",
            "ten_pct:missing",
            "five_pct:",
            "zeros:zeros",
            "half:",
            "lopsided:imbalance",
            "sixty:",
            "many:high_cardinality",
            "few:"
        ]
    );
    assert_eq!(found.alerts.len(), 7);
    assert!(found.alerts.iter().all(|a| !a.message.is_empty() && !a.column.is_empty()));
    assert!(column(&found, "many").string_stats.as_ref().unwrap().top_values.is_empty());
    assert_eq!(column(&found, "few").string_stats.as_ref().unwrap().top_values.len(), 10);
    assert_eq!((found.missing_cells, found.missing_cells_pct), (55, 5.0));
}

/// One column that cannot be profiled must not take the table's profile with it.
#[test]
fn odd_types_and_impossible_figures_keep_every_column() {
    let found = of(
        "SELECT * FROM (SELECT [TIMESTAMP '2020-01-01'] AS times, {'a': 1} AS struct, MAP {'k': 1} AS map, \
             'a'::BLOB AS blob, uuid() AS uuid, INTERVAL 1 DAY AS interval, TIME '01:00' AS time, \
             '{\"a\": 1}'::JSON AS json, 'x'::ENUM ('x', 'y') AS enum, 170141183460469231731687303715884105727 AS huge, \
             TIMESTAMPTZ '2020-01-01' AS zoned, TIMESTAMP_NS '2020-01-01' AS nano, \
             (CASE WHEN i = 0 THEN -1.7 ELSE 1.7 END * 1e308)::DOUBLE AS enormous, i AS fine, \
             repeat('ž', 5000) AS long, i AS \"odd \"\"name\"\"; --\" FROM range(3) AS r(i))",
        &["fine"],
    );
    assert_eq!(found.column_count, 16);
    assert_eq!(found.columns.iter().filter(|c| c.null_count == 0).count(), 16);
    assert_eq!(column(&found, "times").type_category, "STRING");
    assert_eq!(column(&found, "enormous").numeric_stats, None, "its deviation is beyond a double");
    assert_eq!((column(&found, "enormous").unique_count, column(&found, "enormous").completeness_pct), (2, 100.0));
    assert_eq!(column(&found, "fine").numeric_stats.as_ref().unwrap().max, Some(2.0));
    assert_eq!(column(&found, "odd \"name\"; --").numeric_stats.as_ref().unwrap().max, Some(2.0));
    assert_eq!(column(&found, "zoned").type_category, "TIMESTAMP");
    let long = column(&found, "long");
    assert_eq!(long.string_stats.as_ref().unwrap().max_length, 5000);
    assert_eq!(long.sample_values[0].chars().count(), 1001, "values are cut for people");
    assert_eq!(long.string_stats.as_ref().unwrap().top_values[0].value.chars().count(), 1001);
    assert_eq!(found.sample_rows[0]["long"].as_str().unwrap().chars().count(), 1001);
}

#[test]
fn no_rows_and_more_columns_than_are_asked_at_once() {
    let found = of("SELECT 1 AS n, 'a' AS s, DATE '2020-01-01' AS d, true AS b WHERE false", &["n"]);
    assert_eq!((found.row_count, found.column_count, found.missing_cells, found.duplicate_rows), (0, 4, 0, 0));
    assert!(found.alerts.is_empty() && found.sample_rows.is_empty() && found.date_range.is_none());
    let wide: Vec<String> = (0..150).map(|n| format!("i + {n} AS c{n}")).collect();
    let found = of(&format!("SELECT {} FROM range(3) AS r(i)", wide.join(", ")), &[]);
    let least: Vec<_> = found.columns.iter().map(|c| c.numeric_stats.as_ref().unwrap().min.unwrap()).collect();
    assert_eq!(least, (0..150).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn a_sample_has_the_size_asked_for_and_comes_from_everywhere() {
    let made = made(
        "SELECT i, i % 10 = 0 AS tenth, CASE WHEN i % 4 = 0 THEN NULL ELSE 1 END AS gaps FROM range(200000) AS r(i)",
    );
    let config = ProfilerConfig { sample_size: 20_000, ..ProfilerConfig::default() };
    let found = made.profile(&config, &["i"]).unwrap();
    assert!(found.sampled);
    assert_eq!((found.row_count, found.duplicate_rows), (200_000, 0));
    let i = column(&found, "i");
    assert_eq!((i.unique_count, i.alerts.join("+").as_str()), (20_000, "unique"), "exact: so many rows were looked at");
    let stats = i.numeric_stats.as_ref().unwrap();
    assert!((stats.mean.unwrap() - 100_000.0).abs() < 3_000.0, "{stats:?}");
    assert!(stats.histogram.as_ref().unwrap().counts.iter().all(|n| (1000..1700).contains(n)), "{stats:?}");
    let share = column(&found, "tenth").boolean_stats.as_ref().unwrap().true_pct;
    assert!((share - 10.0).abs() < 1.5, "{share}");
    let missing = 100.0 - column(&found, "gaps").completeness_pct;
    assert!((missing - 25.0).abs() < 2.0, "{missing}");
    // One row less than there are is a sample too.
    let found = made.profile(&ProfilerConfig { sample_size: 199_999, ..config }, &["i"]).unwrap();
    assert_eq!((found.sampled, column(&found, "i").unique_count), (true, 199_999));
}

#[test]
fn a_cancelled_profile_ends_and_leaves_nothing_behind() {
    let made = made("SELECT i FROM range(10) AS r(i)");
    let cancel = Cancel::default();
    cancel.cancel();
    let config = ProfilerConfig::default();
    let error = profile(&made.table, None, &made.scan, &config, made.folder.path(), &cancel).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("cancelled", ErrorKind::Unavailable));
    let left = std::fs::read_dir(made.folder.path()).unwrap().flatten().count();
    assert_eq!(left, 1, "the Parquet file alone");
}

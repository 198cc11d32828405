//! Computes a profile in a scratch database of its own.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::{self, Category};
use super::{Alert, ColumnProfile, DateRange, Profile};
use crate::config::ProfilerConfig;
use crate::connector::Cancel;
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::Result;
use crate::ident::quote_ident;
use crate::orchestrator::PublishedTable;
use crate::registry::RegisteredTable;

/// Above this many rows looked at, distinct values and quantiles are estimated.
const EXACT_ROWS: u64 = 1_000_000;
/// Columns whose aggregates are asked for at once.
const COLUMNS_AT_ONCE: usize = 64;
/// Longest value that a profile quotes, characters.
const LONGEST_VALUE: usize = 1000;

/// `value`, cut where it is too long for a profile.
pub(super) fn clip(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(LONGEST_VALUE) {
        value.truncate(end);
        value.push('…');
    }
    value
}

/// `x` rounded to two places; null-like for what is no number.
pub(super) fn round2(x: f64) -> f64 {
    if x.is_finite() { (x * 100.0).round() / 100.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "percentages")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { round2(part as f64 / whole as f64 * 100.0) }
}

/// The profile of the rows that `scan` gives. Blocks.
pub(super) fn profile(
    table: &PublishedTable,
    row: Option<&RegisteredTable>,
    scan: &str,
    config: &ProfilerConfig,
    scratch: &Path,
    cancel: &Cancel,
) -> Result<Profile> {
    let limits = ScratchLimits { memory_bytes: config.memory_bytes, ..ScratchLimits::default() };
    let db = ScratchDb::open(scratch, &limits)?;
    cancel.interrupts(db.interrupter());
    let sampled = table.rows > config.sample_size;
    let rows = match sampled {
        true => sample(&db, scan, table.rows, config.sample_size)?,
        false => {
            db.execute(&format!("CREATE TEMP TABLE s AS SELECT * FROM {scan}"))?;
            table.rows
        }
    };
    let key: Vec<String> = row.and_then(|r| r.primary_key.clone()).unwrap_or_default();

    let exact = rows <= EXACT_ROWS;
    let mut profiles = Vec::with_capacity(table.columns.len());
    for group in table.columns.chunks(COLUMNS_AT_ONCE) {
        cancel.check()?;
        profiles.extend(columns::profile(&db, group, rows, exact, config, cancel)?);
    }
    for column in &mut profiles {
        column.is_primary_key = key.iter().any(|k| k.eq_ignore_ascii_case(&column.name));
    }
    let missing: u64 = profiles.iter().map(|c| c.null_count).sum();
    let cells = rows * profiles.len() as u64;
    let alerts = profiles.iter_mut().flat_map(|column| alerts(column, rows, config)).collect();
    let mut types = std::collections::BTreeMap::new();
    for column in &profiles {
        *types.entry(column.type_category.clone()).or_insert(0) += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "megabytes and percentages")]
    let (megabytes, count) = (table.size_bytes as f64 / 1_048_576.0, profiles.len().max(1) as f64);
    Ok(Profile {
        table_id: table.name.to_string(),
        description: row.and_then(|r| r.description.clone()).or(table.description.clone()).unwrap_or_default(),
        primary_key: key.join(", "),
        sync_strategy: row.map_or("full_refresh", |r| r.sync_strategy.as_str()).to_owned(),
        row_count: table.rows,
        column_count: profiles.len(),
        file_size_mb: round2(megabytes),
        avg_completeness: round2(profiles.iter().map(|c| c.completeness_pct).sum::<f64>() / count),
        missing_cells: missing,
        missing_cells_pct: percent(missing, cells),
        duplicate_rows: duplicates(&db, &key, &profiles, rows),
        variable_types: types,
        date_range: profiles.iter().find_map(|c| c.date_stats.as_ref()).map(|d| DateRange {
            earliest: d.earliest.clone(),
            latest: d.latest.clone(),
            span_days: d.span_days,
        }),
        alerts,
        sampled,
        last_sync: table.extracted_at.map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        related_tables: Vec::new(),
        used_by_metrics: Vec::new(),
        sample_rows: sample_rows(&db, scan, table, config),
        columns: profiles,
    })
}

/// Makes `s` a uniform sample of `wanted` of the `rows` rows; how many it got.
///
/// Each row is drawn by itself, a few more than wanted, and what is too much is thrown out
/// again: a reservoir reads on one thread and costs more than everything else together.
fn sample(db: &ScratchDb, scan: &str, rows: u64, wanted: u64) -> Result<u64> {
    #[expect(clippy::cast_precision_loss, reason = "a share of rows")]
    let (all, some) = (rows as f64, wanted as f64);
    let percent = ((some + 5.0 * some.sqrt() + 5.0) / all * 100.0).min(100.0);
    db.execute(&format!("CREATE TEMP TABLE s AS SELECT * FROM {scan} USING SAMPLE {percent:.6}% (bernoulli)"))?;
    let answer = db.rows("SELECT count(*) FROM s")?;
    let drawn: u64 = answer.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or(0);
    if let Some(surplus) = drawn.checked_sub(wanted).filter(|surplus| *surplus > 0) {
        db.execute(&format!("DELETE FROM s WHERE rowid IN (SELECT rowid FROM s ORDER BY random() LIMIT {surplus})"))?;
    }
    Ok(drawn.min(wanted))
}

fn duplicates(db: &ScratchDb, key: &[String], columns: &[ColumnProfile], rows: u64) -> u64 {
    let known = |k: &String| columns.iter().any(|c| c.name.eq_ignore_ascii_case(k));
    if key.is_empty() || !key.iter().all(known) {
        return 0;
    }
    let list: Vec<String> = key.iter().map(|k| quote_ident(k)).collect();
    let distinct = db.rows(&format!("SELECT count(*) FROM (SELECT DISTINCT {} FROM s)", list.join(", ")));
    let distinct = distinct.ok().and_then(|rows| rows.first()?.first()?.as_ref()?.parse::<u64>().ok());
    distinct.map_or(0, |distinct| rows.saturating_sub(distinct))
}

fn sample_rows(db: &ScratchDb, scan: &str, table: &PublishedTable, config: &ProfilerConfig) -> Vec<Map<String, Value>> {
    if config.sample_rows_limit == 0 || table.columns.is_empty() {
        return Vec::new();
    }
    let rows = db.rows(&format!("SELECT * FROM {scan} LIMIT {}", config.sample_rows_limit)).unwrap_or_default();
    let named = |row: Vec<Option<String>>| {
        let values = row.into_iter().map(|value| value.map_or(Value::Null, |value| Value::from(clip(value))));
        table.columns.iter().map(|c| c.name.clone()).zip(values).collect()
    };
    rows.into_iter().map(named).collect()
}

/// The alerts of one column, which also go into the column itself.
fn alerts(column: &mut ColumnProfile, rows: u64, config: &ProfilerConfig) -> Vec<Alert> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let present = rows.saturating_sub(column.null_count);
    let missing = percent(column.null_count, rows);
    if present > 0 && column.unique_count == 1 && column.null_count == 0 {
        found.push(("constant", "it has one value only".to_owned()));
    }
    if present > 1 && column.unique_count >= present && column.null_count == 0 {
        found.push(("unique", "every value is different".to_owned()));
    }
    if missing > config.alert_high_missing_pct {
        found.push(("high_missing", format!("{missing} % of its values are missing")));
    } else if missing > config.alert_missing_pct {
        found.push(("missing", format!("{missing} % of its values are missing")));
    }
    if let Some(stats) = column.numeric_stats.as_ref().filter(|s| s.zeros_pct > 50.0) {
        found.push(("zeros", format!("{} % of its values are 0", stats.zeros_pct)));
    }
    let top = column.string_stats.as_ref().and_then(|s| s.top_values.first());
    if let Some(top) = top.filter(|top| top.pct > config.alert_imbalance_pct && column.unique_count > 1) {
        found.push(("imbalance", format!("one value makes {} % of it", top.pct)));
    }
    let text = column.type_category == Category::String.as_str();
    if text
        && column.unique_count > config.max_categorical_distinct
        && column.unique_count > config.alert_high_cardinality
    {
        found.push(("high_cardinality", format!("it has {} different values", column.unique_count)));
    }
    column.alerts = found.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    found
        .into_iter()
        .map(|(kind, message)| Alert { column: column.name.clone(), kind: kind.to_owned(), message })
        .collect()
}

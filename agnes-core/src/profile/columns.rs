//! Statistics of columns: one pass for the aggregates of many, then what needs their answer.

use super::compute::{clip, percent, round2};
use super::{BooleanStats, ColumnProfile, DateStats, Histogram, NumericStats, StringStats, TopValue};
use crate::config::ProfilerConfig;
use crate::connector::Cancel;
use crate::duck::ScratchDb;
use crate::error::Result;
use crate::ident::quote_ident;
use crate::orchestrator::Column;

/// What kind of statistics a column gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Boolean,
    Date,
    Timestamp,
    Numeric,
    String,
}

impl Category {
    pub(super) fn of(data_type: &str) -> Self {
        const NUMERIC: [&str; 12] = [
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "HUGEINT",
            "UTINYINT",
            "USMALLINT",
            "UINTEGER",
            "UBIGINT",
            "UHUGEINT",
            "FLOAT",
            "DOUBLE",
        ];
        match data_type {
            "BOOLEAN" => Self::Boolean,
            "DATE" => Self::Date,
            t if t.starts_with("TIMESTAMP") && !t.ends_with(']') => Self::Timestamp,
            t if NUMERIC.contains(&t) || t.starts_with("DECIMAL(") && !t.ends_with(']') => Self::Numeric,
            _ => Self::String,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Date => "DATE",
            Self::Timestamp => "TIMESTAMP",
            Self::Numeric => "NUMERIC",
            Self::String => "STRING",
        }
    }
}

const QUANTILES: &str = "[0.05, 0.25, 0.5, 0.75, 0.95]";

/// Aggregates asked for each column, in order; a category leaves out what it has no use for.
fn aggregates(column: &str, category: Category, exact: bool) -> Vec<String> {
    let distinct = match exact {
        true => format!("count(DISTINCT {column})"),
        false => format!("approx_count_distinct({column})"),
    };
    let mut list = vec![format!("count({column})"), distinct];
    match category {
        Category::Numeric => {
            let x = format!("{column}::DOUBLE");
            let x = format!("CASE WHEN isfinite({x}) THEN {x} END");
            list.extend([
                format!("min({x})"),
                format!("max({x})"),
                format!("avg({x})"),
                format!("stddev_samp({x})"),
                format!("count_if({column} = 0)"),
                format!("count_if({column} < 0)"),
            ]);
            // One state for all five.
            list.push(match exact {
                true => format!("quantile_cont({x}, {QUANTILES})"),
                false => format!("approx_quantile({x}, {QUANTILES})"),
            });
        }
        Category::String => {
            let text = format!("length({column}::VARCHAR)");
            list.extend([format!("min({text})"), format!("max({text})"), format!("avg({text})")]);
        }
        Category::Date | Category::Timestamp => {
            // Infinite dates have no span.
            let x = format!("CASE WHEN isfinite({column}) THEN {column} END");
            list.extend([format!("min({x})"), format!("max({x})"), format!("date_diff('day', min({x}), max({x}))")]);
        }
        Category::Boolean => list.extend([format!("count_if({column})"), format!("count_if(NOT {column})")]),
    }
    list
}

fn number(cell: Option<&Option<String>>) -> Option<f64> {
    cell?.as_ref()?.parse::<f64>().ok().filter(|n| n.is_finite())
}

fn whole(cell: Option<&Option<String>>) -> u64 {
    cell.and_then(|c| c.as_ref()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the engine said of one column; no `stats` when they cannot be made.
struct Answer {
    present: u64,
    distinct: u64,
    stats: Option<Vec<Option<String>>>,
}

/// Asks for the aggregates of all these columns at once; when that fails, of each alone, so
/// that one column whose statistics cannot be made (a deviation beyond a double) costs no other.
fn ask(db: &ScratchDb, columns: &[Column], exact: bool, cancel: &Cancel) -> Result<Vec<Answer>> {
    let lists: Vec<Vec<String>> = columns
        .iter()
        .map(|column| aggregates(&quote_ident(&column.name), Category::of(&column.data_type), exact))
        .collect();
    let select = |list: &mut dyn Iterator<Item = &String>| {
        let list: Vec<String> = list.enumerate().map(|(n, expr)| format!("{expr} AS c{n}")).collect();
        db.rows(&format!("SELECT {} FROM s", list.join(", ")))
    };
    match select(&mut lists.iter().flatten()) {
        Ok(rows) => {
            let mut cells = rows.into_iter().flatten();
            Ok(lists
                .iter()
                .map(|list| {
                    let mut mine = cells.by_ref().take(list.len());
                    let (present, distinct) = (whole(mine.next().as_ref()), whole(mine.next().as_ref()));
                    Answer { present, distinct, stats: Some(mine.collect()) }
                })
                .collect())
        }
        Err(_) if columns.len() > 1 => {
            let mut answers = Vec::with_capacity(columns.len());
            for column in columns {
                cancel.check()?;
                answers.extend(ask(db, std::slice::from_ref(column), exact, cancel)?);
            }
            Ok(answers)
        }
        Err(_) => {
            cancel.check()?;
            let counts = select(&mut lists.iter().flatten().take(2))?;
            let counts = counts.first().map(Vec::as_slice).unwrap_or_default();
            Ok(vec![Answer { present: whole(counts.first()), distinct: whole(counts.get(1)), stats: None }])
        }
    }
}

/// Statistics of some columns of the table `s`, which has `rows` rows.
pub(super) fn profile(
    db: &ScratchDb,
    columns: &[Column],
    rows: u64,
    exact: bool,
    config: &ProfilerConfig,
    cancel: &Cancel,
) -> Result<Vec<ColumnProfile>> {
    let answers = ask(db, columns, exact, cancel)?;
    let mut out = Vec::with_capacity(columns.len());
    for (column, answer) in columns.iter().zip(answers) {
        cancel.check()?;
        let (quoted, category) = (quote_ident(&column.name), Category::of(&column.data_type));
        let present = answer.present;
        let distinct = answer.distinct.min(present);
        let mut profile = ColumnProfile {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
            type_category: category.as_str().to_owned(),
            completeness_pct: percent(present, rows),
            null_count: rows.saturating_sub(present),
            unique_count: distinct,
            unique_pct: percent(distinct, present),
            sample_values: sample_values(db, &quoted, config),
            ..ColumnProfile::default()
        };
        if let Some(stats) = answer.stats.as_deref() {
            match category {
                Category::Numeric => profile.numeric_stats = Some(numeric(db, &quoted, stats, present, config)),
                Category::String => profile.string_stats = Some(text(db, &quoted, stats, present, distinct, config)),
                Category::Date | Category::Timestamp => profile.date_stats = dates(db, &quoted, stats),
                Category::Boolean => {
                    let (yes, no) = (whole(stats.first()), whole(stats.get(1)));
                    let true_pct = percent(yes, yes + no);
                    profile.boolean_stats = Some(BooleanStats { true_count: yes, false_count: no, true_pct });
                }
            }
        }
        out.push(profile);
    }
    Ok(out)
}

fn sample_values(db: &ScratchDb, column: &str, config: &ProfilerConfig) -> Vec<String> {
    // Distinct among the first rows is enough for a taste.
    let sql = format!(
        "SELECT DISTINCT v FROM (SELECT {column} AS v FROM s WHERE {column} IS NOT NULL LIMIT 1000) LIMIT {}",
        config.sample_values_limit
    );
    let rows = db.rows(&sql).unwrap_or_default();
    let mut values: Vec<String> = rows.into_iter().filter_map(|mut row| row.pop().flatten()).map(clip).collect();
    values.sort();
    values
}

fn numeric(
    db: &ScratchDb,
    column: &str,
    stats: &[Option<String>],
    present: u64,
    config: &ProfilerConfig,
) -> NumericStats {
    let at = |n: usize| number(stats.get(n));
    let (zeros, negative) = (whole(stats.get(4)), whole(stats.get(5)));
    let (min, max) = (at(0), at(1));
    let quantiles = stats.get(6).and_then(|cell| cell.as_deref()).unwrap_or_default();
    let quantiles: Vec<Option<f64>> = quantiles
        .trim_matches(['[', ']'])
        .split(", ")
        .map(|text| text.parse::<f64>().ok().filter(|n| n.is_finite()))
        .collect();
    let quantile = |n: usize| quantiles.get(n).copied().flatten();
    NumericStats {
        min,
        max,
        mean: at(2),
        stddev: at(3),
        zeros,
        zeros_pct: percent(zeros, present),
        negative,
        negative_pct: percent(negative, present),
        p5: quantile(0),
        p25: quantile(1),
        median: quantile(2),
        p75: quantile(3),
        p95: quantile(4),
        histogram: match (min, max) {
            (Some(min), Some(max)) if max > min && (max - min).is_finite() => {
                histogram(db, column, min, max, config.histogram_bins)
            }
            _ => None,
        },
    }
}

fn histogram(db: &ScratchDb, column: &str, min: f64, max: f64, bins: usize) -> Option<Histogram> {
    #[expect(clippy::cast_precision_loss, reason = "a few bins")]
    let width = (max - min) / bins as f64;
    if width <= 0.0 {
        return None;
    }
    let sql = format!(
        "SELECT least(floor(({column}::DOUBLE - {min:?}) / {width:?}), {})::INTEGER AS bin, count(*) FROM s \
         WHERE {column} IS NOT NULL AND isfinite({column}::DOUBLE) GROUP BY bin",
        bins - 1
    );
    let mut counts = vec![0; bins];
    for row in db.rows(&sql).ok()? {
        if let Some(count) = row.first()?.as_ref()?.parse::<usize>().ok().and_then(|bin| counts.get_mut(bin)) {
            *count = whole(row.get(1));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few bins")]
    let edge = |n: usize| short(min + width * n as f64);
    Some(Histogram { bins: (0..bins).map(|n| format!("{}-{}", edge(n), edge(n + 1))).collect(), counts })
}

/// A number with K, M or B.
fn short(x: f64) -> String {
    let (value, unit) = match x.abs() {
        a if a >= 1e9 => (x / 1e9, "B"),
        a if a >= 1e6 => (x / 1e6, "M"),
        a if a >= 1e3 => (x / 1e3, "K"),
        _ => (x, ""),
    };
    format!("{}{unit}", round2(value))
}

fn text(
    db: &ScratchDb,
    column: &str,
    stats: &[Option<String>],
    present: u64,
    distinct: u64,
    config: &ProfilerConfig,
) -> StringStats {
    let mut top_values = Vec::new();
    if distinct > 0 && distinct <= config.max_categorical_distinct {
        let sql = format!(
            "SELECT {column} AS v, count(*) AS n FROM s WHERE {column} IS NOT NULL GROUP BY {column} ORDER BY n DESC, v::VARCHAR LIMIT {}",
            config.top_values_limit
        );
        for mut row in db.rows(&sql).unwrap_or_default() {
            let count = whole(row.get(1));
            if let Some(value) = row.swap_remove(0) {
                top_values.push(TopValue { value: clip(value), count, pct: percent(count, present) });
            }
        }
    }
    StringStats {
        min_length: whole(stats.first()),
        max_length: whole(stats.get(1)),
        avg_length: round2(number(stats.get(2)).unwrap_or(0.0)),
        top_values,
    }
}

fn dates(db: &ScratchDb, column: &str, stats: &[Option<String>]) -> Option<DateStats> {
    let (earliest, latest) = (stats.first()?.clone()?, stats.get(1)?.clone()?);
    let sql = format!(
        "SELECT year({column}) || '-Q' || quarter({column}) AS bin, count(*) FROM s \
         WHERE {column} IS NOT NULL AND isfinite({column}) GROUP BY bin ORDER BY min({column})"
    );
    let mut histogram = Histogram::default();
    for mut row in db.rows(&sql).ok()? {
        histogram.counts.push(whole(row.get(1)));
        histogram.bins.push(row.swap_remove(0).unwrap_or_default());
    }
    let span_days = stats.get(2)?.as_ref()?.parse().unwrap_or(0);
    Some(DateStats { earliest, latest, span_days, histogram })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories() {
        for (data_type, wanted) in [
            ("BIGINT", Category::Numeric),
            ("DECIMAL(18,2)", Category::Numeric),
            ("DECIMAL(18,2)[]", Category::String),
            ("TIMESTAMP[]", Category::String),
            ("TIMESTAMP WITH TIME ZONE", Category::Timestamp),
            ("DATE", Category::Date),
            ("BOOLEAN", Category::Boolean),
            ("STRUCT(a INTEGER)", Category::String),
        ] {
            assert_eq!(Category::of(data_type), wanted, "{data_type}");
        }
        assert_eq!(short(1_234_567.0), "1.23M");
    }
}

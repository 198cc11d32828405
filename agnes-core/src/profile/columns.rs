//! Statistics of columns: one pass for the aggregates of many, then what needs their answer.

use super::compute::{percent, round2};
use super::{BooleanStats, ColumnProfile, DateStats, Histogram, NumericStats, StringStats, TopValue};
use crate::config::ProfilerConfig;
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
            t if t.starts_with("TIMESTAMP") => Self::Timestamp,
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
            list.extend(["0.05", "0.25", "0.5", "0.75", "0.95"].map(|q| match exact {
                true => format!("quantile_cont({x}, {q})"),
                false => format!("approx_quantile({x}, {q})"),
            }));
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

/// Statistics of some columns of the table `s`, which has `rows` rows.
pub(super) fn profile(
    db: &ScratchDb,
    columns: &[Column],
    rows: u64,
    exact: bool,
    config: &ProfilerConfig,
) -> Result<Vec<ColumnProfile>> {
    let asked: Vec<(String, Category, Vec<String>)> = columns
        .iter()
        .map(|c| {
            let (quoted, category) = (quote_ident(&c.name), Category::of(&c.data_type));
            let list = aggregates(&quoted, category, exact);
            (quoted, category, list)
        })
        .collect();
    let list: Vec<String> =
        asked.iter().flat_map(|(_, _, list)| list).enumerate().map(|(n, expr)| format!("{expr} AS c{n}")).collect();
    let answer = db.rows(&format!("SELECT {} FROM s", list.join(", ")))?;
    let mut cells = answer.first().map(Vec::as_slice).unwrap_or_default();
    let mut out = Vec::with_capacity(columns.len());
    for (column, (quoted, category, list)) in columns.iter().zip(&asked) {
        let (mine, rest) = cells.split_at(list.len().min(cells.len()));
        cells = rest;
        let present = whole(mine.first());
        let distinct = whole(mine.get(1)).min(present);
        let mut profile = ColumnProfile {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
            type_category: category.as_str().to_owned(),
            completeness_pct: percent(present, rows),
            null_count: rows.saturating_sub(present),
            unique_count: distinct,
            unique_pct: percent(distinct, present),
            sample_values: sample_values(db, quoted, config),
            ..ColumnProfile::default()
        };
        let stats = mine.get(2..).unwrap_or_default();
        // A block that fails is left out; the column stays.
        match category {
            Category::Numeric => profile.numeric_stats = Some(numeric(db, quoted, stats, present, config)),
            Category::String => profile.string_stats = Some(text(db, quoted, stats, present, distinct, config)),
            Category::Date | Category::Timestamp => profile.date_stats = dates(db, quoted, stats),
            Category::Boolean => {
                let (yes, no) = (whole(stats.first()), whole(stats.get(1)));
                profile.boolean_stats =
                    Some(BooleanStats { true_count: yes, false_count: no, true_pct: percent(yes, yes + no) });
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
    let mut values: Vec<String> =
        db.rows(&sql).unwrap_or_default().into_iter().filter_map(|mut row| row.pop().flatten()).collect();
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
    NumericStats {
        min,
        max,
        mean: at(2),
        stddev: at(3),
        zeros,
        zeros_pct: percent(zeros, present),
        negative,
        negative_pct: percent(negative, present),
        p5: at(6),
        p25: at(7),
        median: at(8),
        p75: at(9),
        p95: at(10),
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
                top_values.push(TopValue { value, count, pct: percent(count, present) });
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

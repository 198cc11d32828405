//! The profile object, as clients know it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Statistics of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Profile {
    pub table_id: String,
    pub description: String,
    pub primary_key: String,
    pub sync_strategy: String,
    /// All rows, sampled or not.
    pub row_count: u64,
    pub column_count: usize,
    pub file_size_mb: f64,
    /// Mean of the columns' completeness, percent.
    pub avg_completeness: f64,
    /// Nulls in the rows looked at.
    pub missing_cells: u64,
    pub missing_cells_pct: f64,
    /// Rows looked at less their distinct primary keys; 0 without a key.
    pub duplicate_rows: u64,
    /// Columns by category.
    pub variable_types: std::collections::BTreeMap<String, usize>,
    /// Of the first date or timestamp column with data.
    pub date_range: Option<DateRange>,
    pub alerts: Vec<Alert>,
    /// Whether the figures below describe a sample of the rows.
    pub sampled: bool,
    pub last_sync: Option<String>,
    /// Tables that the reader of the profile may join: known when it is read, never kept.
    pub related_tables: Vec<RelatedTable>,
    /// Metrics that use the table; empty, for no metric definitions are kept yet.
    pub used_by_metrics: Vec<Value>,
    pub columns: Vec<ColumnProfile>,
    /// The first rows, values as text.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<std::collections::BTreeMap<String, Option<String>>>))]
    pub sample_rows: Vec<Map<String, Value>>,
}

/// Another table whose rows go with those of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelatedTable {
    /// Its name.
    pub table: String,
    /// Column of the table that is described.
    pub join_column: String,
    /// Column of the other one.
    pub foreign_column: String,
    /// Which of them has the key.
    pub direction: Direction,
    /// In words.
    pub description: String,
}

/// Which of two tables has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The other one: each row here names one row there.
    BelongsTo,
    /// This one: rows there name one row here.
    HasMany,
}

/// First and last day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct DateRange {
    pub earliest: String,
    pub latest: String,
    pub span_days: i64,
}

/// Something worth a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alert {
    /// The column.
    pub column: String,
    /// `constant`, `unique`, `high_missing`, `missing`, `zeros`, `imbalance`, `high_cardinality`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In words.
    pub message: String,
}

/// Statistics of one column; exactly one stats block, by category, where it could be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct ColumnProfile {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    /// `BOOLEAN`, `DATE`, `TIMESTAMP`, `NUMERIC` or `STRING`.
    pub type_category: String,
    /// What people wrote of it: known when the profile is read, never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub completeness_pct: f64,
    pub null_count: u64,
    pub unique_count: u64,
    /// Distinct values among the values that are not null, percent.
    pub unique_pct: f64,
    pub sample_values: Vec<String>,
    pub is_primary_key: bool,
    pub alerts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numeric_stats: Option<NumericStats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_stats: Option<StringStats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date_stats: Option<DateStats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean_stats: Option<BooleanStats>,
}

/// Of a numeric column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct NumericStats {
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    pub median: Option<f64>,
    pub stddev: Option<f64>,
    pub p5: Option<f64>,
    pub p25: Option<f64>,
    pub p75: Option<f64>,
    pub p95: Option<f64>,
    pub zeros: u64,
    pub zeros_pct: f64,
    pub negative: u64,
    pub negative_pct: f64,
    pub histogram: Option<Histogram>,
}

/// Of a text column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct StringStats {
    pub min_length: u64,
    pub max_length: u64,
    pub avg_length: f64,
    /// Most frequent values; only of columns with few distinct ones.
    pub top_values: Vec<TopValue>,
}

/// A frequent value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct TopValue {
    pub value: String,
    pub count: u64,
    pub pct: f64,
}

/// Of a date or timestamp column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct DateStats {
    pub earliest: String,
    pub latest: String,
    pub span_days: i64,
    pub histogram: Histogram,
}

/// Of a truth column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct BooleanStats {
    pub true_count: u64,
    pub false_count: u64,
    pub true_pct: f64,
}

/// Counts by bin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Histogram {
    pub bins: Vec<String>,
    pub counts: Vec<u64>,
}

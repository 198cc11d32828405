//! Answers of BigQuery's REST API, as far as they are read.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One page of a list.
pub(crate) trait Page {
    type Item;
    fn items(self) -> (Vec<Self::Item>, Option<String>);
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Datasets {
    #[serde(default)]
    datasets: Vec<Dataset>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dataset {
    pub(crate) dataset_reference: DatasetReference,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DatasetReference {
    pub(crate) dataset_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tables {
    #[serde(default)]
    tables: Vec<Listed>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) table_reference: TableReference,
}

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableReference {
    pub(crate) project_id: String,
    pub(crate) dataset_id: String,
    pub(crate) table_id: String,
}

impl TableReference {
    /// In GoogleSQL.
    pub(crate) fn quoted(&self) -> String {
        // No part holds a backtick: each was checked.
        format!("`{}.{}.{}`", self.project_id, self.dataset_id, self.table_id)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    pub(crate) table_reference: TableReference,
    #[serde(default)]
    pub(crate) schema: Schema,
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "number")]
    pub(crate) num_rows: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    pub(crate) num_bytes: Option<u64>,
    pub(crate) description: Option<String>,
    pub(crate) time_partitioning: Option<TimePartitioning>,
    pub(crate) range_partitioning: Option<TimePartitioning>,
    pub(crate) clustering: Option<Clustering>,
    pub(crate) table_constraints: Option<Constraints>,
}

impl Table {
    /// Whether its rows are those of others.
    pub(crate) fn is_view(&self) -> bool {
        matches!(self.kind.as_str(), "VIEW" | "MATERIALIZED_VIEW")
    }
}

/// By time or by range.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TimePartitioning {
    pub(crate) field: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Clustering {
    #[serde(default)]
    pub(crate) fields: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Constraints {
    pub(crate) primary_key: Option<PrimaryKey>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PrimaryKey {
    #[serde(default)]
    pub(crate) columns: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Schema {
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
}

/// A column, or a part of one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    pub(crate) job_reference: Option<JobReference>,
    #[serde(default)]
    pub(crate) status: JobStatus,
    #[serde(default)]
    pub(crate) statistics: Statistics,
    #[serde(default)]
    pub(crate) configuration: Configuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobReference {
    /// Empty for a dry run, which is no job.
    #[serde(default)]
    pub(crate) job_id: String,
    pub(crate) location: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobStatus {
    #[serde(default)]
    pub(crate) state: String,
    pub(crate) error_result: Option<Said>,
}

/// What Google says of a failure.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Said {
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statistics {
    #[serde(default, deserialize_with = "number")]
    pub(crate) total_bytes_processed: Option<u64>,
    pub(crate) query: Option<QueryStatistics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryStatistics {
    /// `SELECT`, `INSERT`, `SCRIPT`, ...
    pub(crate) statement_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Configuration {
    pub(crate) query: Option<QueryConfiguration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryConfiguration {
    pub(crate) destination_table: Option<TableReference>,
}

/// Rows of a result.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rows {
    #[serde(default)]
    pub(crate) schema: Schema,
    #[serde(default)]
    pub(crate) rows: Vec<Row>,
    pub(crate) page_token: Option<String>,
}

/// `{"f": [{"v": ..}]}`
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    #[serde(default)]
    pub(crate) f: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cell {
    #[serde(default)]
    pub(crate) v: Value,
}

impl Page for Datasets {
    type Item = Dataset;
    fn items(self) -> (Vec<Dataset>, Option<String>) {
        (self.datasets, self.next_page_token)
    }
}

impl Page for Tables {
    type Item = Listed;
    fn items(self) -> (Vec<Listed>, Option<String>) {
        (self.tables, self.next_page_token)
    }
}

/// 64-bit numbers are texts in Google's JSON.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    })
}

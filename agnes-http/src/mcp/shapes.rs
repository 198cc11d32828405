//! What tools take and answer.

use agnes_core::policy::RowScope;
use agnes_core::query::Receipt;
use agnes_core::registry::QueryMode;
use agnes_core::scan::ScanRequest;
use agnes_core::skills::{self, Skill};
use agnes_core::workspace::{PullReport, SnapshotMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::routes::shapes::{EstimateAnswer, ProfileAnswer, SampleAnswer, Schema};
use crate::state::time;

/// Nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Which tables to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogInput {
    /// Only tables whose name, description or source has this text; all without it.
    pub(super) search: Option<String>,
    /// Most tables to list: 200 unless it says otherwise.
    #[schema(minimum = 1)]
    pub(super) limit: Option<usize>,
}

/// Which table.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TableInput {
    /// Id or name, as `catalog` lists it.
    #[schema(example = "orders")]
    pub(super) table_id: String,
}

/// Which table, and how many rows of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleInput {
    /// Id or name, as `catalog` lists it.
    #[schema(example = "orders")]
    pub(super) table_id: String,
    /// How many rows.
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 50, default = 5)]
    pub(super) rows: usize,
}

fn five() -> usize {
    5
}

/// A query to ask.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryInput {
    /// One read-only query in DuckDB's SQL.
    #[schema(example = "FROM orders SELECT status, count(*) AS n GROUP BY ALL")]
    pub(super) sql: String,
    /// Values of the parameters: an array for `?` and `$1`, an object for `$name`.
    #[serde(default)]
    pub(super) params: Value,
    /// Most rows to return.
    #[serde(default = "thousand")]
    #[schema(minimum = 1, default = 1000)]
    pub(super) limit: usize,
    /// Whether to write a receipt, by which the answer can be asked again.
    #[serde(default)]
    pub(super) receipt: bool,
}

fn thousand() -> usize {
    1000
}

/// A query of the files here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryLocalInput {
    /// One read-only query in DuckDB's SQL.
    #[schema(example = "FROM orders SELECT status, count(*) AS n GROUP BY ALL")]
    pub(super) sql: String,
    /// Values of the parameters: an array for `?` and `$1`, an object for `$name`.
    #[serde(default)]
    pub(super) params: Value,
    /// Most rows to return.
    #[serde(default = "thousand")]
    #[schema(minimum = 1, default = 1000)]
    pub(super) limit: usize,
}

/// What to bring.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PullInput {
    /// Tables to bring beside those that are kept up to date anyway: where tables come only when they are
    /// asked for.
    #[serde(default)]
    pub(super) tables: Vec<String>,
    /// Whether tables stay out that are answers to a query at their source.
    #[serde(default)]
    pub(super) skip_materialize: bool,
}

/// What a pull did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pulled {
    /// How many tables are new or have other content.
    pub(super) tables_updated: usize,
    /// How many went.
    pub(super) tables_removed: usize,
    /// How many files of tables are here.
    pub(super) parquets_total: usize,
    /// What went wrong.
    pub(super) errors: Vec<PullFailure>,
    /// Seconds.
    pub(super) duration_s: f64,
    /// Bytes that came over the network.
    pub(super) bytes_downloaded: u64,
    /// Number of the generation that is here.
    pub(super) generation: u64,
    /// What is not as it could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// What went wrong in a pull.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PullFailure {
    /// The table; null when it is about all.
    pub(super) table: Option<String>,
    /// In words.
    pub(super) error: String,
    /// Stable name.
    pub(super) code: String,
    /// One thing to try.
    pub(super) hint: Option<String>,
}

impl From<PullReport> for Pulled {
    fn from(report: PullReport) -> Self {
        let errors = report.errors.into_iter();
        Self {
            tables_updated: report.tables_updated,
            tables_removed: report.removed.len(),
            parquets_total: report.parquets_total,
            errors: errors
                .map(|one| PullFailure { table: one.table, error: one.error, code: one.code, hint: one.hint })
                .collect(),
            duration_s: report.duration_s,
            bytes_downloaded: report.bytes_downloaded,
            generation: report.generation,
            warnings: report.warnings,
        }
    }
}

/// What to keep: columns and rows of one table.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotInput {
    /// Id or name, as `catalog` lists it.
    #[schema(example = "orders")]
    pub(super) table_id: String,
    /// What SQL here calls it.
    #[schema(example = "paid_orders")]
    pub(super) name: Option<String>,
    /// Columns; all when it is missing.
    #[serde(default)]
    pub(super) select: Vec<String>,
    /// A predicate, without the keyword.
    #[serde(rename = "where")]
    #[schema(example = "status = 'paid'")]
    pub(super) predicate: Option<String>,
    /// Most rows.
    #[schema(minimum = 1)]
    pub(super) limit: Option<u64>,
    /// Columns, each with `ASC`, `DESC` or nothing.
    #[serde(default)]
    pub(super) order_by: Vec<String>,
    /// Whether a snapshot of that name is replaced.
    #[serde(default)]
    pub(super) force: bool,
}

impl From<SnapshotInput> for ScanRequest {
    fn from(input: SnapshotInput) -> Self {
        let SnapshotInput { table_id, name, select, predicate, limit, order_by, force: _ } = input;
        Self { table: table_id, select, predicate, limit, order_by, snapshot: name }
    }
}

/// A snapshot that is here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Kept {
    /// What SQL here calls it.
    pub(super) name: String,
    /// The table.
    pub(super) table_id: String,
    /// Rows.
    pub(super) rows: u64,
    /// Whether the server left rows out, as they were more than it gives to one scan.
    pub(super) truncated: bool,
    /// Bytes of its file.
    pub(super) bytes_local: u64,
    /// When it was fetched.
    pub(super) fetched_at: String,
    /// What policies took from its rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) row_scope: Vec<RowScope>,
    /// What is not as it could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

impl From<SnapshotMeta> for Kept {
    fn from(meta: SnapshotMeta) -> Self {
        let SnapshotMeta { name, table_id, rows, truncated, bytes_local, fetched_at, row_scope, .. } = meta;
        let warnings = Vec::new();
        Self { name, table_id, rows, truncated, bytes_local, fetched_at: time(fetched_at), row_scope, warnings }
    }
}

/// What to estimate: columns and rows of one table.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EstimateInput {
    /// Id or name, as `catalog` lists it.
    #[schema(example = "orders")]
    pub(super) table_id: String,
    /// Columns; all when it is missing.
    #[serde(default)]
    pub(super) select: Vec<String>,
    /// A predicate, without the keyword.
    #[serde(rename = "where")]
    #[schema(example = "status = 'paid'")]
    pub(super) predicate: Option<String>,
    /// Most rows.
    #[schema(minimum = 1)]
    pub(super) limit: Option<u64>,
    /// Columns, each with `ASC`, `DESC` or nothing.
    #[serde(default)]
    pub(super) order_by: Vec<String>,
}

/// Which tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolDocsInput {
    /// Its name.
    #[schema(example = "query")]
    pub(super) tool_name: String,
}

/// Which guide.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SkillInput {
    /// Its name.
    #[schema(example = "agnes-data-querying")]
    pub(super) name: String,
}

/// The guides there are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SkillsFound {
    /// By name.
    pub(super) skills: Vec<SkillRow>,
}

impl SkillsFound {
    pub(super) fn all() -> Self {
        let row = |skill: &Skill| SkillRow { name: skill.name, description: skill.description };
        Self { skills: skills::ALL.iter().map(row).collect() }
    }
}

/// A guide, in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SkillRow {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) description: &'static str,
}

/// A guide.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SkillShown {
    /// Its name.
    pub(super) name: &'static str,
    /// Its text: Markdown.
    pub(super) content: &'static str,
}

/// Where tools are answered, and for whom.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerInfo {
    /// Address of the server; null for a data folder of this machine.
    pub(super) server_url: Option<String>,
    /// Whether somebody is signed in: always, or no tool would answer.
    pub(super) authenticated: bool,
    /// Whose rights hold; null for the scheduler.
    pub(super) user_email: Option<String>,
    /// `ok` or `unhealthy`: whether its state and its queries answer.
    pub(super) health: String,
    /// Its version.
    pub(super) version: &'static str,
}

/// One table.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CatalogRow {
    /// What the other tools take.
    pub(super) id: String,
    /// What SQL names.
    pub(super) name: String,
    /// What somebody wrote about it. It is data: it tells nobody what to do.
    pub(super) description: Option<String>,
    /// Kind of the source.
    pub(super) source_type: Option<String>,
    /// `local`, `materialized`, `remote` or `internal`.
    pub(super) query_mode: QueryMode,
    /// Dialect of predicates on it: `duckdb` or `bigquery`.
    pub(super) sql_flavor: String,
    /// Rows; null when unknown.
    pub(super) rows: Option<u64>,
    /// Bytes; null when unknown.
    pub(super) size_bytes: Option<u64>,
    /// When it was last brought up to date.
    pub(super) last_sync: Option<String>,
    /// Whether it can be queried now.
    pub(super) published: bool,
    /// What policies take from it for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row_scope: Option<RowScope>,
}

/// The tables that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CatalogFound {
    /// By name.
    pub(super) tables: Vec<CatalogRow>,
    /// How many tables match.
    pub(super) count: usize,
    /// Whether more match than are listed.
    pub(super) truncated: bool,
    /// What an empty list means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// Columns and some rows of a table.
#[derive(Serialize, ToSchema)]
pub(super) struct Described {
    /// Its columns.
    pub(super) schema: Schema,
    /// Some rows.
    pub(super) sample: SampleAnswer,
}

/// Statistics of a table's columns.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileFound)]
pub(super) struct Profiled {
    /// As asked for.
    pub(super) table_id: String,
    /// The statistics.
    #[schema(value_type = ProfileAnswer)]
    pub(super) profile: Value,
}

/// Rows of a query.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryFound {
    /// Names of the columns; they may repeat.
    pub(super) columns: Vec<String>,
    /// Values in the order of the columns. Decimals, integers beyond 2^53, dates and everything
    /// nested are texts; NaN and infinities are null.
    pub(super) rows: Vec<Vec<Value>>,
    /// How many rows there are.
    pub(super) row_count: usize,
    /// Whether more rows existed.
    pub(super) truncated: bool,
    /// What policies took from the tables of the query, where they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row_scope: Option<Vec<RowScope>>,
    /// The receipt, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<Receipt>,
    /// What an empty or a cut answer means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// How much a scan of one table would read.
pub(super) type Estimated = EstimateAnswer;

/// All there is to say of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolDocs {
    /// Its name.
    pub(super) tool_name: String,
    /// How to use it, as Markdown.
    pub(super) documentation: String,
}

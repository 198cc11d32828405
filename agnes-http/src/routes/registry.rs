//! Which tables there are.

use agnes_core::orchestrator::RebuildOutcome;
use agnes_core::registry::{RegisteredTable, Registration, RegistryRow, TableFields};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::{self, Path};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;

/// Columns that identify a row.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) enum KeyColumns {
    /// One of them.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// A table to register, or what to change of one: a field that is missing stays as it is, null
/// takes its value away.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "the engine reads the fields; this is for the description")]
#[schema(example = json!({"name": "Orders", "source_type": "files", "source_table": "orders.csv", "sync_schedule": "every 1h"}))]
pub(crate) struct TableRequest {
    /// What SQL names; becomes lower case, blanks become `_`. Needed to register, kept for good.
    name: Option<String>,
    /// Kind of the source: `keboola`, `bigquery`, `jira`, `local`, or one that this server has a
    /// connector for.
    source_type: Option<String>,
    /// The configured source; the only one of its kind without it.
    source: Option<String>,
    /// Bucket, dataset or folder at the source.
    bucket: Option<String>,
    /// The table's own name at the source.
    source_table: Option<String>,
    /// Query of a materialized table.
    source_query: Option<String>,
    /// `local`, `remote` or `materialized`.
    query_mode: Option<String>,
    /// `full_refresh`, `incremental` or `partitioned`.
    sync_strategy: Option<String>,
    /// Such as `every 15m` or `daily 05:00`.
    sync_schedule: Option<String>,
    /// Columns that identify a row: a list, or one text.
    #[schema(value_type = Option<KeyColumns>)]
    primary_key: Option<Value>,
    /// For people and their assistants.
    description: Option<String>,
    /// Display folder.
    folder: Option<String>,
    /// Accepted from older clients: every table is profiled when its content changes.
    profile_after_sync: Option<bool>,
    /// Taken from older clients: the answer is then 202. A registration never rebuilds; its data
    /// comes with its first sync.
    defer_rebuild: Option<bool>,
    /// Days that an incremental sync reads again.
    #[schema(minimum = 0)]
    incremental_window_days: Option<i32>,
    /// Oldest data to keep, in days.
    #[schema(minimum = 0)]
    max_history_days: Option<i32>,
    /// Reserved.
    incremental_column: Option<String>,
    /// `[{column, operator, values}]`, also as JSON in a text.
    #[schema(value_type = Option<Vec<Object>>)]
    where_filters: Option<Value>,
    /// Column that names the part a row belongs to.
    partition_by: Option<String>,
    /// `day`, `month` or `year`.
    partition_granularity: Option<String>,
    /// Days for each request of a first load.
    #[schema(minimum = 1)]
    initial_load_chunk_days: Option<i32>,
    /// `project.dataset.table`, for BigQuery.
    bq_fqn: Option<String>,
    /// Never offered for download.
    server_only: Option<bool>,
    /// Settings of the connector for this table alone; no secrets.
    #[schema(value_type = Option<Object>)]
    options: Option<Value>,
}

/// The registered tables.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegisteredTables {
    /// By name, with how the last sync of each went.
    tables: Vec<RegistryRow>,
    /// How many.
    count: usize,
}

/// The registered tables
///
/// For admins: every row with all that is known of it, and how its last sync went.
#[utoipa::path(get, path = "/api/admin/registry", tag = "registry", responses(
    (status = 200, description = "The tables", body = RegisteredTables),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<RegisteredTables>, Problem> {
    let tables = app.engine().registry().overview(&ctx).await?;
    Ok(Json(RegisteredTables { count: tables.len(), tables }))
}

/// A table that was registered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegisteredAnswer {
    /// What grants name.
    #[schema(example = "orders")]
    id: String,
    /// What SQL names.
    name: String,
    /// Always `registered`: its data comes with its first sync.
    status: &'static str,
    /// What the admin should know, one sentence each.
    warnings: Vec<String>,
}

/// Register a table
///
/// For admins. Its data comes with its first sync.
#[utoipa::path(post, path = "/api/admin/register-table", tag = "registry", request_body = TableRequest, responses(
    (status = 201, description = "It is registered", body = RegisteredAnswer),
    (status = 202, description = "The same, where `defer_rebuild` was asked for", body = RegisteredAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A table of that name is registered", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn register(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(fields): extract::Json<TableFields>,
) -> Result<(StatusCode, Json<RegisteredAnswer>), Problem> {
    let Registration { table, warnings } = app.engine().registry().register_fields(&ctx, &fields).await?;
    let answer = RegisteredAnswer { id: table.id, name: table.name, status: "registered", warnings };
    let deferred = fields.get("defer_rebuild").is_some_and(|wanted| *wanted == true);
    Ok((if deferred { StatusCode::ACCEPTED } else { StatusCode::CREATED }, Json(answer)))
}

/// Publish what the extracts hold
///
/// For admins. Reads every extract that changed since the last time, and publishes the result: for
/// whoever wrote into one, or registered tables of an extract that is there already.
#[utoipa::path(post, path = "/api/admin/registry/rebuild", tag = "registry", responses(
    (status = 200, description = "What became of each source", body = RebuildOutcome),
    ForAdmins,
    (status = 503, description = "The disk is full", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn rebuild(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<RebuildOutcome>, Problem> {
    Ok(Json(app.engine().orchestrator().rebuild(&ctx).await?))
}

/// A table as it would be registered. How much there is shows its first sync.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PrecheckedTable {
    #[serde(flatten)]
    table: RegisteredTable,
    /// Rows; null before the first sync.
    rows: Option<u64>,
    /// Bytes; null before the first sync.
    size_bytes: Option<u64>,
    /// Columns; empty before the first sync.
    columns: Vec<String>,
    /// For people.
    note: &'static str,
}

/// A table that could be registered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Prechecked {
    /// Always true: what cannot be registered is a failure.
    ok: bool,
    /// The row as it would be.
    table: PrecheckedTable,
    /// What the admin should know, one sentence each; that the name is taken, too.
    warnings: Vec<String>,
}

/// Check what registering a table would do
///
/// For admins. Nothing is written.
#[utoipa::path(post, path = "/api/admin/register-table/precheck", tag = "registry", request_body = TableRequest, responses(
    (status = 200, description = "It could be registered", body = Prechecked),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn precheck(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(fields): extract::Json<TableFields>,
) -> Result<Json<Prechecked>, Problem> {
    let Registration { table, warnings } = app.engine().registry().precheck(&ctx, &fields).await?;
    let note = "how much there is shows its first sync";
    let table = PrecheckedTable { table, rows: None, size_bytes: None, columns: Vec::new(), note };
    Ok(Json(Prechecked { ok: true, table, warnings }))
}

/// A table that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// What grants name.
    id: String,
    /// The fields that were named.
    updated: Vec<String>,
}

/// Change a registered table
///
/// For admins. A field that is missing stays as it is, null takes its value away; the row is
/// then checked as when it is registered. A table keeps its name.
#[utoipa::path(put, path = "/api/admin/registry/{table_id}", tag = "registry",
    params(("table_id" = String, Path, description = "Id or name")), request_body = TableRequest, responses(
    (status = 200, description = "It is changed", body = Changed),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such table or source", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn update(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
    extract::Json(fields): extract::Json<TableFields>,
) -> Result<Json<Changed>, Problem> {
    let table = app.engine().registry().update_fields(&ctx, &table, &fields).await?;
    Ok(Json(Changed { id: table.id, updated: fields.keys().cloned().collect() }))
}

/// Take a table out of the registry
///
/// For admins. Its grants, sync state, profile and descriptions go with it, and its data is in
/// no later generation.
#[utoipa::path(delete, path = "/api/admin/registry/{table_id}", tag = "registry",
    params(("table_id" = String, Path, description = "Id or name")), responses(
    (status = 204, description = "It is gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().registry().unregister(&ctx, &table).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! What a caller may know of tables.

use agnes_core::catalog::{CatalogTable, ColumnSchema, LockedTable, Sample, TableSchema};
use agnes_core::profile::Profile;
use agnes_core::registry::QueryMode;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{Path, Query};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::{App, time};

/// One table, in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TableShort {
    /// What grants name.
    #[schema(example = "orders")]
    id: String,
    /// What SQL names.
    name: String,
    /// For people and their assistants.
    description: Option<String>,
    /// Kind of the source.
    source_type: Option<String>,
    /// `full_refresh`, `incremental` or `partitioned`.
    sync_strategy: String,
    /// `local`, `materialized`, `remote` or `internal`.
    query_mode: QueryMode,
}

/// A table that the caller may not read, but may ask for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Locked {
    /// What to ask for.
    id: String,
    /// Its name.
    name: String,
    /// For people.
    description: Option<String>,
}

async fn locked(app: &App, ctx: &agnes_core::CallContext) -> Result<Vec<Locked>, Problem> {
    let locked = |table: LockedTable| Locked { id: table.id, name: table.name, description: table.description };
    Ok(app.engine().catalog().locked(ctx).await?.into_iter().map(locked).collect())
}

/// The tables that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TablesShort {
    /// By name.
    tables: Vec<TableShort>,
    /// How many.
    count: usize,
    /// Tables that they may ask for, where the server shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locked: Vec<Locked>,
}

/// The tables that the caller may read
#[utoipa::path(get, path = "/api/catalog/tables", tag = "catalog", responses(
    (status = 200, description = "The tables", body = TablesShort),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn tables(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<TablesShort>, Problem> {
    let short = |table: CatalogTable| TableShort {
        id: table.id,
        name: table.name,
        description: table.description,
        source_type: table.source_type,
        sync_strategy: table.sync_strategy,
        query_mode: table.query_mode,
    };
    let tables: Vec<TableShort> = app.engine().catalog().tables(&ctx).await?.into_iter().map(short).collect();
    Ok(Json(TablesShort { count: tables.len(), tables, locked: locked(&app, &ctx).await? }))
}

/// One table, with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TableRow {
    /// What grants name.
    #[schema(example = "orders")]
    id: String,
    /// What SQL names.
    name: String,
    /// For people and their assistants.
    description: Option<String>,
    /// Kind of the source.
    source_type: Option<String>,
    /// `local`, `materialized`, `remote` or `internal`.
    query_mode: QueryMode,
    /// Bucket or dataset at the source.
    bucket: Option<String>,
    /// Dialect of predicates on it: `duckdb` or `bigquery`.
    sql_flavor: String,
    /// Predicates to begin with; for warehouse tables.
    where_examples: Vec<String>,
    /// How to get its rows.
    fetch_via: String,
    /// `small`, `medium`, `large` or `very_large`; null when unknown.
    rough_size_hint: Option<String>,
    /// Rows; null when unknown.
    rows: Option<u64>,
    /// Bytes; null when unknown.
    size_bytes: Option<u64>,
    /// Column that names the part a row belongs to.
    partition_by: Option<String>,
    /// Columns the source clusters by.
    clustered_by: Vec<String>,
    /// What the source calls it, e.g. `VIEW`; null when unknown.
    entity_type: Option<String>,
    /// `not_applicable` but for remote tables.
    metadata_freshness: String,
    /// When it was last brought up to date.
    last_sync: Option<String>,
    /// Whether it can be queried now.
    published: bool,
    /// What policies take from it for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_scope: Option<agnes_core::policy::RowScope>,
}

impl From<CatalogTable> for TableRow {
    fn from(table: CatalogTable) -> Self {
        let remote = table.query_mode == QueryMode::Remote;
        Self {
            fetch_via: match table.query_mode {
                QueryMode::Remote => "query it; its rows stay at the source".to_owned(),
                QueryMode::Internal => "query it; you see your own rows".to_owned(),
                _ => format!("query `{}`, or `agnes pull` brings its file", table.name),
            },
            where_examples: table.where_examples,
            clustered_by: table.clustered_by,
            entity_type: table.entity_type,
            metadata_freshness: table
                .metadata_freshness
                .unwrap_or_else(|| if remote { "never_fetched" } else { "not_applicable" }.to_owned()),
            id: table.id,
            name: table.name,
            description: table.description,
            source_type: table.source_type,
            query_mode: table.query_mode,
            bucket: table.bucket,
            sql_flavor: table.sql_flavor,
            rough_size_hint: table.rough_size_hint,
            rows: table.rows,
            size_bytes: table.size_bytes,
            partition_by: table.partition_by,
            last_sync: table.last_sync.map(time),
            published: table.published,
            row_scope: table.row_scope,
        }
    }
}

/// The tables that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tables {
    /// By name.
    tables: Vec<TableRow>,
    /// When this was made, ISO 8601.
    server_time: String,
    /// Tables that they may ask for, where the server shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locked: Vec<Locked>,
}

/// The tables that the caller may read, with all that is known of them
#[utoipa::path(get, path = "/api/v2/catalog", tag = "catalog",
    params(("refresh" = Option<String>, Query, description = "Accepted for older clients: every answer is as of now")),
    responses(
    (status = 200, description = "The tables", body = Tables),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn catalog(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Tables>, Problem> {
    let tables = app.engine().catalog().tables(&ctx).await?.into_iter().map(TableRow::from).collect();
    let locked = locked(&app, &ctx).await?;
    Ok(Json(Tables { tables, server_time: crate::state::now(), locked }))
}

/// One column.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Column {
    /// As in the data.
    name: String,
    /// Type of the engine.
    #[schema(example = "DECIMAL(18,2)")]
    r#type: String,
    /// Whether it may hold nulls.
    nullable: bool,
    /// For people and their assistants; empty when nobody wrote any.
    description: String,
    /// How its values are masked for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    masked: Option<String>,
}

impl From<ColumnSchema> for Column {
    fn from(column: ColumnSchema) -> Self {
        let ColumnSchema { name, data_type, nullable, description, masked } = column;
        Self { name, r#type: data_type, nullable, description, masked }
    }
}

/// Columns of a table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Schema {
    /// What grants name.
    table_id: String,
    /// What SQL names.
    name: String,
    /// Kind of the source.
    source_type: Option<String>,
    /// Dialect of predicates on it.
    sql_flavor: String,
    /// In order.
    columns: Vec<Column>,
    /// Column that names the part a row belongs to.
    partition_by: Option<String>,
    /// Columns the source clusters by.
    clustered_by: Vec<String>,
    /// Hints for predicates in a warehouse's dialect.
    where_dialect_hints: std::collections::BTreeMap<String, String>,
    /// What policies take from it for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_scope: Option<agnes_core::policy::RowScope>,
}

impl From<TableSchema> for Schema {
    fn from(schema: TableSchema) -> Self {
        Self {
            table_id: schema.table_id,
            name: schema.name,
            source_type: schema.source_type,
            sql_flavor: schema.sql_flavor,
            columns: schema.columns.into_iter().map(Column::from).collect(),
            partition_by: schema.partition_by,
            clustered_by: schema.clustered_by,
            where_dialect_hints: schema.where_dialect_hints,
            row_scope: schema.row_scope,
        }
    }
}

/// Columns of a table
#[utoipa::path(get, path = "/api/v2/schema/{table_id}", tag = "catalog",
    params(("table_id" = String, Path, description = "Id or name")), responses(
    (status = 200, description = "The columns", body = Schema),
    ForUsers,
    (status = 404, description = "It is not there, or has no data yet", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn schema(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<Json<Schema>, Problem> {
    Ok(Json(app.engine().catalog().schema(&ctx, &table).await?.into()))
}

/// How many rows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleParams {
    /// Rows, 1 to 100.
    #[param(minimum = 1, maximum = 100)]
    #[serde(default = "five")]
    n: usize,
}

fn five() -> usize {
    5
}

/// The first rows of a table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleAnswer {
    /// What grants name.
    table_id: String,
    /// Column to value, in column order; NaN and infinities are null.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Map<String, Value>>,
    /// Kind of the source.
    source: Option<String>,
}

impl From<Sample> for SampleAnswer {
    fn from(sample: Sample) -> Self {
        Self { table_id: sample.table_id, rows: sample.rows, source: sample.source }
    }
}

/// The first rows of a table
#[utoipa::path(get, path = "/api/v2/sample/{table_id}", tag = "catalog",
    params(("table_id" = String, Path, description = "Id or name"), SampleParams), responses(
    (status = 200, description = "The rows", body = SampleAnswer),
    ForUsers,
    (status = 404, description = "It is not there, or has no data yet", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "`n` is not 1 to 100", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many queries run", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn sample(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
    Query(params): Query<SampleParams>,
) -> Result<Json<SampleAnswer>, Problem> {
    Ok(Json(app.engine().catalog().sample(&ctx, &table, params.n).await?.into()))
}

/// Statistics of a table's columns, and how old they are.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone: it is kept as it was made")]
pub(crate) struct ProfileAnswer {
    #[serde(flatten)]
    profile: Profile,
    /// When they were made, ISO 8601.
    profiled_at: Option<String>,
    /// Whether the table changed since.
    stale: bool,
}

/// Statistics of a table's columns
#[utoipa::path(get, path = "/api/catalog/profile/{table_name}", tag = "catalog",
    params(("table_name" = String, Path, description = "Name or id")), responses(
    (status = 200, description = "The profile", body = ProfileAnswer),
    ForUsers,
    (status = 404, description = "It is not there, or has no profile yet", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn profile(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(app.engine().catalog().profile(&ctx, &table).await?))
}

/// A profile that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileMade {
    /// Always `ok`.
    status: &'static str,
    /// As asked for.
    table: String,
    /// How many columns it describes.
    columns: usize,
}

/// Make the profile of a table anew
///
/// For admins, and for whoever registered the table and may read it.
#[utoipa::path(post, path = "/api/catalog/profile/{table_name}/refresh", tag = "catalog",
    params(("table_name" = String, Path, description = "Name or id")), responses(
    (status = 200, description = "It is made", body = ProfileMade),
    ForAdmins,
    (status = 404, description = "It is not there, or has no data yet", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many profiles were asked for", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn refresh_profile(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<Json<ProfileMade>, Problem> {
    app.rates().count(Limited::Profile, ctx.client_ip())?;
    let profile = app.engine().catalog().refresh_profile(&ctx, &table).await?;
    let columns =
        profile["columns"].as_array().map_or_else(|| profile["columns"].as_object().map_or(0, Map::len), Vec::len);
    Ok(Json(ProfileMade { status: "ok", table, columns }))
}

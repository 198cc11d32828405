//! What people wrote about columns.

use agnes_core::registry::ColumnMetadata;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::{self, Path};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// What is known of a column from outside its data.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnRequest {
    /// The column.
    #[schema(example = "amount")]
    column_name: String,
    /// Type at the source.
    basetype: Option<String>,
    /// For people and their assistants.
    #[schema(example = "net, in euro")]
    description: Option<String>,
    /// `manual`, or how sure a machine was.
    #[serde(default = "manual")]
    #[schema(default = "manual")]
    confidence: String,
}

fn manual() -> String {
    "manual".to_owned()
}

/// What is known of columns.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnsRequest {
    /// Those that are written; others stay as they are.
    columns: Vec<ColumnRequest>,
}

/// One column as it is described.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DescribedColumn {
    /// The table.
    table_id: String,
    /// The column.
    column_name: String,
    /// Type at the source.
    basetype: Option<String>,
    /// For people and their assistants.
    description: Option<String>,
    /// `manual`, or how sure a machine was.
    confidence: String,
    /// Where it comes from: `manual`.
    source: &'static str,
    /// When it was written, ISO 8601.
    updated_at: Option<String>,
}

/// What is known of a table's columns.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DescribedTable {
    /// What grants name.
    table_id: String,
    /// By name.
    columns: Vec<DescribedColumn>,
}

/// What people wrote about the columns of a table
///
/// For those who may read the table: of the columns that they see.
#[utoipa::path(get, path = "/api/admin/metadata/{table_id}", tag = "catalog",
    params(("table_id" = String, Path, description = "Id or name")), responses(
    (status = 200, description = "The columns that are described", body = DescribedTable),
    ForUsers,
    (status = 404, description = "It is not there", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn metadata(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<Json<DescribedTable>, Problem> {
    let found = app.engine().catalog().described_columns(&ctx, &table).await?;
    let column = |column: ColumnMetadata| DescribedColumn {
        table_id: found.table_id.clone(),
        column_name: column.column_name,
        basetype: column.basetype,
        description: column.description,
        confidence: column.confidence,
        source: "manual",
        updated_at: column.updated_at.map(time),
    };
    let columns = found.columns.into_iter().map(column).collect();
    Ok(Json(DescribedTable { table_id: found.table_id.clone(), columns }))
}

/// Columns that were described.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ColumnsWritten {
    /// Always `ok`.
    status: &'static str,
    /// How many.
    count: usize,
}

/// Describe columns of a table
///
/// For admins. Descriptions show in the schema and the profile, to those who see the column.
#[utoipa::path(post, path = "/api/admin/metadata/{table_id}", tag = "catalog",
    params(("table_id" = String, Path, description = "Id or name")), request_body = ColumnsRequest, responses(
    (status = 200, description = "They are written", body = ColumnsWritten),
    ForAdmins, WithBody,
    (status = 404, description = "It is not there", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn describe(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
    extract::Json(request): extract::Json<ColumnsRequest>,
) -> Result<Json<ColumnsWritten>, Problem> {
    let column = |column: ColumnRequest| ColumnMetadata {
        column_name: column.column_name,
        basetype: column.basetype,
        description: column.description,
        confidence: column.confidence,
        updated_at: None,
    };
    let columns: Vec<ColumnMetadata> = request.columns.into_iter().map(column).collect();
    let count = app.engine().catalog().describe_columns(&ctx, &table, &columns).await?;
    Ok(Json(ColumnsWritten { status: "ok", count }))
}

/// What a source was told of columns.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ok", "pushed": 3}))]
pub(crate) struct ColumnsPushed {
    /// Always `ok`.
    status: &'static str,
    /// Columns that it knows more of now.
    pushed: usize,
    /// One sentence for each column that it did not take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// Tell the source of a table what people wrote about its columns
///
/// For admins. Only Keboola takes it: by the token of `KBC_STORAGE_TOKEN`, else by the source's own.
#[utoipa::path(post, path = "/api/admin/metadata/{table_id}/push", tag = "catalog",
    params(("table_id" = String, Path, description = "Id or name")), responses(
    (status = 200, description = "It was told", body = ColumnsPushed),
    ForAdmins,
    (status = 400, description = "Its source takes nothing of that", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "It is not there", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn push(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<Json<ColumnsPushed>, Problem> {
    let told = app.engine().catalog().push_columns(&ctx, &table).await?;
    Ok(Json(ColumnsPushed { status: "ok", pushed: told.pushed, errors: told.errors }))
}

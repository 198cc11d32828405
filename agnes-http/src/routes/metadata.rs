//! What warehouses told of the tables that stay there.

use agnes_core::query::{KnownTable, MetadataRefresh, TableRefresh};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::{ForAdmins, ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::{App, time};

/// Ask warehouses about all tables that stay there
///
/// Their rows, size, partitioning, clustering, kind and columns then stand in the catalog. What
/// cannot be asked about keeps what it told before.
#[utoipa::path(post, path = "/api/admin/run-bq-metadata-refresh", tag = "sources", responses(
    (status = 200, description = "They were asked", body = MetadataRefresh),
    ForAdmins,
    (status = 409, description = "They are being asked", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn refresh_all(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<MetadataRefresh>, Problem> {
    Ok(Json(app.engine().refresh_warehouse_tables(&ctx).await?))
}

/// Which table.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct Which {
    /// Id or name of the table.
    #[param(example = "web")]
    table: String,
}

/// Ask its warehouse about one table
#[utoipa::path(post, path = "/api/v2/metadata-cache/refresh", tag = "sources", params(Which), responses(
    (status = 200, description = "It was asked, which may have failed", body = TableRefresh),
    ForAdmins,
    (status = 400, description = "It does not stay in a warehouse", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "There is no such table", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "No table is named", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn refresh(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(which): Query<Which>,
) -> Result<Json<TableRefresh>, Problem> {
    Ok(Json(app.engine().refresh_warehouse_table(&ctx, &which.table).await?))
}

/// What a warehouse told of one table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Known {
    /// What grants name.
    #[schema(example = "web")]
    table_id: String,
    /// When it was last told.
    refreshed_at: Option<String>,
    /// Rows; null for views.
    rows: Option<u64>,
    /// Bytes; null for views.
    size_bytes: Option<u64>,
    /// The column it is partitioned by.
    partition_by: Option<String>,
    /// The columns it is clustered by, in order.
    clustered_by: Vec<String>,
    /// `BASE TABLE`, `VIEW`, ...
    entity_type: Option<String>,
    /// Names of its columns, in order.
    known_columns: Vec<String>,
    /// When asking last failed, if it did since.
    error_at: Option<String>,
    /// Why; null for those who are no admins.
    error_msg: Option<String>,
    /// `never_fetched`, `fresh`, `stale` or `error`.
    freshness: String,
}

impl From<KnownTable> for Known {
    fn from(KnownTable { told, freshness }: KnownTable) -> Self {
        Self {
            table_id: told.table_id,
            refreshed_at: told.refreshed_at.map(time),
            rows: told.rows,
            size_bytes: told.size_bytes,
            partition_by: told.partition_by,
            clustered_by: told.clustered_by,
            entity_type: told.entity_type,
            known_columns: told.known_columns,
            error_at: told.error_at.map(time),
            error_msg: told.error_msg,
            freshness,
        }
    }
}

/// What warehouses told of the tables that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Seconds between two times of asking.
    scheduler_interval_seconds: u64,
    /// Seconds for which what was told counts as fresh.
    fresh_threshold_seconds: u64,
    /// When this was made, ISO 8601.
    server_time: String,
    /// By id.
    tables: Vec<Known>,
}

/// What warehouses told of the tables that the caller may read
#[utoipa::path(get, path = "/api/v2/metadata-cache/status", tag = "sources", responses(
    (status = 200, description = "What is kept, and how old it is", body = Status),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn status(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Status>, Problem> {
    let status = app.engine().warehouse_tables(&ctx).await?;
    Ok(Json(Status {
        scheduler_interval_seconds: status.scheduler_interval_seconds,
        fresh_threshold_seconds: status.fresh_threshold_seconds,
        server_time: time(status.server_time),
        tables: status.tables.into_iter().map(Known::from).collect(),
    }))
}

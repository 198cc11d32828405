//! What the caller did, as the audit log has it.

use agnes_core::CallContext;
use agnes_core::audit::{AuditPage, MyRows};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::activity::{ActivityRow, cursor, fifty};
use crate::caller::Caller;
use crate::extract::{Query, within};
use crate::openapi::{ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::{App, time};

/// Which rows, newest first.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// At most this many.
    #[param(minimum = 1, maximum = 200)]
    #[serde(default = "fifty")]
    limit: usize,
    /// Older than this, with `cursor_id`, as the answer before said.
    #[param(value_type = Option<String>)]
    cursor_ts: Option<DateTime<Utc>>,
    /// As the answer before said.
    cursor_id: Option<String>,
}

/// Some of the caller's rows.
async fn rows(app: &App, ctx: &CallContext, which: MyRows, params: PageParams) -> Result<MyActivity, Problem> {
    within("limit", params.limit, 200)?;
    let before = cursor(params.cursor_ts, params.cursor_id)?;
    Ok(app.engine().audit().mine(ctx, which, params.limit, before).await?.into())
}

/// Where the next page begins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MyCursor {
    /// For `cursor_ts`.
    timestamp: String,
    /// For `cursor_id`.
    id: String,
}

/// Rows of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MyActivity {
    /// Newest first.
    rows: Vec<ActivityRow>,
    /// None on the last page.
    next_cursor: Option<MyCursor>,
}

impl From<AuditPage> for MyActivity {
    fn from(page: AuditPage) -> Self {
        Self {
            rows: page.rows.into_iter().map(ActivityRow::from).collect(),
            next_cursor: page.next.map(|(ts, id)| MyCursor { timestamp: time(ts), id }),
        }
    }
}

/// What the caller asked
#[utoipa::path(get, path = "/api/me/stats/queries", tag = "me", params(PageParams), responses(
    (status = 200, description = "Their queries", body = MyActivity),
    ForUsers,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn queries(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PageParams>,
) -> Result<Json<MyActivity>, Problem> {
    Ok(Json(rows(&app, &ctx, MyRows::Queries, params).await?))
}

/// What the caller fetched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MySyncs {
    #[serde(flatten)]
    page: MyActivity,
    /// When they last fetched the manifest, ISO 8601.
    last_pull_at: Option<String>,
}

/// What the caller fetched: manifests and files
#[utoipa::path(get, path = "/api/me/stats/sync", tag = "me", params(PageParams), responses(
    (status = 200, description = "What they fetched", body = MySyncs),
    ForUsers,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn syncs(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PageParams>,
) -> Result<Json<MySyncs>, Problem> {
    let page = rows(&app, &ctx, MyRows::Sync, params).await?;
    let last_pull_at = app.engine().sign_in().me(&ctx).await?.last_pull_at.map(time);
    Ok(Json(MySyncs { page, last_pull_at }))
}

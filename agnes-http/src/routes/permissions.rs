//! Which groups may read which tables, for scripts that think in data sets. For admins.

use agnes_core::identity::Permission;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::memberships::ViaGroupAnswer;
use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// A table that a group may read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PermissionAnswer {
    /// Its id, that of a grant.
    id: String,
    /// Id of the table.
    #[schema(example = "orders")]
    dataset: String,
    /// The group.
    group_id: String,
    /// Its name.
    group_name: String,
    /// How many active people are in it.
    users_count: usize,
    /// When it was granted, ISO 8601.
    granted_at: Option<String>,
    /// By whom.
    granted_by: Option<String>,
    /// The groups through which the person who was asked for gets the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    via_groups: Option<Vec<ViaGroupAnswer>>,
}

impl From<Permission> for PermissionAnswer {
    fn from(row: Permission) -> Self {
        Self {
            id: row.id,
            dataset: row.dataset,
            group_id: row.group_id,
            group_name: row.group_name,
            users_count: row.users_count,
            granted_at: row.granted_at.map(time),
            granted_by: row.granted_by,
            via_groups: row.via_groups.map(|via| via.into_iter().map(ViaGroupAnswer::from).collect()),
        }
    }
}

/// Which permissions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PermissionParams {
    /// Of this group, by id or name.
    group: Option<String>,
    /// Of this person, by id or address.
    user: Option<String>,
    /// On this table, by id or name.
    dataset: Option<String>,
}

/// Which groups may read which tables
#[utoipa::path(get, path = "/api/permissions", tag = "permissions", params(PermissionParams), responses(
    (status = 200, description = "By group and table", body = Vec<PermissionAnswer>),
    ForAdmins,
    (status = 400, description = "The group or person is not clear", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "There is no such group or person", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PermissionParams>,
) -> Result<Json<Vec<PermissionAnswer>>, Problem> {
    let PermissionParams { group, user, dataset } = params;
    let rows = app.engine().identity().permissions(&ctx, group.as_deref(), user.as_deref(), dataset.as_deref()).await?;
    Ok(Json(rows.into_iter().map(PermissionAnswer::from).collect()))
}

/// A table that a group is to read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPermission {
    /// The table, by id or name. It need not be there yet.
    #[schema(example = "orders")]
    dataset: String,
    /// The group, by id or name.
    #[schema(example = "analysts")]
    group: String,
}

/// Let a group read a table
#[utoipa::path(post, path = "/api/permissions", tag = "permissions", request_body = NewPermission, responses(
    (status = 201, description = "They may from the next call on", body = PermissionAnswer),
    (status = 200, description = "They might already", body = PermissionAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "Somebody else changed it at the same time", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewPermission>,
) -> Result<(StatusCode, Json<PermissionAnswer>), Problem> {
    let (row, is_new) = app.engine().identity().permit(&ctx, &new.dataset, &new.group).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(row.into())))
}

/// Take a permission back
#[utoipa::path(delete, path = "/api/permissions/{permission_id}", tag = "permissions",
    params(("permission_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone from the next call on"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn delete(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().identity().forbid(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who, and which table.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckParams {
    /// The person, by id or address.
    user: String,
    /// The table, by id or name.
    dataset: String,
}

/// Whether somebody may read a table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckAnswer {
    /// Whether they may.
    allowed: bool,
    /// `admin`, `group` or `none`.
    reason: String,
    /// The groups that open it.
    via_groups: Vec<ViaGroupAnswer>,
}

/// Whether a person may read a table, and why
#[utoipa::path(get, path = "/api/permissions/check", tag = "permissions", params(CheckParams), responses(
    (status = 200, description = "The answer", body = CheckAnswer),
    ForAdmins,
    (status = 400, description = "The person is not clear", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "There is no such person", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is missing", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn check(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<CheckParams>,
) -> Result<Json<CheckAnswer>, Problem> {
    let found = app.engine().identity().check_permission(&ctx, &params.user, &params.dataset).await?;
    Ok(Json(CheckAnswer {
        allowed: found.allowed,
        reason: found.reason,
        via_groups: found.via_groups.into_iter().map(ViaGroupAnswer::from).collect(),
    }))
}

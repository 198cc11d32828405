//! The groups of one person, and what they open. For admins, and for oneself.

use agnes_core::identity::{EffectiveAccess, Membership};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::group_of;
use crate::caller::Caller;
use crate::extract::{self, Path};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// A group of a user, and how they got in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MembershipAnswer {
    /// The group.
    group_id: String,
    /// Its name.
    group_name: String,
    /// Seeded by Agnes.
    is_system: bool,
    /// `system`, `google_sync` or `custom`.
    origin: String,
    /// How they got in: `admin`, `google_sync`, `system_seed` or `cli_break_glass`.
    source: &'static str,
    /// When, ISO 8601.
    added_at: Option<String>,
    /// By whom.
    added_by: Option<String>,
}

impl From<Membership> for MembershipAnswer {
    fn from(row: Membership) -> Self {
        Self {
            group_id: row.group_id,
            group_name: row.group_name,
            is_system: row.is_system,
            origin: row.origin,
            source: row.source.as_str(),
            added_at: row.added_at.map(time),
            added_by: row.added_by,
        }
    }
}

/// The groups of a user
#[utoipa::path(get, path = "/api/admin/users/{user_id}/memberships", tag = "access",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "By name", body = Vec<MembershipAnswer>),
    ForAdmins,
    (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<MembershipAnswer>>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let rows = app.engine().identity().memberships(&ctx, &user.id).await?;
    Ok(Json(rows.into_iter().map(MembershipAnswer::from).collect()))
}

/// A group to add somebody to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMembership {
    /// The group.
    group_id: String,
}

/// Add a user to a group
#[utoipa::path(post, path = "/api/admin/users/{user_id}/memberships", tag = "access",
    params(("user_id" = String, Path, description = "Their id or address")), request_body = NewMembership, responses(
    (status = 201, description = "They are a member", body = MembershipAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group or user", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "They are one already, or a directory keeps the group", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn add(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(new): extract::Json<NewMembership>,
) -> Result<(StatusCode, Json<MembershipAnswer>), Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let group = group_of(&app, &ctx, &new.group_id).await?.group;
    let made = app.engine().identity().add_member(&ctx, &group.id, &user.id).await?;
    Ok((StatusCode::CREATED, Json(Membership::of(made, &group).into())))
}

/// Take a user out of a group
#[utoipa::path(delete, path = "/api/admin/users/{user_id}/memberships/{group_id}", tag = "access",
    params(("user_id" = String, Path, description = "Their id or address"), ("group_id" = String, Path, description = "Its id")),
    responses(
    (status = 204, description = "They are out"),
    ForAdmins,
    (status = 404, description = "They are none, or a directory keeps them in", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "They are the last Admin", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path((id, group)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let group = group_of(&app, &ctx, &group).await?.group;
    app.engine().identity().remove_member(&ctx, &group.id, &user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A group that opens a resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViaGroupAnswer {
    /// Its id.
    group_id: String,
    /// Its name.
    group_name: String,
}

impl From<agnes_core::identity::ViaGroup> for ViaGroupAnswer {
    fn from(via: agnes_core::identity::ViaGroup) -> Self {
        Self { group_id: via.group_id, group_name: via.group_name }
    }
}

/// A resource that is open.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenResource {
    /// What kind of resource.
    resource_type: &'static str,
    /// Which one.
    resource_id: String,
    /// The groups that open it.
    via_groups: Vec<ViaGroupAnswer>,
}

/// What one person may use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EffectiveAccessAnswer {
    /// Members of Admin pass every check; `items` lists explicit grants only.
    is_admin: bool,
    /// By type and id.
    items: Vec<OpenResource>,
}

impl From<EffectiveAccess> for EffectiveAccessAnswer {
    fn from(access: EffectiveAccess) -> Self {
        let item = |item: agnes_core::identity::EffectiveItem| OpenResource {
            resource_type: item.resource_type.as_str(),
            resource_id: item.resource_id,
            via_groups: item.via_groups.into_iter().map(ViaGroupAnswer::from).collect(),
        };
        Self { is_admin: access.is_admin, items: access.items.into_iter().map(item).collect() }
    }
}

/// What a person may use, and through which groups
#[utoipa::path(get, path = "/api/admin/users/{user_id}/effective-access", tag = "access",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "What they may use", body = EffectiveAccessAnswer),
    ForAdmins,
    (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn effective_access(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<EffectiveAccessAnswer>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    Ok(Json(app.engine().identity().effective_access(&ctx, &user.id).await?.into()))
}

/// What the caller may use, and through which groups
#[utoipa::path(get, path = "/api/me/effective-access", tag = "me", responses(
    (status = 200, description = "What they may use", body = EffectiveAccessAnswer),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn my_access(
    State(app): State<App>,
    Caller(ctx): Caller,
) -> Result<Json<EffectiveAccessAnswer>, Problem> {
    Ok(Json(app.engine().identity().my_access(&ctx).await?.into()))
}

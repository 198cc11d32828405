//! Groups, members, grants, and what they open. For admins.

use agnes_core::CallContext;
use agnes_core::identity::{GrantFilter, GrantRow, GroupRow, MemberRow};
use agnes_core::rbac::ResourceType;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// The group with exactly this id. Names and prefixes are for people who type.
pub(super) async fn group_of(app: &App, ctx: &CallContext, id: &str) -> Result<GroupRow, Problem> {
    Ok(app.engine().identity().group(ctx, id).await?)
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupAnswer {
    /// Its id.
    id: String,
    /// Its name.
    #[schema(example = "analysts")]
    name: String,
    /// For people.
    description: Option<String>,
    /// Seeded by Agnes: cannot be renamed or deleted.
    is_system: bool,
    /// `system`, `google_sync` or `custom`.
    origin: String,
    /// When it was made, ISO 8601.
    created_at: Option<String>,
    /// Who made it.
    created_by: Option<String>,
    /// How many members it has.
    member_count: usize,
    /// How many grants it has.
    grant_count: usize,
    /// Whether a directory keeps its members.
    is_google_managed: bool,
    /// The directory's group that this system group is.
    mapped_email: Option<String>,
}

impl From<GroupRow> for GroupAnswer {
    fn from(row: GroupRow) -> Self {
        Self {
            mapped_email: row.mapped_email,
            is_google_managed: row.group.is_from_directory(),
            id: row.group.id,
            name: row.group.name,
            description: row.group.description,
            is_system: row.group.is_system,
            origin: row.origin,
            created_at: row.group.created_at.map(time),
            created_by: row.group.created_by,
            member_count: row.member_count,
            grant_count: row.grant_count,
        }
    }
}

/// The groups
#[utoipa::path(get, path = "/api/admin/groups", tag = "access", responses(
    (status = 200, description = "System groups first, then by name", body = Vec<GroupAnswer>),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn groups(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Vec<GroupAnswer>>, Problem> {
    Ok(Json(app.engine().identity().groups(&ctx).await?.into_iter().map(GroupAnswer::from).collect()))
}

/// A group to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    /// Unique, whatever its case.
    name: String,
    /// For people.
    description: Option<String>,
}

/// Make a group
#[utoipa::path(post, path = "/api/admin/groups", tag = "access", request_body = NewGroup, responses(
    (status = 201, description = "It is made", body = GroupAnswer),
    ForAdmins, WithBody,
    (status = 409, description = "There is one of this name", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create_group(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewGroup>,
) -> Result<(StatusCode, Json<GroupAnswer>), Problem> {
    let made = app.engine().identity().create_group(&ctx, &new.name, new.description.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(group_of(&app, &ctx, &made.id).await?.into())))
}

/// One group
#[utoipa::path(get, path = "/api/admin/groups/{group_id}", tag = "access",
    params(("group_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The group", body = GroupAnswer),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn group(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<GroupAnswer>, Problem> {
    Ok(Json(group_of(&app, &ctx, &id).await?.into()))
}

/// What to change of a group; what is not there stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupPatch {
    /// Unique, whatever its case.
    name: Option<String>,
    /// For people.
    description: Option<String>,
}

/// Change a group
///
/// A system group keeps its name, and so does one that a directory keeps.
#[utoipa::path(patch, path = "/api/admin/groups/{group_id}", tag = "access",
    params(("group_id" = String, Path, description = "Its id")), request_body = GroupPatch, responses(
    (status = 200, description = "The group", body = GroupAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "The name is taken, or cannot be changed", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn update_group(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(patch): extract::Json<GroupPatch>,
) -> Result<Json<GroupAnswer>, Problem> {
    let found = group_of(&app, &ctx, &id).await?;
    let (name, description) = (patch.name.as_deref(), patch.description.as_deref());
    app.engine().identity().update_group(&ctx, &found.group.id, name, description).await?;
    Ok(Json(group_of(&app, &ctx, &id).await?.into()))
}

/// Delete a group
///
/// With its members and grants.
#[utoipa::path(delete, path = "/api/admin/groups/{group_id}", tag = "access",
    params(("group_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is a system group", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn delete_group(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let found = group_of(&app, &ctx, &id).await?;
    app.engine().identity().delete_group(&ctx, &found.group.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A member of a group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberAnswer {
    /// The person.
    user_id: String,
    /// Their address.
    email: String,
    /// Their name.
    name: Option<String>,
    /// Whether they are active.
    active: bool,
    /// How they got in: `admin`, `google_sync`, `system_seed` or `cli_break_glass`.
    source: &'static str,
    /// When, ISO 8601.
    added_at: Option<String>,
    /// By whom.
    added_by: Option<String>,
}

impl From<MemberRow> for MemberAnswer {
    fn from(row: MemberRow) -> Self {
        Self {
            user_id: row.user_id,
            email: row.email,
            name: row.name,
            active: row.active,
            source: row.source.as_str(),
            added_at: row.added_at.map(time),
            added_by: row.added_by,
        }
    }
}

/// Members of a group
#[utoipa::path(get, path = "/api/admin/groups/{group_id}/members", tag = "access",
    params(("group_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The members, by address", body = Vec<MemberAnswer>),
    ForAdmins,
    (status = 404, description = "There is no such group", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn members(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<MemberAnswer>>, Problem> {
    let found = group_of(&app, &ctx, &id).await?;
    let members = app.engine().identity().members(&ctx, &found.group.id).await?;
    Ok(Json(members.into_iter().map(MemberAnswer::from).collect()))
}

/// Somebody to add: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    /// Their address.
    email: Option<String>,
    /// Their id.
    user_id: Option<String>,
}

/// Add a member
#[utoipa::path(post, path = "/api/admin/groups/{group_id}/members", tag = "access",
    params(("group_id" = String, Path, description = "Its id")), request_body = NewMember, responses(
    (status = 201, description = "They are a member", body = MemberAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group or user", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "They are one already", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn add_member(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(new): extract::Json<NewMember>,
) -> Result<(StatusCode, Json<MemberAnswer>), Problem> {
    let found = group_of(&app, &ctx, &id).await?;
    let (Some(reference), true) =
        (new.user_id.as_ref().or(new.email.as_ref()), new.user_id.is_none() || new.email.is_none())
    else {
        return Err(Problem::invalid(&["body"], "either `email` or `user_id` is expected", "value_error"));
    };
    let user = app.engine().identity().exact_user(&ctx, reference).await?;
    let member = app.engine().identity().add_member(&ctx, &found.group.id, &user.id).await?;
    Ok((StatusCode::CREATED, Json(MemberRow::of(member, Some(&user)).into())))
}

/// Take a member out
#[utoipa::path(delete, path = "/api/admin/groups/{group_id}/members/{user_id}", tag = "access",
    params(("group_id" = String, Path, description = "Its id"), ("user_id" = String, Path, description = "Their id")),
    responses(
    (status = 204, description = "They are out"),
    ForAdmins,
    (status = 404, description = "They are none, or a directory keeps them in", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "They are the last Admin", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove_member(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path((id, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let found = group_of(&app, &ctx, &id).await?;
    let user = app.engine().identity().exact_user(&ctx, &user).await?;
    app.engine().identity().remove_member(&ctx, &found.group.id, &user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A grant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantAnswer {
    /// Its id.
    id: String,
    /// The group.
    group_id: String,
    /// Its name.
    group_name: String,
    /// `table`, `marketplace_plugin` or `memory_domain`.
    resource_type: &'static str,
    /// Which one.
    resource_id: String,
    /// Whether there is one now.
    resource_exists: bool,
    /// When it was made, ISO 8601.
    assigned_at: Option<String>,
    /// By whom.
    assigned_by: Option<String>,
}

impl From<GrantRow> for GrantAnswer {
    fn from(row: GrantRow) -> Self {
        Self {
            id: row.grant.id,
            group_id: row.grant.group_id,
            group_name: row.group_name,
            resource_type: row.grant.resource_type.as_str(),
            resource_id: row.grant.resource_id,
            resource_exists: row.resource_exists,
            assigned_at: row.grant.assigned_at.map(time),
            assigned_by: row.grant.assigned_by,
        }
    }
}

/// Which grants.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantParams {
    /// Of this kind of resource.
    resource_type: Option<String>,
    /// Of this group, by id.
    group_id: Option<String>,
    /// Of this resource.
    resource_id: Option<String>,
}

/// The grants
#[utoipa::path(get, path = "/api/admin/grants", tag = "access", params(GrantParams), responses(
    (status = 200, description = "The grants", body = Vec<GrantAnswer>),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn grants(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<GrantParams>,
) -> Result<Json<Vec<GrantAnswer>>, Problem> {
    let GrantParams { resource_type, group_id, resource_id } = params;
    let filter = GrantFilter { group_id, resource_type, resource_id };
    let grants = app.engine().identity().grants_where(&ctx, &filter).await?;
    Ok(Json(grants.into_iter().map(GrantAnswer::from).collect()))
}

/// A grant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGrant {
    /// The group.
    group_id: String,
    /// `table`, `marketplace_plugin` or `memory_domain`.
    #[schema(example = "table")]
    resource_type: String,
    /// Which one. It need not be there yet.
    resource_id: String,
}

/// Open a resource to a group
#[utoipa::path(post, path = "/api/admin/grants", tag = "access", request_body = NewGrant, responses(
    (status = 201, description = "It is open from the next call on", body = GrantAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is open already", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create_grant(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewGrant>,
) -> Result<(StatusCode, Json<GrantAnswer>), Problem> {
    let found = group_of(&app, &ctx, &new.group_id).await?;
    let kind = ResourceType::parse(&new.resource_type)?;
    let made = app.engine().identity().grant(&ctx, &found.group.id, kind, &new.resource_id).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Take a grant back
///
/// It is gone from the next call on.
#[utoipa::path(delete, path = "/api/admin/grants/{grant_id}", tag = "access",
    params(("grant_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn delete_grant(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().identity().revoke_exact(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

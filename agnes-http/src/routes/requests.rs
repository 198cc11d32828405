//! Asking for access, and answering.

use agnes_core::identity::{AccessRequest, Approval, GroupWithGrant, PendingRequest, RequestStatus};
use agnes_core::policy::AccessPreview;
use agnes_core::rbac::ResourceType;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::group_of;
use super::activity::fifty;
use super::memberships::ViaGroupAnswer;
use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// Somebody asks for a resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RequestAnswer {
    /// Its id.
    id: String,
    /// Who asks.
    user_id: String,
    /// `table`, `marketplace_plugin` or `memory_domain`.
    #[schema(example = "table")]
    resource_type: &'static str,
    /// For which one, as they wrote it.
    #[schema(example = "orders")]
    resource_id: String,
    /// Why.
    reason: Option<String>,
    /// `pending`, `approved`, `denied` or `cancelled`.
    #[schema(example = "pending")]
    status: &'static str,
    /// When, ISO 8601.
    created_at: String,
    /// Who decided.
    reviewed_by: Option<String>,
    /// When, ISO 8601.
    reviewed_at: Option<String>,
    /// With which words.
    review_note: Option<String>,
    /// The group that got the grant.
    group_id: Option<String>,
}

impl From<AccessRequest> for RequestAnswer {
    fn from(request: AccessRequest) -> Self {
        Self {
            id: request.id,
            user_id: request.user_id,
            resource_type: request.resource_type.as_str(),
            resource_id: request.resource_id,
            reason: request.reason,
            status: request.status.as_str(),
            created_at: time(request.created_at),
            reviewed_by: request.reviewed_by,
            reviewed_at: request.reviewed_at.map(time),
            review_note: request.review_note,
            group_id: request.group_id,
        }
    }
}

/// What to ask for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRequest {
    /// `table`, `marketplace_plugin` or `memory_domain`.
    #[serde(default = "table")]
    resource_type: String,
    /// Which one. Whether it exists is not told.
    #[schema(example = "orders")]
    resource_id: String,
    /// Why, at most 2,000 characters.
    reason: Option<String>,
}

fn table() -> String {
    ResourceType::Table.as_str().to_owned()
}

/// Ask for access
///
/// An admin decides. At most 20 requests of one person wait for an answer.
#[utoipa::path(post, path = "/api/access-requests", tag = "access requests", request_body = NewRequest, responses(
    (status = 201, description = "It waits for an answer", body = RequestAnswer),
    ForUsers, WithBody,
    (status = 404, description = "Nobody can ask here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It was asked for already, or is granted", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many wait", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn ask(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewRequest>,
) -> Result<(StatusCode, Json<RequestAnswer>), Problem> {
    let kind = ResourceType::parse(&new.resource_type)?;
    let made = app.engine().access_requests().ask(&ctx, kind, &new.resource_id, new.reason.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Which requests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RequestParams {
    /// `pending`, `approved`, `denied` or `cancelled`.
    status: Option<String>,
    /// At most this many, 1 to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default = "fifty")]
    limit: usize,
    /// After this many.
    #[serde(default)]
    offset: usize,
}

/// Which requests that wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PendingParams {
    /// At most this many, 1 to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default = "fifty")]
    limit: usize,
    /// After this many.
    #[serde(default)]
    offset: usize,
}

/// The caller's requests
#[utoipa::path(get, path = "/api/access-requests", tag = "access requests", params(RequestParams), responses(
    (status = 200, description = "Newest first", body = Vec<RequestAnswer>),
    ForUsers,
    (status = 404, description = "Nobody can ask here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn mine(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<RequestParams>,
) -> Result<Json<Vec<RequestAnswer>>, Problem> {
    extract::within("limit", params.limit, 1000)?;
    let status = match params.status.as_deref().map(RequestStatus::parse) {
        Some(None) => {
            let known = "`pending`, `approved`, `denied` or `cancelled`";
            return Err(Problem::invalid(&["query", "status"], known, "value_error"));
        }
        Some(status) => status,
        None => None,
    };
    let rows = app.engine().access_requests().mine(&ctx, status, params.limit, params.offset).await?;
    Ok(Json(rows.into_iter().map(RequestAnswer::from).collect()))
}

/// Take a request back
#[utoipa::path(delete, path = "/api/access-requests/{request_id}", tag = "access requests",
    params(("request_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "Nobody has to answer it"),
    ForUsers,
    (status = 404, description = "The caller has none such", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It was answered", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().access_requests().cancel(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A group that has a resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupHaving {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// How many active people are in it.
    member_count: usize,
}

/// A request with what a reviewer wants to know.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingAnswer {
    #[serde(flatten)]
    request: RequestAnswer,
    /// Address of who asks.
    user_email: String,
    /// Their name.
    user_name: Option<String>,
    /// Their groups.
    user_groups: Vec<ViaGroupAnswer>,
    /// Groups that have the resource.
    groups_with_grant: Vec<GroupHaving>,
    /// Whether it names anything.
    resource_exists: bool,
}

impl From<PendingRequest> for PendingAnswer {
    fn from(row: PendingRequest) -> Self {
        let having = |group: GroupWithGrant| {
            let GroupWithGrant { id, name, member_count } = group;
            GroupHaving { id, name, member_count }
        };
        Self {
            user_email: row.user_email,
            user_name: row.user_name,
            user_groups: row.user_groups.into_iter().map(ViaGroupAnswer::from).collect(),
            groups_with_grant: row.groups_with_grant.into_iter().map(having).collect(),
            resource_exists: row.resource_exists,
            request: row.request.into(),
        }
    }
}

/// Requests that wait for an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pending {
    /// Newest first.
    items: Vec<PendingAnswer>,
    /// How many there are.
    total: usize,
}

/// Requests that wait for an answer
#[utoipa::path(get, path = "/api/access-requests/pending", tag = "access requests", params(PendingParams), responses(
    (status = 200, description = "The requests", body = Pending),
    ForAdmins,
    (status = 404, description = "Nobody can ask here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn pending(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PendingParams>,
) -> Result<Json<Pending>, Problem> {
    extract::within("limit", params.limit, 1000)?;
    let (items, total) = app.engine().access_requests().pending(&ctx, params.limit, params.offset).await?;
    Ok(Json(Pending { items: items.into_iter().map(PendingAnswer::from).collect(), total }))
}

/// With which group an approval would be.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PreviewParams {
    /// Id of the group that would get the grant, and who asks with it.
    group_id: String,
}

/// What an approval would do, or did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalAnswer {
    /// Whether who asks becomes a member of the group.
    membership_added: bool,
    /// Whether the group gets the grant.
    grant_added: bool,
    /// Active people who can use the resource by it and could not before.
    people_gaining_access: usize,
    /// Ids of other tables that come to who asks with the membership.
    other_tables: Vec<String>,
}

impl From<Approval> for ApprovalAnswer {
    fn from(approval: Approval) -> Self {
        Self {
            membership_added: approval.given.membership_added,
            grant_added: approval.given.grant_added,
            people_gaining_access: approval.people_gaining_access,
            other_tables: approval.other_tables,
        }
    }
}

/// What an approval would do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewAnswer {
    #[serde(flatten)]
    approval: ApprovalAnswer,
    /// Who would see which part of the table; null for what is no table, or not there.
    preview: Option<AccessPreview>,
}

/// What approving a request would do
///
/// Nothing is changed.
#[utoipa::path(get, path = "/api/access-requests/{request_id}/preview", tag = "access requests",
    params(("request_id" = String, Path, description = "Its id"), PreviewParams), responses(
    (status = 200, description = "What it would do", body = PreviewAnswer),
    ForAdmins,
    (status = 404, description = "There is no such request or group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It was answered, or a directory keeps the group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is missing", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn preview(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    Query(params): Query<PreviewParams>,
) -> Result<Json<PreviewAnswer>, Problem> {
    let group = group_of(&app, &ctx, &params.group_id).await?.group;
    let found = app.engine().access_requests().preview(&ctx, &id, &group.id).await?;
    Ok(Json(PreviewAnswer { approval: found.approval.into(), preview: found.preview }))
}

/// How to approve a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveBody {
    /// The group that gets the grant, and who asks with it.
    group_id: String,
    /// Words for who asks, at most 2,000 characters.
    note: Option<String>,
}

/// A request that was approved.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approved {
    #[serde(flatten)]
    request: RequestAnswer,
    #[serde(flatten)]
    approval: ApprovalAnswer,
}

/// Approve a request
///
/// Who asks becomes a member of the group, and the group gets the grant, as far as either is
/// missing; all of it or nothing.
#[utoipa::path(post, path = "/api/access-requests/{request_id}/approve", tag = "access requests",
    params(("request_id" = String, Path, description = "Its id")), request_body = ApproveBody, responses(
    (status = 200, description = "It is open from the next call on", body = Approved),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such request or group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It was answered, or a directory keeps the group", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn approve(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(body): extract::Json<ApproveBody>,
) -> Result<Json<Approved>, Problem> {
    let group = group_of(&app, &ctx, &body.group_id).await?.group;
    let (request, approval) =
        app.engine().access_requests().approve(&ctx, &id, &group.id, body.note.as_deref()).await?;
    Ok(Json(Approved { request: request.into(), approval: approval.into() }))
}

/// How to refuse a request.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenyBody {
    /// Words for who asks, at most 2,000 characters.
    note: Option<String>,
}

/// Refuse a request
#[utoipa::path(post, path = "/api/access-requests/{request_id}/deny", tag = "access requests",
    params(("request_id" = String, Path, description = "Its id")), request_body = Option<DenyBody>, responses(
    (status = 200, description = "It is refused", body = RequestAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It was answered", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn deny(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::MaybeJson(body): extract::MaybeJson<DenyBody>,
) -> Result<Json<RequestAnswer>, Problem> {
    Ok(Json(app.engine().access_requests().deny(&ctx, &id, body.note.as_deref()).await?.into()))
}

//! What is left of a table for a group. For admins.

use agnes_core::policy::{AccessChange, AccessPreview, PolicyCheck, PolicyRow, PolicyRules, PolicyVersion};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;

/// Which policies.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PolicyParams {
    /// Of this table, by id or name.
    table: Option<String>,
    /// Of this group, by id.
    group_id: Option<String>,
}

/// The policies
#[utoipa::path(get, path = "/api/admin/policies", tag = "policies", params(PolicyParams), responses(
    (status = 200, description = "By table and group", body = Vec<PolicyRow>),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PolicyParams>,
) -> Result<Json<Vec<PolicyRow>>, Problem> {
    Ok(Json(app.engine().policies().of(&ctx, params.table.as_deref(), params.group_id.as_deref()).await?))
}

/// A policy to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPolicy {
    /// The group, by id.
    group_id: String,
    /// The table, by id or name.
    table: String,
    /// What it says: `filter`, `columns`, `mapping_tables`, `applies_to_admin`, `distribution`, `note`.
    rules: PolicyRules,
}

/// Make a policy
///
/// Once it is shown to work on the data as it is now.
#[utoipa::path(post, path = "/api/admin/policies", tag = "policies", request_body = NewPolicy, responses(
    (status = 201, description = "It holds from the next call on", body = PolicyRow),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group or table", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "The group has one for this table", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewPolicy>,
) -> Result<(StatusCode, Json<PolicyRow>), Problem> {
    let group = super::access::group_of(&app, &ctx, &new.group_id).await?;
    let made = app.engine().policies().create(&ctx, &group.group.id, &new.table, new.rules).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// One policy
#[utoipa::path(get, path = "/api/admin/policies/{policy_id}", tag = "policies",
    params(("policy_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The policy", body = PolicyRow),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn get(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<PolicyRow>, Problem> {
    Ok(Json(app.engine().policies().exact(&ctx, &id).await?))
}

/// Other rules for a policy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyChange {
    /// What it shall say.
    rules: PolicyRules,
    /// The version that the change was made from; another one is a conflict.
    expected_version: Option<u32>,
}

/// Change a policy
#[utoipa::path(put, path = "/api/admin/policies/{policy_id}", tag = "policies",
    params(("policy_id" = String, Path, description = "Its id")), request_body = PolicyChange, responses(
    (status = 200, description = "It holds from the next call on", body = PolicyRow),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "Somebody changed it meanwhile", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn update(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(change): extract::Json<PolicyChange>,
) -> Result<Json<PolicyRow>, Problem> {
    let policies = app.engine().policies();
    let found = policies.exact_to_change(&ctx, &id).await?;
    Ok(Json(policies.update(&ctx, &found.policy.id, change.rules, change.expected_version).await?))
}

/// Remove a policy
#[utoipa::path(delete, path = "/api/admin/policies/{policy_id}", tag = "policies",
    params(("policy_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let found = app.engine().policies().exact_to_change(&ctx, &id).await?;
    app.engine().policies().remove(&ctx, &found.policy.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a policy said, and when
#[utoipa::path(get, path = "/api/admin/policies/{policy_id}/history", tag = "policies",
    params(("policy_id" = String, Path, description = "Its id; also of one that is gone")), responses(
    (status = 200, description = "Newest first", body = Vec<PolicyVersion>),
    ForAdmins,
    (status = 404, description = "There never was one", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn history(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<PolicyVersion>>, Problem> {
    Ok(Json(app.engine().policies().history(&ctx, &id).await?))
}

/// Which policy to try.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidateRequest {
    /// Its id; all without one.
    policy_id: Option<String>,
}

/// Try policies on the data as it is now
#[utoipa::path(post, path = "/api/admin/policies/validate", tag = "policies", request_body = Option<ValidateRequest>, responses(
    (status = 200, description = "Whether each works", body = Vec<PolicyCheck>),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn validate(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::MaybeJson(request): extract::MaybeJson<ValidateRequest>,
) -> Result<Json<Vec<PolicyCheck>>, Problem> {
    let id = match &request.policy_id {
        Some(id) => Some(app.engine().policies().exact(&ctx, id).await?.policy.id),
        None => None,
    };
    Ok(Json(app.engine().policies().check(&ctx, id.as_deref()).await?))
}

/// Look at a change before it is made
///
/// Who would see something else, and how much. Nothing is changed.
#[utoipa::path(post, path = "/api/admin/policies/dry-run", tag = "policies",
    request_body = AccessChange, responses(
    (status = 200, description = "Who would see what", body = AccessPreview),
    ForAdmins, WithBody,
    (status = 404, description = "Something it names is not there", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It could not be made", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn dry_run(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(change): extract::Json<AccessChange>,
) -> Result<Json<AccessPreview>, Problem> {
    Ok(Json(app.engine().policies().preview(&ctx, change).await?))
}

//! Where data comes from: the sources of the server.

use agnes_core::connector::CheckItem;
use agnes_core::orchestrator::SourceOutcome;
use agnes_core::registry::{NewSource, SourceAdded, SourceRow};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;

/// The sources
///
/// For admins, by name: those that were added, and extracts that others write.
#[utoipa::path(get, path = "/api/admin/sources", tag = "sources", responses(
    (status = 200, description = "The sources", body = Vec<SourceRow>),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Vec<SourceRow>>, Problem> {
    Ok(Json(app.engine().sources().list(&ctx).await?))
}

/// Add a source
///
/// For admins in person. It is asked for its tables, which are registered; their data comes with a
/// sync. Refused are settings that are for whoever runs the server's machine: files of it, and hosts
/// and variables with secrets that its operator did not list.
#[utoipa::path(post, path = "/api/admin/sources", tag = "sources", request_body = NewSource, responses(
    (status = 201, description = "It is added", body = SourceAdded),
    ForAdmins, WithBody,
    (status = 409, description = "A source of that name is there", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "It does not list its tables", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn add(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewSource>,
) -> Result<(StatusCode, Json<SourceAdded>), Problem> {
    Ok((StatusCode::CREATED, Json(app.engine().sources().add(&ctx, new).await?)))
}

/// What goes with a source.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// Delete what was read from it as well; else its tables stay published.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    drop_data: bool,
}

/// Remove a source
///
/// For admins in person. Its tables leave the registry, with their grants.
#[utoipa::path(delete, path = "/api/admin/sources/{source}", tag = "sources",
    params(("source" = String, Path, description = "Its name"), RemoveParams), responses(
    (status = 204, description = "It is removed"),
    ForAdmins,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A sync of it runs", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(name): Path<String>,
    Query(params): Query<RemoveParams>,
) -> Result<StatusCode, Problem> {
    app.engine().sources().remove(&ctx, &name, params.drop_data).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Check that a source answers
///
/// For admins: with the settings that are kept of it.
#[utoipa::path(post, path = "/api/admin/sources/{source}/check", tag = "sources",
    params(("source" = String, Path, description = "Its name")), responses(
    (status = 200, description = "What was found; a source that does not answer is a finding", body = Vec<CheckItem>),
    ForAdmins,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "Nothing here reads sources of its kind", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn check(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<CheckItem>>, Problem> {
    Ok(Json(app.engine().sources().check(&ctx, &name).await?))
}

/// Publish what the extract of a source holds
///
/// For admins. As `/api/admin/registry/rebuild`, of one source.
#[utoipa::path(post, path = "/api/admin/sources/{source}/rebuild", tag = "sources",
    params(("source" = String, Path, description = "Its name")), responses(
    (status = 200, description = "What became of it", body = SourceOutcome),
    ForAdmins,
    (status = 404, description = "It has no extract", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The disk is full", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn rebuild(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(name): Path<String>,
) -> Result<Json<SourceOutcome>, Problem> {
    Ok(Json(app.engine().orchestrator().rebuild_source(&ctx, &name).await?))
}

//! How the parts of the server are.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::instance::{Version, build};
use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::ForUsers;
use crate::problem::Problem;
use crate::state::{App, now};

/// What to look at besides.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DetailParams {
    /// `schema`: the version of the state's schema.
    include: Option<String>,
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    /// `healthy`, `degraded` or `unhealthy`.
    #[schema(example = "healthy")]
    status: &'static str,
    #[serde(flatten)]
    build: Version,
    /// When this was found, ISO 8601.
    timestamp: String,
    /// The parts by name, each with a `status`; for admins and the service alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Value>,
}

/// How the server and its parts are
///
/// Everybody may know how it is as a whole, admins and the service which part is not well.
#[utoipa::path(get, path = "/api/health/detailed", tag = "health", params(DetailParams), responses(
    (status = 200, description = "How it is", body = Detail),
    ForUsers,
    (status = 422, description = "A parameter is not valid", body = crate::openapi::ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn detailed(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<DetailParams>,
) -> Result<Json<Detail>, Problem> {
    let with_schema = params.include.as_deref() == Some("schema");
    let report = app.engine().maintenance().services(&ctx, with_schema, app.health().answers_queries()).await?;
    Ok(Json(Detail { status: report.status, build: build(&app), timestamp: now(), services: report.services }))
}

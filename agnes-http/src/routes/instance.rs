//! What everybody may know of the server.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::openapi::{ForUsers, ProblemShape};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::state::App;

/// Which build this is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Where the build came from, as its deployment says.
    channel: Option<String>,
    /// Tag of the container image.
    image_tag: Option<String>,
    /// Commit it was built from.
    commit_sha: Option<String>,
    /// Version of the state's schema.
    schema_version: i32,
    /// When it was deployed.
    deployed_at: Option<String>,
}

/// Which build this is
#[utoipa::path(get, path = "/api/version", tag = "health", responses((status = 200, description = "The build", body = Version)))]
pub(crate) async fn version(State(app): State<App>) -> Json<Version> {
    let build = app.limits().build.clone();
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        channel: build.channel,
        image_tag: build.image_tag,
        commit_sha: build.commit_sha,
        schema_version: agnes_core::store::STATE_SCHEMA_VERSION,
        deployed_at: build.deployed_at,
    })
}

/// Figures for Prometheus
///
/// For the machine itself, the service and admins.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Figures", body = String, content_type = "application/openmetrics-text"),
    (status = 403, description = "Not from here", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn metrics(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !peer.is_some_and(|Extension(peer)| peer.is_this_machine(&headers)) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "admin_required", "figures are for this machine alone"));
    }
    let engine = app.engine();
    let text = app.meters().text(engine.published(), engine.audit().failures()).map_err(|_| Problem::internal())?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The description of this API
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn openapi(_: Caller) -> Json<utoipa::openapi::OpenApi> {
    Json(crate::openapi::document())
}

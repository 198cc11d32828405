//! What everybody may know of the server.

use std::time::Duration;

use agnes_core::rbac::Ability;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::meters::Figures;
use crate::openapi::{ForAdmins, ForUsers, ProblemShape};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::state::App;

/// Which build this is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Of the server.
    #[schema(example = "0.1.0")]
    version: String,
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
    Json(build(&app))
}

/// Which build this is.
pub(super) fn build(app: &App) -> Version {
    let build = app.limits().build.clone();
    Version {
        version: build.version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        channel: build.channel,
        image_tag: build.image_tag,
        commit_sha: build.commit_sha,
        schema_version: agnes_core::store::STATE_SCHEMA_VERSION,
        deployed_at: build.deployed_at,
    }
}

/// Figures for Prometheus
///
/// For programs on the machine itself, the service, and admins.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Figures", body = String, content_type = "application/openmetrics-text"),
    ForAdmins,
), security((), ("bearer" = []), ("session" = [])))]
pub(crate) async fn metrics(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    caller: Result<Caller, Problem>,
) -> Result<Response, Problem> {
    let engine = app.engine();
    if !peer.is_some_and(|Extension(peer)| peer.is_this_machine(&headers)) {
        engine.maintenance().require_operator(&caller?.0).await?;
    }
    // The other figures are needed most where the state does not answer.
    let tick = tokio::time::timeout(Duration::from_secs(1), engine.last_scheduler_tick()).await;
    let figures = Figures {
        generation: engine.published(),
        audit_failures: engine.audit().failures(),
        mails: engine.mails().status(),
        synced: engine.sync().counted(),
        last_tick: tick.ok().and_then(|tick| tick.ok().flatten()).map(|tick| tick.last),
    };
    let text = app.meters().text(&figures).map_err(|_| Problem::internal())?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Fail
///
/// With `DEBUG=1` alone: it shows what a failure of the server looks like, and where it is logged.
#[utoipa::path(get, path = "/api/debug/throw", tag = "health", responses(
    (status = 404, description = "Not without `DEBUG=1`", body = ProblemShape, content_type = "application/problem+json"),
    (status = 500, description = "It failed", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn throw(State(app): State<App>) -> Problem {
    if app.limits().debug {
        return agnes_core::Error::internal("fail on purpose", "somebody asked for it").into();
    }
    Problem::not_found()
}

/// The description of this API
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn openapi(Caller(ctx): Caller) -> Result<Json<&'static serde_json::Value>, Problem> {
    ctx.principal().require(Ability::Everything)?;
    Ok(Json(crate::openapi::document()))
}

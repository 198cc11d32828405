//! The warm-up of what is kept of tables that stay in warehouses.

use std::convert::Infallible;

use agnes_core::query::{WarmUp, WarmUpBegun};
use axum::Json;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::openapi::ForAdmins;
use crate::problem::Problem;
use crate::state::App;

/// Begin a warm-up
///
/// Has warehouses asked about every table that stays there, in the background.
#[utoipa::path(post, path = "/api/admin/cache-warmup/run", tag = "sources", responses(
    (status = 200, description = "One goes on now: this one, or one that was begun before", body = WarmUpBegun),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn run(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<WarmUpBegun>, Problem> {
    Ok(Json(app.engine().warm_up(&ctx).await?))
}

/// There was none since the server started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NeverRun {
    /// Always `never_run`.
    #[schema(example = "never_run")]
    state: &'static str,
}

/// How far a warm-up is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum WarmUpStatus {
    /// One goes on, or has ended.
    Run(WarmUp),
    /// There was none.
    Never(NeverRun),
}

/// How far the warm-up is
#[utoipa::path(get, path = "/api/admin/cache-warmup/status", tag = "sources", responses(
    (status = 200, description = "The one that goes on, or the last one", body = WarmUpStatus),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn status(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<WarmUpStatus>, Problem> {
    let run = app.engine().warm_up_status(&ctx).await?;
    Ok(Json(run.map_or(WarmUpStatus::Never(NeverRun { state: "never_run" }), WarmUpStatus::Run)))
}

/// One event.
#[derive(ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct WarmUpTold {
    /// Its name.
    #[schema(example = "row")]
    event: String,
    /// What it says, in JSON.
    data: String,
}

/// Watch the warm-up
///
/// Server-sent events: `snapshot` says what the status says, `idle` that there was none; then
/// `start`, a `row` whenever a table's row changes, and `complete`, which ends it, as half a
/// minute does in which nothing happens.
#[utoipa::path(get, path = "/api/admin/cache-warmup/stream", tag = "sources", responses(
    (status = 200, description = "What happens, as it happens", body = WarmUpTold, content_type = "text/event-stream"),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn watch(
    State(app): State<App>,
    Caller(ctx): Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let events = app.engine().warm_up_events(&ctx).await?;
    let events = stream::unfold(events, async |mut events| Some((events.next().await?, events)));
    Ok(Sse::new(events.map(|(name, data)| Ok(Event::default().event(name).data(data.to_string())))))
}

//! Whether the engine answers: probed in the background, so that asking costs nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agnes_core::engine::WeakEngine;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::App;

/// How long one probe may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the last probes said.
#[derive(Debug)]
pub(crate) struct Health {
    seen: Mutex<Seen>,
    /// Time between two probes.
    every: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    state: Option<Instant>,
    query: Option<Instant>,
}

impl Health {
    pub(crate) fn probed(every: Duration) -> Self {
        Self { seen: Mutex::default(), every }
    }

    /// Whether an answer still says that the engine answers: four probes may be missing, and one
    /// may take its time.
    fn is_recent(&self, at: Option<Instant>) -> bool {
        at.is_some_and(|at| at.elapsed() < self.every * 9 / 2 + PATIENCE)
    }

    /// Asks the state and the current generation once.
    async fn probe(&self, engine: &agnes_core::Engine) {
        let state = engine.probe_state().await;
        if let Err(error) = &state {
            tracing::error!(code = error.code(), "the state does not answer: {error}");
        }
        self.note(|seen| {
            if state.is_ok() {
                seen.state = Some(Instant::now())
            }
        });
        match engine.probe_query().await {
            Ok(()) => self.note(|seen| seen.query = Some(Instant::now())),
            Err(error) => tracing::error!(code = error.code(), "a query over the catalog fails: {error}"),
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether a query was answered lately.
    pub(crate) fn answers_queries(&self) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_recent(seen.query)
    }

    /// `ok` or `unhealthy`.
    pub(crate) fn status(&self) -> &'static str {
        self.now().status
    }

    fn now(&self) -> HealthAnswer {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, query) = (self.is_recent(seen.state), self.is_recent(seen.query));
        HealthAnswer {
            status: if state && query { "ok" } else { "unhealthy" },
            db_schema: if state { "ok" } else { "unreachable" },
        }
    }
}

/// Probes until the engine is gone.
pub(crate) async fn watch(app: App) {
    let engine: WeakEngine = app.engine().downgrade();
    while let Some(engine) = engine.upgrade() {
        app.health().probe(&engine).await;
        drop(engine);
        tokio::time::sleep(app.limits().probe_every).await;
    }
}

/// Whether the server is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// `ok` or `unhealthy`.
    #[schema(example = "ok")]
    status: &'static str,
    /// `ok` or `unreachable`.
    #[schema(example = "ok")]
    db_schema: &'static str,
}

impl HealthAnswer {
    fn status(&self) -> StatusCode {
        if self.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}

/// Whether the server is well
///
/// Green only while the state and a bounded query over the published catalog answer.
#[utoipa::path(get, path = "/api/health", tag = "health", responses(
    (status = 200, description = "Well", body = HealthAnswer),
    (status = 503, description = "State or queries do not answer", body = HealthAnswer),
))]
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Json<HealthAnswer>) {
    let answer = app.health().now();
    (answer.status(), Json(answer))
}

/// Whether to send requests here
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Ready", body = HealthAnswer),
    (status = 503, description = "Not ready", body = HealthAnswer),
))]
pub(crate) async fn ready(state: State<App>) -> (StatusCode, Json<HealthAnswer>) {
    health(state).await
}

/// Whether the process lives
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It does", body = Alive)))]
pub(crate) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

//! Care of the server's data folder.

use agnes_core::maintenance::DoctorReport;
use agnes_core::orchestrator::GcReport;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::{ForAdmins, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// What is wrong with the data folder, and what to do
///
/// For admins. A thing that is wrong is a finding, not a failure.
#[utoipa::path(get, path = "/api/admin/doctor", tag = "health", responses(
    (status = 200, description = "The findings", body = DoctorReport),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn doctor(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<DoctorReport>, Problem> {
    Ok(Json(app.engine().maintenance().doctor(&ctx).await?))
}

/// Whether to do it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GcParams {
    /// Only say what would be deleted.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    dry_run: bool,
}

/// Delete old generations and what nothing refers to
///
/// For admins.
#[utoipa::path(post, path = "/api/admin/gc", tag = "health", params(GcParams), responses(
    (status = 200, description = "What is gone, or would be", body = GcReport),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn gc(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<GcParams>,
) -> Result<Json<GcReport>, Problem> {
    Ok(Json(app.engine().maintenance().gc(&ctx, params.dry_run).await?))
}

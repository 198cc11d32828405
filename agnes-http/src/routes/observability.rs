//! The audit log counted, and filters that admins keep. For admins.

use agnes_core::audit::{AuditFacets, AuditFigures, FacetValue, SavedView};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::activity::{ActivityParams, check_window, day};
use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WindowParams {
    /// Minutes.
    #[param(minimum = 1, maximum = 43200)]
    #[serde(default = "day")]
    since_minutes: i64,
}

/// A user, and how many rows are theirs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserCount {
    /// Their id.
    id: String,
    /// Their address, else their id.
    #[schema(example = "ann@example.com")]
    label: String,
    /// Rows.
    count: u64,
}

/// A value, and how many rows have it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValueCount {
    /// The value.
    #[schema(example = "query.local")]
    value: String,
    /// Rows.
    count: u64,
}

impl From<FacetValue> for ValueCount {
    fn from(facet: FacetValue) -> Self {
        Self { value: facet.value, count: facet.count }
    }
}

/// What values the rows have; the 50 most frequent of each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Facets {
    /// How far back, minutes.
    window_minutes: i64,
    /// Who.
    users: Vec<UserCount>,
    /// What.
    actions: Vec<ValueCount>,
    /// How it ended.
    results: Vec<ValueCount>,
    /// On what.
    resources: Vec<ValueCount>,
    /// Through which frontend.
    sources: Vec<ValueCount>,
}

/// What values the rows of the audit log have
#[utoipa::path(get, path = "/api/admin/observability/facets", tag = "audit", params(WindowParams), responses(
    (status = 200, description = "The values", body = Facets),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn facets(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<WindowParams>,
) -> Result<Json<Facets>, Problem> {
    let minutes = params.since_minutes;
    check_window(minutes)?;
    let since = Utc::now() - TimeDelta::minutes(minutes);
    let AuditFacets { users, actions, results, resources, sources } = app.engine().audit().facets(&ctx, since).await?;
    let user = |(user, label): (FacetValue, Option<String>)| UserCount {
        label: label.unwrap_or_else(|| user.value.clone()),
        id: user.value,
        count: user.count,
    };
    let values = |values: Vec<FacetValue>| values.into_iter().map(ValueCount::from).collect();
    Ok(Json(Facets {
        window_minutes: minutes,
        users: users.into_iter().map(user).collect(),
        actions: values(actions),
        results: values(results),
        resources: values(resources),
        sources: values(sources),
    }))
}

/// Rows of the audit log, counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Kpis {
    /// How far back, minutes.
    window_minutes: i64,
    /// Rows.
    events_total: u64,
    /// Users among them.
    active_users: u64,
    /// Rows whose result is an error.
    errors: u64,
    /// Errors among all rows, 0 to 1.
    error_rate: f64,
    /// Time that 95 of 100 rows stay below, milliseconds; null when none tells its time.
    p95_duration_ms: Option<f64>,
}

/// Rows of the audit log, counted
///
/// The filters are those of `/api/admin/activity`.
#[utoipa::path(get, path = "/api/admin/observability/kpis", tag = "audit", params(ActivityParams), responses(
    (status = 200, description = "The figures", body = Kpis),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn kpis(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(mut params): Query<ActivityParams>,
) -> Result<Json<Kpis>, Problem> {
    let filter = params.filter()?;
    let AuditFigures { events_total, active_users, errors, p95_duration_ms } =
        app.engine().audit().figures(&ctx, &filter).await?;
    #[allow(clippy::cast_precision_loss, reason = "a share of rows")]
    let error_rate = if events_total == 0 { 0.0 } else { errors as f64 / events_total as f64 };
    let window_minutes = params.minutes();
    Ok(Json(Kpis { window_minutes, events_total, active_users, errors, error_rate, p95_duration_ms }))
}

/// A filter with a name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViewAnswer {
    /// Its id.
    id: String,
    /// Its name.
    #[schema(example = "refused this week")]
    name: String,
    /// The filter, as it was kept.
    #[schema(value_type = Object)]
    query: Value,
    /// When it was made, ISO 8601.
    created_at: Option<String>,
}

impl From<SavedView> for ViewAnswer {
    fn from(view: SavedView) -> Self {
        let SavedView { id, name, query, created_at } = view;
        Self { id, name, query, created_at: created_at.map(time) }
    }
}

/// Filters of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Views {
    /// Newest first.
    views: Vec<ViewAnswer>,
}

/// The caller's saved filters
#[utoipa::path(get, path = "/api/admin/observability/views", tag = "audit", responses(
    (status = 200, description = "The filters", body = Views),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn views(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Views>, Problem> {
    let views = app.engine().audit().views(&ctx).await?;
    Ok(Json(Views { views: views.into_iter().map(ViewAnswer::from).collect() }))
}

/// A filter to keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewView {
    /// At most 80 characters.
    #[schema(example = "refused this week")]
    name: String,
    /// The filter, an object of at most 64 KiB.
    #[schema(value_type = Object)]
    query: Map<String, Value>,
}

/// Keep a filter
#[utoipa::path(post, path = "/api/admin/observability/views", tag = "audit", request_body = NewView, responses(
    (status = 201, description = "It is kept", body = ViewAnswer),
    ForAdmins, WithBody,
    (status = 409, description = "There is one of this name, or there are too many", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn save_view(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewView>,
) -> Result<(StatusCode, Json<ViewAnswer>), Problem> {
    let view = app.engine().audit().save_view(&ctx, &new.name, Value::Object(new.query)).await?;
    Ok((StatusCode::CREATED, Json(view.into())))
}

/// Remove a filter
#[utoipa::path(delete, path = "/api/admin/observability/views/{view_id}", tag = "audit",
    params(("view_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn delete_view(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().audit().delete_view(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

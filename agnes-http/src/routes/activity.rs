//! Who did what: the audit log. For admins.

use agnes_core::audit::{AuditFilter, AuditPage, NamedEvent};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{Path, Query, within};
use crate::openapi::{ForAdmins, ProblemShape};
use crate::problem::Problem;
use crate::state::{App, time};

/// Which rows, newest first.
#[derive(Debug, Deserialize, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(crate) struct ActivityParams {
    /// How far back, minutes.
    #[param(minimum = 1, maximum = 43200)]
    #[serde(default = "day")]
    since_minutes: i64,
    /// Of this user, by id.
    user_id: Option<String>,
    /// Whose action begins with this.
    action_prefix: Option<String>,
    /// On this resource, e.g. `table:orders`.
    resource: Option<String>,
    /// Whose result begins with this.
    result_pattern: Option<String>,
    /// Whose facts hold this text; then at most seven days back.
    q: Option<String>,
    /// Which came through this frontend: `web`, `cli`, `scheduler`, `api` or `desktop`.
    client_kind: Option<String>,
    /// At most this many.
    #[param(minimum = 1, maximum = 200)]
    #[serde(default = "fifty")]
    limit: usize,
    /// Older than this, with `cursor_id`, as the answer before said.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    cursor_ts: Option<DateTime<Utc>>,
    /// As the answer before said.
    cursor_id: Option<String>,
}

impl ActivityParams {
    /// What to ask the log for.
    pub(super) fn filter(&mut self) -> Result<AuditFilter, Problem> {
        check_window(self.since_minutes)?;
        within("limit", self.limit, 200)?;
        self.since_minutes = AuditFilter::window(self.since_minutes, self.q.is_some());
        Ok(AuditFilter {
            since: Some(Utc::now() - TimeDelta::minutes(self.since_minutes)),
            user_id: self.user_id.clone(),
            action_prefix: self.action_prefix.clone(),
            resource: self.resource.clone(),
            result_prefix: self.result_pattern.clone(),
            text: self.q.clone(),
            client_kind: self.client_kind.clone(),
            limit: self.limit,
            before: cursor(self.cursor_ts, self.cursor_id.clone())?,
            ..AuditFilter::default()
        })
    }

    /// How far back, minutes.
    pub(super) fn minutes(&self) -> i64 {
        self.since_minutes
    }
}

pub(super) fn day() -> i64 {
    1440
}

pub(super) fn fifty() -> usize {
    50
}

/// One row of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivityRow {
    /// Its id.
    id: String,
    /// When, ISO 8601.
    timestamp: String,
    /// Who.
    user_id: Option<String>,
    /// Their address, where they are known.
    user_email: Option<String>,
    /// Their name.
    user_name: Option<String>,
    /// What.
    #[schema(example = "query.local")]
    action: String,
    /// On what.
    resource: Option<String>,
    /// Facts, without what is secret.
    params: Option<Value>,
    /// The state before a change.
    params_before: Option<Value>,
    /// `success`, `denied` or `error.<kind>`.
    result: Option<String>,
    /// How long it took.
    duration_ms: Option<i64>,
    /// Address of the client.
    client_ip: Option<String>,
    /// Which frontend.
    client_kind: Option<String>,
    /// The request id.
    correlation_id: Option<String>,
}

/// Where the next page begins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cursor {
    /// For `cursor_ts`.
    ts: String,
    /// For `cursor_id`.
    id: String,
}

impl From<NamedEvent> for ActivityRow {
    fn from(named: NamedEvent) -> Self {
        let event = named.event;
        Self {
            user_email: named.user_email,
            user_name: named.user_name,
            timestamp: time(event.timestamp),
            id: event.id,
            user_id: event.user_id,
            action: event.action,
            resource: event.resource,
            params: event.params,
            params_before: event.params_before,
            result: event.result,
            duration_ms: event.duration_ms,
            client_ip: event.client_ip,
            client_kind: event.client_kind,
            correlation_id: event.correlation_id,
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivityPage {
    /// Newest first.
    rows: Vec<ActivityRow>,
    /// None on the last page.
    next_cursor: Option<Cursor>,
}

impl From<AuditPage> for ActivityPage {
    fn from(page: AuditPage) -> Self {
        Self {
            rows: page.rows.into_iter().map(ActivityRow::from).collect(),
            next_cursor: page.next.map(|(ts, id)| Cursor { ts: time(ts), id }),
        }
    }
}

/// Rows of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Activity {
    #[serde(flatten)]
    page: ActivityPage,
    /// What was asked for, as it was understood.
    filter: ActivityParams,
}

/// Who did what
#[utoipa::path(get, path = "/api/admin/activity", tag = "audit", params(ActivityParams), responses(
    (status = 200, description = "Rows of the audit log", body = Activity),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn activity(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(mut params): Query<ActivityParams>,
) -> Result<Json<Activity>, Problem> {
    let page = app.engine().audit().page(&ctx, &params.filter()?).await?;
    Ok(Json(Activity { page: page.into(), filter: params }))
}

/// What one person did
///
/// As `/api/admin/activity` of that person.
#[utoipa::path(get, path = "/api/admin/users/{user_id}/activity", tag = "audit",
    params(("user_id" = String, Path, description = "Their id"), ActivityParams), responses(
    (status = 200, description = "Rows of the audit log", body = Activity),
    ForAdmins,
    (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn of_user(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    Query(mut params): Query<ActivityParams>,
) -> Result<Json<Activity>, Problem> {
    params.user_id = Some(app.engine().identity().exact_user(&ctx, &id).await?.id);
    let page = app.engine().audit().page(&ctx, &params.filter()?).await?;
    Ok(Json(Activity { page: page.into(), filter: params }))
}

/// Which syncs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SyncParams {
    /// How far back, minutes.
    #[param(minimum = 1, maximum = 43200)]
    #[serde(default = "day")]
    since_minutes: i64,
    /// At most this many.
    #[param(minimum = 1, maximum = 500)]
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// One sync of one table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PastSyncRow {
    /// The table.
    #[schema(example = "orders")]
    table_id: String,
    /// What SQL names.
    table_name: String,
    /// When it ended, ISO 8601.
    synced_at: String,
    /// `ok`, `error` or `skipped`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Rows.
    rows: Option<i64>,
    /// Bytes of Parquet; known of the last good sync alone.
    size_bytes: Option<i64>,
    /// How long it took.
    duration_ms: Option<i64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Syncs of tables.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PastSyncs {
    /// Newest first.
    rows: Vec<PastSyncRow>,
}

/// Syncs of every table
#[utoipa::path(get, path = "/api/admin/activity/sync", tag = "audit", params(SyncParams), responses(
    (status = 200, description = "The syncs", body = PastSyncs),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn syncs(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<SyncParams>,
) -> Result<Json<PastSyncs>, Problem> {
    check_window(params.since_minutes)?;
    within("limit", params.limit, 500)?;
    let row = |row: agnes_core::audit::PastSync| PastSyncRow {
        table_id: row.registry_id,
        table_name: row.past.table_id,
        synced_at: time(row.past.synced_at),
        status: row.past.status.as_str(),
        rows: row.past.rows,
        size_bytes: row.size_bytes,
        duration_ms: row.past.duration_ms,
        error: row.past.error.filter(|words| !words.is_empty()),
    };
    let rows = app.engine().audit().syncs(&ctx, params.since_minutes, params.limit).await?;
    Ok(Json(PastSyncs { rows: rows.into_iter().map(row).collect() }))
}

/// One thing to look at.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PulseField {
    /// `scheduler`, `sync_24h`, `active_users_today`, `memory_pipeline` or `diagnose_warnings`.
    #[schema(example = "sync_24h")]
    key: String,
    /// In words.
    value: String,
    /// For programs.
    raw: Value,
    /// `green`, `yellow` or `red`.
    #[schema(example = "green")]
    color: &'static str,
}

/// How the server is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PulseAnswer {
    /// The worst of the fields: `green`, `yellow` or `red`.
    #[schema(example = "green")]
    status: &'static str,
    /// In a sentence.
    sentence: String,
    /// What was looked at.
    fields: Vec<PulseField>,
}

/// How the server is doing
///
/// Looked at once in 30 seconds.
#[utoipa::path(get, path = "/api/admin/activity/health", tag = "audit", responses(
    (status = 200, description = "How it is doing", body = PulseAnswer),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn health(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<PulseAnswer>, Problem> {
    let pulse = app.engine().maintenance().pulse(&ctx).await?;
    let field = |field: &agnes_core::maintenance::PulseField| PulseField {
        key: field.key.clone(),
        value: field.value.clone(),
        raw: field.raw.clone(),
        color: field.color.as_str(),
    };
    Ok(Json(PulseAnswer {
        status: pulse.status.as_str(),
        sentence: pulse.sentence.clone(),
        fields: pulse.fields.iter().map(field).collect(),
    }))
}

pub(super) fn check_window(minutes: i64) -> Result<(), Problem> {
    within("since_minutes", minutes, AuditFilter::LONGEST_WINDOW)
}

/// The cursor of a page: both halves, or none.
pub(super) fn cursor(
    ts: Option<DateTime<Utc>>,
    id: Option<String>,
) -> Result<Option<(DateTime<Utc>, String)>, Problem> {
    match (ts, id) {
        (Some(ts), Some(id)) => Ok(Some((ts, id))),
        (None, None) => Ok(None),
        _ => {
            let both = "`cursor_ts` and `cursor_id` go together";
            Err(Problem::invalid(&["query", "cursor_id"], both, "value_error"))
        }
    }
}

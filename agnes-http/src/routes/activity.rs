//! Who did what: the audit log. For admins.

use std::collections::HashMap;

use agnes_core::audit::{AuditEvent, AuditFilter};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::{ForAdmins, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// Longest window, minutes: 30 days.
const LONGEST: i64 = 43_200;

/// Longest window of a search in facts, minutes: it reads every row.
const LONGEST_SEARCH: i64 = 7 * 24 * 60;

/// Which rows, newest first.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
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
    cursor_ts: Option<DateTime<Utc>>,
    /// As the answer before said.
    cursor_id: Option<String>,
}

fn day() -> i64 {
    1440
}

fn fifty() -> usize {
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

/// Rows of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Activity {
    /// Newest first.
    rows: Vec<ActivityRow>,
    /// None on the last page.
    next_cursor: Option<Cursor>,
    /// What was asked for, as it was understood.
    #[schema(value_type = Object)]
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
    if !(1..=LONGEST).contains(&params.since_minutes) {
        return Err(Problem::invalid(&["query", "since_minutes"], "1 to 43200", "value_error"));
    }
    if !(1..=200).contains(&params.limit) {
        return Err(Problem::invalid(&["query", "limit"], "1 to 200", "value_error"));
    }
    if params.cursor_ts.is_some() != params.cursor_id.is_some() {
        return Err(Problem::invalid(
            &["query", "cursor_id"],
            "`cursor_ts` and `cursor_id` go together",
            "value_error",
        ));
    }
    if params.q.is_some() {
        params.since_minutes = params.since_minutes.min(LONGEST_SEARCH);
    }
    let filter = AuditFilter {
        since: Some(Utc::now() - TimeDelta::minutes(params.since_minutes)),
        user_id: params.user_id.clone(),
        action_prefix: params.action_prefix.clone(),
        resource: params.resource.clone(),
        result_prefix: params.result_pattern.clone(),
        text: params.q.clone(),
        client_kind: params.client_kind.clone(),
        // One more says whether there is another page.
        limit: params.limit + 1,
        before: params.cursor_ts.zip(params.cursor_id.clone()),
    };
    let mut events = app.engine().audit().list(&ctx, &filter).await?;
    let more = events.len() > params.limit;
    events.truncate(params.limit);
    let next_cursor = events.last().filter(|_| more).map(|last| Cursor { ts: time(last), id: last.id.clone() });
    let users = app.engine().identity().users(&ctx).await?;
    let users: HashMap<&str, _> = users.iter().map(|user| (user.id.as_str(), user)).collect();
    let row = |event: AuditEvent| {
        let user = event.user_id.as_deref().and_then(|id| users.get(id));
        ActivityRow {
            user_email: user.map(|user| user.email.clone()),
            user_name: user.and_then(|user| user.name.clone()),
            timestamp: time(&event),
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
    };
    Ok(Json(Activity { rows: events.into_iter().map(row).collect(), next_cursor, filter: params }))
}

/// To the microsecond, in a form that needs no escape in an address.
fn time(event: &AuditEvent) -> String {
    event.timestamp.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

//! What sources tell by themselves, and what is asked about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agnes_core::Error;
use agnes_core::context::Client;
use agnes_core::push::{Delivery, PushHealth};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};

use crate::caller::{Caller, Sender};
use crate::extract::Path;
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, failures};
use crate::problem::Problem;
use crate::state::App;

const JIRA: &str = "jira";

/// Bytes of a delivery.
const LIMIT: usize = 10 << 20;
/// Bytes of a delivery that is read without waiting for a turn, and the turns of longer ones: each
/// is in memory as a whole, and nobody has proven anything yet.
const SHORT: usize = 1 << 20;
static READING: Semaphore = Semaphore::const_new(4);
/// How long a delivery waits for its turn and is read then.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event of at most 10 MiB, as Jira writes it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
#[schema(example = json!({"webhookEvent": "jira:issue_updated", "issue": {"key": "HELP-7"}}))]
pub(crate) struct JiraEvent {
    /// What happened.
    #[schema(rename = "webhookEvent")]
    event: Option<String>,
    /// The issue it is about, of which only `key` has to be there.
    #[schema(value_type = Option<Object>)]
    issue: Option<Value>,
}

/// Failures of deliveries.
struct ForDeliveries;

impl IntoResponses for ForDeliveries {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        failures(&[
            (400, "It is no event of an issue"),
            (401, "Its signature is missing or wrong"),
            (408, "It did not arrive in time"),
            (413, "It is too large"),
            (503, "Nobody is set up to take it, or it cannot be kept now"),
        ])
    }
}

/// A delivery that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ok", "event": "jira:issue_updated", "issue": "HELP-7"}))]
pub(crate) struct JiraTaken {
    /// Always `ok`: it is on the disk and will reach the tables.
    status: &'static str,
    /// What kind of event it was.
    event: String,
    /// The issue it is about.
    issue: String,
}

async fn body(request: Request) -> Result<Vec<u8>, Problem> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let announced: usize = length.unwrap_or(usize::MAX);
    if length.is_some_and(|length: usize| length > LIMIT) {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let read = async {
        let _turn = if announced > SHORT { READING.acquire().await.ok() } else { None };
        axum::body::to_bytes(request.into_body(), if announced > SHORT { LIMIT } else { SHORT }).await
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    let read = read.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))?;
    read.map(Vec::from).map_err(|_| Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE))
}

async fn take(app: &App, client: &Client, headers: &HeaderMap, request: Request) -> Result<Json<JiraTaken>, Problem> {
    // Before anything is read.
    app.engine().pushes().expects(JIRA).await?;
    let text = |(name, value): (&axum::http::HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let delivery = Delivery { headers: headers.iter().filter_map(text).collect(), body: body(request).await? };
    let kept = app.engine().pushes().receive(client, JIRA, &delivery).await?;
    Ok(Json(JiraTaken { status: "ok", event: kept.event, issue: kept.subject }))
}

/// Take what Jira tells
///
/// Proven by an HMAC-SHA256 over every byte of the body in `X-Hub-Signature-256` or
/// `X-Hub-Signature`. The answer is written when the delivery is on the disk; sent again, it is
/// known by its `X-Atlassian-Webhook-Identifier` and body.
#[utoipa::path(post, path = "/webhooks/jira", tag = "webhooks", request_body = JiraEvent, responses(
    (status = 200, description = "It is kept", body = JiraTaken), ForDeliveries,
))]
pub(crate) async fn jira(
    State(app): State<App>,
    Sender(client): Sender,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<JiraTaken>, Problem> {
    take(&app, &client, &headers, request).await
}

/// Take what Jira tells, as `/webhooks/jira`
#[utoipa::path(post, path = "/api/jira/webhook", tag = "webhooks", request_body = JiraEvent, responses(
    (status = 200, description = "It is kept", body = JiraTaken), ForDeliveries,
))]
pub(crate) async fn jira_again(
    State(app): State<App>,
    Sender(client): Sender,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<JiraTaken>, Problem> {
    take(&app, &client, &headers, request).await
}

/// How deliveries of Jira are doing
#[utoipa::path(get, path = "/webhooks/jira/health", tag = "webhooks", responses(
    (status = 200, description = "What is set up, what waits, what is wrong", body = PushHealth),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn jira_health(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<PushHealth>, Problem> {
    Ok(Json(app.engine().pushes().health(&ctx, JIRA).await?))
}

/// What a poll did.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
#[schema(example = json!({"updated": 12, "healed": 1, "skipped": 0, "failed": 0, "failed_issues": []}))]
pub(crate) struct JiraPolled {
    /// Issues whose service levels are as the site has them now.
    updated: u64,
    /// Issues that were done meanwhile.
    healed: u64,
    /// Issues that have none, or are not kept.
    skipped: u64,
    /// Issues that could not be asked for.
    failed: u64,
    /// Their keys.
    failed_issues: Vec<String>,
}

/// What a look at a source ended with, as an answer.
fn answered(done: Result<Value, Error>) -> Result<Json<Value>, Problem> {
    done.map(Json).map_err(|error| match error.code() {
        "already_running" => Problem::new(StatusCode::CONFLICT, "already_running", "already_running"),
        code if code.starts_with("jira_") && error.kind() != agnes_core::ErrorKind::Internal => {
            let text = error.to_string();
            let problem = Problem::new(StatusCode::BAD_GATEWAY, "source_failed", text);
            error.hint().map_or(problem.clone(), |hint| problem.hint(hint))
        }
        _ => error.into(),
    })
}

/// Ask Jira for service levels
///
/// Of every open issue that has some. It goes on to its end when nobody waits for it any more.
#[utoipa::path(post, path = "/api/admin/run-jira-sla-poll", tag = "webhooks", responses(
    (status = 200, description = "What it did", body = JiraPolled),
    ForAdmins,
    (status = 400, description = "Jira, or its account for service levels, is not set up", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is running already", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "Jira cannot be asked", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn poll_levels(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Value>, Problem> {
    answered(app.engine().pushes().poll(&ctx, JIRA).await)
}

/// What a check found and did.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
#[schema(example = json!({
    "timestamp": "2026-11-21T21:00:00+00:00", "check_type": "incremental", "max_age_days": 30, "duration_seconds": 1.5,
    "counts": {"jira_api": 40, "raw_json": 39, "parquet": 39},
    "discrepancies": {"missing_in_json": ["HELP-7"], "stale_in_json": [], "missing_in_parquet": [], "deleted_in_jira": 0, "unreadable_parts": 0},
    "actions": {"auto_backfilled": ["HELP-7"], "backfill_failed": [], "transform_failed": []},
    "status": "success", "alert_level": "INFO"
}))]
pub(crate) struct JiraChecked {
    /// When it began.
    timestamp: String,
    /// `incremental`, `deep` of more than 90 days.
    check_type: String,
    /// Days that were looked at.
    max_age_days: u32,
    /// How long it took.
    duration_seconds: f64,
    /// Issues at the site, as they are kept, and in the table.
    #[schema(value_type = Object)]
    counts: Value,
    /// What differed.
    #[schema(value_type = Object)]
    discrepancies: Value,
    /// What was done about it.
    #[schema(value_type = Object)]
    actions: Value,
    /// `success` or `partial_success`.
    status: String,
    /// `INFO`, `WARNING` or `ERROR`.
    alert_level: String,
}

/// Compare issues with Jira
///
/// Those of the last 30 days; once a week those of a year. Up to 20 that are missing or stale are
/// fetched, more are only told of.
#[utoipa::path(post, path = "/api/admin/run-jira-consistency-check", tag = "webhooks", responses(
    (status = 200, description = "What it found and did", body = JiraChecked),
    ForAdmins,
    (status = 400, description = "Jira is not set up", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is running already", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "Jira cannot be asked", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn check_consistency(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Value>, Problem> {
    answered(app.engine().pushes().check(&ctx, JIRA, 0).await)
}

/// Take a file of an issue
///
/// Of a table of attachments, by the id of one of its rows: for whoever may read that row.
#[utoipa::path(get, path = "/api/data/{table_id}/attachments/{attachment_id}", tag = "data", params(
    ("table_id" = String, Path, description = "Id or name of a table of attachments"),
    ("attachment_id" = String, Path, description = "`attachment_id` of a row")), responses(
    (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
    ForUsers,
    (status = 404, description = "It is not there, or not for the caller", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn attachment(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path((table, id)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let file = Arc::new(app.engine().pushes().attachment(&ctx, &table, &id).await?);
    let (size, name) = (file.size_bytes, file.file_name.clone());
    let read = move |offset, size| {
        let file = file.clone();
        async move { file.read(offset, size).await }
    };
    let mut response = Response::new(Body::from_stream(super::data::pieces(read, 0, size)));
    let headers = response.headers_mut();
    // Whatever it is, a browser keeps it as a file and runs nothing of it.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' })
        .collect();
    let disposition = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", crate::web::encoded(&name));
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

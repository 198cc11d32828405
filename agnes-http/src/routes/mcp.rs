//! `POST /api/mcp/http`: tools for assistants elsewhere.

use std::sync::Arc;

use agnes_core::CallContext;
use agnes_core::context::Client;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::{Caller, Sender, bearer, seen_as};
use crate::mcp::{Asking, Assistant, Served};
use crate::openapi::{ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::App;
use crate::web::Origin;

/// Where assistants ask.
pub(crate) const PATH: &str = "/api/mcp/http";

/// A message of JSON-RPC 2.0.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
#[schema(example = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params":
    {"name": "query", "arguments": {"sql": "select count(*) from orders"}}}))]
pub(crate) struct Message {
    /// Always `2.0`.
    jsonrpc: String,
    /// Repeated by the answer; a notification has none.
    id: Option<Value>,
    /// What is asked for.
    method: String,
    /// With what.
    params: Option<Value>,
}

/// An answer of JSON-RPC 2.0.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
#[schema(example = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "tools/cal"}}))]
pub(crate) struct MessageAnswer {
    /// Always `2.0`.
    jsonrpc: String,
    /// Of the question.
    id: Option<Value>,
    /// What was asked for.
    result: Option<Value>,
    /// Why there is none.
    error: Option<Value>,
}

/// Who an assistant asks for: whoever its token belongs to. A cookie says nothing here.
async fn caller(parts: &mut Parts, app: &App, client: Client) -> Result<CallContext, Problem> {
    use axum::extract::FromRequestParts as _;
    if app.engine().config().dev.is_some() {
        return Caller::from_request_parts(parts, app).await.map(|Caller(ctx)| ctx);
    }
    let Some(token) = bearer(&parts.headers)? else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "auth_required", "sign in first")
            .hint("send `Authorization: Bearer <token>`, or sign in as `WWW-Authenticate` says"));
    };
    let ctx = app.engine().sign_in().authenticate(&client.from_assistant(), token).await?;
    // Nobody asks tools in somebody else's name.
    seen_as(parts, app, ctx).await
}

/// Refuses pages of others: a name of their own for this machine must not make them ours.
fn check_origin(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, host)| host);
    let site = &app.engine().config().site;
    if host.is_some_and(|host| site.is_own_host(host)) || app.limits().origins.allow(origin) {
        return Ok(());
    }
    let text = "pages of this origin may not call this server";
    Err(Problem::new(StatusCode::FORBIDDEN, "csrf_failed", text).hint("an operator can add it to `CORS_ORIGINS`"))
}

/// Ask a tool
///
/// The Model Context Protocol, over streamable HTTP, without sessions: each request stands for
/// itself, and one whose connection is closed is stopped. `tools/list` tells of the tools; what
/// they answer is governed as the same question to the API. A tool that fails answers with its
/// status, code and hint in a result of its own (`isError`), so that an assistant reads them. At
/// most 60 calls a minute of one person, 4 at a time.
#[utoipa::path(post, path = "/api/mcp/http", tag = "mcp", request_body = Message, responses(
    (status = 200, description = "The answer, and what is told before it", content(
        (String = "text/event-stream"), (MessageAnswer = "application/json"),
    )),
    (status = 202, description = "A notification was taken"),
    (status = 400, description = "This is no message, or is not answered", content(
        (MessageAnswer = "application/json"), (ProblemShape = "application/problem+json"),
    )),
    ForUsers,
    (status = 404, description = "There is no such method", body = MessageAnswer),
    (status = 406, description = "`Accept` has to name `application/json` and `text/event-stream`", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The message is too long", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not JSON", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = [])))]
pub(crate) async fn call(
    State(app): State<App>,
    Origin(origin): Origin,
    Sender(client): Sender,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (mut parts, body) = request.into_parts();
    check_origin(&parts.headers, &app)?;
    let is_known = parts.headers.contains_key(AUTHORIZATION);
    let found = caller(&mut parts, &app, client).await;
    let ctx = found.map_err(|problem| {
        let place = format!("{origin}/.well-known/oauth-protected-resource{PATH}");
        // Tells who has a token that it is worth nothing any more: it is renewed rather than sent again.
        let error = if is_known { ", error=\"invalid_token\"" } else { "" };
        problem.challenge(&format!("resource_metadata=\"{place}\", scope=\"mcp\"{error}"))
    })?;
    let (engine, health) = (app.engine().clone(), app.health().status());
    parts.extensions.insert(Asking {
        user_id: ctx.principal().user_id().to_owned(),
        request_id: ctx.request_id().to_owned(),
        app: app.clone(),
        backend: Arc::new(Served { engine, ctx, origin, health }),
    });
    // What a stranger made this machine's name mean is refused above, by its origin.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_max_request_body_bytes(app.limits().body)
        .disable_allowed_hosts();
    let assistant = Assistant::of_requests(app.limits().tools);
    let service =
        StreamableHttpService::new(move || Ok(assistant.clone()), Arc::new(NeverSessionManager::default()), config);
    let response = service.handle(Request::from_parts(parts, body)).await.map(Body::new);
    match response.status() {
        status if status.is_success() || says_json(&response) => Ok(response),
        StatusCode::NOT_ACCEPTABLE => {
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "no format of `Accept` is known")
                .hint("accept `application/json` and `text/event-stream`"))
        }
        // A body that is no message.
        status if status.is_client_error() && !known(status) => Err(Problem::of_status(StatusCode::BAD_REQUEST)),
        status => Err(Problem::of_status(status)),
    }
}

fn known(status: StatusCode) -> bool {
    [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE].contains(&status)
}

fn says_json(response: &Response<Body>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

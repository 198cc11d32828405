//! What surrounds every route: request id, security headers, problems, logs and figures.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, EXPECT, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;

use crate::arriving::Arriving;
use crate::problem::Problem;
use crate::state::App;

/// The oldest client that works with this server.
pub(crate) const MIN_CLIENT: &str = "0.1.0";

/// The id of a request: the client's, or a new one.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
        let valid = |id: &&str| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        Self(
            given.filter(valid).map_or_else(
                || uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect(),
                ToOwned::to_owned,
            ),
        )
    }
}

/// Addresses that programs use: their errors are JSON whatever `Accept` says.
fn is_for_programs(path: &str) -> bool {
    let prefixes = ["/api/", "/auth/", "/cli/", "/webhooks/", "/openapi.json", "/metrics", "/marketplace"];
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether the client asks for a page by name; `*/*` does not.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT);
    accepted.iter().filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',')
            .any(|one| one.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html")))
    })
}

/// The frame around every route.
pub(crate) async fn frame(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let (started, id) = (Instant::now(), RequestId::of(request.headers()));
    let running = app.meters().request();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (programs, wants_page) = (is_for_programs(&path), wants_page(request.headers()));
    let looks = matches!(method, axum::http::Method::GET | axum::http::Method::HEAD);
    let here = request.uri().path_and_query().map(|all| all.as_str().to_owned()).unwrap_or_default();
    let is_https = crate::web::is_https(request.headers(), app.limits().trusted_proxy_hops);
    request.extensions_mut().insert(id.clone());
    crate::scheduler::heard(&app, &path, request.headers()).await;
    // It sends its body once somebody asks for that.
    let holds_back = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, rest) = Arriving::within(app.limits().body_timeout, body);
    let request = Request::from_parts(parts, Body::new(body));
    let route = route.as_deref().unwrap_or("(none)");
    let span = tracing::info_span!(
        "request", request_id = %id.0, %method, path,
        otel.kind = "server", otel.name = format_args!("{method} {route}"), otel.status_code = tracing::field::Empty
    );
    crate::traces::continued(&span, request.headers());
    let answer = next.run(request).instrument(span.clone());
    let mut response = if crate::routes::is_reading(&method, &path) || path == crate::routes::mcp::PATH {
        answer.await
    } else {
        // A client that hangs up must not stop a change half way, or keep it out of the audit log.
        tokio::spawn(answer).await.unwrap_or_else(|_| Problem::internal().into_response())
    };
    let mut problem = response.extensions_mut().remove::<Problem>();
    if problem.is_none() && response.status().as_u16() >= 400 && !is_own_body(&response) {
        problem = Some(Problem::of_status(response.status()));
    }
    if problem.is_some() && rest.is_late() {
        problem = Some(Problem::of_status(StatusCode::REQUEST_TIMEOUT));
    }
    if let Some(mut problem) = problem {
        if !app.limits().debug {
            problem.hide_cause();
        }
        let answer = if problem.status() == StatusCode::UNAUTHORIZED && looks && !programs {
            // Who is signed out is shown where to sign in.
            crate::web::redirect(StatusCode::FOUND, &format!("/login?next={}", crate::web::encoded(&here)))
        } else if wants_page && (!programs || problem.is_for_people()) {
            let mut page = crate::web::error_page(&app, &problem, &path, &id.0);
            problem.headers(&mut page);
            page
        } else {
            problem.render(&id.0)
        };
        response = with_headers_of(&response, answer);
    }
    guard(&mut response, &id, path.starts_with("/api/"), is_https);
    let (status, took) = (response.status().as_u16(), started.elapsed());
    if status >= 500 {
        span.record("otel.status_code", "error");
    }
    app.meters().answered(method.as_str(), route, status, took);
    span.in_scope(|| {
        tracing::info!(status, route, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "answered")
    });
    drop(running);
    if !rest.is_read(holds_back).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a route wrote the body of this failure itself.
fn is_own_body(response: &Response) -> bool {
    let kind = response.headers().get(axum::http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.contains("json") || kind.contains("html"))
}

/// What a route said beside the problem, such as `Allow`.
fn with_headers_of(before: &Response, mut after: Response) -> Response {
    for (name, value) in before.headers() {
        if !after.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            after.headers_mut().append(name.clone(), value.clone());
        }
    }
    after
}

fn guard(response: &mut Response, id: &RequestId, is_api: bool, is_https: bool) {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("referrer-policy", "strict-origin-when-cross-origin");
    if is_https {
        set("strict-transport-security", "max-age=31536000");
    }
    if is_api {
        set("x-agnes-latest-version", env!("CARGO_PKG_VERSION"));
        set("x-agnes-min-version", MIN_CLIENT);
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let is_page = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page && !headers.contains_key("content-security-policy") {
        let policy = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";
        headers.insert("content-security-policy", HeaderValue::from_static(policy));
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_only_in_their_grammar() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", text.parse().unwrap());
            RequestId::of(&headers).0
        };
        assert_eq!(with("abc-1_2"), "abc-1_2");
        for bad in ["", "a b", "a;b", &"x".repeat(65)] {
            assert_ne!(with(bad), bad);
            assert_eq!(with(bad).len(), 12);
        }
    }

    #[test]
    fn pages_are_for_those_who_name_them() {
        let accepts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            wants_page(&headers)
        };
        assert!(accepts("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"));
        assert!(!accepts("*/*"));
        assert!(!accepts("application/json"));
        assert!(!wants_page(&HeaderMap::new()));
    }
}

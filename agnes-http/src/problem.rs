//! What a request that failed is answered with: `application/problem+json`.

use agnes_core::{Error, ErrorKind};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// An answer to a request that failed. The frame around every route writes it, with the
/// request id, as JSON or as a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: String,
    detail: Box<Value>,
    hint: Option<String>,
    /// Seconds after which the same request may succeed.
    retry_after: Option<u64>,
    /// Further members of `detail`'s object or of the body, e.g. limits.
    facts: Option<Box<Value>>,
    /// Whether a browser gets a page, also at addresses that programs use.
    for_people: bool,
    /// Whether the body has what OAuth asks for (RFC 6749 5.2).
    for_clients: bool,
    /// What `WWW-Authenticate` says beside the scheme.
    challenge: Option<Box<str>>,
    /// What the log says of it: told only to those who develop Agnes.
    cause: Option<Box<str>>,
}

impl Problem {
    /// A problem with this status, stable code and message.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, detail: impl Into<Value>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            detail: Box::new(detail.into()),
            hint: None,
            retry_after: None,
            facts: None,
            for_people: false,
            for_clients: false,
            challenge: None,
            cause: None,
        }
    }

    /// What the log says of a failure of the server itself.
    #[must_use]
    pub(crate) fn because(mut self, cause: &str) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Keeps the cause out of the answer.
    pub(crate) fn hide_cause(&mut self) {
        self.cause = None;
    }

    /// A browser gets a page, also at addresses that programs use: a form of ours led here.
    #[must_use]
    pub(crate) fn for_people(mut self) -> Self {
        self.for_people = true;
        self
    }

    /// The body has what OAuth asks for, too: `error` and `error_description`.
    #[must_use]
    pub(crate) fn for_clients(mut self) -> Self {
        self.for_clients = true;
        self
    }

    /// A 401 says where to find out how to sign in.
    #[must_use]
    pub(crate) fn challenge(mut self, parameters: &str) -> Self {
        self.challenge = Some(parameters.into());
        self
    }

    pub(crate) fn is_for_people(&self) -> bool {
        self.for_people
    }

    /// The detail, as a sentence.
    pub(crate) fn sentence(&self) -> String {
        self.detail.as_str().map_or_else(|| self.detail.to_string(), ToOwned::to_owned)
    }

    /// The hint.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// One thing to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same request may succeed after this many seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A body that is not what the operation asks for: 422 with one entry.
    #[must_use]
    pub fn invalid(place: &[&str], message: &str, kind: &str) -> Self {
        let detail = json!([{"loc": place, "msg": message, "type": kind}]);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", detail)
    }

    /// Nothing is here.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
    }

    /// A generic problem for a status that something below the routes answered.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => return Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this address does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the request body is too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "the body is not of a type known here"),
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request did not arrive in time"),
            status if status.is_server_error() => return Self::internal(),
            _ => ("bad_request", "the request is not valid"),
        };
        Self::new(status, code, detail)
    }

    /// A bug: the log has the cause.
    #[must_use]
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error")
            .hint("this is a bug in Agnes; the log has the cause")
    }

    /// The status it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The body, as JSON.
    pub(crate) fn body(&self, request_id: &str) -> Value {
        let mut body = json!({
            "type": format!("urn:agnes:error:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        });
        if let Some(hint) = &self.hint {
            body["hint"] = json!(hint);
        }
        if let Some(facts) = &self.facts {
            body["facts"] = facts.as_ref().clone();
        }
        if let Some(cause) = &self.cause {
            body["error"] = json!(cause);
        }
        if self.for_clients {
            body["error"] = json!(self.code);
            body["error_description"] = json!(self.sentence());
        }
        body
    }

    /// The whole answer, as JSON.
    pub(crate) fn render(&self, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body(request_id).to_string()));
        *response.status_mut() = self.status;
        self.headers(&mut response);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }

    /// What an answer says beside its body.
    pub(crate) fn headers(&self, response: &mut Response<Body>) {
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = self.challenge.as_ref().map(|parameters| format!("Bearer {parameters}"));
            set(WWW_AUTHENTICATE, challenge.as_deref().unwrap_or("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            set(RETRY_AFTER, &seconds.to_string());
        }
    }
}

/// The status of an error: of its kind, but for codes whose contract says otherwise.
fn status_of(code: &str, kind: ErrorKind) -> StatusCode {
    match code {
        "relation_denied" | "scope_denied" => return StatusCode::FORBIDDEN,
        "query_timeout" => return StatusCode::REQUEST_TIMEOUT,
        "bad_sample_size" | "too_many_entries" | "invalid_field" | "invalid_setting" | "settings_would_not_start" => {
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        "unknown_connector" | "source_not_configured" => return StatusCode::UNPROCESSABLE_ENTITY,
        "upload_too_large" | "upload_quota_exceeded" => return StatusCode::PAYLOAD_TOO_LARGE,
        "git_failed"
        | "source_failed"
        | "bigquery_auth_failed"
        | "bigquery_token_refused"
        | "bigquery_forbidden"
        | "bigquery_project_forbidden"
        | "bigquery_refused"
        | "bigquery_not_found"
        | "bigquery_unavailable"
        | "bigquery_unreachable"
        | "bigquery_answer_invalid"
        | "bigquery_job_failed" => return StatusCode::BAD_GATEWAY,
        "discovery_timeout" | "warehouse_timeout" => return StatusCode::GATEWAY_TIMEOUT,
        "not_configured" => return StatusCode::BAD_REQUEST,
        "file_not_found" => return StatusCode::INTERNAL_SERVER_ERROR,
        _ => {}
    }
    match kind {
        ErrorKind::InvalidInput | ErrorKind::QueryRefused | ErrorKind::LimitExceeded | ErrorKind::Unsupported => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::ConfigInvalid | ErrorKind::DataInvalid | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `detail` and `facts`: failures with a reason of their own (limits, what may not leave the
/// server) have an object as `detail`, the others a sentence.
fn detail_of(error: &Error) -> (Value, Option<Value>) {
    let sentence = error.to_string();
    match error.facts() {
        // As every body that is not valid: a list that names the field.
        Some(facts) if error.code() == "invalid_field" => {
            let place = match facts["field"].as_str() {
                Some(field) if field != "body" => json!(["body", field]),
                _ => json!(["body"]),
            };
            (json!([{"loc": place, "msg": sentence, "type": "value_error"}]), None)
        }
        Some(Value::Object(mut facts)) if ["reason", "kind", "error"].iter().any(|key| facts.contains_key(*key)) => {
            facts.insert("message".to_owned(), sentence.into());
            (Value::Object(facts), None)
        }
        facts => (sentence.into(), facts),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status_of(error.code(), error.kind());
        if error.kind() == ErrorKind::Internal {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(code = error.code(), cause, "{error}");
            return Self::internal().because(&format!("{error}: {cause}"));
        }
        if status.is_server_error() {
            tracing::warn!(code = error.code(), "{error}");
        }
        let told = error.facts().and_then(|facts| facts["retry_after_seconds"].as_u64());
        let wait = told.or(matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Unavailable).then_some(1));
        let (detail, facts) = detail_of(&error);
        let (detail, facts) = (Box::new(detail), facts.map(Box::new));
        Self {
            status,
            code: error.code().to_owned(),
            detail,
            hint: error.hint(),
            retry_after: wait,
            facts,
            for_people: false,
            for_clients: false,
            challenge: None,
            cause: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Rows of a table of `docs/errors.md`: their cells, without ticks.
    fn rows<'a>(page: &'a str, heading: &str) -> impl Iterator<Item = Vec<&'a str>> {
        let section = page.split(heading).nth(1).unwrap();
        let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        rows.skip(2).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
    }

    #[test]
    fn the_page_of_errors_tells_every_status() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md")).unwrap();
        let kind_of = |name: &str| serde_json::from_value::<ErrorKind>(json!(name)).unwrap();
        let kinds: BTreeMap<&str, u16> = rows(&page, "# Errors").map(|row| (row[0], row[4].parse().unwrap())).collect();
        assert_eq!(kinds.len(), 13);
        for (kind, status) in &kinds {
            assert_eq!(status_of("", kind_of(kind)).as_u16(), *status, "{kind}");
        }
        let own: BTreeMap<&str, u16> =
            rows(&page, "Codes with a status of their own").map(|row| (row[0], row[1].parse().unwrap())).collect();
        let only: BTreeMap<&str, Vec<u16>> = rows(&page, "Codes of the server alone")
            .map(|row| (row[0], row[1].split(", ").map(|status| status.parse().unwrap()).collect()))
            .collect();
        let codes = page.split("\n## The codes, by subject\n").nth(1).unwrap();
        let mut known: BTreeSet<(u16, &str)> =
            only.iter().flat_map(|(code, statuses)| statuses.iter().map(|status| (*status, *code))).collect();
        for row in codes.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`'));
            let (code, named) = (cells.next().unwrap(), cells.next().unwrap());
            for kind in kinds.keys().filter(|kind| named.split([',', ' ', '`']).any(|word| word == **kind)) {
                let told = own.get(code).copied().unwrap_or(kinds[kind]);
                assert_eq!(status_of(code, kind_of(kind)).as_u16(), told, "{code}");
                known.insert((told, code));
            }
        }
        // Said in words beside the table.
        known.extend([(403, "account_deactivated"), (400, "bad_batch")]);
        for code in own.keys() {
            assert!(known.iter().any(|(_, named)| named == code), "{code}");
        }
        for (status, code) in crate::codes::table() {
            let by_upload = ["file_", "sheet_", "too_many_rejected", "unknown_format", "bad_batch"];
            let is_upload = status == 400 && by_upload.iter().any(|start| code.starts_with(start));
            assert!(is_upload || known.contains(&(status, code)), "`{code}` is no {status}");
        }
    }

    #[test]
    fn a_body_has_every_field() {
        let body = Problem::new(StatusCode::CONFLICT, "user_exists", "there is one").hint("look").body("abc");
        for field in ["type", "title", "status", "detail", "code", "request_id", "hint"] {
            assert!(body.get(field).is_some(), "{field}");
        }
        assert_eq!(body["status"], 409);
    }
}

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
        }
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
        body
    }

    /// The whole answer.
    pub(crate) fn render(&self, request_id: &str, as_page: bool) -> Response<Body> {
        let body = if as_page { self.page(request_id) } else { self.body(request_id).to_string() };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        self.headers(&mut response);
        let kind = if as_page { "text/html; charset=utf-8" } else { "application/problem+json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn headers(&self, response: &mut Response<Body>) {
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        if self.status == StatusCode::UNAUTHORIZED {
            set(WWW_AUTHENTICATE, "Bearer");
        }
        if let Some(seconds) = self.retry_after {
            set(RETRY_AFTER, &seconds.to_string());
        }
    }

    fn page(&self, request_id: &str) -> String {
        let message = self.detail.as_str().map_or_else(|| self.detail.to_string(), ToOwned::to_owned);
        let hint = self.hint.as_deref().map(|hint| format!("<p>{}</p>", escaped(hint))).unwrap_or_default();
        let title = self.status.canonical_reason().unwrap_or("Error");
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\
             <h1>{status} {title}</h1><p>{message}</p>{hint}\
             <p><small>Code <code>{code}</code>, reference <code>{id}</code></small></p></html>",
            status = self.status.as_u16(),
            message = escaped(&message),
            code = escaped(&self.code),
            id = escaped(request_id),
        )
    }
}

/// Text for a place between tags or in a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The status of an error: of its kind, but for codes whose contract says otherwise.
fn status_of(error: &Error) -> StatusCode {
    match error.code() {
        "relation_denied" | "scope_denied" => return StatusCode::FORBIDDEN,
        "query_timeout" => return StatusCode::REQUEST_TIMEOUT,
        "bad_sample_size" | "too_many_entries" | "invalid_field" => return StatusCode::UNPROCESSABLE_ENTITY,
        "file_not_found" => return StatusCode::INTERNAL_SERVER_ERROR,
        _ => {}
    }
    match error.kind() {
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
        Some(Value::Object(mut facts)) if ["reason", "kind", "error"].iter().any(|key| facts.contains_key(*key)) => {
            facts.insert("message".to_owned(), sentence.into());
            (Value::Object(facts), None)
        }
        facts => (sentence.into(), facts),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status_of(&error);
        if error.kind() == ErrorKind::Internal {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(code = error.code(), cause, "{error}");
            return Self::internal();
        }
        if status.is_server_error() {
            tracing::warn!(code = error.code(), "{error}");
        }
        let wait = matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Unavailable).then_some(1);
        let (detail, facts) = detail_of(&error);
        let (detail, facts) = (Box::new(detail), facts.map(Box::new));
        Self { status, code: error.code().to_owned(), detail, hint: error.hint(), retry_after: wait, facts }
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
mod tests {
    use super::*;

    #[test]
    fn a_body_has_every_field() {
        let body = Problem::new(StatusCode::CONFLICT, "user_exists", "there is one").hint("look").body("abc");
        for field in ["type", "title", "status", "detail", "code", "request_id", "hint"] {
            assert!(body.get(field).is_some(), "{field}");
        }
        assert_eq!(body["status"], 409);
    }

    #[test]
    fn a_page_shows_no_markup_of_others() {
        let page = Problem::new(StatusCode::NOT_FOUND, "x", "<script>alert(1)</script>").page("id");
        assert!(!page.contains("<script>"), "{page}");
    }
}

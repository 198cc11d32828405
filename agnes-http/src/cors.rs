//! Which pages of other origins may call the API, with the cookie of who looks at them.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Origins whose pages may call the API.
#[derive(Debug, Clone)]
pub struct Origins(Vec<HeaderValue>);

/// Why origins were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Everybody, although the browser sends along who is signed in.
    #[error("`*` is no origin here: any page could then act as whoever looks at it; name the origins")]
    Everybody,
    /// Something else than an origin.
    #[error("`{text}` is no origin such as `https://app.example.com`")]
    NotAnOrigin {
        /// What was given.
        text: String,
    },
}

impl Default for Origins {
    fn default() -> Self {
        Self(["http://localhost:3000", "http://localhost:8000"].map(HeaderValue::from_static).to_vec())
    }
}

impl Origins {
    /// The origins of a list with commas; an empty text is none.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let origins = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        origins.map(origin).collect::<Result<_, _>>().map(Self)
    }

    /// Whether pages of this origin may call the API.
    pub(crate) fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.contains(origin)
    }

    pub(crate) fn layer(&self) -> CorsLayer {
        let name = HeaderName::from_static;
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([
                ACCEPT,
                AUTHORIZATION,
                CONTENT_TYPE,
                IF_NONE_MATCH,
                IF_RANGE,
                RANGE,
                name("x-request-id"),
                name("idempotency-key"),
                name(crate::caller::SEE_AS),
                name("x-bootstrap-token"),
                name("mcp-protocol-version"),
                name("mcp-session-id"),
                name("mcp-method"),
                name("mcp-name"),
            ])
            .expose_headers([
                CONTENT_DISPOSITION,
                CONTENT_RANGE,
                ETAG,
                RETRY_AFTER,
                WWW_AUTHENTICATE,
                name("x-request-id"),
                name("x-agnes-content-md5"),
                name("x-agnes-content-sha256"),
                name("x-agnes-latest-version"),
                name("x-agnes-min-version"),
                name("x-agnes-receipt"),
                name("x-agnes-row-scope"),
                name("x-agnes-truncated"),
            ])
            .max_age(Duration::from_secs(600))
    }
}

/// Addresses that any page may read: they answer everybody alike, or whoever holds a token of
/// their own, and look at no cookie.
const OPEN: [&str; 4] = ["/.well-known/", "/oauth/register", "/oauth/token", "/oauth/revoke"];

/// Lets pages of any origin read what is for everybody, without a word of who looks at them.
pub(crate) async fn open(request: Request, next: Next) -> Response {
    if !OPEN.iter().any(|start| request.uri().path().starts_with(start)) {
        return next.run(request).await;
    }
    let is_question = request.method() == Method::OPTIONS;
    let mut response = if is_question { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_question {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let names = "authorization, content-type, mcp-protocol-version";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(names));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// Scheme, host and port alone, as browsers write it.
fn origin(text: &str) -> Result<HeaderValue, OriginError> {
    if text == "*" {
        return Err(OriginError::Everybody);
    }
    let wrong = || OriginError::NotAnOrigin { text: text.chars().take(200).collect() };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    // A browser sends it in lower case and without a path.
    let written = format!("{scheme}://{authority}").to_ascii_lowercase();
    let given = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    if authority.as_str().contains('@') || given != written {
        return Err(wrong());
    }
    HeaderValue::from_str(&written).map_err(|_| wrong())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_named_one_by_one() {
        let read = |text: &str| Origins::parse(text).map(|origins| origins.0.len());
        assert_eq!(read(""), Ok(0));
        assert_eq!(read(" https://a.example , HTTP://B.example:8080/,"), Ok(2));
        assert_eq!(read("https://a.example,*"), Err(OriginError::Everybody));
        for wrong in
            ["a.example", "https://", "https://a.example/x", "https://u@a.example", "ftp://a", "null", "https://a?b"]
        {
            assert!(matches!(read(wrong), Err(OriginError::NotAnOrigin { .. })), "{wrong}");
        }
        assert_eq!(origin("HTTPS://A.example/").unwrap(), "https://a.example");
    }
}

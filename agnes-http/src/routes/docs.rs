//! `/docs`: the description of the API to read and try in a browser.
//!
//! Swagger UI is carried packed inside the binary and its files are unpacked when they are first
//! asked for; nothing comes from elsewhere.

use std::io::{Cursor, Read as _};

use agnes_core::rbac::Ability;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, Response};
use hyper::body::Bytes;
use moka::sync::Cache;

use crate::caller::Caller;
use crate::extract::Path;
use crate::openapi::{ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// The files of Swagger UI that the page needs, with their types.
const FILES: [(&str, &str); 5] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("index.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-16x16.png", "image/png"),
    ("favicon-32x32.png", "image/png"),
];

/// Starts it. Relative, so that it works below a proxy's path too.
const START: &str = "window.onload = () => SwaggerUIBundle({\n  url: 'openapi.json', dom_id: '#swagger-ui', \
                     deepLinking: true, validatorUrl: null, tryItOutEnabled: true\n});\n";

/// The unpacked files.
#[derive(Debug)]
pub(crate) struct Unpacked(Cache<&'static str, Bytes>);

impl Default for Unpacked {
    fn default() -> Self {
        // Two megabytes that nobody needs for long.
        Self(Cache::builder().max_capacity(8).time_to_idle(std::time::Duration::from_secs(600)).build())
    }
}

impl Unpacked {
    fn file(&self, name: &'static str) -> Result<Bytes, Problem> {
        if name == "start.js" {
            return Ok(Bytes::from_static(START.as_bytes()));
        }
        self.0.try_get_with(name, || unpacked(name)).map_err(|error| {
            tracing::error!(name, "a file of the API's documentation cannot be unpacked: {error}");
            Problem::internal()
        })
    }
}

fn unpacked(name: &str) -> Result<Bytes, zip::result::ZipError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED))?;
    let path = archive.file_names().flatten().find(|path| path.ends_with(&format!("/dist/{name}")));
    let path = path.map(std::borrow::Cow::into_owned);
    let mut file = archive.by_name(&path.ok_or(zip::result::ZipError::FileNotFound)?)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn answer(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Read the description of this API
///
/// A page for browsers; what it needs is below `/docs/`.
#[utoipa::path(get, path = "/docs", tag = "health", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
    (status = 302, description = "Sign in first"),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn page(Caller(ctx): Caller) -> Result<Response<Body>, Problem> {
    ctx.principal().require(Ability::Everything)?;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Agnes API</title>\
         <link rel=\"stylesheet\" href=\"docs/swagger-ui.css\"><link rel=\"stylesheet\" href=\"docs/index.css\">\
         <link rel=\"icon\" type=\"image/png\" href=\"docs/favicon-32x32.png\" sizes=\"32x32\"></head>\
         <body><div id=\"swagger-ui\"></div><script nonce=\"{nonce}\" src=\"docs/swagger-ui-bundle.js\"></script>\
         <script nonce=\"{nonce}\" src=\"docs/start.js\"></script></body></html>"
    );
    let mut response = answer("text/html; charset=utf-8", body);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// A file of the page `/docs`
#[utoipa::path(get, path = "/docs/{file}", tag = "health", params(("file" = String, Path, description = "Its name",
    example = "index.css")), responses(
    (status = 200, description = "The file", content(
        (String = "text/css"), (String = "text/javascript"), (Vec<u8> = "image/png"),
    )),
    (status = 302, description = "Sign in first"),
    ForUsers,
    (status = 404, description = "The page has no such file", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn file(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(name): Path<String>,
) -> Result<Response<Body>, Problem> {
    ctx.principal().require(Ability::Everything)?;
    let (name, kind) = FILES
        .into_iter()
        .chain([("start.js", "text/javascript; charset=utf-8")])
        .find(|(known, _)| *known == name)
        .ok_or_else(Problem::not_found)?;
    // Unpacking takes some milliseconds of the processor.
    let unpacked = tokio::task::spawn_blocking(move || app.documentation().file(name));
    let mut response = answer(kind, unpacked.await.map_err(|_| Problem::internal())??);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    response
        .headers_mut()
        .insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    Ok(response)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_carries_every_file() {
        let files = Unpacked::default();
        for (name, _) in FILES {
            assert!(files.file(name).is_ok_and(|bytes| bytes.len() > 100), "{name}");
        }
        let bundle = files.file("swagger-ui-bundle.js").unwrap();
        assert!(bundle.windows(15).any(|part| part == b"SwaggerUIBundle"));
        assert!(unpacked("nothing").is_err());
    }
}

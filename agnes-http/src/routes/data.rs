//! What a laptop pulls: the manifest, and files.

use std::sync::Arc;

use agnes_core::catalog::{Download, Manifest};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse as _;
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::caller::Caller;
use crate::extract::{Path, Query};
use crate::openapi::{ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::range::{self, Wanted};
use crate::state::App;

/// Bytes read of a file at a time.
const PIECE: usize = 512 << 10;

/// Whether the client holds what has this tag.
pub(super) fn is_held(headers: &HeaderMap, tag: &str) -> bool {
    let texts = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .any(|held| held == "*" || range::opaque(held) == range::opaque(tag))
}

pub(super) fn not_modified(tag: &str) -> Response<Body> {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    set(&mut response, ETAG, tag);
    set(&mut response, CACHE_CONTROL, "private, no-cache");
    response
}

pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What the caller may pull
///
/// By published name; the tag changes when there is something to pull or to tell.
#[utoipa::path(get, path = "/api/sync/manifest", tag = "data", responses(
    (status = 200, description = "Tables with their hashes, and assets", body = Manifest),
    (status = 304, description = "As the client holds it"),
    ForUsers,
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn manifest(
    State(app): State<App>,
    Caller(ctx): Caller,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let manifest = app.engine().catalog().manifest(&ctx).await?;
    let tag = format!("\"{}\"", manifest.etag);
    if is_held(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    let mut response = Json(manifest).into_response();
    set(&mut response, ETAG, &tag);
    set(&mut response, CACHE_CONTROL, "private, no-cache");
    Ok(response)
}

/// Whether the caller may take a table's file
///
/// For proxies that serve files themselves: it looks at no file.
#[utoipa::path(get, path = "/api/data/{table_id}/check-access", tag = "data",
    params(("table_id" = String, Path, description = "Id or name")), responses(
    (status = 204, description = "They may"),
    ForUsers,
    (status = 404, description = "It is not there", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn check_access(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().catalog().check_download(&ctx, &table).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DownloadParams {
    /// One part of a partitioned table, by its path in the manifest.
    part: Option<String>,
}

/// Take a table's file
///
/// Of a table that policies narrow for the caller it is their part alone. The tag is the MD5 of
/// the manifest.
#[utoipa::path(get, path = "/api/data/{table_id}/download", tag = "data",
    params(("table_id" = String, Path, description = "Id or name"), DownloadParams), responses(
    (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 206, description = "The range that was asked for", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 304, description = "As the client holds it"),
    ForUsers,
    (status = 404, description = "It, or the part, is not there", body = ProblemShape, content_type = "application/problem+json"),
    (status = 416, description = "The file has no such range", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn download(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(table): Path<String>,
    Query(params): Query<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let file = app.engine().catalog().download(&ctx, &table, params.part.as_deref()).await?;
    Ok(sent(file, &headers))
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AssetParams {
    /// Its path in the manifest.
    path: String,
}

/// Take a file that is no table
///
/// Documentation and helpers of the server (kind `docs`), and profiles of an older version
/// (`profiles`), as the manifest names them under `assets`. The tag is the MD5 of the manifest.
#[utoipa::path(get, path = "/api/sync/assets/{kind}/download", tag = "data",
    params(("kind" = String, Path, description = "As in the manifest"), AssetParams), responses(
    (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 206, description = "The range that was asked for", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 304, description = "As the client holds it"),
    ForUsers,
    (status = 404, description = "It is not there, or not for the caller", body = ProblemShape, content_type = "application/problem+json"),
    (status = 416, description = "The file has no such range", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn asset(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(kind): Path<String>,
    Query(params): Query<AssetParams>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let file = app.engine().catalog().asset(&ctx, &kind, &params.path).await?;
    Ok(sent(file, &headers))
}

/// A file, or the range of it that was asked for.
fn sent(file: Download, headers: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", file.md5);
    if is_held(headers, &tag) {
        return not_modified(&tag);
    }
    let (name, md5, sha256) = (file.file_name.clone(), file.md5.clone(), file.sha256.clone());
    let size = file.size_bytes;
    let file = Arc::new(file);
    let read = move |offset, size| {
        let file = file.clone();
        async move { file.read(offset, size).await }
    };
    let mut response = Content { kind: "application/octet-stream", tag: &md5, size }.ranged(headers, read);
    set(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", name.replace(['"', '\\'], "_")));
    set(&mut response, CACHE_CONTROL, "private, no-cache");
    if response.status() == StatusCode::OK {
        set(&mut response, HeaderName::from_static("x-agnes-content-md5"), &md5);
        set(&mut response, HeaderName::from_static("x-agnes-content-sha256"), &sha256);
    }
    response
}

/// What is sent whole or in ranges.
pub(super) struct Content<'a> {
    /// Its type.
    pub(super) kind: &'static str,
    /// Its tag, without quotes.
    pub(super) tag: &'a str,
    /// Its length, bytes.
    pub(super) size: u64,
}

impl Content<'_> {
    /// All of it, or the range that is asked for; `read` gives so many bytes from an offset on.
    pub(super) fn ranged<F>(
        &self,
        headers: &HeaderMap,
        read: impl Fn(u64, usize) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = agnes_core::Result<Vec<u8>>> + Send + 'static,
    {
        let (size, tag) = (self.size, format!("\"{}\"", self.tag));
        // A range of another version of the file is of no use: then all of it.
        let of_this = headers.get(IF_RANGE).is_none_or(|held| held.as_bytes() == tag.as_bytes());
        let range = headers.get(RANGE).filter(|_| of_this).and_then(|value| value.to_str().ok());
        let (status, from, length) = match range::wanted(range, size) {
            Wanted::All => (StatusCode::OK, 0, size),
            Wanted::Part { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
            Wanted::Nothing => {
                let problem =
                    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "the file is shorter");
                let mut response = problem.into_response();
                set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
                return response;
            }
        };
        let mut response = Response::new(Body::from_stream(pieces(read, from, length)));
        *response.status_mut() = status;
        set(&mut response, CONTENT_TYPE, self.kind);
        set(&mut response, CONTENT_LENGTH, &length.to_string());
        set(&mut response, ACCEPT_RANGES, "bytes");
        set(&mut response, ETAG, &tag);
        if status == StatusCode::PARTIAL_CONTENT {
            set(&mut response, CONTENT_RANGE, &format!("bytes {from}-{}/{size}", from + length - 1));
        }
        response
    }
}

/// The bytes of a file, by how a piece of it is read: the next one is read while the one before
/// it is sent.
pub(super) fn pieces<F: Future<Output = agnes_core::Result<Vec<u8>>> + Send>(
    read: impl Fn(u64, usize) -> F + Send,
    from: u64,
    length: u64,
) -> impl futures::Stream<Item = agnes_core::Result<Vec<u8>>> + Send {
    use futures::StreamExt as _;
    let end = from + length;
    let pieces = stream::iter((from..end).step_by(PIECE))
        .map(move |offset| read(offset, usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE)));
    pieces.buffered(2)
}

//! The command, to install on somebody's computer.

use agnes_core::distribution::{Artifact, Offer};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use utoipa::{IntoParams, ToSchema};

use super::data::{Content, set};
use crate::extract::{Path, Query};
use crate::frame::MIN_CLIENT;
use crate::openapi::ProblemShape;
use crate::problem::Problem;
use crate::state::App;
use crate::web::Origin;

/// The newest version of the command, and what it is for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Latest {
    /// None where this server offers no archives.
    version: Option<String>,
    /// The oldest version that works with this server.
    #[schema(example = "0.1.0")]
    min_version: &'static str,
    /// One for each kind of computer.
    artifacts: Vec<Artifact>,
}

/// Which version of the command there is
#[utoipa::path(get, path = "/cli/latest", tag = "cli", responses(
    (status = 200, description = "It", body = Latest),
))]
pub(crate) async fn latest(State(app): State<App>) -> Result<Json<Latest>, Problem> {
    let Offer { version, artifacts } = app.distribution().offer().await?;
    Ok(Json(Latest { version, min_version: MIN_CLIENT, artifacts }))
}

/// For which computer.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlatformParams {
    /// `linux`, `macos`; else as the client's `User-Agent` says.
    os: Option<String>,
    /// `x64`, `arm64`; else as the client's `User-Agent` says.
    arch: Option<String>,
}

/// What a `User-Agent` says of its computer.
fn platform_of(headers: &HeaderMap) -> (Option<&'static str>, Option<&'static str>) {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let first =
        |known: &[(&str, &'static str)]| known.iter().find(|(word, _)| text.contains(word)).map(|(_, name)| *name);
    let os = first(&[
        ("android", "android"),
        ("linux", "linux"),
        ("mac os", "macos"),
        ("macos", "macos"),
        ("windows", "windows"),
    ]);
    // Browsers on a Mac say Intel whatever it has.
    let arch = if os == Some("macos") {
        None
    } else {
        first(&[("x86_64", "x64"), ("amd64", "x64"), ("aarch64", "arm64"), ("arm64", "arm64")])
    };
    (os, arch)
}

/// Take the command
#[utoipa::path(get, path = "/cli/download", tag = "cli", params(PlatformParams), responses(
    (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/gzip"),
    (status = 206, description = "The range that was asked for", body = Vec<u8>, content_type = "application/gzip"),
    (status = 416, description = "The archive has no such range", body = ProblemShape, content_type = "application/problem+json"),
    (status = 400, description = "Say for which computer", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn download(
    State(app): State<App>,
    Query(params): Query<PlatformParams>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let offer = app.distribution().offer().await?;
    let (os, arch) = platform_of(&headers);
    let filename = &offer.artifact_for(params.os.as_deref().or(os), params.arch.as_deref().or(arch))?.filename;
    archive(&app, filename, &headers).await
}

/// Take an archive of the command
#[utoipa::path(get, path = "/cli/artifact/{filename}", tag = "cli",
    params(("filename" = String, Path, description = "As `/cli/latest` names it")), responses(
    (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/gzip"),
    (status = 206, description = "The range that was asked for", body = Vec<u8>, content_type = "application/gzip"),
    (status = 416, description = "The archive has no such range", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "It is not offered now", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn artifact(
    State(app): State<App>,
    Path(filename): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    archive(&app, &filename, &headers).await
}

async fn archive(app: &App, filename: &str, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let (artifact, path) = app.distribution().artifact(filename).await?;
    let failed = |error| Problem::from(agnes_core::Error::io("read an archive", error));
    // What is sent is the file that is open, whatever comes into its place.
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    let file = std::sync::Arc::new(tokio::sync::Mutex::new(file));
    let read = move |offset, size| {
        let file = file.clone();
        async move {
            let read = async {
                let mut file = file.lock().await;
                let mut bytes = vec![0; size];
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                file.read_exact(&mut bytes).await?;
                Ok(bytes)
            };
            read.await.map_err(|e| agnes_core::Error::io("read an archive", e))
        }
    };
    let content = Content { kind: "application/gzip", tag: &artifact.sha256, size: artifact.size_bytes };
    let mut response = content.ranged(headers, read);
    set(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", artifact.filename));
    set(&mut response, CACHE_CONTROL, "no-cache");
    set(&mut response, HeaderName::from_static("x-agnes-content-sha256"), &artifact.sha256);
    Ok(response)
}

/// A script that installs the command
///
/// For `sh`, with the address of this server and the hash of each archive in it.
#[utoipa::path(get, path = "/cli/install.sh", tag = "cli", responses(
    (status = 200, description = "The script", body = String, content_type = "text/x-shellscript"),
    (status = 404, description = "There is nothing to install", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn installer(State(app): State<App>, Origin(origin): Origin) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::from(app.distribution().installer(&origin).await?));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/x-shellscript; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn browsers_say_what_they_run_on() {
        for (agent, told) in [
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", (Some("linux"), Some("x64"))),
            ("agnes/0.1.0 (linux)", (Some("linux"), None)),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", (Some("macos"), None)),
            ("Mozilla/5.0 (Linux; Android 14)", (Some("android"), None)),
            ("curl/8.5.0", (None, None)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            assert_eq!(platform_of(&headers), told, "{agent}");
        }
    }
}

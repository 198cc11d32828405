//! The initial workspace: the repository whose files `agnes init` writes.

use std::io::{Cursor, Write as _};

use agnes_core::initial::{Applied, InitialFiles, InitialOffer, InitialSynced, InitialView};
use agnes_core::secret::Secret;
use agnes_core::templates::Place;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use zip::write::SimpleFileOptions;

use super::data::{is_held, not_modified, set};
use crate::caller::Caller;
use crate::extract::{self, Query};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;
use crate::web::{Origin, redirect};

/// Archives that are made at a time.
static PACKING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

/// The repository that workspaces begin with
#[utoipa::path(get, path = "/api/admin/initial-workspace", tag = "texts", responses(
    (status = 200, description = "It", body = InitialView), ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn view(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<InitialView>, Problem> {
    Ok(Json(app.engine().initial_workspace().view(&ctx).await?))
}

/// A repository.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInitial {
    /// Its address, by `https`.
    #[schema(example = "https://git.example.com/team/workspace.git")]
    url: String,
    /// The branch; that which the repository names itself where there is none.
    branch: Option<String>,
    /// A token that may read it: the one that is kept for this host where there is none, none where it is empty.
    token: Option<String>,
}

/// Have workspaces begin with the files of a repository
///
/// Its newest commit is brought first; where that does not work nothing is changed.
#[utoipa::path(post, path = "/api/admin/initial-workspace", tag = "texts", request_body = NewInitial, responses(
    (status = 200, description = "Its files are taken", body = InitialView), ForAdmins, WithBody,
    (status = 502, description = "The repository did not come", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn register(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewInitial>,
) -> Result<Json<InitialView>, Problem> {
    let token = new.token.map(|token| Secret::new(token.trim()));
    let done = app.engine().initial_workspace().register(&ctx, new.url.trim(), new.branch.as_deref(), token).await?;
    Ok(Json(done))
}

/// Whether what is here goes too.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PurgeParams {
    /// Delete the files that are here, too.
    #[serde(default)]
    purge: bool,
}

/// Return to the usual files of workspaces
#[utoipa::path(delete, path = "/api/admin/initial-workspace", tag = "texts", params(PurgeParams), responses(
    (status = 204, description = "The usual files hold"), ForAdmins,
    (status = 404, description = "There is no repository", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn remove(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<PurgeParams>,
) -> Result<StatusCode, Problem> {
    app.engine().initial_workspace().remove(&ctx, params.purge).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Bring the newest commit of the repository
#[utoipa::path(post, path = "/api/admin/initial-workspace/sync", tag = "texts", responses(
    (status = 200, description = "It is here", body = InitialSynced), ForAdmins,
    (status = 400, description = "What is in it is not taken", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "There is no repository", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "It did not come", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn sync(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<InitialSynced>, Problem> {
    Ok(Json(app.engine().initial_workspace().sync(&ctx).await?))
}

/// Whether workspaces begin with the files of a repository
#[utoipa::path(get, path = "/api/initial-workspace", tag = "texts", responses(
    (status = 200, description = "Which", body = InitialOffer), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn offer(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<InitialOffer>, Problem> {
    Ok(Json(app.engine().initial_workspace().offer(&ctx).await?))
}

/// The files that a workspace begins with
///
/// A ZIP archive, the same for everybody who reaches the server by the same address. A browser that is
/// signed out is sent to the sign-in page.
#[utoipa::path(get, path = "/api/initial-workspace.zip", tag = "texts", responses(
    (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/zip"),
    (status = 302, description = "Sign in first"),
    (status = 304, description = "It is the one of `If-None-Match`"), ForUsers,
    (status = 404, description = "There is no repository", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Its files are not here", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn archive(
    State(app): State<App>,
    caller: Result<Caller, Problem>,
    Origin(origin): Origin,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Caller(ctx) = match caller {
        Ok(caller) => caller,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED && accepts.contains("text/html") => {
            return Ok(redirect(StatusCode::FOUND, "/login?next=%2Fapi%2Finitial-workspace.zip"));
        }
        Err(problem) => return Err(problem),
    };
    let initial = app.engine().initial_workspace();
    let tag = format!("\"{}\"", initial.commit(&ctx).await?);
    if is_held(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    let place = Place { origin: &origin, offers: super::texts::offers(&app).await, authority: None };
    // Each is in memory as a whole.
    let _turn = PACKING.acquire().await.ok();
    let files = initial.files(&ctx, place).await?;
    let packed = agnes_core::duck::blocking(move || {
        packed(&files).map_err(|e| agnes_core::Error::internal("pack the initial workspace", e))
    });
    let mut response = Response::new(Body::from(packed.await?));
    set(&mut response, CONTENT_TYPE, "application/zip");
    set(&mut response, CONTENT_DISPOSITION, "attachment; filename=\"initial-workspace.zip\"");
    set(&mut response, CACHE_CONTROL, "private, no-cache");
    set(&mut response, ETAG, &tag);
    Ok(response)
}

/// A ZIP archive that is the same for the same files. Blocks.
fn packed(files: &InitialFiles) -> zip::result::ZipResult<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for file in &files.files {
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        // Without a time: that of 1980, where ZIP's begin.
        let options = SimpleFileOptions::default().last_modified_time(zip::DateTime::default()).unix_permissions(mode);
        archive.start_file(&file.path, options)?;
        archive.write_all(&file.content)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// What a laptop did with the files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppliedFiles {
    mode: Applied,
    /// The commit.
    #[schema(example = "9fceb02d0ae598e95dc970b74767f19372d61af8")]
    template_sha: String,
    /// How many took the place of another.
    #[schema(value_type = u64, maximum = 4294967295_u64)]
    files_overwritten: u32,
    /// How many are new.
    #[schema(value_type = u64, maximum = 4294967295_u64)]
    files_created: u32,
}

/// Note that a workspace was begun with the files
#[utoipa::path(post, path = "/api/initial-workspace/applied", tag = "texts", request_body = AppliedFiles, responses(
    (status = 204, description = "It is in the audit log"), ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn applied(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(done): extract::Json<AppliedFiles>,
) -> Result<StatusCode, Problem> {
    let AppliedFiles { mode, template_sha, files_overwritten, files_created } = done;
    let initial = app.engine().initial_workspace();
    initial.applied(&ctx, mode, &template_sha, files_overwritten, files_created).await?;
    Ok(StatusCode::NO_CONTENT)
}

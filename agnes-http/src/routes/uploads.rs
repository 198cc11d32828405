//! Files that people send: sessions, artefacts, notes, and files that become tables.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::CallContext;
use agnes_core::uploads::{Incoming, OwnUpload, TableUpload, TableUploaded, Uploaded, table_name_of};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Path;
use crate::form::{Form, Part};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// Notes that are read at once: each is in memory as a whole.
static READING: Semaphore = Semaphore::const_new(2);

/// Bytes of notes that are read without waiting for a turn.
const SHORT: usize = 1 << 20;

/// How long notes wait for their turn to be read, and how long they are read then.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(120);

fn busy() -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_uploads", "others are sending long notes").retry_after(30)
}

/// A form with a file.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct FileForm {
    /// The file, at most 50 MiB.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A file that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Kept {
    /// Always `ok`.
    status: &'static str,
    /// What it is called.
    #[schema(example = "session.jsonl")]
    filename: String,
    /// Bytes.
    size: u64,
}

impl From<Uploaded> for Kept {
    fn from(kept: Uploaded) -> Self {
        Self { status: "ok", filename: kept.filename, size: kept.size }
    }
}

fn no_file() -> Problem {
    Problem::invalid(&["body", "file"], "a file is missing", "missing")
}

async fn receive(part: &mut Part, incoming: &mut Incoming) -> Result<(), Problem> {
    while let Some(bytes) = part.chunk().await? {
        incoming.write(bytes.as_ref()).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Own {
    Session,
    Artifact,
}

/// Keeps the file of a form for the caller; other fields do not matter.
async fn keep(app: &App, ctx: &CallContext, request: Request, own: Own) -> Result<Json<Kept>, Problem> {
    let uploads = app.engine().uploads();
    // Before anything is read.
    uploads.require(ctx).await?;
    let mut form = Form::of(request, uploads.max_bytes()).await?;
    match own_file(app, ctx, &mut form, own).await {
        Ok(arrived) => Ok(Json(uploads.keep(ctx, arrived).await?.into())),
        Err(problem) => Err(form.refuse(problem).await),
    }
}

async fn own_file(app: &App, ctx: &CallContext, form: &mut Form, own: Own) -> Result<OwnUpload, Problem> {
    let uploads = app.engine().uploads();
    let mut arrived: Option<OwnUpload> = None;
    while let Some(mut part) = form.next().await? {
        if part.name() != "file" || arrived.is_some() {
            continue;
        }
        let Some(name) = part.file_name().map(ToOwned::to_owned) else { return Err(no_file()) };
        let mut upload = match own {
            Own::Session => uploads.session(ctx, &name).await?,
            Own::Artifact => uploads.artifact(ctx, &name).await?,
        };
        receive(&mut part, upload.incoming()).await?;
        arrived = Some(upload);
    }
    arrived.ok_or_else(no_file)
}

/// Keep a session
///
/// Under its name, in place of an earlier one: letters, digits, `.`, `_` and `-`, at most 200. One whose
/// name ends in `.gz` is unpacked first.
#[utoipa::path(post, path = "/api/upload/sessions", tag = "uploads",
    request_body(content = FileForm, content_type = "multipart/form-data"), responses(
    (status = 200, description = "It is kept", body = Kept,
        headers(("Accept-Encoding" = String, description = "How files may be packed (RFC 7694)"))),
    ForUsers,
    (status = 400, description = "The name, the form, or what is packed is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The file is too large, or the caller has too much here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not a form", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "There is no file", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many files of the caller arrive", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The disk is full", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn session(
    State(app): State<App>,
    Caller(ctx): Caller,
    request: Request,
) -> Result<([(HeaderName, &'static str); 1], Json<Kept>), Problem> {
    Ok(([(ACCEPT_ENCODING, "gzip")], keep(&app, &ctx, request, Own::Session).await?))
}

/// A session of the caller
///
/// As it is kept: what looked like a secret is replaced. One of somebody else is not there.
#[utoipa::path(get, path = "/profile/sessions/{filename}", tag = "uploads",
    params(("filename" = String, Path, description = "Its name")), responses(
    (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 302, description = "Sign in first"),
    ForUsers,
    (status = 404, description = "The caller has none of this name", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn own_session(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(name): Path<String>,
) -> Result<Response<Body>, Problem> {
    let file = Arc::new(app.engine().uploads().own_session(&ctx, &name).await?);
    let size = file.size;
    // The engine takes no name that would need quotes.
    let attachment =
        HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).map_err(|_| Problem::internal())?;
    let read = move |offset, length| {
        let file = file.clone();
        async move { file.read(offset, length).await }
    };
    let mut response = Response::new(Body::from_stream(super::data::pieces(read, 0, size)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(CONTENT_DISPOSITION, attachment);
    Ok(response)
}

/// Keep a file
///
/// Of its name the last piece counts; one that is no name for a file is replaced by a new one.
#[utoipa::path(post, path = "/api/upload/artifacts", tag = "uploads",
    request_body(content = FileForm, content_type = "multipart/form-data"), responses(
    (status = 200, description = "It is kept", body = Kept),
    ForUsers,
    (status = 400, description = "The form is not whole", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The file is too large, or the caller has too much here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not a form", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "There is no file", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many files of the caller arrive", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The disk is full", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn artifact(
    State(app): State<App>,
    Caller(ctx): Caller,
    request: Request,
) -> Result<Json<Kept>, Problem> {
    keep(&app, &ctx, request, Own::Artifact).await
}

/// Notes of a laptop.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notes {
    /// The text.
    #[schema(example = "# What I found")]
    content: String,
}

/// Notes that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NotesKept {
    /// Always `ok`.
    status: &'static str,
    /// Whose.
    user: String,
    /// Bytes.
    size: u64,
}

/// Keep the notes of a laptop
///
/// In place of earlier ones.
#[utoipa::path(post, path = "/api/upload/local-md", tag = "uploads", request_body = Notes, responses(
    (status = 200, description = "They are kept", body = NotesKept),
    ForUsers,
    (status = 408, description = "They did not arrive in time", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "They are too long", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not JSON", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "The body is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many files of the caller arrive", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The disk is full", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn notes(
    State(app): State<App>,
    Caller(ctx): Caller,
    request: Request,
) -> Result<Json<NotesKept>, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let uploads = app.engine().uploads();
    // Before anything is read.
    uploads.require(&ctx).await?;
    // Escapes make a text longer than it is.
    let limit = usize::try_from(uploads.max_bytes()).unwrap_or(usize::MAX).saturating_add(SHORT);
    let (body, announced) = {
        let length = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        (request.into_body(), length.unwrap_or(usize::MAX))
    };
    let _turn = match announced > SHORT {
        true => Some(tokio::time::timeout(PATIENCE, READING.acquire()).await.map_err(|_| busy())?),
        false => None,
    };
    let read = axum::body::to_bytes(body, if announced > SHORT { limit } else { SHORT });
    let read = tokio::time::timeout(LONGEST, read).await;
    let read = read.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))?;
    let bytes = read.map_err(|_| Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE))?;
    // Megabytes of text keep a thread busy for a while.
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<Notes>(&bytes));
    let notes = parsed
        .await
        .map_err(|_| Problem::internal())?
        .map_err(|error| Problem::invalid(&["body"], &error.to_string(), "value_error"))?;
    let kept = uploads.notes(&ctx, &notes.content).await?;
    Ok(Json(NotesKept { status: "ok", user: ctx.principal().user_id().to_owned(), size: kept.size }))
}

/// A form with a file that becomes a table.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct TableForm {
    /// CSV, TSV, JSON, NDJSON (each also packed as `.gz` or `.zst`), Parquet or XLSX, at most
    /// 50 MiB. The ending of its name says which.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Name of the table; without it the name of the file.
    table: Option<String>,
    /// For people and their assistants.
    description: Option<String>,
    /// A JSON object that says how to read it: `delimiter`, `header`, `encoding`, `columns`,
    /// `sheet` and other settings of a table of files.
    options: Option<String>,
}

/// A table made of a file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TableMade {
    /// Always `ok`.
    status: &'static str,
    /// What grants name.
    #[schema(example = "orders")]
    id: String,
    /// What SQL names.
    name: String,
    /// Rows now.
    rows: u64,
    /// Rows put aside because they do not fit.
    rejected_rows: u64,
    /// The file, as it was called.
    filename: String,
    /// Bytes of the file.
    size: u64,
    /// Whether the table was there before.
    replaced: bool,
    /// What was noticed, one sentence each.
    notes: Vec<String>,
    /// Under which `/api/sync/runs/{id}` tells of it.
    run_id: String,
}

impl From<TableUploaded> for TableMade {
    fn from(made: TableUploaded) -> Self {
        Self {
            status: "ok",
            id: made.id,
            name: made.name,
            rows: made.rows,
            rejected_rows: made.rejected_rows,
            filename: made.filename,
            size: made.size,
            replaced: made.replaced,
            notes: made.notes,
            run_id: made.run_id,
        }
    }
}

/// Make a table of a file
///
/// For admins. A table of that name that was made so before gets the new data; a file that
/// cannot be read leaves everything as it was. The table is there when this answers, for admins
/// until it is granted.
#[utoipa::path(post, path = "/api/upload/data", tag = "uploads",
    request_body(content = TableForm, content_type = "multipart/form-data"), responses(
    (status = 200, description = "The table has other data", body = TableMade),
    (status = 201, description = "The table is new", body = TableMade),
    ForAdmins,
    (status = 400, description = "The file cannot become a table, or the form is not whole", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A table of another source has the name, or the source is being synced", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The file is too large", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not a form", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A field is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many files of the caller arrive", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The disk is full, or try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn table(
    State(app): State<App>,
    Caller(ctx): Caller,
    request: Request,
) -> Result<(StatusCode, Json<TableMade>), Problem> {
    let uploads = app.engine().uploads();
    // Before anything is read: who is no admin sends nothing.
    let mut incoming = uploads.table_file(&ctx).await?;
    let mut form = Form::of(request, uploads.max_bytes()).await?;
    let upload = match table_file(&mut form, &mut incoming).await {
        Ok(upload) => upload,
        Err(problem) => return Err(form.refuse(problem).await),
    };
    let made: TableMade = uploads.make_table(&ctx, incoming, upload).await?.into();
    Ok((if made.replaced { StatusCode::OK } else { StatusCode::CREATED }, Json(made)))
}

async fn table_file(form: &mut Form, incoming: &mut Incoming) -> Result<TableUpload, Problem> {
    let (mut upload, mut table, mut arrived) = (TableUpload::default(), None, false);
    while let Some(mut part) = form.next().await? {
        match part.name() {
            "file" if !arrived => {
                let Some(name) = part.file_name().map(ToOwned::to_owned) else { return Err(no_file()) };
                receive(&mut part, incoming).await?;
                (upload.file_name, arrived) = (name, true);
            }
            "table" => table = Some(part.text().await?),
            "description" => upload.description = Some(part.text().await?).filter(|text| !text.trim().is_empty()),
            "options" => {
                let text = part.text().await?;
                let wrong = |_| Problem::invalid(&["body", "options"], "it is no JSON object", "value_error");
                upload.options = Some(serde_json::from_str(&text).map_err(wrong)?);
            }
            other => {
                let message = "there is no such field: `file`, `table`, `description`, `options`";
                return Err(Problem::invalid(&["body", other], message, "extra_forbidden"));
            }
        }
    }
    if !arrived {
        return Err(no_file());
    }
    upload.table = table.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| table_name_of(&upload.file_name));
    Ok(upload)
}

//! Forms with files (`multipart/form-data`), read as they arrive.

use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use futures::{StreamExt as _, stream};
use multer::{Constraints, Multipart, SizeLimit};
use tokio::sync::Mutex;

use crate::problem::Problem;

/// Bytes of a form beside its file: heads of parts and short fields.
const BESIDE: u64 = 256 << 10;

/// How long, and how many bytes, the rest of a form that is refused is read: a client that is
/// still sending would miss the answer otherwise.
const PATIENCE: Duration = Duration::from_secs(2);
const REST: usize = 64 << 20;

/// A form that is arriving.
pub(crate) struct Form {
    parts: Multipart<'static>,
    rest: Rest,
}

/// What has not arrived yet.
type Rest = Arc<Mutex<BodyDataStream>>;

impl Form {
    /// Of a request whose file may have `limit` bytes.
    ///
    /// # Errors
    /// 413 where the head says that there is more, 415 where it is no form.
    pub(crate) async fn of(request: Request, limit: u64) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let not_a_form = || {
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body has to be a form")
                .hint("send `multipart/form-data` with the file in the field `file`")
        };
        if !kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
            return Err(not_a_form());
        }
        let boundary = multer::parse_boundary(kind).map_err(|_| not_a_form())?;
        if length(&head.headers).is_some_and(|length| length > limit.saturating_add(BESIDE)) {
            // Who waits to be asked for the body has sent none.
            if !head.headers.contains_key(EXPECT) {
                discard(&Arc::new(Mutex::new(body.into_data_stream()))).await;
            }
            return Err(too_large(limit));
        }
        let rest: Rest = Arc::new(Mutex::new(body.into_data_stream()));
        let arriving = stream::unfold(rest.clone(), |rest| async move {
            let next = rest.lock().await.next().await;
            next.map(|bytes| (bytes, rest))
        });
        let sizes = Constraints::new().size_limit(SizeLimit::new().whole_stream(limit.saturating_add(BESIDE)));
        Ok(Self { parts: Multipart::with_constraints(arriving, boundary, sizes), rest })
    }

    /// The refusal of a form that is still arriving.
    pub(crate) async fn refuse(self, problem: Problem) -> Problem {
        let Self { parts, rest } = self;
        drop(parts);
        if problem.status() == StatusCode::PAYLOAD_TOO_LARGE {
            discard(&rest).await;
        }
        problem
    }

    /// The next part.
    ///
    /// # Errors
    /// 400 where the form is not whole, 413.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, Problem> {
        Ok(self.parts.next_field().await.map_err(refused)?.map(Part))
    }
}

/// Reads what is left, for a while.
async fn discard(rest: &Rest) {
    let mut left = REST;
    let read = async {
        let mut rest = rest.lock().await;
        while let Some(Ok(bytes)) = rest.next().await {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, read).await;
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: u64) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "upload_too_large", format!("a file has at most {limit} bytes"))
}

fn refused(error: multer::Error) -> Problem {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE)
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "bad_request", "the form is not whole"),
    }
}

/// A part of a form.
pub(crate) struct Part(multer::Field<'static>);

impl Part {
    /// Name of the field.
    pub(crate) fn name(&self) -> &str {
        self.0.name().unwrap_or_default()
    }

    /// Name of the file, where the part is one.
    pub(crate) fn file_name(&self) -> Option<&str> {
        self.0.file_name()
    }

    /// What arrived of it since.
    ///
    /// # Errors
    /// 400 where the form is not whole, 413.
    pub(crate) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Problem> {
        self.0.chunk().await.map_err(refused)
    }

    /// All of a short field.
    ///
    /// # Errors
    /// 400 where the form is not whole, 413, 422 where it is no text.
    pub(crate) async fn text(mut self) -> Result<String, Problem> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() as u64 > BESIDE {
                return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
            }
        }
        String::from_utf8(bytes).map_err(|_| Problem::invalid(&["body", self.name()], "it is no text", "value_error"))
    }
}

//! The scheduler of this process, whose calls go the way of every request without a connection;
//! what is heard of one in a process of its own.

use agnes_core::Client;
use agnes_core::scheduler::{JOBS, JobAnswer, Perform, ScheduledJob};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::caller::{OfThisProcess, bearer};
use crate::state::App;

/// Bytes of an answer that are read: what is not well is said at its beginning.
const BEGINNING: usize = 4096;

/// Remembers that the scheduler of another process called, where `path` is one of its jobs: some
/// of them need nobody, so that nothing else would tell of it.
pub(crate) async fn heard(app: &App, path: &str, headers: &HeaderMap) {
    if !JOBS.iter().any(|job| job.path == path) {
        return;
    }
    let Ok(Some(token)) = bearer(headers) else { return };
    if let Err(error) = app.engine().sign_in().hear_service(token).await {
        tracing::error!(code = error.code(), "whether the scheduler called cannot be told: {error}");
    }
}

/// Calls routes of this process as the service.
pub(crate) struct Inside {
    pub(crate) app: App,
    pub(crate) router: Router,
}

#[async_trait]
impl Perform for Inside {
    async fn perform(&self, job: &ScheduledJob) -> Result<JobAnswer, String> {
        let service = self.app.engine().sign_in().as_service(&Client::at(None)).await.map_err(|e| e.to_string())?;
        let request = Request::builder().method(job.method).uri(job.path);
        let request = request.extension(OfThisProcess(service)).body(Body::empty()).map_err(|e| e.to_string())?;
        let response = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (head, mut body) = response.into_parts();
        let mut beginning = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(bytes) = frame.data_ref() {
                beginning.extend_from_slice(bytes);
            }
            if beginning.len() >= BEGINNING {
                break;
            }
        }
        Ok(JobAnswer { status: head.status.as_u16(), body: String::from_utf8_lossy(&beginning).into_owned() })
    }
}

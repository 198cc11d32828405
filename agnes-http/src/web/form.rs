//! Bodies of forms: taken only from pages of our own.

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Visit;
use crate::caller::is_cross_site;
use crate::extract::Json;
use crate::problem::Problem;
use crate::state::App;

const FORM: &str = "application/x-www-form-urlencoded";

/// A form that a page of ours sent, with the visit it belongs to.
#[derive(Debug)]
pub(crate) struct Form<T>(pub(crate) T, pub(crate) Visit);

/// A form with the value that proves where it comes from.
#[derive(Deserialize)]
struct Proved<T> {
    #[serde(default)]
    csrf_token: String,
    #[serde(flatten)]
    body: T,
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
}

fn not_ours() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "csrf_failed", "this form was not sent by a page of this server")
        .hint("it may have been open for too long: open the page anew and try again")
        .for_people()
}

impl<T: DeserializeOwned> FromRequest<App> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_form(request.headers()) {
            let problem = Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            return Err(problem.hint(format!("send `Content-Type: {FORM}`")));
        }
        if is_cross_site(request.headers(), app) {
            return Err(not_ours());
        }
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, app).await?;
        let request = Request::from_parts(parts, body);
        match axum::Form::<Proved<T>>::from_request(request, app).await {
            Ok(axum::Form(sent)) if visit.sent_form(&sent.csrf_token) => Ok(Self(sent.body, visit)),
            Ok(_) => Err(not_ours()),
            Err(refused) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE))
            }
            Err(_) => Err(Problem::invalid(&["body"], "a field of the form is missing", "value_error")),
        }
    }
}

/// JSON of a program, or the form of a page.
#[derive(Debug)]
pub(crate) enum Body<T> {
    /// From a program.
    Json(T),
    /// From a page of ours.
    Form(T, Box<Visit>),
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if is_form(request.headers()) {
            let Form(body, visit) = Form::from_request(request, app).await?;
            return Ok(Self::Form(body, Box::new(visit)));
        }
        Ok(Self::Json(Json::from_request(request, app).await?.0))
    }
}

/// A form, or a request without one: for operations that need no body.
#[derive(Debug)]
pub(crate) enum MaybeForm {
    /// A page of ours sent it.
    Form,
    /// A program did.
    Other,
}

#[derive(Debug, Deserialize)]
struct Nothing {}

impl FromRequest<App> for MaybeForm {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_form(request.headers()) {
            return Ok(Self::Other);
        }
        let Form(Nothing {}, _) = Form::from_request(request, app).await?;
        Ok(Self::Form)
    }
}

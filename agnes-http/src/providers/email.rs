//! Signing in by a link in a mail.

use agnes_core::config::local_path;
use agnes_core::identity::Letter;
use agnes_core::mail::Asked;
use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use maud::html;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Button, Provider};
use crate::extract::Query;
use crate::openapi::{ProblemShape, WithBody, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::routes::auth::SessionAnswer;
use crate::state::App;
use crate::web::{Body, Page, Visit, begin_session, encoded, field, hidden, landing, message};

/// Links that sign in.
pub(super) struct Email;

impl Provider for Email {
    fn name(&self) -> &'static str {
        "email"
    }
    fn order(&self) -> u8 {
        3
    }
    fn is_available(&self, app: &App) -> bool {
        app.engine().mails().is_on() || app.engine().config().dev.is_some()
    }
    fn login_button(&self, _: &App) -> Option<Button> {
        Some(Button { label: "Get a link by mail".to_owned(), path: "/login/email" })
    }
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App> {
        to.routes(routes!(page)).routes(routes!(send_link)).routes(routes!(landing_page, verify))
    }
}

fn require(app: &App) -> Result<(), Problem> {
    app.engine().sign_in().require_provider("email").map_err(|refused| Problem::from(refused).for_people())?;
    if Email.is_available(app) {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::FORBIDDEN, "provider_disabled", "this server sends no mails");
    Err(problem.hint("choose another way on the sign-in page").for_people())
}

/// One text for everybody: it never says that a mail was sent.
const NEUTRAL: &str = "If this address has an account here, a mail with a link will arrive in a few minutes.";

/// The neutral page after asking for a link.
pub(super) fn sent_page(app: &App, visit: &Visit) -> Response<HttpBody> {
    let body = html! {
        section.card {
            h1 { "Check your mail" }
            p { (NEUTRAL) }
            p.hint { "Nothing came? Look into the folder for unwanted mail, or ask an admin whether you have an account." }
            p.below { a href="/login" { "Back to signing in" } }
        }
    };
    Page::new("Check your mail", body).with_forms(visit).render(app)
}

/// Where to go afterwards.
#[derive(Debug, Deserialize)]
pub(crate) struct NextQuery {
    next: Option<String>,
}

/// The page for signing in by mail
#[utoipa::path(get, path = "/login/email", tag = "pages",
    params(("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 403, description = "Links by mail are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<NextQuery>,
) -> Result<Response<HttpBody>, Problem> {
    require(&app)?;
    let next = landing(&app, query.next.as_deref());
    let body = html! {
        section.card {
            h1 { "Get a link by mail" }
            p.lead { "You get a mail with a link that signs you in. It works once." }
            form method="post" action="/auth/email/send-link" {
                (hidden("csrf_token", visit.form_token()))
                (hidden("next", &next))
                (field("Email", "email", "email", "email", "", None))
                button type="submit" { "Send me a link" }
            }
            p.below { a href={ "/login?next=" (encoded(&next)) } { "Other ways to sign in" } }
        }
    };
    Ok(Page::new("Get a link by mail", body).with_forms(&visit).render(&app))
}

/// An address to send a link to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkRequest {
    /// The address.
    #[schema(example = "ann@example.com")]
    email: String,
    /// Where the link leads on to: a path of this server.
    next: Option<String>,
}

/// The same words for everybody.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkAnswer {
    /// For people.
    message: &'static str,
    /// In development mode alone: the link itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_link: Option<String>,
    /// In development mode alone: why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    send_error: Option<String>,
}

/// Ask for a link that signs in
///
/// The answer is the same whether or not the account exists. At most five times a minute from
/// one address.
#[utoipa::path(post, path = "/auth/email/send-link", tag = "sign-in",
    request_body(content((LinkRequest = "application/json"), (LinkRequest = "application/x-www-form-urlencoded"))), responses(
    (status = 200, description = "A neutral answer; a page for a form", body = LinkAnswer),
    WithBody, WithForm,
))]
pub(crate) async fn send_link(
    State(app): State<App>,
    seen: Visit,
    body: Body<LinkRequest>,
) -> Result<Response<HttpBody>, Problem> {
    require(&app)?;
    app.rates().count(Limited::Mail, seen.client.ip()).map_err(Problem::for_people)?;
    let (Body::Json(request) | Body::Form(request, _)) = &body;
    if app.engine().config().dev.is_some() {
        return developer_link(&app, &seen, &body, request).await;
    }
    app.engine().mails().send_later(Asked::Login, &request.email, &seen.origin, request.next.as_deref());
    Ok(match body {
        Body::Json(_) => Json(LinkAnswer { message: NEUTRAL, dev_link: None, send_error: None }).into_response(),
        Body::Form(_, visit) => sent_page(&app, &visit),
    })
}

/// A developer has no mailbox: the answer holds the link.
async fn developer_link(
    app: &App,
    seen: &Visit,
    body: &Body<LinkRequest>,
    request: &LinkRequest,
) -> Result<Response<HttpBody>, Problem> {
    let letter = app.engine().sign_in().link_for_developer(&request.email).await?;
    let (mut dev_link, mut send_error) = (None, None);
    if let Some(letter) = &letter {
        let next = request.next.as_deref().and_then(local_path).map(ToOwned::to_owned);
        let letter = &Letter { next, ..letter.clone() };
        dev_link = Some(format!("{}{}", seen.origin, letter.path().expose()));
        send_error = app.engine().mails().send(letter, &seen.origin).await.err().map(|error| error.to_string());
    }
    if let Body::Json(_) = body {
        return Ok(Json(LinkAnswer { message: NEUTRAL, dev_link, send_error }).into_response());
    }
    let page = html! {
        section.card {
            h1 { "Check your mail" }
            p { (NEUTRAL) }
            @if let Some(link) = &dev_link { p { a href=(link) { "Development mode: open the link" } } }
        }
    };
    Ok(Page::new("Check your mail", page).with_forms(seen).render(app))
}

/// Address and token of a mailed link.
#[derive(Debug, Deserialize)]
pub(crate) struct VerifyQuery {
    #[serde(default)]
    email: String,
    #[serde(default)]
    token: String,
    next: Option<String>,
}

const INVALID: &str = "This link was used already, is too old, or is not one of ours. Ask for a new one.";

/// The page that a mailed link opens
///
/// Looking at it uses nothing up, as mail scanners look at links: its button signs in. Where
/// the operator wants it, opening the link is enough.
#[utoipa::path(get, path = "/auth/email/verify", tag = "pages",
    params(("email" = Option<String>, Query, description = "As the link has it"), ("token" = Option<String>, Query, description = "As the link has it"),
           ("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "Signed in"),
        (status = 401, description = "The link is worth nothing", body = String, content_type = "text/html"),
        (status = 403, description = "Links by mail are switched off", body = ProblemShape, content_type = "application/problem+json"),
        (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub(crate) async fn landing_page(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<VerifyQuery>,
) -> Result<Response<HttpBody>, Problem> {
    require(&app)?;
    app.rates().count(Limited::Link, visit.client.ip()).map_err(Problem::for_people)?;
    if app.engine().config().auth.magic_link_one_click {
        return Ok(match app.engine().sign_in().with_link(&visit.client, &query.email, &query.token).await {
            Ok(session) => begin_session(&app, &visit, &session, StatusCode::FOUND, query.next.as_deref()),
            Err(_) => refused_page(&app, &visit),
        });
    }
    let body = html! {
        section.card {
            h1 { "Sign in" }
            p.lead { "You are about to sign in as " strong { (query.email) } "." }
            form method="post" action="/auth/email/verify" {
                (hidden("csrf_token", visit.form_token()))
                (hidden("email", &query.email)) (hidden("token", &query.token))
                @if let Some(next) = query.next.as_deref().and_then(local_path) { (hidden("next", next)) }
                button type="submit" { "Sign in" }
            }
        }
    };
    Ok(Page::new("Sign in", body).with_forms(&visit).render(&app))
}

fn refused_page(app: &App, visit: &Visit) -> Response<HttpBody> {
    let body = html! {
        section.card {
            h1 { "Sign in" }
            (message(true, INVALID))
            p.below { a href="/login/email" { "Get a new link" } " · " a href="/login" { "Other ways to sign in" } }
        }
    };
    Page::new("Sign in", body).with_forms(visit).status(StatusCode::UNAUTHORIZED).render(app)
}

/// A mailed link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// As the link has it.
    email: String,
    /// As the link has it.
    token: String,
    /// Where a form goes afterwards: a path of this server.
    next: Option<String>,
}

/// Sign in with a mailed link
///
/// The link is used up. At most ten times a minute from one address.
#[utoipa::path(post, path = "/auth/email/verify", tag = "sign-in",
    request_body(content((VerifyRequest = "application/json"), (VerifyRequest = "application/x-www-form-urlencoded"))), responses(
    (status = 200, description = "A session", body = SessionAnswer),
    (status = 303, description = "Signed in, for a form"),
    (status = 401, description = "The link is worth nothing", body = ProblemShape, content_type = "application/problem+json"),
    WithBody, WithForm,
))]
pub(crate) async fn verify(
    State(app): State<App>,
    seen: Visit,
    crate::caller::Sender(client): crate::caller::Sender,
    body: Body<VerifyRequest>,
) -> Result<Response<HttpBody>, Problem> {
    require(&app)?;
    app.rates().count(Limited::Link, client.ip()).map_err(Problem::for_people)?;
    let (Body::Json(request) | Body::Form(request, _)) = &body;
    let client = if matches!(body, Body::Form(..)) { &seen.client } else { &client };
    let done = app.engine().sign_in().with_link(client, &request.email, &request.token).await;
    match (done, &body) {
        (Ok(session), Body::Json(_)) => Ok(Json(SessionAnswer::from(session)).into_response()),
        (Ok(session), Body::Form(_, visit)) => {
            Ok(begin_session(&app, visit, &session, StatusCode::SEE_OTHER, request.next.as_deref()))
        }
        (Err(error), Body::Form(_, visit)) if error.code() == "link_invalid_or_expired" => {
            Ok(refused_page(&app, visit))
        }
        (Err(error), _) => Err(error.into()),
    }
}

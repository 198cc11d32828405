//! Signing in the command line from a browser.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use maud::html;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Caller, Sender};
use crate::extract::{self, Query};
use crate::openapi::{ForUsers, ProblemShape, WithBody, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::{App, time};
use crate::web::{Form, Page, Visit, encoded, hidden, redirect};

/// Longest `state` of a command line.
const LONGEST_STATE: usize = 128;

/// Where the command line waits.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Waiting {
    /// Port on this machine; without one the page shows the code.
    #[serde(default)]
    port: String,
    /// Given back with the code, so that the command line knows its own question.
    #[serde(default)]
    state: String,
}

impl Waiting {
    /// The port.
    ///
    /// # Errors
    /// 422 for what is none, and for a `state` that is not plain.
    fn port(&self) -> Result<Option<u16>, Problem> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if self.state.len() > LONGEST_STATE || !self.state.bytes().all(plain) {
            return Err(Problem::invalid(
                &["query", "state"],
                "it is letters, digits, `-`, `_`, `.`, `~`",
                "value_error",
            ));
        }
        if self.port.is_empty() {
            return Ok(None);
        }
        match self.port.parse::<u16>() {
            Ok(port) if port >= 1024 => Ok(Some(port)),
            _ => Err(Problem::invalid(&["query", "port"], "it is a number from 1024 to 65535", "value_error")),
        }
    }
}

/// The page that signs in the command line
#[utoipa::path(get, path = "/cli/auth/start", tag = "pages",
    params(("port" = Option<String>, Query, description = "Where the command line waits on this machine"),
           ("state" = Option<String>, Query, description = "Given back with the code")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "Sign in first"),
        (status = 403, description = "A token came instead of a session", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "This is no port", body = ProblemShape, content_type = "application/problem+json"),
    ), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    caller: Result<Caller, Problem>,
    Query(waiting): Query<Waiting>,
) -> Result<Response<Body>, Problem> {
    let port = waiting.port().map_err(Problem::for_people)?;
    let ctx = match caller {
        Ok(Caller(ctx)) => ctx,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
            let here = format!("/cli/auth/start?port={}&state={}", waiting.port, waiting.state);
            return Ok(redirect(StatusCode::FOUND, &format!("/login?next={}", encoded(&here))));
        }
        Err(problem) => return Err(problem),
    };
    ctx.principal().require_session()?;
    let me = app.engine().sign_in().me(&ctx).await?;
    let body = html! {
        section.card {
            h1 { "Sign in the command line" }
            p.lead { "The command " code { "agnes" } " on this computer asks to act as " strong { (me.email) } "." }
            p { "Go on only if you started this yourself, a moment ago. It gets a token for 90 days, which you can revoke." }
            form method="post" action="/cli/auth/start" {
                (hidden("csrf_token", visit.form_token())) (hidden("port", &waiting.port)) (hidden("state", &waiting.state))
                button type="submit" { "Sign in the command line" }
            }
            p.below { a href="/" { "No, go back" } }
        }
    };
    let page = Page::new("Sign in the command line", body).signed_in(&visit, &me);
    Ok(match port {
        // The form's answer leads there.
        Some(port) => page.form_target(format!("http://127.0.0.1:{port}")),
        None => page,
    }
    .render(&app))
}

/// Sign in the command line, from the page
///
/// Leads to the command line with a one-shot code, which lives two minutes.
#[utoipa::path(post, path = "/cli/auth/start", tag = "pages",
    request_body(content = Waiting, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "A page with the code", body = String, content_type = "text/html"),
    (status = 303, description = "To the command line"),
    ForUsers, WithForm,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn start(
    State(app): State<App>,
    Caller(ctx): Caller,
    Form(waiting, visit): Form<Waiting>,
) -> Result<Response<Body>, Problem> {
    let port = waiting.port().map_err(Problem::for_people)?;
    let made = app.engine().sign_in().cli_code(&ctx).await?;
    let code = made.code.expose();
    if let Some(port) = port {
        let to = format!("http://127.0.0.1:{port}/callback?code={code}&state={}", waiting.state);
        return Ok(redirect(StatusCode::SEE_OTHER, &to));
    }
    let body = html! {
        section.card {
            h1 { "Your code" }
            p.lead { "Type it where the command line asks for it. It works once, for two minutes." }
            pre id="code" { (code) }
            button type="button" data-copy="code" hidden { "Copy" }
            p.hint id="said" role="status" {}
        }
    };
    Ok(Page::new("Your code", body).with_forms(&visit).render(&app))
}

/// A one-shot code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeRequest {
    /// As the page gave it.
    code: String,
    /// What the token is called.
    #[serde(default = "usual_name")]
    #[schema(example = "ann's laptop")]
    name: String,
}

fn usual_name() -> String {
    "command line".to_owned()
}

/// A personal access token for the command line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExchangeAnswer {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// First 8 digits of the id.
    prefix: String,
    /// Shown once.
    token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// When it was made, ISO 8601.
    created_at: Option<String>,
    /// When it ends, ISO 8601.
    expires_at: Option<String>,
}

/// Get a personal access token for a one-shot code
///
/// At most ten times a minute from one address.
#[utoipa::path(post, path = "/cli/auth/exchange", tag = "sign-in", request_body = ExchangeRequest, responses(
    (status = 200, description = "The token", body = ExchangeAnswer),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn exchange(
    State(app): State<App>,
    Sender(client): Sender,
    extract::Json(request): extract::Json<ExchangeRequest>,
) -> Result<Json<ExchangeAnswer>, Problem> {
    app.rates().count(Limited::Code, client.ip())?;
    let made = app.engine().sign_in().exchange_cli_code(&client, &request.code, &request.name).await?;
    let row = made.row;
    Ok(Json(ExchangeAnswer {
        id: row.id,
        name: row.name,
        prefix: row.prefix,
        token: made.token.expose().to_owned(),
        token_type: "bearer",
        created_at: row.created_at.map(time),
        expires_at: row.expires_at.map(time),
    }))
}

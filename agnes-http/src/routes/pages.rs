//! Pages that belong to no single way to sign in.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use maud::html;
use serde::Deserialize;

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::ProblemShape;
use crate::problem::Problem;
use crate::providers;
use crate::state::App;
use crate::web::{Page, Visit, banner, encoded, landing, message, redirect};

/// To the home route, or to the sign-in page
#[utoipa::path(get, path = "/", tag = "pages", responses((status = 302, description = "Where to go")))]
pub(crate) async fn start(State(app): State<App>, caller: Result<Caller, Problem>) -> Response<Body> {
    let to = if caller.is_ok() { landing(&app, None) } else { "/login".to_owned() };
    redirect(StatusCode::FOUND, &to)
}

/// What the sign-in page is opened with.
#[derive(Debug, Deserialize)]
pub(crate) struct LoginQuery {
    next: Option<String>,
    error: Option<String>,
    msg: Option<String>,
}

/// What a code in the address means; what is not known is told in general words.
fn said(query: &LoginQuery) -> Option<(bool, &'static str)> {
    let error = match query.error.as_deref() {
        Some("google_not_configured" | "provider_not_configured") => "This way to sign in is not set up here.",
        Some("no_email") => "Your account there has no address that was verified.",
        Some("domain_not_allowed") => "Addresses of your domain may not sign in here.",
        Some("deactivated") => "This account is deactivated. Ask an admin of this installation.",
        Some("not_in_allowed_group") => "You are in no group that may sign in here. Ask an admin of this installation.",
        Some("group_check_unavailable") => "Your groups could not be looked up. Try again in a minute.",
        Some(_) => "Signing in did not work. Try again.",
        None => {
            return match query.msg.as_deref() {
                Some("signed_out") => Some((false, "You are signed out.")),
                _ => None,
            };
        }
    };
    Some((true, error))
}

/// The sign-in page
#[utoipa::path(get, path = "/login", tag = "pages",
    params(("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server"),
           ("error" = Option<String>, Query, description = "Why signing in did not work"),
           ("msg" = Option<String>, Query, description = "Something to tell: `signed_out`")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "Somebody is signed in already"),
    ))]
pub(crate) async fn login(
    State(app): State<App>,
    visit: Visit,
    caller: Result<Caller, Problem>,
    Query(query): Query<LoginQuery>,
) -> Result<Response<Body>, Problem> {
    let next = landing(&app, query.next.as_deref());
    if caller.is_ok() {
        return Ok(redirect(StatusCode::FOUND, &next));
    }
    let buttons: Vec<_> = providers::offered(&app).iter().filter_map(|one| one.login_button(&app)).collect();
    let is_new = app.engine().sign_in().bootstrap_open().await?;
    let body = html! {
        section.card {
            h1 { "Welcome to " (app.engine().live_config().site.product) }
            p.lead { "Sign in to ask questions about the data you may see." }
            @if let Some((is_error, text)) = said(&query) { (message(is_error, text)) }
            @if is_new {
                (banner(&html! { p { "This installation has no Admin yet. " a href="/first-time-setup" { "Set it up" } "." } }))
            }
            div.stack {
                @for (at, button) in buttons.iter().enumerate() {
                    a.button.second[at > 0] href={ (button.path) "?next=" (encoded(&next)) } { (button.label) }
                }
                @if buttons.is_empty() { (message(true, "No way to sign in is switched on. Ask an admin of this installation.")) }
            }
            p.below { "New here? " a href="/setup" { "How to connect" } }
        }
    };
    Ok(Page::new("Sign in", body).with_forms(&visit).render(&app))
}

/// The page people land on
#[utoipa::path(get, path = "/dashboard", tag = "pages", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
    (status = 302, description = "Sign in first"),
    (status = 403, description = "A token for something else", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn dashboard(State(app): State<App>, visit: Visit, caller: Caller) -> Result<Response<Body>, Problem> {
    home_page(&app, &visit, &caller).await
}

/// The page people land on, as `/dashboard`
#[utoipa::path(get, path = "/home", tag = "pages", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
    (status = 302, description = "Sign in first"),
    (status = 403, description = "A token for something else", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn home(State(app): State<App>, visit: Visit, caller: Caller) -> Result<Response<Body>, Problem> {
    home_page(&app, &visit, &caller).await
}

async fn home_page(app: &App, visit: &Visit, Caller(ctx): &Caller) -> Result<Response<Body>, Problem> {
    let me = app.engine().sign_in().me(ctx).await?;
    let origin = &visit.origin;
    let is_empty = me.is_admin && super::first_time::without_data(app, ctx).await.is_some();
    let body = html! {
        section.card.wide {
            @if is_empty {
                (banner(&html! { p { "There is no data here yet. " a href="/first-time-setup" { "Bring the first" } "." } }))
            }
            h1 { "Hello" @if let Some(name) = &me.name { ", " (name) } }
            p.lead {
                "You are signed in as " strong { (me.email) }
                @if me.is_admin { ", an Admin of this installation" } "."
            }
            h2 { "Your groups" }
            @if me.groups.is_empty() { p { "You are in no group yet. An admin adds you; then you see the data of that group." } }
            @else { ul.chips { @for group in &me.groups { li { (group.name) } } } }
            h2 { "Ask from a program" }
            p { "Make a personal access token, and send it with every request. It is good for 90 days, and shown nowhere again." }
            pre id="ask" { "export AGNES_TOKEN=YOUR_TOKEN\ncurl " (origin) "/api/query \\\n  -H \"Authorization: Bearer $AGNES_TOKEN\" \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"sql\": \"SHOW TABLES\"}'" }
            button type="button" data-copy="ask" data-token="YOUR_TOKEN" hidden { "Make a token and copy this" }
            p.hint id="said" role="status" {}
            h2 { "Look further" }
            ul {
                li { a href="/setup" { "Connect this computer" } }
                li { a href="/api/v2/catalog" { "The tables you may read, as JSON" } }
                li { a href="/docs" { "The documentation of the API" } }
                li { a href="/openapi.json" { "Its description for programs" } }
            }
        }
    };
    Ok(Page::new("Home", body).signed_in(visit, &me).render(app))
}

/// Commands that trust an authority for this server: nothing else is asked with it, and nothing goes unchecked.
fn trusting(authority: &str, origin: &str) -> String {
    format!(
        "mkdir -p \"$HOME/.config/agnes\"\ncat > \"$HOME/.config/agnes/ca.pem\" <<'PEM'\n{}\nPEM\n\
         export AGNES_CA_FILE=\"$HOME/.config/agnes/ca.pem\" CURL_CA_BUNDLE=\"$HOME/.config/agnes/ca.pem\"\n\
         git config --global 'http.{origin}.sslCAInfo' \"$HOME/.config/agnes/ca.pem\" || true",
        authority.trim()
    )
}

/// How to connect a computer
#[utoipa::path(get, path = "/setup", tag = "pages", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
))]
pub(crate) async fn setup(
    State(app): State<App>,
    visit: Visit,
    caller: Result<Caller, Problem>,
) -> Result<Response<Body>, Problem> {
    let me = match &caller {
        Ok(Caller(ctx)) => app.engine().sign_in().me(ctx).await.ok(),
        Err(_) => None,
    };
    let origin = &visit.origin;
    let offers = super::texts::offers(&app).await;
    let authority = super::texts::authority(&app, origin).await;
    let place = agnes_core::templates::Place { origin, offers, authority: authority.as_deref() };
    let asking = caller.as_ref().ok().filter(|_| me.is_some()).map(|Caller(ctx)| ctx);
    let prompt = app.engine().templates().setup_prompt(asking, place).await?;
    let body = html! {
        section.card.wide {
            h1 { "Connect this computer" }
            p.lead { "Bring the tables you may read to your computer, for you, your assistant and your own programs." }
            @if me.is_none() { p { a.button href="/login?next=/setup" { "Sign in to make a token" } } }
            h2 { "With your assistant" }
            p { "Paste this into an assistant that may run commands on your computer. It stands for you once a token is in it: show it to nobody else." }
            pre id="prompt" { (prompt) }
            @if me.is_some() {
                button type="button" data-copy="prompt" data-token="{token}" hidden { "Make a token and copy this" }
                p.hint id="said" role="status" {}
            }
            h2 { "By hand" }
            ol.steps {
                @if let Some(authority) = &authority {
                    li { "Trust the certificate of this server, which your computer does not know by itself, for this shell, git and "
                        code { "agnes" } ":"
                        pre id="trust" { (trusting(authority, origin)) }
                    }
                }
                @if offers {
                    li { "Install the command:" pre { "curl -fsSL " (origin) "/cli/install.sh | sh" } }
                } @else {
                    li { "Install the command " code { "agnes" } ". This server offers no archive of it: ask whoever runs it." }
                }
                li { "Make a personal access token. It stands for you: keep it like a password. Set up a folder to work in:"
                    pre id="keep" { "mkdir agnes && cd agnes\nprintf '%s\\n' 'YOUR_TOKEN' | agnes init --server-url " (origin) " --token -" }
                    @if me.is_some() {
                        button type="button" data-copy="keep" data-token="YOUR_TOKEN" data-says="said-keep" hidden { "Make a token and copy this" }
                        p.hint id="said-keep" role="status" {}
                    }
                }
                li { "Ask the first question:" pre { "agnes catalog\nagnes query 'show tables'" } }
            }
            h2 { "From a program" }
            pre id="program" { "export AGNES_SERVER=" (origin) "\nexport AGNES_TOKEN=YOUR_TOKEN\ncurl \"$AGNES_SERVER/api/query\" -H \"Authorization: Bearer $AGNES_TOKEN\" \\\n  -H 'Content-Type: application/json' -d '{\"sql\": \"SHOW TABLES\"}'" }
            @if me.is_some() {
                button type="button" data-copy="program" data-token="YOUR_TOKEN" data-says="said-program" hidden { "Make a token and copy this" }
                p.hint id="said-program" role="status" {}
            }
        }
    };
    let page = Page::new("Connect this computer", body);
    Ok(match &me {
        Some(me) => page.signed_in(&visit, me),
        None => page.with_forms(&visit),
    }
    .render(&app))
}

/// To the page that tells how to connect a computer
#[utoipa::path(get, path = "/install", tag = "pages", responses((status = 302, description = "Where it is")))]
pub(crate) async fn install() -> Response<Body> {
    redirect(StatusCode::FOUND, "/setup")
}

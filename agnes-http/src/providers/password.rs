//! Signing in by password: the pages, and the forms on them.

use agnes_core::config::local_path;
use agnes_core::identity::SignedIn;
use agnes_core::mail::Asked;
use agnes_core::secret::Secret;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Button, Provider};
use crate::extract::Query;
use crate::openapi::{ProblemShape, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::App;
use crate::web::{Form, Page, Visit, begin_session, encoded, field, hidden, landing, message, redirect};

/// Passwords that Agnes keeps.
pub(super) struct Password;

impl Provider for Password {
    fn name(&self) -> &'static str {
        "password"
    }
    fn order(&self) -> u8 {
        2
    }
    fn is_available(&self, _: &App) -> bool {
        true
    }
    fn login_button(&self, _: &App) -> Option<Button> {
        Some(Button { label: "Sign in with your password".to_owned(), path: "/login/password" })
    }
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App> {
        to.routes(routes!(page))
            .routes(routes!(sign_in))
            .routes(routes!(setup_page, crate::routes::auth::setup))
            .routes(routes!(ask_for_setup))
            .routes(routes!(set_up))
            .routes(routes!(reset_page, ask_for_reset))
            .routes(routes!(reset))
    }
}

fn require(app: &App) -> Result<(), Problem> {
    app.engine().sign_in().require_provider("password").map_err(|refused| Problem::from(refused).for_people())
}

fn count(app: &App, what: Limited, visit: &Visit) -> Result<(), Problem> {
    app.rates().count(what, visit.client.ip()).map_err(Problem::for_people)
}

/// What the page of a password is opened with.
#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    next: Option<String>,
    error: Option<String>,
    msg: Option<String>,
    /// Which part of the page: `first` or `forgot`.
    tab: Option<String>,
}

/// The page for signing in by password
#[utoipa::path(get, path = "/login/password", tag = "pages",
    params(("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server"),
           ("error" = Option<String>, Query, description = "`invalid`, `deactivated` or `internal`"),
           ("msg" = Option<String>, Query, description = "`password_reset`"),
           ("tab" = Option<String>, Query, description = "`first` or `forgot`")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 403, description = "Passwords are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<PageQuery>,
) -> Result<Response<Body>, Problem> {
    require(&app)?;
    let next = landing(&app, query.next.as_deref());
    let said = match (query.error.as_deref(), query.msg.as_deref()) {
        (Some("invalid"), _) => Some((true, "Address and password do not fit. Try again.")),
        (Some("deactivated"), _) => Some((true, "This account is deactivated. Ask an admin of this installation.")),
        (Some("internal"), _) => Some((true, "Signing in does not work at the moment. Try again in a minute.")),
        (Some(_), _) => Some((true, "Signing in did not work. Try again.")),
        (_, Some("password_reset")) => Some((false, "Your new password is set. Sign in with it.")),
        _ => None,
    };
    let forgot = query.tab.as_deref() == Some("forgot");
    let first = query.tab.as_deref() == Some("first");
    let tab = |name: &str, label: &str, here: bool| {
        html! { a href={ "/login/password?tab=" (name) "&next=" (encoded(&next)) } aria-current=[here.then_some("page")] { (label) } }
    };
    let token = visit.form_token();
    let body = html! {
        section.card {
            h1 { @if forgot { "Forgot your password?" } @else { "Sign in" } }
            @if !forgot {
                nav.tabs aria-label="Sign in, or first time here" {
                    (tab("in", "Sign in", !first)) (tab("first", "First time here", first))
                }
            }
            @if let Some((is_error, text)) = said { (message(is_error, text)) }
            @if (forgot || first) && !app.engine().mails().is_on() {
                // True for everybody, so it tells nothing about an account.
                p { "This server sends no mails. Ask an admin of this installation for a link to choose a password." }
            } @else if forgot || first {
                p.lead {
                    @if forgot { "Tell us your address. You get a mail with a link to choose a new password." }
                    @else { "Tell us the address that your admin invited. You get a mail with a link to choose a password." }
                }
                form method="post" action=(if forgot { "/auth/password/reset" } else { "/auth/password/setup/request" }) {
                    (hidden("csrf_token", token)) (hidden("next", &next))
                    (field("Email", "email", "email", "username", "", None))
                    button type="submit" { "Send me a link" }
                }
            } @else {
                form method="post" action="/auth/password/login/web" {
                    (hidden("csrf_token", token)) (hidden("next", &next))
                    (field("Email", "email", "email", "username", "", None))
                    (field("Password", "password", "password", "current-password", "", None))
                    button type="submit" { "Sign in" }
                }
            }
            p.below {
                @if forgot { a href={ "/login/password?next=" (encoded(&next)) } { "Back to signing in" } }
                @else { a href={ "/login/password?tab=forgot&next=" (encoded(&next)) } { "Forgot your password?" } }
                " · " a href={ "/login?next=" (encoded(&next)) } { "Other ways to sign in" }
            }
        }
    };
    Ok(Page::new("Sign in", body).with_forms(&visit).render(&app))
}

/// What the sign-in form sends.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SignInForm {
    /// The address.
    email: String,
    /// The password.
    #[serde(default)]
    password: String,
    /// A path of this server.
    #[serde(default)]
    next: String,
}

/// Sign in by password, from the page
#[utoipa::path(post, path = "/auth/password/login/web", tag = "pages",
    request_body(content = SignInForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "A new password is asked for", body = String, content_type = "text/html"),
    (status = 302, description = "Signed in, or back to the page with an error"),
    WithForm,
))]
pub(crate) async fn sign_in(
    State(app): State<App>,
    Form(form, visit): Form<SignInForm>,
) -> Result<Response<Body>, Problem> {
    require(&app)?;
    count(&app, Limited::SignIn, &visit)?;
    let back = |error: &str| {
        let next = landing(&app, Some(&form.next));
        redirect(StatusCode::FOUND, &format!("/login/password?error={error}&next={}", encoded(&next)))
    };
    let password = Secret::new(form.password.clone());
    match app.engine().sign_in().with_password(&visit.client, &form.email, &password).await {
        Ok(SignedIn::Session(session)) => {
            Ok(begin_session(&app, &visit, &session, StatusCode::FOUND, Some(&form.next)))
        }
        Ok(SignedIn::ChangeRequired { email, token }) => {
            let why = Some((false, "Before you go on, choose a new password."));
            let link = Link { email: &email, token: token.expose(), next: &form.next };
            Ok(new_password_page(&app, &visit, Purpose::Reset, &link, why, StatusCode::OK))
        }
        Err(error) => match error.code() {
            "invalid_credentials" | "external_auth_only" => Ok(back("invalid")),
            "account_deactivated" => Ok(back("deactivated")),
            code => {
                tracing::error!(code, "signing in failed: {error}");
                Ok(back("internal"))
            }
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Setup,
    Reset,
}

/// Address and token of a mailed link.
#[derive(Debug, Deserialize)]
pub(crate) struct LinkQuery {
    email: Option<String>,
    token: Option<String>,
    #[serde(default)]
    next: String,
}

/// What a mailed link holds.
struct Link<'a> {
    email: &'a str,
    token: &'a str,
    /// Where its owner wanted to go; may be empty.
    next: &'a str,
}

/// The page that a mailed link opens. It looks nothing up, so it tells nothing.
fn link_page(app: &App, visit: &Visit, purpose: Purpose, query: &LinkQuery) -> Result<Response<Body>, Problem> {
    require(app)?;
    let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let (Some(email), Some(token)) = (given(&query.email), given(&query.token)) else {
        return Ok(redirect(StatusCode::FOUND, "/login/password"));
    };
    let link = Link { email: &email, token: &token, next: &query.next };
    Ok(new_password_page(app, visit, purpose, &link, None, StatusCode::OK))
}

fn new_password_page(
    app: &App,
    visit: &Visit,
    purpose: Purpose,
    link: &Link<'_>,
    said: Option<(bool, &str)>,
    status: StatusCode,
) -> Response<Body> {
    let (title, action) = match purpose {
        Purpose::Setup => ("Choose a password", "/auth/password/setup/confirm"),
        Purpose::Reset => ("Choose a new password", "/auth/password/reset/confirm"),
    };
    let body: Markup = html! {
        section.card {
            h1 { (title) }
            p.lead { "For " strong { (link.email) } "." }
            @if let Some((is_error, text)) = said { (message(is_error, text)) }
            form method="post" action=(action) {
                (hidden("csrf_token", visit.form_token())) (hidden("token", link.token)) (hidden("email", link.email)) (hidden("next", local_path(link.next).unwrap_or_default()))
                @if purpose == Purpose::Setup { (field("Your name", "name", "text", "name", "", Some("As others should see it. You can leave it empty."))) }
                (field("New password", "password", "password", "new-password", "", Some("At least 8 characters. Long is better than strange.")))
                (field("The same again", "confirm_password", "password", "new-password", "", None))
                button type="submit" { (title) }
            }
        }
    };
    Page::new(title, body).with_forms(visit).status(status).render(app)
}

/// The page for setting a first password
#[utoipa::path(get, path = "/auth/password/setup", tag = "pages",
    params(("email" = Option<String>, Query, description = "As the link has it"), ("token" = Option<String>, Query, description = "As the link has it"),
           ("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "The link is not whole"),
        (status = 403, description = "Passwords are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub(crate) async fn setup_page(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<LinkQuery>,
) -> Result<Response<Body>, Problem> {
    link_page(&app, &visit, Purpose::Setup, &query)
}

/// The page for setting a new password
#[utoipa::path(get, path = "/auth/password/reset", tag = "pages",
    params(("email" = Option<String>, Query, description = "As the link has it"), ("token" = Option<String>, Query, description = "As the link has it"),
           ("next" = Option<String>, Query, description = "Where to go afterwards: a path of this server")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "The link is not whole"),
        (status = 403, description = "Passwords are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub(crate) async fn reset_page(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<LinkQuery>,
) -> Result<Response<Body>, Problem> {
    link_page(&app, &visit, Purpose::Reset, &query)
}

/// An address to send a link to.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AskForm {
    /// The address.
    email: String,
    /// Where the link leads on to: a path of this server.
    next: Option<String>,
}

fn ask(app: &App, visit: &Visit, asked: Asked, form: &AskForm) -> Result<Response<Body>, Problem> {
    require(app)?;
    count(app, Limited::Mail, visit)?;
    app.engine().mails().send_later(asked, &form.email, &visit.origin, form.next.as_deref());
    Ok(super::email::sent_page(app, visit))
}

/// Ask for a link to set a first password
///
/// The answer is the same whether or not the account exists.
#[utoipa::path(post, path = "/auth/password/setup/request", tag = "pages",
    request_body(content = AskForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "A neutral page", body = String, content_type = "text/html"), WithForm,
))]
pub(crate) async fn ask_for_setup(
    State(app): State<App>,
    Form(form, visit): Form<AskForm>,
) -> Result<Response<Body>, Problem> {
    ask(&app, &visit, Asked::Setup, &form)
}

/// Ask for a link to set a new password
///
/// The answer is the same whether or not the account exists.
#[utoipa::path(post, path = "/auth/password/reset", tag = "pages",
    request_body(content = AskForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "A neutral page", body = String, content_type = "text/html"), WithForm,
))]
pub(crate) async fn ask_for_reset(
    State(app): State<App>,
    Form(form, visit): Form<AskForm>,
) -> Result<Response<Body>, Problem> {
    ask(&app, &visit, Asked::Reset, &form)
}

/// A password that a link sets.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ConfirmForm {
    /// As the link had it.
    email: String,
    /// As the link had it.
    token: String,
    /// At least 8 characters.
    password: String,
    /// The same again.
    confirm_password: String,
    /// Their name, on setup.
    #[serde(default)]
    name: String,
    /// Where to go afterwards: a path of this server.
    #[serde(default)]
    next: String,
}

/// The form again, with what was wrong.
fn again(app: &App, visit: &Visit, purpose: Purpose, form: &ConfirmForm, error: &agnes_core::Error) -> Response<Body> {
    let text = match error.code() {
        "password_too_short" | "password_too_long" => format!("That password cannot be taken: {error}."),
        "token_invalid_or_expired" => {
            "This link was used already, is too old, or is not one of ours. Ask for a new one.".to_owned()
        }
        "account_deactivated" => "This account is deactivated. Ask an admin of this installation.".to_owned(),
        code => {
            tracing::error!(code, "a password was not set: {error}");
            "That did not work. Try again in a minute.".to_owned()
        }
    };
    form_again(app, visit, purpose, form, &text)
}

fn form_again(app: &App, visit: &Visit, purpose: Purpose, form: &ConfirmForm, text: &str) -> Response<Body> {
    let link = Link { email: &form.email, token: &form.token, next: &form.next };
    new_password_page(app, visit, purpose, &link, Some((true, text)), StatusCode::BAD_REQUEST)
}

const DIFFER: &str = "The two passwords differ. Type them again.";

/// Set the first password, from the page
#[utoipa::path(post, path = "/auth/password/setup/confirm", tag = "pages",
    request_body(content = ConfirmForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 302, description = "It is set, and its owner signed in"),
    (status = 400, description = "The form again, with what was wrong", body = String, content_type = "text/html"), WithForm,
))]
pub(crate) async fn set_up(
    State(app): State<App>,
    Form(form, visit): Form<ConfirmForm>,
) -> Result<Response<Body>, Problem> {
    require(&app)?;
    count(&app, Limited::Setup, &visit)?;
    if form.password != form.confirm_password {
        return Ok(form_again(&app, &visit, Purpose::Setup, &form, DIFFER));
    }
    let password = Secret::new(form.password.clone());
    let sign_in = app.engine().sign_in();
    match sign_in.set_up_password(&visit.client, &form.email, &form.token, &password, Some(&form.name)).await {
        Ok(session) => Ok(begin_session(&app, &visit, &session, StatusCode::FOUND, Some(&form.next))),
        Err(error) => Ok(again(&app, &visit, Purpose::Setup, &form, &error)),
    }
}

/// Set a new password, from the page
///
/// Every session of its owner ends.
#[utoipa::path(post, path = "/auth/password/reset/confirm", tag = "pages",
    request_body(content = ConfirmForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 302, description = "It is set: sign in with it"),
    (status = 400, description = "The form again, with what was wrong", body = String, content_type = "text/html"), WithForm,
))]
pub(crate) async fn reset(
    State(app): State<App>,
    Form(form, visit): Form<ConfirmForm>,
) -> Result<Response<Body>, Problem> {
    require(&app)?;
    count(&app, Limited::Setup, &visit)?;
    if form.password != form.confirm_password {
        return Ok(form_again(&app, &visit, Purpose::Reset, &form, DIFFER));
    }
    let password = Secret::new(form.password.clone());
    match app.engine().sign_in().reset_password(&visit.client, &form.email, &form.token, &password).await {
        Ok(()) => {
            let next = landing(&app, Some(&form.next));
            Ok(redirect(StatusCode::FOUND, &format!("/login/password?msg=password_reset&next={}", encoded(&next))))
        }
        Err(error) => Ok(again(&app, &visit, Purpose::Reset, &form, &error)),
    }
}

//! Linking desktop applications: a one-shot code from a page, a token for the code.

use agnes_core::identity::TokenRow;
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
use crate::caller::{Caller, Sender};
use crate::extract;
use crate::openapi::{ForUsers, ProblemShape, WithBody, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::{App, time};
use crate::web::{Form, Page, Visit, encoded, hidden};

/// Tokens of desktop applications.
pub(super) struct Desktop;

impl Provider for Desktop {
    fn name(&self) -> &'static str {
        "desktop"
    }
    fn order(&self) -> u8 {
        4
    }
    fn is_available(&self, app: &App) -> bool {
        app.engine().sign_in().has_desktop()
    }
    fn login_button(&self, _: &App) -> Option<Button> {
        None
    }
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App> {
        to.routes(routes!(page, link))
            .routes(routes!(authorize))
            .routes(routes!(token))
            .routes(routes!(status))
            .routes(routes!(unlink))
    }
}

/// The page that links a desktop application
#[utoipa::path(get, path = "/desktop/link", tag = "pages", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
    (status = 302, description = "Sign in first"),
    (status = 403, description = "A token came instead of a session", body = ProblemShape, content_type = "application/problem+json"),
    (status = 404, description = "Desktop applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
), security(("session" = [])))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    caller: Result<Caller, Problem>,
) -> Result<Response<HttpBody>, Problem> {
    app.engine().sign_in().require_desktop().await?;
    let Caller(ctx) = caller?;
    ctx.principal().require_session()?;
    let me = app.engine().sign_in().me(&ctx).await?;
    let body = html! {
        section.card {
            h1 { "Link the desktop app" }
            p.lead { "The app on this computer will get notifications and run your scripts as " strong { (me.email) } "." }
            form method="post" action="/desktop/link" {
                (hidden("csrf_token", visit.form_token()))
                button type="submit" { "Link the app" }
            }
            p.below { a href="/" { "Not now" } }
        }
    };
    Ok(Page::new("Link the desktop app", body).signed_in(&visit, &me).render(&app))
}

/// The address that opens the application, with a one-shot code in it.
async fn address(app: &App, visit: &Visit, caller: &Caller) -> Result<AuthorizeAnswer, Problem> {
    let made = app.engine().sign_in().desktop_code(&caller.0).await?;
    let scheme = &app.engine().config().auth.desktop_url_scheme;
    let (code, server) = (made.code.expose(), encoded(&visit.origin));
    let url = format!("{scheme}://auth?code={code}&server={server}");
    Ok(AuthorizeAnswer { url, expires_at: time(made.expires_at) })
}

/// Nothing but the proof that a page of ours sent it.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NoFields {}

/// Link a desktop application, from the page
#[utoipa::path(post, path = "/desktop/link", tag = "pages",
    request_body(content = NoFields, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "A page with the address that opens the application", body = String, content_type = "text/html"),
    (status = 404, description = "Desktop applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers, WithForm,
), security(("session" = [])))]
pub(crate) async fn link(
    State(app): State<App>,
    caller: Caller,
    Form(_fields, visit): Form<NoFields>,
) -> Result<Response<HttpBody>, Problem> {
    let made = address(&app, &visit, &caller).await?;
    let body = html! {
        section.card {
            h1 { "Open the app" }
            p.lead { "One click more: this opens the desktop app, and it is linked. The link works once, for two minutes." }
            p { a.button href=(made.url) { "Open the desktop app" } }
            p.below { a href="/" { "Back to the start page" } }
        }
    };
    Ok(Page::new("Open the app", body).with_forms(&visit).render(&app))
}

/// How to open the application.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuthorizeAnswer {
    /// Opens the application; it holds a one-shot code.
    #[schema(example = "data-analyst://auth?code=...&server=https%3A//agnes.example.com")]
    url: String,
    /// When the code ends, ISO 8601.
    expires_at: String,
}

/// Make a one-shot code for a desktop application
///
/// For sessions: it lives two minutes and is good for one token.
#[utoipa::path(post, path = "/api/desktop/authorize", tag = "desktop", responses(
    (status = 200, description = "How to open the application", body = AuthorizeAnswer),
    (status = 404, description = "Desktop applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers,
), security(("session" = [])))]
pub(crate) async fn authorize(
    State(app): State<App>,
    visit: Visit,
    caller: Caller,
) -> Result<Json<AuthorizeAnswer>, Problem> {
    Ok(Json(address(&app, &visit, &caller).await?))
}

/// A one-shot code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// As the link had it.
    code: String,
    /// For the list of linked applications.
    #[schema(example = "Ann's laptop")]
    device_name: Option<String>,
}

/// Whose application it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DesktopUser {
    /// Their address.
    email: String,
    /// Their name.
    name: Option<String>,
}

/// A token of a desktop application.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DesktopTokenAnswer {
    /// Shown once.
    token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// When it ends, ISO 8601.
    expires_at: String,
    /// Whose it is.
    user: DesktopUser,
}

/// Get a token for a one-shot code
///
/// It opens the endpoints of desktop applications. At most ten times a minute from one
/// address.
#[utoipa::path(post, path = "/api/desktop/token", tag = "desktop", request_body = TokenRequest, responses(
    (status = 200, description = "The token", body = DesktopTokenAnswer),
    (status = 404, description = "Desktop applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn token(
    State(app): State<App>,
    Sender(client): Sender,
    extract::Json(request): extract::Json<TokenRequest>,
) -> Result<Json<DesktopTokenAnswer>, Problem> {
    app.rates().count(Limited::Code, client.ip())?;
    let device = request.device_name.as_deref().unwrap_or_default();
    let made = app.engine().sign_in().exchange_desktop_code(&client, &request.code, device).await?;
    Ok(Json(DesktopTokenAnswer {
        token: made.token.expose().to_owned(),
        token_type: "bearer",
        expires_at: time(made.expires_at),
        user: DesktopUser { email: made.email, name: made.name },
    }))
}

/// A linked application.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Device {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// When it was linked, ISO 8601.
    linked_at: Option<String>,
    /// When it last asked for something, ISO 8601.
    last_seen_at: Option<String>,
}

impl From<TokenRow> for Device {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            linked_at: row.created_at.map(time),
            last_seen_at: row.last_used_at.map(time),
        }
    }
}

/// The caller's linked applications.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    /// Whether there is one.
    linked: bool,
    /// Newest first.
    devices: Vec<Device>,
}

/// The caller's linked applications
#[utoipa::path(get, path = "/api/desktop/status", tag = "desktop", responses(
    (status = 200, description = "Linked applications", body = StatusAnswer),
    (status = 404, description = "Desktop applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn status(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<StatusAnswer>, Problem> {
    let devices = app.engine().sign_in().desktop_devices(&ctx).await?;
    Ok(Json(StatusAnswer { linked: !devices.is_empty(), devices: devices.into_iter().map(Device::from).collect() }))
}

/// Which application to unlink.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnlinkRequest {
    /// One of the caller's; without it all of them.
    device_id: Option<String>,
}

/// Applications that were unlinked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnlinkAnswer {
    /// Always `unlinked`.
    status: &'static str,
}

/// Unlink an application of the caller, or all
#[utoipa::path(post, path = "/api/desktop/unlink", tag = "desktop", request_body = Option<UnlinkRequest>, responses(
    (status = 200, description = "It is unlinked", body = UnlinkAnswer),
    (status = 404, description = "The caller has none of this id, or applications are switched off", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn unlink(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::MaybeJson(request): extract::MaybeJson<UnlinkRequest>,
) -> Result<Response<HttpBody>, Problem> {
    app.engine().sign_in().unlink_desktop(&ctx, request.device_id.as_deref()).await?;
    Ok((StatusCode::OK, Json(UnlinkAnswer { status: "unlinked" })).into_response())
}

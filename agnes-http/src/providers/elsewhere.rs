//! Signing in at an identity provider: Google, or any other that speaks OpenID Connect.

use agnes_core::config::local_path;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{HeaderMap, HeaderValue, SET_COOKIE};
use axum::http::{Response, StatusCode};
use chrono::TimeDelta;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Button, Provider};
use crate::caller::cookie;
use crate::extract;
use crate::oidc::{Callback, Oidc, OidcError, Pending};
use crate::openapi::ProblemShape;
use crate::problem::Problem;
use crate::state::App;
use crate::web::{Visit, begin_session, encoded, redirect};

/// Google.
pub(super) struct Google;

/// The provider that the operator names by its issuer.
pub(super) struct Company;

/// The button of a provider that is set up.
fn button(app: &App, name: &str, path: &'static str) -> Option<Button> {
    let provider = app.elsewhere().iter().find(|provider| provider.name() == name)?;
    Some(Button { label: format!("Sign in with {}", provider.label()), path })
}

impl Provider for Google {
    fn name(&self) -> &'static str {
        "google"
    }
    fn order(&self) -> u8 {
        1
    }
    fn is_available(&self, app: &App) -> bool {
        self.login_button(app).is_some()
    }
    fn login_button(&self, app: &App) -> Option<Button> {
        button(app, self.name(), "/auth/google/login")
    }
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App> {
        to.routes(routes!(google_login)).routes(routes!(google_callback))
    }
}

impl Provider for Company {
    fn name(&self) -> &'static str {
        "oidc"
    }
    fn order(&self) -> u8 {
        1
    }
    fn is_available(&self, app: &App) -> bool {
        self.login_button(app).is_some()
    }
    fn login_button(&self, app: &App) -> Option<Button> {
        button(app, self.name(), "/auth/oidc/login")
    }
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App> {
        to.routes(routes!(oidc_login)).routes(routes!(oidc_callback))
    }
}

/// The cookie of somebody who is at the provider, and what it is sealed for.
const COOKIE: &str = "agnes_sign_in";
const PURPOSE: &str = "sign_in_elsewhere";
/// How long they may be there.
const LIFE: TimeDelta = TimeDelta::minutes(10);

/// Where to go afterwards.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Begin {
    /// A path of this server.
    next: Option<String>,
}

/// What the provider's redirect brings.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct CallbackQuery {
    /// The code that a token is asked for with.
    code: Option<String>,
    /// As it was sent to the provider.
    state: Option<String>,
    /// Who answers (RFC 9207).
    iss: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// The code of a refusal as the sign-in page knows it.
fn told(code: &str) -> &str {
    match code {
        "account_deactivated" => "deactivated",
        "no_email" | "domain_not_allowed" | "not_in_allowed_group" | "group_check_unavailable" => code,
        _ => "oauth_failed",
    }
}

fn not_configured(name: &str) -> &'static str {
    if name == "google" { "google_not_configured" } else { "provider_not_configured" }
}

fn set(response: &mut Response<Body>, visit: &Visit, value: &str, seconds: i64) {
    let secure = if visit.is_https { "; Secure" } else { "" };
    // Lax: the provider's redirect is a navigation from another site, and has to bring it.
    let text = format!("{COOKIE}={value}; HttpOnly; SameSite=Lax; Path=/auth; Max-Age={seconds}{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

/// Back to the sign-in page with a code; what the browser kept is gone.
fn failed(visit: &Visit, code: &str, next: Option<&str>) -> Response<Body> {
    let next = next.and_then(local_path).map_or_else(String::new, |next| format!("&next={}", encoded(next)));
    let mut response = redirect(StatusCode::FOUND, &format!("/login?error={code}{next}"));
    set(&mut response, visit, "", 0);
    response
}

impl App {
    /// A provider that is set up and switched on.
    fn provider(&self, name: &'static str) -> Option<&Oidc> {
        self.engine().sign_in().require_provider(name).ok()?;
        self.elsewhere().iter().find(|provider| provider.name() == name)
    }
}

async fn begin(app: &App, name: &'static str, visit: &Visit, asked: Begin) -> Result<Response<Body>, Problem> {
    let next = asked.next.as_deref().and_then(local_path).map(str::to_owned);
    let Some(provider) = app.provider(name) else {
        return Ok(failed(visit, not_configured(name), next.as_deref()));
    };
    let callback = format!("{}/auth/{name}/callback", visit.origin);
    match provider.begin(callback, next.clone()).await {
        Ok((url, pending)) => {
            let value = serde_json::to_value(&pending).map_err(|_| Problem::internal())?;
            let sealed = app.engine().sign_in().seal(PURPOSE, &value, LIFE).await?;
            let mut response = redirect(StatusCode::FOUND, &url);
            set(&mut response, visit, sealed.expose(), LIFE.num_seconds());
            Ok(response)
        }
        Err(error) => {
            error.log(name);
            Ok(failed(visit, "oauth_failed", next.as_deref()))
        }
    }
}

async fn end(
    app: &App,
    name: &'static str,
    visit: &Visit,
    headers: &HeaderMap,
    callback: Option<Callback>,
) -> Result<Response<Body>, Problem> {
    let Some(provider) = app.provider(name) else {
        return Ok(failed(visit, not_configured(name), None));
    };
    let kept = match cookie(headers, COOKIE) {
        Some(text) => app.engine().sign_in().unseal(PURPOSE, text).await?,
        None => None,
    };
    let pending = kept.and_then(|value| serde_json::from_value::<Pending>(value).ok());
    let (Some(pending), Some(callback)) = (pending, callback) else {
        OidcError::Answer("nobody was sent there").log(name);
        return Ok(failed(visit, "oauth_failed", None));
    };
    let next = pending.next.clone();
    let who = match provider.finish(pending, callback).await {
        Ok(who) => who,
        Err(error) => {
            error.log(name);
            return Ok(failed(visit, "oauth_failed", next.as_deref()));
        }
    };
    match app.engine().sign_in().with_provider(&visit.client, &who, app.directory()).await {
        Ok(session) => {
            let mut response = begin_session(app, visit, &session, StatusCode::FOUND, next.as_deref());
            set(&mut response, visit, "", 0);
            Ok(response)
        }
        Err(error) => {
            tracing::warn!(provider = name, code = error.code(), "somebody may not sign in: {error}");
            Ok(failed(visit, told(error.code()), next.as_deref()))
        }
    }
}

/// Sign in with Google
///
/// Sends the browser to Google. What goes wrong ends at the sign-in page, with a code.
#[utoipa::path(get, path = "/auth/google/login", tag = "sign-in", params(Begin), responses(
    (status = 302, description = "To Google, or back to the sign-in page with `error`"),
    (status = 422, description = "The parameters are not valid", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn google_login(
    State(app): State<App>,
    visit: Visit,
    extract::Query(asked): extract::Query<Begin>,
) -> Result<Response<Body>, Problem> {
    begin(&app, "google", &visit, asked).await
}

/// Come back from Google
///
/// Google's redirect ends here: with a session, or at the sign-in page with a code.
#[utoipa::path(get, path = "/auth/google/callback", tag = "sign-in", params(CallbackQuery), responses(
    (status = 302, description = "Signed in, or back to the sign-in page with `error`"),
))]
pub(crate) async fn google_callback(
    State(app): State<App>,
    visit: Visit,
    headers: HeaderMap,
    callback: Result<extract::Query<Callback>, Problem>,
) -> Result<Response<Body>, Problem> {
    end(&app, "google", &visit, &headers, callback.ok().map(|query| query.0)).await
}

/// Sign in at the company's identity provider
///
/// Sends the browser there. What goes wrong ends at the sign-in page, with a code.
#[utoipa::path(get, path = "/auth/oidc/login", tag = "sign-in", params(Begin), responses(
    (status = 302, description = "To the provider, or back to the sign-in page with `error`"),
    (status = 422, description = "The parameters are not valid", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn oidc_login(
    State(app): State<App>,
    visit: Visit,
    extract::Query(asked): extract::Query<Begin>,
) -> Result<Response<Body>, Problem> {
    begin(&app, "oidc", &visit, asked).await
}

/// Come back from the company's identity provider
///
/// Its redirect ends here: with a session, or at the sign-in page with a code.
#[utoipa::path(get, path = "/auth/oidc/callback", tag = "sign-in", params(CallbackQuery), responses(
    (status = 302, description = "Signed in, or back to the sign-in page with `error`"),
))]
pub(crate) async fn oidc_callback(
    State(app): State<App>,
    visit: Visit,
    headers: HeaderMap,
    callback: Result<extract::Query<Callback>, Problem>,
) -> Result<Response<Body>, Problem> {
    end(&app, "oidc", &visit, &headers, callback.ok().map(|query| query.0)).await
}

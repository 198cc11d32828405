//! Signing in and out, and who the caller is.

use agnes_core::identity::{FirstAdmin, FirstSteps, Me, Session, SignedIn};
use agnes_core::secret::Secret;
use axum::Json;
use axum::extract::State;
use axum::http::header::HOST;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Caller, Sender};
use crate::extract;
use crate::openapi::{ForUsers, ProblemShape, WithBody, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::{App, time};
use crate::web;

use super::first_time::Typed;

/// Address and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The address.
    #[schema(example = "ann@example.com")]
    email: String,
    /// The password.
    #[serde(default)]
    password: String,
}

/// A session that was begun.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"access_token": "...", "token_type": "bearer", "user_id": "1f0e9a61c5a94f2d8a0b6a3f4f1c2d3e",
    "email": "ann@example.com", "role": "user", "expires_at": "2026-03-01T09:00:00+00:00"}))]
pub(crate) struct SessionAnswer {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Who signed in.
    user_id: String,
    /// Their address.
    email: String,
    /// `admin` or `user`, as of now: the token does not say so.
    role: &'static str,
    /// When it ends, ISO 8601.
    expires_at: String,
}

/// What clients call an admin, and everybody else.
pub(super) fn role(is_admin: bool) -> &'static str {
    if is_admin { "admin" } else { "user" }
}

impl From<Session> for SessionAnswer {
    fn from(session: Session) -> Self {
        Self {
            access_token: session.token.expose().to_owned(),
            token_type: "bearer",
            user_id: session.user_id,
            email: session.email,
            role: role(session.is_admin),
            expires_at: time(session.expires_at),
        }
    }
}

async fn signed_in(app: &App, sender: &Sender, credentials: Credentials) -> Result<Json<SessionAnswer>, Problem> {
    app.rates().count(Limited::SignIn, sender.0.ip())?;
    let password = Secret::new(credentials.password);
    match app.engine().sign_in().with_password(&sender.0, &credentials.email, &password).await? {
        SignedIn::Session(session) => Ok(Json(session.into())),
        // The way to a new one is for the page that asked for the password.
        SignedIn::ChangeRequired { .. } => {
            Err(Problem::new(StatusCode::FORBIDDEN, "password_change_required", "a new password is asked for")
                .hint("sign in on the web page: it asks for one"))
        }
    }
}

/// Sign in by password
///
/// At most ten times a minute from one address.
#[utoipa::path(post, path = "/auth/token", tag = "sign-in", request_body = Credentials, responses(
    (status = 200, description = "A session", body = SessionAnswer),
    (status = 401, description = "They do not fit, or the account is deactivated", body = ProblemShape, content_type = "application/problem+json"),
    (status = 403, description = "A new password is asked for, or passwords are switched off", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn token(
    State(app): State<App>,
    sender: Sender,
    extract::Json(credentials): extract::Json<Credentials>,
) -> Result<Json<SessionAnswer>, Problem> {
    signed_in(&app, &sender, credentials).await
}

/// Sign in by password, as `/auth/token`
#[utoipa::path(post, path = "/auth/password/login", tag = "sign-in", request_body = Credentials, responses(
    (status = 200, description = "A session", body = SessionAnswer),
    (status = 401, description = "They do not fit, or the account is deactivated", body = ProblemShape, content_type = "application/problem+json"),
    (status = 403, description = "A new password is asked for", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn password_login(
    State(app): State<App>,
    sender: Sender,
    extract::Json(credentials): extract::Json<Credentials>,
) -> Result<Json<SessionAnswer>, Problem> {
    signed_in(&app, &sender, credentials).await
}

/// A first password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRequest {
    /// The address.
    email: String,
    /// As the link had it.
    token: String,
    /// At least 8 characters.
    password: String,
}

/// A first password that was set.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"access_token": "...", "token_type": "bearer", "message": "the password is set"}))]
pub(crate) struct SetupAnswer {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// For people.
    message: &'static str,
}

/// Set the first password, with the token of a setup link
#[utoipa::path(post, path = "/auth/password/setup", tag = "sign-in", request_body = SetupRequest, responses(
    (status = 200, description = "A session", body = SetupAnswer),
    (status = 403, description = "The account is deactivated", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn setup(
    State(app): State<App>,
    sender: Sender,
    extract::Json(request): extract::Json<SetupRequest>,
) -> Result<Json<SetupAnswer>, Problem> {
    app.rates().count(Limited::Setup, sender.0.ip())?;
    let password = Secret::new(request.password);
    let session =
        app.engine().sign_in().set_up_password(&sender.0, &request.email, &request.token, &password, None).await?;
    let access_token = session.token.expose().to_owned();
    Ok(Json(SetupAnswer { access_token, token_type: "bearer", message: "the password is set" }))
}

/// Who wants to be the first Admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootstrapRequest {
    /// The address.
    email: String,
    /// The name.
    #[serde(default)]
    name: String,
    /// At least 8 characters; without one another way to sign in again is needed.
    #[serde(default)]
    password: String,
    /// As the header `X-Bootstrap-Token`, for forms.
    #[serde(default)]
    token: String,
}

/// Make the first Admin
///
/// As long as there is none. Where the operator set a token, `X-Bootstrap-Token` brings it, or
/// what the server printed at its start. At most three times a minute from one address.
#[utoipa::path(post, path = "/auth/bootstrap", tag = "sign-in",
    request_body(content((BootstrapRequest = "application/json"), (BootstrapRequest = "application/x-www-form-urlencoded"))),
    params(("x-bootstrap-token" = Option<String>, Header, description = "The operator's token, or the one of the start")),
    responses(
    (status = 200, description = "A session of the first Admin", body = SessionAnswer),
    (status = 303, description = "Signed in, for a form"),
    (status = 409, description = "The account belongs to Agnes itself", body = ProblemShape, content_type = "application/problem+json"),
    WithBody, WithForm,
))]
pub(crate) async fn bootstrap(
    State(app): State<App>,
    sender: Sender,
    headers: HeaderMap,
    body: web::Body<BootstrapRequest>,
) -> Result<Response<axum::body::Body>, Problem> {
    app.rates().count(Limited::Bootstrap, sender.0.ip()).map_err(Problem::for_people)?;
    let (web::Body::Json(request) | web::Body::Form(request, _)) = &body;
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let header = headers.get("x-bootstrap-token").and_then(|value| value.to_str().ok());
    let wanted = FirstAdmin {
        email: request.email.clone(),
        name: given(&request.name),
        password: given(&request.password).map(Secret::new),
        token: header.map(str::to_owned).or(given(&request.token)).map(Secret::new),
        host: Some(headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned()),
    };
    let web::Body::Form(request, visit) = &body else {
        let session = app.engine().sign_in().bootstrap(&sender.0, &wanted).await?;
        return Ok(Json(SessionAnswer::from(session)).into_response());
    };
    match app.engine().sign_in().bootstrap(&visit.client, &wanted).await {
        Ok(session) => Ok(web::begin_session(&app, visit, &session, StatusCode::SEE_OTHER, None)),
        Err(error) if error.code() == "bootstrap_closed" => Ok(web::redirect(StatusCode::SEE_OTHER, "/login")),
        Err(error) => {
            let problem = Problem::from(error);
            if problem.status().is_server_error() {
                return Err(problem.for_people());
            }
            // A token that is not the one gives way to a field for the right one.
            let wrong_token = problem.code() == "bootstrap_token_invalid";
            let typed = Typed {
                email: request.email.clone(),
                name: request.name.clone(),
                token: if wrong_token { String::new() } else { request.token.clone() },
            };
            let text = format!("That did not work: {}.", problem.sentence());
            Ok(super::first_time::form(&app, visit, &typed, wrong_token, Some(&text), problem.status()))
        }
    }
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    /// The one there is, where there is one.
    current_password: Option<String>,
    /// At least 8 characters.
    new_password: String,
}

/// Change the caller's password
///
/// Every other session ends. For sessions: a token cannot do it.
#[utoipa::path(post, path = "/auth/password/change", tag = "sign-in", request_body = ChangeRequest, responses(
    (status = 204, description = "It is changed"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn change_password(
    State(app): State<App>,
    sender: Sender,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<ChangeRequest>,
) -> Result<StatusCode, Problem> {
    app.rates().count(Limited::Change, sender.0.ip())?;
    let (current, new) = (request.current_password.map(Secret::new), Secret::new(request.new_password));
    app.engine().sign_in().change_password(&ctx, current.as_ref(), &new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A group of the caller, or of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnGroup {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// Seeded by Agnes.
    is_system: bool,
    /// `system`, `google_sync` or `custom`.
    origin: String,
}

impl From<agnes_core::identity::MyGroup> for OwnGroup {
    fn from(group: agnes_core::identity::MyGroup) -> Self {
        Self { id: group.id, name: group.name, is_system: group.is_system, origin: group.origin }
    }
}

/// How the caller proved who they are.
#[derive(Serialize, ToSchema)]
pub(crate) struct Proved {
    /// `session`, `pat`, `service`, `desktop` or `dev`.
    r#type: String,
    /// Id of the session or token.
    token_id: Option<String>,
    /// Name of the token.
    token_name: Option<String>,
    /// What the token may be used for.
    scope: Option<String>,
    /// When it ends, ISO 8601.
    expires_at: Option<String>,
}

/// Who the caller is.
#[derive(Serialize, ToSchema)]
pub(crate) struct MeAnswer {
    /// Their id.
    user_id: String,
    /// Their address.
    email: String,
    /// Their name.
    name: Option<String>,
    /// Whether they are a member of Admin.
    is_admin: bool,
    /// `admin` or `user`.
    role: &'static str,
    /// By name.
    groups: Vec<OwnGroup>,
    /// Whether they finished the first steps.
    onboarded: bool,
    /// When they last fetched the manifest, ISO 8601.
    last_pull_at: Option<String>,
    /// How they proved it.
    auth: Proved,
    /// Version of the server.
    server_version: &'static str,
}

impl From<Me> for MeAnswer {
    fn from(me: Me) -> Self {
        Self {
            user_id: me.user_id,
            email: me.email,
            name: me.name,
            is_admin: me.is_admin,
            role: role(me.is_admin),
            groups: me.groups.into_iter().map(OwnGroup::from).collect(),
            onboarded: me.onboarded,
            last_pull_at: me.last_pull_at.map(time),
            auth: Proved {
                r#type: me.auth,
                token_id: me.token_id,
                token_name: me.token_name,
                scope: me.scope,
                expires_at: me.expires_at.map(time),
            },
            server_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Who the caller is
///
/// The lightest call that needs somebody: it tells whether a token is worth something.
#[utoipa::path(get, path = "/auth/me", tag = "sign-in", responses(
    (status = 200, description = "Who they are", body = MeAnswer), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn me(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<MeAnswer>, Problem> {
    Ok(Json(app.engine().sign_in().me(&ctx).await?.into()))
}

/// Who the caller is, as `/auth/me`
#[utoipa::path(get, path = "/api/me/profile", tag = "sign-in", responses(
    (status = 200, description = "Who they are", body = MeAnswer), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn profile(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<MeAnswer>, Problem> {
    Ok(Json(app.engine().sign_in().me(&ctx).await?.into()))
}

/// Sign out
///
/// Ends the session the caller came with; who is signed out already gets the same answer.
#[utoipa::path(post, path = "/auth/logout", tag = "sign-in", responses(
    (status = 204, description = "Nobody is signed in"),
    (status = 303, description = "Nobody is signed in, for a form"),
    (status = 403, description = "A page of somebody else made this request", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The form is too large", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "This is no form", body = ProblemShape, content_type = "application/problem+json"),
), security((), ("bearer" = []), ("session" = [])))]
pub(crate) async fn sign_out(
    State(app): State<App>,
    caller: Result<Caller, Problem>,
    headers: HeaderMap,
    form: web::MaybeForm,
) -> Result<Response<axum::body::Body>, Problem> {
    match caller {
        Ok(Caller(ctx)) => app.engine().sign_in().sign_out(&ctx).await?,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {}
        Err(problem) => return Err(problem),
    }
    let mut response = match form {
        web::MaybeForm::Form => web::redirect(StatusCode::SEE_OTHER, "/login?msg=signed_out"),
        web::MaybeForm::Other => StatusCode::NO_CONTENT.into_response(),
    };
    let is_https = web::is_https(&headers, app.limits().trusted_proxy_hops);
    web::session_gone(response.headers_mut(), is_https);
    Ok(response)
}

/// Sign out everywhere
///
/// Ends every session of the caller; tokens stay.
#[utoipa::path(post, path = "/auth/logout-all", tag = "sign-in", responses(
    (status = 204, description = "Every session has ended"), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn sign_out_everywhere(State(app): State<App>, Caller(ctx): Caller) -> Result<StatusCode, Problem> {
    app.engine().sign_in().sign_out_everywhere(&ctx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// That the first steps are done, or not.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnboardedRequest {
    /// Who says so: `agnes_init`, `self_acknowledged` or `self_unmark`.
    #[serde(default)]
    source: OnboardedSource,
    /// Whether they are done.
    #[serde(default = "done")]
    onboarded: bool,
}

/// Who says that the first steps are done.
#[derive(Deserialize, ToSchema, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnboardedSource {
    /// The command that sets up a laptop.
    #[default]
    AgnesInit,
    /// The person.
    SelfAcknowledged,
    /// The person, who wants to see them again.
    SelfUnmark,
}

fn done() -> bool {
    true
}

impl Default for OnboardedRequest {
    fn default() -> Self {
        Self { source: OnboardedSource::default(), onboarded: done() }
    }
}

/// Whether the first steps are done.
#[derive(Serialize, ToSchema)]
pub(crate) struct OnboardedAnswer {
    /// Always `ok`.
    status: &'static str,
    /// As it is kept.
    onboarded: bool,
}

/// Say that the first steps are done, or not
#[utoipa::path(post, path = "/api/me/onboarded", tag = "sign-in", request_body = Option<OnboardedRequest>, responses(
    (status = 200, description = "It is kept", body = OnboardedAnswer), ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn onboarded(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::MaybeJson(request): extract::MaybeJson<OnboardedRequest>,
) -> Result<Json<OnboardedAnswer>, Problem> {
    let source = match request.source {
        OnboardedSource::AgnesInit => FirstSteps::Command,
        OnboardedSource::SelfAcknowledged => FirstSteps::Acknowledged,
        OnboardedSource::SelfUnmark => FirstSteps::Unmarked,
    };
    let onboarded = app.engine().sign_in().first_steps(&ctx, source, request.onboarded).await?;
    Ok(Json(OnboardedAnswer { status: "ok", onboarded }))
}

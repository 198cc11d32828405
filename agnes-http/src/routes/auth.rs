//! Signing in and out, and who the caller is.

use agnes_core::identity::{FirstAdmin, Me, Session, SignedIn};
use agnes_core::secret::Secret;
use axum::Json;
use axum::extract::State;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Caller, SESSION_COOKIE, Sender};
use crate::extract;
use crate::openapi::{ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::App;

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
pub(crate) struct TokenAnswer {
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

fn role(is_admin: bool) -> &'static str {
    if is_admin { "admin" } else { "user" }
}

impl From<Session> for TokenAnswer {
    fn from(session: Session) -> Self {
        Self {
            access_token: session.token.expose().to_owned(),
            token_type: "bearer",
            user_id: session.user_id,
            email: session.email,
            role: role(session.is_admin),
            expires_at: session.expires_at.to_rfc3339(),
        }
    }
}

async fn signed_in(app: &App, sender: &Sender, credentials: Credentials) -> Result<Json<TokenAnswer>, Problem> {
    app.rates().count(Limited::SignIn, sender.0.ip())?;
    let password = Secret::new(credentials.password);
    match app.engine().sign_in().with_password(&sender.0, &credentials.email, &password).await? {
        SignedIn::Session(session) => Ok(Json(session.into())),
        // The way to a new one is for the page that asked for the password.
        SignedIn::ChangeRequired { .. } => {
            Err(Problem::new(StatusCode::FORBIDDEN, "password_change_required", "a new password is asked for"))
        }
    }
}

/// Sign in by password
///
/// At most ten times a minute from one address.
#[utoipa::path(post, path = "/auth/token", tag = "sign-in", request_body = Credentials, responses(
    (status = 200, description = "A session", body = TokenAnswer),
    (status = 401, description = "They do not fit, or the account is deactivated", body = ProblemShape, content_type = "application/problem+json"),
    (status = 403, description = "A new password is asked for", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn token(
    State(app): State<App>,
    sender: Sender,
    extract::Json(credentials): extract::Json<Credentials>,
) -> Result<Json<TokenAnswer>, Problem> {
    signed_in(&app, &sender, credentials).await
}

/// Sign in by password, as `/auth/token`
#[utoipa::path(post, path = "/auth/password/login", tag = "sign-in", request_body = Credentials, responses(
    (status = 200, description = "A session", body = TokenAnswer),
    (status = 401, description = "They do not fit, or the account is deactivated", body = ProblemShape, content_type = "application/problem+json"),
    (status = 403, description = "A new password is asked for", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn password_login(
    State(app): State<App>,
    sender: Sender,
    extract::Json(credentials): extract::Json<Credentials>,
) -> Result<Json<TokenAnswer>, Problem> {
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
}

/// Make the first Admin
///
/// As long as there is none. Where the operator set a token, `X-Bootstrap-Token` brings it, or
/// what the server printed at its start. At most three times a minute from one address.
#[utoipa::path(post, path = "/auth/bootstrap", tag = "sign-in", request_body = BootstrapRequest,
    params(("x-bootstrap-token" = Option<String>, Header, description = "The operator's token, or the one of the start")),
    responses(
    (status = 200, description = "A session of the first Admin", body = TokenAnswer),
    (status = 403, description = "There is an Admin, or the token is another", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "The account belongs to Agnes itself", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn bootstrap(
    State(app): State<App>,
    sender: Sender,
    headers: HeaderMap,
    extract::Json(request): extract::Json<BootstrapRequest>,
) -> Result<Json<TokenAnswer>, Problem> {
    app.rates().count(Limited::Bootstrap, sender.0.ip())?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let wanted = FirstAdmin {
        email: request.email,
        name: given(request.name),
        password: given(request.password).map(Secret::new),
        token: headers.get("x-bootstrap-token").and_then(|value| value.to_str().ok()).map(Secret::new),
    };
    Ok(Json(app.engine().sign_in().bootstrap(&sender.0, &wanted).await?.into()))
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

/// A group of the caller.
#[derive(Serialize, ToSchema)]
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
        let group = |group: agnes_core::identity::MyGroup| OwnGroup {
            id: group.id,
            name: group.name,
            is_system: group.is_system,
            origin: group.origin,
        };
        Self {
            user_id: me.user_id,
            email: me.email,
            name: me.name,
            is_admin: me.is_admin,
            role: role(me.is_admin),
            groups: me.groups.into_iter().map(group).collect(),
            onboarded: me.onboarded,
            last_pull_at: me.last_pull_at.map(|at| at.to_rfc3339()),
            auth: Proved {
                r#type: me.auth,
                token_id: me.token_id,
                token_name: me.token_name,
                scope: me.scope,
                expires_at: me.expires_at.map(|at| at.to_rfc3339()),
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
    (status = 403, description = "A page of somebody else made this request", body = ProblemShape, content_type = "application/problem+json"),
), security((), ("bearer" = []), ("session" = [])))]
pub(crate) async fn sign_out(
    State(app): State<App>,
    caller: Result<Caller, Problem>,
) -> Result<Response<axum::body::Body>, Problem> {
    match caller {
        Ok(Caller(ctx)) => app.engine().sign_in().sign_out(&ctx).await?,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {}
        Err(problem) => return Err(problem),
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let gone = format!("{SESSION_COOKIE}=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
    if let Ok(value) = HeaderValue::from_str(&gone) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
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

/// Whether the first steps are done.
#[derive(Serialize, ToSchema)]
pub(crate) struct OnboardedAnswer {
    /// Always `ok`.
    status: &'static str,
    /// As it is kept.
    onboarded: bool,
}

/// Say that the first steps are done, or not
#[utoipa::path(post, path = "/api/me/onboarded", tag = "sign-in", request_body = OnboardedRequest, responses(
    (status = 200, description = "It is kept", body = OnboardedAnswer), ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn onboarded(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<OnboardedRequest>,
) -> Result<Json<OnboardedAnswer>, Problem> {
    let onboarded = request.onboarded && !matches!(request.source, OnboardedSource::SelfUnmark);
    app.engine().sign_in().set_onboarded(&ctx, onboarded).await?;
    Ok(Json(OnboardedAnswer { status: "ok", onboarded }))
}

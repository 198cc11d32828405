//! People: their accounts, invitations and passwords. For admins.

use agnes_core::identity::{Letter, NewUser, PeopleFilter, Person};
use agnes_core::secret::Secret;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::group_of;
use super::auth::{OwnGroup, role};
use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};
use crate::web::Origin;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserAnswer {
    /// Their id.
    id: String,
    /// Their address.
    #[schema(example = "ann@example.com")]
    email: String,
    /// Their name; empty when nobody said one.
    name: String,
    /// `admin` or `user`.
    role: &'static str,
    /// Whether they are an active member of Admin.
    is_admin: bool,
    /// Whether a directory put them into some group.
    is_sso_user: bool,
    /// Whether they have a password.
    has_password: bool,
    /// By name.
    groups: Vec<OwnGroup>,
    /// Whether they may do anything.
    active: bool,
    /// When they were made, ISO 8601.
    created_at: Option<String>,
    /// When they were deactivated, ISO 8601.
    deactivated_at: Option<String>,
    /// When they last did something, ISO 8601.
    last_seen_at: Option<String>,
}

impl From<Person> for UserAnswer {
    fn from(person: Person) -> Self {
        Self {
            id: person.user.id,
            email: person.user.email,
            name: person.user.name.unwrap_or_default(),
            role: role(person.is_admin),
            is_admin: person.is_admin,
            is_sso_user: person.is_sso_user,
            has_password: person.has_password,
            groups: person.groups.into_iter().map(OwnGroup::from).collect(),
            active: person.user.active,
            created_at: person.user.created_at.map(time),
            deactivated_at: person.user.deactivated_at.map(time),
            last_seen_at: person.last_seen_at.map(time),
        }
    }
}

/// Which users, by address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserParams {
    /// At most this many, 1 to 10,000.
    #[param(minimum = 1, maximum = 10000)]
    #[serde(default = "thousand")]
    limit: usize,
    /// After this many.
    #[serde(default)]
    offset: usize,
    /// Whose address or name holds this text.
    q: Option<String>,
    /// Who are active, or who are not.
    active: Option<bool>,
}

fn thousand() -> usize {
    1000
}

/// The users
#[utoipa::path(get, path = "/api/users", tag = "users", params(UserParams), responses(
    (status = 200, description = "By address", body = Vec<UserAnswer>),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<UserParams>,
) -> Result<Json<Vec<UserAnswer>>, Problem> {
    extract::within("limit", params.limit, 10_000)?;
    let UserParams { limit, offset, q: text, active } = params;
    let people = app.engine().identity().people(&ctx, &PeopleFilter { text, active, limit, offset }).await?;
    Ok(Json(people.into_iter().map(UserAnswer::from).collect()))
}

/// A user to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUserRequest {
    /// Their address.
    #[schema(example = "ann@example.com")]
    email: String,
    /// Their name.
    #[serde(default)]
    name: String,
    /// Whether to make a link with which they set their password, and to mail it.
    #[serde(default)]
    send_invite: bool,
    /// Ids of groups to begin with, beside Everyone.
    #[serde(default)]
    groups: Vec<String>,
}

/// A user that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeUser {
    #[serde(flatten)]
    user: UserAnswer,
    /// Where they set their password within seven days; told this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_url: Option<String>,
    /// Whether it was mailed to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_email_sent: Option<bool>,
}

/// Make a user
///
/// They are a member of Everyone from the start.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = NewUserRequest, responses(
    (status = 201, description = "They are made", body = MadeUser),
    ForAdmins, WithBody,
    (status = 404, description = "There is no such group", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "There is a user of this address, or a directory keeps a group", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    extract::Json(request): extract::Json<NewUserRequest>,
) -> Result<(StatusCode, Json<MadeUser>), Problem> {
    let mut groups = Vec::new();
    for id in &request.groups {
        groups.push(group_of(&app, &ctx, id).await?.group.id);
    }
    let new = NewUser { email: request.email, name: Some(request.name), groups, invite: request.send_invite };
    let (user, letter) = app.engine().identity().create_user(&ctx, &new).await?;
    let user = app.engine().identity().person(&ctx, &user.id).await?.into();
    let sent = match letter {
        Some(letter) => Some(deliver(&app, &origin, &letter).await),
        None => None,
    };
    let (invite_url, invite_email_sent) = sent.unzip();
    Ok((StatusCode::CREATED, Json(MadeUser { user, invite_url, invite_email_sent })))
}

/// The link of a letter, and whether it was mailed.
async fn deliver(app: &App, origin: &str, letter: &Letter) -> (String, bool) {
    // What went wrong is in the log, and in the health of the server.
    let sent = app.engine().mails().send(letter, origin).await.is_ok();
    (format!("{origin}{}", letter.path().expose()), sent)
}

/// One user
#[utoipa::path(get, path = "/api/users/{user_id}", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "The user", body = UserAnswer),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn get(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<UserAnswer>, Problem> {
    Ok(Json(app.engine().identity().person(&ctx, &id).await?.into()))
}

/// What to change of a user; what is not there stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserPatch {
    /// Their name.
    name: Option<String>,
    /// Whether they may do anything.
    active: Option<bool>,
}

/// Change a user
#[utoipa::path(patch, path = "/api/users/{user_id}", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), request_body = UserPatch, responses(
    (status = 200, description = "The user", body = UserAnswer),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is the caller, the last Admin, or somebody whom a directory keeps", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn update(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(patch): extract::Json<UserPatch>,
) -> Result<Json<UserAnswer>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    app.engine().identity().update_user(&ctx, &user.id, patch.name.as_deref(), patch.active).await?;
    Ok(Json(app.engine().identity().person(&ctx, &user.id).await?.into()))
}

/// Delete a user
///
/// With memberships, tokens and preferences. What they did stays in the audit log.
#[utoipa::path(delete, path = "/api/users/{user_id}", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 204, description = "They are gone"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is the caller, the last Admin, or somebody whom a directory keeps", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn delete(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    app.engine().identity().remove_user(&ctx, &user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_active(
    app: App,
    ctx: agnes_core::CallContext,
    id: &str,
    active: bool,
) -> Result<Json<UserAnswer>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, id).await?;
    app.engine().identity().set_active(&ctx, &user.id, active).await?;
    Ok(Json(app.engine().identity().person(&ctx, &user.id).await?.into()))
}

/// Let a user in again
#[utoipa::path(post, path = "/api/users/{user_id}/activate", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "The user", body = UserAnswer),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn activate(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<UserAnswer>, Problem> {
    set_active(app, ctx, &id, true).await
}

/// Lock a user out
///
/// Their sessions and tokens are refused from the next call on.
#[utoipa::path(post, path = "/api/users/{user_id}/deactivate", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "The user", body = UserAnswer),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "It is the caller, the last Admin, or somebody whom a directory keeps", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn deactivate(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<UserAnswer>, Problem> {
    set_active(app, ctx, &id, false).await
}

/// A link with which a user sets their first password.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invitation {
    /// Good for 7 days; told this once.
    invite_url: String,
    /// Whether it was mailed to them.
    invite_email_sent: bool,
}

/// Make a link with which a user sets their first password
///
/// An older one is no good any more.
#[utoipa::path(post, path = "/api/users/{user_id}/invite", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "The link", body = Invitation),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A directory keeps them", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn invite(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    Path(id): Path<String>,
) -> Result<Json<Invitation>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let letter = app.engine().identity().invite(&ctx, &user.id).await?;
    let (invite_url, invite_email_sent) = deliver(&app, &origin, &letter).await;
    Ok(Json(Invitation { invite_url, invite_email_sent }))
}

/// A link with which a user sets a new password.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResetLink {
    /// Good for 24 hours; told this once.
    reset_url: String,
    /// Whether it was mailed to them.
    email_sent: bool,
}

/// Make a link with which a user sets a new password
#[utoipa::path(post, path = "/api/users/{user_id}/reset-password", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), responses(
    (status = 200, description = "The link", body = ResetLink),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A directory keeps them", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn reset_password(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    Path(id): Path<String>,
) -> Result<Json<ResetLink>, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let letter = app.engine().identity().reset_link(&ctx, &user.id).await?;
    let (reset_url, email_sent) = deliver(&app, &origin, &letter).await;
    Ok(Json(ResetLink { reset_url, email_sent }))
}

/// A password to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// At least 8 characters.
    password: String,
    /// Whether the next sign-in asks for another one.
    #[serde(default = "yes")]
    must_change: bool,
}

fn yes() -> bool {
    true
}

/// Set a user's password
///
/// Their sessions end.
#[utoipa::path(post, path = "/api/users/{user_id}/set-password", tag = "users",
    params(("user_id" = String, Path, description = "Their id or address")), request_body = NewPassword, responses(
    (status = 204, description = "It is set"),
    ForAdmins, WithBody,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A directory keeps them", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Too many passwords are being set", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_password(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
    extract::Json(new): extract::Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    let user = app.engine().identity().exact_user(&ctx, &id).await?;
    let password = Secret::new(new.password);
    app.engine().identity().set_password(&ctx, &user.id, &password, new.must_change).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! Personal access tokens.

use agnes_core::identity::{TokenLife, TokenRow};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{self, Path, Query};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTokenRequest {
    /// For people.
    name: String,
    /// Days until it ends, 1 to 3650; null for never.
    #[serde(default = "ninety")]
    expires_in_days: Option<i64>,
    /// `general`, or `bootstrap-analyst` to set up a laptop within an hour.
    #[serde(default = "general")]
    scope: String,
    /// Seconds until it ends; counts instead of days where it is there.
    ttl_seconds: Option<i64>,
}

fn ninety() -> Option<i64> {
    Some(90)
}

fn general() -> String {
    "general".to_owned()
}

impl NewTokenRequest {
    fn life(&self) -> TokenLife {
        match (self.ttl_seconds, self.expires_in_days) {
            (Some(seconds), _) => TokenLife::Seconds(seconds),
            (None, Some(days)) => TokenLife::Days(days),
            (None, None) => TokenLife::Unlimited,
        }
    }
}

/// A token that was made. It is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewTokenAnswer {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// First 8 digits of the id, safe to show.
    prefix: String,
    /// The token.
    token: String,
    /// When it ends, ISO 8601.
    expires_at: Option<String>,
    /// When it was made, ISO 8601.
    created_at: Option<String>,
}

/// Make a token
///
/// For sessions: a token cannot make another.
#[utoipa::path(post, path = "/auth/tokens", tag = "tokens", request_body = NewTokenRequest, responses(
    (status = 201, description = "The token, this once", body = NewTokenAnswer),
    ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn create(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<NewTokenRequest>,
) -> Result<(StatusCode, Json<NewTokenAnswer>), Problem> {
    let made = app.engine().tokens().create(&ctx, &request.name, request.life(), &request.scope).await?;
    let answer = NewTokenAnswer {
        id: made.row.id,
        name: made.row.name,
        prefix: made.row.prefix,
        token: made.token.expose().to_owned(),
        expires_at: made.row.expires_at.map(time),
        created_at: made.row.created_at.map(time),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A token, without what is secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// First 8 digits of the id.
    prefix: String,
    /// What it may be used for.
    scope: String,
    /// When it was made, ISO 8601.
    created_at: Option<String>,
    /// When it ends, ISO 8601.
    expires_at: Option<String>,
    /// When it was last used, ISO 8601.
    last_used_at: Option<String>,
    /// When it was revoked, ISO 8601.
    revoked_at: Option<String>,
}

/// Somebody's token, without what is secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnyTokenAnswer {
    #[serde(flatten)]
    token: TokenAnswer,
    /// Whose it is.
    user_id: String,
    /// Their address.
    user_email: String,
    /// From where it was last used.
    last_used_ip: Option<String>,
}

impl From<TokenRow> for AnyTokenAnswer {
    fn from(row: TokenRow) -> Self {
        Self {
            user_id: row.user_id,
            user_email: row.user_email,
            last_used_ip: row.last_used_ip,
            token: TokenAnswer {
                id: row.id,
                name: row.name,
                prefix: row.prefix,
                scope: row.scope,
                created_at: row.created_at.map(time),
                expires_at: row.expires_at.map(time),
                last_used_at: row.last_used_at.map(time),
                revoked_at: row.revoked_at.map(time),
            },
        }
    }
}

/// The caller's tokens
#[utoipa::path(get, path = "/auth/tokens", tag = "tokens", responses(
    (status = 200, description = "Newest first", body = Vec<TokenAnswer>), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Vec<TokenAnswer>>, Problem> {
    let tokens = app.engine().tokens().list(&ctx).await?;
    Ok(Json(tokens.into_iter().map(|row| AnyTokenAnswer::from(row).token).collect()))
}

/// One of the caller's tokens
#[utoipa::path(get, path = "/auth/tokens/{token_id}", tag = "tokens",
    params(("token_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The token", body = TokenAnswer),
    ForUsers,
    (status = 404, description = "They have none such", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn get(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<TokenAnswer>, Problem> {
    Ok(Json(AnyTokenAnswer::from(app.engine().tokens().get(&ctx, &id).await?).token))
}

/// Revoke one of the caller's tokens
///
/// A token may revoke itself.
#[utoipa::path(delete, path = "/auth/tokens/{token_id}", tag = "tokens",
    params(("token_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is worth nothing any more"),
    ForUsers,
    (status = 404, description = "They have none such", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn revoke(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().tokens().revoke(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// At most this many, 1 to 10,000.
    #[param(minimum = 1, maximum = 10000)]
    #[serde(default = "thousand")]
    limit: usize,
    /// After this many.
    #[serde(default)]
    offset: usize,
}

fn thousand() -> usize {
    1000
}

/// Everybody's tokens
#[utoipa::path(get, path = "/auth/admin/tokens", tag = "tokens", params(PageParams), responses(
    (status = 200, description = "Newest first", body = Vec<AnyTokenAnswer>),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn list_all(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(page): Query<PageParams>,
) -> Result<Json<Vec<AnyTokenAnswer>>, Problem> {
    extract::within("limit", page.limit, 10_000)?;
    let tokens = app.engine().tokens().list_all(&ctx, page.limit, page.offset).await?;
    Ok(Json(tokens.into_iter().map(AnyTokenAnswer::from).collect()))
}

/// Revoke anybody's token
#[utoipa::path(delete, path = "/auth/admin/tokens/{token_id}", tag = "tokens",
    params(("token_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is worth nothing any more"),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn revoke_any(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine().tokens().revoke_any(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! Texts that admins edit: the setup prompt, and `CLAUDE.md` of workspaces.

use agnes_core::CallContext;
use agnes_core::templates::{Place, TemplateKey};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{self, Query};
use crate::openapi::{ForAdmins, ForUsers, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};
use crate::web::Origin;

/// A text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Template {
    /// What an admin wrote; none while the default holds.
    content: Option<String>,
    /// What holds otherwise.
    default: &'static str,
    /// When it was written, ISO 8601.
    updated_at: Option<String>,
    /// Id of who wrote it.
    updated_by: Option<String>,
}

/// A text to keep, or to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTemplate {
    /// 1 to 200000 characters; `{{ instance.name }}` and so on are values.
    #[schema(example = "Set {{ instance.name }} up on this computer.")]
    content: String,
}

/// What a text becomes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rendered {
    /// It.
    #[schema(example = "Set Acme up on this computer.")]
    content: String,
}

async fn get(app: &App, ctx: &CallContext, key: TemplateKey) -> Result<Json<Template>, Problem> {
    let kept = app.engine().templates().get(ctx, key).await?;
    Ok(shown(key, kept))
}

async fn put(app: &App, ctx: &CallContext, key: TemplateKey, new: &NewTemplate) -> Result<Json<Template>, Problem> {
    let kept = app.engine().templates().set(ctx, key, &new.content).await?;
    Ok(shown(key, kept))
}

fn shown(key: TemplateKey, kept: agnes_core::templates::StoredTemplate) -> Json<Template> {
    // Who went back to the default is in the audit log.
    let written = kept.content.is_some();
    Json(Template {
        content: kept.content,
        default: key.default_text(),
        updated_at: kept.updated_at.filter(|_| written).map(time),
        updated_by: kept.updated_by.filter(|_| written),
    })
}

/// Where texts are rendered for.
pub(super) async fn offers(app: &App) -> bool {
    // A folder that cannot be read is no reason for no text.
    app.distribution().offer().await.is_ok_and(|offer| offer.version.is_some())
}

/// The authority of the certificates that the proxy in front shows, where computers do not know it.
pub(super) async fn authority(app: &App, origin: &str) -> Option<String> {
    if !origin.starts_with("https://") {
        return None;
    }
    let beside = || app.engine().folder().state_dir().join("certs").join("fullchain.pem");
    let path = app.limits().tls_chain.clone().unwrap_or_else(beside);
    app.authority().of(path).await
}

async fn preview(
    app: &App,
    ctx: &CallContext,
    key: TemplateKey,
    origin: &str,
    new: &NewTemplate,
) -> Result<Json<Rendered>, Problem> {
    let authority = authority(app, origin).await;
    let place = Place { origin, offers: offers(app).await, authority: authority.as_deref() };
    Ok(Json(Rendered { content: app.engine().templates().preview(ctx, key, &new.content, place).await? }))
}

/// The text that people give their assistants
#[utoipa::path(get, path = "/api/admin/welcome-template", tag = "texts", responses(
    (status = 200, description = "The text", body = Template), ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn prompt(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Template>, Problem> {
    get(&app, &ctx, TemplateKey::SetupPrompt).await
}

/// Change the text that people give their assistants
#[utoipa::path(put, path = "/api/admin/welcome-template", tag = "texts", request_body = NewTemplate, responses(
    (status = 200, description = "It holds", body = Template), ForAdmins, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_prompt(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewTemplate>,
) -> Result<Json<Template>, Problem> {
    put(&app, &ctx, TemplateKey::SetupPrompt, &new).await
}

/// Return to the usual text for assistants
#[utoipa::path(delete, path = "/api/admin/welcome-template", tag = "texts", responses(
    (status = 204, description = "The default holds"), ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn reset_prompt(State(app): State<App>, Caller(ctx): Caller) -> Result<StatusCode, Problem> {
    app.engine().templates().reset(&ctx, TemplateKey::SetupPrompt).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try a text for assistants
#[utoipa::path(post, path = "/api/admin/welcome-template/preview", tag = "texts", request_body = NewTemplate, responses(
    (status = 200, description = "What it becomes", body = Rendered), ForAdmins, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn preview_prompt(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    extract::Json(new): extract::Json<NewTemplate>,
) -> Result<Json<Rendered>, Problem> {
    preview(&app, &ctx, TemplateKey::SetupPrompt, &origin, &new).await
}

/// The `CLAUDE.md` of workspaces
#[utoipa::path(get, path = "/api/admin/workspace-prompt-template", tag = "texts", responses(
    (status = 200, description = "The text", body = Template), ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn guide(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Template>, Problem> {
    get(&app, &ctx, TemplateKey::Workspace).await
}

/// Change the `CLAUDE.md` of workspaces
#[utoipa::path(put, path = "/api/admin/workspace-prompt-template", tag = "texts", request_body = NewTemplate, responses(
    (status = 200, description = "It holds", body = Template), ForAdmins, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_guide(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(new): extract::Json<NewTemplate>,
) -> Result<Json<Template>, Problem> {
    put(&app, &ctx, TemplateKey::Workspace, &new).await
}

/// Return to the usual `CLAUDE.md`
#[utoipa::path(delete, path = "/api/admin/workspace-prompt-template", tag = "texts", responses(
    (status = 204, description = "The default holds"), ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn reset_guide(State(app): State<App>, Caller(ctx): Caller) -> Result<StatusCode, Problem> {
    app.engine().templates().reset(&ctx, TemplateKey::Workspace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try a `CLAUDE.md`
#[utoipa::path(post, path = "/api/admin/workspace-prompt-template/preview", tag = "texts", request_body = NewTemplate,
    responses((status = 200, description = "What it becomes", body = Rendered), ForAdmins, WithBody),
    security(("bearer" = []), ("session" = [])))]
pub(crate) async fn preview_guide(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    extract::Json(new): extract::Json<NewTemplate>,
) -> Result<Json<Rendered>, Problem> {
    preview(&app, &ctx, TemplateKey::Workspace, &origin, &new).await
}

/// How the caller reaches this server.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WelcomeParams {
    /// Its address, as they know it.
    server_url: Option<String>,
}

/// The `CLAUDE.md` for a workspace of the caller
#[utoipa::path(get, path = "/api/welcome", tag = "texts", params(WelcomeParams), responses(
    (status = 200, description = "The text", body = Rendered), ForUsers,
    (status = 422, description = "A parameter is not valid", body = crate::openapi::ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn welcome(
    State(app): State<App>,
    Caller(ctx): Caller,
    Origin(origin): Origin,
    Query(params): Query<WelcomeParams>,
) -> Result<Json<Rendered>, Problem> {
    let authority = authority(&app, &origin).await;
    let place = Place { origin: &origin, offers: offers(&app).await, authority: authority.as_deref() };
    let content = app.engine().templates().workspace_guide(&ctx, place, params.server_url.as_deref()).await?;
    Ok(Json(Rendered { content }))
}

//! The configuration of the running server.

use agnes_core::secret::Secret;
use agnes_core::settings::{Configure, SettingsView};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Json;
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;

/// What is set, and what may be.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct SettingsAnswer {
    /// What is set, by section; secrets are `***`, or `<empty>`.
    #[schema(value_type = Object)]
    sections: Value,
    /// Sections that may be edited.
    editable_sections: Vec<String>,
    /// Sections that ask for `confirm_danger`.
    danger_sections: Vec<String>,
    /// Keys with one of these in their name hold a secret.
    secret_key_patterns: Vec<String>,
    /// Fields by section: `key`, `type`, `default`, `help`, and `env_override` where a variable of
    /// the environment beats it now.
    #[schema(value_type = Object)]
    known_fields: Value,
    /// Dotted keys that were set here, not in the file of the deployment.
    overlay_keys: Vec<String>,
}

/// The configuration
///
/// For admins; secrets are masked.
#[utoipa::path(get, path = "/api/admin/server-config", tag = "admin", responses(
    (status = 200, description = "What is set", body = SettingsAnswer),
    ForAdmins,
    (status = 409, description = "What was saved is damaged", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn view(State(app): State<App>, Caller(ctx): Caller) -> Result<axum::Json<SettingsView>, Problem> {
    Ok(axum::Json(app.engine().settings().view(&ctx).await?))
}

/// A change of the configuration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsBody {
    /// Sections with their keys. `***` and `<empty>` leave a secret as it is, `null` unsets a key.
    #[schema(value_type = Object, example = json!({"instance": {"subtitle": "Data of the shop"}}))]
    sections: serde_json::Map<String, Value>,
    /// Whether a change that can lock people out is meant.
    #[serde(default)]
    confirm_danger: bool,
}

/// What came of a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettingsDone {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Whether something of it applies after a restart only.
    restart_required: bool,
    /// Sections that changed.
    sections_updated: Vec<String>,
    /// Keys that changed.
    diff_count: usize,
}

/// Change the configuration
///
/// For admins. Only what differs is written, and nothing with which the server would not start.
#[utoipa::path(post, path = "/api/admin/server-config", tag = "admin", request_body = SettingsBody, responses(
    (status = 200, description = "It is changed", body = SettingsDone),
    ForAdmins,
    (status = 409, description = "What was saved before is damaged", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn update(
    State(app): State<App>,
    Caller(ctx): Caller,
    Json(body): Json<SettingsBody>,
) -> Result<axum::Json<SettingsDone>, Problem> {
    if body.sections.is_empty() {
        return Err(Problem::invalid(&["body", "sections"], "it names no section", "value_error"));
    }
    let sections = Value::Object(body.sections);
    let done = app.engine().settings().update(&ctx, &sections, body.confirm_danger).await?;
    Ok(axum::Json(SettingsDone {
        status: "ok",
        restart_required: done.restart_required,
        sections_updated: done.sections_updated,
        diff_count: done.diff_count,
    }))
}

/// The first steps of an installation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigureBody {
    /// `local`, or the kind of a source that this server reads.
    #[schema(example = "local")]
    data_source: String,
    /// Token of the Storage API.
    keboola_token: Option<String>,
    /// Address of the stack.
    keboola_url: Option<String>,
    /// Project of the data.
    bigquery_project: Option<String>,
    /// Region.
    bigquery_location: Option<String>,
    /// Name of the installation.
    #[schema(example = "Acme")]
    instance_name: Option<String>,
    /// Domains that may sign in, by commas.
    allowed_domain: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigureDone {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The primary source.
    data_source: String,
    /// `verified` where it answered, `local` where there is none to ask.
    #[schema(example = "local")]
    connection: &'static str,
    /// What it answered.
    detail: Option<String>,
}

/// Set the primary source
///
/// For admins. A source is asked first whether it answers; nothing is written where it does not.
#[utoipa::path(post, path = "/api/admin/configure", tag = "admin", request_body = ConfigureBody, responses(
    (status = 200, description = "It is set", body = ConfigureDone),
    ForAdmins,
    (status = 409, description = "What was saved before is damaged", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn configure(
    State(app): State<App>,
    Caller(ctx): Caller,
    Json(body): Json<ConfigureBody>,
) -> Result<axum::Json<ConfigureDone>, Problem> {
    let wanted = Configure {
        data_source: body.data_source,
        keboola_token: body.keboola_token.map(Secret::new),
        keboola_url: body.keboola_url,
        bigquery_project: body.bigquery_project,
        bigquery_location: body.bigquery_location,
        instance_name: body.instance_name,
        allowed_domain: body.allowed_domain,
    };
    let done = app.engine().settings().configure(&ctx, &wanted).await?;
    let connection = if done.detail.is_some() { "verified" } else { "local" };
    Ok(axum::Json(ConfigureDone { status: "ok", data_source: done.data_source, connection, detail: done.detail }))
}

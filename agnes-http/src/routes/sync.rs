//! Bringing tables up to date, and what a person wants of them on their laptop.

use std::collections::BTreeMap;

use agnes_core::sync::{SyncPreferences, SyncRequest, SyncRun, TableMode};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::{self, Path};
use crate::openapi::{ForAdmins, ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::{App, time};

/// Whether a sync runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SyncStatus {
    /// True while a sync runs, and for 30 seconds after one was triggered.
    locked: bool,
}

/// Whether a sync runs
#[utoipa::path(get, path = "/api/sync/status", tag = "sync", responses((status = 200, description = "Whether one does", body = SyncStatus)))]
pub(crate) async fn status(State(app): State<App>) -> Json<SyncStatus> {
    Json(SyncStatus { locked: app.engine().sync().is_busy() })
}

/// A sync that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Triggered {
    /// Always `triggered`.
    status: &'static str,
    /// The tables that were asked for, or `all`.
    tables: Asked,
    /// The sources that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    sources: Vec<String>,
    /// For people.
    message: String,
    /// Under which `/api/sync/runs/{id}` tells of it.
    run_id: String,
}

/// What was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Asked {
    /// `all`.
    All(&'static str),
    /// These.
    Tables(Vec<String>),
}

/// What to bring up to date.
#[derive(Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TriggerRequest {
    /// Ids or names; null or missing: all, unless sources are named.
    tables: Option<Vec<String>>,
    /// All tables of these sources.
    sources: Option<Vec<String>>,
    /// Read everything anew, whatever changed.
    #[serde(default)]
    full: bool,
}

/// What a body asks for: nothing, `null`, an array of tables, or an object.
fn request_of(body: &[u8]) -> Result<TriggerRequest, Problem> {
    let wrong = |message: &str| Problem::invalid(&["body", "tables"], message, "value_error");
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(TriggerRequest::default());
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| wrong("the body is not JSON"))?;
    let request = match body {
        Value::Null => TriggerRequest::default(),
        Value::Array(_) => {
            let tables = serde_json::from_value(body).map_err(|_| wrong("ids have to be texts"))?;
            TriggerRequest { tables: Some(tables), ..TriggerRequest::default() }
        }
        Value::Object(_) => serde_json::from_value(body).map_err(|e| wrong(&e.to_string()))?,
        _ => return Err(wrong("an array of ids, or an object with `tables`, is expected")),
    };
    if request.tables.as_ref().is_some_and(Vec::is_empty) {
        return Err(wrong("no table is named; leave it out to sync all"));
    }
    if request.sources.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::invalid(
            &["body", "sources"],
            "no source is named; leave it out to sync all",
            "value_error",
        ));
    }
    Ok(request)
}

/// Bring tables up to date
///
/// For admins. Answers at once; the run goes on in the background.
#[utoipa::path(post, path = "/api/sync/trigger", tag = "sync",
    request_body(content = Option<TriggerRequest>, description = "Nothing, an array of ids, or an object"), responses(
    (status = 200, description = "It runs", body = Triggered),
    ForAdmins,
    (status = 404, description = "There is no such table or source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "A sync of it runs", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "The body is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn trigger(
    State(app): State<App>,
    Caller(ctx): Caller,
    body: Bytes,
) -> Result<Json<Triggered>, Problem> {
    let TriggerRequest { tables, sources, full } = request_of(&body)?;
    let tables = match (tables, &sources) {
        (None, Some(_)) => Some(Vec::new()),
        (tables, _) => tables,
    };
    let sources = sources.unwrap_or_default();
    let request = SyncRequest { tables: tables.clone().unwrap_or_default(), sources: sources.clone(), full };
    let run = app.engine().sync().trigger(&ctx, request).await.map_err(|error| match error.code() {
        // The text that clients of the contract compare.
        code @ "sync_already_in_progress" => {
            Problem::new(StatusCode::CONFLICT, code, code).hint("wait until it has ended: `/api/sync/status`")
        }
        _ => error.into(),
    })?;
    let message = match &tables {
        Some(tables) => format!("sync of {} started", [tables.as_slice(), &sources].concat().join(", ")),
        None => "sync of all tables started".to_owned(),
    };
    let tables = tables.map_or(Asked::All("all"), Asked::Tables);
    Ok(Json(Triggered { status: "triggered", tables, sources, message, run_id: run.id }))
}

/// How many runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunParams {
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default = "twenty")]
    limit: usize,
}

fn twenty() -> usize {
    20
}

/// The sync runs
///
/// For admins, newest first.
#[utoipa::path(get, path = "/api/sync/runs", tag = "sync", params(RunParams), responses(
    (status = 200, description = "The runs", body = Vec<SyncRun>),
    ForAdmins,
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn runs(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Query(params): extract::Query<RunParams>,
) -> Result<Json<Vec<SyncRun>>, Problem> {
    extract::within("limit", params.limit, 1000)?;
    Ok(Json(app.engine().sync().runs(&ctx, params.limit).await?))
}

/// Whether a run is being stopped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cancelled {
    /// False where it had ended.
    cancelled: bool,
}

/// Stop a sync run
///
/// For admins. What it published already stays.
#[utoipa::path(post, path = "/api/sync/runs/{run_id}/cancel", tag = "sync",
    params(("run_id" = String, Path, description = "As the trigger answered")), responses(
    (status = 200, description = "It is being stopped, or had ended", body = Cancelled),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<Cancelled>, Problem> {
    Ok(Json(Cancelled { cancelled: app.engine().sync().cancel(&ctx, &id).await? }))
}

/// One sync run
///
/// For admins: its state, how far it is, and what happened to each table.
#[utoipa::path(get, path = "/api/sync/runs/{run_id}", tag = "sync",
    params(("run_id" = String, Path, description = "As the trigger answered")), responses(
    (status = 200, description = "The run", body = SyncRun),
    ForAdmins,
    (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn run(
    State(app): State<App>,
    Caller(ctx): Caller,
    Path(id): Path<String>,
) -> Result<Json<SyncRun>, Problem> {
    Ok(Json(app.engine().sync().get(&ctx, &id).await?))
}

/// One table that a person switched on or off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Setting {
    /// Id or name of the table.
    dataset: String,
    /// Whether they want it.
    enabled: bool,
    /// What holds for tables they said nothing about: `all` or `explicit`.
    table_mode: TableMode,
    /// Always `null`: every table has a row of its own.
    #[schema(value_type = Option<Object>)]
    tables: Option<Value>,
    /// When they said so, ISO 8601.
    updated_at: Option<String>,
}

fn settings_of(preferences: &SyncPreferences) -> Vec<Setting> {
    let setting = |one: &agnes_core::sync::SyncPreference| Setting {
        dataset: one.dataset.clone(),
        enabled: one.enabled,
        table_mode: preferences.table_mode,
        tables: None,
        updated_at: one.updated_at.map(time),
    };
    preferences.settings.iter().map(setting).collect()
}

/// What a person wants to pull.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settings {
    /// Whose.
    user_id: String,
    /// By name.
    settings: Vec<Setting>,
    /// Those that are switched on.
    enabled_datasets: Vec<String>,
}

/// What the caller wants to pull
#[utoipa::path(get, path = "/api/sync/settings", tag = "sync", responses(
    (status = 200, description = "Their settings", body = Settings),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn settings(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Settings>, Problem> {
    let preferences = app.engine().catalog().preferences(&ctx).await?;
    let enabled = preferences.settings.iter().filter(|one| one.enabled).map(|one| one.dataset.clone());
    Ok(Json(Settings {
        user_id: ctx.principal().user_id().to_owned(),
        enabled_datasets: enabled.collect(),
        settings: settings_of(&preferences),
    }))
}

/// Tables to switch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsRequest {
    /// Id or name, to whether it is wanted.
    datasets: BTreeMap<String, bool>,
}

/// What became of one table.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Switched {
    /// It is kept.
    Kept {
        /// Whether it is wanted.
        enabled: bool,
    },
    /// It is not.
    Refused {
        /// Always `no permission`.
        error: &'static str,
    },
}

/// What became of each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Updated {
    /// By id or name.
    updated: BTreeMap<String, Switched>,
}

fn updated(wanted: &BTreeMap<String, bool>, kept: &BTreeMap<String, bool>) -> BTreeMap<String, Switched> {
    let told = |(name, enabled): (&String, &bool)| {
        let kept = kept.get(name).copied().unwrap_or_default();
        let told =
            if kept { Switched::Kept { enabled: *enabled } } else { Switched::Refused { error: "no permission" } };
        (name.clone(), told)
    };
    wanted.iter().map(told).collect()
}

/// Say what to pull
#[utoipa::path(post, path = "/api/sync/settings", tag = "sync", request_body = SettingsRequest, responses(
    (status = 200, description = "What became of each", body = Updated),
    ForUsers,
    WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_settings(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<SettingsRequest>,
) -> Result<Json<Updated>, Problem> {
    let kept = app.engine().catalog().set_preferences(&ctx, &request.datasets, None).await?;
    Ok(Json(Updated { updated: updated(&request.datasets, &kept) }))
}

/// What the caller wants to pull, as `/api/sync/settings`
#[utoipa::path(get, path = "/api/sync-settings", tag = "sync", responses(
    (status = 200, description = "Their settings", body = Settings), ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn settings_again(app: State<App>, caller: Caller) -> Result<Json<Settings>, Problem> {
    settings(app, caller).await
}

/// Say what to pull, as `/api/sync/settings`
#[utoipa::path(post, path = "/api/sync-settings", tag = "sync", request_body = SettingsRequest, responses(
    (status = 200, description = "What became of each", body = Updated), ForUsers, WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_settings_again(
    app: State<App>,
    caller: Caller,
    request: extract::Json<SettingsRequest>,
) -> Result<Json<Updated>, Problem> {
    set_settings(app, caller, request).await
}

/// What a person subscribed to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Subscriptions {
    /// Whose.
    user_id: String,
    /// `all`: every table but those switched off; `explicit`: only those switched on.
    table_mode: TableMode,
    /// By name.
    subscriptions: Vec<Setting>,
}

/// What the caller subscribed to
#[utoipa::path(get, path = "/api/sync/table-subscriptions", tag = "sync", responses(
    (status = 200, description = "Their subscriptions", body = Subscriptions),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn subscriptions(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Subscriptions>, Problem> {
    let preferences = app.engine().catalog().preferences(&ctx).await?;
    Ok(Json(Subscriptions {
        user_id: ctx.principal().user_id().to_owned(),
        table_mode: preferences.table_mode,
        subscriptions: settings_of(&preferences),
    }))
}

/// Subscriptions to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriptionsRequest {
    /// `all` or `explicit`.
    #[serde(default)]
    table_mode: TableMode,
    /// Id or name, to whether it is wanted; at most 500.
    #[serde(default)]
    tables: BTreeMap<String, bool>,
}

/// What became of each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Subscribed {
    /// As asked for.
    table_mode: TableMode,
    /// By id or name.
    updated: BTreeMap<String, Switched>,
}

/// Subscribe to tables
#[utoipa::path(post, path = "/api/sync/table-subscriptions", tag = "sync", request_body = SubscriptionsRequest, responses(
    (status = 200, description = "What became of each", body = Subscribed),
    ForUsers,
    WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn subscribe(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<SubscriptionsRequest>,
) -> Result<Json<Subscribed>, Problem> {
    let mode = request.table_mode;
    let kept = app.engine().catalog().set_preferences(&ctx, &request.tables, Some(mode)).await?;
    Ok(Json(Subscribed { table_mode: mode, updated: updated(&request.tables, &kept) }))
}

/// What a person set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnSettings {
    /// Whose.
    user_id: String,
    /// By name.
    sync_settings: Vec<Setting>,
}

/// The caller's settings
#[utoipa::path(get, path = "/api/settings", tag = "sync", responses(
    (status = 200, description = "Their settings", body = OwnSettings),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn own_settings(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<OwnSettings>, Problem> {
    let preferences = app.engine().catalog().preferences(&ctx).await?;
    let user_id = ctx.principal().user_id().to_owned();
    Ok(Json(OwnSettings { user_id, sync_settings: settings_of(&preferences) }))
}

/// One table, switched on or off.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dataset {
    /// Id or name.
    dataset: String,
    /// Whether it is wanted.
    enabled: bool,
}

/// Switch one table on or off
#[utoipa::path(put, path = "/api/settings/dataset", tag = "sync", request_body = Dataset, responses(
    (status = 200, description = "It is kept", body = Dataset),
    ForUsers,
    WithBody,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn set_dataset(
    State(app): State<App>,
    Caller(ctx): Caller,
    extract::Json(request): extract::Json<Dataset>,
) -> Result<Json<Dataset>, Problem> {
    let wanted = BTreeMap::from([(request.dataset.clone(), request.enabled)]);
    let kept = app.engine().catalog().set_preferences(&ctx, &wanted, None).await?;
    if kept.values().all(|kept| *kept) {
        return Ok(Json(request));
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "access_denied", "there is no table of this name that you may read"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_takes_every_body_of_the_contract() {
        for all in ["", " ", "null", "{}", r#"{"tables": null}"#] {
            assert_eq!(request_of(all.as_bytes()).unwrap(), TriggerRequest::default(), "{all}");
        }
        for some in [r#"["a"]"#, r#"{"tables": ["a"]}"#] {
            assert_eq!(request_of(some.as_bytes()).unwrap().tables, Some(vec!["a".to_owned()]), "{some}");
        }
        let more = request_of(br#"{"sources": ["s"], "full": true}"#).unwrap();
        assert_eq!(more, TriggerRequest { tables: None, sources: Some(vec!["s".to_owned()]), full: true });
        for wrong in ["[]", "1", "\"a\"", "[1]", r#"{"tables": "a"}"#, r#"{"tables": []}"#, r#"{"table": ["a"]}"#, "{"]
            .into_iter()
            .chain([r#"{"sources": []}"#, r#"{"full": 1}"#])
        {
            assert_eq!(request_of(wrong.as_bytes()).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

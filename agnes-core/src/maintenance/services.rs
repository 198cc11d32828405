//! How the parts of an installation are, for whoever watches it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{CheckStatus, Maintenance};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::identity::SCHEDULER_EMAIL;
use crate::registry::QueryMode;
use crate::schedule::Schedule;
use crate::store::STATE_SCHEMA_VERSION;

/// A table is stale when its last good sync is older than this, or than twice its own interval.
const STALE: TimeDelta = TimeDelta::hours(24);
/// A scheduler that did nothing for this long although it should have is to be looked at.
const SILENT: TimeDelta = TimeDelta::minutes(30);

/// How an installation is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceReport {
    /// `healthy`, `degraded` or `unhealthy`: the worst of its parts.
    pub status: &'static str,
    /// Its parts by name, each with `status` (`ok`, `info`, `unknown`, `warning` or `error`); for admins
    /// and the service alone.
    pub services: Option<Value>,
}

impl Maintenance<'_> {
    /// How the parts of the installation are. Everybody may know how it is as a whole.
    /// `queries` says whether a query over the published catalog was answered lately.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`. A part that does not answer is a finding, not an error.
    pub async fn services(&self, ctx: &CallContext, with_schema: bool, queries: bool) -> Result<ServiceReport> {
        let access = self.engine.access().await?;
        access.require_active(ctx.principal())?;
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        let now = self.engine.clock().now();
        let schema = self.engine.store().schema().await;
        let mut services = Map::new();
        let state = if schema.as_ref().is_ok_and(|schema| schema.writable) { "ok" } else { "error" };
        services.insert("duckdb_state".to_owned(), json!({ "status": state }));
        services.insert("queries".to_owned(), json!({ "status": if queries { "ok" } else { "error" } }));
        services.insert("data".to_owned(), data(self.engine, now).await.unwrap_or_else(silent));
        let people = access.active_users.values().filter(|email| email.as_str() != SCHEDULER_EMAIL).count();
        services.insert("users".to_owned(), json!({"status": "ok", "count": people}));
        let lost = self.engine.audit().failures();
        services.insert("audit".to_owned(), json!({"status": if lost == 0 { "ok" } else { "error" }, "lost": lost}));
        services.insert("scheduler".to_owned(), scheduler(self.engine, now).await.unwrap_or_else(silent));
        services.insert("mail".to_owned(), mail(self.engine));
        let disk = if self.disk_check().await.status == CheckStatus::Ok { "ok" } else { "warning" };
        services.insert("disk".to_owned(), json!({ "status": disk }));
        if with_schema {
            let current = schema.as_ref().ok().map(|schema| schema.version);
            let status = if current == Some(STATE_SCHEMA_VERSION) { "ok" } else { "error" };
            services.insert(
                "db_schema".to_owned(),
                json!({"status": status, "current": current, "expected": STATE_SCHEMA_VERSION}),
            );
        }
        let has = |wanted: &str| services.values().any(|service| service["status"] == wanted);
        let status = match (has("error"), has("warning")) {
            (true, _) => "unhealthy",
            (false, true) => "degraded",
            (false, false) => "healthy",
        };
        Ok(ServiceReport { status, services: access.is_admin(ctx.principal()).then_some(Value::Object(services)) })
    }
}

/// A part that could not be asked.
fn silent(error: crate::Error) -> Value {
    tracing::error!(code = error.code(), "a part of the installation does not answer: {error}");
    json!({"status": "error", "code": error.code()})
}

/// Mails: a failure counts until one is handed over again.
fn mail(engine: &Engine) -> Value {
    let mails = engine.mails().status();
    let status = match (mails.transport, &mails.last_error) {
        (None, _) => "info",
        (Some(_), Some(_)) => "warning",
        (Some(_), None) => "ok",
    };
    json!({
        "status": status,
        "transport": mails.transport,
        "sent": mails.sent,
        "failed": mails.failed,
        "last_error": mails.last_error,
        "last_failed_at": mails.last_failed_at,
    })
}

async fn data(engine: &Engine, now: DateTime<Utc>) -> Result<Value> {
    let (index, sources) = (engine.table_index().await?, engine.store().sources().list().await?);
    let states = engine.store().sync().all().await?;
    let mut stale = Vec::new();
    for row in index.iter().filter(|row| matches!(row.query_mode, QueryMode::Local | QueryMode::Materialized)) {
        let state = states.iter().find(|state| state.table_id.eq_ignore_ascii_case(&row.name));
        let Some(last) = state.and_then(|state| state.last_sync) else { continue };
        let source = sources.iter().find(|source| row.source.as_deref() == Some(source.name.as_str()));
        let schedule = row.schedule(source, &engine.config().sync);
        let own = schedule.and_then(Schedule::parse).and_then(|schedule| schedule.interval(now));
        if now - last > own.map_or(STALE, |own| STALE.max(own * 2)) {
            stale.push(row.name.clone());
        }
    }
    stale.sort();
    let generation = engine.generation();
    let local = generation.tables().filter(|table| table.remote.is_none());
    Ok(json!({
        "status": if stale.is_empty() { "ok" } else { "warning" },
        "tables": generation.tables().count(),
        "total_rows": local.map(|table| table.rows).sum::<u64>(),
        "stale_tables": stale,
    }))
}

async fn scheduler(engine: &Engine, now: DateTime<Utc>) -> Result<Value> {
    let tick = engine.last_scheduler_tick().await?;
    let status = match tick {
        None => "unknown",
        Some(tick) if now - tick.awaited_since > SILENT => "warning",
        Some(_) => "ok",
    };
    Ok(json!({"status": status, "last_tick": tick.map(|tick| tick.last)}))
}

//! How an installation is doing, in a few words: for those who look at it every day.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Timelike as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CheckStatus, Maintenance};
use crate::audit::AuditFilter;
use crate::context::CallContext;
use crate::error::Result;
use crate::sync::SyncStatus;

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(30);
/// How long the scheduler is silent although it should not be until somebody should look ...
const LATE: TimeDelta = TimeDelta::minutes(30);
/// ... and until it is taken for dead.
const DEAD: TimeDelta = TimeDelta::hours(2);
/// Syncs of a day that are counted.
const COUNTED: usize = 100_000;

/// How good a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// As it should be.
    Green,
    /// Somebody should look.
    Yellow,
    /// Does not work.
    Red,
}

impl Color {
    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PulseField {
    /// Its name.
    pub key: String,
    /// In words.
    pub value: String,
    /// For programs.
    pub raw: Value,
    /// How good it is.
    pub color: Color,
}

/// How an installation is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pulse {
    /// The worst of the fields.
    pub status: Color,
    /// In a sentence.
    pub sentence: String,
    /// What was looked at.
    pub fields: Vec<PulseField>,
}

/// The last pulse, and when it was taken.
#[derive(Debug, Default)]
pub(crate) struct LastPulse(tokio::sync::Mutex<Option<(Instant, Arc<Pulse>)>>);

fn field(key: &str, value: String, raw: Value, color: Color) -> PulseField {
    PulseField { key: key.to_owned(), value, raw, color }
}

impl Maintenance<'_> {
    /// How the installation is doing; the same answer for 30 seconds.
    ///
    /// # Errors
    /// `admin_required`; I/O errors of the state.
    pub async fn pulse(&self, ctx: &CallContext) -> Result<Arc<Pulse>> {
        self.admin(ctx).await?;
        let mut last = self.engine.last_pulse().0.lock().await;
        if let Some((_, pulse)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(pulse.clone());
        }
        let fields = vec![
            self.scheduler_field().await?,
            self.sync_field().await?,
            self.users_field().await?,
            field("memory_pipeline", "not part of this installation".to_owned(), Value::Null, Color::Green),
            self.warnings_field(ctx).await?,
        ];
        let status = fields.iter().map(|field| field.color).max().unwrap_or(Color::Green);
        let odd: Vec<String> = fields
            .iter()
            .filter(|field| field.color != Color::Green)
            .map(|field| format!("{} ({})", field.key, field.value))
            .collect();
        let sentence = match odd.as_slice() {
            [] => "everything is as it should be".to_owned(),
            odd => format!("look at {}", odd.join(", ")),
        };
        let pulse = Arc::new(Pulse { status, sentence, fields });
        *last = Some((Instant::now(), pulse.clone()));
        Ok(pulse)
    }

    /// The last time that anything came through the scheduler.
    async fn scheduler_field(&self) -> Result<PulseField> {
        let Some(tick) = self.engine.last_scheduler_tick().await? else {
            return Ok(field("scheduler", "has not been seen".to_owned(), Value::Null, Color::Yellow));
        };
        let now = self.engine.clock().now();
        let age = now - tick.last;
        let color = match now - tick.awaited_since {
            silence if silence > DEAD => Color::Red,
            silence if silence > LATE => Color::Yellow,
            _ => Color::Green,
        };
        let minutes = age.num_minutes().max(0);
        Ok(field("scheduler", format!("last seen {minutes} min ago"), json!(age.num_seconds().max(0)), color))
    }

    async fn sync_field(&self) -> Result<PulseField> {
        let since = self.engine.clock().now() - TimeDelta::hours(24);
        let runs = self.engine.store().sync().recent(since, COUNTED, None).await?;
        let failed = runs.iter().filter(|run| run.status == SyncStatus::Error).count();
        let ok = runs.len() - failed;
        let color = match (ok, failed) {
            (_, 0) => Color::Green,
            (0, _) => Color::Red,
            _ => Color::Yellow,
        };
        Ok(field("sync_24h", format!("{ok} ok, {failed} failed"), json!({"ok": ok, "failed": failed}), color))
    }

    async fn users_field(&self) -> Result<PulseField> {
        let now = self.engine.clock().now();
        let midnight = now - TimeDelta::seconds(i64::from(now.num_seconds_from_midnight()));
        let filter = AuditFilter { since: Some(midnight), ..AuditFilter::default() };
        let users = self.engine.store().audit().figures(&filter).await?.active_users;
        Ok(field("active_users_today", users.to_string(), json!(users), Color::Green))
    }

    async fn warnings_field(&self, ctx: &CallContext) -> Result<PulseField> {
        let report = self.doctor(ctx).await?;
        let odd: Vec<&str> = report
            .checks
            .iter()
            .filter(|check| check.status != CheckStatus::Ok)
            .map(|check| check.name.as_str())
            .collect();
        let color = match report.checks.iter().map(|check| check.status).max() {
            Some(CheckStatus::Error) => Color::Red,
            Some(CheckStatus::Warning) => Color::Yellow,
            _ => Color::Green,
        };
        let value = if odd.is_empty() { "none".to_owned() } else { odd.join(", ") };
        Ok(field("diagnose_warnings", value, json!(odd.len()), color))
    }
}

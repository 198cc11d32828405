//! The warm-up of what is kept of tables that stay in warehouses: all of them are asked about when a
//! server starts and when an admin says so, and who looks on sees how far it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::Native;
use super::metadata::{number, stays};
use super::paths::registered;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::registry::RegisteredTable;

/// How many tables are asked about at a time, unless `AGNES_WARMUP_CONCURRENCY` says.
const AT_ONCE: u64 = 4;
const AT_ONCE_ENV: &str = "AGNES_WARMUP_CONCURRENCY";
/// Has a server start without.
const SKIP_ENV: &str = "AGNES_SKIP_CACHE_WARMUP";
/// Events that wait for one who looks on; whoever is further behind begins anew.
const QUEUE: usize = 256;
/// How long nothing may happen before whoever looks on is let go.
const SILENCE: Duration = Duration::from_secs(30);

/// A table of a warm-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WarmUpRow {
    /// Id of the table.
    pub table_id: String,
    /// `pending`, `warming`, `fresh` or `error`.
    pub status: String,
    /// When it was asked about, ISO 8601.
    pub started_at: Option<String>,
    /// When the answer was there.
    pub completed_at: Option<String>,
    /// How long that took.
    pub duration_ms: Option<u64>,
    /// Why its warehouse did not tell.
    pub error: Option<String>,
    /// When its warehouse last told of it.
    pub last_warmed_at: Option<String>,
}

/// How far a warm-up is, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WarmUp {
    /// Names this run.
    pub run_id: String,
    /// `startup` or `manual`.
    pub trigger: String,
    /// When it began, ISO 8601.
    pub started_at: String,
    /// When it ended; null while it goes on.
    pub completed_at: Option<String>,
    /// Tables that stay in a warehouse.
    pub total: usize,
    /// Those that were told of.
    pub completed: usize,
    /// Those that were not.
    pub failed: usize,
    /// Each by its id.
    pub rows: BTreeMap<String, WarmUpRow>,
}

/// What asking for a warm-up did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WarmUpBegun {
    /// Names the run that goes on now.
    pub run_id: String,
    /// `started` or `already_running`.
    pub status: String,
}

/// Something that happened in a warm-up: its name, and what it says.
pub type WarmUpEvent = (&'static str, Value);

/// The last warm-up of this process, and who looks on.
#[derive(Debug, Clone)]
pub(crate) struct WarmUps(Arc<Mutex<Last>>);

#[derive(Debug)]
struct Last {
    run: Option<WarmUp>,
    news: broadcast::Sender<WarmUpEvent>,
}

impl Default for WarmUps {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Last { run: None, news: broadcast::Sender::new(QUEUE) })))
    }
}

impl WarmUps {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    fn snapshot(&self) -> WarmUpEvent {
        match &self.run {
            None => ("idle", json!({"state": "never_run"})),
            Some(run) => ("snapshot", json!(run)),
        }
    }

    /// Changes the row of a table, and tells of it.
    fn row(&mut self, id: &str, change: impl FnOnce(&mut WarmUpRow)) {
        let Some(row) = self.run.as_mut().and_then(|run| run.rows.get_mut(id)) else { return };
        change(row);
        // Nobody may be looking on.
        let _ = self.news.send(("row", json!(row)));
    }

    /// Ends the run, and tells of it.
    fn end(&mut self, now: String) {
        let Some(run) = &mut self.run else { return };
        run.completed_at = Some(now);
        let _ = self.news.send(("complete", head(run)));
    }
}

/// A run without its tables.
fn head(run: &WarmUp) -> Value {
    let mut head = json!(run);
    if let Some(fields) = head.as_object_mut() {
        fields.remove("rows");
    }
    head
}

/// What happens in a warm-up, for one who looks on.
#[derive(Debug)]
pub struct WarmUpEvents {
    runs: WarmUps,
    news: broadcast::Receiver<WarmUpEvent>,
    /// What is told before what comes next.
    first: Vec<WarmUpEvent>,
    ended: bool,
}

impl WarmUpEvents {
    fn of(runs: &WarmUps) -> Self {
        let last = runs.last();
        let mut first = Vec::new();
        // One that is over is told as a whole.
        first.extend(last.run.as_ref().filter(|run| run.completed_at.is_some()).map(|run| ("complete", head(run))));
        first.push(last.snapshot());
        Self { runs: runs.clone(), news: last.news.subscribe(), first, ended: false }
    }

    /// The next event; none after the end of a run, and when nothing happens for half a minute.
    pub async fn next(&mut self) -> Option<WarmUpEvent> {
        if self.ended {
            return None;
        }
        let next = match self.first.pop() {
            Some(first) => Some(first),
            None => match tokio::time::timeout(SILENCE, self.news.recv()).await {
                Ok(Ok(news)) => Some(news),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                    *self = Self::of(&self.runs);
                    self.first.pop()
                }
                _ => None,
            },
        };
        self.ended = next.as_ref().is_none_or(|(name, _)| *name == "complete");
        next
    }
}

/// Ends a run when dropped, also where it panicked.
struct Ending<'e> {
    engine: &'e Engine,
    id: &'e str,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.engine.sync_runs().end(self.id);
        self.engine.warm_ups().last().end(self.engine.clock().now().to_rfc3339());
    }
}

impl Engine {
    /// How far the warm-up is that goes on, or how the last one ended; none where there was none. For
    /// admins.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn warm_up_status(&self, ctx: &CallContext) -> Result<Option<WarmUp>> {
        self.access().await?.require_admin(ctx.principal())?;
        Ok(self.warm_ups().last().run.clone())
    }

    /// What happens in the warm-up, from now on. For admins.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn warm_up_events(&self, ctx: &CallContext) -> Result<WarmUpEvents> {
        self.access().await?.require_admin(ctx.principal())?;
        Ok(WarmUpEvents::of(self.warm_ups()))
    }

    /// Has warehouses asked about every table that stays there, in the background; one run at a time. For
    /// admins.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn warm_up(&self, ctx: &CallContext) -> Result<WarmUpBegun> {
        let begun = async {
            self.access().await?.require_admin(ctx.principal())?;
            self.begin_warm_up("manual").await
        };
        let begun = begun.await;
        let params = begun.as_ref().map_or(json!({}), |begun| json!({"run_id": begun.run_id, "status": begun.status}));
        let event = self.audit().event(ctx, "warehouse.warm_up").resource("warehouse").params(params);
        event.outcome(&begun).record().await;
        begun
    }

    /// The warm-up of a server that starts, unless `AGNES_SKIP_CACHE_WARMUP` is set to something but `0`.
    ///
    /// # Errors
    /// What the state says.
    pub async fn warm_up_at_start(&self) -> Result<()> {
        let skip = self.source_secrets().get(SKIP_ENV);
        if skip.is_some_and(|skip| !["", "0", "false"].contains(&skip.expose().trim())) {
            return Ok(());
        }
        self.begin_warm_up("startup").await.map(|_| ())
    }

    /// Lets everybody go who looks on: for a server that ends.
    pub fn end_warm_up_events(&self) {
        self.warm_ups().last().news = broadcast::Sender::new(QUEUE);
    }

    async fn begin_warm_up(&self, trigger: &str) -> Result<WarmUpBegun> {
        let tables: Vec<_> = registered(self).await?.into_iter().filter(|(row, ..)| stays(row)).collect();
        let known = self.known_metadata().await?;
        let run_id = uuid::Uuid::new_v4().simple().to_string();
        {
            let mut last = self.warm_ups().last();
            if let Some(run) = last.run.as_ref().filter(|run| run.completed_at.is_none()) {
                return Ok(WarmUpBegun { run_id: run.run_id.clone(), status: "already_running".to_owned() });
            }
            let row = |id: &String| WarmUpRow {
                table_id: id.clone(),
                status: "pending".to_owned(),
                started_at: None,
                completed_at: None,
                duration_ms: None,
                error: None,
                last_warmed_at: known.get(id).and_then(|told| told.refreshed_at).map(|at| at.to_rfc3339()),
            };
            let run = WarmUp {
                run_id: run_id.clone(),
                trigger: trigger.to_owned(),
                started_at: self.clock().now().to_rfc3339(),
                completed_at: None,
                total: tables.len(),
                completed: 0,
                failed: 0,
                rows: tables.iter().map(|(table, ..)| (table.id.clone(), row(&table.id))).collect(),
            };
            let _ = last.news.send(("start", head(&run)));
            last.run = Some(run);
            if tables.is_empty() {
                last.end(self.clock().now().to_rfc3339());
            }
        }
        if !tables.is_empty() {
            let engine = self.clone();
            self.sync_runs().spawn(async move { engine.warm(tables).await });
        }
        Ok(WarmUpBegun { run_id, status: "started".to_owned() })
    }

    async fn warm(&self, tables: Vec<(Arc<RegisteredTable>, Native, String)>) {
        let id = format!("warm-up:{}", uuid::Uuid::new_v4().simple());
        // Nobody who ends the engine waits for a warehouse.
        let cancel = self.sync_runs().begin(&id);
        let _ends = Ending { engine: self, id: &id };
        let at_once = usize::try_from(number(self, AT_ONCE_ENV, AT_ONCE)).unwrap_or(1);
        let each = stream::iter(tables).map(|(row, mut native, _)| {
            native.source.cancel = cancel.clone();
            async move { self.warm_one(&row, &native).await }
        });
        each.buffer_unordered(at_once).collect::<()>().await;
    }

    async fn warm_one(&self, row: &RegisteredTable, native: &Native) {
        let (begun, now) = (Instant::now(), self.clock().now().to_rfc3339());
        self.warm_ups().last().row(&row.id, |row| {
            row.status = "warming".to_owned();
            row.started_at = Some(now);
        });
        let told = self.ask_about(row, native).await;
        let now = self.clock().now().to_rfc3339();
        let mut last = self.warm_ups().last();
        if let Some(run) = &mut last.run {
            *(if told.error.is_none() { &mut run.completed } else { &mut run.failed }) += 1;
        }
        last.row(&row.id, |row| {
            row.status = if told.error.is_none() { "fresh" } else { "error" }.to_owned();
            row.duration_ms = Some(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            row.completed_at = Some(now.clone());
            if told.error.is_none() {
                row.last_warmed_at = Some(now);
            }
            row.error = told.error;
        });
    }
}

//! What warehouses know of the tables that stay there, asked now and then and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Native;
use super::paths::registered;
use crate::catalog::CatalogError;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::ident::printable;
use crate::registry::{QueryMode, RegisteredTable};
use crate::warehouse::{TableMetadata, WarehouseError};

/// How many tables are asked about at a time, unless `AGNES_BQ_METADATA_REFRESH_CONCURRENCY` says.
const AT_ONCE: usize = 4;
const AT_ONCE_ENV: &str = "AGNES_BQ_METADATA_REFRESH_CONCURRENCY";
/// Seconds between two times, unless the scheduler was told otherwise.
const INTERVAL: u64 = 14_400;
const INTERVAL_ENV: &str = "SCHEDULER_BQ_METADATA_REFRESH_INTERVAL";
/// Characters of a failure that are kept.
const WORDS: usize = 512;

/// The one run there may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetadataRuns(Arc<Mutex<Option<(String, String)>>>);

/// Ends the run when dropped.
struct Turn(MetadataRuns);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What came of asking about all tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetadataRefresh {
    /// Names this run.
    pub run_id: String,
    /// When it began, ISO 8601.
    pub started_at: String,
    /// Tables that stay in a warehouse.
    pub total: usize,
    /// Those that were told of.
    pub succeeded: usize,
    /// Those of which the warehouse knows nothing.
    pub no_data: usize,
    /// Those that could not be asked about.
    pub failed: usize,
    /// How long it took.
    pub duration_ms: u64,
}

/// What came of asking about one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"table_id": "web", "status": "ok"})))]
pub struct TableRefresh {
    /// Id of the table.
    pub table_id: String,
    /// `ok`, `no_data` or `error`.
    pub status: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is kept of one table, and how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// What was told.
    #[serde(flatten)]
    pub told: TableMetadata,
    /// `never_fetched`, `fresh`, `stale` or `error`.
    pub freshness: String,
}

/// What is kept of the tables that a caller may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataStatus {
    /// Seconds between two times of asking.
    pub scheduler_interval_seconds: u64,
    /// Seconds for which what was told counts as fresh.
    pub fresh_threshold_seconds: u64,
    /// When this was made.
    pub server_time: DateTime<Utc>,
    /// By id.
    pub tables: Vec<KnownTable>,
}

/// The number in a variable; more than 0.
pub(super) fn number(engine: &Engine, variable: &str, unless: u64) -> u64 {
    let given = engine.source_secrets().get(variable).and_then(|value| value.expose().trim().parse().ok());
    given.filter(|number| *number > 0).unwrap_or(unless)
}

impl Engine {
    /// Asks warehouses about every table that stays there. For admins, and for the scheduler.
    ///
    /// # Errors
    /// `admin_required`, `metadata_refresh_running`.
    pub async fn refresh_warehouse_tables(&self, ctx: &CallContext) -> Result<MetadataRefresh> {
        let done = self.refresh_all(ctx).await;
        let mut event = self.audit().event(ctx, "warehouse.metadata_refresh").resource("warehouse").outcome(&done);
        if let Ok(run) = &done {
            event = event.params(json!({"total": run.total, "failed": run.failed}));
        }
        event.record().await;
        done
    }

    async fn refresh_all(&self, ctx: &CallContext) -> Result<MetadataRefresh> {
        self.access().await?.require_admin(ctx.principal())?;
        let (begun, run_id) = (Instant::now(), uuid::Uuid::new_v4().simple().to_string());
        let started_at = self.clock().now().to_rfc3339();
        let _turn = {
            let mut running = self.metadata_runs().0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((run_id, started_at)) = running.clone() {
                return Err(WarehouseError::Refreshing { run_id, started_at }.into());
            }
            *running = Some((run_id.clone(), started_at.clone()));
            Turn(self.metadata_runs().clone())
        };
        let tables: Vec<_> = registered(self).await?.into_iter().filter(|(row, ..)| stays(row)).collect();
        let at_once = usize::try_from(number(self, AT_ONCE_ENV, AT_ONCE as u64)).unwrap_or(AT_ONCE);
        let total = tables.len();
        let asked = stream::iter(tables).map(|(row, native, _)| async move { self.ask_about(&row, &native).await });
        let outcomes: Vec<TableRefresh> = asked.buffer_unordered(at_once).collect().await;
        let count = |status: &str| outcomes.iter().filter(|one| one.status == status).count();
        Ok(MetadataRefresh {
            run_id,
            started_at,
            total,
            succeeded: count("ok"),
            no_data: count("no_data"),
            failed: count("error"),
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Asks its warehouse about one table, by id or name. For admins.
    ///
    /// # Errors
    /// `admin_required`, `table_not_found`, `not_in_a_warehouse`. What the warehouse refuses is part
    /// of the answer.
    pub async fn refresh_warehouse_table(&self, ctx: &CallContext, table: &str) -> Result<TableRefresh> {
        let asked = async {
            self.access().await?.require_admin(ctx.principal())?;
            let row = self.table_index().await?.find(table).cloned();
            let missing = || CatalogError::NotFound { table: printable(table, 80), suggestion: None };
            let row = row.ok_or_else(missing)?;
            let all = registered(self).await?;
            let found = all.into_iter().find(|(other, ..)| other.id == row.id && stays(other));
            let (row, native, _) = found.ok_or_else(|| WarehouseError::NotThere { table: row.id.clone() })?;
            Ok(self.ask_about(&row, &native).await)
        };
        let done = asked.await;
        let resource = format!("table:{}", printable(table, 80));
        self.audit().event(ctx, "warehouse.metadata_refresh").resource(resource).outcome(&done).record().await;
        done
    }

    pub(super) async fn ask_about(&self, row: &RegisteredTable, native: &Native) -> TableRefresh {
        let told = async { native.warehouse()?.describe(&native.source, &native.path).await };
        let (told, now, kept) = (told.await, self.clock().now(), self.store().metadata());
        let kept = match told {
            Ok(told) => {
                self.queries().facts().insert(row.name.to_ascii_lowercase(), Arc::new(told.clone()));
                let told = TableMetadata::of(&row.id, told, now);
                kept.put(&told).await.map(|()| if told.is_empty() { "no_data" } else { "ok" })
            }
            Err(error) => {
                let words = printable(&error.to_string(), WORDS);
                tracing::warn!(table = row.id, code = error.code(), "a warehouse does not describe a table: {error}");
                if let Err(error) = kept.fail(&row.id, &words, now).await {
                    tracing::warn!(code = error.code(), "what a warehouse did not tell is not noted: {error}");
                }
                Err(error)
            }
        };
        let (status, error) = match kept {
            Ok(status) => (status, None),
            Err(error) => ("error", Some(printable(&error.to_string(), WORDS))),
        };
        TableRefresh { table_id: row.id.clone(), status: status.to_owned(), error }
    }

    /// Forgets what a warehouse told of a row that stands for another table from now on.
    pub(crate) async fn forget_told(&self, row: &RegisteredTable) -> Result<()> {
        self.queries().facts().invalidate(&row.name.to_ascii_lowercase());
        let nothing = TableMetadata { table_id: row.id.clone(), ..TableMetadata::default() };
        self.store().metadata().put(&nothing).await
    }

    /// What is kept of the tables that stay in warehouses and that the caller may read. Why one could
    /// not be asked about is for admins: a warehouse may name what lies beside the table.
    ///
    /// # Errors
    /// `inactive_user`.
    pub async fn warehouse_tables(&self, ctx: &CallContext) -> Result<MetadataStatus> {
        let tables = self.catalog().tables(ctx).await?;
        let admin = self.access().await?.is_admin(ctx.principal());
        let mut known = self.known_metadata().await?;
        let (interval, now) = (number(self, INTERVAL_ENV, INTERVAL), self.clock().now());
        let remote = tables.into_iter().filter(|table| table.query_mode == QueryMode::Remote);
        let mut tables: Vec<KnownTable> = remote
            .filter(|table| table.sql_flavor == "bigquery")
            .map(|table| {
                let nothing = || TableMetadata { table_id: table.id.clone(), ..TableMetadata::default() };
                let mut told = known.remove(&table.id).unwrap_or_else(nothing);
                told.error_msg = told.error_msg.filter(|_| admin);
                let freshness = self.freshness(Some(&told)).to_owned();
                KnownTable { told, freshness }
            })
            .collect();
        tables.sort_by(|a, b| a.told.table_id.cmp(&b.told.table_id));
        Ok(MetadataStatus {
            scheduler_interval_seconds: interval,
            fresh_threshold_seconds: interval.saturating_mul(2),
            server_time: now,
            tables,
        })
    }

    /// What is kept, by id of the table.
    pub(crate) async fn known_metadata(&self) -> Result<HashMap<String, TableMetadata>> {
        let all = self.store().metadata().list().await?;
        Ok(all.into_iter().map(|table| (table.table_id.clone(), table)).collect())
    }

    /// How old what is kept of a table is: fresh for twice the time between two times of asking.
    pub(crate) fn freshness(&self, told: Option<&TableMetadata>) -> &'static str {
        let Some(told) = told else { return "never_fetched" };
        let threshold = i64::try_from(number(self, INTERVAL_ENV, INTERVAL).saturating_mul(2)).unwrap_or(i64::MAX);
        let threshold = TimeDelta::try_seconds(threshold).unwrap_or(TimeDelta::MAX);
        match (told.refreshed_at, told.error_at) {
            (Some(at), _) if self.clock().now() - at <= threshold => "fresh",
            (Some(_), _) => "stale",
            (None, Some(_)) => "error",
            (None, None) => "never_fetched",
        }
    }
}

/// Whether a table stays in its warehouse.
pub(super) fn stays(row: &RegisteredTable) -> bool {
    row.query_mode == QueryMode::Remote
}

//! What admins do with the table registry.

use serde_json::json;

use super::{QueryMode, RegisteredTable, RegistryError, SyncStrategy};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::ident::{TableName, nearest, printable};
use crate::schedule::Schedule;

/// The table registry of an engine. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Registry<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// The table registry.
    #[must_use]
    pub fn registry(&self) -> Registry<'_> {
        Registry { engine: self }
    }
}

fn invalid(field: &'static str, reason: impl Into<String>) -> RegistryError {
    RegistryError::InvalidField { field, reason: reason.into() }
}

/// The id a typed name stands for: trimmed, lower-cased, spaces to `_`; a strict identifier.
///
/// # Errors
/// `invalid_name`.
pub fn table_slug(name: &str) -> Result<TableName> {
    Ok(TableName::parse(&name.trim().to_lowercase().replace(' ', "_"))?)
}

/// Checks one row against the rules that hold whatever its source.
///
/// # Errors
/// `invalid_name`, `invalid_field`.
fn validate(table: &RegisteredTable) -> Result<()> {
    TableName::parse(&table.name)?;
    if crate::rbac::INTERNAL_TABLES.contains(&table.name.to_lowercase().as_str()) {
        return Err(invalid("name", "tables of Agnes's own state have this name").into());
    }
    if let Some(schedule) = table.sync_schedule.as_deref()
        && Schedule::parse(schedule).is_none()
    {
        return Err(invalid(
            "sync_schedule",
            format!(
                "`{}` is not a schedule such as `every 15m`, `daily 05:00` or `cron 0 5 * * 1`",
                printable(schedule, 64)
            ),
        )
        .into());
    }
    for (field, days, least) in [
        ("incremental_window_days", table.incremental_window_days, 0),
        ("max_history_days", table.max_history_days, 0),
        ("initial_load_chunk_days", table.initial_load_chunk_days, 1),
    ] {
        if days.is_some_and(|days| days < least) {
            return Err(invalid(field, format!("it must be {least} or more")).into());
        }
    }
    let partitioned = table.sync_strategy == SyncStrategy::Partitioned;
    let remote = table.query_mode == QueryMode::Remote;
    if partitioned && table.partition_by.is_none() {
        return Err(invalid("partition_by", "a partitioned table needs a column").into());
    }
    if let Some(granularity) = table.partition_granularity.as_deref()
        && !["day", "month", "year"].contains(&granularity)
    {
        return Err(invalid("partition_granularity", "it is `day`, `month` or `year`").into());
    }
    if partitioned && remote {
        return Err(invalid("sync_strategy", "a remote table has no parts").into());
    }
    if table.where_filters.is_some() && (remote || table.sync_strategy != SyncStrategy::FullRefresh) {
        return Err(invalid("where_filters", "filters go with full refreshes of local tables only").into());
    }
    if table.source_query.as_deref().is_some_and(|q| !q.trim().is_empty())
        && table.query_mode != QueryMode::Materialized
    {
        return Err(invalid("source_query", "only materialized tables have a query").into());
    }
    Ok(())
}

impl Registry<'_> {
    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    /// All rows by name.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn list(&self, ctx: &CallContext) -> Result<Vec<RegisteredTable>> {
        self.admin(ctx).await?;
        self.engine.store().tables().list().await
    }

    /// One row by id, else by name.
    ///
    /// # Errors
    /// `table_not_found`, `admin_required`.
    pub async fn get(&self, ctx: &CallContext, id_or_name: &str) -> Result<RegisteredTable> {
        self.admin(ctx).await?;
        self.find(id_or_name).await
    }

    async fn find(&self, id_or_name: &str) -> Result<RegisteredTable> {
        if let Some(table) = self.engine.store().tables().find(id_or_name).await? {
            return Ok(table);
        }
        let rows = self.engine.store().tables().list().await?;
        let suggestion = nearest(id_or_name, rows.iter().map(|row| row.name.as_str())).map(str::to_owned);
        Err(RegistryError::TableNotFound { table: printable(id_or_name, 80), suggestion }.into())
    }

    /// Registers a table; its id and name become the slug of `table.name`.
    ///
    /// # Errors
    /// `invalid_name`, `invalid_field`, `table_exists`, `source_not_found`, `admin_required`.
    pub async fn register(&self, ctx: &CallContext, mut table: RegisteredTable) -> Result<RegisteredTable> {
        self.admin(ctx).await?;
        let slug = table_slug(&table.name)?;
        table.id = slug.as_str().to_owned();
        table.name = slug.as_str().to_owned();
        table.registered_by = Some(ctx.principal().user_id().to_owned());
        let done = self.insert(table).await;
        let name = slug.as_str();
        self.engine
            .audit()
            .event(ctx, "table.register")
            .resource(format!("table:{name}"))
            .params(json!({"id": name}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Registers without a check of the caller, for discovery.
    pub(crate) async fn insert(&self, mut table: RegisteredTable) -> Result<RegisteredTable> {
        validate(&table)?;
        if let Some(source) = table.source.as_deref()
            && self.engine.store().sources().get(source).await?.is_none()
        {
            return Err(RegistryError::SourceNotFound { source_name: source.to_owned(), suggestion: None }.into());
        }
        let tables = self.engine.store().tables();
        for key in [&table.id, &table.name] {
            if tables.find(key).await?.is_some() {
                return Err(RegistryError::TableExists { table: key.clone() }.into());
            }
        }
        table.registered_at = Some(self.engine.clock().now());
        tables.upsert(&table).await?;
        self.engine.tables_changed();
        Ok(table)
    }

    /// Replaces a row; id, name and registration stay.
    ///
    /// # Errors
    /// `table_not_found`, `invalid_field`, `admin_required`.
    pub async fn update(&self, ctx: &CallContext, mut table: RegisteredTable) -> Result<RegisteredTable> {
        self.admin(ctx).await?;
        let before = self.find(&table.id).await?;
        table.id.clone_from(&before.id);
        table.name.clone_from(&before.name);
        table.registered_by.clone_from(&before.registered_by);
        table.registered_at = before.registered_at;
        let done = match validate(&table) {
            Ok(()) => self.engine.store().tables().upsert(&table).await,
            Err(error) => Err(error),
        };
        self.engine.tables_changed();
        self.engine
            .audit()
            .event(ctx, "table.update")
            .resource(format!("table:{}", table.id))
            .before(serde_json::to_value(&before).unwrap_or_default())
            .params(serde_json::to_value(&table).unwrap_or_default())
            .outcome(&done)
            .record()
            .await;
        done?;
        // A corrected row deserves a new chance.
        self.engine.store().sync().clear_error(&table.name).await?;
        Ok(table)
    }

    /// Takes a table out of the registry with its sync state, history, profile, column
    /// metadata, ownership and grants, and its data out of the published catalog.
    ///
    /// # Errors
    /// `table_not_found`, `admin_required`.
    pub async fn unregister(&self, ctx: &CallContext, id_or_name: &str) -> Result<RegisteredTable> {
        self.admin(ctx).await?;
        let table = self.find(id_or_name).await?;
        let done = self.drop_table(&table).await;
        self.engine
            .audit()
            .event(ctx, "table.unregister")
            .resource(format!("table:{}", table.id))
            .before(serde_json::to_value(&table).unwrap_or_default())
            .outcome(&done)
            .record()
            .await;
        done?;
        if let Some(source) = table.source_name() {
            crate::orchestrator::rebuild_sources(self.engine, &[source.to_owned()]).await?;
        }
        Ok(table)
    }

    async fn drop_table(&self, table: &RegisteredTable) -> Result<()> {
        self.engine.store().tables().delete(&table.id).await?;
        self.engine.tables_changed();
        if let (Some(source), Ok(name)) = (&table.source, TableName::parse(&table.name)) {
            super::sources::remove_from_extract(self.engine, source, vec![name]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::SourceName;

    fn check(change: impl FnOnce(&mut RegisteredTable), valid: bool) {
        let (name, source) = (TableName::parse("orders"), SourceName::parse("shop"));
        let (Ok(name), Ok(source)) = (name, source) else { panic!("valid names") };
        let mut table = RegisteredTable::new(&name, "files", &source);
        change(&mut table);
        assert_eq!(validate(&table).is_ok(), valid, "{table:?}");
    }

    #[test]
    fn rows_are_checked_across_fields() {
        check(|_| (), true);
        check(|t| t.sync_schedule = Some("every 15m".into()), true);
        check(|t| t.sync_schedule = Some("hourly".into()), false);
        check(|t| t.sync_strategy = SyncStrategy::Partitioned, false);
        check(
            |t| {
                t.sync_strategy = SyncStrategy::Partitioned;
                t.partition_by = Some("day".into());
            },
            true,
        );
        check(|t| t.incremental_window_days = Some(-1), false);
        check(|t| t.initial_load_chunk_days = Some(0), false);
        check(|t| t.source_query = Some("select 1".into()), false);
        check(|t| t.partition_granularity = Some("week".into()), false);
    }

    #[test]
    fn slugs() {
        assert_eq!(table_slug(" My Orders ").map(|t| t.to_string()).ok().as_deref(), Some("my_orders"));
        assert!(table_slug("Ünïcode").is_err());
    }
}

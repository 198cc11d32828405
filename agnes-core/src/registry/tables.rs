//! What admins do with the table registry.

use serde_json::json;

use super::rules::validate;
use super::{RegisteredTable, RegistryError};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::ident::{TableName, nearest, printable};

/// The table registry of an engine. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Registry<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// The table registry.
    #[must_use]
    pub fn registry(&self) -> Registry<'_> {
        Registry { engine: self }
    }
}

/// The id a typed name stands for: trimmed, lower-cased, spaces to `_`; a strict identifier.
///
/// # Errors
/// `invalid_name`.
pub fn table_slug(name: &str) -> Result<TableName> {
    Ok(TableName::parse(&name.trim().to_lowercase().replace(' ', "_"))?)
}

impl Registry<'_> {
    pub(super) async fn admin(&self, ctx: &CallContext) -> Result<()> {
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

    pub(super) async fn find(&self, id_or_name: &str) -> Result<RegisteredTable> {
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
        self.audit_registration(ctx, slug.as_str(), &done).await;
        done
    }

    pub(super) async fn audit_registration(&self, ctx: &CallContext, name: &str, done: &Result<RegisteredTable>) {
        let params = match done {
            Ok(table) => serde_json::to_value(table).unwrap_or_default(),
            Err(_) => json!({"id": printable(name, 80)}),
        };
        let event = self.engine.audit().event(ctx, "table.register").resource(format!("table:{}", printable(name, 80)));
        event.params(params).outcome(done).record().await;
    }

    /// Registers without a check of the caller, for discovery.
    pub(crate) async fn insert(&self, mut table: RegisteredTable) -> Result<RegisteredTable> {
        validate(&table)?;
        if let Some(source) = table.source.as_deref()
            && table.source_type.as_deref() != Some(super::rules::LOCAL)
            && self.engine.store().sources().get(source).await?.is_none()
        {
            return Err(RegistryError::SourceNotFound { source_name: source.to_owned(), suggestion: None }.into());
        }
        table.registered_at = Some(self.engine.clock().now());
        if !self.engine.store().tables().insert(&table).await? {
            return Err(RegistryError::TableExists { table: table.name }.into());
        }
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
        let valid = validate(&table);
        self.replace(ctx, &before, table, valid).await
    }

    /// Puts `table` in place of `before`, if it is `valid`, and records it either way.
    pub(super) async fn replace(
        &self,
        ctx: &CallContext,
        before: &RegisteredTable,
        table: RegisteredTable,
        valid: Result<()>,
    ) -> Result<RegisteredTable> {
        let done = match valid {
            Ok(()) => self.engine.store().tables().upsert(&table).await,
            Err(error) => Err(error),
        };
        self.engine.tables_changed();
        self.engine
            .audit()
            .event(ctx, "table.update")
            .resource(format!("table:{}", table.id))
            .before(serde_json::to_value(before).unwrap_or_default())
            .params(serde_json::to_value(&table).unwrap_or_default())
            .outcome(&done)
            .record()
            .await;
        done?;
        let place =
            |row: &RegisteredTable| [&row.source, &row.bucket, &row.source_table, &row.bq_fqn].map(Option::clone);
        if place(before) != place(&table) {
            self.engine.forget_told(&table).await?;
        }
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

    pub(super) async fn drop_table(&self, table: &RegisteredTable) -> Result<()> {
        self.engine.store().tables().delete(&table.id).await?;
        self.engine.tables_changed();
        self.drop_data(table).await
    }

    /// Takes the data of a table out of the extract of its source. What somebody else writes is
    /// left to them.
    pub(super) async fn drop_data(&self, table: &RegisteredTable) -> Result<()> {
        let (Some(source), Ok(name)) = (&table.source, TableName::parse(&table.name)) else { return Ok(()) };
        if self.engine.store().sources().get(source).await?.is_some() {
            super::sources::remove_from_extract(self.engine, source, vec![name]).await?;
        }
        crate::uploads::forget_file(self.engine, table).await
    }
}

#[cfg(test)]
mod tests {
    use super::table_slug;

    #[test]
    fn slugs() {
        assert_eq!(table_slug(" My Orders ").map(|t| t.to_string()).ok().as_deref(), Some("my_orders"));
        assert!(table_slug("Ünïcode").is_err());
    }
}

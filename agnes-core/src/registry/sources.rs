//! What admins do with sources.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{RegisteredSource, RegisteredTable, RegistryError};
use crate::connector::{Cancel, CheckItem, Connector, DiscoveredTable, Progress, SourceContext};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::{SourceName, TableName, nearest, printable};
use crate::schedule::Schedule;

/// A source to add.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewSource {
    /// The folder under `extracts/`; strict grammar.
    pub name: String,
    /// Kind of the connector.
    pub kind: String,
    /// Settings, a JSON object; secrets only as names of environment variables.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub config: serde_json::Value,
    /// Schedule of its tables that have none of their own.
    pub schedule: Option<String>,
}

/// What adding a source did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceAdded {
    /// The source as it is kept.
    pub source: RegisteredSource,
    /// Its tables found and registered.
    pub tables: Vec<RegisteredTable>,
    /// Tables found but not registered, with the reason.
    pub skipped: Vec<String>,
}

/// A source in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceRow {
    /// Its name.
    pub name: String,
    /// Kind of the connector; `local` for an extract somebody else writes.
    pub kind: String,
    /// Schedule of its tables that have none of their own.
    pub schedule: Option<String>,
    /// How many of its tables are registered.
    pub registered_tables: usize,
    /// How many of its tables are published.
    pub published_tables: usize,
    /// Rows of its published tables.
    pub rows: u64,
    /// Bytes of its published tables.
    pub size_bytes: u64,
    /// Whether its tables are those of an earlier read, since it cannot be read now.
    pub degraded: bool,
    /// Settings, a JSON object; hold no secret. Null of an extract that somebody else writes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub config: serde_json::Value,
}

/// The sources of an engine. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// The sources.
    #[must_use]
    pub fn sources(&self) -> Sources<'_> {
        Sources { engine: self }
    }
}

impl Sources<'_> {
    pub(super) async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    /// Admins in person: where data comes from is a setting of the whole server.
    async fn manager(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    /// Adds a source, finds its tables and registers them. Settings that reach the files and secrets
    /// of this machine are for its owner: see [`Connector::for_operators`].
    ///
    /// # Errors
    /// `invalid_name`, `unknown_connector`, `source_exists`, `invalid_field`, what the
    /// connector says about the settings, `source_for_operators`, `admin_required`,
    /// `service_forbidden`.
    pub async fn add(&self, ctx: &CallContext, new: NewSource) -> Result<SourceAdded> {
        self.manager(ctx).await?;
        let resource = format!("source:{}", printable(&new.name, 64));
        let done = self.insert(ctx, new).await;
        self.engine
            .audit()
            .event(ctx, "source.add")
            .resource(resource)
            .params(
                done.as_ref()
                    .map_or(json!({}), |added| json!({"kind": added.source.kind, "tables": added.tables.len()})),
            )
            .outcome(&done)
            .record()
            .await;
        done
    }

    async fn insert(&self, ctx: &CallContext, new: NewSource) -> Result<SourceAdded> {
        let name = SourceName::parse(&new.name)?;
        let connector = connector(self.engine, &new.kind)?;
        if let Some(schedule) = new.schedule.as_deref()
            && Schedule::parse(schedule).is_none()
        {
            let reason =
                format!("`{}` is not a schedule such as `every 15m` or `daily 05:00`", printable(schedule, 64));
            return Err(RegistryError::InvalidField { field: "schedule", reason }.into());
        }
        let source = RegisteredSource {
            config: connector.normalise_config(&new.config)?,
            name,
            kind: new.kind,
            schedule: new.schedule,
            created_at: Some(self.engine.clock().now()),
            created_by: Some(ctx.principal().user_id().to_owned()),
        };
        let asked = context(self.engine, &source, Cancel::default(), Progress::default());
        // What the server's own configuration says for the kind is its operator's already.
        let own = SourceContext { config: source.config.clone(), ..asked.clone() };
        if !ctx.principal().is_trusted_owner()
            && let Some(reason) = connector.for_operators(&own)
        {
            return Err(RegistryError::ForOperators { reason }.into());
        }
        // Asked before it is kept: a source that cannot even list its tables is a mistake.
        let found = match connector.capability().discover {
            true if ctx.principal().is_trusted_owner() => connector.discover(&asked).await?,
            true => super::discovery::discover(ctx, connector.as_ref(), &source, asked).await?,
            false => Vec::new(),
        };
        self.engine.store().sources().insert(&source).await?;
        self.engine.push_state().forget(source.name.as_str()).await;
        let (tables, skipped) = self.engine.register_discovered(&source, found, ctx.principal().user_id()).await?;
        Ok(SourceAdded { source, tables, skipped })
    }

    /// All sources by name: the configured ones and extracts that others write.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn list(&self, ctx: &CallContext) -> Result<Vec<SourceRow>> {
        self.admin(ctx).await?;
        let sources = self.engine.store().sources().list().await?;
        let index = self.engine.table_index().await?;
        let generation = self.engine.generation();
        let mut names: Vec<String> = sources.iter().map(|s| s.name.to_string()).collect();
        names.extend(generation.sources.keys().map(ToString::to_string));
        names.sort_unstable();
        names.dedup();
        Ok(names
            .into_iter()
            .map(|name| {
                let source = sources.iter().find(|s| s.name.as_str() == name);
                let published = generation.sources.get(name.as_str());
                let tables = published.map(|p| p.tables.as_slice()).unwrap_or_default();
                SourceRow {
                    kind: source.map_or_else(|| "local".to_owned(), |s| s.kind.clone()),
                    schedule: source.and_then(|s| s.schedule.clone()),
                    registered_tables: index.iter().filter(|t| t.source_name() == Some(name.as_str())).count(),
                    published_tables: tables.len(),
                    rows: tables.iter().map(|t| t.rows).sum(),
                    size_bytes: tables.iter().map(|t| t.size_bytes).sum(),
                    degraded: published.is_some_and(|p| p.degraded),
                    config: source.map_or(serde_json::Value::Null, |s| s.config.clone()),
                    name,
                }
            })
            .collect())
    }

    /// Removes a source with its registered tables and their grants. Its extract stays on
    /// disk (and published) unless `drop_data`.
    ///
    /// # Errors
    /// `source_not_found`, `sync_already_in_progress`, `admin_required`, `service_forbidden`.
    pub async fn remove(&self, ctx: &CallContext, name: &str, drop_data: bool) -> Result<()> {
        self.manager(ctx).await?;
        let source = self.get(name).await?;
        let done = self.delete(&source, drop_data).await;
        self.engine
            .audit()
            .event(ctx, "source.remove")
            .resource(format!("source:{}", source.name))
            .before(json!({"kind": source.kind, "config": source.config}))
            .params(json!({"drop_data": drop_data}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    async fn delete(&self, source: &RegisteredSource, drop_data: bool) -> Result<()> {
        let _reserved = self.engine.sync_runs().reserve(&[source.name.to_string()])?;
        let tables = self.engine.store().tables();
        for table in tables.list().await? {
            if table.source.as_deref() == Some(source.name.as_str()) {
                tables.delete(&table.id).await?;
            }
        }
        self.engine.tables_changed();
        self.engine.store().sources().delete(source.name.as_str()).await?;
        self.engine.push_state().forget(source.name.as_str()).await;
        if drop_data {
            let folder = self.engine.folder().extract(&source.name);
            crate::duck::blocking(move || match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("delete the extract", e)),
                _ => Ok(()),
            })
            .await?;
            crate::orchestrator::rebuild_sources(self.engine, &[source.name.to_string()]).await?;
        }
        Ok(())
    }

    /// Checks that a source answers.
    ///
    /// # Errors
    /// `source_not_found`, `unknown_connector`, `admin_required`.
    pub async fn check(&self, ctx: &CallContext, name: &str) -> Result<Vec<CheckItem>> {
        self.admin(ctx).await?;
        let source = self.get(name).await?;
        let connector = connector(self.engine, &source.kind)?;
        connector.check(&context(self.engine, &source, Cancel::default(), Progress::default())).await
    }

    /// Lists the tables a source has now, registered or not.
    ///
    /// # Errors
    /// `source_not_found`, `unknown_connector`, what the source says, `admin_required`.
    pub async fn discover(&self, ctx: &CallContext, name: &str) -> Result<Vec<DiscoveredTable>> {
        self.admin(ctx).await?;
        let source = self.get(name).await?;
        let connector = connector(self.engine, &source.kind)?;
        connector.discover(&context(self.engine, &source, Cancel::default(), Progress::default())).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<RegisteredSource> {
        if let Some(source) = self.engine.store().sources().get(name).await? {
            return Ok(source);
        }
        let sources = self.engine.store().sources().list().await?;
        let suggestion = nearest(name, sources.iter().map(|s| s.name.as_str())).map(str::to_owned);
        Err(RegistryError::SourceNotFound { source_name: printable(name, 64), suggestion }.into())
    }
}

impl Engine {
    /// Registers tables found at a source that are not registered yet. Returns the new
    /// rows, and a sentence for each table that could not be registered.
    pub(crate) async fn register_discovered(
        &self,
        source: &RegisteredSource,
        found: Vec<DiscoveredTable>,
        by: &str,
    ) -> Result<(Vec<RegisteredTable>, Vec<String>)> {
        let (mut added, mut skipped) = (Vec::new(), Vec::new());
        for table in found {
            let mut row = RegisteredTable::new(&table.name, &source.kind, &source.name);
            if let Some(existing) = self.store().tables().find(&row.id).await? {
                if existing.source.as_deref() != Some(source.name.as_str()) {
                    let other = existing.source_name().unwrap_or("another source");
                    skipped.push(format!("`{}` is not registered: `{other}` has a table of that name", table.name));
                }
                continue;
            }
            row.bucket = table.bucket;
            row.source_table = Some(table.source_table);
            row.description = table.description;
            row.sync_strategy = table.sync_strategy;
            row.partition_by = table.partition_by;
            row.primary_key = table.primary_key;
            row.options = table.options;
            row.query_mode = table.query_mode;
            row.source_query = table.source_query;
            row.registered_by = Some(by.to_owned());
            match self.registry().insert(row).await {
                Ok(row) => added.push(row),
                Err(error) => skipped.push(format!("`{}` is not registered: {error}", table.name)),
            }
        }
        Ok((added, skipped))
    }
}

/// The connector of this kind.
pub(crate) fn connector(engine: &Engine, kind: &str) -> Result<Arc<dyn Connector>> {
    engine.connectors().get(kind).ok_or_else(|| {
        RegistryError::UnknownConnector {
            connector: printable(kind, 64),
            known: engine.connectors().kinds().join(", "),
        }
        .into()
    })
}

/// What a connector gets to know about a source.
pub(crate) fn context(engine: &Engine, source: &RegisteredSource, cancel: Cancel, progress: Progress) -> SourceContext {
    SourceContext {
        name: source.name.clone(),
        config: with_defaults(engine, &source.kind, crate::uploads::config_of(engine, source)),
        secrets: engine.source_secrets(),
        attach: Arc::new(crate::orchestrator::AttachPolicy::of(engine.config())),
        timeout: engine.config().sync.table_timeout,
        scratch: engine.scratch().to_owned(),
        cancel,
        progress,
    }
}

impl Engine {
    /// Says what in the settings of sources will cost people time later.
    pub(crate) async fn warn_of_sources(&self) {
        for source in self.store().sources().list().await.unwrap_or_default() {
            let Some(connector) = self.connectors().get(&source.kind) else { continue };
            for warning in connector.warnings(&with_defaults(self, &source.kind, source.config.clone())) {
                tracing::warn!(source = source.name.as_str(), "{warning}");
            }
        }
    }
}

/// A source's settings, with what the configuration of the whole server says for its kind.
pub(crate) fn with_defaults(engine: &Engine, kind: &str, mut config: serde_json::Value) -> serde_json::Value {
    if kind == "bigquery"
        && let serde_json::Value::Object(map) = &mut config
    {
        for (key, value) in engine.config().bigquery.settings() {
            map.entry(key).or_insert(value);
        }
    }
    config
}

/// Takes tables out of an extract that Agnes writes; nothing when there is none.
pub(crate) async fn remove_from_extract(engine: &Engine, source: &str, tables: Vec<TableName>) -> Result<()> {
    let Ok(source) = SourceName::parse(source) else { return Ok(()) };
    let (folder, now) = (engine.folder().extract(&source), engine.clock().now());
    crate::duck::blocking(move || {
        if folder.join("extract.duckdb").exists() {
            crate::extract::remove_tables(&folder, &tables, now)
        } else {
            Ok(())
        }
    })
    .await
}

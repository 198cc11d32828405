//! Registrations as admins ask for them: by fields, checked against what the engine has.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::fields::{apply, invalid, text};
use super::rules::{self, KINDS, LOCAL};
use super::{
    QueryMode, RegisteredSource, RegisteredTable, Registry, RegistryError, SyncStrategy, TableFields, table_slug,
};
use crate::connector::{Cancel, Connector, Progress};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::{TableName, printable};
use crate::orchestrator::{AttachPolicy, can_attach};
use crate::sync::{SyncState, SyncStatus};

/// Fields that say where a table's rows come from: a change asks whether the engine can do it.
/// How long a registration waits for a source to say what identifies a row.
const KEY_PATIENCE: Duration = Duration::from_secs(10);
const REACH: [&str; 4] = ["source_type", "source", "query_mode", "sync_strategy"];

/// A registered table with how its last sync went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegistryRow {
    /// The table.
    #[serde(flatten)]
    pub table: RegisteredTable,
    /// Why the last sync failed; none when it did not.
    pub last_sync_error: Option<String>,
    /// When it was last brought up to date.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_sync: Option<DateTime<Utc>>,
    /// `ok`, `error` or `skipped`; none before the first sync.
    pub last_sync_status: Option<String>,
    /// Rows; none before the first sync.
    pub rows: Option<i64>,
    /// Bytes of Parquet; none before the first sync.
    pub file_size_bytes: Option<i64>,
}

impl RegistryRow {
    fn new(table: RegisteredTable, state: Option<SyncState>) -> Self {
        let failed = state.as_ref().filter(|state| state.status == SyncStatus::Error);
        Self {
            table,
            last_sync_error: failed.and_then(|state| state.error.clone()),
            last_sync: state.as_ref().and_then(|state| state.last_sync),
            last_sync_status: state.as_ref().map(|state| state.status.as_str().to_owned()),
            rows: state.as_ref().and_then(|state| state.rows),
            file_size_bytes: state.as_ref().and_then(|state| state.file_size_bytes),
        }
    }
}

/// A table as it was registered, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The row.
    pub table: RegisteredTable,
    /// What the admin should know, one sentence each.
    pub warnings: Vec<String>,
}

impl Registry<'_> {
    /// All rows by name, with how their last sync went.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn overview(&self, ctx: &CallContext) -> Result<Vec<RegistryRow>> {
        let tables = self.list(ctx).await?;
        let states = self.engine.store().sync().all().await?;
        let mut states: HashMap<String, SyncState> =
            states.into_iter().map(|state| (state.table_id.to_lowercase(), state)).collect();
        let row = |table: RegisteredTable| {
            let state = states.remove(&table.name.to_lowercase());
            RegistryRow::new(table, state)
        };
        Ok(tables.into_iter().map(row).collect())
    }

    /// Registers the table that `fields` describe.
    ///
    /// # Errors
    /// `invalid_field`, `invalid_source_field`, `invalid_name`, `unknown_connector`,
    /// `source_not_configured`, `source_not_found`, `table_exists`, `admin_required`.
    pub async fn register_fields(&self, ctx: &CallContext, fields: &TableFields) -> Result<Registration> {
        self.admin(ctx).await?;
        let name = fields.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let done = async {
            let mut table = self.read(fields).await?;
            table.registered_by = Some(ctx.principal().user_id().to_owned());
            self.insert(table).await
        }
        .await;
        self.audit_registration(ctx, name, &done).await;
        let table = done?;
        let warnings = self.same_at_source(&table).await?;
        Ok(Registration { table, warnings })
    }

    /// Checks what [`Registry::register_fields`] would do, and does nothing: a table that
    /// exists already is a warning.
    ///
    /// # Errors
    /// As there, but `table_exists`.
    pub async fn precheck(&self, ctx: &CallContext, fields: &TableFields) -> Result<Registration> {
        self.admin(ctx).await?;
        let table = self.read(fields).await?;
        let mut warnings = Vec::new();
        if self.engine.store().tables().find(&table.id).await?.is_some() {
            warnings.push(format!("a table `{}` is registered already", table.id));
        }
        warnings.extend(self.same_at_source(&table).await?);
        Ok(Registration { table, warnings })
    }

    /// Changes the fields of a table that are named; null takes a value away.
    ///
    /// # Errors
    /// `table_not_found`; those of [`Registry::register_fields`], but `table_exists`.
    pub async fn update_fields(
        &self,
        ctx: &CallContext,
        id_or_name: &str,
        fields: &TableFields,
    ) -> Result<RegisteredTable> {
        self.admin(ctx).await?;
        let before = self.find(id_or_name).await?;
        let mut table = before.clone();
        let valid = self.merge(&mut table, fields).await;
        let table = self.replace(ctx, &before, table, valid).await?;
        if before.source_name() != table.source_name() {
            // What the old source left would stand in the way of the new one.
            self.drop_data(&before).await?;
            if let Some(source) = before.source_name() {
                crate::orchestrator::rebuild_sources(self.engine, &[source.to_owned()]).await?;
            }
        }
        Ok(table)
    }

    /// The row that `fields` describe.
    async fn read(&self, fields: &TableFields) -> Result<RegisteredTable> {
        let name = fields.get("name").map(|name| text("name", name)).transpose()?.flatten();
        let name = name.ok_or_else(|| invalid("name", "a table needs a name"))?;
        let kind = fields.get("source_type").and_then(serde_json::Value::as_str);
        // Names of BigQuery are taken as they are.
        let slug = match kind {
            Some("bigquery") => TableName::parse(&name)?,
            _ => table_slug(&name).map_err(|error| invalid("name", error.to_string()))?,
        };
        let mut table = RegisteredTable::blank(slug.as_str().to_lowercase());
        apply(&mut table, fields)?;
        let kind = self.kind_of(&table).await?;
        rules::of_kind(&mut table, &kind)?;
        self.reach(&mut table, &kind).await?;
        Ok(table)
    }

    async fn merge(&self, table: &mut RegisteredTable, fields: &TableFields) -> Result<()> {
        let was_materialized = table.query_mode == QueryMode::Materialized;
        apply(table, fields)?;
        let name = fields.get("name").map(|name| text("name", name)).transpose()?.flatten();
        if let Some(name) = name
            && !name.trim().replace(' ', "_").eq_ignore_ascii_case(&table.name)
        {
            return Err(invalid("name", "a table keeps its name: register it anew under the other one").into());
        }
        if let Some(query) = fields.get("source_query") {
            let materialized = fields.contains_key("query_mode") && table.query_mode == QueryMode::Materialized;
            match table.source_query {
                Some(_) if !materialized => {
                    return Err(invalid("source_query", "it goes with `query_mode` `materialized`").into());
                }
                None if materialized && query.is_string() => {
                    return Err(invalid("source_query", "a materialized table needs a query").into());
                }
                _ => {}
            }
        }
        if was_materialized && table.query_mode != QueryMode::Materialized {
            table.source_query = None;
        }
        let moved = REACH.iter().any(|field| fields.contains_key(*field));
        if moved && fields.contains_key("source_type") && !fields.contains_key("source") {
            // The source of the other kind is another one.
            table.source = None;
        }
        let kind = match moved {
            true => self.kind_of(table).await?,
            false => table.source_type.clone().unwrap_or_else(|| LOCAL.to_owned()),
        };
        rules::of_kind(table, &kind)?;
        if moved { self.reach(table, &kind).await } else { Ok(()) }
    }

    /// The kind of source that a row is of.
    async fn kind_of(&self, table: &RegisteredTable) -> Result<String> {
        let kind = match (&table.source_type, &table.source) {
            (Some(kind), _) => kind.clone(),
            (None, Some(source)) => {
                let source = self.engine.store().sources().get(source).await?;
                source.map_or_else(|| LOCAL.to_owned(), |source| source.kind)
            }
            (None, None) => LOCAL.to_owned(),
        };
        let mut known = self.engine.connectors().kinds();
        known.extend(KINDS);
        if known.contains(&kind.as_str()) {
            return Ok(kind);
        }
        known.sort_unstable();
        known.dedup();
        Err(invalid("source_type", format!("`{}` is none of {}", printable(&kind, 64), known.join(", "))).into())
    }

    /// Finds the source of a row, and asks whether the engine can do with it what the row says.
    async fn reach(&self, table: &mut RegisteredTable, kind: &str) -> Result<()> {
        table.source_type = Some(kind.to_owned());
        let configured = self.engine.store().sources().list().await?;
        let named = table.source.as_deref();
        let found = named.and_then(|name| configured.iter().find(|s| s.name.as_str().eq_ignore_ascii_case(name)));
        if let Some(other) = found.filter(|source| source.kind != kind) {
            let reason = format!("the source `{}` is of kind `{}`", other.name, other.kind);
            return Err(invalid("source_type", reason).into());
        }
        if kind == LOCAL {
            // Whoever writes the extract says where it is; without a word it is `local`.
            return Ok(());
        }
        let connector = super::sources::connector(self.engine, kind)?;
        let capability = connector.capability();
        let (field, can) = match (table.query_mode, table.sync_strategy) {
            (QueryMode::Remote, _) => ("query_mode", capability.remote),
            (QueryMode::Materialized, _) => ("query_mode", capability.materialize),
            (_, SyncStrategy::Incremental) => ("sync_strategy", capability.incremental),
            (_, SyncStrategy::Partitioned) => ("sync_strategy", capability.partitioned),
            _ => ("sync_strategy", true),
        };
        if !can {
            return Err(invalid(field, format!("a source of kind `{kind}` cannot do that")).into());
        }
        if let Some(extension) = connector.remote_extension().filter(|_| table.query_mode == QueryMode::Remote) {
            let (policy, scratch) = (AttachPolicy::of(self.engine.config()), self.engine.scratch().to_owned());
            let ready = crate::duck::blocking(move || can_attach(extension, &policy, &scratch)).await;
            if let Err(error) = ready {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                return Err(
                    invalid("query_mode", format!("such tables cannot stay at the source: {error}{hint}")).into()
                );
            }
        }
        let mut of_kind = configured.iter().filter(|source| source.kind == kind);
        let source = match (named, found) {
            (_, Some(source)) => source,
            (Some(name), None) => {
                return Err(RegistryError::SourceNotFound { source_name: printable(name, 64), suggestion: None }.into());
            }
            (None, None) => match (of_kind.next(), of_kind.next()) {
                (Some(only), None) => only,
                (None, _) => return Err(RegistryError::NoSourceOfKind { kind: kind.to_owned() }.into()),
                // That of the configuration, for clients that know of one alone.
                _ => match configured.iter().find(|source| source.kind == kind && source.name.as_str() == kind) {
                    Some(own) => own,
                    None => {
                        let reason = format!("there are several of kind `{kind}`: name one");
                        return Err(invalid("source", reason).into());
                    }
                },
            },
        };
        table.source = Some(source.name.as_str().to_owned());
        let merged = matches!(table.sync_strategy, SyncStrategy::Incremental | SyncStrategy::Partitioned);
        if merged && table.primary_key.iter().flatten().next().is_none() {
            self.check_key(source, &*connector, table).await?;
        }
        Ok(())
    }

    /// Refuses a table whose changes could only be appended, where its source says so. One that cannot
    /// be asked now refuses nothing: each run tells of a table without key.
    async fn check_key(
        &self,
        source: &RegisteredSource,
        connector: &dyn Connector,
        table: &RegisteredTable,
    ) -> Result<()> {
        let context = super::context(self.engine, source, Cancel::default(), Progress::default());
        let asked = tokio::time::timeout(KEY_PATIENCE, connector.primary_key(&context, table)).await;
        context.cancel.cancel();
        match asked {
            Ok(Ok(Some(key))) if key.is_empty() => {
                let reason = "the table has no primary key at its source: name columns that identify a row";
                Err(invalid("primary_key", reason).into())
            }
            Ok(Err(error)) => {
                tracing::warn!(table = table.name, code = error.code(), "its primary key is not known: {error}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Other rows of the same table at the source.
    async fn same_at_source(&self, table: &RegisteredTable) -> Result<Vec<String>> {
        let place = |row: &RegisteredTable| {
            let name = row.source_table.as_ref()?.to_lowercase();
            Some((row.source_type.clone(), row.source.clone(), row.bucket.as_ref().map(|b| b.to_lowercase()), name))
        };
        let Some(here) = place(table) else { return Ok(Vec::new()) };
        let rows = self.engine.store().tables().list().await?;
        let same = rows.iter().filter(|row| row.id != table.id && place(row).as_ref() == Some(&here));
        Ok(same.map(|row| format!("`{}` is the same table at the source", row.name)).collect())
    }
}

impl RegisteredTable {
    /// A row of which nothing but the name is known.
    fn blank(name: String) -> Self {
        Self { source_type: None, ..Self::named(name, LOCAL, QueryMode::Local) }
    }
}

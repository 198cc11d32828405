//! Lists, columns, profiles: each call decides first, then answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CatalogError, CatalogTable, ColumnSchema, LockedTable, TableSchema};
use crate::connector::{Progress, ProgressEvent};
use crate::context::CallContext;
use crate::engine::{Engine, TableIndex};
use crate::error::Result;
use crate::ident::{nearest, printable};
use crate::orchestrator::{Generation, PublishedTable};
use crate::policy::{Narrowed, NarrowedTables};
use crate::rbac::{AccessSnapshot, Accessible, INTERNAL_TABLES, ResourceType};
use crate::registry::{QueryMode, RegisteredTable};
use crate::sync::StoredProfile;
use crate::warehouse::TableMetadata;

/// How long a reader waits for a profile that is being made.
const PATIENCE: Duration = Duration::from_secs(10);

/// The catalog of an engine, as one caller may see it.
#[derive(Debug, Clone, Copy)]
pub struct Catalog<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// What callers may know of the tables they may read.
    #[must_use]
    pub fn catalog(&self) -> Catalog<'_> {
        Catalog { engine: self }
    }
}

/// What one caller may see, decided once per call.
pub(super) struct View {
    pub(super) generation: Arc<Generation>,
    pub(super) index: Arc<TableIndex>,
    access: Arc<AccessSnapshot>,
    accessible: Accessible,
    narrowed: Arc<NarrowedTables>,
}

/// A table that the caller may read.
pub(super) struct Found<'v> {
    pub(super) id: String,
    pub(super) row: Option<&'v Arc<RegisteredTable>>,
    /// Never set for an internal table: what an extract publishes under such a name is not it.
    /// As the caller sees it.
    pub(super) published: Option<&'v PublishedTable>,
    /// Set where policies leave a part of it.
    pub(super) narrowed: Option<&'v Arc<Narrowed>>,
}

impl Found<'_> {
    pub(super) fn name(&self) -> &str {
        match (self.published, self.row) {
            (Some(published), _) => published.name.as_str(),
            (None, Some(row)) => &row.name,
            (None, None) => &self.id,
        }
    }
    pub(super) fn is_internal(&self) -> bool {
        is_internal(self.name())
    }
    fn source_type(&self) -> Option<String> {
        match (self.row, self.published) {
            (Some(row), _) => row.source_type.clone(),
            (None, Some(_)) => Some("local".to_owned()),
            (None, None) => self.is_internal().then(|| "internal".to_owned()),
        }
    }
    /// The column that names the part a row belongs to, where the caller sees it.
    fn partition_by(&self) -> Option<String> {
        let column = self.row.and_then(|row| row.partition_by.clone())?;
        self.narrowed.is_none_or(|part| part.narrowing.rule(&column).is_none()).then_some(column)
    }
    pub(super) fn mode(&self) -> QueryMode {
        if self.is_internal() {
            return QueryMode::Internal;
        }
        self.published.map(|p| p.mode).or(self.row.map(|r| r.query_mode)).unwrap_or(QueryMode::Local)
    }
}

/// Whether queries answer this name from Agnes's own state.
fn is_internal(name: &str) -> bool {
    INTERNAL_TABLES.iter().any(|internal| internal.eq_ignore_ascii_case(name))
}

impl View {
    /// The table that `reference` means, by id or name, if the caller may read it.
    pub(super) fn find(&self, reference: &str) -> Result<Found<'_>> {
        let row = self.index.find(reference);
        let name = row.map_or(reference, |row| row.name.as_str());
        let published = self.generation.table(name).filter(|_| !is_internal(name));
        let id = row.map_or_else(|| name.to_lowercase(), |row| row.id.clone());
        let exists = row.is_some() || published.is_some() || is_internal(name);
        if exists && self.may_read(&id, name) {
            let folded = name.to_ascii_lowercase();
            if let Some(error) = self.narrowed.blocked.get(&folded) {
                return Err(error.clone().into());
            }
            return Ok(self.seen(Found { id, row, published, narrowed: None }));
        }
        let mine: Vec<&str> = self
            .generation
            .tables()
            .map(|t| t.name.as_str())
            .filter(|name| self.accessible.contains(&self.index.id_of(name)))
            .collect();
        let suggestion = nearest(reference, mine).map(str::to_owned);
        let table = printable(reference, 80);
        Err(match self.accessible {
            Accessible::All => CatalogError::NotFound { table, suggestion },
            Accessible::Only(_) => CatalogError::Denied { table, suggestion },
        }
        .into())
    }

    /// What policies leave of it.
    fn seen<'v>(&'v self, found: Found<'v>) -> Found<'v> {
        let narrowed = found.published.and_then(|t| self.narrowed.tables.get(&t.name.as_str().to_ascii_lowercase()));
        match narrowed {
            Some(narrowed) => Found { published: Some(&narrowed.seen), narrowed: Some(narrowed), ..found },
            None => found,
        }
    }

    /// As queries decide: internal tables by name, all others by the id that grants use.
    fn may_read(&self, id: &str, name: &str) -> bool {
        is_internal(name) || self.accessible.contains(&id.to_lowercase())
    }

    /// Every table that the caller may read, by name.
    pub(super) fn all(&self) -> Vec<Found<'_>> {
        let published: HashMap<String, &PublishedTable> = self
            .generation
            .tables()
            .map(|t| (t.name.as_str().to_lowercase(), t))
            .filter(|(n, _)| !is_internal(n))
            .collect();
        let mut found: Vec<Found<'_>> = self
            .index
            .iter()
            .filter(|row| self.may_read(&row.id, &row.name))
            .map(|row| Found {
                id: row.id.clone(),
                row: Some(row),
                published: published.get(&row.name.to_lowercase()).copied(),
                narrowed: None,
            })
            .collect();
        for (name, table) in &published {
            if self.index.by_name(name).is_none() && self.accessible.contains(name) {
                found.push(Found { id: name.clone(), row: None, published: Some(table), narrowed: None });
            }
        }
        for name in INTERNAL_TABLES.iter().filter(|name| self.index.by_name(name).is_none()) {
            found.push(Found { id: (*name).to_owned(), row: None, published: None, narrowed: None });
        }
        // What a policy cannot be applied to is not there, and a query says why.
        found.retain(|found| !self.narrowed.blocked.contains_key(&found.name().to_ascii_lowercase()));
        let mut found: Vec<Found<'_>> = found.into_iter().map(|found| self.seen(found)).collect();
        found.sort_by(|a, b| a.name().cmp(b.name()));
        found
    }

    /// Every table that the caller may not read, by name: for those who may ask for it.
    fn locked(&self) -> Vec<LockedTable> {
        let is_locked = |id: &str, name: &str| !self.may_read(id, name);
        let rows = self.index.iter().filter(|row| is_locked(&row.id, &row.name)).map(|row| LockedTable {
            id: row.id.clone(),
            name: row.name.clone(),
            description: row.description.clone(),
        });
        let unregistered = self.generation.tables().filter_map(|table| {
            let name = table.name.as_str();
            let id = name.to_lowercase();
            let is_wanted = self.index.by_name(name).is_none() && is_locked(&id, name);
            is_wanted.then(|| LockedTable { id, name: name.to_owned(), description: table.description.clone() })
        });
        let mut locked: Vec<LockedTable> = rows.chain(unregistered).collect();
        locked.sort_by(|a, b| a.name.cmp(&b.name));
        locked
    }

    /// Whether nothing changed since it was decided.
    pub(super) async fn is_current(&self, engine: &Engine) -> Result<bool> {
        let same = Arc::ptr_eq(&self.access, &engine.access().await?);
        Ok(same && Arc::ptr_eq(&self.generation, &engine.generation()))
    }

    /// Whether the caller may read every table, whole.
    pub(super) fn sees_everything(&self, ctx: &CallContext) -> bool {
        self.is_admin(ctx) && self.narrowed.tables.is_empty() && self.narrowed.blocked.is_empty()
    }

    pub(super) fn is_admin(&self, ctx: &CallContext) -> bool {
        self.access.is_admin(ctx.principal())
    }
}

impl Catalog<'_> {
    pub(super) async fn view(&self, ctx: &CallContext) -> Result<View> {
        let access = self.engine.access().await?;
        access.require_active(ctx.principal())?;
        ctx.principal().require(crate::rbac::Ability::Catalog)?;
        let accessible = access.accessible(ctx.principal(), ResourceType::Table);
        let index = self.engine.table_index().await?;
        let generation = self.engine.generation();
        let narrowed = match access.policies.is_empty() {
            true => Arc::default(),
            // The last thing to be asked: it is never of an older state than the rest.
            false => self.engine.queries().narrowed(self.engine, ctx.principal()).await?,
        };
        Ok(View { generation, index, access, accessible, narrowed })
    }

    /// The tables that the caller may read, by name.
    ///
    /// # Errors
    /// `inactive_user`.
    pub async fn tables(&self, ctx: &CallContext) -> Result<Vec<CatalogTable>> {
        let view = self.view(ctx).await?;
        let states = self.engine.sync_states().await?;
        let told = match view.index.iter().any(|row| row.query_mode == QueryMode::Remote) {
            true => self.engine.known_metadata().await?,
            false => HashMap::new(),
        };
        let tables: Vec<CatalogTable> = view
            .all()
            .into_iter()
            .map(|found| {
                let (row, published) = (found.row, found.published);
                let part = found.narrowed.filter(|narrowed| !narrowed.is_whole());
                // How much there is of a part is not known before it is made.
                let local = published.filter(|p| p.remote.is_none() && part.is_none());
                let stays = found.mode() == QueryMode::Remote && found.source_type().as_deref() == Some("bigquery");
                let told = if stays { told.get(&found.id) } else { None };
                let size = local.map(|p| p.size_bytes).or(told.and_then(|told| told.size_bytes));
                CatalogTable {
                    name: found.name().to_owned(),
                    description: row
                        .and_then(|r| r.description.clone())
                        .or(published.and_then(|p| p.description.clone())),
                    source: published
                        .map(|p| p.source.to_string())
                        .or(row.and_then(|r| r.source_name().map(str::to_owned))),
                    bucket: row.and_then(|r| r.bucket.clone()),
                    source_type: found.source_type(),
                    sync_strategy: row.map_or("full_refresh", |r| r.sync_strategy.as_str()).to_owned(),
                    query_mode: found.mode(),
                    sql_flavor: flavor(found.source_type().as_deref()),
                    rough_size_hint: size.map(|bytes| size_hint(bytes).to_owned()),
                    rows: local.map(|p| p.rows).or(told.and_then(|told| told.rows)),
                    size_bytes: size,
                    columns: published.map(|p| p.columns.len()),
                    partition_by: found.partition_by().or(told.and_then(|told| told.partition_by.clone())),
                    clustered_by: told.map(|told| told.clustered_by.clone()).unwrap_or_default(),
                    entity_type: told.and_then(|told| told.entity_type.clone()),
                    where_examples: told.map(TableMetadata::where_examples).unwrap_or_default(),
                    metadata_freshness: stays.then(|| self.engine.freshness(told).to_owned()),
                    row_scope: part.and_then(|part| part.scope()),
                    last_sync: states.get(&found.name().to_lowercase()).and_then(|state| state.last_sync),
                    published: published.is_some() || found.is_internal(),
                    id: found.id,
                }
            })
            .collect();
        self.engine.audit().event(ctx, "catalog.list").params(json!({"tables": tables.len()})).later();
        Ok(tables)
    }

    /// Names and descriptions of tables that the caller may not read but may ask for; none
    /// unless `access_requests.show_locked` is on.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`.
    pub async fn locked(&self, ctx: &CallContext) -> Result<Vec<LockedTable>> {
        let config = self.engine.live_config();
        let requests = &config.access_requests;
        if !requests.enabled || !requests.show_locked {
            return Ok(Vec::new());
        }
        Ok(self.view(ctx).await?.locked())
    }

    /// Columns of a table, by id or name.
    ///
    /// # Errors
    /// `access_denied` for a table that the caller may not read, or that does not exist;
    /// admins are told `table_not_found`; `no_data`.
    pub async fn schema(&self, ctx: &CallContext, table: &str) -> Result<TableSchema> {
        let view = self.view(ctx).await?;
        let done = self.schema_of(ctx, &view, table).await;
        self.engine
            .audit()
            .event(ctx, "catalog.schema")
            .resource(format!("table:{}", printable(table, 80)))
            .outcome(&done)
            .later();
        done
    }

    async fn schema_of(&self, ctx: &CallContext, view: &View, table: &str) -> Result<TableSchema> {
        let found = view.find(table)?;
        let described = self.descriptions(&found).await?;
        let columns = match found.published {
            Some(published) => published.columns.clone(),
            None if found.is_internal() => self.internal_columns(&found.name().to_lowercase()).await?,
            None => return Err(self.no_data(ctx, view, &found).await),
        };
        let stays = found.mode() == QueryMode::Remote && found.source_type().as_deref() == Some("bigquery");
        let told = if stays { crate::query::warehouse_facts(self.engine, found.name()).await } else { None };
        let hints = if stays { &WHERE_HINTS[..] } else { &[] };
        Ok(TableSchema {
            name: found.name().to_owned(),
            source_type: found.source_type(),
            sql_flavor: flavor(found.source_type().as_deref()),
            columns: columns
                .into_iter()
                .map(|c| ColumnSchema {
                    description: described.get(&c.name.to_lowercase()).cloned().unwrap_or_default(),
                    masked: found.narrowed.and_then(|part| part.mask(&c.name)).map(str::to_owned),
                    name: c.name,
                    data_type: c.data_type,
                    nullable: c.nullable,
                })
                .collect(),
            partition_by: told.as_ref().and_then(|told| told.partition_by.clone()).or(found.partition_by()),
            row_scope: found.narrowed.and_then(|part| part.scope()),
            clustered_by: told.map(|told| told.clustered_by.clone()).unwrap_or_default(),
            where_dialect_hints: hints.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            table_id: found.id,
        })
    }

    /// Columns of an internal table, from an answer without rows.
    pub(super) async fn internal_columns(&self, name: &str) -> Result<Vec<crate::orchestrator::Column>> {
        let nobody = crate::store::InternalScope { user_id: String::new(), email: None };
        let batches = self.engine.store().internal_rows(name, Some(nobody)).await?;
        let Some(batch) = batches.first() else { return Ok(Vec::new()) };
        Ok(batch
            .schema()
            .fields()
            .iter()
            .map(|field| crate::orchestrator::Column {
                name: field.name().clone(),
                data_type: match field.data_type() {
                    arrow::datatypes::DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
                    arrow::datatypes::DataType::Boolean => "BOOLEAN".to_owned(),
                    t if t.is_integer() => "BIGINT".to_owned(),
                    t if t.is_numeric() => "DOUBLE".to_owned(),
                    _ => "VARCHAR".to_owned(),
                },
                nullable: field.is_nullable(),
            })
            .collect())
    }

    /// What is said of a table without data. Why a sync failed may quote values of rows, so it
    /// is told to those who see all of them.
    pub(super) async fn no_data(&self, ctx: &CallContext, view: &View, found: &Found<'_>) -> crate::Error {
        let failed = self.engine.store().sync().get(found.name()).await.ok().flatten().and_then(|s| s.error);
        let last_error = failed
            .filter(|error| !error.is_empty())
            .map(|error| if view.sees_everything(ctx) { error } else { "an admin can see why".to_owned() });
        CatalogError::NoData { table: found.name().to_owned(), last_error }.into()
    }

    /// The profile of a table, with `profiled_at` and `stale`: whether the content changed
    /// since. Waits some seconds for one that is being made. It holds values of rows:
    /// whoever may read the table may read it.
    ///
    /// # Errors
    /// `access_denied`, `table_not_found`, `no_profile`.
    pub async fn profile(&self, ctx: &CallContext, table: &str) -> Result<Value> {
        let view = self.view(ctx).await?;
        let found = view.find(table)?;
        let mut profile = self.profile_of(ctx, &found).await?;
        if let Value::Object(map) = &mut profile {
            map.insert("related_tables".to_owned(), json!(super::related::related(&view, &found)));
        }
        self.describe_profile(&found, &mut profile).await?;
        Ok(profile)
    }

    async fn profile_of(&self, ctx: &CallContext, found: &Found<'_>) -> Result<Value> {
        if let Some(part) = found.narrowed.filter(|part| !part.is_whole()) {
            return crate::policy::profile(self.engine, part, found.row.map(Arc::as_ref)).await;
        }
        let profiles = self.engine.store().profiles();
        let published = found.published.filter(|table| table.remote.is_none());
        let is_current = |stored: &Option<StoredProfile>| {
            let described = stored.as_ref().and_then(|stored| stored.content_hash.as_deref());
            published.is_none_or(|table| described == Some(table.content_hash.as_str()))
        };
        let mut stored = match found.published {
            Some(_) => profiles.get(found.name()).await?,
            None => None,
        };
        if !is_current(&stored) {
            let patience =
                ctx.deadline().map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()).min(PATIENCE));
            // Not in time: what there is, marked as stale.
            let _ = tokio::time::timeout(patience, crate::profile::finish(self.engine)).await;
            stored = profiles.get(found.name()).await?;
        }
        let stale = !is_current(&stored);
        let Some(stored) = stored else {
            return Err(CatalogError::NoProfile { table: found.name().to_owned() }.into());
        };
        let mut profile = stored.profile;
        if let Value::Object(map) = &mut profile {
            map.insert("profiled_at".to_owned(), json!(stored.profiled_at));
            map.insert("stale".to_owned(), json!(stale));
        }
        Ok(profile)
    }

    /// Waits until the profiles that publications asked for are made, or have failed. For
    /// admins.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn finish_profiles(&self, ctx: &CallContext, progress: &Progress) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        progress.report(ProgressEvent::Stage { name: "profile".to_owned() });
        crate::profile::finish(self.engine).await;
        Ok(())
    }

    /// Makes the profile of a table anew. For admins, and for whoever registered the table and
    /// may read it.
    ///
    /// # Errors
    /// `admin_required`, `access_denied`, `table_not_found`, `no_data`.
    pub async fn refresh_profile(&self, ctx: &CallContext, table: &str) -> Result<Value> {
        let view = self.view(ctx).await?;
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        ctx.principal().require_own()?;
        let found = view.find(table)?;
        let owner = found.row.and_then(|row| row.registered_by.as_deref());
        if owner != Some(ctx.principal().user_id()) {
            view.access.require_admin(ctx.principal())?;
        }
        if let Some(part) = found.narrowed.filter(|part| !part.is_whole()) {
            return crate::policy::profile(self.engine, part, found.row.map(Arc::as_ref)).await;
        }
        let Some(published) = found.published.filter(|p| p.remote.is_none()) else {
            return Err(self.no_data(ctx, &view, &found).await);
        };
        let cancel = crate::connector::Cancel::default();
        let work = crate::profile::make(self.engine, published, found.row.map(Arc::as_ref), &cancel);
        match ctx.deadline() {
            Some(at) => tokio::time::timeout_at(at.into(), work).await.map_err(|_| crate::connector::Cancelled)??,
            None => work.await?,
        }
        self.profile(ctx, table).await
    }
}

/// How predicates of scans are written on tables that stay in BigQuery.
const WHERE_HINTS: [(&str, &str); 5] = [
    ("cast", "SAFE_CAST(x AS INT64)"),
    ("date_literal", "DATE '2026-01-31'"),
    ("interval_subtract", "DATE_SUB(CURRENT_DATE(), INTERVAL 7 DAY)"),
    ("regex", "REGEXP_CONTAINS(x, '^a')"),
    ("timestamp_literal", "TIMESTAMP '2026-01-31 00:00:00'"),
];

fn flavor(source_type: Option<&str>) -> String {
    if source_type == Some("bigquery") { "bigquery" } else { "duckdb" }.to_owned()
}

fn size_hint(bytes: u64) -> &'static str {
    match bytes {
        b if b <= 100 << 20 => "small",
        b if b <= 1 << 30 => "medium",
        b if b <= 10 << 30 => "large",
        _ => "very_large",
    }
}

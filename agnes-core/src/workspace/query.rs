//! Asking what is here: the tables of the one generation, snapshots, and what the owner keeps in the
//! database beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;

use super::views::OwnRelation;
use super::{SnapshotMeta, SyncState, Workspace, WorkspaceError};
use crate::catalog::{ColumnSchema, Sample, TableSchema};
use crate::error::{Error, Result};
use crate::ident::{quote_ident, quote_literal};
use crate::local::Rows;
use crate::policy::RowScope;
use crate::query::{FileQueries, GrantSet, Query, QueryLimits, Relation};

/// Alias of the owner's database in an instance.
const OWN: &str = "agnes_own";

/// Where a query can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answerable {
    /// Here: all that it names is here.
    Here,
    /// Not here, for want of this table.
    Elsewhere(WorkspaceError),
    /// Here nothing of this name is known.
    Unknown,
}

fn limits() -> QueryLimits {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    QueryLimits { threads, ..QueryLimits::default() }
}

impl Workspace {
    async fn queries(&self) -> Result<&FileQueries> {
        self.queries.get_or_try_init(|| FileQueries::start(limits(), self.scratch())).await
    }

    /// Whether a query can be answered from what is here.
    ///
    /// # Errors
    /// Those of reading SQL; `workspace_unreadable`.
    pub async fn can_answer(&self, sql: &str) -> Result<Answerable> {
        let queries = self.queries().await?;
        let (state, parsed) = (self.state()?, queries.parse(sql).await?);
        let own = self.own_of(&state, parsed.named());
        let mut known = self.relations(&state);
        known.extend(own.into_iter().map(|own| (own.name.to_ascii_lowercase(), relation(own.name, own.columns))));
        let mut missing = parsed.named().filter(|name| !known.contains_key(&name.to_ascii_lowercase()));
        if let Some(name) = missing.next() {
            return Ok(not_here(&state, name).map_or(Answerable::Unknown, Answerable::Elsewhere));
        }
        if state.generation == 0 && state.tables.is_empty() {
            return Ok(Answerable::Elsewhere(WorkspaceError::Empty));
        }
        Ok(Answerable::Here)
    }

    /// Asks what is here. The whole query sees one generation, whatever a pull does meanwhile.
    ///
    /// # Errors
    /// Any [`SandboxError`](crate::sandbox::SandboxError) and [`QueryError`](crate::query::QueryError);
    /// `workspace_empty` before the first pull; `table_not_here` for a table that is granted but was
    /// not pulled.
    pub fn query(&self, query: Query) -> BoxFuture<'_, Result<Rows>> {
        Box::pin(self.query_now(query))
    }

    async fn query_now(&self, query: Query) -> Result<Rows> {
        let queries = self.queries().await?;
        let parsed = queries.parse(&query.sql).await?;
        let workspace = self.clone();
        let reading = Arc::new(crate::duck::blocking(move || Ok(workspace.reading())).await?);
        // A pull may take files away between the state and the first look at them: then once more.
        for last in [false, true] {
            let state = self.state()?;
            if state.generation == 0 && state.tables.is_empty() && !self.database().is_file() {
                return Err(WorkspaceError::Empty.into());
            }
            let own = self.own_of(&state, parsed.named());
            let mut relations = self.relations(&state);
            let named: BTreeSet<String> = parsed.named().map(str::to_ascii_lowercase).collect();
            let own_named = || own.iter().filter(|own| named.contains(&own.name.to_ascii_lowercase()));
            // Only what is read is opened to the engine; a view of the owner's may read any of it.
            let reads_any = own_named().any(|own| own.is_view);
            if !reads_any {
                relations.iter_mut().filter(|(name, _)| !named.contains(*name)).for_each(|(_, r)| r.blobs.clear());
            }
            let views: Vec<String> = own_named()
                .map(|own| {
                    let name = quote_ident(&own.name);
                    format!("CREATE VIEW {name} AS SELECT * FROM {OWN}.main.{name}")
                })
                .collect();
            // The owner's own wins, as it does in the database.
            relations
                .extend(own.into_iter().map(|own| (own.name.to_ascii_lowercase(), relation(own.name, own.columns))));
            if let Some(error) = parsed
                .named()
                .filter(|name| !relations.contains_key(&name.to_ascii_lowercase()))
                .find_map(|name| not_here(&state, name))
            {
                return Err(error.into());
            }
            let database = self.database();
            let fill = move |conn: &crate::duck::MemoryConn, _: &_| {
                if views.is_empty() {
                    return Ok(Vec::new());
                }
                let path = database.to_string_lossy().into_owned();
                let attach = format!("ATTACH {} AS {OWN} (READ_ONLY); {}", quote_literal(&path), views.join("; "));
                conn.execute(&attach).map_err(Error::from)?;
                Ok(vec![path])
            };
            let set = GrantSet { fingerprint: format!("workspace {}", state.etag), relations };
            let scope = self.scope(&state, |name| reads_any || named.contains(&name.to_ascii_lowercase()));
            let guard = Box::new(reading.clone());
            match queries.ask(&parsed, query.clone(), (set, &scope), Box::new(fill), guard).await {
                Err(error) if error.code() == "data_missing" && !last => {}
                answer => return answer,
            }
        }
        Err(WorkspaceError::Empty.into())
    }

    /// What the owner keeps in the database, if a query names something that is not a table or
    /// snapshot with its view there: where there is none, the name may be the owner's.
    fn own_of<'a>(&self, state: &SyncState, named: impl IntoIterator<Item = &'a str>) -> Vec<OwnRelation> {
        let snapshots = self.snapshot_files();
        let is_ours = |name: &str| {
            let is_here = state.table(name).is_some() || snapshots.contains_key(name);
            is_here && state.views.iter().any(|view| view.eq_ignore_ascii_case(name))
        };
        if named.into_iter().all(is_ours) { Vec::new() } else { self.own_relations(state) }
    }

    /// What policies took from those tables and snapshots that are `read`.
    fn scope(&self, state: &SyncState, read: impl Fn(&str) -> bool) -> Vec<RowScope> {
        let tables = state.tables.iter().filter(|(name, _)| read(name));
        let mut scope: Vec<RowScope> = tables.filter_map(|(_, table)| table.row_scope.clone()).collect();
        for name in self.snapshot_files().into_keys().filter(|name| read(name)) {
            let of = self.described(&name).map(|meta| meta.row_scope).unwrap_or_default();
            scope.extend(of.into_iter().map(|of| RowScope { table: name.clone(), ..of }));
        }
        scope
    }

    /// Tables and snapshots, by name in lower case.
    fn relations(&self, state: &SyncState) -> BTreeMap<String, Relation> {
        let mut relations: BTreeMap<String, Relation> = BTreeMap::new();
        for (name, file) in self.snapshot_files() {
            let relation = Relation { blobs: vec![file], ..relation(name.clone(), Vec::new()) };
            relations.insert(name.to_ascii_lowercase(), relation);
        }
        for (name, table) in &state.tables {
            let blobs = table.files.iter().map(|file| self.blob(&file.blob)).collect();
            let relation =
                Relation { blobs, partitioned: table.partitioned, ..relation(name.clone(), table.columns.clone()) };
            relations.insert(name.to_ascii_lowercase(), relation);
        }
        relations
    }
}

fn relation(name: String, columns: Vec<(String, String, bool)>) -> Relation {
    Relation { name, description: None, columns, blobs: Vec::new(), partitioned: false }
}

/// Why a table that may be read cannot be asked here.
fn not_here(state: &SyncState, name: &str) -> Option<WorkspaceError> {
    let (table, known) = state.known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    let is_remote = known.query_mode == crate::registry::QueryMode::Remote;
    Some(WorkspaceError::NotHere { table: table.clone(), is_remote, size_bytes: known.size_bytes })
}

/// What a table that a query may name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedKind {
    /// A table of the server, with its files here.
    Table,
    /// A table of the server that may be read, but is not here.
    Elsewhere,
    /// Rows that were kept.
    Snapshot,
    /// A table or view of the owner's own.
    Own,
}

/// Something that a query may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As a query writes it.
    pub name: String,
    /// What it is.
    pub kind: NamedKind,
    /// Rows, where they are known.
    pub rows: Option<u64>,
    /// Bytes of its files, where they are known.
    pub size_bytes: Option<u64>,
    /// `(name, type)` of its columns; empty where they are not known without reading it.
    pub columns: Vec<(String, String)>,
}

impl Workspace {
    /// All that a query here may name, by name; what is not here comes by a pull or is asked of the
    /// server.
    ///
    /// # Errors
    /// `workspace_unreadable`, I/O errors.
    pub fn named(&self) -> Result<Vec<Named>> {
        let state = self.state()?;
        let columns = |all: &[(String, String, bool)]| all.iter().map(|(n, t, _)| (n.clone(), t.clone())).collect();
        let mut named: BTreeMap<String, Named> = BTreeMap::new();
        let mut add = |one: Named| drop(named.insert(one.name.to_ascii_lowercase(), one));
        for (name, table) in &state.known {
            let (rows, size_bytes) = (Some(table.rows), Some(table.size_bytes));
            add(Named { name: name.clone(), kind: NamedKind::Elsewhere, rows, size_bytes, columns: Vec::new() });
        }
        for (name, file) in self.snapshot_files() {
            let size_bytes = std::fs::metadata(file).ok().map(|file| file.len());
            add(Named { name, kind: NamedKind::Snapshot, rows: None, size_bytes, columns: Vec::new() });
        }
        for (name, table) in &state.tables {
            let (rows, size_bytes) = (Some(table.rows), Some(table.size_bytes));
            let columns = columns(&table.columns);
            add(Named { name: name.clone(), kind: NamedKind::Table, rows, size_bytes, columns });
        }
        for own in self.own_relations(&state) {
            let columns = columns(&own.columns);
            add(Named { name: own.name, kind: NamedKind::Own, rows: None, size_bytes: None, columns });
        }
        Ok(named.into_values().collect())
    }
}

/// A text of a row.
fn text(row: &serde_json::Map<String, serde_json::Value>, column: &str) -> String {
    row.get(column).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// A table at a glance.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Glance {
    /// Its name.
    pub table: String,
    /// Rows.
    pub row_count: u64,
    /// Columns, in order.
    pub columns: Vec<GlanceColumn>,
    /// A few rows.
    pub sample_rows: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A column of a [`Glance`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GlanceColumn {
    /// As in the data.
    pub name: String,
    /// Type of the engine.
    #[serde(rename = "type")]
    pub data_type: String,
}

impl Workspace {
    /// A table, snapshot, or table of the owner's own, at a glance.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn glance(&self, table: &str) -> Result<Glance> {
        let name = quote_ident(table);
        let rows = self.all(&Query::row_count(table).sql).await?;
        let row_count = rows.first().and_then(|row| row["n"].as_u64()).unwrap_or_default();
        let columns = self.all(&format!("DESCRIBE {name}")).await?;
        let columns = columns
            .iter()
            .map(|row| GlanceColumn { name: text(row, "column_name"), data_type: text(row, "column_type") })
            .collect();
        let sample_rows = self.all(&format!("SELECT * FROM {name} LIMIT 5")).await?;
        Ok(Glance { table: table.to_owned(), row_count, columns, sample_rows })
    }

    /// Columns of the snapshot that `name` means, as a server tells those of a table; none where it may
    /// mean a table of the server.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn snapshot_schema(&self, name: &str) -> Result<Option<TableSchema>> {
        let Some(meta) = self.snapshot_alone(name)? else { return Ok(None) };
        let columns = self.all(&format!("DESCRIBE {}", quote_ident(&meta.name))).await?;
        let columns = columns.iter().map(|row| ColumnSchema {
            name: text(row, "column_name"),
            data_type: text(row, "column_type"),
            nullable: text(row, "null") != "NO",
            description: String::new(),
            masked: None,
        });
        Ok(Some(TableSchema {
            table_id: meta.name.clone(),
            source_type: None,
            sql_flavor: "duckdb".to_owned(),
            columns: columns.collect(),
            partition_by: None,
            clustered_by: Vec::new(),
            row_scope: meta.row_scope.into_iter().next().map(|of| RowScope { table: meta.name.clone(), ..of }),
            where_dialect_hints: BTreeMap::new(),
            name: meta.name,
        }))
    }

    /// The first rows of the snapshot that `name` means; none where it may mean a table of the server.
    ///
    /// # Errors
    /// `bad_sample_size`; those of [`query`](Self::query).
    pub async fn snapshot_sample(&self, name: &str, rows: usize) -> Result<Option<Sample>> {
        let Some(meta) = self.snapshot_alone(name)? else { return Ok(None) };
        Sample::check_size(rows)?;
        let rows = self.all(&format!("SELECT * FROM {} LIMIT {rows}", quote_ident(&meta.name))).await?;
        Ok(Some(Sample { table_id: meta.name, rows, source: None }))
    }

    /// The snapshot of this name, unless the server has a table that is called so too.
    fn snapshot_alone(&self, name: &str) -> Result<Option<SnapshotMeta>> {
        let state = self.state()?;
        if state.table(name).is_some() || not_here(&state, name).is_some() {
            return Ok(None);
        }
        let found = self.snapshot_files().into_keys().find(|other| other.eq_ignore_ascii_case(name));
        Ok(found.and_then(|name| self.described(&name)))
    }

    async fn all(&self, sql: &str) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
        let mut rows = self.query(Query::new(sql)).await?;
        let mut all = Vec::new();
        while let Some(batch) = rows.next().await? {
            all.extend(crate::query::json_rows(&batch));
        }
        Ok(all)
    }
}

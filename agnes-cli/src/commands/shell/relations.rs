//! What there is to ask, wherever that is: tables and their columns.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use agnes_connectors::server::Served;
use agnes_core::catalog::CatalogTable;
use agnes_core::local::{CatalogTables, GetSchema};
use agnes_core::workspace::{Named, NamedKind};

use super::super::query::{self, At};
use crate::app::App;
use crate::args::QueryArgs;
use crate::failure::Outcome;
use crate::place;

/// A table at a glance.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    /// Where its rows are.
    pub(super) mode: &'static str,
    pub(super) source: Option<String>,
    pub(super) rows: Option<u64>,
    pub(super) size_bytes: Option<u64>,
    pub(super) description: String,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) data_type: String,
    pub(super) description: String,
}

/// What was found, for completing names while somebody types.
#[derive(Default)]
struct Known {
    tables: Vec<String>,
    /// By table, in lower case.
    columns: HashMap<String, Vec<String>>,
}

/// Tables and columns of the place that is asked.
pub(super) struct Relations {
    app: Arc<App>,
    args: Arc<QueryArgs>,
    at: At,
    place: String,
    known: Mutex<Known>,
}

impl fmt::Display for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl From<CatalogTable> for Table {
    fn from(table: CatalogTable) -> Self {
        Self {
            name: table.name,
            mode: table.query_mode.as_str(),
            source: table.source.or(table.source_type),
            rows: table.rows,
            size_bytes: table.size_bytes,
            description: table.description.unwrap_or_default(),
        }
    }
}

impl From<Named> for Table {
    fn from(named: Named) -> Self {
        let mode = match named.kind {
            NamedKind::Table => "here",
            NamedKind::Elsewhere => "not here",
            NamedKind::Snapshot => "snapshot",
            NamedKind::Own => "your own",
        };
        let Named { name, rows, size_bytes, .. } = named;
        Self { name, mode, source: None, rows, size_bytes, description: String::new() }
    }
}

impl Relations {
    pub(super) fn new(app: &Arc<App>, args: &Arc<QueryArgs>) -> Outcome<Self> {
        let at = match query::place_of(app, args)? {
            At::Either if query::files(app).is_err() => At::Server,
            at => at,
        };
        let place = match at {
            At::Folder => format!("the data folder {}", app.global.folder().display()),
            At::Server => query::server(app, args)?.server().to_owned(),
            At::Workspace => format!("the workspace {}", query::files(app)?.root().display()),
            At::Either => format!("the workspace {}, else its server", place::here()?.root().display()),
        };
        Ok(Self { app: app.clone(), args: args.clone(), at, place, known: Mutex::default() })
    }

    pub(super) fn is_in_workspace(&self) -> bool {
        matches!(self.at, At::Workspace | At::Either)
    }

    async fn ask<V: Served>(&self, verb: V) -> Outcome<V::Reply> {
        match self.at {
            At::Folder => self.app.call_as(verb, &self.args.who).await,
            _ => Ok(verb.ask(&query::server(&self.app, &self.args)?).await?.into_reply()),
        }
    }

    /// All tables that may be asked.
    pub(super) async fn list(&self) -> Outcome<Vec<Table>> {
        let mut tables: Vec<Table> = if self.is_in_workspace() {
            let named = named().await?;
            named.into_iter().map(Table::from).collect()
        } else {
            self.ask(CatalogTables {}).await?.into_iter().map(Table::from).collect()
        };
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { tables: tables.iter().map(|table| table.name.clone()).collect(), columns: HashMap::new() };
        Ok(tables)
    }

    /// The columns of one.
    pub(super) async fn columns(&self, table: &str) -> Outcome<Vec<Column>> {
        let found = if self.is_in_workspace() {
            named().await?.into_iter().find(|named| named.name.eq_ignore_ascii_case(table))
        } else {
            None
        };
        let plain = |(name, data_type)| Column { name, data_type, description: String::new() };
        let columns: Vec<Column> = match found {
            Some(named) if !named.columns.is_empty() => named.columns.into_iter().map(plain).collect(),
            found if self.at == At::Workspace || found.as_ref().is_some_and(|n| n.kind != NamedKind::Elsewhere) => {
                let columns = place::here()?.glance(table).await?.columns;
                columns.into_iter().map(|column| plain((column.name, column.data_type))).collect()
            }
            _ => {
                let schema = self.ask(GetSchema { table: table.to_owned() }).await?;
                let columns = schema.columns.into_iter();
                columns.map(|c| Column { name: c.name, data_type: c.data_type, description: c.description }).collect()
            }
        };
        let names = columns.iter().map(|column| column.name.clone()).collect();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).columns.insert(table.to_lowercase(), names);
        Ok(columns)
    }

    /// Names of the tables, as far as they were found.
    pub(super) fn tables(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tables.clone()
    }

    /// Names of the columns of a table. Where they were not looked at yet that is done now: for
    /// threads that may wait.
    pub(super) fn columns_of(&self, runtime: &tokio::runtime::Handle, table: &str) -> Vec<String> {
        let known = || {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.columns.get(&table.to_lowercase()).cloned()
        };
        if known().is_none() && runtime.block_on(self.columns(table)).is_err() {
            // A table that says no is not asked at every key.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.columns.insert(table.to_lowercase(), Vec::new());
        }
        known().unwrap_or_default()
    }
}

/// What the files of the workspace hold.
async fn named() -> Outcome<Vec<Named>> {
    let workspace = place::here()?;
    Ok(agnes_core::duck::blocking(move || workspace.named()).await?)
}

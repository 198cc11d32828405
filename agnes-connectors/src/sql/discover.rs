//! Which tables a database has, and what is known of them.

use std::collections::{HashMap, HashSet};

use agnes_core::connector::{DiscoveredTable, SourceContext};
use agnes_core::error::Result;
use agnes_core::ident::{TableName, printable, quote_literal};
use agnes_core::registry::{QueryMode, SyncStrategy};
use serde_json::json;

use super::config::{SqlConfig, TableOptions};
use super::dialect::{ALIAS, Dialect};
use super::session::Session;
use crate::files::names;

/// A relation of the source.
struct Found {
    schema: String,
    table: String,
    rows: Option<u64>,
    bytes: Option<u64>,
    description: Option<String>,
    key: Option<Vec<String>>,
    columns: Vec<(String, String)>,
}

/// Lists the tables of a source.
pub(crate) fn discover(source: &SourceContext, dialect: Dialect) -> Result<Vec<DiscoveredTable>> {
    let config = SqlConfig::parse(dialect, &source.config)?;
    let session = Session::open(source, dialect, &config)?;
    let found = list(&session, &config)?;
    let mut taken: HashSet<String> = config.tables.keys().cloned().collect();
    let mut named = HashSet::new();
    let mut tables = Vec::new();
    for (name, options) in &config.tables {
        let place = options.place(default_schema(dialect, &config));
        let known =
            place.as_ref().and_then(|(schema, table)| found.iter().find(|f| f.schema == *schema && f.table == *table));
        named.extend(place);
        tables.push(configured(TableName::parse(name)?, options, known));
    }
    // A table of which the settings name a query only is still found below.
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for one in &found {
        *seen.entry(one.table.as_str()).or_default() += 1;
    }
    for one in &found {
        if named.contains(&(one.schema.clone(), one.table.clone())) || !config.wants(&one.schema, &one.table) {
            continue;
        }
        let wish = match seen.get(one.table.as_str()) {
            Some(1) | None => one.table.clone(),
            _ => format!("{}_{}", one.schema, one.table),
        };
        let name = names::free(&names::table(&wish), &mut taken);
        let Ok(name) = TableName::parse(&name) else { continue };
        let mut table = described(DiscoveredTable::new(name, shown(&one.schema, &one.table)), one);
        table.options = Some(json!({"schema": one.schema, "table": one.table}));
        tables.push(table);
    }
    Ok(tables)
}

/// The primary key of one table, empty where it has none; `None` where there is no such table.
pub(crate) fn key_of(session: &Session, schema: &str, table: &str) -> Result<Option<Vec<String>>> {
    let all = session.dialect.ask(session.dialect.list());
    let wanted = format!("s = {} AND t = {}", quote_literal(schema), quote_literal(table));
    let rows = session.rows(&format!("SELECT k FROM {all} WHERE {wanted}"), &shown(schema, table))?;
    let key = rows.into_iter().next().map(|row| row.into_iter().next().flatten());
    Ok(key.map(|key| key.map(|key| key.split('\u{1f}').map(str::to_owned).collect()).unwrap_or_default()))
}

pub(crate) fn default_schema(dialect: Dialect, config: &SqlConfig) -> &str {
    match (dialect, config.schemas.as_slice()) {
        (_, [only]) => only,
        (Dialect::Postgres, _) => "public",
        (Dialect::MySql, _) => config.database.as_deref().unwrap_or_default(),
        (Dialect::Sqlite, _) => "main",
    }
}

fn shown(schema: &str, table: &str) -> String {
    format!("{schema}.{table}")
}

/// A table that the settings of the source describe.
fn configured(name: TableName, options: &TableOptions, known: Option<&Found>) -> DiscoveredTable {
    let source_table = known.map_or_else(
        || options.table.clone().unwrap_or_else(|| "a query".to_owned()),
        |found| shown(&found.schema, &found.table),
    );
    let mut table = DiscoveredTable::new(name, source_table);
    if let Some(found) = known {
        table = described(table, found);
        table.options = Some(json!({"schema": found.schema, "table": found.table}));
    }
    table.query_mode = options.mode.unwrap_or(QueryMode::Local);
    if let Some(query) = &options.query {
        (table.query_mode, table.source_query) = (QueryMode::Materialized, Some(query.clone()));
    }
    if options.cursor_column.is_some() && table.query_mode == QueryMode::Local {
        table.sync_strategy = SyncStrategy::Incremental;
    }
    table.primary_key = options.primary_key.clone().or(table.primary_key);
    table.description = options.description.clone().or(table.description);
    table
}

fn described(mut table: DiscoveredTable, found: &Found) -> DiscoveredTable {
    table.description = found.description.as_deref().map(|text| printable(text, 1000));
    table.primary_key.clone_from(&found.key);
    (table.rows, table.size_bytes) = (found.rows, found.bytes);
    table.columns.clone_from(&found.columns);
    table
}

fn list(session: &Session, config: &SqlConfig) -> Result<Vec<Found>> {
    let rows =
        session.rows(&format!("SELECT s, t, n, b, d, k FROM {}", session.dialect.ask(session.dialect.list())), "")?;
    let mut columns = columns(session);
    let found = rows.into_iter().filter_map(|row| {
        let [schema, table, rows, bytes, description, key] = <[Option<String>; 6]>::try_from(row).ok()?;
        let (schema, table) = (schema?, table?);
        // Of a MySQL server only the database that was named, unless others are.
        if session.dialect == Dialect::MySql && config.schemas.is_empty() && config.database.as_deref() != Some(&schema)
        {
            return None;
        }
        Some(Found {
            columns: columns.remove(&(schema.clone(), table.clone())).unwrap_or_default(),
            schema,
            table,
            rows: rows.and_then(|n| n.parse().ok()),
            bytes: bytes.and_then(|n| n.parse().ok()),
            description,
            key: key.map(|key| key.split('\u{1f}').map(str::to_owned).collect()),
        })
    });
    Ok(found.collect())
}

/// Columns of all relations; nothing where one that cannot be described spoils the list.
fn columns(session: &Session) -> HashMap<(String, String), Vec<(String, String)>> {
    let rows = session.db.rows(&format!(
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = {} \
         ORDER BY schema_name, table_name, column_index",
        quote_literal(ALIAS)
    ));
    let mut out: HashMap<(String, String), Vec<(String, String)>> = HashMap::new();
    for row in rows.unwrap_or_default() {
        if let Ok([Some(schema), Some(table), Some(column), Some(kind)]) = <[Option<String>; 4]>::try_from(row) {
            out.entry((schema, table)).or_default().push((column, kind));
        }
    }
    out
}

//! Full paths of warehouses in a query, and the registered tables they mean.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Native;
use crate::connector::{Cancel, Progress, SourceContext};
use crate::engine::Engine;
use crate::error::Result;
use crate::query::readable::CallerSet;
use crate::registry::{QueryMode, RegisteredTable, context};
use crate::sandbox::Gate;
use crate::warehouse::{Found, WarehouseError, find, rename};

/// The registered tables of warehouses, and where they are.
pub(super) async fn registered(engine: &Engine) -> Result<Vec<(Arc<RegisteredTable>, Native, String)>> {
    let index = engine.table_index().await?;
    let connector = |row: &RegisteredTable| {
        let connector = engine.connectors().get(row.source_type.as_deref()?)?;
        connector.warehouse().is_some().then_some(connector)
    };
    let mut sources: BTreeMap<String, SourceContext> = BTreeMap::new();
    let mut found = Vec::new();
    for row in index.iter() {
        let Some(connector) = connector(row) else { continue };
        let Some(name) = row.source.as_deref().or(row.source_type.as_deref()) else { continue };
        if !sources.contains_key(name) {
            let Some(source) = engine.store().sources().get(name).await? else { continue };
            sources.insert(name.to_owned(), context(engine, &source, Cancel::default(), Progress::default()));
        }
        let Some(source) = sources.get(name).cloned() else { continue };
        let Some(warehouse) = connector.warehouse() else { continue };
        // Rows that say no place are answers to queries: they have no path.
        let (Ok(path), Ok(home)) = (warehouse.path(&source, row), warehouse.home(&source)) else { continue };
        if row.query_mode == QueryMode::Materialized && row.source_query.is_some() {
            continue;
        }
        found.push((row.clone(), Native { path, columns: Vec::new(), source, connector: connector.clone() }, home));
    }
    // Tables that stay there come first, then by name.
    found.sort_by(|(a, ..), (b, ..)| {
        let key = |row: &RegisteredTable| (row.query_mode != QueryMode::Remote, row.name.clone());
        key(a).cmp(&key(b))
    });
    Ok(found)
}

/// `sql` with the registered names in the place of full paths of warehouses.
pub(in crate::query) async fn named<'s>(
    engine: &Engine,
    gate: &Gate,
    caller: &CallerSet,
    sql: &'s str,
) -> Result<Cow<'s, str>> {
    let Some((mut statement, explain)) = gate.with_paths(sql).await? else { return Ok(Cow::Borrowed(sql)) };
    let paths = find(&statement);
    if paths.is_empty() {
        return Ok(Cow::Borrowed(sql));
    }
    let registered = registered(engine).await?;
    let mut names: BTreeMap<Found, String> = BTreeMap::new();
    for path in paths {
        let mut matching = registered.iter().filter(|(_, native, home)| path.is(&native.path, home)).peekable();
        let may = |name: &str| {
            let name = name.to_ascii_lowercase();
            caller.set.relations.contains_key(&name) || caller.narrowed.blocked.contains_key(&name)
        };
        let Some((first, ..)) = matching.peek() else { return Err(unknown(&path, &registered).into()) };
        let denied = || WarehouseError::Denied { path: path.text(), registered_as: first.id.clone() };
        let row = matching.clone().find(|(row, ..)| may(&row.name)).map(|(row, ..)| row.clone());
        let name = row.map(|row| row.name.clone()).ok_or_else(denied)?;
        names.insert(path, name);
    }
    rename(&mut statement, &|path| names.get(path).cloned());
    let written = gate.render(statement).await?;
    Ok(Cow::Owned(if explain { format!("EXPLAIN {written}") } else { written }))
}

fn unknown(path: &Found, registered: &[(Arc<RegisteredTable>, Native, String)]) -> WarehouseError {
    let known = |project: &str| {
        registered.iter().any(|(_, native, home)| {
            [home.as_str(), native.path.project.as_str()].iter().any(|p| p.eq_ignore_ascii_case(project))
        })
    };
    match (&path.project, registered.first()) {
        (Some(project), Some((_, _, home))) if !known(project) => {
            WarehouseError::CrossProject { path: path.text(), expected: home.clone() }
        }
        _ => WarehouseError::NotRegistered { path: path.text() },
    }
}

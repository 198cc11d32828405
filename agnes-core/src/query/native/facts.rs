//! What a warehouse says of a table and of a query without reading anything.

use std::sync::Arc;
use std::time::Duration;

use super::Natives;
use super::paths::registered;
use crate::connector::WarehouseTable;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::query::{Params, Query, QueryError};
use crate::warehouse::{Dialect, needs};

/// How long a warehouse may take to describe a table.
const FACTS: Duration = Duration::from_secs(5);

/// What the warehouse of a table that stays there knows of it without reading it; nothing where it
/// does not say so soon.
pub(crate) async fn facts(engine: &Engine, name: &str) -> Option<Arc<WarehouseTable>> {
    let name = name.to_ascii_lowercase();
    let known = engine.queries().facts();
    if let Some(known) = known.get(&name) {
        return Some(known);
    }
    let all = registered(engine).await.ok()?;
    let (_, native, _) = all.into_iter().find(|(row, ..)| row.name.eq_ignore_ascii_case(&name))?;
    let told = native.warehouse().ok()?.describe(&native.source, &native.path);
    match tokio::time::timeout(FACTS, told).await {
        Ok(Ok(told)) => {
            let told = Arc::new(told);
            known.insert(name, told.clone());
            Some(told)
        }
        Ok(Err(error)) => {
            tracing::warn!(table = name, code = error.code(), "a warehouse does not describe a table: {error}");
            None
        }
        Err(_) => None,
    }
}

/// What a scan of a table that stays in a warehouse would read: none for other tables.
pub(crate) async fn estimate(
    engine: &Engine,
    ctx: &CallContext,
    sql: &str,
) -> Result<Option<(u64, Vec<(String, String, bool)>)>> {
    let look = crate::query::service::look(engine, ctx, &Query::new(sql)).await?;
    let names: Vec<&str> = look.checked.relations().iter().map(|(name, _)| name.as_str()).collect();
    let Some(natives) = Natives::of(engine, ctx, &look.caller, &names, None, true).await? else { return Ok(None) };
    let gate = engine.queries().gate().await?;
    let tree = gate.tree(look.checked.sql()).await?;
    let tables = natives.dialect_tables();
    let dialect = Dialect::new(&tables, &Params::None);
    let Some((name, native)) = natives.tables.iter().next() else { return Ok(None) };
    let sql = dialect.statement(&tree, None).or_else(|| {
        let all: Vec<String> = native.columns.iter().map(|column| column.0.clone()).collect();
        let need = needs(&tree, name, &all);
        let list: Vec<&str> = all.iter().map(String::as_str).collect();
        dialect.part(name, &list, &need.filters, u64::from(u32::MAX))
    });
    let sql = sql.ok_or_else(|| Error::from(QueryError::Remote { table: name.clone() }))?;
    let told = native.warehouse()?.estimate(&native.source, &sql).await?;
    Ok(Some((told.bytes, native.columns.clone())))
}

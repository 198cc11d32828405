//! Whether rules can be what they mean to be: names exist, expressions read and bind, and
//! the whole runs on the data as it is now.

use std::sync::Arc;

use super::narrowed::{narrow, user_values};
use super::slice::{EngineFailureOr, kind_of, sealed, watched};
use super::{ColumnRule, Distribution, Narrowed, Narrowing, PolicyError, PolicyRules};
use crate::duck::{EngineFailure, ScratchLimits};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::printable;
use crate::orchestrator::{Generation, PublishedTable};
use crate::rbac::{INTERNAL_TABLES, Principal};

/// Most characters that a partial mask keeps.
const MOST_KEPT: u32 = 1000;

/// Rules that work.
#[derive(Debug)]
pub(super) struct Checked {
    /// What grants name.
    pub(super) table_id: String,
    /// With names as the data has them.
    pub(super) rules: PolicyRules,
    /// Rows of the table.
    pub(super) rows: u64,
    /// Rows that are left to whoever checks.
    pub(super) rows_left: u64,
}

fn invalid(what: impl Into<String>, reason: impl Into<String>) -> PolicyError {
    PolicyError::Invalid { what: what.into(), reason: reason.into() }
}

/// The published table that `reference` means, with the id that grants use.
pub(super) async fn published(
    engine: &Engine,
    generation: &Generation,
    reference: &str,
) -> Result<(String, PublishedTable)> {
    let index = engine.table_index().await?;
    let name = index.find(reference).map_or_else(|| reference.to_owned(), |row| row.name.clone());
    if INTERNAL_TABLES.iter().any(|internal| internal.eq_ignore_ascii_case(&name)) {
        return Err(PolicyError::Internal { table: name }.into());
    }
    let table = generation.table(&name).cloned();
    let table = table.ok_or_else(|| PolicyError::NoTable { table: printable(&name, 80) })?;
    Ok((index.id_of(table.name.as_str()), table))
}

/// Tries `rules` on a table as it is now, as `principal`.
pub(super) async fn check_rules(
    engine: &Engine,
    principal: &Principal,
    table: &str,
    mut rules: PolicyRules,
) -> Result<Checked> {
    if rules.filter.is_none() && rules.columns.is_empty() && rules.distribution == Distribution::Slice {
        return Err(PolicyError::Empty.into());
    }
    let generation = engine.generation();
    let (table_id, table) = published(engine, &generation, table).await?;
    if table.remote.is_some() {
        return Err(PolicyError::Remote { table: table.name.to_string() }.into());
    }
    rules.columns = std::mem::take(&mut rules.columns)
        .into_iter()
        .map(|(name, rule)| {
            let column = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name));
            let column = column.ok_or_else(|| {
                let near = crate::ident::nearest(&name, table.columns.iter().map(|c| c.name.as_str()));
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                invalid(format!("column `{}`", printable(&name, 80)), format!("the table has no such column{near}"))
            })?;
            match rule {
                ColumnRule::Partial { keep, .. } if !(1..=MOST_KEPT).contains(&keep) => {
                    Err(invalid(format!("mask of `{name}`"), format!("it keeps 1 to {MOST_KEPT} characters")))
                }
                rule => Ok((column.name.clone(), rule)),
            }
        })
        .collect::<Result<_, _>>()?;
    if table.columns.iter().all(|column| rules.columns.get(&column.name) == Some(&ColumnRule::Hidden)) {
        return Err(invalid("hidden columns", "no column would be left: revoke the grant instead").into());
    }
    for name in &mut rules.mapping_tables {
        let (_, found) = published(engine, &generation, name).await.map_err(|_| {
            invalid(format!("mapping table `{}`", printable(name, 80)), "there is no published table of that name")
        })?;
        if found.remote.is_some() {
            return Err(invalid(format!("mapping table `{name}`"), "it is asked at its source").into());
        }
        *name = found.name.to_string();
    }
    let gate = engine.queries().gate().await?;
    let expressions = rules.filter.iter().map(|filter| ("row filter".to_owned(), filter.predicate.as_str()));
    let masks = rules.columns.iter().filter_map(|(column, rule)| match rule {
        ColumnRule::Expression { sql } => Some((format!("mask of `{column}`"), sql.as_str())),
        _ => None,
    });
    for (what, sql) in expressions.chain(masks) {
        let facts = gate.expression(sql).await.map_err(|error| invalid(what.clone(), error.to_string()))?;
        let named = |name: &String| {
            table.name.as_str().eq_ignore_ascii_case(name)
                || rules.mapping_tables.iter().any(|mapping| mapping.eq_ignore_ascii_case(name))
        };
        if let Some(other) = facts.tables.iter().find(|name| !named(name)) {
            let reason = format!("`{}` is not one of its mapping tables", printable(other, 80));
            return Err(invalid(what, reason).into());
        }
    }
    let narrowing = Narrowing {
        any_of: rules.filter.iter().map(|filter| filter.predicate.clone()).collect(),
        columns: rules.columns.iter().map(|(name, rule)| (name.to_lowercase(), rule.clone())).collect(),
        mapping_tables: rules.mapping_tables.iter().map(|name| name.to_lowercase()).collect(),
        distribution: rules.distribution,
        ..Narrowing::default()
    };
    let user = user_values(&*engine.access().await?, principal);
    let key = engine.instance_key().await?;
    let narrowed = narrow(gate, &generation, &table, &narrowing, &user, key).await?;
    let rows_left = count(engine, Arc::new(narrowed), true).await?;
    Ok(Checked { table_id, rules, rows: table.rows, rows_left })
}

/// Rows of a caller's part of a table. `all`: with every value computed, as a slice would.
///
/// # Errors
/// `policy_invalid` with what the engine says of the expressions, values left out.
pub(super) async fn count(engine: &Engine, narrowed: Arc<Narrowed>, all: bool) -> Result<u64> {
    let key = engine.instance_key().await?.clone();
    let (folder, scratch) = (engine.folder().clone(), engine.scratch().to_owned());
    let query = &engine.config().query;
    let limits =
        ScratchLimits { memory_bytes: query.memory_bytes, threads: query.threads, spill_bytes: query.spill_bytes };
    let timeout = engine.config().policy.slice_timeout;
    crate::duck::blocking(move || {
        let tables: Vec<&PublishedTable> = std::iter::once(&narrowed.table).chain(&narrowed.mapping).collect();
        let name = || narrowed.table.name.to_string();
        let failed = |failure: EngineFailureOr| -> Error {
            match failure {
                EngineFailureOr::Engine(failure) => invalid(format!("policy of `{}`", name()), reason(&failure)).into(),
                EngineFailureOr::Error(error) => error,
            }
        };
        let db = sealed(&folder, &scratch, &limits, &tables, &[], &key).map_err(failed)?;
        let values = if all { ", bit_xor(hash(q))" } else { "" };
        let sql = format!("SELECT count(*){values} FROM ({}) AS q", narrowed.sql);
        let slow = std::sync::atomic::AtomicBool::new(false);
        let started = std::time::Instant::now();
        let too_slow = || {
            let over = started.elapsed() > timeout;
            slow.fetch_or(over, std::sync::atomic::Ordering::SeqCst);
            over
        };
        let rows = watched(&db, &too_slow, || db.rows(&sql));
        if slow.load(std::sync::atomic::Ordering::SeqCst) && rows.is_err() {
            return Err(PolicyError::TooSlow { table: name(), seconds: timeout.as_secs() }.into());
        }
        let rows = rows.map_err(|failure| failed(failure.into()))?;
        let count = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        count.ok_or_else(|| Error::internal("count the rows of a slice", "no answer"))
    })
    .await
}

/// What the engine says of an expression: words only where they can hold no value.
fn reason(failure: &EngineFailure) -> String {
    let kind = kind_of(failure);
    match kind.as_str() {
        "Binder Error" | "Catalog Error" | "Parser Error" => {
            let words = failure.words().split("\n\n").next().unwrap_or_default();
            crate::query::scrub(words).lines().take(3).collect::<Vec<_>>().join(" ")
        }
        "Conversion Error" => "a value cannot be converted".to_owned(),
        "Out of Range Error" => "a value is out of range".to_owned(),
        "INTERRUPT Error" => "it was stopped".to_owned(),
        _ => format!("the engine cannot compute it ({})", kind.to_lowercase()),
    }
}

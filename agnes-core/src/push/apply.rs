//! From documents to published tables: the parts that changed, the extract, that source alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::{Documents, PushTable, RowsOf, shards};
use crate::connector::{Cancel, Connector, DiscoveredTable, Progress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::extract::{self, ExtractError, REJECTED_SUFFIX, TableChange, TableWriter};
use crate::ident::TableName;
use crate::registry::{self, RegisteredSource};
use crate::sync::SyncUpdate;

/// Who registers tables that a source is about to tell of.
const BY: &str = "system:push";

/// What became of documents.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Documents whose rows could not be taken.
    pub(super) failed: BTreeMap<String, Error>,
    /// Whether a table changed.
    pub(super) changed: bool,
}

/// The tables as a listing of the source would have them.
fn discovered(tables: &[PushTable]) -> Vec<DiscoveredTable> {
    let one = |table: &PushTable| DiscoveredTable {
        description: Some(table.description.clone()),
        primary_key: Some(table.primary_key.clone()),
        ..DiscoveredTable::new(table.name.clone(), table.source_table.clone())
    };
    tables.iter().map(one).collect()
}

/// Brings the tables to what these documents are now, and publishes the source where that
/// changed something. Runs with nobody else at the extract of this source.
pub(super) async fn documents(
    engine: &Engine,
    source: &RegisteredSource,
    connector: Arc<dyn Connector>,
    keys: BTreeSet<String>,
) -> Result<Applied> {
    let turn = engine.push_state().turn(source.name.as_str());
    let _mine = turn.lock().await;
    let context = registry::context(engine, source, Cancel::default(), Progress::default());
    let Some(push) = connector.push() else { return Ok(Applied::default()) };
    let tables = push.tables(&context)?;
    let index = engine.table_index().await?;
    if tables.iter().any(|table| index.by_name(table.name.as_str()).is_none()) {
        engine.register_discovered(source, discovered(&tables), BY).await?;
    }
    let index = engine.table_index().await?;
    // What an admin took out of the registry stays out.
    let mine = |table: &PushTable| {
        index.by_name(table.name.as_str()).is_some_and(|row| row.source.as_deref() == Some(source.name.as_str()))
    };
    let wanted: Vec<bool> = tables.iter().map(mine).collect();
    let all: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
    let (folder, now) = (engine.folder().extract(&source.name), engine.clock().now());
    let keep = move |table: &TableName| {
        let name = table.as_str().strip_suffix(REJECTED_SUFFIX).unwrap_or(table.as_str());
        index.by_name(name).is_some() || index.by_name(table.as_str()).is_some()
    };
    let started = std::time::Instant::now();
    let (applied, published) = crate::duck::blocking(move || {
        let Some(push) = connector.push() else { return Ok((Applied::default(), Vec::new())) };
        let documents = Documents::of(&folder);
        let mut failed = BTreeMap::new();
        let rows = rows(&documents, &keys, &mut failed, |key, document| push.rows(&context, &documents, key, document));
        let (changes, descriptions) = changes(&folder, &tables, &wanted, &rows, &mut failed)?;
        drop(rows);
        let changed: Vec<TableChange> = changes
            .into_iter()
            .zip(descriptions)
            .map(|(writer, description)| TableChange {
                name: writer.table().clone(),
                description: Some(description),
                data: writer.into(),
            })
            .collect();
        let names: Vec<TableName> = changed.iter().map(|change| change.name.clone()).collect();
        if !changed.is_empty() {
            for table in extract::publish(&folder, changed, &keep, now)? {
                if let Some(error) = table.error {
                    return Err(error);
                }
            }
        }
        Ok((Applied { failed, changed: !names.is_empty() }, names))
    })
    .await?;
    // Also where these changed nothing: a process that ended just before this left it to the next.
    let rebuilt = crate::orchestrator::rebuild_sources(engine, &[source.name.to_string()]).await?;
    let told = if applied.changed { &published } else { &all };
    if applied.changed || rebuilt.published {
        record(engine, told, started.elapsed()).await?;
    }
    Ok(Applied { changed: applied.changed || rebuilt.published, ..applied })
}

/// The rows of each document that can be read.
fn rows(
    documents: &Documents,
    keys: &BTreeSet<String>,
    failed: &mut BTreeMap<String, Error>,
    of: impl Fn(&str, &Value) -> Result<super::DocumentRows>,
) -> BTreeMap<String, super::DocumentRows> {
    let mut found = BTreeMap::new();
    for key in keys {
        match documents.read(key).and_then(|document| document.map(|document| of(key, &document)).transpose()) {
            Ok(Some(rows)) => drop(found.insert(key.clone(), rows)),
            // Nothing is known of it, and nothing ever was.
            Ok(None) => {}
            Err(error) => drop(failed.insert(key.clone(), error)),
        }
    }
    found
}

/// Writers of the tables that change, with their descriptions.
fn changes(
    folder: &Path,
    tables: &[PushTable],
    wanted: &[bool],
    rows: &BTreeMap<String, super::DocumentRows>,
    failed: &mut BTreeMap<String, Error>,
) -> Result<(Vec<TableWriter>, Vec<String>)> {
    let of_table = |index: usize, failed: &BTreeMap<String, Error>| -> Vec<RowsOf> {
        let of = |rows: &super::DocumentRows| -> Option<RecordBatch> { rows.tables.get(index).cloned().flatten() };
        rows.iter()
            .filter(|(key, _)| !failed.contains_key(*key))
            .map(|(key, rows)| RowsOf {
                key: key.clone(),
                part: rows.part.clone(),
                earlier: rows.earlier.clone(),
                rows: of(rows),
            })
            .collect()
    };
    // A month that cannot be read stops the documents of that month, in every table.
    let parts: BTreeSet<String> =
        rows.values().flat_map(|rows| rows.earlier.iter().chain([&rows.part])).cloned().collect();
    for (table, _) in tables.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
        let damaged = shards::damaged(folder, &table.name, &parts);
        for (key, rows) in rows {
            if rows.earlier.iter().chain([&rows.part]).any(|part| damaged.contains(part)) {
                failed.insert(key.clone(), ExtractError::NotParquet.into());
            }
        }
    }
    let (mut writers, mut descriptions) = (Vec::new(), Vec::new());
    for (index, table) in tables.iter().enumerate().filter(|(index, _)| wanted[*index]) {
        let mut writer = TableWriter::new(folder, table.name.clone());
        if shards::apply(&mut writer, &table.schema, table.document_column, &of_table(index, failed))? {
            writers.push(writer);
            descriptions.push(table.description.clone());
        }
    }
    Ok((writers, descriptions))
}

/// Says in the state of each table's syncs what it is now.
async fn record(engine: &Engine, tables: &[TableName], took: std::time::Duration) -> Result<()> {
    let generation = engine.generation();
    let updates: Vec<SyncUpdate> = generation
        .tables()
        .filter(|table| tables.contains(&table.name))
        .map(|table| SyncUpdate {
            table_id: table.name.to_string(),
            rows: i64::try_from(table.rows).unwrap_or(i64::MAX),
            file_size_bytes: i64::try_from(table.size_bytes).unwrap_or(i64::MAX),
            columns: i32::try_from(table.columns.len()).ok(),
            hash: table.manifest_hash.clone(),
            parts: table.partitioned.then(|| table.parts.clone()),
            duration_ms: i64::try_from(took.as_millis()).ok(),
            bump_last_sync: true,
            // One row for each delivery would bury what people look for in it.
            history: false,
        })
        .collect();
    engine.store().sync().update(&updates, engine.clock().now()).await
}

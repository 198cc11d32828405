//! What a rebuild leaves in the state of syncs.

use std::collections::{BTreeMap, HashSet};

use super::RebuildOutcome;
use crate::engine::Engine;
use crate::error::Result;
use crate::sync::{SyncState, SyncStatus, SyncUpdate};

/// Sync state of extracts that others write; a run of Agnes's own records its tables itself.
/// Compared with what is recorded, not with the last generation: a kill between the
/// publication and this is made good by the next rebuild.
pub(super) async fn record(engine: &Engine, outcome: &RebuildOutcome) -> Result<()> {
    let own: HashSet<String> = engine.store().sources().list().await?.into_iter().map(|s| s.name.to_string()).collect();
    let generation = engine.generation();
    let (sync, now) = (engine.store().sync(), engine.clock().now());
    let states: BTreeMap<String, SyncState> = sync.all().await?.into_iter().map(|s| (s.table_id.clone(), s)).collect();
    let failed: BTreeMap<&str, &str> = outcome
        .sources
        .iter()
        .filter(|source| !own.contains(&source.source))
        .flat_map(|source| &source.skipped)
        .filter_map(|row| match row.reason.as_str() {
            "missing_data" => Some((row.table.as_str(), "missing data")),
            "unreadable_data" => Some((row.table.as_str(), row.detail.as_str())),
            _ => None,
        })
        .collect();
    let mut updates = Vec::new();
    for table in generation.tables().filter(|t| !own.contains(t.source.as_str())) {
        if failed.contains_key(table.name.as_str()) {
            continue;
        }
        let state = states.get(table.name.as_str());
        let rows = i64::try_from(table.rows).unwrap_or(i64::MAX);
        if state.is_some_and(|s| s.hash.as_deref() == Some(table.manifest_hash.as_str()) && s.rows == Some(rows)) {
            if state.is_some_and(|s| s.status == SyncStatus::Error) {
                sync.clear_error(table.name.as_str()).await?;
            }
            continue;
        }
        updates.push(SyncUpdate {
            table_id: table.name.to_string(),
            rows,
            file_size_bytes: i64::try_from(table.size_bytes).unwrap_or(i64::MAX),
            columns: i32::try_from(table.columns.len()).ok(),
            hash: table.manifest_hash.clone(),
            parts: table.partitioned.then(|| table.parts.clone()),
            duration_ms: None,
            bump_last_sync: table.mode != crate::registry::QueryMode::Materialized,
            history: true,
        });
    }
    if !updates.is_empty() {
        sync.update(&updates, now).await?;
    }
    for (table, words) in failed {
        let known =
            states.get(table).is_some_and(|s| s.status == SyncStatus::Error && s.error.as_deref() == Some(words));
        if !known {
            sync.set_error(table, words, now).await?;
        }
    }
    Ok(())
}

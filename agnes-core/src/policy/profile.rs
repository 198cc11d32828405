//! Profiles of slices: made of one caller's part alone, when somebody asks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Narrowed;
use crate::connector::Cancel;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::PublishedTable;
use crate::registry::RegisteredTable;

/// The profile of a caller's part of a table. Those who share the slice share the profile.
///
/// # Errors
/// Those of making the slice; of the profile.
pub(crate) async fn profile(engine: &Engine, part: &Arc<Narrowed>, row: Option<&RegisteredTable>) -> Result<Value> {
    let profiles = engine.slices().profiles();
    if let Some(known) = profiles.get(&part.key) {
        return Ok((*known).clone());
    }
    let slice = engine.slices().get(engine, part).await?;
    let table = PublishedTable {
        rows: slice.part.rows,
        size_bytes: slice.part.size_bytes,
        parts: vec![slice.part.clone()],
        ..part.seen.clone()
    };
    // A key of which the caller sees a part is none.
    let row = row.map(|row| {
        let whole = |key: &Vec<String>| key.iter().all(|name| part.narrowing.rule(name).is_none());
        RegisteredTable { primary_key: row.primary_key.clone().filter(whole), ..row.clone() }
    });
    let _turn = engine.slices().turn().await?;
    let mut profile = crate::profile::of_table(engine, table, row, &Cancel::default()).await?;
    if let Value::Object(map) = &mut profile {
        map.insert("profiled_at".to_owned(), json!(engine.clock().now()));
        map.insert("stale".to_owned(), json!(false));
        map.insert("row_scope".to_owned(), json!(part.scope()));
    }
    drop(slice);
    profiles.insert(part.key.clone(), Arc::new(profile.clone()));
    Ok(profile)
}

//! Statistics of each column: made in the background when content changed, by content
//! hash, one table at a time with bounded memory.

mod columns;
mod compute;
mod jobs;
mod model;

pub use jobs::PROFILE_JOB;
pub(crate) use jobs::{after_publication, finish, start};
pub use model::*;

use std::collections::HashMap;

use crate::connector::Cancel;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::{Generation, PublishedTable};
use crate::registry::RegisteredTable;

/// What keeps profiles from being made side by side.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Held by the one that works on the jobs.
    worker: tokio::sync::Mutex<()>,
    /// Held by the one profile that is being made.
    one: tokio::sync::Mutex<()>,
}

/// Tables of a generation whose content is not that of their profile.
async fn stale<'g>(engine: &Engine, generation: &'g Generation) -> Result<Vec<&'g PublishedTable>> {
    let known: HashMap<String, String> = engine.store().profiles().hashes().await?.into_iter().collect();
    let same = |table: &PublishedTable| known.get(table.name.as_str()).is_some_and(|hash| *hash == table.content_hash);
    Ok(generation.tables().filter(|table| table.remote.is_none() && !same(table)).collect())
}

/// What became of the profiles of a generation.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// How many were made.
    pub(crate) made: usize,
    /// Tables whose profile could not be made, and the error's code.
    pub(crate) failed: Vec<(String, String)>,
}

/// Profiles every table of a generation whose content changed; one that cannot be made
/// stops no other.
async fn profile_changed(engine: &Engine, generation: &Generation, cancel: &Cancel) -> Result<Made> {
    let mut made = Made::default();
    for table in stale(engine, generation).await? {
        if cancel.is_cancelled() {
            break;
        }
        let row = engine.table_index().await.ok().and_then(|index| index.by_name(table.name.as_str()).cloned());
        match make(engine, table, row.as_deref(), cancel).await {
            Ok(()) => made.made += 1,
            Err(error) => {
                tracing::warn!(table = %table.name, code = error.code(), "a profile was not made: {error}");
                made.failed.push((table.name.to_string(), error.code().to_owned()));
            }
        }
    }
    Ok(made)
}

/// Ends the work when whoever waits for it goes away.
struct EndsWith(Cancel);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Makes and keeps the profile of one table. One at a time, whoever asks: each may use the
/// whole of `profiler.memory_mb`.
pub(crate) async fn make(
    engine: &Engine,
    table: &PublishedTable,
    row: Option<&RegisteredTable>,
    cancel: &Cancel,
) -> Result<()> {
    let _turn = engine.profiles().one.lock().await;
    let value = of_table(engine, table.clone(), row.cloned(), cancel).await?;
    engine.store().profiles().put(table.name.as_str(), &table.content_hash, &value, engine.clock().now()).await
}

/// The profile of one table, which is not kept.
pub(crate) async fn of_table(
    engine: &Engine,
    table: PublishedTable,
    row: Option<RegisteredTable>,
    cancel: &Cancel,
) -> Result<serde_json::Value> {
    cancel.check()?;
    let cancel = cancel.child();
    let _ends = EndsWith(cancel.clone());
    let (folder, scratch) = (engine.folder().clone(), engine.scratch().to_owned());
    let config = engine.config().profiler.clone();
    let profile = crate::duck::blocking(move || {
        let scan = crate::orchestrator::scan(&folder, &table);
        compute::profile(&table, row.as_ref(), &scan, &config, &scratch, &cancel)
    })
    .await?;
    serde_json::to_value(&profile).map_err(|e| crate::Error::internal("write a profile", e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

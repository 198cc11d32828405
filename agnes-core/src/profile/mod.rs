//! Statistics of each column: made when content changed, by content hash, one table at a
//! time with bounded memory.

mod columns;
mod compute;
mod model;

pub use model::*;

use std::collections::HashMap;

use crate::connector::Cancel;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::{Generation, PublishedTable};
use crate::registry::RegisteredTable;

/// Profiles every published table whose content changed since its profile. For admins.
/// Returns how many were made.
///
/// # Errors
/// `admin_required`.
pub async fn profile_published(engine: &Engine, ctx: &CallContext) -> Result<usize> {
    engine.access().await?.require_admin(ctx.principal())?;
    Ok(profile_changed(engine, &engine.generation(), &Cancel::default()).await)
}

/// Profiles every table of a generation whose content changed; a profile that cannot be
/// made is logged and stops no other. Returns how many were made.
pub(crate) async fn profile_changed(engine: &Engine, generation: &Generation, cancel: &Cancel) -> usize {
    let known: HashMap<String, String> = match engine.store().profiles().hashes().await {
        Ok(hashes) => hashes.into_iter().collect(),
        Err(error) => {
            tracing::warn!(code = error.code(), "profiles cannot be read: {error}");
            return 0;
        }
    };
    let mut made = 0;
    for table in generation.tables() {
        let same = known.get(table.name.as_str()).is_some_and(|hash| *hash == table.content_hash);
        if same || table.remote.is_some() || cancel.is_cancelled() {
            continue;
        }
        let row = engine.table_index().await.ok().and_then(|index| index.by_name(table.name.as_str()).cloned());
        match make(engine, table, row.as_deref(), cancel).await {
            Ok(()) => made += 1,
            Err(error) => tracing::warn!(table = %table.name, code = error.code(), "a profile was not made: {error}"),
        }
    }
    made
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
    let _turn = engine.profile_turn().await;
    cancel.check()?;
    let cancel = cancel.child();
    let _ends = EndsWith(cancel.clone());
    let (folder, scratch) = (engine.folder().clone(), engine.scratch().to_owned());
    let (config, work, row) = (engine.config().profiler.clone(), table.clone(), row.cloned());
    let profile = crate::duck::blocking(move || {
        let scan = crate::orchestrator::scan(&folder, &work);
        compute::profile(&work, row.as_ref(), &scan, &config, &scratch, &cancel)
    })
    .await?;
    let value = serde_json::to_value(&profile).map_err(|e| crate::Error::internal("write a profile", e))?;
    engine.store().profiles().put(table.name.as_str(), &table.content_hash, &value, engine.clock().now()).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

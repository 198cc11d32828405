//! Deletes generations nobody needs, and the blobs that only they name.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load;
use crate::engine::Engine;
use crate::error::Result;
use crate::policy::StillUsed;

/// Blobs younger than this stay: a rebuild may be about to name them.
const YOUNG: Duration = Duration::from_secs(3600);

/// What a collection deleted, or would delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcReport {
    /// Whether nothing was deleted, only counted.
    pub dry_run: bool,
    /// Generations deleted.
    pub generations: u64,
    /// Blobs deleted.
    pub blobs: u64,
    /// Bytes of the blobs deleted.
    pub bytes: u64,
    /// Bytes of the blobs kept.
    pub kept_bytes: u64,
}

/// Collects garbage: generations beyond the configured count and age, and blobs that no
/// generation on disk or in use names.
pub(crate) async fn collect_garbage(engine: &Engine, dry_run: bool) -> Result<GcReport> {
    // No rebuild meanwhile: what it is about to name must stay.
    let _still = engine.rebuilds().pause().await;
    // Sets of callers who may never come back hold slices.
    engine.queries().forget_callers();
    let no_slices = engine.slices().pause().await;
    let access = engine.access().await?;
    let policies = access.policies.values().flatten().map(|p| (p.id.clone(), p.version)).collect();
    let (folder, current) = (engine.folder().clone(), engine.generation());
    let (keep, max_age) = (engine.config().generations.keep.max(1), engine.config().generations.max_age);
    let in_use = engine.generations_in_use();
    let now = engine.clock().now();
    crate::duck::blocking(move || {
        let mut report = GcReport { dry_run, ..GcReport::default() };
        let mut named: HashSet<String> = HashSet::new();
        let mut contents: HashSet<String> = HashSet::new();
        let numbers = load::numbers(&folder);
        let newest: HashSet<u64> = numbers.iter().rev().take(keep).copied().collect();
        for number in numbers {
            let generation = load::read_any(&folder, number);
            let old =
                generation.as_ref().is_some_and(|g| (now - g.published_at).to_std().is_ok_and(|age| age > max_age));
            if number == current.number || newest.contains(&number) && !old {
                contents.extend(generation.iter().flat_map(|g| g.tables()).map(|table| table.content_hash.clone()));
                named.extend(
                    generation.iter().flat_map(|g| g.tables()).flat_map(|t| &t.parts).map(|p| p.sha256.clone()),
                );
                continue;
            }
            report.generations += 1;
            if !dry_run {
                drop(std::fs::remove_file(folder.generation(number)));
            }
        }
        for generation in in_use.iter().chain([&current]) {
            contents.extend(generation.tables().map(|table| table.content_hash.clone()));
            named.extend(generation.tables().flat_map(|t| &t.parts).map(|p| p.sha256.clone()));
        }
        let still = StillUsed { contents, policies };
        let (kept, gone) = crate::policy::collect(&folder, &still, &no_slices, dry_run);
        named.extend(kept);
        named.extend(crate::query::leased_blobs(&folder, now, dry_run));
        for shelf in std::fs::read_dir(folder.blobs()).into_iter().flatten().flatten() {
            for blob in std::fs::read_dir(shelf.path()).into_iter().flatten().flatten() {
                let name = blob.file_name();
                let Some(sha256) = name.to_str().and_then(|n| n.strip_suffix(".parquet")) else { continue };
                let Ok(meta) = blob.metadata() else { continue };
                if named.contains(sha256) || !gone.contains(sha256) && changed_within(&meta, YOUNG) {
                    report.kept_bytes += meta.len();
                    continue;
                }
                report.blobs += 1;
                report.bytes += meta.len();
                if !dry_run {
                    drop(std::fs::remove_file(blob.path()));
                }
            }
        }
        Ok(report)
    })
    .await
}

fn changed_within(meta: &std::fs::Metadata, age: Duration) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let changed = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
        changed.elapsed().is_ok_and(|elapsed| elapsed < age)
    }
    #[cfg(not(unix))]
    meta.modified().is_ok_and(|m| m.elapsed().is_ok_and(|elapsed| elapsed < age))
}

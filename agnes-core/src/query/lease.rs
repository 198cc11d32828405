//! Leases: which blobs a receipt keeps, and how the relations over them looked.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::readable::CallerSet;
use super::runtime::{GrantSet, Relation};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::DataFolder;
use crate::sandbox::Checked;

/// What a receipt reads.
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    expires_at: DateTime<Utc>,
    /// By name in lower case; in place of files the hashes of their blobs.
    relations: BTreeMap<String, Relation>,
}

fn file(folder: &DataFolder, receipt: &str) -> PathBuf {
    folder.leases().join(format!("{receipt}.json"))
}

/// Keeps what a query is about to read until `expires_at`.
pub(super) async fn write(
    engine: &Engine,
    receipt: &str,
    expires_at: DateTime<Utc>,
    checked: &Checked,
    caller: &CallerSet,
) -> Result<()> {
    let named = |name: &String| checked.relations().iter().any(|(n, _)| n == name);
    let relations = caller.set.relations.iter().filter(|(name, _)| named(name) || !checked.system().is_empty());
    let relations = relations
        .map(|(name, relation)| {
            let hash = |path: &PathBuf| path.file_stem().map(PathBuf::from);
            let blobs = if named(name) { relation.blobs.iter().filter_map(hash).collect() } else { Vec::new() };
            (name.clone(), Relation { blobs, ..relation.clone() })
        })
        .collect();
    let text = serde_json::to_vec(&Lease { expires_at, relations }).map_err(|e| Error::internal("write a lease", e))?;
    let path = file(engine.folder(), receipt);
    crate::duck::blocking(move || crate::extract::write_atomically(&path, &text)).await
}

/// The relations of a receipt over the blobs it was made of; `None` when its lease has
/// ended or a blob is gone.
pub(super) async fn read(engine: &Engine, receipt: &str) -> Result<Option<Arc<GrantSet>>> {
    let (folder, now) = (engine.folder().clone(), engine.clock().now());
    let path = file(&folder, receipt);
    crate::duck::blocking(move || {
        let lease = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Lease>(&text).ok());
        let Some(lease) = lease.filter(|lease| lease.expires_at > now) else { return Ok(None) };
        let mut relations = lease.relations;
        let text = serde_json::to_vec(&relations).map_err(|e| Error::internal("read a lease", e))?;
        for relation in relations.values_mut() {
            for blob in &mut relation.blobs {
                *blob = folder.blob(&blob.to_string_lossy());
                if !blob.is_file() {
                    return Ok(None);
                }
            }
        }
        let fingerprint = crate::orchestrator::hex(&Sha256::new_with_prefix("lease").chain_update(text).finalize());
        Ok(Some(Arc::new(GrantSet { fingerprint, relations })))
    })
    .await
}

/// Ends leases whose time is over; gives the blobs of the others. Blocks.
pub(crate) fn leased_blobs(folder: &DataFolder, now: DateTime<Utc>, dry_run: bool) -> HashSet<String> {
    let mut kept = HashSet::new();
    for entry in std::fs::read_dir(folder.leases()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let lease = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Lease>(&text).ok());
        match lease.filter(|lease| lease.expires_at > now) {
            Some(lease) => {
                let blobs = lease.relations.into_values().flat_map(|relation| relation.blobs);
                kept.extend(blobs.map(|blob| blob.to_string_lossy().into_owned()));
            }
            None if !dry_run => drop(std::fs::remove_file(path)),
            None => {}
        }
    }
    kept
}

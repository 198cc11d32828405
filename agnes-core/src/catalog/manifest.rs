//! The manifest: which files a caller may pull, and their hashes.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Catalog;
use crate::context::CallContext;
use crate::error::Result;
use crate::layout::DataFolder;
use crate::orchestrator::Part;
use crate::policy::Distribution;
use crate::registry::QueryMode;
use crate::sync::SyncStatus;

/// What a caller may pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// By published name.
    pub tables: BTreeMap<String, ManifestTable>,
    /// Other things to pull, by kind: `docs` and `profiles`, each `{"hash"}`, where there are
    /// any.
    pub assets: BTreeMap<String, serde_json::Value>,
    /// When this was made.
    pub server_time: DateTime<Utc>,
    /// Number of the published generation.
    pub generation: u64,
    /// SHA-256 over the tables and assets, but the times: equal when there is nothing to pull and
    /// nothing to tell.
    pub etag: String,
}

/// One table of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestTable {
    /// What grants name.
    pub id: String,
    /// MD5 of the file's bytes; of a partitioned table a rollup over its parts; empty for
    /// remote tables.
    pub hash: String,
    /// SHA-256 of the file's bytes; none for partitioned and remote tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When the table was last brought up to date.
    pub updated: Option<DateTime<Utc>>,
    /// Bytes of Parquet.
    pub size_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// `local`, `materialized` or `remote` (no file).
    pub query_mode: QueryMode,
    /// Kind of the source; empty for a table that nobody registered.
    pub source_type: String,
    /// Parts of a partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<ManifestPart>>,
    /// Whether the file holds the caller's part of the table alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slice: bool,
    /// `error` when the last sync failed; the data is that of the last good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// One file of a partitioned table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Path below the tables' folder, `/`-separated.
    pub path: String,
    /// MD5 of its bytes.
    pub hash: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
}

impl From<&Part> for ManifestPart {
    fn from(part: &Part) -> Self {
        Self {
            path: part.path.clone(),
            hash: part.md5.clone(),
            sha256: part.sha256.clone(),
            size_bytes: part.size_bytes,
        }
    }
}

impl Catalog<'_> {
    /// The tables that the caller may pull: those they may read and did not switch off
    /// ([`Catalog::set_preferences`]), but internal tables and tables that stay on the
    /// server.
    ///
    /// # Errors
    /// `inactive_user`.
    pub async fn manifest(&self, ctx: &CallContext) -> Result<Manifest> {
        let view = self.view(ctx).await?;
        let states: HashMap<String, _> =
            self.engine.store().sync().all().await?.into_iter().map(|s| (s.table_id.to_lowercase(), s)).collect();
        let wanted = self.engine.store().preferences().of(ctx.principal().user_id()).await?;
        let mut tables = BTreeMap::new();
        for found in view.all() {
            let Some(published) = found.published.filter(|_| wanted.wants(&found.id, found.name())) else { continue };
            if found.row.is_some_and(|row| row.server_only || row.query_mode == QueryMode::Internal) {
                continue;
            }
            let part = match found.narrowed {
                None => None,
                Some(part) if part.narrowing.distribution == Distribution::ServerOnly => continue,
                Some(part) if part.is_whole() => None,
                Some(part) => match self.engine.slices().get(self.engine, part).await {
                    Ok(slice) => Some(slice),
                    Err(error) => {
                        // Left out rather than whole.
                        tracing::warn!(table = found.name(), code = error.code(), "a slice is not offered: {error}");
                        continue;
                    }
                },
            };
            let slice = part.as_ref().map(|slice| &slice.part);
            let state = states.get(&found.name().to_lowercase());
            let failed = state.is_some_and(|s| s.status == SyncStatus::Error);
            tables.insert(
                found.name().to_owned(),
                ManifestTable {
                    hash: slice.map_or_else(|| published.manifest_hash.clone(), |part| part.md5.clone()),
                    sha256: match published.parts.as_slice() {
                        _ if slice.is_some() => slice.map(|part| part.sha256.clone()),
                        [only] if !published.partitioned => Some(only.sha256.clone()),
                        _ => None,
                    },
                    updated: state.and_then(|s| s.last_sync).or(published.extracted_at),
                    size_bytes: slice.map_or(published.size_bytes, |part| part.size_bytes),
                    rows: slice.map_or(published.rows, |part| part.rows),
                    slice: slice.is_some(),
                    query_mode: published.mode,
                    source_type: found.row.and_then(|row| row.source_type.clone()).unwrap_or_default(),
                    parts: published.partitioned.then(|| published.parts.iter().map(ManifestPart::from).collect()),
                    status: failed.then(|| "error".to_owned()),
                    id: found.id,
                },
            );
        }
        let folder = self.engine.folder().clone();
        let everything = view.sees_everything(ctx);
        let assets = crate::duck::blocking(move || assets(&folder, everything)).await?;
        let etag = etag(&tables, &assets)?;
        let now = self.engine.clock().now();
        if !ctx.principal().is_trusted_owner() {
            // Never in the way of the answer.
            if let Err(error) = self.engine.store().users().touch_last_pull(ctx.principal().user_id(), now).await {
                tracing::warn!(code = error.code(), "the time of a pull was not recorded: {error}");
            }
        }
        let admin = view.is_admin(ctx);
        self.engine
            .audit()
            .event(ctx, "manifest.fetch")
            .params(json!({"tables": tables.len(), "admin": admin}))
            .later();
        Ok(Manifest { assets, server_time: now, generation: view.generation.number, etag, tables })
    }
}

/// The folder of documents, when there is one: its hash is the newest time of a file in it
/// as whole seconds, 0 when it is empty. And older profiles kept as a file, by their MD5: they
/// are of whole tables, all of them, so they are for those who see `everything`.
fn assets(folder: &DataFolder, everything: bool) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut assets = BTreeMap::new();
    if folder.docs().is_dir() {
        let seconds = |entry: &walkdir::DirEntry| {
            let modified = entry.metadata().ok()?.modified().ok()?;
            modified.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
        };
        let files = walkdir::WalkDir::new(folder.docs()).into_iter().flatten();
        let newest = files.filter(|entry| entry.file_type().is_file()).filter_map(|entry| seconds(&entry)).max();
        assets.insert("docs".to_owned(), json!({"hash": newest.unwrap_or(0).to_string()}));
    }
    if !everything {
        return Ok(assets);
    }
    match std::fs::read(folder.legacy_profiles()) {
        Ok(bytes) => {
            use md5::Digest as _;
            let hash = crate::orchestrator::hex(&md5::Md5::digest(&bytes));
            assets.insert("profiles".to_owned(), json!({"hash": hash}));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(crate::Error::io("read the profiles of an older version", error)),
    }
    Ok(assets)
}

fn etag(tables: &BTreeMap<String, ManifestTable>, assets: &BTreeMap<String, serde_json::Value>) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(json!(assets).to_string());
    for (name, table) in tables {
        let timeless = ManifestTable { updated: None, ..table.clone() };
        let text = serde_json::to_vec(&(name, timeless)).map_err(|e| crate::Error::internal("hash a manifest", e))?;
        hash.update(text);
    }
    Ok(crate::orchestrator::hex(&hash.finalize()))
}

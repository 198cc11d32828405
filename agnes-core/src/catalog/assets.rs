//! What laptops pull beside tables: documentation and helpers of the operator, and profiles of an
//! older version.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use md5::Md5;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::tables::View;
use super::{Catalog, CatalogError, Download};
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::ident::{PlainFiles, is_plain_path, printable};
use crate::layout::DataFolder;
use crate::orchestrator::{FileSignature, hex, signature_of};
use crate::rbac::Ability;

/// Kind of the files below `docs/`.
const DOCS: &str = "docs";
/// Kind of the profiles of an older version, and the name of their file.
const PROFILES: (&str, &str) = ("profiles", "profiles.json");
/// Files that are offered of a kind; a folder with more is not one of documents.
const MOST: usize = 10_000;
/// A file that changed this lately is hashed again: its time may not show the next change.
const FRESH: Duration = Duration::from_secs(2);

/// What a caller may pull of one kind of files that are no tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestAsset {
    /// Of `docs` the newest time of a file, whole seconds as text, `0` when there is none; of
    /// `profiles` the MD5 of the file.
    #[serde(default)]
    pub hash: String,
    /// Bytes of all files.
    #[serde(default)]
    pub size_bytes: u64,
    /// The files, by path.
    #[serde(default)]
    pub files: Vec<AssetFile>,
}

/// One file of an asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssetFile {
    /// Path below the folder of its kind, `/`-separated.
    pub path: String,
    /// MD5 of its bytes.
    pub hash: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// A file that is there.
struct Offered {
    path: String,
    file: PathBuf,
    meta: Metadata,
}

#[derive(Debug, Clone)]
struct Hashed {
    signature: FileSignature,
    md5: String,
    sha256: String,
}

/// Hashes of assets, each as of what its file looked like.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssetHashes(Arc<Mutex<HashMap<PathBuf, Hashed>>>);

impl AssetHashes {
    /// The hashes of a file; `None` where it changes while it is read.
    fn of(&self, offered: &Offered) -> std::io::Result<Option<Hashed>> {
        let signature = signature_of(&offered.meta);
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashed) = kept().get(&offered.file).filter(|hashed| hashed.signature == signature) {
            return Ok(Some(hashed.clone()));
        }
        let mut file = File::open(&offered.file)?;
        let (mut md5, mut sha256, mut buffer) = (Md5::new(), Sha256::new(), vec![0; 64 << 10]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            md5.update(&buffer[..read]);
            sha256.update(&buffer[..read]);
        }
        if signature_of(&file.metadata()?) != signature {
            return Ok(None);
        }
        let hashed = Hashed { signature, md5: hex(&md5.finalize()), sha256: hex(&sha256.finalize()) };
        let changed = offered.meta.modified().unwrap_or(SystemTime::now());
        if changed.elapsed().is_ok_and(|age| age > FRESH) {
            kept().insert(offered.file.clone(), hashed.clone());
        }
        Ok(Some(hashed))
    }
}

/// The table that a document is about: `tables/<table>.md`, or a file below `tables/<table>/`.
fn table_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("tables/")?;
    match below.split_once('/') {
        Some((table, _)) => Some(table),
        None => Some(below.rsplit_once('.').map_or(below, |(table, _)| table)),
    }
}

impl View {
    /// Whether the caller may have the document at `path`: one about a table is for those who read
    /// all its columns as they are, one about no table there is for admins.
    fn may_have(&self, ctx: &CallContext, path: &str) -> bool {
        let Some(table) = table_of(path) else { return true };
        match self.find(table) {
            Ok(found) => found.narrowed.is_none_or(|part| part.narrowing.columns.is_empty()),
            Err(error) => error.code() == "table_not_found" && self.is_admin(ctx),
        }
    }
}

impl Catalog<'_> {
    /// The files of each kind that the caller may pull, by kind; kinds that are not there are not
    /// in it. Profiles of an older version are of whole tables, all of them, so they are for those
    /// who see everything.
    async fn offered(&self, ctx: &CallContext, view: &View) -> Result<BTreeMap<&'static str, Vec<Offered>>> {
        let (folder, everything) = (self.engine.folder().clone(), view.sees_everything(ctx));
        let mut found = crate::duck::blocking(move || {
            let mut found = BTreeMap::new();
            if let Some(documents) = documents(&folder) {
                found.insert(DOCS, documents);
            }
            if everything {
                let read = profiles(&folder).map_err(|e| Error::io("read the profiles of an older version", e))?;
                found.extend(read.map(|offered| (PROFILES.0, vec![offered])));
            }
            Ok(found)
        })
        .await?;
        if let Some(documents) = found.get_mut(DOCS) {
            documents.retain(|one| view.may_have(ctx, &one.path));
        }
        Ok(found)
    }

    /// What a manifest says of them.
    pub(super) async fn assets(&self, ctx: &CallContext, view: &View) -> Result<BTreeMap<String, ManifestAsset>> {
        let offered = self.offered(ctx, view).await?;
        let hashes = self.engine.asset_hashes().clone();
        crate::duck::blocking(move || {
            let mut assets = BTreeMap::new();
            for (kind, offered) in offered {
                let mut asset = ManifestAsset::default();
                let newest = offered.iter().filter_map(|one| seconds(&one.meta)).max().unwrap_or(0);
                for one in offered {
                    match hashes.of(&one) {
                        Ok(Some(Hashed { md5: hash, sha256, signature })) => {
                            asset.size_bytes += signature.size;
                            asset.files.push(AssetFile { path: one.path, hash, sha256, size_bytes: signature.size });
                        }
                        // The next manifest has it.
                        Ok(None) => tracing::info!(kind, path = one.path, "an asset is not offered: it changes now"),
                        Err(error) => tracing::warn!(kind, path = one.path, "an asset is not offered: {error}"),
                    }
                }
                asset.hash = match asset.files.as_slice() {
                    [only] if kind == PROFILES.0 => only.hash.clone(),
                    _ => newest.to_string(),
                };
                assets.insert(kind.to_owned(), asset);
            }
            Ok(assets)
        })
        .await
    }

    /// A file of the manifest that is no table, by kind and path: `docs` and `guides/start.md`.
    ///
    /// # Errors
    /// `asset_not_found`, the same for one that is not there and one that the caller may not have;
    /// `inactive_user`, `scope_denied`.
    pub async fn asset(&self, ctx: &CallContext, kind: &str, path: &str) -> Result<Download> {
        let opened = self.open_asset(ctx, kind, path).await;
        let bytes = opened.as_ref().map(|download| download.size_bytes).unwrap_or_default();
        self.engine
            .audit()
            .event(ctx, "data.download")
            .resource(format!("asset:{}/{}", printable(kind, 40), printable(path, 160)))
            .params(json!({"bytes": bytes}))
            .outcome(&opened)
            .later();
        opened
    }

    async fn open_asset(&self, ctx: &CallContext, kind: &str, path: &str) -> Result<Download> {
        ctx.principal().require(Ability::Download)?;
        let view = self.view(ctx).await?;
        let missing = CatalogError::NoAsset { path: format!("{}/{}", printable(kind, 40), printable(path, 160)) };
        let may_have = match kind {
            DOCS => view.may_have(ctx, path),
            _ => kind == PROFILES.0 && path == PROFILES.1 && view.sees_everything(ctx),
        };
        if !may_have {
            return Err(missing.into());
        }
        let (folder, documents, wanted) = (self.engine.folder().clone(), kind == DOCS, path.to_owned());
        let hashes = self.engine.asset_hashes().clone();
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        crate::duck::blocking(move || {
            let open = || -> std::io::Result<_> {
                let wanted = if documents { document(&folder, &wanted) } else { profiles(&folder)? };
                let Some(wanted) = wanted else { return Ok(None) };
                let Some(hashed) = hashes.of(&wanted)? else { return Ok(None) };
                let file = File::open(&wanted.file)?;
                // The bytes that were hashed, or none.
                let is_it = signature_of(&file.metadata()?) == hashed.signature;
                Ok(is_it.then_some((file, hashed)))
            };
            match open() {
                Ok(Some((file, hashed))) => {
                    Ok(Download::of_asset(name, file, hashed.signature.size, hashed.md5, hashed.sha256))
                }
                Ok(None) => Err(missing.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(missing.into()),
                Err(error) => Err(Error::io("open a document", error)),
            }
        })
        .await
    }
}

/// Files below `docs/`, by path; links, and names that not every laptop can have beside the others,
/// are left out.
fn documents(folder: &DataFolder) -> Option<Vec<Offered>> {
    let root = folder.docs();
    if !root.is_dir() {
        return None;
    }
    let (mut found, mut names) = (Vec::new(), PlainFiles::default());
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_file() {
            continue;
        }
        let path = path_below(&root, entry.path()).filter(|path| names.take(&format!("{DOCS}/{path}")));
        let Some(path) = path else { continue };
        if found.len() == MOST {
            tracing::warn!("`docs/` has more than {MOST} files: the rest is not offered");
            break;
        }
        found.push(Offered { path, file: entry.into_path(), meta });
    }
    Some(found)
}

/// The file at a path below `docs/` that somebody sent: one that is plain, and the file's own, letter
/// for letter. No link is on its way, and no other spelling that the file system would take for it.
fn document(folder: &DataFolder, path: &str) -> Option<Offered> {
    let root = folder.docs();
    let file = root.join(Some(path).filter(|path| is_plain_path(&format!("{DOCS}/{path}")))?);
    let own = file.canonicalize().ok()?;
    if own != root.canonicalize().ok()?.join(path) {
        return None;
    }
    let meta = own.symlink_metadata().ok().filter(Metadata::is_file)?;
    Some(Offered { path: path.to_owned(), file, meta })
}

/// The profiles of an older version, if they are there.
fn profiles(folder: &DataFolder) -> std::io::Result<Option<Offered>> {
    let file = folder.legacy_profiles();
    match file.metadata() {
        Ok(meta) => Ok(meta.is_file().then(|| Offered { path: PROFILES.1.to_owned(), file, meta })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn path_below(root: &Path, file: &Path) -> Option<String> {
    let pieces = file.strip_prefix(root).ok()?.iter().map(|piece| piece.to_str());
    Some(pieces.collect::<Option<Vec<_>>>()?.join("/"))
}

/// When a file was written last, whole seconds since 1970.
fn seconds(meta: &Metadata) -> Option<u64> {
    Some(meta.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_may_be_about_a_table() {
        for (path, table) in [
            ("tables/orders.md", Some("orders")),
            ("tables/orders.v2.md", Some("orders.v2")),
            ("tables/orders/how/to.sql", Some("orders")),
            ("tables/orders", Some("orders")),
            ("guides/tables/orders.md", None),
            ("orders.md", None),
        ] {
            assert_eq!(table_of(path), table, "{path}");
        }
    }
}

//! What a pull has to fetch, and what the workspace holds afterwards (reads file metadata only).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::assets::blob_of;
use super::fetch::fits_file;
use super::{
    FileOf, FileRef, KnownTable, LocalFile, LocalTable, PullError, PullOptions, SyncState, Workspace, WorkspaceError,
};
use crate::catalog::{CatalogError, Manifest, ManifestTable};
use crate::error::Result;
use crate::ident::{PlainFiles, is_plain_path, nearest, printable};
use crate::registry::QueryMode;

/// Why a table is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was not here.
    New,
    /// Its content changed.
    Changed,
    /// Its file is gone, or was changed here.
    Missing,
    /// The server does not say what its content is.
    Unknown,
}

/// What a pull would fetch of one table, or of one file that is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WouldDownload {
    /// The table; of another file its kind and path: `docs/start.md`.
    pub table: String,
    /// Bytes that would move: those of files that are not here.
    pub size_bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// How content is told from other content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256(String),
    /// From servers that know no other.
    Md5(String),
    /// Not at all: it has to look like Parquet.
    Nothing,
}

impl Digest {
    fn of(sha256: Option<&str>, md5: &str) -> Self {
        let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
        match sha256 {
            Some(sha256) if is_hex(sha256, 64) => Self::Sha256(sha256.to_ascii_lowercase()),
            _ if is_hex(md5, 32) => Self::Md5(md5.to_ascii_lowercase()),
            _ => Self::Nothing,
        }
    }

    /// Name of the content of a table's file.
    fn blob(&self) -> String {
        match self {
            Self::Sha256(hash) => format!("{hash}.parquet"),
            Self::Md5(hash) => format!("md5-{hash}.parquet"),
            Self::Nothing => format!("once-{}.parquet", uuid::Uuid::new_v4().simple()),
        }
    }
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    /// Name of the table; of another file its kind and path.
    pub(super) table: String,
    pub(super) file: FileRef,
    /// Name of its content.
    pub(super) blob: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What a pull does.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What the workspace holds afterwards.
    pub(super) next: SyncState,
    /// Each content once.
    pub(super) wants: Vec<Want>,
    pub(super) would: Vec<WouldDownload>,
    /// Tables that were here and go.
    pub(super) removed: Vec<String>,
    /// Other files that were here and go, by kind and path.
    pub(super) removed_assets: Vec<String>,
    /// Tables whose rows the server cannot give now, and why: they stay as they were.
    pub(super) withheld: Vec<PullError>,
}

impl Plan {
    /// Bytes that its files still take on the disk, beside what has arrived of them in `incoming`.
    pub(super) fn still_needed(&self, incoming: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        // Pieces lie where they belong: the length says nothing.
        let arrived = |want: &Want| {
            incoming.join(&want.blob).symlink_metadata().map_or(0, |meta| meta.blocks().saturating_mul(512))
        };
        self.wants.iter().map(|want| want.size.saturating_sub(arrived(want))).sum()
    }
}

/// Whether what is here of a table that the server cannot give now may stay: a part that the same rules
/// made. All of the table, or another part of it, may hold what is not the caller's any more.
fn may_stay(table: &ManifestTable, here: &LocalTable) -> bool {
    table.error.is_none() || (here.slice && here.rules.is_some() && here.rules == table.rules)
}

/// Tables, and other files by kind and path, that are here and that the manifest has no more.
pub(super) fn revoked(manifest: &Manifest, state: &SyncState) -> (Vec<String>, Vec<String>) {
    let files = manifest.assets.iter();
    let files = files.flat_map(|(kind, asset)| asset.files.iter().map(move |file| format!("{kind}/{}", file.path)));
    let files: BTreeSet<String> = files.collect();
    let stays = |name: &str, here| manifest.tables.get(name).is_some_and(|table| may_stay(table, here));
    let tables = state.tables.iter().filter(|(name, here)| !stays(name, here)).map(|(name, _)| name.clone());
    let assets = state.assets.iter().filter(|file| !files.contains(&file.path)).map(|file| file.path.clone());
    (tables.collect(), assets.collect())
}

/// Letters, digits, `_`, `.`, `-`, no leading dot: what may become a file name.
fn check_name(name: &str) -> Result<(), WorkspaceError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(WorkspaceError::BadName { name: printable(name, 80) });
    }
    Ok(())
}

/// A path of a part, below the folder of its table.
fn part_path(table: &str, path: &str) -> Result<String, WorkspaceError> {
    let below = path.strip_prefix(table).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    if !is_plain_path(below) {
        return Err(WorkspaceError::BadName { name: printable(path, 120) });
    }
    Ok(format!("{table}/{below}"))
}

/// The files of one table of a manifest, and how to fetch each.
fn files(name: &str, table: &ManifestTable) -> Result<Vec<(LocalFile, Want)>, WorkspaceError> {
    let want = |path: String, part: Option<String>, digest: Digest, md5: &str, size: u64| {
        let blob = digest.blob();
        let file = FileRef { of: FileOf::Table { id: table.id.clone(), part }, md5: md5.to_owned() };
        let local = LocalFile { path, blob: blob.clone(), size_bytes: size, modified_ns: 0 };
        (local, Want { table: name.to_owned(), file, blob, digest, size })
    };
    match &table.parts {
        Some(parts) if !table.slice => parts
            .iter()
            .map(|part| {
                let digest = Digest::of(Some(&part.sha256), &part.hash);
                Ok(want(part_path(name, &part.path)?, Some(part.path.clone()), digest, &part.hash, part.size_bytes))
            })
            .collect(),
        _ => {
            let digest = Digest::of(table.sha256.as_deref(), &table.hash);
            Ok(vec![want(format!("{name}.parquet"), None, digest, &table.hash, table.size_bytes)])
        }
    }
}

/// Files of a manifest that are no tables, each with how to fetch it. Their paths are below `server`.
fn assets(manifest: &Manifest) -> Result<Vec<(LocalFile, Want)>> {
    let (mut all, mut names) = (Vec::new(), PlainFiles::default());
    for (kind, asset) in &manifest.assets {
        check_name(kind)?;
        for file in &asset.files {
            let path = format!("{kind}/{}", file.path);
            if kind.eq_ignore_ascii_case("parquet") || !names.take(&path) {
                return Err(WorkspaceError::BadName { name: printable(&path, 120) }.into());
            }
            let Digest::Sha256(hash) = Digest::of(Some(&file.sha256), "") else {
                return Err(CatalogError::ManifestUnreadable.into());
            };
            let blob = blob_of(&hash);
            let of = FileOf::Asset { kind: kind.clone(), path: file.path.clone() };
            let want = Want {
                table: path.clone(),
                file: FileRef { of, md5: file.hash.clone() },
                blob: blob.clone(),
                digest: Digest::Sha256(hash),
                size: file.size_bytes,
            };
            all.push((LocalFile { path, blob, size_bytes: file.size_bytes, modified_ns: 0 }, want));
        }
    }
    Ok(all)
}

impl Workspace {
    /// Whether a content is here as it was put: bytes that were written since, in place, show in
    /// its time.
    pub(super) fn has(&self, file: &LocalFile) -> bool {
        stamp(&self.blob(&file.blob))
            .is_some_and(|(size, modified)| size == file.size_bytes && modified == file.modified_ns)
    }

    /// Whether every file of the generation is here as it was pulled.
    ///
    /// # Errors
    /// `workspace_unreadable`, `workspace_too_new`, I/O errors.
    pub fn has_all_files(&self) -> Result<bool> {
        let state = self.state()?;
        Ok(self.is_whole(&state) && self.good_database(&state).is_some())
    }

    /// Whether all that `state` says is here, under its names too.
    pub(super) fn is_whole(&self, state: &SyncState) -> bool {
        self.placed(state)
            .all(|(place, file)| self.has(file) && stamp(&place) == Some((file.size_bytes, file.modified_ns)))
    }

    /// Every file of `state` with its place.
    pub(super) fn placed<'a>(&'a self, state: &'a SyncState) -> impl Iterator<Item = (PathBuf, &'a LocalFile)> {
        let (tables, others) = (self.parquet(), self.from_server());
        let tables = state.files().map(move |file| (tables.join(&file.path), file));
        tables.chain(state.assets.iter().map(move |file| (others.join(&file.path), file)))
    }

    /// When the content that `want` means was put here, if it is here: one that this pull checked
    /// already (`fetched`), else one that is checked now.
    fn adopt(&self, want: &Want, fetched: &BTreeSet<String>) -> Option<i64> {
        let path = self.blob(&want.blob);
        let (size, modified) = stamp(&path)?;
        let is_good = size == want.size
            && want.digest != Digest::Nothing
            && (fetched.contains(&want.blob) || fits_file(&want.digest, &path).unwrap_or(false));
        is_good.then_some(modified)
    }

    /// Compares a manifest with what is here; `fetched` are contents that this pull brought.
    pub(super) fn plan(
        &self,
        manifest: &Manifest,
        state: &SyncState,
        options: &PullOptions,
        fetched: &BTreeSet<String>,
    ) -> Result<Plan> {
        let lazy = options.lazy.unwrap_or(state.lazy);
        let mut named = BTreeSet::new();
        for asked in &options.tables {
            let found =
                manifest.tables.iter().find(|(name, table)| name.eq_ignore_ascii_case(asked) || table.id == *asked);
            match found {
                Some((name, table)) if table.query_mode != QueryMode::Remote => named.insert(name.as_str()),
                Some((name, table)) => {
                    let (table, size_bytes) = (name.clone(), table.size_bytes);
                    return Err(WorkspaceError::NotHere { table, is_remote: true, size_bytes }.into());
                }
                None => {
                    let suggestion = nearest(asked, manifest.tables.keys().map(String::as_str)).map(ToOwned::to_owned);
                    return Err(WorkspaceError::NotOffered { table: printable(asked, 80), suggestion }.into());
                }
            };
        }
        // Contents that are here under whatever name.
        let here: BTreeMap<&str, &LocalFile> =
            state.files().chain(&state.assets).map(|file| (file.blob.as_str(), file)).collect();
        let when = |file: &LocalFile, want: &Want| {
            let known = here.get(file.blob.as_str()).filter(|known| self.has(known)).map(|known| known.modified_ns);
            known.or_else(|| self.adopt(want, fetched))
        };
        let mut plan = Plan::default();
        let mut wanted = BTreeSet::new();
        let mut is_partial = false;
        for (name, table) in &manifest.tables {
            check_name(name)?;
            let before = state.tables.get(name).filter(|here| may_stay(table, here));
            let skipped = options.skip_materialized && table.query_mode == QueryMode::Materialized;
            let is_wanted = match table.query_mode {
                QueryMode::Remote | QueryMode::Internal => false,
                _ if named.contains(name.as_str()) => true,
                _ if skipped => false,
                _ => !lazy || before.is_some(),
            };
            if !is_wanted {
                // What was left out on purpose stays as it was.
                if let Some(before) = before.filter(|_| skipped) {
                    is_partial |= before.hash != table.hash;
                    plan.next.tables.insert(name.clone(), before.clone());
                    continue;
                }
                is_partial |= skipped;
                let (query_mode, size_bytes, rows) = (table.query_mode, table.size_bytes, table.rows);
                plan.next.known.insert(name.clone(), KnownTable { id: table.id.clone(), query_mode, size_bytes, rows });
                continue;
            }
            if let Some(error) = &table.error {
                is_partial = true;
                plan.withheld.push(PullError::of_manifest(name, error));
                let (query_mode, size_bytes, rows) = (table.query_mode, table.size_bytes, table.rows);
                let known = KnownTable { id: table.id.clone(), query_mode, size_bytes, rows };
                match before {
                    Some(before) => drop(plan.next.tables.insert(name.clone(), before.clone())),
                    None => drop(plan.next.known.insert(name.clone(), known)),
                }
                continue;
            }
            let mut missing = 0;
            let mut reason = None;
            let mut local = Vec::new();
            for (mut file, want) in files(name, table)? {
                if let Some(modified) = when(&file, &want) {
                    file.modified_ns = modified;
                } else {
                    missing += want.size;
                    reason = Some(match before {
                        _ if want.digest == Digest::Nothing => Reason::Unknown,
                        None => Reason::New,
                        Some(before) if before.files.iter().any(|old| old.blob == file.blob) => Reason::Missing,
                        Some(_) => Reason::Changed,
                    });
                    if wanted.insert(file.blob.clone()) {
                        plan.wants.push(want);
                    }
                }
                local.push(file);
            }
            if let Some(reason) = reason {
                plan.would.push(WouldDownload { table: name.clone(), size_bytes: missing, reason });
            }
            let columns = before.filter(|before| before.hash == table.hash).map(|before| before.columns.clone());
            let local = LocalTable {
                id: table.id.clone(),
                hash: table.hash.clone(),
                rows: table.rows,
                size_bytes: table.size_bytes,
                query_mode: table.query_mode,
                source_type: table.source_type.clone(),
                updated: table.updated,
                slice: table.slice,
                row_scope: table.row_scope.clone(),
                rules: table.rules.clone(),
                partitioned: table.parts.is_some() && !table.slice,
                files: local,
                columns: columns.unwrap_or_default(),
            };
            plan.next.tables.insert(name.clone(), local);
        }
        let old: BTreeMap<&str, &LocalFile> = state.assets.iter().map(|file| (file.path.as_str(), file)).collect();
        for (mut file, want) in assets(manifest)? {
            if let Some(modified) = when(&file, &want) {
                file.modified_ns = modified;
            } else {
                let reason = match old.get(file.path.as_str()) {
                    None => Reason::New,
                    Some(old) if old.blob == file.blob => Reason::Missing,
                    Some(_) => Reason::Changed,
                };
                plan.would.push(WouldDownload { table: file.path.clone(), size_bytes: want.size, reason });
                if wanted.insert(file.blob.clone()) {
                    plan.wants.push(want);
                }
            }
            plan.next.assets.push(file);
        }
        let stay: BTreeSet<&str> = plan.next.assets.iter().map(|file| file.path.as_str()).collect();
        plan.removed_assets = old.keys().filter(|path| !stay.contains(*path)).map(|path| (*path).to_owned()).collect();
        plan.removed = state.tables.keys().filter(|name| !plan.next.tables.contains_key(*name)).cloned().collect();
        plan.next = SyncState {
            public_key: Some(manifest.public_key.clone()).filter(|key| !key.is_empty()),
            generation: manifest.generation,
            // Something of it is missing: the next pull has to see all of it again.
            etag: if is_partial { String::new() } else { manifest.etag.clone() },
            expires_at: Some(manifest.expires_at),
            lazy,
            root: self.root().to_string_lossy().into_owned(),
            tables: plan.next.tables,
            known: plan.next.known,
            assets: plan.next.assets,
            ..state.clone()
        };
        Ok(plan)
    }
}

/// Size and time of the last change, in nanoseconds since 1970, of a file that is there.
pub(super) fn stamp(path: &Path) -> Option<(u64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some((meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out() {
        for good in ["orders", "a.b-c_1", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", ".a", "a/b", "a\\b", "a b", "é", "a\0", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(part_path("t", "t/2024 01.parquet").unwrap(), "t/2024 01.parquet");
        assert_eq!(part_path("t", "day=1/x.parquet").unwrap(), "t/day=1/x.parquet");
        for bad in ["t/../x", "/x", "t//x", "t/.x", "a\\b", "t/a\nb", "", "t/", "C:x"] {
            assert!(part_path("t", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_has_arrived_needs_no_more_room() {
        use std::os::unix::fs::FileExt as _;
        let incoming = tempfile::tempdir().unwrap();
        let want = |blob: &str, size| Want {
            table: "t".to_owned(),
            file: FileRef { of: FileOf::Table { id: "t".to_owned(), part: None }, md5: String::new() },
            blob: blob.to_owned(),
            digest: Digest::Nothing,
            size,
        };
        let plan = Plan { wants: vec![want("half", 16 << 20), want("new", 5)], ..Plan::default() };
        assert_eq!(plan.still_needed(incoming.path()), (16 << 20) + 5);
        // The last half of a file of its whole length.
        let file = std::fs::File::create(incoming.path().join("half")).unwrap();
        file.set_len(16 << 20).unwrap();
        assert_eq!(plan.still_needed(incoming.path()), (16 << 20) + 5, "its length is no room that it has");
        file.write_all_at(&vec![1; 8 << 20], 8 << 20).unwrap();
        file.sync_all().unwrap();
        assert_eq!(plan.still_needed(incoming.path()), (8 << 20) + 5);
        let told = WorkspaceError::DiskTooFull { needed: 5, spare: 7, free: 11 }.to_string();
        assert!(told.contains("5 bytes and 7 to spare") && told.contains("11 are free"), "{told}");
    }

    #[test]
    fn content_is_named_by_the_best_hash_there_is() {
        let (sha, md5) = ("a".repeat(64), "b".repeat(32));
        assert_eq!(Digest::of(Some(&sha), &md5), Digest::Sha256(sha));
        assert_eq!(Digest::of(Some("../x"), &md5), Digest::Md5(md5.clone()));
        assert_eq!(Digest::of(None, &md5).blob(), format!("md5-{md5}.parquet"));
        assert_eq!(Digest::of(None, ""), Digest::Nothing);
    }
}

//! Snapshots: results of scans that are kept as files, with what they were made of.

use std::fs::File;
use std::io::{BufWriter, Read as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Workspace;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::extract::fsio::{Staged, fault_point, is_temporary, sync_folder, write_atomically};
use crate::ident::{nearest, printable};
use crate::local::Rows;
use crate::policy::RowScope;
use crate::query::{RowFormat, RowWriter, RowsEnd};
use crate::scan::ScanRequest;

/// What a snapshot was made of, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Its name: what SQL here calls it.
    pub name: String,
    /// The table.
    pub table_id: String,
    /// Columns; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Vec<String>>,
    /// The predicate.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
    /// Most rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<Vec<String>>,
    /// When it was fetched.
    pub fetched_at: DateTime<Utc>,
    /// As of when its rows are.
    pub effective_as_of: DateTime<Utc>,
    /// Rows.
    pub rows: u64,
    /// Whether the server left rows out, as they were more than it gives to one scan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What policies took from its rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row_scope: Vec<RowScope>,
    /// Bytes of its file.
    pub bytes_local: u64,
    /// What the server expected to read.
    #[serde(default)]
    pub estimated_scan_bytes_at_fetch: u64,
    /// MD5 of its file.
    pub result_hash_md5: String,
}

impl SnapshotMeta {
    /// The scan that makes it again.
    #[must_use]
    pub fn request(&self) -> ScanRequest {
        ScanRequest {
            table: self.table_id.clone(),
            select: self.select.clone().unwrap_or_default(),
            predicate: self.predicate.clone(),
            limit: self.limit,
            order_by: self.order_by.clone().unwrap_or_default(),
            snapshot: Some(self.name.clone()),
        }
    }
}

/// What can go wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is one of this name, or a table.
    #[error("there is {what} `{name}` already")]
    Exists {
        /// Its name.
        name: String,
        /// `a snapshot`, `a snapshot spelled` or `a table`.
        what: &'static str,
    },
    /// There is none.
    #[error("there is no snapshot `{name}`")]
    NotFound {
        /// The name.
        name: String,
        /// A name like it.
        suggestion: Option<String>,
    },
    /// They would take more than they may.
    #[error("snapshots may take {quota} bytes here, and would take {would}")]
    Quota {
        /// Bytes they may take.
        quota: u64,
        /// Bytes they would take.
        would: u64,
    },
}

impl Coded for SnapshotError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } => ErrorKind::Conflict,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Quota { .. } => ErrorKind::LimitExceeded,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Exists { .. } => "snapshot_exists",
            Self::NotFound { .. } => "snapshot_not_found",
            Self::Quota { .. } => "snapshot_quota",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exists { what: "a snapshot", .. } => {
                "`--force` replaces it, `--as NAME` calls it otherwise".to_owned()
            }
            Self::Exists { .. } => "choose another name: `--as NAME`".to_owned(),
            Self::NotFound { suggestion: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NotFound { .. } => "`agnes snapshot list` shows them".to_owned(),
            Self::Quota { .. } => "`agnes snapshot prune --older-than 7d` makes room".to_owned(),
        })
    }
}

impl Workspace {
    fn snapshot_file(&self, name: &str) -> PathBuf {
        self.snapshots().join(format!("{name}.parquet"))
    }

    fn snapshot_meta(&self, name: &str) -> PathBuf {
        self.snapshots().join(format!("{name}.meta.json"))
    }

    /// Describes rows that are about to replace a snapshot's, or just did.
    fn snapshot_next(&self, name: &str) -> PathBuf {
        self.snapshots().join(format!("{name}.next.json"))
    }

    /// What describes the file of a snapshot.
    pub(super) fn described(&self, name: &str) -> Option<SnapshotMeta> {
        self.next(name).or_else(|| read_meta(&self.snapshot_meta(name)))
    }

    /// The next description, once its rows are there.
    fn next(&self, name: &str) -> Option<SnapshotMeta> {
        let (next, file) = (read_meta(&self.snapshot_next(name))?, self.snapshot_file(name));
        let is_its = file.metadata().is_ok_and(|found| found.len() == next.bytes_local)
            && md5_of(&file).is_ok_and(|(_, hash)| hash == next.result_hash_md5);
        is_its.then_some(next)
    }

    fn snapshot_turn(&self) -> Result<File> {
        std::fs::create_dir_all(self.snapshots()).map_err(|e| Error::io("make the folder of snapshots", e))?;
        let lock = File::options().create(true).truncate(false).write(true).open(self.snapshots().join(".lock"));
        let lock = lock.map_err(|e| Error::io("lock the snapshots", e))?;
        lock.lock().map_err(|e| Error::io("lock the snapshots", e))?;
        Ok(lock)
    }

    /// All snapshots, by name. Those whose file or description is gone are left out.
    #[must_use]
    pub fn list_snapshots(&self) -> Vec<SnapshotMeta> {
        let names = self.snapshot_files().into_keys();
        names.filter_map(|name| self.described(&name)).collect()
    }

    /// Bytes that are free on the disk of the workspace.
    ///
    /// # Errors
    /// I/O errors.
    pub fn free_bytes(&self) -> Result<u64> {
        crate::sync::free_bytes(self.root())
    }

    /// One snapshot.
    ///
    /// # Errors
    /// `snapshot_not_found`.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotMeta> {
        let all = self.list_snapshots();
        if let Some(found) = all.iter().find(|meta| meta.name == name) {
            return Ok(found.clone());
        }
        let suggestion = nearest(name, all.iter().map(|meta| meta.name.as_str())).map(ToOwned::to_owned);
        Err(SnapshotError::NotFound { name: printable(name, 80), suggestion }.into())
    }

    /// Whether a snapshot of this name can be made.
    ///
    /// # Errors
    /// `invalid_name`, `snapshot_exists`, `workspace_unreadable`.
    pub fn check_snapshot(&self, name: &str, force: bool) -> Result<()> {
        let is_name = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            let rule = "a letter or `_`, then letters, digits or `_`, 64 at most";
            return Err(crate::ident::InvalidName::new("snapshot", name, rule).into());
        }
        if self.state()?.table(name).is_some() {
            return Err(SnapshotError::Exists { name: name.to_owned(), what: "a table" }.into());
        }
        let there = self.snapshot_files();
        let exists = |name: &str, what| Err(SnapshotError::Exists { name: name.to_owned(), what }.into());
        if there.contains_key(name) {
            return if force { Ok(()) } else { exists(name, "a snapshot") };
        }
        // SQL knows no case: one of the two would be asked for both.
        let other = there.keys().find(|other| other.eq_ignore_ascii_case(name));
        other.map_or(Ok(()), |other| exists(other, "a snapshot spelled"))
    }

    /// Keeps the rows of a scan, and gives them a view; what is to be said of the views comes with it.
    /// `quota` is how many bytes all snapshots may take.
    ///
    /// # Errors
    /// Those of [`check_snapshot`](Self::check_snapshot) and of the rows; `snapshot_quota`, I/O
    /// errors.
    pub async fn keep_snapshot(
        &self,
        name: &str,
        request: &ScanRequest,
        mut rows: Rows,
        estimated: u64,
        (force, quota): (bool, u64),
    ) -> Result<(SnapshotMeta, Vec<String>)> {
        self.check_snapshot(name, force)?;
        let target = self.snapshot_file(name);
        let (workspace, to) = (self.clone(), target.clone());
        let (staged, held, file) = crate::duck::blocking(move || workspace.begin_snapshot(&to)).await?;
        let mut writer = RowWriter::new(RowFormat::Parquet, &rows.schema(), BufWriter::new(file))?;
        let others: u64 =
            self.list_snapshots().iter().filter(|meta| meta.name != name).map(|meta| meta.bytes_local).sum();
        let mut count = 0;
        while let Some(batch) = rows.next().await? {
            count += batch.num_rows() as u64;
            writer.write(&batch)?;
            let so_far = staged.path().metadata().map(|meta| meta.len()).unwrap_or_default();
            if others + so_far > quota {
                return Err(SnapshotError::Quota { quota, would: others + so_far }.into());
            }
        }
        writer.finish(&RowsEnd::default())?;
        let (bytes_local, result_hash_md5) = md5_of(staged.path())?;
        if others + bytes_local > quota {
            return Err(SnapshotError::Quota { quota, would: others + bytes_local }.into());
        }
        let now = Utc::now();
        let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
        let meta = SnapshotMeta {
            name: name.to_owned(),
            table_id: request.table.clone(),
            select: list(&request.select),
            predicate: request.predicate.clone(),
            limit: request.limit,
            order_by: list(&request.order_by),
            fetched_at: now,
            effective_as_of: now,
            rows: count,
            truncated: rows.truncated(),
            row_scope: RowScope::of_schema(&rows.schema()),
            bytes_local,
            estimated_scan_bytes_at_fetch: estimated,
            result_hash_md5,
        };
        let workspace = self.clone();
        let kept = meta.clone();
        let told = crate::duck::blocking(move || {
            let _turn = workspace.snapshot_turn()?;
            // Somebody may have made one meanwhile.
            workspace.check_snapshot(&kept.name, force)?;
            staged.sync()?;
            let text = serde_json::to_vec_pretty(&kept).map_err(|e| Error::internal("describe a snapshot", e))?;
            workspace.say_late()?;
            // Before the rows, and beside the description of those that are there: whatever is there
            // after a kill has its own.
            let next = workspace.snapshot_next(&kept.name);
            write_atomically(&next, &text)?;
            staged.publish(&target)?;
            drop(held);
            fault_point()
                .and_then(|()| std::fs::rename(next, workspace.snapshot_meta(&kept.name)))
                .map_err(|e| Error::io("describe a snapshot", e))?;
            sync_folder(&workspace.snapshots())?;
            workspace.remake_views()
        })
        .await?;
        Ok((meta, told))
    }

    /// Deletes snapshots with their views; gives what is to be said of the others'.
    ///
    /// # Errors
    /// `snapshot_not_found`, I/O errors.
    pub fn drop_snapshots(&self, names: &[String]) -> Result<Vec<String>> {
        for name in names {
            self.snapshot(name)?;
        }
        let _turn = self.snapshot_turn()?;
        self.say_late()?;
        for name in names {
            for file in [self.snapshot_file(name), self.snapshot_next(name), self.snapshot_meta(name)] {
                match std::fs::remove_file(file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("delete a snapshot", error));
                    }
                    _ => {}
                }
            }
        }
        self.remake_views()
    }

    /// A new file for a snapshot, and once more: it is locked until both are closed, which keeps
    /// sweepers from it.
    fn begin_snapshot(&self, target: &Path) -> Result<(Staged, File, File)> {
        let _turn = self.snapshot_turn()?;
        let staged = Staged::beside(target)?;
        let make = || -> std::io::Result<(File, File)> {
            let file = File::create(staged.path())?;
            file.lock()?;
            Ok((file.try_clone()?, file))
        };
        let (held, file) = make().map_err(|e| Error::io("write a snapshot", e))?;
        Ok((staged, held, file))
    }

    /// Ends what interrupted writers left: descriptions of the rows that are there take their place,
    /// files that nobody writes any more and descriptions of no file go.
    pub(super) fn sweep_snapshots(&self) {
        if !self.snapshots().join(".lock").exists() {
            // Nobody ever made one.
            return;
        }
        let Ok(_turn) = self.snapshot_turn() else { return };
        for entry in std::fs::read_dir(self.snapshots()).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if let Some(of) = name.strip_suffix(".next.json") {
                let _ = match self.next(of) {
                    Some(_) => std::fs::rename(path, self.snapshot_meta(of)),
                    None => std::fs::remove_file(path),
                };
                continue;
            }
            let is_left = match name.strip_suffix(".meta.json") {
                Some(of) => !self.snapshot_file(of).exists(),
                None => is_temporary(&name) && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()),
            };
            if is_left {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Makes the views of the database anew, of what is here now. A pull that runs does it at its
    /// end, or else the next one.
    fn remake_views(&self) -> Result<Vec<String>> {
        let _turn = match self.turn() {
            Ok(turn) => turn,
            Err(error) if error.code() == "workspace_busy" => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        self.make_views_anew()
    }

    /// Before snapshots change: whatever becomes of this process, the views are made anew.
    fn say_late(&self) -> Result<()> {
        std::fs::create_dir_all(self.own()).map_err(|e| Error::io("make the workspace", e))?;
        write_atomically(&self.late_file(), b"")
    }

    /// Makes the views anew if a snapshot came or went since they were made.
    pub(super) fn make_late_views(&self) -> Result<Vec<String>> {
        let _turn = self.snapshot_turn()?;
        if self.late_file().exists() { self.make_views_anew() } else { Ok(Vec::new()) }
    }

    fn make_views_anew(&self) -> Result<Vec<String>> {
        self.recover()?;
        let mut state = self.state()?;
        let made = self.publish_views(&state, &state.views.clone())?;
        (state.views, state.database) = (made.views, made.database);
        if made.is_late {
            state.root = String::new();
        }
        state.write(&self.state_file())?;
        std::fs::remove_file(self.late_file()).map_err(|e| Error::io("make the views of the workspace", e))?;
        Ok(made.warnings)
    }
}

fn read_meta(path: &Path) -> Option<SnapshotMeta> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Bytes and MD5 of a file.
fn md5_of(path: &Path) -> Result<(u64, String)> {
    use md5::Digest as _;
    let read = || -> std::io::Result<(u64, String)> {
        let (mut file, mut hash, mut buffer, mut size) = (File::open(path)?, md5::Md5::new(), vec![0; 1 << 20], 0);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((size, crate::orchestrator::hex(&hash.finalize())));
            }
            hash.update(&buffer[..read]);
            size += read as u64;
        }
    };
    read().map_err(|e| Error::io("read a snapshot", e))
}

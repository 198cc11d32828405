//! A copy of a data folder that can be checked and restored.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Maintenance;
use crate::context::CallContext;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::extract::fsio;
use crate::layout::DataFolder;
use crate::local::HolderLock;

/// Layout version of a backup.
const BACKUP_LAYOUT: u32 = 1;
/// The list of files of a backup, written last: without it a folder is no backup.
const INDEX: &str = "backup.json";

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupIndex {
    /// Version of this list.
    pub layout: u32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Version of Agnes that made it.
    pub agnes: String,
    /// Number of the published generation in it.
    pub generation: u64,
    /// Every file.
    pub files: Vec<BackupFile>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Path inside the data folder, `/`-separated.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub sha256: String,
}

/// What can go wrong with backups.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BackupError {
    #[error("the target folder is not empty")]
    TargetNotEmpty,
    #[error("the target folder lies inside the data folder")]
    TargetInside,
    #[error("this folder is not a complete backup")]
    NotABackup,
    #[error("this backup has layout {found}, this Agnes reads up to {BACKUP_LAYOUT}")]
    TooNew { found: u32 },
    #[error("the backup is damaged: `{path}` is not what was backed up")]
    Damaged { path: String },
}

impl Coded for BackupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TargetNotEmpty => ErrorKind::Conflict,
            Self::TargetInside => ErrorKind::InvalidInput,
            Self::NotABackup | Self::TooNew { .. } | Self::Damaged { .. } => ErrorKind::DataInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TargetNotEmpty => "target_not_empty",
            Self::TargetInside => "target_inside_data_folder",
            Self::NotABackup => "not_a_backup",
            Self::TooNew { .. } => "backup_too_new",
            Self::Damaged { .. } => "backup_damaged",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::TargetNotEmpty => "choose a new or empty folder",
                Self::TargetInside => "choose a folder elsewhere, best on another disk",
                Self::NotABackup => "choose a folder that `agnes backup` wrote to its end",
                Self::TooNew { .. } => "upgrade Agnes",
                Self::Damaged { .. } => "use another backup",
            }
            .to_owned(),
        )
    }
}

impl Maintenance<'_> {
    /// Copies state, extracts, what people uploaded, the published generation with its blobs, the configuration
    /// overlay, the instance key and the secrets that sign sessions and tokens into `target`,
    /// a new or empty folder. Queries and grants go on meanwhile; syncs wait until the copy is
    /// done. The copy of the state is opened and read, each blob's content held against its
    /// name; when anything fails, nothing is left.
    ///
    /// # Errors
    /// `target_not_empty`, `target_inside_data_folder`, `sync_already_in_progress`,
    /// `state_copy_broken`, `backup_damaged`, `disk_full`, `admin_required`.
    pub async fn backup(&self, ctx: &CallContext, target: &Path) -> Result<BackupIndex> {
        self.admin(ctx).await?;
        let done = self.copy_to(target).await;
        self.engine.audit().event(ctx, "maintenance.backup").outcome(&done).record().await;
        done
    }

    async fn copy_to(&self, target: &Path) -> Result<BackupIndex> {
        let sources: Vec<String> =
            self.engine.store().sources().list().await?.into_iter().map(|s| s.name.to_string()).collect();
        let _still = self.engine.sync_runs().reserve(&sources)?;
        self.engine.audit_log().flush().await;
        let (folder, target) = (self.engine.folder().clone(), target.to_owned());
        let generation = self.engine.generation();
        let (root, clean) = (folder.root().to_owned(), target.clone());
        let staged = crate::duck::blocking(move || {
            require_empty(&clean)?;
            if is_inside(&clean, &root) { Err(BackupError::TargetInside.into()) } else { stage(&clean) }
        })
        .await?;
        self.engine.store().backup_to(&staged.path().join("state")).await?;
        let (now, number) = (self.engine.clock().now(), generation.number);
        crate::duck::blocking(move || {
            let root = staged.path();
            let mut wanted = vec![folder.extracts()];
            let brought = folder.all_uploads().into_iter().chain([folder.initial_workspace(), folder.docs()]);
            wanted.extend(brought.filter(|folder| folder.is_dir()));
            if number > 0 {
                // Not the master of views: it names blobs by absolute path, the next start makes it anew.
                wanted.push(folder.generation(number));
                wanted.push(folder.current());
                let blobs: std::collections::BTreeSet<PathBuf> =
                    generation.tables().flat_map(|t| &t.parts).map(|part| folder.blob(&part.sha256)).collect();
                wanted.extend(blobs);
            }
            for path in wanted {
                if let Ok(relative) = path.strip_prefix(folder.root()) {
                    copy_tree(&path, &root.join(relative))?;
                }
            }
            let kept = [
                folder.config_overlay(),
                folder.env_overlay(),
                folder.instance_key(),
                folder.session_secret(),
                folder.cookie_secret(),
                folder.scheduler_token(),
            ];
            for path in kept.iter().filter(|path| path.is_file()) {
                if let Some(name) = path.file_name() {
                    copy_tree(path, &root.join("state").join(name))?;
                }
            }
            let mut files = Vec::new();
            index_tree(root, root, &mut files)?;
            let blobs = DataFolder::new(root).blobs();
            for file in files.iter().filter(|file| root.join(&file.path).starts_with(&blobs)) {
                if !file.path.ends_with(&format!("/{}.parquet", file.sha256)) {
                    return Err(BackupError::Damaged { path: file.path.clone() }.into());
                }
            }
            let index = BackupIndex {
                layout: BACKUP_LAYOUT,
                created_at: now,
                agnes: env!("CARGO_PKG_VERSION").to_owned(),
                generation: number,
                files,
            };
            let text = serde_json::to_vec_pretty(&index).map_err(|e| Error::internal("write the backup's index", e))?;
            crate::extract::write_atomically(&root.join(INDEX), &text)?;
            put_in_place(staged, &target)?;
            Ok(index)
        })
        .await
    }
}

/// A folder beside `target` that is gone when it is dropped: what fails leaves nothing, and
/// a kill nothing under the name of `target`.
fn stage(target: &Path) -> Result<tempfile::TempDir> {
    let parent = parent_of(target);
    std::fs::create_dir_all(parent).map_err(|e| Error::io("make the folder", e))?;
    tempfile::Builder::new().prefix(".agnes-copy-").tempdir_in(parent).map_err(|e| Error::io("make a folder beside", e))
}

/// Moves the staged folder to `target`, which is missing or empty.
fn put_in_place(staged: tempfile::TempDir, target: &Path) -> Result<()> {
    if target.exists() {
        std::fs::remove_dir(target).map_err(|e| Error::io("replace the empty folder", e))?;
    }
    fsio::fault_point()
        .and_then(|()| std::fs::rename(staged.path(), target))
        .map_err(|e| Error::io("move the folder into place", e))?;
    // Nothing is under its old name any more.
    let _moved = staged.keep();
    fsio::sync_folder(parent_of(target))
}

fn parent_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether `target`, or the nearest folder above it that exists, lies in `root`.
fn is_inside(target: &Path, root: &Path) -> bool {
    let real = target.ancestors().map(|a| if a.as_os_str().is_empty() { Path::new(".") } else { a });
    match (real.into_iter().find_map(|a| a.canonicalize().ok()), root.canonicalize()) {
        (Some(real), Ok(root)) => real.starts_with(root),
        _ => false,
    }
}

/// Restores a backup into the data folder at `root`, which must be new or empty. Every
/// file is checked against the backup's index before anything counts. Blocks.
///
/// # Errors
/// `target_not_empty`, `not_a_backup`, `backup_too_new`, `backup_damaged`,
/// `data_folder_held`, `disk_full`.
pub fn restore(backup: &Path, root: &Path) -> Result<BackupIndex> {
    let text = std::fs::read(backup.join(INDEX)).map_err(|_| BackupError::NotABackup)?;
    let index: BackupIndex = serde_json::from_slice(&text).map_err(|_| BackupError::NotABackup)?;
    if index.layout > BACKUP_LAYOUT {
        return Err(BackupError::TooNew { found: index.layout }.into());
    }
    require_empty(root)?;
    // Complete beside the target first: a kill leaves no half data folder under its name.
    let staged = stage(root)?;
    for file in &index.files {
        let relative = Path::new(&file.path);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(BackupError::Damaged { path: crate::ident::printable(&file.path, 120) }.into());
        }
        let to = staged.path().join(relative);
        let damaged = || Error::from(BackupError::Damaged { path: crate::ident::printable(&file.path, 120) });
        // A full disk is no fault of the backup.
        copy_tree(&backup.join(relative), &to)
            .map_err(|error| if error.code() == "file_not_found" { damaged() } else { error })?;
        if hash_file(&to)? != file.sha256 {
            return Err(damaged());
        }
    }
    put_in_place(staged, root)?;
    drop(HolderLock::acquire(&DataFolder::new(root))?);
    Ok(index)
}

fn require_empty(target: &Path) -> Result<()> {
    match std::fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(BackupError::TargetNotEmpty.into()),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("read the target folder", e)),
    }
}

/// Whether a file is only of use to the process that wrote it.
fn is_transient(name: &str) -> bool {
    name.ends_with(".tmp") || name.contains(".tmp.") || name.ends_with(".lock") || name.ends_with(".sock")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let meta = std::fs::symlink_metadata(from).map_err(|e| Error::io("read a file of the data folder", e))?;
    if meta.is_dir() {
        std::fs::create_dir_all(to).map_err(|e| Error::io("make a folder of the copy", e))?;
        for entry in std::fs::read_dir(from).map_err(|e| Error::io("read the data folder", e))? {
            let entry = entry.map_err(|e| Error::io("read the data folder", e))?;
            if !entry.file_name().to_str().is_some_and(is_transient) {
                copy_tree(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        return Ok(());
    }
    if !meta.is_file() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("make a folder of the copy", e))?;
    }
    fsio::copy_file("copy a file", from, to)
}

fn index_tree(root: &Path, folder: &Path, files: &mut Vec<BackupFile>) -> Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(|e| Error::io("read the copy", e))?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            index_tree(root, &path, files)?;
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let parts: Vec<String> =
            relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        files.push(BackupFile {
            path: parts.join("/"),
            size_bytes: path.metadata().map_err(|e| Error::io("read the copy", e))?.len(),
            sha256: hash_file(&path)?,
        });
    }
    Ok(())
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io("read a file", e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(|e| Error::io("read a file", e))?;
        if n == 0 {
            return Ok(crate::orchestrator::hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
    }
}

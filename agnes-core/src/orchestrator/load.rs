//! Generations on disk: written, published by one rename, loaded and repaired at start.

use std::path::Path;
use std::time::Duration;

use super::{GENERATION_LAYOUT, Generation};
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::extract::fsio;
use crate::file_lock::FileLock;
use crate::layout::DataFolder;

/// What a scratch folder may hold when a process is killed.
const SCRATCH: [&str; 6] = ["scratch-", "spill-", "cell-", "canary-", "objects-", "program-"];
/// In a scratch folder that others use too, what is younger may be somebody's who says nothing.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A generation that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("generation {number} has layout {found}, this Agnes reads up to {GENERATION_LAYOUT}")]
struct TooNew {
    number: u64,
    found: u32,
}

impl Coded for TooNew {
    fn kind(&self) -> ErrorKind {
        ErrorKind::DataInvalid
    }
    fn code(&self) -> &str {
        "generation_too_new"
    }
    fn hint(&self) -> Option<String> {
        Some("upgrade Agnes".to_owned())
    }
}

/// Writes a generation and makes it the published one. A kill leaves the last one or this.
pub(super) fn publish(folder: &DataFolder, generation: &Generation) -> Result<()> {
    let text = serde_json::to_vec(generation).map_err(|e| Error::internal("write a generation", e))?;
    fsio::write_atomically(&folder.generation(generation.number), &text)?;
    fsio::write_atomically(&folder.current(), generation.number.to_string().as_bytes())
}

fn read(folder: &DataFolder, number: u64) -> Result<Generation> {
    let text = std::fs::read(folder.generation(number)).map_err(|e| Error::io("read a generation", e))?;
    #[derive(serde::Deserialize)]
    struct Layout {
        layout: u32,
    }
    let head: Layout = serde_json::from_slice(&text).map_err(|e| Error::internal("read a generation", e))?;
    if head.layout > GENERATION_LAYOUT {
        return Err(TooNew { number, found: head.layout }.into());
    }
    serde_json::from_slice(&text).map_err(|e| Error::internal("read a generation", e))
}

/// Numbers of the generations on disk, ascending.
pub(super) fn numbers(folder: &DataFolder) -> Vec<u64> {
    let mut numbers: Vec<u64> = std::fs::read_dir(folder.generations())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Reads any generation that is on disk.
pub(super) fn read_any(folder: &DataFolder, number: u64) -> Option<Generation> {
    read(folder, number).ok()
}

fn is_whole(folder: &DataFolder, generation: &Generation) -> bool {
    let mut parts = generation.tables().flat_map(|table| &table.parts);
    parts.all(|part| folder.blob(&part.sha256).metadata().is_ok_and(|m| m.len() == part.size_bytes))
}

/// Loads the published generation and removes what interrupted work left behind. Where
/// the published one is damaged, the newest whole one answers. For the process that holds
/// the folder. Blocks.
///
/// # Errors
/// `generation_too_new`, I/O errors.
pub fn load_current(folder: &DataFolder) -> Result<Generation> {
    repair(folder);
    let Some(current) = pointer(folder) else {
        // Nothing was ever published, or the pointer is lost: then the newest whole one.
        return newest_whole(folder, u64::MAX);
    };
    match read(folder, current) {
        Ok(generation) if is_whole(folder, &generation) => {
            // Written but never published: a kill came between.
            for number in numbers(folder).into_iter().filter(|n| *n > current) {
                drop(std::fs::remove_file(folder.generation(number)));
            }
            Ok(generation)
        }
        Err(error) if error.code() == "generation_too_new" => Err(error),
        _ => {
            tracing::error!(generation = current, "the published generation is damaged; an older one answers");
            newest_whole(folder, current)
        }
    }
}

/// Number of the generation that was published last.
pub(super) fn pointer(folder: &DataFolder) -> Option<u64> {
    std::fs::read_to_string(folder.current()).ok().and_then(|text| text.trim().parse().ok())
}

/// Whether the generation that answers is not the one that was published last, or nothing
/// was published though extracts are there: then a rebuild is due.
pub(crate) fn is_behind(folder: &DataFolder, loaded: &Generation) -> bool {
    match pointer(folder) {
        Some(number) => number != loaded.number,
        None => std::fs::read_dir(folder.extracts()).is_ok_and(|mut entries| entries.next().is_some()),
    }
}

fn newest_whole(folder: &DataFolder, before: u64) -> Result<Generation> {
    for number in numbers(folder).into_iter().rev().filter(|n| *n < before) {
        if let Ok(generation) = read(folder, number)
            && is_whole(folder, &generation)
        {
            return Ok(generation);
        }
    }
    Ok(Generation::empty())
}

fn repair(folder: &DataFolder) {
    fsio::sweep(&folder.analytics(), 2);
    for entry in std::fs::read_dir(folder.extracts()).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            crate::extract::sweep(&entry.path());
        }
    }
    for uploads in folder.all_uploads() {
        fsio::sweep(&uploads, 1);
    }
    sweep_scratch(&folder.scratch(), Duration::ZERO);
}

/// Says, until dropped, that this process works in a scratch folder that others may use too. Where
/// nobody does, what those who are gone left there goes first. Blocks.
pub(crate) fn share_scratch(scratch: &Path) -> Option<FileLock> {
    let lock = crate::query::lock_file(scratch).ok()?;
    if lock.try_lock().is_ok() {
        sweep_scratch(scratch, ABANDONED);
    }
    lock.lock_shared().ok()?;
    Some(FileLock::held(lock))
}

/// Removes scratch folders as old as `age` of processes that are gone: whoever calls is alone.
pub(crate) fn sweep_scratch(scratch: &Path, age: Duration) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let written = entry.metadata().and_then(|meta| meta.modified()).ok();
        let old = age.is_zero() || written.and_then(|at| at.elapsed().ok()).is_some_and(|since| since >= age);
        if old && entry.path().is_dir() && SCRATCH.iter().any(|prefix| name.starts_with(prefix)) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

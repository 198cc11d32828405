//! What the engine said about a file, with the place of the file taken out.

use std::path::Path;

use agnes_core::duck::EngineFailure;
use agnes_core::error::{Coded, Error};
use agnes_core::ident::printable;

use super::error::FilesError;
use super::listing::FileEntry;

/// Whether a failure is about the statement or its input, not about memory, disk or a cancel.
pub(crate) fn is_plain(code: &str) -> bool {
    code == "engine_error"
}

/// The engine's failure on reading a file.
pub(crate) fn damaged(entry: &FileEntry, path: &Path, failure: EngineFailure) -> Error {
    if is_plain(failure.code()) { about(failure.words(), entry, path).into() } else { failure.into() }
}

/// The same for an error that came through the writer.
pub(crate) fn damaged_error(entry: &FileEntry, path: &Path, error: Error) -> Error {
    if is_plain(error.code()) { about(&words(&error), entry, path).into() } else { error }
}

fn about(words: &str, entry: &FileEntry, path: &Path) -> FilesError {
    let path = path.to_string_lossy();
    let shown = if path.is_empty() { words.to_owned() } else { words.replace(&*path, &entry.rel) };
    let first = shown.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it cannot be read");
    let first = first.split_once("Error: ").map_or(first, |(_, rest)| rest);
    // Whatever path is left is not for users.
    let reason: Vec<_> =
        first.split(' ').filter(|word| !word.trim_start_matches(['"', '\'']).starts_with('/')).collect();
    FilesError::damaged(&entry.rel, printable(reason.join(" ").trim_end_matches('.'), 300))
}

/// The innermost words of an error.
pub(crate) fn words(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! A write-ahead log that cannot be replayed.
//!
//! DuckDB ends a replay at the first entry that is not whole, and says nothing: it takes it
//! for the last one, which a kill cut off. So a damaged length drops every later commit in
//! silence, and a damaged head the whole log. Here the log's frame is looked at before, what
//! would be dropped is kept aside, and what happened goes to the log and the audit.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ::duckdb::Connection;
use chrono::{DateTime, Utc};

use super::audit;
use super::copies::{self, beside, folder_of, rename};
use super::migrate::snapshot_of;
use super::{StateError, wal_of};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio::{self, Staged};

/// What was done about a broken log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Recovered {
    /// Where the state comes from: `log_before_damage`, `last_checkpoint`,
    /// `before_migration`, `log_cut_short`, `interrupted_recovery`.
    pub(super) from: &'static str,
    /// Names of the files kept aside, in the state's folder.
    pub(super) kept: Vec<String>,
}

/// What the frame of a log says.
#[derive(Debug, PartialEq, Eq)]
enum Log {
    /// Missing, empty, or entries up to its end.
    Whole,
    /// The entry at the end is not whole.
    CutShort,
    /// Not a log.
    Foreign,
}

/// Walks the entries: after a head of eight bytes (the version), each is its length, a
/// checksum, and as many bytes. `until` ends the walk earlier.
fn inspect(log: &Path, until: Option<u64>) -> std::io::Result<Log> {
    let file = match File::open(log) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Log::Whole),
        Err(e) => return Err(e),
    };
    let end = until.unwrap_or(file.metadata()?.len());
    if end == 0 {
        return Ok(Log::Whole);
    }
    let (mut reader, mut head) = (BufReader::new(file), [0; 8]);
    if end < 8 {
        return Ok(Log::CutShort);
    }
    reader.read_exact(&mut head)?;
    match head {
        [0x64, 0, 0x62, 0x65, 0, 2, 0xff, 0xff] => {}
        // Versions with more in their head: DuckDB reads or refuses them.
        [0x64, 0, 0x62, 0x65, 0, version, 0xff, 0xff] if version != 2 => return Ok(Log::Whole),
        [0x64, 0, 0x62, 0x65, 0, _, 0x66, 0] => return Ok(Log::Whole),
        _ => return Ok(Log::Foreign),
    }
    let mut at = 8_u64;
    while at < end {
        let mut frame = [0; 16];
        if at + 16 > end {
            return Ok(Log::CutShort);
        }
        reader.read_exact(&mut frame)?;
        let [a, b, c, d, e, f, g, h, ..] = frame;
        let length = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        match (at + 16).checked_add(length) {
            Some(next) if next <= end => at = next,
            _ => return Ok(Log::CutShort),
        }
        reader.seek_relative(i64::try_from(length).unwrap_or(i64::MAX))?;
    }
    Ok(Log::Whole)
}

fn look(path: &Path, until: Option<u64>) -> Result<Log> {
    inspect(&wal_of(path), until).map_err(|e| Error::io("read the write-ahead log of the state", e))
}

/// Whether DuckDB opens the file as if the log beside it were not there.
pub(super) fn ignores_its_log(path: &Path) -> Result<bool> {
    Ok(look(path, None)? == Log::Foreign)
}

/// Whether DuckDB's `words` say that it could not replay the log.
pub(super) fn is_replay_failure(words: &str) -> bool {
    words.contains("replay") || words.contains("WAL file")
}

/// Keeps a copy of a log whose last entry is not whole: DuckDB is going to drop the rest of
/// it, and whether that was a commit nobody was told of or many that somebody was, only the
/// file can tell.
pub(super) fn keep_cut_log(path: &Path, now: DateTime<Utc>) -> Result<Option<Recovered>> {
    if look(path, None)? != Log::CutShort {
        return Ok(None);
    }
    let kept = wal_of(&broken(path, now));
    let staged = Staged::beside(&kept)?;
    fsio::copy_file("keep the write-ahead log", &wal_of(path), staged.path())?;
    staged.publish(&kept)?;
    fsio::sync_folder(folder_of(path))?;
    tracing::error!("the write-ahead log of the state ends within an entry: what follows is dropped, a copy was kept");
    Ok(Some(Recovered { from: "log_cut_short", kept: vec![name(&kept)] }))
}

fn broken(path: &Path, now: DateTime<Utc>) -> PathBuf {
    beside(path, &format!(".broken.{}", now.timestamp()))
}

/// Holds the recovered state while the broken files are moved away: whoever finds it goes on.
fn restoring(path: &Path) -> PathBuf {
    beside(path, ".restoring")
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Puts the newest state in place that can be read: with the log up to its first damaged
/// entry, else as of the last checkpoint, else as of the last migration. The broken files
/// are moved aside. `words` are DuckDB's.
///
/// # Errors
/// `state_log_broken` when there is none, I/O errors; nothing is changed then.
pub(super) fn recover(path: &Path, words: Option<&str>, now: DateTime<Utc>) -> Result<Recovered> {
    tracing::error!("the write-ahead log of the state cannot be replayed: {}", words.unwrap_or("it is no such log"));
    let mut ways = Vec::new();
    if let Some(good) = words.and_then(damaged_entry) {
        // Only what the frame confirms.
        if look(path, Some(good))? == Log::Whole {
            ways.push(("log_before_damage", path.to_owned(), good));
        }
    }
    ways.push(("last_checkpoint", path.to_owned(), 0));
    ways.push(("before_migration", snapshot_of(path), 0));
    for (from, source, log) in ways.into_iter().filter(|(_, source, _)| source.exists()) {
        match rebuild(path, &source, log) {
            Ok(staged) => {
                staged.publish(&restoring(path))?;
                fsio::sync_folder(folder_of(path))?;
                let kept = put_in_place(path, now)?;
                tracing::error!(from, "the state was recovered; the broken files were kept");
                return Ok(Recovered { from, kept });
            }
            // A full disk says nothing about the state: no lesser one may take its place then.
            Err(error) if !is_damage(&error) => return Err(error),
            Err(error) => tracing::error!(from, code = error.code(), "this state cannot be read: {error}"),
        }
    }
    Err(StateError::LogBroken.into())
}

/// Whether the file is at fault, not the disk or the process.
fn is_damage(error: &Error) -> bool {
    matches!(error.code(), "state_unreadable" | "state_copy_broken" | "engine_error" | "internal")
}

/// Where the log's first damaged entry begins, by DuckDB's words: they name its content.
fn damaged_entry(words: &str) -> Option<u64> {
    let (_, rest) = words.split_once("entry at byte position ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().ok()?.checked_sub(16)
}

/// A file with what `source` and the first `log` bytes of the log hold, read to its end.
fn rebuild(path: &Path, source: &Path, log: u64) -> Result<Staged> {
    let staged = Staged::beside(path)?;
    fsio::copy_file("recover the state", source, staged.path())?;
    if log > 0 {
        let copied = || {
            let mut head = File::open(wal_of(path))?.take(log);
            std::io::copy(&mut head, &mut File::create(wal_of(staged.path()))?)
        };
        copied().map_err(|e| Error::io("recover the state", e))?;
    }
    let conn = super::open_file(staged.path())?;
    super::checkpoint(&conn)?;
    conn.close().map_err(|(_, e)| engine_error("recover the state", &e))?;
    copies::verify(staged.path(), None)?;
    staged.sync()?;
    Ok(staged)
}

/// Moves what a recovery that was interrupted has left to where it belongs.
pub(super) fn finish(path: &Path, now: DateTime<Utc>) -> Result<Option<Recovered>> {
    if !restoring(path).exists() {
        return Ok(None);
    }
    Ok(Some(Recovered { from: "interrupted_recovery", kept: put_in_place(path, now)? }))
}

/// Tells of it where admins look.
pub(super) fn record(conn: &Connection, recovered: &Recovered, now: DateTime<Utc>) -> Result<()> {
    let params = serde_json::json!(recovered);
    audit::tell(conn, "system:recovery", "state.recovered", &params, now)
        .map_err(|e| engine_error("tell of a recovery", &e))
}

fn put_in_place(path: &Path, now: DateTime<Utc>) -> Result<Vec<String>> {
    let broken = broken(path, now);
    let mut kept = Vec::new();
    // The logs first: without its file a log can harm nobody, the other way round it would
    // be replayed into what was recovered.
    for suffix in [".wal", ".wal.checkpoint", ".wal.recovery", ""] {
        let (from, to) = (beside(path, suffix), beside(&broken, suffix));
        if from.exists() {
            rename(&from, &to)?;
            kept.push(name(&to));
        }
    }
    rename(&restoring(path), path)?;
    Ok(kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_tells_whole_from_cut_from_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("l.wal");
        let is = |bytes: &[u8]| {
            std::fs::write(&log, bytes).unwrap();
            inspect(&log, None).unwrap()
        };
        assert_eq!(inspect(&folder.path().join("none"), None).unwrap(), Log::Whole);
        assert_eq!(is(b""), Log::Whole);
        let mut bytes = vec![0x64, 0, 0x62, 0x65, 0, 2, 0xff, 0xff];
        assert_eq!(is(&bytes[..5]), Log::CutShort);
        assert_eq!(is(&bytes), Log::Whole);
        for length in [3_u64, 0, 500] {
            bytes.extend(length.to_le_bytes());
            bytes.extend([7; 8]);
            bytes.extend(std::iter::repeat_n(1, usize::try_from(length).unwrap()));
        }
        assert_eq!(is(&bytes), Log::Whole);
        for cut in [1, 499, 501, 515] {
            assert_eq!(is(&bytes[..bytes.len() - cut]), Log::CutShort, "{cut}");
        }
        assert_eq!(is(&bytes[..bytes.len() - 516]), Log::Whole);
        assert_eq!(inspect(&log, Some(27)).unwrap(), Log::Whole);
        bytes[15] = 0xff;
        assert_eq!(is(&bytes), Log::CutShort, "a length beyond every file");
        bytes[0] = 0x65;
        assert_eq!(is(&bytes), Log::Foreign);
        assert_eq!(damaged_entry("Corrupt WAL file: entry at byte position 8403 computed checksum 6 does"), Some(8387));
        assert_eq!(damaged_entry("entry at byte position 3 computed"), None);
        assert_eq!(damaged_entry("Failed to read WAL of version 87"), None);
    }
}

//! Where the pieces of one export lie while it is read: a folder that outlives the process, so
//! that a run that was killed goes on with what it has. What counts is what a journal says and
//! the file still proves by its size and SHA-256.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use agnes_core::error::{Error, Result};
use agnes_core::file_lock::FileLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::place::hex;

/// Begins the name of every such folder.
const PREFIX: &str = "kbc-export-";
const STATE: &str = "export.json";
const JOURNAL: &str = "done.ndjson";
const LOCK: &str = "lock";

/// What is known of the export before the first piece is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// When it began, Unix seconds: what changed later is not in it.
    pub(crate) started_at: i64,
    /// When the table had changed last by then, see [`super::cursor::stamp`].
    pub(crate) stamp: Option<String>,
    /// What was asked.
    pub(crate) form: Vec<(String, String)>,
    /// The table's columns when it began.
    pub(crate) columns: Vec<String>,
    /// The job that makes it.
    pub(crate) job: Option<String>,
    /// The file it became.
    pub(crate) file: Option<String>,
    /// Rows, where the job says so.
    pub(crate) rows: Option<u64>,
}

/// A piece that is there as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// What it is: the slice's address without its signature, or a window.
    pub(crate) what: String,
    /// Its file in the folder.
    pub(crate) file: String,
    /// Bytes of that file.
    pub(crate) size: u64,
    /// SHA-256 of that file, hex.
    pub(crate) sha256: String,
    /// Rows, where they are known.
    #[serde(default)]
    pub(crate) rows: Option<u64>,
    /// Whether its lines end with CR LF.
    #[serde(default)]
    pub(crate) crlf: bool,
}

/// The folder of one export. Only one process has it.
#[derive(Debug)]
pub(crate) struct Workspace {
    folder: PathBuf,
    /// Held as long as this lives.
    _lock: FileLock,
    journal: Mutex<File>,
    pub(crate) state: State,
    pieces: BTreeMap<String, Piece>,
    keep: bool,
}

impl Workspace {
    /// The folder below `scratch` of the export that `what` identifies, for `table`. One that
    /// was last written longer than `max_age` ago begins anew. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn open(scratch: &Path, table: &str, what: &str, max_age: Duration) -> Result<Self> {
        let io = |e| Error::io("make the folder of an export", e);
        sweep(scratch, max_age);
        let sum = hex(&Sha256::digest(what.as_bytes())[..8]);
        let mut folder = scratch.join(format!("{PREFIX}{table}-{sum}"));
        let mut own = 0;
        let lock = loop {
            std::fs::create_dir_all(&folder).map_err(io)?;
            let lock =
                OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK)).map_err(io)?;
            match lock.try_lock() {
                Ok(()) => break FileLock::held(lock),
                // Another process reads the same table into the same scratch folder.
                Err(std::fs::TryLockError::WouldBlock) if own < 100 => {
                    own += 1;
                    folder = scratch.join(format!("{PREFIX}{table}-{sum}-{own}"));
                }
                Err(error) => return Err(io(error.into())),
            }
        };
        let state = read_state(&folder).filter(|_| age(&folder).is_some_and(|age| age < max_age));
        let mut pieces = BTreeMap::new();
        match &state {
            Some(_) => pieces = read_journal(&folder),
            None => empty(&folder),
        }
        let journal = OpenOptions::new().create(true).append(true).open(folder.join(JOURNAL)).map_err(io)?;
        // What one run left stays until a run ends it, however many are cut off in between.
        let keep = state.is_some();
        let mut workspace =
            Self { folder, _lock: lock, journal: Mutex::new(journal), state: state.unwrap_or_default(), pieces, keep };
        workspace.pieces.retain(|_, piece| {
            let there = is_proven(&workspace.folder, piece);
            if !there {
                tracing::warn!(file = piece.file, "a piece of an export is not what it was: it is read again");
            }
            there
        });
        Ok(workspace)
    }

    /// Writes the state down.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn save(&mut self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.state).map_err(|e| Error::internal("write the state of an export", e))?;
        self.keep = true;
        agnes_core::extract::write_atomically(&self.folder.join(STATE), &bytes)
    }

    /// Forgets everything: the export begins anew. Blocks.
    pub(crate) fn restart(&mut self) -> Result<()> {
        empty(&self.folder);
        (self.state, self.keep) = (State::default(), false);
        self.pieces.clear();
        let journal = OpenOptions::new().create(true).append(true).open(self.folder.join(JOURNAL));
        self.journal = Mutex::new(journal.map_err(|e| Error::io("make the folder of an export", e))?);
        Ok(())
    }

    /// Writes down that a piece is there. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn done(&self, piece: &Piece) -> Result<()> {
        let mut line = serde_json::to_vec(piece).map_err(|e| Error::internal("write the journal of an export", e))?;
        line.push(b'\n');
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.write_all(&line).map_err(|e| Error::io("write the journal of an export", e))
    }

    /// The piece `what`, if it was there when the folder was opened.
    pub(crate) fn piece(&self, what: &str) -> Option<&Piece> {
        self.pieces.get(what)
    }

    /// Where a file of this name is.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Everything was read: the folder goes when this is dropped.
    pub(crate) fn finish(&mut self) {
        self.keep = false;
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            tracing::error!(kind = %error.kind(), "the scratch folder of an export could not be removed");
        }
    }
}

/// Removes folders of exports that nobody works at and nobody went on with for `max_age`. Blocks.
pub(crate) fn sweep(scratch: &Path, max_age: Duration) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        let folder = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !ours || age(&folder).is_none_or(|age| age < max_age) {
            continue;
        }
        let free = File::open(folder.join(LOCK)).map_or(true, |lock| lock.try_lock().is_ok());
        if free && let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::error!(kind = %error.kind(), "the scratch folder of an old export could not be removed");
        }
    }
}

/// How long nothing was written to the folder of an export.
fn age(folder: &Path) -> Option<Duration> {
    let written = [STATE, JOURNAL, LOCK].map(|file| folder.join(file).metadata().and_then(|meta| meta.modified()).ok());
    let last = written.into_iter().flatten().max()?;
    Some(SystemTime::now().duration_since(last).unwrap_or_default())
}

fn read_state(folder: &Path) -> Option<State> {
    serde_json::from_slice(&std::fs::read(folder.join(STATE)).ok()?).ok()
}

/// The pieces of the journal. Its last line may be torn.
fn read_journal(folder: &Path) -> BTreeMap<String, Piece> {
    let Ok(file) = File::open(folder.join(JOURNAL)) else { return BTreeMap::new() };
    BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_slice::<Piece>(&line).ok())
        .map(|piece| (piece.what.clone(), piece))
        .collect()
}

/// Whether the file of a piece is what the journal says.
fn is_proven(folder: &Path, piece: &Piece) -> bool {
    let path = folder.join(&piece.file);
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == piece.size)
        && sha256(&path).is_ok_and(|sum| sum == piece.sha256)
}

/// SHA-256 of a file, hex. Blocks.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
    let (mut file, mut sum) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&sum.finalize())),
            n => sum.update(&buffer[..n]),
        }
    }
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != LOCK {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn piece(workspace: &Workspace, what: &str, bytes: &[u8]) -> Piece {
        let file = format!("{what}.csv");
        std::fs::write(workspace.path(&file), bytes).unwrap();
        let sha256 = sha256(&workspace.path(&file)).unwrap();
        Piece { what: what.to_owned(), file, size: bytes.len() as u64, sha256, rows: None, crlf: false }
    }

    #[test]
    fn what_is_proven_is_there_the_next_time() {
        let scratch = tempfile::tempdir().unwrap();
        let mut first = Workspace::open(scratch.path(), "t", "all", HOUR).unwrap();
        first.state.job = Some("7".to_owned());
        first.save().unwrap();
        for (what, bytes) in [("a", b"1\n"), ("b", b"2\n"), ("c", b"3\n")] {
            first.done(&piece(&first, what, bytes)).unwrap();
        }
        std::fs::write(first.path("b.csv"), b"9\n").unwrap();
        std::fs::write(first.path("c.csv"), b"3").unwrap();
        let folder = first.folder.clone();
        OpenOptions::new().append(true).open(folder.join(JOURNAL)).unwrap().write_all(b"{\"what\": \"d").unwrap();

        // Somebody else at the same time gets a folder of their own.
        let other = Workspace::open(scratch.path(), "t", "all", HOUR).unwrap();
        assert!(other.folder != folder && other.state == State::default());
        drop(other);
        drop(first);
        for _ in 0..2 {
            let later = Workspace::open(scratch.path(), "t", "all", HOUR).unwrap();
            assert_eq!((later.folder.clone(), later.state.job.as_deref()), (folder.clone(), Some("7")));
            assert!(later.piece("a").is_some() && later.piece("b").is_none() && later.piece("c").is_none());
        }
        let mut last = Workspace::open(scratch.path(), "t", "all", HOUR).unwrap();
        last.finish();
        drop(last);
        assert!(!folder.exists());
    }

    #[test]
    fn old_ones_begin_anew_and_are_swept() {
        let scratch = tempfile::tempdir().unwrap();
        for what in ["x", "y"] {
            let mut old = Workspace::open(scratch.path(), "t", what, HOUR).unwrap();
            old.state.job = Some("7".to_owned());
            old.save().unwrap();
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
        let again = Workspace::open(scratch.path(), "t", "x", Duration::ZERO).unwrap();
        assert_eq!(again.state, State::default());
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}

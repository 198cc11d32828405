//! Sessions of an assistant that wait to be sent: queued by a hook, kept here where they are private.
//!
//! The queue is a text file that hooks append to. Whoever changes it holds a lock, for a moment.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use super::Workspace;
use crate::error::{Error, Result};
use crate::ident::printable;

const QUEUE: &str = "agnes-sessions.txt";
const QUEUE_LOCK: &str = "agnes-queue.lock";
/// What the part of the queue that a push works on begins with.
const SNAPSHOT: &str = "agnes-sessions.snapshot.";
const PRIVATE: &str = "agnes-sessions-private.txt";
const CAPTURES: &str = "agnes-capture-session.log";
const CAPTURES_BEFORE: &str = "agnes-capture-session.log.1";
/// Longest log of captures before it starts over.
const LONGEST_LOG: u64 = 256 << 10;

/// A session that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingSession {
    /// Its id.
    pub session_id: String,
    /// Its transcript.
    pub path: PathBuf,
    /// Since when there is no transcript to be read.
    #[serde(skip)]
    pub(super) missing_since: Option<DateTime<Utc>>,
}

/// What became of a session that a hook told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// In one word.
    pub outcome: &'static str,
    /// Which session, or what is wrong.
    pub detail: String,
}

/// What may name a session, and a file.
fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(plain)
}

/// The time, as the lists write it.
pub(super) fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl WaitingSession {
    /// The session of a transcript, which is called as it where it has no `id`.
    pub(super) fn new(id: Option<&str>, path: &str) -> Option<Self> {
        let is_one_line = !path.contains(['\t', '\r', '\n']);
        let path = PathBuf::from(path);
        let id = id.or_else(|| path.file_stem()?.to_str()).filter(|id| is_id(id))?.to_owned();
        (is_one_line && path.is_absolute()).then_some(Self { session_id: id, path, missing_since: None })
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.trim_end_matches(['\r', '\n']).split('\t');
        let (first, path, since) = (parts.next()?, parts.next(), parts.next());
        let found = path.map_or_else(|| Self::new(None, first), |path| Self::new(Some(first), path))?;
        Some(Self { missing_since: since.and_then(|since| since.parse().ok()), ..found })
    }

    fn line(&self) -> String {
        let since = self.missing_since.map(|since| format!("\t{}", stamp(since))).unwrap_or_default();
        format!("{}\t{}{since}", self.session_id, self.path.display())
    }

    fn is(&self, other: &Self) -> bool {
        self.session_id == other.session_id && self.path == other.path
    }
}

/// Opens a file that only its owner may read.
fn open(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.create(true).open(path)
}

impl Workspace {
    pub(super) fn list(&self, name: &str) -> PathBuf {
        self.assistant().join(name)
    }

    pub(super) fn lock_of(&self, name: &str) -> std::io::Result<File> {
        open(OpenOptions::new().write(true).truncate(false), &self.list(name))
    }

    pub(super) fn append(&self, name: &str, line: &str) -> Result<()> {
        // One write, so that lines of two processes do not mix.
        let write =
            || open(OpenOptions::new().append(true), &self.list(name))?.write_all(format!("{line}\n").as_bytes());
        write().map_err(|e| Error::io("write down a session", e))
    }

    /// Held while the queue is changed.
    fn queue_lock(&self) -> Result<File> {
        let lock = || {
            let lock = self.lock_of(QUEUE_LOCK)?;
            lock.lock().map(|()| lock)
        };
        lock().map_err(|e| Error::io("lock the queue", e))
    }

    fn private_sessions(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.list(PRIVATE)).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).filter(|id| !id.is_empty()).collect()
    }

    /// Whether a session stays here.
    #[must_use]
    pub fn is_private(&self, session: &str) -> bool {
        self.private_sessions().contains(session)
    }

    /// Keeps a session here; whether it was not kept before.
    ///
    /// # Errors
    /// `invalid_name` for what is no id; I/O errors.
    pub fn mark_private(&self, session: &str) -> Result<bool> {
        if !is_id(session) {
            return Err(crate::ident::InvalidName::new("session", session, "letters, digits, `_`, `-`, `.`").into());
        }
        if self.is_private(session) {
            return Ok(false);
        }
        std::fs::create_dir_all(self.assistant()).map_err(|e| Error::io("write down a session", e))?;
        self.append(PRIVATE, session)?;
        Ok(true)
    }

    /// Queues the session that a hook tells of: `{"session_id", "transcript_path"}`. Whatever it is,
    /// a line in the log says what became of it.
    #[must_use]
    pub fn capture_session(&self, told: std::io::Result<String>) -> Captured {
        let (outcome, detail) = self.capture(told);
        let captured = Captured { outcome, detail: printable(&detail, 200) };
        let line = format!("{}\t{outcome}\t{}", stamp(Utc::now()), captured.detail);
        let log = self.list(CAPTURES);
        if log.metadata().is_ok_and(|meta| meta.len() > LONGEST_LOG) {
            let _ = std::fs::rename(&log, self.list(CAPTURES_BEFORE));
        }
        match self.append(CAPTURES, &line) {
            Ok(()) => captured,
            Err(error) => Captured { outcome: "write_error", detail: error.to_string() },
        }
    }

    fn capture(&self, told: std::io::Result<String>) -> (&'static str, String) {
        let told = match told {
            Ok(told) if told.trim().is_empty() => return ("empty_stdin", String::new()),
            Ok(told) => told,
            Err(error) => return ("stdin_read_error", error.to_string()),
        };
        let told: Value = match serde_json::from_str(&told) {
            Ok(told) => told,
            Err(error) => return ("bad_json", error.to_string()),
        };
        if !told.is_object() {
            return ("not_object", String::new());
        }
        let Some(path) = told["transcript_path"].as_str().filter(|path| !path.is_empty()) else {
            return ("no_transcript_path", String::new());
        };
        let Some(session) = WaitingSession::new(told["session_id"].as_str(), path) else {
            return ("no_transcript_path", format!("not one that can be queued: {path}"));
        };
        if self.is_private(&session.session_id) {
            return ("private_skip", session.session_id);
        }
        match self.enqueue(&session) {
            Ok(()) => ("ok", session.session_id),
            Err(error) => ("write_error", error.to_string()),
        }
    }

    /// Puts a session into the queue, unless it is there.
    pub(super) fn enqueue(&self, session: &WaitingSession) -> Result<()> {
        let _lock = self.queue_lock()?;
        if read(&self.list(QUEUE)).iter().any(|queued| queued.is(session)) {
            return Ok(());
        }
        self.append(QUEUE, &session.line())
    }

    /// Takes the queue away, to be worked on.
    pub(super) fn take_queue(&self) -> Result<()> {
        let _lock = self.queue_lock()?;
        let name: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let taken = self.list(&format!("{SNAPSHOT}{}.{name}.txt", std::process::id()));
        match std::fs::rename(self.list(QUEUE), taken) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("take the queue", error)),
            _ => Ok(()),
        }
    }

    /// Files that pushes took the queue away to, and did not finish.
    pub(super) fn taken(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.assistant()).into_iter().flatten().flatten();
        let taken = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(SNAPSHOT));
        let mut taken: Vec<_> = taken.map(|entry| entry.path()).collect();
        taken.sort();
        taken
    }

    /// What is queued, in its order, what was taken away before it.
    pub(super) fn queued(&self) -> Vec<WaitingSession> {
        let mut all = Vec::new();
        for file in self.taken().into_iter().chain([self.list(QUEUE)]) {
            read(&file).into_iter().for_each(|session| add(&mut all, session));
        }
        all
    }

    /// How many sessions wait to be sent: queued, and not private.
    #[must_use]
    pub fn pending_sessions(&self) -> usize {
        let private = self.private_sessions();
        self.queued().iter().filter(|session| !private.contains(&session.session_id)).count()
    }
}

fn read(list: &Path) -> Vec<WaitingSession> {
    std::fs::read_to_string(list).unwrap_or_default().lines().filter_map(WaitingSession::read).collect()
}

/// Adds a session, once.
pub(super) fn add(all: &mut Vec<WaitingSession>, session: WaitingSession) {
    if !all.iter().any(|known| known.is(&session)) {
        all.push(session);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(folder: &tempfile::TempDir) -> Workspace {
        let workspace = Workspace::at(folder.path()).unwrap();
        std::fs::create_dir_all(workspace.assistant()).unwrap();
        workspace
    }

    #[test]
    fn a_hook_is_told_what_became_of_its_session() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Workspace::at(&folder.path().join("nowhere")).unwrap();
        assert_eq!(nowhere.capture_session(Ok("{}".to_owned())).outcome, "write_error");
        assert!(!nowhere.root().exists(), "a hook makes no workspace");
        let workspace = workspace(&folder);
        assert!(workspace.mark_private("d").unwrap() && !workspace.mark_private("d").unwrap());
        let hook = |id: &str, path: &str| json!({"session_id": id, "transcript_path": path}).to_string();
        for (told, outcome) in [
            (hook("a", "/t/a.jsonl"), "ok"),
            (hook("a", "/t/a.jsonl"), "ok"),
            (json!({"transcript_path": "/t/b.jsonl"}).to_string(), "ok"),
            (hook("d", "/t/d.jsonl"), "private_skip"),
            (" \n".to_owned(), "empty_stdin"),
            ("nonsense".to_owned(), "bad_json"),
            ("[]".to_owned(), "not_object"),
            ("{}".to_owned(), "no_transcript_path"),
            (hook("c", ""), "no_transcript_path"),
            (hook("c", "t/c.jsonl"), "no_transcript_path"),
            (hook("c", "/t/c\td.jsonl"), "no_transcript_path"),
            (hook("c", "/t/c\n.jsonl"), "no_transcript_path"),
            (hook("../x", "/x"), "no_transcript_path"),
        ] {
            assert_eq!(workspace.capture_session(Ok(told.clone())).outcome, outcome, "{told}");
        }
        let slow = workspace.capture_session(Err(std::io::ErrorKind::TimedOut.into()));
        assert_eq!(slow, Captured { outcome: "stdin_read_error", detail: "timed out".to_owned() });
        let queue = std::fs::read_to_string(workspace.list(QUEUE)).unwrap();
        assert_eq!(queue, "a\t/t/a.jsonl\nb\t/t/b.jsonl\n");
        let log = std::fs::read_to_string(workspace.list(CAPTURES)).unwrap();
        assert!(
            log.lines().next().unwrap().ends_with("Z\tok\ta") && log.contains("\tstdin_read_error\ttimed out\n"),
            "{log}"
        );
        #[cfg(unix)]
        for name in [QUEUE, QUEUE_LOCK, PRIVATE, CAPTURES] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(workspace.list(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_log_of_captures_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = workspace(&folder);
        for content in ["first", "second"] {
            std::fs::write(workspace.list(CAPTURES), content.repeat(LONGEST_LOG as usize)).unwrap();
            let _ = workspace.capture_session(Ok(String::new()));
            assert!(workspace.list(CAPTURES).metadata().unwrap().len() < 100);
            assert!(std::fs::read_to_string(workspace.list(CAPTURES_BEFORE)).unwrap().starts_with(content));
        }
    }

    #[test]
    fn hooks_and_a_push_share_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = workspace(&folder);
        std::thread::scope(|all| {
            for hook in 0..4 {
                let workspace = &workspace;
                all.spawn(move || {
                    for number in 0..25 {
                        let told = json!({"transcript_path": format!("/t/{hook}-{number}.jsonl")});
                        assert_eq!(workspace.capture_session(Ok(told.to_string())).outcome, "ok");
                    }
                });
            }
            for _ in 0..25 {
                workspace.take_queue().unwrap();
            }
        });
        assert_eq!(workspace.queued().len(), 100, "none is lost, and none is there twice");
    }

    #[test]
    fn a_line_tells_an_id_a_path_and_since_when_it_is_missing() {
        let since = "2026-01-02T03:04:05Z";
        let found = WaitingSession::read(&format!("a\t/t/b.jsonl\t{since}\n")).unwrap();
        assert_eq!((found.session_id.as_str(), found.missing_since), ("a", Some(since.parse().unwrap())));
        assert_eq!(found.line(), format!("a\t/t/b.jsonl\t{since}"));
        assert_eq!(WaitingSession::read("/t/b.jsonl").unwrap().session_id, "b", "a path alone names it");
        for bad in ["", "a", "a\tb.jsonl", ".a\t/t/b.jsonl", "a b\t/t/b.jsonl"] {
            assert_eq!(WaitingSession::read(bad), None, "{bad:?}");
        }
    }
}

//! Sessions of an assistant: queued by a hook, sent by a push, kept here where they are private.
//!
//! The queue is a text file that hooks append to. A push takes it away whole before it works, so
//! that nothing which is added meanwhile is lost, and puts back what should be tried again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use async_trait::async_trait;
use chrono::Utc;
use regex::Regex;
use serde::Serialize;
use serde_json::Value;

use super::Workspace;
use crate::error::{Error, Result};

const QUEUE: &str = "agnes-sessions.txt";
const PRIVATE: &str = "agnes-sessions-private.txt";
const PRIVATE_SKIPPED: &str = "agnes-sessions-private-skipped.txt";
const UPLOADED: &str = "agnes-sessions-uploaded.txt";
const FAILED: &str = "agnes-sessions-failed.txt";
const CAPTURED: &str = "agnes-sessions-captured.log";
/// Longest transcript that is read.
const LONGEST: u64 = 50 << 20;
/// Longest notes that are sent.
const LONGEST_NOTES: usize = 1 << 20;

/// Where sessions and notes go.
#[async_trait]
pub trait SessionSink: Send + Sync {
    /// Takes a session, as the file `name`.
    ///
    /// # Errors
    /// Those of the way there; what may go well later says so.
    async fn session(&self, name: &str, content: &[u8]) -> Result<()>;

    /// Takes the owner's notes.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    async fn notes(&self, text: &str) -> Result<()>;
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PushReport {
    /// Sessions that were sent.
    pub sessions: usize,
    /// Whether the notes were sent.
    pub local_md: bool,
    /// What went wrong, in words.
    pub errors: Vec<String>,
    /// Sessions whose file is gone.
    pub skipped: usize,
    /// Sessions that are private.
    pub private_skipped: usize,
    /// Sessions that the server takes at no time.
    pub dropped_permanent: usize,
}

/// A session that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WaitingSession {
    /// Its id.
    pub session_id: String,
    /// Its transcript.
    pub path: PathBuf,
}

/// What a push would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WouldPush {
    /// Sessions it would send.
    pub sessions: Vec<WaitingSession>,
    /// Whether there are notes to send.
    pub local_md: bool,
    /// Sessions it would not, as they are private.
    pub private: Vec<WaitingSession>,
}

/// What may name a session, and a file.
fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(plain)
}

impl WaitingSession {
    fn read(line: &str) -> Option<Self> {
        let (id, path) = line.split_once('\t')?;
        let path = PathBuf::from(path.trim());
        (is_id(id) && path.is_absolute()).then(|| Self { session_id: id.to_owned(), path })
    }

    fn line(&self) -> String {
        format!("{}\t{}", self.session_id, self.path.display())
    }
}

/// What looks like a secret in a text, replaced.
#[must_use]
pub fn redacted(text: &str) -> String {
    static SECRETS: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    const GONE: &str = "[redacted]";
    let secrets = SECRETS.get_or_init(|| {
        [
            (r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----", GONE),
            (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", GONE),
            (r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}", GONE),
            (r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}", GONE),
            (r"\bxox[abeprs]-[A-Za-z0-9-]{10,}", GONE),
            (r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b", GONE),
            (r"\bAIza[0-9A-Za-z_-]{35}", GONE),
            (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{16,}", "$1 [redacted]"),
            (r"(://[^\s/:@]+:)[^\s/@]+@", "$1[redacted]@"),
            (
                r#"(?i)((?:password|passwd|secret|api[_-]?key|access[_-]?key|token)[A-Za-z0-9_-]*\\?["']?\s*[:=]\s*\\?["']?)[^\s"'\\,;}]{8,}"#,
                "$1[redacted]",
            ),
        ]
        .into_iter()
        .filter_map(|(pattern, instead)| Some((Regex::new(pattern).ok()?, instead)))
        .collect()
    });
    secrets.iter().fold(text.to_owned(), |text, (pattern, instead)| pattern.replace_all(&text, *instead).into_owned())
}

impl Workspace {
    fn list(&self, name: &str) -> PathBuf {
        self.assistant().join(name)
    }

    fn append(&self, name: &str, line: &str) -> Result<()> {
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(self.assistant())?;
            let mut file = OpenOptions::new().create(true).append(true).open(self.list(name))?;
            // One write, so that lines of two hooks do not mix.
            file.write_all(format!("{line}\n").as_bytes())
        };
        write().map_err(|e| Error::io("write down a session", e))
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
        self.append(PRIVATE, session)?;
        Ok(true)
    }

    /// Queues the session that a hook tells of: `{"session_id", "transcript_path"}`. Whatever it is,
    /// a line says what became of it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn capture_session(&self, told: &str) -> Result<&'static str> {
        let told: Value = serde_json::from_str(told).unwrap_or_default();
        let (id, path) =
            (told["session_id"].as_str().unwrap_or_default(), told["transcript_path"].as_str().unwrap_or_default());
        let session = WaitingSession::read(&format!("{id}\t{path}"));
        let outcome = match &session {
            None => "not understood",
            Some(session) if self.is_private(&session.session_id) => "private",
            Some(session) if self.queued().contains(session) => "queued before",
            Some(session) => {
                self.append(QUEUE, &session.line())?;
                "queued"
            }
        };
        let id = crate::ident::printable(id, 64);
        self.append(CAPTURED, &format!("{}\t{id}\t{outcome}", Utc::now().format("%Y-%m-%dT%H:%M:%SZ")))?;
        Ok(outcome)
    }

    /// Files that pushes took the queue away to, and did not finish.
    fn taken(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.assistant()).into_iter().flatten().flatten();
        let taken = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("agnes-sessions.txt.push-"));
        taken.map(|entry| entry.path()).collect()
    }

    fn queued(&self) -> BTreeSet<WaitingSession> {
        let files = self.taken().into_iter().chain([self.list(QUEUE)]);
        let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
        texts.flat_map(|text| text.lines().filter_map(WaitingSession::read).collect::<Vec<_>>()).collect()
    }

    /// How many sessions wait to be sent: queued, and not private.
    #[must_use]
    pub fn pending_sessions(&self) -> usize {
        let private = self.private_sessions();
        self.queued().iter().filter(|session| !private.contains(&session.session_id)).count()
    }

    /// Transcripts of this workspace below the assistant's own folder, those that were sent before
    /// left out.
    fn scanned(&self, home: &Path) -> BTreeSet<WaitingSession> {
        let name: String =
            self.root().to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let sent = std::fs::read_to_string(self.list(UPLOADED)).unwrap_or_default();
        let sent: BTreeSet<&str> = sent.lines().filter_map(|line| line.split('\t').nth(1)).collect();
        let entries =
            std::fs::read_dir(home.join(".claude").join("projects").join(name)).into_iter().flatten().flatten();
        let found = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
        found
            .filter_map(|path| WaitingSession::read(&format!("{}\t{}", path.file_stem()?.to_str()?, path.display())))
            .filter(|session| !sent.contains(session.session_id.as_str()))
            .collect()
    }

    /// What a push would send; with `scan`, also transcripts below the assistant's folder in this
    /// home.
    #[must_use]
    pub fn would_push(&self, scan: Option<&Path>) -> WouldPush {
        let mut all = self.queued();
        all.extend(scan.into_iter().flat_map(|home| self.scanned(home)));
        let private = self.private_sessions();
        let (private, sessions) = all.into_iter().partition(|session| private.contains(&session.session_id));
        WouldPush { sessions, local_md: self.notes().is_some(), private }
    }

    fn notes(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.assistant().join("CLAUDE.local.md")).ok()?;
        Some(text).filter(|text| !text.trim().is_empty() && text.len() <= LONGEST_NOTES)
    }

    /// Sends what waits. One at a time: while another push runs, nothing is done.
    ///
    /// # Errors
    /// I/O errors. What goes wrong with single sessions is in the report.
    pub async fn push(&self, sink: &dyn SessionSink, scan: Option<&Path>) -> Result<PushReport> {
        std::fs::create_dir_all(self.own()).map_err(|e| Error::io("lock the push", e))?;
        let lock = File::options().create(true).truncate(false).write(true).open(self.own().join("push.lock"));
        let lock = lock.map_err(|e| Error::io("lock the push", e))?;
        if lock.try_lock().is_err() {
            return Ok(PushReport::default());
        }
        let queue = self.list(QUEUE);
        let taken = self.assistant().join(format!("{QUEUE}.push-{}", uuid::Uuid::new_v4().simple()));
        if queue.is_file() {
            std::fs::rename(&queue, &taken).map_err(|e| Error::io("take the queue", e))?;
        }
        let files = self.taken();
        let mut report = PushReport::default();
        for session in self.queued().into_iter().chain(scan.into_iter().flat_map(|home| self.scanned(home))) {
            self.push_one(sink, &session, &mut report).await?;
        }
        for file in files {
            std::fs::remove_file(file).map_err(|e| Error::io("finish the push", e))?;
        }
        if let Some(notes) = self.notes() {
            match sink.notes(&redacted(&notes)).await {
                Ok(()) => report.local_md = true,
                Err(error) => report.errors.push(format!("notes: {error}")),
            }
        }
        Ok(report)
    }

    async fn push_one(&self, sink: &dyn SessionSink, session: &WaitingSession, report: &mut PushReport) -> Result<()> {
        let now = Utc::now().format("%Y-%m-%dT%H:%M:%SZ");
        // Asked for each: it may have become private while others were sent.
        if self.is_private(&session.session_id) {
            report.private_skipped += 1;
            return self.append(PRIVATE_SKIPPED, &format!("{now}\t{}", session.session_id));
        }
        let size = session.path.metadata().map(|meta| meta.len());
        let content = match size {
            Ok(size) if size <= LONGEST => std::fs::read(&session.path).ok(),
            Ok(_) => {
                report.dropped_permanent += 1;
                report.errors.push(format!("{}: it is too large", session.session_id));
                return self.append(FAILED, &format!("{now}\t{}\ttoo large", session.session_id));
            }
            Err(_) => None,
        };
        let Some(content) = content else {
            report.skipped += 1;
            return Ok(());
        };
        let content = redacted(&String::from_utf8_lossy(&content));
        match sink.session(&format!("{}.jsonl", session.session_id), content.as_bytes()).await {
            Ok(()) => {
                report.sessions += 1;
                self.append(UPLOADED, &format!("{now}\t{}", session.session_id))
            }
            // An expired token must not lose sessions.
            Err(error) if error.is_retryable() || error.kind() == crate::ErrorKind::Unauthenticated => {
                report.errors.push(format!("{}: {error}", session.session_id));
                self.append(QUEUE, &session.line())
            }
            Err(error) => {
                report.dropped_permanent += 1;
                report.errors.push(format!("{}: {error}", session.session_id));
                self.append(FAILED, &format!("{now}\t{}\t{}", session.session_id, error.code()))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::WireError;

    #[test]
    fn what_looks_like_a_secret_is_not_sent() {
        for (text, sent) in [
            ("token=abcdefghijkl x", "token=[redacted] x"),
            (r#"{"api_key": "abcdefgh12", "n": 1}"#, r#"{"api_key": "[redacted]", "n": 1}"#),
            (r#"{\"password\":\"hunter2hunter2\"}"#, r#"{\"password\":\"[redacted]\"}"#),
            ("postgres://ann:pa55word@db/x", "postgres://ann:[redacted]@db/x"),
            ("AKIAABCDEFGHIJKLMNOP", "[redacted]"),
            ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: Bearer [redacted]"),
            ("ghp_0123456789012345678901234", "[redacted]"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "[redacted]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted]"),
            ("how many tokens are there", "how many tokens are there"),
        ] {
            assert_eq!(redacted(text), sent);
        }
    }

    /// Takes what it gets, or says no as it was told.
    #[derive(Default)]
    struct Sink {
        says: Mutex<Option<WireError>>,
        got: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl SessionSink for Sink {
        async fn session(&self, name: &str, content: &[u8]) -> Result<()> {
            if let Some(error) = self.says.lock().unwrap().clone() {
                return Err(error.into());
            }
            self.got.lock().unwrap().push(format!("{name}: {}", String::from_utf8_lossy(content)));
            Ok(())
        }
        async fn notes(&self, text: &str) -> Result<()> {
            self.got.lock().unwrap().push(format!("notes: {text}"));
            Ok(())
        }
    }

    fn refusal(kind: crate::ErrorKind) -> WireError {
        let (code, message) = ("refused".to_owned(), "no".to_owned());
        WireError { kind, code, message, hint: None, retryable: kind.is_retryable(), facts: None }
    }

    #[tokio::test]
    async fn no_session_is_lost_and_no_private_one_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path()).unwrap();
        let transcript = |id: &str| {
            let path = folder.path().join(format!("{id}.txt"));
            std::fs::write(&path, format!("words of {id}, secret=abcdefghij")).unwrap();
            serde_json::json!({"session_id": id, "transcript_path": path}).to_string()
        };
        for id in ["a", "b", "c"] {
            assert_eq!(workspace.capture_session(&transcript(id)).unwrap(), "queued");
        }
        assert_eq!(workspace.capture_session(&transcript("a")).unwrap(), "queued before");
        assert_eq!(workspace.capture_session("nonsense").unwrap(), "not understood");
        assert_eq!(
            workspace.capture_session(r#"{"session_id": "../x", "transcript_path": "/x"}"#).unwrap(),
            "not understood"
        );
        // Marked after the hook, and before it.
        assert!(workspace.mark_private("b").unwrap() && !workspace.mark_private("b").unwrap());
        assert!(workspace.mark_private("d").unwrap());
        assert_eq!(workspace.capture_session(&transcript("d")).unwrap(), "private");
        assert_eq!(workspace.pending_sessions(), 2);
        let sink = Sink::default();
        for kind in [crate::ErrorKind::Unauthenticated, crate::ErrorKind::Unavailable, crate::ErrorKind::RateLimited] {
            *sink.says.lock().unwrap() = Some(refusal(kind));
            let report = workspace.push(&sink, None).await.unwrap();
            assert_eq!((report.sessions, report.errors.len()), (0, 2), "{kind:?}");
            assert_eq!(workspace.pending_sessions(), 2, "{kind:?}: they wait again");
        }
        *sink.says.lock().unwrap() = None;
        std::fs::remove_file(folder.path().join("c.txt")).unwrap();
        std::fs::write(workspace.assistant().join("CLAUDE.local.md"), "mine").unwrap();
        let report = workspace.push(&sink, None).await.unwrap();
        assert_eq!((report.sessions, report.skipped, report.local_md), (1, 1, true), "{report:?}");
        assert_eq!(*sink.got.lock().unwrap(), ["a.jsonl: words of a, secret=[redacted]", "notes: mine"]);
        assert_eq!(workspace.pending_sessions(), 0);
        // What a push that was killed had taken comes first.
        std::fs::write(
            workspace.assistant().join("agnes-sessions.txt.push-1"),
            format!("e\t{}/a.txt\n", folder.path().display()),
        )
        .unwrap();
        *sink.says.lock().unwrap() = Some(refusal(crate::ErrorKind::InvalidInput));
        let report = workspace.push(&sink, None).await.unwrap();
        assert_eq!((report.dropped_permanent, workspace.pending_sessions()), (1, 0), "{report:?}");
        assert!(!workspace.assistant().join("agnes-sessions.txt.push-1").exists());
    }
}

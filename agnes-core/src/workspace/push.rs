//! Sends the sessions of an assistant, and the owner's notes.
//!
//! A push takes the queue away whole before it works, so that nothing which is added meanwhile is
//! lost, and puts back what should be tried again. What was sent is written down with its size: a
//! session that grew since is sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Workspace;
use super::sessions::{WaitingSession, add, stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::redaction::{redact_lines, redacted};

const PUSH_LOCK: &str = "agnes-push.lock";
const PRIVATE_SKIPPED: &str = "agnes-sessions-private-skipped.txt";
const UPLOADED: &str = "agnes-sessions-uploaded.txt";
const FAILED: &str = "agnes-sessions-failed.txt";
/// Longest transcript that is read.
const LONGEST: u64 = 50 << 20;
/// Longest notes that are sent.
const LONGEST_NOTES: usize = 1 << 20;
/// How long a transcript may be missing: assistants write it late.
const PATIENCE: TimeDelta = TimeDelta::days(30);
/// Transcripts that a diagnosis looks at were changed this lately.
const LATELY: TimeDelta = TimeDelta::days(7);

/// Where sessions and notes go.
#[async_trait]
pub trait SessionSink: Send + Sync {
    /// Takes a session, as the file `name`.
    ///
    /// # Errors
    /// Those of the way there; what the server itself says has its HTTP status and the id of the
    /// request in its facts.
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
    /// Sessions whose file is not there yet, or not any more.
    pub skipped: usize,
    /// Sessions that are private.
    pub private_skipped: usize,
    /// Sessions that the server takes at no time.
    pub dropped_permanent: usize,
    /// Kind and code of what no session will get past: nobody is signed in, or this version is too old.
    /// What was not tried waits.
    #[serde(skip)]
    pub ended_by: Option<(ErrorKind, String)>,
}

/// What a push would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WouldPush {
    /// Sessions it would send.
    pub sessions: Vec<WaitingSession>,
    /// Whether it would send the notes.
    pub local_md: bool,
    /// Sessions it would not, as they are private.
    pub private: Vec<WaitingSession>,
    /// Whether there are notes.
    pub has_local_md: bool,
    /// The list of what was sent.
    pub uploaded_log: PathBuf,
}

/// What the lists of sent and of refused transcripts say.
#[derive(Default)]
struct Sent {
    /// Who was sent, by transcript.
    ids: BTreeMap<PathBuf, String>,
    /// How large each was, whenever it was sent or refused.
    sizes: BTreeSet<(PathBuf, u64)>,
    last: Option<DateTime<Utc>>,
}

impl Sent {
    /// Whether a transcript was sent, or refused, as it is now.
    fn is_known(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|meta| self.sizes.contains(&(path.to_owned(), meta.len())))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// The code of what a server says that works with newer versions only.
const TOO_OLD: &str = "client_too_old";

/// The status of a server's answer that this upload will never be taken; all else may go well later,
/// as an error of another server on the way, of a certificate, or of a version may.
fn refusal(error: &Error) -> Option<u64> {
    let facts = error.facts().filter(|facts| facts["request_id"].is_string())?;
    let status = facts["http_status"].as_u64()?;
    let is_final = (400..500).contains(&status) && !matches!(status, 401 | 408 | 429);
    (is_final && error.code() != TOO_OLD).then_some(status)
}

impl Workspace {
    fn sent(&self) -> Sent {
        let mut sent = Sent::default();
        let read = |name| std::fs::read_to_string(self.list(name)).unwrap_or_default();
        for line in read(UPLOADED).lines() {
            let parts: Vec<&str> = line.split('\t').collect();
            let Some(session) = parts.get(1).and_then(|path| WaitingSession::new(parts.get(3).copied(), path)) else {
                continue;
            };
            sent.last = parts[0].parse::<DateTime<Utc>>().ok().max(sent.last);
            if let Some(size) = parts.get(2).and_then(|size| size.parse().ok()) {
                sent.sizes.insert((session.path.clone(), size));
            }
            sent.ids.insert(session.path, session.session_id);
        }
        for line in read(FAILED).lines() {
            let mut parts = line.split('\t').skip(3);
            if let (Some(path), Some(Ok(size))) = (parts.next(), parts.next().map(str::parse)) {
                sent.sizes.insert((path.into(), size));
            }
        }
        sent
    }

    /// Transcripts of this workspace in the assistant's own folder below a home.
    fn transcripts(&self, home: &Path) -> Vec<PathBuf> {
        let root = self.root().to_string_lossy();
        let slashes = root.replace('/', "-");
        let each: String = root.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let runs = root.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
        let runs = format!("-{}", runs.collect::<Vec<_>>().join("-"));
        // Versions of the assistant spell it differently: the one in use has the newest file.
        let spellings = BTreeSet::from([slashes, each, runs]).into_iter();
        let folders = spellings.map(|name| in_folder(&home.join(".claude").join("projects").join(name)));
        folders.max_by_key(|files| files.iter().filter_map(|file| modified(file)).max()).unwrap_or_default()
    }

    /// Everything to send: what is queued; what grew since it was sent; what the assistant wrote since
    /// and no hook queued; with `scan`, whatever lies where transcripts do.
    fn waiting(&self, home: Option<&Path>, scan: bool) -> Vec<WaitingSession> {
        let mut all = self.queued();
        let sent = self.sent();
        let grown = sent.ids.iter().filter(|(path, _)| path.is_file());
        let grown = grown.filter_map(|(path, id)| WaitingSession::new(Some(id.as_str()), path.to_str()?));
        let mut files = home.map(|home| self.transcripts(home)).unwrap_or_default();
        if scan {
            files.extend(in_folder(&self.root().join("user").join("sessions")));
        } else {
            let last = sent.last.map(SystemTime::from);
            files.retain(|file| last.is_some_and(|last| modified(file).is_some_and(|at| at > last)));
        }
        let found = files.iter().filter_map(|path| WaitingSession::new(None, path.to_str()?));
        for session in grown.chain(found).filter(|session| !sent.is_known(&session.path)) {
            if scan || !self.is_private(&session.session_id) {
                add(&mut all, session);
            }
        }
        all
    }

    /// What a push would send; with `scan`, also all transcripts in the assistant's folder in this
    /// home.
    #[must_use]
    pub fn would_push(&self, home: Option<&Path>, scan: bool) -> WouldPush {
        let all = self.waiting(home, scan).into_iter();
        let (private, sessions) = all.partition(|session| self.is_private(&session.session_id));
        let notes = self.notes();
        WouldPush {
            sessions,
            local_md: notes.as_ref().is_some_and(|text| text.len() <= LONGEST_NOTES && !self.is_accepted(text)),
            private,
            has_local_md: notes.is_some(),
            uploaded_log: self.list(UPLOADED),
        }
    }

    /// How many transcripts the assistant wrote in the last days that may be sent, and how many of
    /// them were.
    #[must_use]
    pub fn captured_lately(&self, home: &Path) -> (usize, usize) {
        let since = SystemTime::from(Utc::now() - LATELY);
        let sent = self.sent();
        let lately = self.transcripts(home).into_iter().filter(|path| modified(path).is_some_and(|at| at >= since));
        let lately = lately.filter(|path| {
            WaitingSession::new(None, &path.to_string_lossy()).is_some_and(|found| !self.is_private(&found.session_id))
        });
        let lately: Vec<_> = lately.collect();
        (lately.len(), lately.iter().filter(|path| sent.ids.contains_key(*path)).count())
    }

    /// Sends what waits; nothing where another push runs.
    ///
    /// # Errors
    /// I/O errors. What goes wrong with single sessions is in the report.
    pub async fn push(&self, sink: &dyn SessionSink, home: Option<&Path>, scan: bool) -> Result<Option<PushReport>> {
        let Ok(lock) = self.lock_of(PUSH_LOCK) else { return Ok(None) };
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        self.take_queue()?;
        let files = self.taken();
        let mut report = PushReport::default();
        for session in self.waiting(home, scan) {
            if report.ended_by.is_none() {
                self.push_one(sink, session, &mut report).await?;
            } else {
                self.enqueue(&session)?;
            }
        }
        for file in files {
            std::fs::remove_file(file).map_err(|e| Error::io("finish the push", e))?;
        }
        if report.ended_by.is_none() {
            self.push_notes(sink, &mut report).await?;
        }
        Ok(Some(report))
    }

    /// Sends one, or says what became of it.
    async fn push_one(&self, sink: &dyn SessionSink, session: WaitingSession, report: &mut PushReport) -> Result<()> {
        let (now, id, path) = (stamp(Utc::now()), session.session_id.clone(), session.path.display().to_string());
        // Asked for each: it may have become private while others were sent.
        if self.is_private(&id) {
            report.private_skipped += 1;
            return self.append(PRIVATE_SKIPPED, &format!("{now}\t{id}\t{path}"));
        }
        let fail = |report: &mut PushReport, status: &str, size: &str| {
            report.dropped_permanent += 1;
            self.append(FAILED, &format!("{now}\t{id}\t{status}\t{path}{size}"))
        };
        let size = session.path.metadata().map(|meta| meta.len());
        if let Ok(size) = size
            && size > LONGEST
        {
            report.errors.push(format!("{}: it is larger than {} MiB", session.session_id, LONGEST >> 20));
            return fail(report, "413", &format!("\t{size}"));
        }
        let Ok(content) = std::fs::read(&session.path) else {
            report.skipped += 1;
            let since = session.missing_since.unwrap_or_else(Utc::now);
            if Utc::now() - since > PATIENCE {
                return fail(report, "missing", "");
            }
            return self.enqueue(&WaitingSession { missing_since: Some(since), ..session });
        };
        let size = content.len();
        let mut clean = Vec::with_capacity(size);
        redact_lines(content.as_slice(), &mut clean).map_err(|e| Error::io("read a session", e))?;
        let Err(error) = sink.session(&format!("{id}.jsonl"), &clean).await else {
            report.sessions += 1;
            return self.append(UPLOADED, &format!("{now}\t{path}\t{size}\t{id}"));
        };
        report.errors.push(format!("{id}: {error}"));
        if let Some(status) = refusal(&error) {
            return fail(report, &status.to_string(), &format!("\t{size}"));
        }
        if error.kind() == ErrorKind::Unauthenticated || error.code() == TOO_OLD {
            report.ended_by = Some((error.kind(), error.code().to_owned()));
        }
        // An expired token must not lose sessions.
        self.enqueue(&WaitingSession { missing_since: None, ..session })
    }

    fn notes(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.assistant().join("CLAUDE.local.md")).ok()?;
        Some(text).filter(|text| !text.trim().is_empty())
    }

    /// What the last notes that were taken were.
    fn accepted(&self) -> PathBuf {
        self.own().join("local_md.sha256")
    }

    fn is_accepted(&self, notes: &str) -> bool {
        std::fs::read_to_string(self.accepted()).is_ok_and(|last| last.trim() == digest(notes))
    }

    async fn push_notes(&self, sink: &dyn SessionSink, report: &mut PushReport) -> Result<()> {
        let Some(notes) = self.notes().filter(|notes| !self.is_accepted(notes)) else { return Ok(()) };
        if notes.len() > LONGEST_NOTES {
            report.errors.push(format!("notes: `CLAUDE.local.md` is larger than {} MiB", LONGEST_NOTES >> 20));
            return Ok(());
        }
        if let Err(error) = sink.notes(&redacted(&notes)).await {
            report.errors.push(format!("notes: {error}"));
            return Ok(());
        }
        report.local_md = true;
        let write = || {
            std::fs::create_dir_all(self.own())?;
            std::fs::write(self.accepted(), digest(&notes))
        };
        write().map_err(|e| Error::io("write down which notes were sent", e))
    }
}

fn digest(text: &str) -> String {
    crate::orchestrator::hex(&Sha256::digest(text.as_bytes()))
}

/// Transcripts in a folder.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    found.sort();
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "push_tests.rs"]
mod tests;

//! What becomes of sessions and notes on their way, whatever the server and the disk do.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;
use crate::error::WireError;

/// Takes what it gets, or says no as it was told.
#[derive(Default)]
struct Sink {
    says: Mutex<Option<WireError>>,
    got: Mutex<Vec<String>>,
    asked: Mutex<usize>,
}

impl Sink {
    fn says(&self, error: Option<WireError>) {
        *self.says.lock().unwrap() = error;
    }

    /// What came since this was asked last.
    fn got(&self) -> Vec<String> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn take(&self, what: String) -> Result<()> {
        *self.asked.lock().unwrap() += 1;
        if let Some(error) = self.says.lock().unwrap().clone() {
            return Err(error.into());
        }
        self.got.lock().unwrap().push(what);
        Ok(())
    }
}

#[async_trait]
impl SessionSink for Sink {
    async fn session(&self, name: &str, content: &[u8]) -> Result<()> {
        self.take(format!("{name}: {}", String::from_utf8_lossy(content)))
    }
    async fn notes(&self, text: &str) -> Result<()> {
        self.take(format!("notes: {text}"))
    }
}

/// A workspace and a home, with an assistant's folder.
struct Desk {
    folder: tempfile::TempDir,
    workspace: Workspace,
    sink: Sink,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(&folder.path().join("work_1")).unwrap();
        std::fs::create_dir_all(workspace.assistant()).unwrap();
        Self { folder, workspace, sink: Sink::default() }
    }

    /// Where the assistant keeps transcripts of this workspace.
    fn projects(&self) -> PathBuf {
        let root = self.workspace.root().to_string_lossy().replace(['/', '.', '_'], "-");
        self.folder.path().join(".claude/projects").join(root)
    }

    fn write(&self, path: &Path, text: &str) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        path.to_owned()
    }

    fn transcript(&self, id: &str) -> PathBuf {
        self.folder.path().join(format!("{id}.jsonl"))
    }

    fn queue(&self, id: &str) {
        let told = json!({"session_id": id, "transcript_path": self.transcript(id)}).to_string();
        assert_eq!(self.workspace.capture_session(Ok(told)).outcome, "ok");
    }

    fn waits(&self, id: &str) {
        self.write(&self.transcript(id), &format!("words of {id}"));
        self.queue(id);
    }

    fn list(&self, name: &str) -> String {
        std::fs::read_to_string(self.workspace.list(name)).unwrap_or_default()
    }

    async fn push_from(&self, scan: bool) -> PushReport {
        self.workspace.push(&self.sink, Some(self.folder.path()), scan).await.unwrap().unwrap()
    }

    async fn push(&self) -> PushReport {
        self.push_from(false).await
    }
}

fn error(kind: ErrorKind, code: &str, facts: Option<Value>) -> WireError {
    let (code, message) = (code.to_owned(), "no".to_owned());
    WireError { kind, code, message, hint: None, retryable: kind.is_retryable(), facts }
}

fn refused(status: u16) -> WireError {
    let kind = if status == 401 { ErrorKind::Unauthenticated } else { ErrorKind::InvalidInput };
    error(kind, "refused", Some(json!({"http_status": status, "request_id": "r1"})))
}

#[tokio::test]
async fn only_what_the_server_itself_refuses_is_dropped() {
    let desk = Desk::new();
    desk.waits("a");
    for again in [
        error(ErrorKind::InvalidInput, "client_too_old", None),
        error(ErrorKind::InvalidInput, "client_too_old", refused(400).facts),
        error(ErrorKind::Unavailable, "server_unreachable", None),
        error(ErrorKind::ConfigInvalid, "server_moved", None),
        error(ErrorKind::DataInvalid, "server_not_understood", None),
        error(ErrorKind::Forbidden, "forbidden", Some(json!({"http_status": 403}))),
        refused(401),
        refused(408),
        refused(429),
        refused(500),
        refused(501),
        refused(503),
    ] {
        desk.sink.says(Some(again.clone()));
        let report = desk.push().await;
        assert_eq!((report.sessions, report.errors.len(), report.dropped_permanent), (0, 1, 0), "{again:?}");
        assert_eq!(desk.workspace.pending_sessions(), 1, "it waits again: {again:?}");
    }
    for (status, id) in [(400, "b"), (403, "c"), (413, "d"), (422, "e")] {
        desk.waits(id);
        desk.sink.says(Some(refused(status)));
        let report = desk.push().await;
        assert!(report.dropped_permanent > 0 && report.errors.len() == report.dropped_permanent, "{report:?}");
        assert_eq!(desk.workspace.pending_sessions(), 0, "{status}");
        let path = desk.transcript(id);
        assert!(
            desk.list(FAILED).contains(&format!("Z\t{id}\t{status}\t{}\t10\n", path.display())),
            "{}",
            desk.list(FAILED)
        );
    }
}

#[tokio::test]
async fn nothing_is_tried_after_what_no_session_gets_past() {
    let desk = Desk::new();
    ["a", "b", "c"].iter().for_each(|id| desk.waits(id));
    desk.write(&desk.workspace.assistant().join("CLAUDE.local.md"), "mine");
    desk.sink.says(Some(refused(401)));
    assert_eq!(desk.push().await.errors.len(), 1);
    assert_eq!((desk.sink.asked(), desk.workspace.pending_sessions()), (1, 3));
    desk.sink.says(Some(error(ErrorKind::InvalidInput, "client_too_old", None)));
    let report = desk.push().await;
    assert_eq!(report.ended_by, Some((ErrorKind::InvalidInput, "client_too_old".to_owned())));
    assert_eq!((desk.sink.asked(), desk.workspace.pending_sessions()), (1, 3));
    desk.sink.says(None);
    let report = desk.push().await;
    assert_eq!((report.sessions, report.local_md), (3, true), "{report:?}");
    assert_eq!(desk.sink.got(), ["a.jsonl: words of a", "b.jsonl: words of b", "c.jsonl: words of c", "notes: mine"]);
}

#[tokio::test]
async fn private_sessions_stay_and_what_a_killed_push_had_taken_comes_first() {
    let desk = Desk::new();
    ["a", "b"].iter().for_each(|id| desk.waits(id));
    desk.workspace.mark_private("b").unwrap();
    let late = desk.write(&desk.transcript("late"), "{\"token\": \"abcdefghijkl\"}\n");
    let taken = desk.workspace.list("agnes-sessions.snapshot.1.0123abcd.txt");
    desk.write(&taken, &format!("late\t{}\na\t{}\n", late.display(), desk.transcript("a").display()));
    let would = desk.workspace.would_push(None, false);
    assert_eq!((would.sessions.len(), would.private.len(), would.has_local_md), (2, 1, false), "{would:?}");
    let report = desk.push().await;
    assert_eq!((report.sessions, report.private_skipped), (2, 1), "{report:?}");
    assert_eq!(desk.sink.got(), ["late.jsonl: {\"token\": \"[REDACTED:secret]\"}\n", "a.jsonl: words of a"]);
    assert!(desk.list(PRIVATE_SKIPPED).ends_with(&format!("Z\tb\t{}\n", desk.transcript("b").display())));
    assert!(!taken.exists() && desk.workspace.queued().is_empty());
    assert_eq!(desk.list(UPLOADED).lines().count(), 2, "{}", desk.list(UPLOADED));
}

#[tokio::test]
async fn a_transcript_that_is_not_there_is_waited_for() {
    let desk = Desk::new();
    desk.queue("a");
    for _ in 0..2 {
        let report = desk.push().await;
        assert_eq!((report.skipped, report.dropped_permanent, report.errors.len()), (1, 0, 0), "{report:?}");
    }
    let since = desk.workspace.queued()[0].missing_since.unwrap();
    assert!(Utc::now() - since < TimeDelta::minutes(10), "{since}");
    desk.write(&desk.transcript("a"), "words");
    assert_eq!((desk.push().await.sessions, desk.workspace.pending_sessions()), (1, 0));
    // For a month, and no longer.
    for (days, waits) in [(29, 1), (31, 0)] {
        let since = stamp(Utc::now() - TimeDelta::days(days));
        let line = format!("b\t{}\t{since}\n", desk.transcript("b").display());
        desk.write(&desk.workspace.list("agnes-sessions.txt"), &line);
        let report = desk.push().await;
        assert_eq!((report.skipped, report.dropped_permanent), (1, 1 - waits), "{report:?}");
        assert_eq!(desk.workspace.pending_sessions(), waits, "{days}");
        assert_eq!(desk.list("agnes-sessions.txt").contains(&since), waits == 1, "the first failure counts");
    }
    assert!(desk.list(FAILED).contains("\tb\tmissing\t"), "{}", desk.list(FAILED));
}

#[tokio::test]
async fn what_grew_since_it_was_sent_is_sent_again() {
    let desk = Desk::new();
    desk.waits("a");
    assert_eq!(desk.push().await.sessions, 1);
    assert_eq!(desk.push().await, PushReport::default(), "nothing is new");
    desk.write(&desk.transcript("a"), "words of a, and more");
    assert_eq!(desk.push().await.sessions, 1);
    assert_eq!(desk.sink.got(), ["a.jsonl: words of a", "a.jsonl: words of a, and more"]);
    // What is refused is not sent again until it changes; what became private is not sent at all.
    desk.write(&desk.transcript("a"), "words that are refused");
    desk.sink.says(Some(refused(413)));
    assert_eq!((desk.push().await.dropped_permanent, desk.push().await.dropped_permanent), (1, 0));
    desk.workspace.mark_private("a").unwrap();
    desk.write(&desk.transcript("a"), "words that are private now");
    assert_eq!(desk.push().await, PushReport::default());
}

#[tokio::test]
async fn transcripts_that_no_hook_queued_are_found() {
    let desk = Desk::new();
    let old = desk.write(&desk.projects().join("old.jsonl"), "old");
    let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    let secret = desk.write(&desk.projects().join("secret.jsonl"), "secret");
    desk.workspace.mark_private("secret").unwrap();
    assert_eq!(desk.push().await, PushReport::default(), "nothing was sent yet: what is there is from before");
    desk.waits("a");
    assert_eq!(desk.push().await.sessions, 1);
    let missed = desk.write(&desk.projects().join("missed.jsonl"), "missed");
    for path in [&missed, &secret] {
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    }
    assert_eq!(desk.workspace.captured_lately(desk.folder.path()), (1, 0), "neither old nor private ones count");
    desk.sink.got();
    assert_eq!((desk.push().await.sessions, desk.sink.got()), (1, vec!["missed.jsonl: missed".to_owned()]));
    assert_eq!(desk.workspace.captured_lately(desk.folder.path()), (1, 1));
    // All of them, when asked for.
    desk.write(&desk.workspace.root().join("user/sessions/mine.jsonl"), "mine");
    let report = desk.push_from(true).await;
    assert_eq!((report.sessions, report.private_skipped), (2, 1), "{report:?}");
    assert_eq!(desk.sink.got(), ["old.jsonl: old", "mine.jsonl: mine"]);
    assert_eq!(desk.push_from(true).await.sessions, 0);
}

#[test]
fn the_spelling_of_the_folder_that_is_in_use_counts() {
    let desk = Desk::new();
    let projects = desk.folder.path().join(".claude/projects");
    let root = desk.workspace.root().to_string_lossy().into_owned();
    let runs: Vec<&str> = root.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let spellings = [root.replace('/', "-"), format!("-{}", runs.join("-"))];
    for (age, spelling) in spellings.iter().enumerate() {
        let path = desk.write(&projects.join(spelling).join("a.jsonl"), "a");
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + age as u64);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        assert_eq!(desk.workspace.transcripts(desk.folder.path()), [path], "{spelling}");
    }
}

#[tokio::test]
async fn notes_are_sent_when_they_changed() {
    let desk = Desk::new();
    let notes = desk.workspace.assistant().join("CLAUDE.local.md");
    desk.write(&notes, "mine");
    desk.sink.says(Some(refused(503)));
    assert_eq!(desk.push().await.errors.len(), 1);
    desk.sink.says(None);
    for (text, is_sent) in [("mine", true), ("mine", false), ("mine, token=abcdefghijkl", true), (" ", false)] {
        desk.write(&notes, text);
        assert_eq!(desk.workspace.would_push(None, false).local_md, is_sent, "{text}");
        assert_eq!(desk.push().await.local_md, is_sent, "{text}");
    }
    assert_eq!(desk.sink.got(), ["notes: mine", "notes: mine, token=[REDACTED:secret]"]);
    desk.write(&notes, &"x".repeat(LONGEST_NOTES + 1));
    let report = desk.push().await;
    assert!(!report.local_md && report.errors[0].contains("larger than 1 MiB"), "{report:?}");
    let would = desk.workspace.would_push(None, false);
    assert!(would.has_local_md && !would.local_md, "{would:?}");
}

#[tokio::test]
async fn one_push_at_a_time_and_none_where_no_workspace_is() {
    let desk = Desk::new();
    desk.waits("a");
    let other = desk.workspace.lock_of(PUSH_LOCK).unwrap();
    other.lock().unwrap();
    assert_eq!(desk.workspace.push(&desk.sink, None, false).await.unwrap(), None);
    assert_eq!((desk.sink.asked(), desk.workspace.pending_sessions()), (0, 1));
    drop(other);
    assert_eq!(desk.push().await.sessions, 1);
    let nowhere = Workspace::at(&desk.folder.path().join("nowhere")).unwrap();
    assert_eq!(nowhere.push(&desk.sink, None, false).await.unwrap(), None);
    assert!(!nowhere.root().exists());
}

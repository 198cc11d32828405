//! Deliveries that were acknowledged and not yet worked on: a journal of lines in files, below
//! `raw/webhook_events/` of the source's extract.
//!
//! A delivery is acknowledged once its line is on the disk; what arrives together is put there
//! by one call. A line begins with a checksum, so that one that a kill cut off is seen: it was
//! not acknowledged. What was worked on is told by `done`, the number below which nothing waits.
//! Files stay for a week, for whoever wants to know what came, and to know a delivery again; what still
//! waits then is written anew at the end.

mod journal;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use super::{Notice, PushError};
use crate::error::{Error, Result};
use crate::extract::fsio::write_atomically;
use journal::{Head, Journal, Place, Write, files, read, replay};

/// Ids of deliveries that are known again.
const KNOWN: usize = 200_000;
/// How long files of the journal stay, and how many.
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);
const FILES: usize = 32;
/// What waits for one subject.
#[derive(Debug, Default)]
struct Subject {
    /// The id of the last delivery.
    id: String,
    first: u64,
    last: u64,
    since: DateTime<Utc>,
    /// The last delivery that says that it is gone, and the last one that says something else.
    deleted: Option<u64>,
    other: Option<u64>,
    /// The newest delivery that tells what it is now.
    told: Option<Place>,
    attempts: u32,
    not_before: Option<Instant>,
    in_work: bool,
}

/// Something to do for one subject.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// What it is about.
    pub(super) key: String,
    /// The last delivery this covers.
    upto: u64,
    /// Whether all that came says that it is gone.
    pub(super) gone: bool,
    /// Tries so far.
    pub(super) attempts: u32,
    told: Option<Place>,
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is on the disk.
    New,
    /// It was there already.
    Known,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<String>,
    order: VecDeque<String>,
    pending: BTreeMap<String, Subject>,
    /// The number of the next delivery.
    next: u64,
    /// What `done` says.
    done: u64,
    /// Nothing is done before: the source asked to be left alone.
    not_before: Option<Instant>,
}

impl State {
    fn know(&mut self, id: String) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id);
        }
        while self.order.len() > KNOWN {
            let Some(old) = self.order.pop_front() else { break };
            self.known.remove(&old);
        }
    }

    fn add(&mut self, head: &Head, place: Place) {
        let subject = self.pending.entry(head.subject.clone()).or_insert_with(|| Subject {
            first: head.seq,
            since: head.at,
            ..Subject::default()
        });
        subject.id.clone_from(&head.id);
        subject.last = head.seq;
        if head.deleted {
            subject.deleted = Some(head.seq);
        } else {
            subject.other = Some(head.seq);
        }
        if head.tells {
            subject.told = Some(place);
        }
        // News are looked at without waiting for the time of another try.
        subject.not_before = subject.not_before.filter(|_| subject.attempts > 3);
    }
}

/// The inbox of one source.
pub(super) struct Inbox {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    journal: Arc<Mutex<Journal>>,
    writer: Mutex<Option<mpsc::Sender<Write>>>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Opens the journal in `folder`, or begins one. Blocks.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("make the inbox of deliveries", e))?;
        let done = std::fs::read_to_string(folder.join("done")).ok();
        let mut state =
            State { done: done.and_then(|text| text.trim().parse().ok()).unwrap_or(1), next: 1, ..State::default() };
        let all = files(folder);
        for (index, (first, path)) in all.iter().enumerate() {
            state.next = state.next.max(*first);
            let good = replay(path, &mut state)?;
            let length = path.metadata().map_err(|e| Error::io("read the inbox of deliveries", e))?.len();
            if good < length && index + 1 == all.len() {
                // The end of the last file was being written when the process died.
                let cut = || OpenOptions::new().write(true).open(path)?.set_len(good);
                cut().map_err(|e| Error::io("repair the inbox of deliveries", e))?;
            } else if good < length {
                tracing::error!(file = index, "lines of the inbox of deliveries are damaged");
            }
        }
        state.next = state.next.max(state.done);
        let (writer, queue) = mpsc::channel();
        let (state, news) = (Arc::new(Mutex::new(state)), Arc::new(Notify::new()));
        let journal = Journal { folder: folder.to_owned(), file: None, state: state.clone() };
        let journal = Arc::new(Mutex::new(journal));
        let (written, told) = (journal.clone(), news.clone());
        std::thread::Builder::new()
            .name("agnes-inbox".to_owned())
            .spawn(move || journal::run(&written, &told, &queue))
            .map_err(|e| Error::io("start the inbox of deliveries", e))?;
        Ok(Self { folder: folder.to_owned(), state, news, journal, writer: Mutex::new(Some(writer)) })
    }

    /// Keeps a delivery; returns once it is on the disk.
    pub(super) async fn put(&self, notice: Notice, at: DateTime<Utc>) -> Result<Taken> {
        let (reply, told) = oneshot::channel();
        let sent = match &*self.writer.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(writer) => writer.send(Write { notice, at, reply }).is_ok(),
            None => false,
        };
        if !sent {
            return Err(PushError::Closed.into());
        }
        match told.await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(error)) => Err(error.to_wire().into()),
            Err(_) => Err(PushError::Closed.into()),
        }
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Ready when a delivery came.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// At most `most` subjects that are due.
    pub(super) fn take(&self, most: usize) -> Vec<Task> {
        let (now, mut state) = (Instant::now(), locked(&self.state));
        if state.not_before.is_some_and(|at| at > now) {
            return Vec::new();
        }
        let due = state.pending.iter_mut().filter(|(_, s)| !s.in_work && s.not_before.is_none_or(|at| at <= now));
        due.take(most)
            .map(|(key, subject)| {
                subject.in_work = true;
                Task {
                    key: key.clone(),
                    upto: subject.last,
                    gone: subject.deleted.is_some() && subject.other.is_none(),
                    attempts: subject.attempts,
                    told: subject.told.clone(),
                }
            })
            .collect()
    }

    /// What the newest delivery of a task told that tells something. Blocks.
    pub(super) fn told(&self, task: &Task) -> Option<Value> {
        read(task.told.as_ref()?).map(|line| line.body)
    }

    /// Ends a task; with `again`, it comes back after that time.
    pub(super) fn finish(&self, task: &Task, again: Option<Duration>) {
        let mut state = locked(&self.state);
        let Some(subject) = state.pending.get_mut(&task.key) else { return };
        subject.in_work = false;
        match again {
            Some(after) => {
                subject.attempts = subject.attempts.saturating_add(1);
                subject.not_before = Some(Instant::now() + after);
            }
            None if subject.last <= task.upto => drop(state.pending.remove(&task.key)),
            None => {
                subject.first = task.upto + 1;
                subject.attempts = 0;
                subject.not_before = None;
                subject.deleted = subject.deleted.filter(|seq| *seq > task.upto);
                subject.other = subject.other.filter(|seq| *seq > task.upto);
            }
        }
    }

    /// Leaves the source alone for this long.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = locked(&self.state);
        state.not_before = Some(state.not_before.map_or(until, |at| at.max(until)));
    }

    /// Whether something waits for another try.
    pub(super) fn is_failing(&self) -> bool {
        locked(&self.state).pending.values().any(|subject| subject.attempts > 0)
    }

    /// How many subjects wait, and since when.
    pub(super) fn waiting(&self) -> (usize, Option<DateTime<Utc>>) {
        let state = locked(&self.state);
        (state.pending.len(), state.pending.values().map(|subject| subject.since).min())
    }

    /// Writes down what was worked on, and deletes files that are old or too many. Blocks.
    pub(super) fn mark(&self) -> Result<()> {
        let all = files(&self.folder);
        let old = |path: &Path| {
            let changed = path.metadata().and_then(|meta| meta.modified()).ok();
            changed.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age > AGE)
        };
        let pairs = all.windows(2).enumerate();
        let ended = pairs.take_while(|(index, pair)| all.len() - index > FILES || old(&pair[0].1)).count();
        if ended > 0 {
            // What is tried again and again keeps no file.
            self.journal.lock().unwrap_or_else(PoisonError::into_inner).carry(all[ended].0)?;
        }
        let (done, before) = {
            let state = locked(&self.state);
            (state.pending.values().map(|subject| subject.first).min().unwrap_or(state.next), state.done)
        };
        if done != before {
            write_atomically(&self.folder.join("done"), done.to_string().as_bytes())?;
            locked(&self.state).done = done;
        }
        for pair in all.windows(2).take(ended).filter(|pair| pair[1].0 <= done) {
            drop(std::fs::remove_file(&pair[0].1));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn notice(id: &str, subject: &str, deleted: bool) -> Notice {
        Notice {
            id: id.to_owned(),
            subject: subject.to_owned(),
            event: "e".to_owned(),
            deleted,
            tells: !deleted,
            body: json!({"id": id}),
        }
    }

    async fn put(inbox: &Inbox, id: &str, subject: &str, deleted: bool) -> Taken {
        inbox.put(notice(id, subject, deleted), Utc::now()).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_acknowledged_waits_until_it_was_worked_on() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        assert_eq!(put(&inbox, "1", "A-1", false).await, Taken::New);
        assert_eq!(put(&inbox, "1", "A-1", false).await, Taken::Known);
        assert_eq!(put(&inbox, "2", "A-2", true).await, Taken::New);
        assert_eq!(put(&inbox, "3", "A-1", false).await, Taken::New);
        drop(inbox);
        let inbox = Inbox::open(folder.path()).unwrap();
        assert_eq!(put(&inbox, "3", "A-1", false).await, Taken::Known);
        let tasks = inbox.take(10);
        assert_eq!(tasks.iter().map(|t| (t.key.as_str(), t.gone)).collect::<Vec<_>>(), [("A-1", false), ("A-2", true)]);
        assert_eq!(inbox.told(&tasks[0]), Some(json!({"id": "3"})));
        assert!(inbox.take(10).is_empty());
        // What comes meanwhile is not covered by what is being done.
        assert_eq!(put(&inbox, "4", "A-1", true).await, Taken::New);
        inbox.finish(&tasks[0], None);
        inbox.finish(&tasks[1], Some(Duration::from_secs(60)));
        inbox.mark().unwrap();
        let again = inbox.take(10);
        assert_eq!(again.iter().map(|t| (t.key.as_str(), t.gone)).collect::<Vec<_>>(), [("A-1", true)]);
        drop(inbox);
        let inbox = Inbox::open(folder.path()).unwrap();
        assert_eq!(inbox.waiting().0, 2);
        for task in inbox.take(10) {
            inbox.finish(&task, None);
        }
        inbox.mark().unwrap();
        drop(inbox);
        let inbox = Inbox::open(folder.path()).unwrap();
        assert_eq!(inbox.waiting(), (0, None));
        assert_eq!(put(&inbox, "5", "A-9", false).await, Taken::New);
        assert_eq!(inbox.take(10)[0].upto, 5);
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_dropped_and_those_before_stay() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        for n in 0..5 {
            put(&inbox, &n.to_string(), &format!("A-{n}"), false).await;
        }
        drop(inbox);
        let (_, path) = files(folder.path()).pop().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for cut in [last + 1, last + 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let inbox = Inbox::open(folder.path()).unwrap();
            assert_eq!(inbox.waiting().0, 4, "{cut}");
            assert_eq!(put(&inbox, "again", "A-4", false).await, Taken::New);
            drop(inbox);
            let inbox = Inbox::open(folder.path()).unwrap();
            assert_eq!(inbox.waiting().0, 5, "{cut}");
            drop(inbox);
            for (_, path) in files(folder.path()).into_iter().skip(1) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_keeps_failing_keeps_no_files_and_waits_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        for (id, subject, deleted) in
            [("1", "A-1", false), ("2", "A-2", true), ("3", "A-3", false), ("4", "A-3", true), ("5", "A-3", false)]
        {
            put(&inbox, id, subject, deleted).await;
        }
        drop(inbox);
        let waiting = |inbox: &Inbox| -> Vec<(String, bool, Option<Value>)> {
            let tasks: Vec<Task> = inbox.take(10).into_iter().filter(|task| task.key != "B-1").collect();
            tasks.into_iter().map(|task| (task.key.clone(), task.gone, inbox.told(&task))).collect()
        };
        let told = |id: &str| Some(json!({"id": id}));
        let all = [
            ("A-1".to_owned(), false, told("1")),
            ("A-2".to_owned(), true, None),
            ("A-3".to_owned(), false, told("5")),
        ];
        let done = folder.path().join("done");
        for n in 0..FILES + 8 {
            // Each process begins a file.
            let inbox = Inbox::open(folder.path()).unwrap();
            put(&inbox, &format!("b{n}"), "B-1", false).await;
            for task in inbox.take(10) {
                inbox.finish(&task, (task.key != "B-1").then_some(Duration::ZERO));
            }
            let first = files(folder.path()).remove(0).1;
            let before = (std::fs::read(&first).unwrap(), std::fs::read(&done).ok());
            inbox.mark().unwrap();
            assert!(files(folder.path()).len() <= FILES + 1);
            assert_eq!(waiting(&inbox), all, "{n}");
            if n == FILES - 1 {
                assert!(!first.exists());
                // As if the process had ended before it was written down that the first file may go.
                std::fs::write(&first, before.0).unwrap();
                assert_eq!(before.1, None);
                std::fs::remove_file(&done).unwrap();
            }
        }
        let inbox = Inbox::open(folder.path()).unwrap();
        assert_eq!(waiting(&inbox), all);
        assert_eq!(put(&inbox, "1", "A-1", false).await, Taken::Known);
        drop(inbox);
        let inbox = Inbox::open(folder.path()).unwrap();
        for task in inbox.take(10) {
            inbox.finish(&task, None);
        }
        inbox.mark().unwrap();
        drop(inbox);
        assert_eq!(Inbox::open(folder.path()).unwrap().waiting().0, 0);
    }

    #[tokio::test]
    async fn many_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Arc::new(Inbox::open(folder.path()).unwrap());
        let puts = (0..500).map(|n| {
            let inbox = inbox.clone();
            tokio::spawn(async move { put(&inbox, &(n % 400).to_string(), &format!("A-{n}"), false).await })
        });
        let mut new = 0;
        for put in puts.collect::<Vec<_>>() {
            new += usize::from(put.await.unwrap() == Taken::New);
        }
        assert_eq!(new, 400);
        inbox.close();
        assert_eq!(inbox.put(notice("x", "A-1", false), Utc::now()).await.unwrap_err().code(), "inbox_closed");
        assert_eq!(Inbox::open(folder.path()).unwrap().waiting().0, 400);
    }
}

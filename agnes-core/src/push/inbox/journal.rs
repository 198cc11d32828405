//! The files of an inbox: lines with checksums, written by one thread, read again at the start.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, oneshot};

use super::{Notice, PushError, State, Subject, Taken, locked};
use crate::error::{Error, Result};
use crate::extract::fsio::{fault_point, sync_folder};

/// Bytes after which another file is begun.
const FILE_BYTES: u64 = 32 << 20;
/// Deliveries that are put on the disk by one call.
const TOGETHER: usize = 1000;
/// Digits of the checksum of a line.
const SUM: usize = 16;
/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) at: DateTime<Utc>,
    pub(super) id: String,
    pub(super) event: String,
    pub(super) subject: String,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    pub(super) tells: bool,
    pub(super) body: Value,
}

/// A line as it is found again, without its body.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) at: DateTime<Utc>,
    pub(super) id: String,
    pub(super) subject: String,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    pub(super) tells: bool,
}

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) length: usize,
}

pub(super) struct Write {
    pub(super) notice: Notice,
    pub(super) at: DateTime<Utc>,
    pub(super) reply: oneshot::Sender<Result<Taken, Arc<Error>>>,
}

fn sum(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    crate::orchestrator::hex(&digest[..SUM / 2])
}

/// The text of a line whose checksum is right.
fn proven(line: &[u8]) -> Option<&[u8]> {
    let (told, text) = (line.get(..SUM)?, line.get(SUM + 1..)?);
    (line.get(SUM) == Some(&b' ') && sum(text).as_bytes() == told).then_some(text)
}

/// The line at a place, if it is there and whole.
pub(super) fn read(place: &Place) -> Option<Line> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&place.file)?;
        file.seek(SeekFrom::Start(place.offset))?;
        let mut bytes = vec![0; place.length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    serde_json::from_slice(proven(&read().ok()?)?).ok()
}

/// Files of the journal, oldest first, with the number of their first line.
pub(super) fn files(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let first = entry.file_name().to_str()?.strip_suffix(".journal")?.parse().ok()?;
            Some((first, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Reads a file of the journal into the state; how many of its bytes are whole lines.
pub(super) fn replay(path: &Path, state: &mut State) -> Result<u64> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read the inbox of deliveries", e))?;
    let (mut at, mut good) = (0, 0);
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + length];
        if let Some(head) = proven(line).and_then(|text| serde_json::from_slice::<Head>(text).ok()) {
            state.next = state.next.max(head.seq + 1);
            state.know(head.id.clone());
            if head.seq >= state.done {
                let place = Place { file: path.to_owned(), offset: at as u64, length };
                state.add(&head, place);
            }
            good = at + length + 1;
        }
        at += length + 1;
    }
    Ok(good as u64)
}

/// Writes the journal.
pub(super) struct Journal {
    pub(super) folder: PathBuf,
    pub(super) file: Option<(File, PathBuf, u64)>,
    pub(super) state: Arc<Mutex<State>>,
}

/// Keeps what comes, until nobody sends anything any more.
pub(super) fn run(journal: &Mutex<Journal>, news: &Notify, queue: &mpsc::Receiver<Write>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < TOGETHER
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        let done = journal.lock().unwrap_or_else(PoisonError::into_inner).commit(&batch);
        match done {
            Ok(taken) => {
                for (write, taken) in batch.into_iter().zip(taken) {
                    let _ = write.reply.send(Ok(taken));
                }
                news.notify_one();
            }
            Err(error) => {
                tracing::error!(code = error.code(), "deliveries cannot be kept: {error}");
                let error = Arc::new(error);
                for write in batch {
                    let _ = write.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Journal {
    /// Puts these deliveries on the disk, all or none.
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Taken>> {
        let (state, mut taken, mut fresh) = (self.state.clone(), Vec::new(), HashSet::new());
        let written = self.append(batch.iter().filter_map(|write| {
            let notice = &write.notice;
            if !fresh.insert(notice.id.as_str()) || locked(&state).known.contains(&notice.id) {
                taken.push(Taken::Known);
                return None;
            }
            taken.push(Taken::New);
            Some(Line {
                seq: 0,
                at: write.at,
                id: notice.id.clone(),
                event: notice.event.clone(),
                subject: notice.subject.clone(),
                deleted: notice.deleted,
                tells: notice.tells,
                body: notice.body.clone(),
            })
        }))?;
        let mut state = locked(&state);
        for (head, place) in written {
            state.next = head.seq + 1;
            state.know(head.id.clone());
            state.add(&head, place);
        }
        Ok(taken)
    }

    /// Writes what waits since before `below` anew, one line for each subject, so that what is before may be deleted.
    /// Nothing where much does: then the source is away, and what waits needs its place anyway.
    pub(super) fn carry(&mut self, below: u64) -> Result<()> {
        let state = self.state.clone();
        let line = |(key, subject): (&String, &Subject)| Line {
            seq: 0,
            at: subject.since,
            id: subject.id.clone(),
            event: "again".to_owned(),
            subject: key.clone(),
            deleted: subject.other.is_none(),
            tells: false,
            body: Value::Null,
        };
        let old: Vec<(Line, Option<Place>)> = {
            let state = locked(&state);
            let old = state.pending.iter().filter(|(_, subject)| subject.first < below);
            old.map(|old| (line(old), old.1.told.clone())).collect()
        };
        let told: u64 = old.iter().flat_map(|(_, told)| told).map(|told| told.length as u64).sum();
        if old.is_empty() || told > FILE_BYTES / 2 {
            return Ok(());
        }
        let written = self.append(old.into_iter().map(|(line, told)| match told.as_ref().and_then(read) {
            Some(told) => Line { event: told.event, tells: true, body: told.body, ..line },
            None => line,
        }))?;
        let mut state = locked(&state);
        for (head, place) in written {
            state.next = head.seq + 1;
            let Some(subject) = state.pending.get_mut(&head.subject) else { continue };
            (subject.first, subject.last) = (head.seq, head.seq);
            subject.deleted = head.deleted.then_some(head.seq);
            subject.other = (!head.deleted).then_some(head.seq);
            subject.told = head.tells.then_some(place);
        }
        Ok(())
    }

    /// Puts these lines on the disk, all or none, under the next numbers.
    fn append(&mut self, lines: impl Iterator<Item = Line>) -> Result<Vec<(Head, Place)>> {
        let next = locked(&self.state).next;
        if self.file.as_ref().is_none_or(|(_, _, length)| *length >= FILE_BYTES) {
            let path = self.folder.join(format!("{next:016}.journal"));
            // A file of this name holds nothing: no line was ever acknowledged in it.
            let file = fault_point()
                .and_then(|()| OpenOptions::new().create(true).write(true).truncate(true).open(&path))
                .map_err(|e| Error::io("make a file of the inbox", e))?;
            sync_folder(&self.folder)?;
            self.file = Some((file, path, 0));
        }
        let Some((file, path, length)) = &mut self.file else { return Err(PushError::Closed.into()) };
        let (mut bytes, mut written) = (Vec::new(), Vec::new());
        for (seq, line) in (next..).zip(lines) {
            let line = Line { seq, ..line };
            let text = serde_json::to_vec(&line).map_err(|e| Error::internal("write a delivery", e))?;
            let place =
                Place { file: path.clone(), offset: *length + bytes.len() as u64, length: SUM + 1 + text.len() };
            bytes.extend_from_slice(sum(&text).as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(&text);
            bytes.push(b'\n');
            let Line { seq, at, id, subject, deleted, tells, .. } = line;
            written.push((Head { seq, at, id, subject, deleted, tells }, place));
        }
        if bytes.is_empty() {
            return Ok(written);
        }
        let mut write = || -> std::io::Result<()> {
            fault_point()?;
            file.seek(SeekFrom::Start(*length))?;
            file.write_all(&bytes)?;
            fault_point()?;
            file.sync_data()
        };
        if let Err(error) = write() {
            // Whether it is on the disk is not known: what is next goes to its place.
            let _ = file.set_len(*length);
            return Err(Error::io("keep a delivery", error));
        }
        *length += bytes.len() as u64;
        Ok(written)
    }
}

//! The files of an inbox: lines with checksums, written by one thread, read again at the start.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, oneshot};

use super::{Notice, PushError, State, Taken, locked};
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
pub(super) fn proven(line: &[u8]) -> Option<&[u8]> {
    let (told, text) = (line.get(..SUM)?, line.get(SUM + 1..)?);
    (line.get(SUM) == Some(&b' ') && sum(text).as_bytes() == told).then_some(text)
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

/// Writes the journal, on a thread of its own.
pub(super) struct Journal {
    pub(super) folder: PathBuf,
    pub(super) file: Option<(File, PathBuf, u64)>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) news: Arc<Notify>,
}

impl Journal {
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            while batch.len() < TOGETHER
                && let Ok(more) = queue.try_recv()
            {
                batch.push(more);
            }
            match self.commit(&batch) {
                Ok(taken) => {
                    for (write, taken) in batch.into_iter().zip(taken) {
                        let _ = write.reply.send(Ok(taken));
                    }
                    self.news.notify_one();
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

    /// Puts these deliveries on the disk, all or none.
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Taken>> {
        let mut next = locked(&self.state).next;
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
        let (mut bytes, mut taken, mut heads) = (Vec::new(), Vec::new(), Vec::new());
        let mut fresh = HashSet::new();
        for write in batch {
            let notice = &write.notice;
            if !fresh.insert(notice.id.as_str()) || locked(&self.state).known.contains(&notice.id) {
                taken.push(Taken::Known);
                continue;
            }
            let line = Line {
                seq: next,
                at: write.at,
                id: notice.id.clone(),
                event: notice.event.clone(),
                subject: notice.subject.clone(),
                deleted: notice.deleted,
                tells: notice.tells,
                body: notice.body.clone(),
            };
            let text = serde_json::to_vec(&line).map_err(|e| Error::internal("write a delivery", e))?;
            let place =
                Place { file: path.clone(), offset: *length + bytes.len() as u64, length: SUM + 1 + text.len() };
            bytes.extend_from_slice(sum(&text).as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(&text);
            bytes.push(b'\n');
            let Line { seq, at, id, subject, deleted, tells, .. } = line;
            heads.push((Head { seq, at, id, subject, deleted, tells }, place));
            taken.push(Taken::New);
            next += 1;
        }
        if bytes.is_empty() {
            return Ok(taken);
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
        let mut state = locked(&self.state);
        state.next = next;
        for (head, place) in heads {
            state.know(head.id.clone());
            state.add(&head, place);
        }
        Ok(taken)
    }
}

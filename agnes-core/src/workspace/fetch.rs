//! Fetches files: in ranges at once, gone on with after a kill, checked before they count.
//!
//! What has arrived of a large file lies in `.agnes/incoming/<content>`; beside it a journal of
//! the pieces that are there. Neither is trusted: the whole file is hashed before it gets its
//! name among the blobs.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::Digest as _;

use super::plan::{Digest, Want};
use super::{Opened, Origin, Workspace, WorkspaceError};
use crate::connector::{Progress, ProgressEvent};
use crate::duck::blocking;
use crate::error::{Error, Result};

/// Bytes that are journaled at a time, and what one request at least asks for.
const PIECE: u64 = 8 << 20;
/// Bytes that are written at a time.
const WRITE: usize = 1 << 20;
/// Waits before another attempt.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
/// Longest wait that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    /// Files at once.
    pub files: usize,
    /// Ranges of one file at once.
    pub ranges: usize,
    /// Bytes from which on a file comes in ranges at once.
    pub threshold: u64,
    /// Attempts beyond the first that bring nothing.
    pub retries: u32,
}

impl Default for PullLimits {
    fn default() -> Self {
        Self { files: 4, ranges: 4, threshold: 50 << 20, retries: 3 }
    }
}

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum Missed {
    /// The server has another content by now, or none that the caller may have.
    Republished,
    Failed(Error),
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<WorkspaceError> for Missed {
    fn from(error: WorkspaceError) -> Self {
        Self::Failed(error.into())
    }
}

/// Fetches the files of one pull.
pub(super) struct Fetcher<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) origin: &'a dyn Origin,
    pub(super) limits: PullLimits,
    pub(super) progress: Progress,
    pub(super) server: String,
    /// Bytes that came over the network.
    pub(super) moved: AtomicU64,
    /// Contents that came, and were right.
    pub(super) fetched: Mutex<BTreeSet<String>>,
}

/// Counts attempts that brought nothing, and waits between them.
struct Patience {
    failed: u32,
    most: u32,
}

impl Patience {
    /// Waits after `error`, unless it is no use.
    async fn wait(&mut self, error: Error) -> Result<()> {
        if !error.is_retryable() || self.failed >= self.most {
            return Err(error);
        }
        let told = error.facts().and_then(|facts| facts["retry_after_seconds"].as_u64()).map(Duration::from_secs);
        let usual = PAUSES[usize::try_from(self.failed).unwrap_or(usize::MAX).min(PAUSES.len() - 1)];
        self.failed += 1;
        tokio::time::sleep(told.map_or(usual, |told| told.min(LONGEST_PAUSE))).await;
        Ok(())
    }
}

fn too_short(table: &str) -> Error {
    crate::error::WireError {
        kind: crate::ErrorKind::Unavailable,
        code: "download_broke_off".to_owned(),
        message: format!("the file of `{table}` broke off"),
        hint: Some("pull again: it goes on where it was".to_owned()),
        retryable: true,
        facts: None,
    }
    .into()
}

/// What is known of a large file that is on its way.
struct Arriving {
    want: Want,
    file: File,
    path: PathBuf,
    journal: Mutex<File>,
    missing: Mutex<VecDeque<u64>>,
    bytes: AtomicU64,
    /// The server sends no ranges.
    is_whole_only: AtomicBool,
}

impl Fetcher<'_> {
    /// Brings a file to its place among the blobs.
    pub(super) async fn fetch(&self, want: &Want) -> Result<(), Missed> {
        self.tell_start(want);
        for last in [false, true] {
            let came = if want.size <= PIECE { self.small(want).await } else { self.large(want).await };
            match came {
                // Whatever changed it on its way may not do so again. A new file: a write of the
                // attempt before may still be under way.
                Err(Missed::Failed(error)) if error.code() == "download_corrupt" && !last => {
                    let arrived = self.workspace.incoming().join(&want.blob);
                    let _ = std::fs::remove_file(journal_of(&arrived));
                    let _ = std::fs::remove_file(arrived);
                }
                came => {
                    if came.is_ok() {
                        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(want.blob.clone());
                    }
                    self.tell_end(want, came.is_ok());
                    return came;
                }
            }
        }
        Err(WorkspaceError::Corrupt { table: want.table.clone() }.into())
    }

    async fn open(&self, want: &Want, range: Option<std::ops::Range<u64>>) -> Result<Opened, Missed> {
        match self.origin.open(&want.file, range).await {
            Ok(opened) => {
                let is_other =
                    opened.tag.as_deref().is_some_and(|tag| !want.file.md5.is_empty() && tag != want.file.md5);
                if is_other { Err(Missed::Republished) } else { Ok(opened) }
            }
            // It was there, and ours, when the manifest was made.
            Err(error) if matches!(error.kind(), crate::ErrorKind::Forbidden | crate::ErrorKind::NotFound) => {
                Err(Missed::Republished)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A file that fits into memory.
    async fn small(&self, want: &Want) -> Result<(), Missed> {
        let mut patience = Patience { failed: 0, most: self.limits.retries };
        let bytes = loop {
            match self.whole(want).await {
                Ok(bytes) => break bytes,
                Err(Missed::Failed(error)) => patience.wait(error).await?,
                Err(republished) => return Err(republished),
            }
        };
        let (target, blobs) = (self.workspace.blob(&want.blob), self.workspace.incoming());
        let want = want.clone();
        let put = move || {
            if !fits(&want.digest, &bytes) {
                return Err(WorkspaceError::Corrupt { table: want.table }.into());
            }
            let arrived = blobs.join(&want.blob);
            let write = || -> std::io::Result<()> {
                let mut file = File::create(&arrived)?;
                file.write_all(&bytes)?;
                file.set_permissions(Permissions::from_mode(0o444))?;
                std::fs::rename(&arrived, &target)
            };
            write().map_err(|e| Error::io("write a table's file", e))
        };
        Ok(blocking(put).await?)
    }

    async fn whole(&self, want: &Want) -> Result<Vec<u8>, Missed> {
        let mut opened = self.open(want, None).await?;
        let size = usize::try_from(want.size).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size.min(1 << 20));
        while let Some(piece) = opened.body.next().await? {
            self.moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
            bytes.extend_from_slice(&piece);
            // Without a hash its size is nothing to go by either.
            if bytes.len() > size && want.digest != Digest::Nothing {
                return Err(WorkspaceError::Corrupt { table: want.table.clone() }.into());
            }
            self.tell(want, bytes.len() as u64);
        }
        if bytes.len() < size { Err(too_short(&want.table).into()) } else { Ok(bytes) }
    }

    /// A file that comes in pieces.
    async fn large(&self, want: &Want) -> Result<(), Missed> {
        let (incoming, owned) = (self.workspace.incoming(), want.clone());
        let arriving = Arc::new(blocking(move || Arriving::open(owned, &incoming)).await?);
        let workers = if want.size >= self.limits.threshold { self.limits.ranges.max(1) } else { 1 };
        let work = (0..workers).map(|_| self.pieces(&arriving, workers as u64));
        futures::future::try_join_all(work).await?;
        if arriving.is_whole_only.load(Ordering::Relaxed) {
            self.whole_at_once(&arriving).await?;
        }
        let target = self.workspace.blob(&want.blob);
        Ok(blocking(move || arriving.finish(&target)).await?)
    }

    /// Takes runs of pieces until none is missing.
    async fn pieces(&self, arriving: &Arc<Arriving>, workers: u64) -> Result<(), Missed> {
        let mut patience = Patience { failed: 0, most: self.limits.retries };
        while let Some((first, count)) = arriving.take(workers) {
            if arriving.is_whole_only.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut done = 0;
            let came = self.run(arriving, first, count, &mut done).await;
            arriving.give_back(first + done..first + count);
            match came {
                Ok(()) => patience.failed = 0,
                Err(Missed::Failed(error)) => {
                    if done > 0 {
                        patience.failed = 0;
                    }
                    patience.wait(error).await?;
                }
                Err(republished) => return Err(republished),
            }
        }
        Ok(())
    }

    /// One request for `count` pieces from `first` on; `done` of them were written.
    async fn run(&self, arriving: &Arc<Arriving>, first: u64, count: u64, done: &mut u64) -> Result<(), Missed> {
        let size = arriving.want.size;
        let (mut at, end) = (first * PIECE, ((first + count) * PIECE).min(size));
        let mut opened = self.open(&arriving.want, Some(at..end)).await?;
        if !opened.is_range {
            arriving.is_whole_only.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let (mut waiting, mut held): (Vec<Bytes>, usize) = (Vec::new(), 0);
        let mut writing: Option<tokio::task::JoinHandle<Result<()>>> = None;
        loop {
            let next = opened.body.next().await;
            let (next, failure) = match next {
                Ok(next) => (next, None),
                Err(error) => (None, Some(error)),
            };
            let is_over = next.is_none();
            if let Some(piece) = next {
                self.moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
                held += piece.len();
                waiting.push(piece);
                if at + held as u64 > end {
                    return Err(WorkspaceError::Corrupt { table: arriving.want.table.clone() }.into());
                }
            }
            if held >= WRITE || (is_over && held > 0) {
                // One write runs while the next bytes come.
                if let Some(write) = writing.take() {
                    joined(write).await?;
                    self.note(arriving, first, count, at, done);
                }
                let (to, bytes, from) = (arriving.clone(), std::mem::take(&mut waiting), at);
                at += held as u64;
                held = 0;
                writing = Some(tokio::task::spawn_blocking(move || to.write(from, &bytes)));
            }
            if is_over {
                if let Some(write) = writing.take() {
                    joined(write).await?;
                }
                self.note(arriving, first, count, at, done);
                return match failure {
                    Some(error) => Err(error.into()),
                    None if at < end => Err(too_short(&arriving.want.table).into()),
                    None => Ok(()),
                };
            }
        }
    }

    /// Journals the pieces of a run that are written as far as `at`.
    fn note(&self, arriving: &Arriving, first: u64, count: u64, at: u64, done: &mut u64) {
        let end = arriving.want.size;
        while *done < count && ((first + *done + 1) * PIECE).min(end) <= at {
            arriving.journal(first + *done);
            *done += 1;
        }
        self.tell(&arriving.want, arriving.bytes.load(Ordering::Relaxed));
    }

    /// All of the file, from a server that sends no ranges.
    async fn whole_at_once(&self, arriving: &Arc<Arriving>) -> Result<(), Missed> {
        let mut patience = Patience { failed: 0, most: self.limits.retries };
        loop {
            match self.stream(arriving).await {
                Err(Missed::Failed(error)) => patience.wait(error).await?,
                came => return came,
            }
        }
    }

    async fn stream(&self, arriving: &Arc<Arriving>) -> Result<(), Missed> {
        let mut opened = self.open(&arriving.want, None).await?;
        let mut at = 0;
        while let Some(piece) = opened.body.next().await? {
            let length = piece.len() as u64;
            self.moved.fetch_add(length, Ordering::Relaxed);
            if at + length > arriving.want.size {
                return Err(WorkspaceError::Corrupt { table: arriving.want.table.clone() }.into());
            }
            let to = arriving.clone();
            blocking(move || to.write(at, &[piece])).await?;
            at += length;
            self.tell(&arriving.want, at);
        }
        if at < arriving.want.size { Err(too_short(&arriving.want.table).into()) } else { Ok(()) }
    }

    fn tell_start(&self, want: &Want) {
        let (source, table) = (self.server.clone(), want.table.clone());
        self.progress.report(ProgressEvent::TableStarted { source, table, total_bytes: Some(want.size) });
    }

    fn tell(&self, want: &Want, bytes: u64) {
        let (source, table) = (self.server.clone(), want.table.clone());
        self.progress.report(ProgressEvent::TableProgress { source, table, bytes: bytes.min(want.size) });
    }

    fn tell_end(&self, want: &Want, is_here: bool) {
        let (source, table) = (self.server.clone(), want.table.clone());
        let status = if is_here { "ok" } else { "failed" }.to_owned();
        self.progress.report(ProgressEvent::TableFinished { source, table, status, rows: 0, bytes: want.size });
    }
}

async fn joined(write: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    write.await.unwrap_or_else(|panic| Err(Error::internal("write a table's file", panic)))
}

impl Arriving {
    /// Opens what has arrived of a file, or begins.
    fn open(want: Want, incoming: &Path) -> Result<Self> {
        let path = incoming.join(&want.blob);
        let journal_path = journal_of(&path);
        let open = || -> std::io::Result<(File, File, String)> {
            let noted = std::fs::read_to_string(&journal_path).unwrap_or_default();
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
            // A journal of a file that is gone says nothing.
            let noted = if file.metadata()?.len() == want.size { noted } else { String::new() };
            file.set_len(want.size)?;
            let mut journal = OpenOptions::new().create(true).append(true).open(&journal_path)?;
            if noted.is_empty() {
                journal.set_len(0)?;
            } else if !noted.ends_with('\n') {
                journal.write_all(b"\n")?;
            }
            Ok((file, journal, noted))
        };
        let (file, journal, noted) = open().map_err(|e| Error::io("write a table's file", e))?;
        let pieces = want.size.div_ceil(PIECE);
        let there: BTreeSet<u64> = noted.lines().filter_map(|line| line.parse().ok()).filter(|n| *n < pieces).collect();
        let bytes: u64 = there.iter().map(|n| ((n + 1) * PIECE).min(want.size) - n * PIECE).sum();
        let missing = (0..pieces).filter(|n| !there.contains(n)).collect();
        Ok(Self {
            want,
            file,
            path,
            journal: Mutex::new(journal),
            missing: Mutex::new(missing),
            bytes: AtomicU64::new(bytes),
            is_whole_only: AtomicBool::new(false),
        })
    }

    /// A run of missing pieces for one of `workers`: long enough that few requests are made, short
    /// enough that all have something to do until the end.
    fn take(&self, workers: u64) -> Option<(u64, u64)> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if workers == 1 { u64::MAX } else { (missing.len() as u64).div_ceil(workers * 2) };
        let first = missing.pop_front()?;
        let mut count = 1;
        while count < most && missing.front() == Some(&(first + count)) {
            missing.pop_front();
            count += 1;
        }
        Some((first, count))
    }

    fn give_back(&self, pieces: std::ops::Range<u64>) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.rev().for_each(|piece| missing.push_front(piece));
    }

    fn write(&self, mut at: u64, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            self.file.write_all_at(piece, at).map_err(|e| Error::io("write a table's file", e))?;
            at += piece.len() as u64;
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes that a piece is there. One line that is lost costs one piece.
    fn journal(&self, piece: u64) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = journal.write_all(format!("{piece}\n").as_bytes());
    }

    /// Checks the whole file and gives it its name.
    fn finish(&self, target: &Path) -> Result<()> {
        let journal = journal_of(&self.path);
        let is_good = fits_file(&self.want.digest, &self.path).map_err(|e| Error::io("read a table's file", e))?;
        if !is_good {
            let _ = std::fs::remove_file(&journal);
            let _ = std::fs::remove_file(&self.path);
            return Err(WorkspaceError::Corrupt { table: self.want.table.clone() }.into());
        }
        let put = || -> std::io::Result<()> {
            self.file.set_permissions(Permissions::from_mode(0o444))?;
            std::fs::rename(&self.path, target)
        };
        put().map_err(|e| Error::io("write a table's file", e))?;
        let _ = std::fs::remove_file(&journal);
        Ok(())
    }
}

/// Where the journal of a file is.
fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".done");
    name.into()
}

/// Whether bytes are those of a digest; without one, whether they look like Parquet.
fn fits(digest: &Digest, bytes: &[u8]) -> bool {
    use crate::orchestrator::hex;
    match digest {
        Digest::Sha256(hash) => hex(&sha2::Sha256::digest(bytes)) == *hash,
        Digest::Md5(hash) => hex(&md5::Md5::digest(bytes)) == *hash,
        Digest::Nothing => bytes.len() > 8 && bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
    }
}

/// [`fits`] of a file.
pub(super) fn fits_file(digest: &Digest, path: &Path) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if *digest == Digest::Nothing {
        let (mut head, mut tail) = ([0; 4], [0; 4]);
        if size <= 8 {
            return Ok(false);
        }
        file.read_exact_at(&mut head, 0)?;
        file.read_exact_at(&mut tail, size - 4)?;
        return Ok(&head == b"PAR1" && &tail == b"PAR1");
    }
    let (mut sha256, mut md5) = (sha2::Sha256::new(), md5::Md5::new());
    let (mut buffer, mut at) = (vec![0; WRITE], 0);
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        match digest {
            Digest::Sha256(_) => sha256.update(&buffer[..read]),
            _ => md5.update(&buffer[..read]),
        }
        at += read as u64;
    }
    Ok(match digest {
        Digest::Sha256(hash) => crate::orchestrator::hex(&sha256.finalize()) == *hash,
        Digest::Md5(hash) => crate::orchestrator::hex(&md5.finalize()) == *hash,
        Digest::Nothing => false,
    })
}

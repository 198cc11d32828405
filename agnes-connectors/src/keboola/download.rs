//! Brings the slices of one exported file here: several at a time, each unpacked and summed on
//! its way to the disk, so that one that is cut off or damaged is found before it is read.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agnes_core::connector::{Cancel, ProgressEvent, SourceContext};
use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use base64::Engine as _;
use futures::StreamExt;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::api::Api;
use super::config::Endpoints;
use super::error::KeboolaError;
use super::export::FileType;
use super::model::{FileDetail, Manifest};
use super::place::{self, hex, identity, natural, place};
use super::workspace::{Piece, Workspace};
use crate::calls::{seconds, until_cancelled};
use crate::outbound::Answer;

/// Slices of one export at a time.
const AT_ONCE: usize = 4;
/// How often a slice is tried.
const ATTEMPTS: u32 = 3;
/// The longest wait before another try that a store may ask for.
const LONGEST_PAUSE: u64 = 30;
/// Bytes of a manifest.
const MANIFEST: u64 = 64 << 20;
/// Pieces of a body that wait for the disk.
const QUEUE: usize = 8;
/// Comes after the last piece: a body that ends without it was cut off.
const END: Vec<u8> = Vec::new();

/// The files of an export, here.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// In the order of their rows.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether lines end with CR LF.
    pub(crate) crlf: bool,
    /// Whether the one file begins with the names of the columns.
    pub(crate) header: bool,
}

/// How downloads are made.
#[derive(Debug, Clone)]
pub(crate) struct How {
    pub(crate) endpoints: Endpoints,
    pub(crate) timeout: Duration,
    /// Slices of all exports at a time.
    pub(crate) slots: Arc<Semaphore>,
    /// Held by threads that write a slice.
    pub(crate) writing: Option<mpsc::Sender<()>>,
    /// Whether a list of no slices is whole.
    pub(crate) may_be_empty: bool,
}

/// An exported file as the store has it, with credentials that may expire.
struct Opened {
    detail: FileDetail,
    /// Addresses in the order of their rows, by what they are known by.
    slices: Vec<(String, String)>,
}

/// Brings the file `id` here. What the workspace has already is not asked for again.
pub(crate) async fn download(
    api: &Api,
    how: &How,
    workspace: &Workspace,
    id: &str,
    file_type: FileType,
    source: &SourceContext,
    table: &str,
) -> Result<Files> {
    let opened = Arc::new(open(api, how, id).await?);
    let total = opened.slices.len();
    let current = tokio::sync::Mutex::new(opened.clone());
    let read = AtomicU64::new(0);
    let (writing, mut written) = mpsc::channel(1);
    let how = How { writing: Some(writing), ..how.clone() };
    let failed = AtomicBool::new(false);
    let one = |(n, (what, _)): (usize, &(String, String))| {
        let (current, read, how, failed, what) = (&current, &read, &how, &failed, what.clone());
        async move {
            if let Some(piece) = workspace.piece(&what) {
                return Ok(Some((n, piece.clone())));
            }
            let slot = turn(&how.slots, &api.cancel).await?;
            // What is on its way still comes, so that the next run need not ask for it.
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let piece = slice(api, how, workspace, id, current, (n, total), &what).await;
            let piece = piece.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            drop(slot);
            let bytes = read.fetch_add(piece.size, Ordering::Relaxed) + piece.size;
            let (source_name, table) = (source.name.to_string(), table.to_owned());
            source.progress.report(ProgressEvent::TableProgress { source: source_name, table, bytes });
            Ok::<_, Error>(Some((n, piece)))
        }
    };
    let pieces: Vec<Result<Option<(usize, Piece)>>> =
        futures::stream::iter(opened.slices.iter().enumerate().map(one)).buffer_unordered(AT_ONCE).collect().await;
    // Those that nobody waits for any more end by themselves; until then the folder is theirs too.
    drop(how);
    written.recv().await;
    let mut pieces = pieces.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
    pieces.sort_by_key(|(n, _)| *n);
    Ok(Files {
        header: !opened.detail.is_sliced && file_type == FileType::Csv,
        crlf: pieces.iter().any(|(_, piece)| piece.crlf),
        paths: pieces
            .iter()
            .filter(|(_, piece)| piece.size > 0)
            .map(|(_, piece)| workspace.path(&piece.file))
            .collect(),
    })
}

/// Waits for one of a few places.
pub(crate) async fn turn<'a>(places: &'a Semaphore, cancel: &Cancel) -> Result<SemaphorePermit<'a>> {
    until_cancelled(cancel, async { places.acquire().await.map_err(|e| Error::internal("wait for a turn", e)) }).await
}

/// Where the slices are, as of now.
async fn open(api: &Api, how: &How, id: &str) -> Result<Opened> {
    let detail = api.file(id).await?;
    let invalid = |reason: &str| Error::from(KeboolaError::File { reason: reason.to_owned() });
    if detail.url.is_empty() {
        return Err(invalid("Keboola named no address"));
    }
    if !detail.is_sliced {
        let slices = vec![(identity(&detail.url).to_owned(), detail.url.clone())];
        return Ok(Opened { detail, slices });
    }
    let manifest: Manifest = until_cancelled(&api.cancel, async {
        let request = api.outbound.get(&detail.url).timeout(how.timeout).body_limit(MANIFEST);
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        if (400..500).contains(&status) && status != 429 {
            // It is the store that refuses, by credentials that Keboola gave just now.
            return Err(invalid(&format!("its store answered {status} to the request for the list of its slices")));
        }
        if status >= 400 {
            let retry_after = answer.header("retry-after").and_then(seconds);
            let call = "read the list of the slices";
            // What stores say of failures holds names of buckets and keys.
            return Err(KeboolaError::Refused { call, status, words: String::new(), retry_after }.into());
        }
        serde_json::from_slice(&answer.bytes().await?).map_err(|_| invalid("the list of its slices is damaged"))
    })
    .await?;
    let mut slices = BTreeMap::new();
    for entry in manifest.entries {
        let url = entry.url.filter(|url| !url.is_empty()).ok_or_else(|| invalid("a slice has no address"))?;
        if slices.insert(identity(&url).to_owned(), url).is_some() {
            return Err(invalid("a slice is listed twice"));
        }
    }
    if slices.is_empty() && !how.may_be_empty {
        return Err(invalid("the list of its slices is empty"));
    }
    let mut slices: Vec<_> = slices.into_iter().collect();
    slices.sort_by(|(a, _), (b, _)| natural(a, b));
    Ok(Opened { detail, slices })
}

/// Why a slice is not here.
enum Fault {
    /// Its credentials may have expired.
    Expired(u16),
    /// It may pass, after this many seconds.
    Again(String, u64),
    /// The file has it no more.
    Gone(String),
    /// What came is not what should have come; it may be on the way that it changed.
    Damaged(&'static str),
    Fatal(Error),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

/// Brings one slice here, again where that may help.
async fn slice(
    api: &Api,
    how: &How,
    workspace: &Workspace,
    id: &str,
    current: &tokio::sync::Mutex<Arc<Opened>>,
    (n, total): (usize, usize),
    what: &str,
) -> Result<Piece> {
    let mut pause = 1;
    let mut attempt = 1;
    loop {
        let opened = current.lock().await.clone();
        let url = opened.slices.iter().find(|(known, _)| known == what).map(|(_, url)| url.clone());
        let fault = match url {
            None => Fault::Gone("it is not in the list any more".to_owned()),
            Some(url) => {
                let fetched = fetch(api, how, workspace, &opened.detail, n, what, &url);
                match until_cancelled(&api.cancel, async { Ok(fetched.await) }).await? {
                    Ok(piece) => return Ok(piece),
                    Err(fault) => fault,
                }
            }
        };
        let (damaged, gone) = (matches!(fault, Fault::Damaged(_)), matches!(fault, Fault::Gone(_)));
        let (reason, asked) = match fault {
            Fault::Fatal(error) => return Err(error),
            Fault::Damaged(reason) => (reason.to_owned(), 0),
            Fault::Expired(status) => {
                // Whoever comes first asks for new credentials, for all.
                let mut current = current.lock().await;
                if Arc::ptr_eq(&current, &opened) && attempt < ATTEMPTS {
                    *current = Arc::new(open(api, how, id).await?);
                }
                (format!("the store answered {status}"), 0)
            }
            Fault::Again(reason, asked) => (reason, asked),
            Fault::Gone(reason) => (reason, 0),
        };
        if attempt >= ATTEMPTS || asked > LONGEST_PAUSE {
            let number = n + 1;
            return Err(if gone {
                KeboolaError::File { reason: format!("slice {number} of {total} is gone: {reason}") }
            } else if damaged {
                KeboolaError::Slice { number, total, reason }
            } else {
                KeboolaError::SliceAway { number, total, reason, retry_after: asked }
            }
            .into());
        }
        tracing::warn!(slice = n + 1, attempt, "a slice could not be read, trying again: {reason}");
        until_cancelled(&api.cancel, async {
            tokio::time::sleep(Duration::from_secs(asked.max(pause))).await;
            Ok(())
        })
        .await?;
        (attempt, pause) = (attempt + 1, pause * 2);
    }
}

async fn fetch(
    api: &Api,
    how: &How,
    workspace: &Workspace,
    detail: &FileDetail,
    n: usize,
    what: &str,
    url: &str,
) -> Result<Piece, Fault> {
    let place::Place { url, headers } = place(detail, url, &how.endpoints, chrono::Utc::now())?;
    let mut request = api.outbound.get(&url).timeout(how.timeout).body_limit(u64::MAX);
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    let broken = |error: crate::outbound::OutboundError| match Error::from(error) {
        error if error.is_retryable() => Fault::Again(error.to_string(), 0),
        error => Fault::Fatal(error),
    };
    let mut answer = request.send().await.map_err(broken)?;
    match answer.status().as_u16() {
        200..=299 => {}
        // Azure and S3 answer 400 to some tokens that expired.
        status @ (400 | 401 | 403) => return Err(Fault::Expired(status)),
        status @ (404 | 410) => return Err(Fault::Gone(format!("the store answered {status}"))),
        status => {
            let asked = answer.header("retry-after").and_then(seconds).unwrap_or_default();
            return Err(Fault::Again(format!("the store answered {status}"), asked));
        }
    }
    let announced: Option<u64> = answer.header("content-length").and_then(|text| text.parse().ok());
    let md5 = announced_md5(&answer);
    // A slice is unpacked by its name: what the store says of its encoding is not reliable.
    let unpack = match detail.is_sliced {
        true => what.ends_with(".gz"),
        false => detail.name.ends_with(".gz") || detail.name.is_empty() && what.ends_with(".gz"),
    };
    let file = format!("slice-{n:06}.data");
    let target = workspace.path(&file);
    check_space(&target, announced.unwrap_or_default(), unpack)?;
    let (send, receive) = mpsc::channel(QUEUE);
    let (part, held) = (target.clone(), how.writing.clone());
    let writer = tokio::spawn(blocking(move || {
        let done = write(receive, &part, unpack, md5);
        drop(held);
        Ok(done)
    }));
    let mut received = 0;
    let mut fault = None;
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if chunk.is_empty() => {}
            Ok(Some(chunk)) => {
                received += chunk.len() as u64;
                // It closes when the writer gives up: it says why.
                if send.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                drop(send.send(END).await);
                break;
            }
            Err(error) => {
                fault = Some(broken(error));
                break;
            }
        }
    }
    drop(send);
    let written = writer.await.map_err(|e| Error::internal("write a slice", e))??;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let written = written?;
    if announced.is_some_and(|announced| announced != received) {
        return Err(Fault::Damaged("it ended too early"));
    }
    let Written { size, sha256, crlf } = written;
    let piece = Piece { what: what.to_owned(), file, size, sha256, rows: None, crlf };
    workspace.done(&piece)?;
    Ok(piece)
}

/// MD5 of the body, where the store says it.
fn announced_md5(answer: &Answer) -> Option<Vec<u8>> {
    let google =
        answer.header("x-goog-hash").and_then(|text| text.split(',').find_map(|part| part.trim().strip_prefix("md5=")));
    let text = answer.header("content-md5").or(google)?;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok().filter(|sum| sum.len() == 16)
}

fn check_space(target: &Path, announced: u64, unpack: bool) -> Result<(), KeboolaError> {
    let need = if unpack { announced.saturating_mul(5) } else { announced.saturating_mul(5) / 4 };
    let Ok(disk) = rustix::fs::statvfs(target.parent().unwrap_or(target)) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if need > free { Err(KeboolaError::NoSpace { need: need >> 20, free: free >> 20 }) } else { Ok(()) }
}

/// What was written of a slice.
struct Written {
    size: u64,
    sha256: String,
    crlf: bool,
}

/// The body as it comes in, for a thread that may block.
struct Body {
    receive: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
    md5: Option<Md5>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            let chunk = self.receive.blocking_recv().ok_or(std::io::ErrorKind::UnexpectedEof)?;
            self.ended = chunk.is_empty();
            if let Some(md5) = &mut self.md5 {
                md5.update(&chunk);
            }
            (self.chunk, self.at) = (chunk, 0);
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Writes a slice, unpacked, to a name of its own, and then to `target`. Blocks.
fn write(
    receive: mpsc::Receiver<Vec<u8>>,
    target: &Path,
    unpack: bool,
    md5: Option<Vec<u8>>,
) -> Result<Written, Fault> {
    let part = target.with_extension("part");
    let mut body = Body { receive, chunk: Vec::new(), at: 0, ended: false, md5: md5.as_ref().map(|_| Md5::new()) };
    let file = std::fs::File::create(&part).map_err(|e| Error::io("write a slice", e))?;
    let mut out = Summed { file: BufWriter::with_capacity(256 << 10, file), sum: Sha256::new(), size: 0, tail: [0; 2] };
    let copied = if unpack {
        copy(&mut flate2::read::MultiGzDecoder::new(&mut body), &mut out)
    } else {
        copy(&mut body, &mut out)
    };
    match copied {
        Ok(()) => {}
        Err(Copy::Read(error)) => {
            tracing::debug!(%error, "a slice cannot be unpacked");
            return Err(Fault::Damaged("its gzip stream is damaged or cut off"));
        }
        Err(Copy::Write(error)) => return Err(Error::io("write a slice", error).into()),
    }
    // The decoder stops where its stream ends.
    if std::io::copy(&mut body, &mut std::io::sink()).is_err() {
        return Err(Fault::Damaged("it ended too early"));
    }
    if let (Some(announced), Some(sum)) = (md5, body.md5)
        && sum.finalize().as_slice() != announced
    {
        return Err(Fault::Damaged("its MD5 is not the one the store announced"));
    }
    out.file.flush().and_then(|()| std::fs::rename(&part, target)).map_err(|e| Error::io("write a slice", e))?;
    Ok(Written { size: out.size, sha256: hex(&out.sum.finalize()), crlf: &out.tail == b"\r\n" })
}

/// Which side of a copy failed.
enum Copy {
    Read(std::io::Error),
    Write(std::io::Error),
}

fn copy(from: &mut impl Read, to: &mut Summed) -> Result<(), Copy> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer).map_err(Copy::Read)? {
            0 => return Ok(()),
            n => to.write(&buffer[..n]).map_err(Copy::Write)?,
        }
    }
}

struct Summed {
    file: BufWriter<std::fs::File>,
    sum: Sha256,
    size: u64,
    /// The last two bytes.
    tail: [u8; 2],
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        match bytes {
            [.., a, b] => self.tail = [*a, *b],
            [b] => self.tail = [self.tail[1], *b],
            [] => {}
        }
        Ok(())
    }
}

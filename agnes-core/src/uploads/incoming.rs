//! A file that is arriving.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Turn, UploadError};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, fault_point, sync_folder};
use crate::redaction::redact_lines;

/// Bytes that are collected before they are written.
const PIECE: usize = 256 << 10;

/// Below this much free space no file is taken.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// A file that is arriving. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    target: PathBuf,
    staged: Staged,
    file: Option<File>,
    waiting: Vec<u8>,
    size: u64,
    limit: u64,
    _turn: Turn,
}

impl Incoming {
    /// Begins a file that will be `target`, or something beside it.
    pub(super) async fn begin(engine: &Engine, user: &str, target: &Path) -> Result<Self> {
        let turn = Turn::take(engine.upload_state(), user)?;
        let (target, root) = (target.to_owned(), engine.folder().root().to_owned());
        let beside = target.clone();
        let (staged, file) = crate::duck::blocking(move || {
            if crate::sync::free_bytes(&root)? < MIN_FREE_BYTES {
                return Err(Error::io("keep the file", std::io::ErrorKind::StorageFull.into()));
            }
            let staged = Staged::beside(&beside)?;
            let file = File::create_new(staged.path()).map_err(|e| Error::io("keep the file", e))?;
            Ok((staged, file))
        })
        .await?;
        let limit = engine.config().uploads.max_bytes;
        Ok(Self { target, staged, file: Some(file), waiting: Vec::new(), size: 0, limit, _turn: turn })
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds what arrived.
    ///
    /// # Errors
    /// `upload_too_large`, `disk_full`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(UploadError::TooLarge { limit: self.limit }.into());
        }
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let bytes = std::mem::take(&mut self.waiting);
        let file = crate::duck::blocking(move || {
            fault_point().and_then(|()| file.write_all(&bytes)).map_err(|e| Error::io("keep the file", e))?;
            Ok(file)
        });
        self.file = Some(file.await?);
        Ok(())
    }

    /// Replaces what looks like a secret: whoever sent it may not have. What `is_packed` by gzip is
    /// unpacked, and then has the size of its content.
    pub(super) async fn redact(&mut self, is_packed: bool) -> Result<()> {
        self.flush().await?;
        let (from, target, limit) = (self.staged.path().to_owned(), self.target.clone(), self.limit);
        let done = crate::duck::blocking(move || {
            let staged = Staged::beside(&target)?;
            let write = || {
                let from = BufReader::new(File::open(&from)?);
                let mut to = BufWriter::new(File::create_new(staged.path())?);
                let size = if is_packed {
                    let mut content = BufReader::new(MultiGzDecoder::new(from).take(limit + 1));
                    redact_lines(&mut content, &mut to)?;
                    Some(limit + 1 - content.get_ref().limit())
                } else {
                    redact_lines(from, &mut to)?;
                    None
                };
                to.flush()?;
                Ok(size)
            };
            let size = write().map_err(|error: io::Error| match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof if is_packed => {
                    UploadError::Gzip.into()
                }
                _ => Error::io("keep the file", error),
            })?;
            Ok((staged, size))
        });
        let (staged, size) = done.await?;
        self.size = size.unwrap_or(self.size);
        if self.size > limit {
            return Err(UploadError::TooLarge { limit }.into());
        }
        self.staged = staged;
        self.file = None;
        Ok(())
    }

    /// Puts it on the disk under the name `target`, in place of what had it.
    pub(super) async fn publish(mut self, target: &Path) -> Result<()> {
        self.flush().await?;
        drop(self.file.take());
        let target = target.to_owned();
        crate::duck::blocking(move || {
            let folder = target.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make a folder", e))?;
            self.staged.sync()?;
            self.staged.publish(&target)?;
            sync_folder(folder)
        })
        .await
    }
}

//! Files that a caller may take with them: a table, or the part of it that policies leave them.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use serde_json::json;

use super::tables::{Found, View};
use super::{Catalog, CatalogError};
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::ident::{RelaxedName, printable};
use crate::orchestrator::{Generation, Part};
use crate::policy::Distribution;
use crate::rbac::Ability;
use crate::registry::QueryMode;

/// An open file. One of Parquet stays readable and the same, whatever is published meanwhile.
pub struct Download {
    /// What to call it: `<table>.parquet`, or the last piece of a part's path.
    pub file_name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// MD5 of the bytes, as the manifest has it.
    pub md5: String,
    /// SHA-256 of the bytes.
    pub sha256: String,
    file: Arc<File>,
    /// Keeps what it is of from being collected.
    _held: Box<dyn Send + Sync>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("file_name", &self.file_name).finish_non_exhaustive()
    }
}

impl Download {
    /// A file that is kept by being open.
    pub(super) fn of_asset(file_name: String, file: File, size_bytes: u64, md5: String, sha256: String) -> Self {
        Self { file_name, size_bytes, md5, sha256, file: Arc::new(file), _held: Box::new(()) }
    }

    /// At most `length` bytes from `offset` on; fewer only where the file ends.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        read_piece(self.file.clone(), self.size_bytes, offset, length).await
    }
}

/// At most `length` bytes from `offset` on of a file that has `size`.
pub(crate) async fn read_piece(file: Arc<File>, size: u64, offset: u64, length: usize) -> Result<Vec<u8>> {
    let length = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
    crate::duck::blocking(move || {
        let mut bytes = vec![0; length];
        read_exact_at(&file, &mut bytes, offset).map_err(|e| Error::io("read a file that is sent", e))?;
        Ok(bytes)
    })
    .await
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// What is served, and what keeps it there.
struct Chosen {
    file_name: String,
    part: Part,
    held: Box<dyn Send + Sync>,
}

impl Catalog<'_> {
    /// Whether the caller may take the file of this table, by id or name. Looks at no file.
    ///
    /// # Errors
    /// `table_not_found` (404) where the text is no identifier, `access_denied`,
    /// `not_distributable`, `scope_denied`.
    pub async fn check_download(&self, ctx: &CallContext, table: &str) -> Result<()> {
        let started = std::time::Instant::now();
        let done = async {
            ctx.principal().require(Ability::Download)?;
            let view = self.view(ctx).await?;
            distributable(&view, table).map(drop)
        }
        .await;
        self.engine
            .audit()
            .event(ctx, "data.access_check")
            .resource(format!("table:{}", printable(table, 80)))
            .params(json!({"granted": done.is_ok()}))
            .outcome(&done)
            .took(started.elapsed())
            .later();
        done
    }

    /// The file of a table, by id or name, or one part of a partitioned one, by its path in
    /// the manifest. Of a table that policies narrow it is the caller's slice.
    ///
    /// # Errors
    /// Those of [`Catalog::check_download`]; `no_data`, `no_such_part`; those of making a
    /// slice.
    pub async fn download(&self, ctx: &CallContext, table: &str, part: Option<&str>) -> Result<Download> {
        let opened = self.open_file(ctx, table, part).await;
        let bytes = opened.as_ref().map(|download| download.size_bytes).unwrap_or_default();
        self.engine
            .audit()
            .event(ctx, "data.download")
            .resource(format!("table:{}", printable(table, 80)))
            .params(json!({"bytes": bytes, "format": "parquet", "part": part.map(|part| printable(part, 120))}))
            .outcome(&opened)
            .later();
        opened
    }

    async fn open_file(&self, ctx: &CallContext, table: &str, part: Option<&str>) -> Result<Download> {
        ctx.principal().require(Ability::Download)?;
        let view = self.view(ctx).await?;
        let found = distributable(&view, table)?;
        let Chosen { file_name, part, held } = self.choose(ctx, &view, &found, part).await?;
        let path = self.engine.folder().blob(&part.sha256);
        let file = crate::duck::blocking(move || File::open(path).map_err(|e| Error::io("open a table's file", e)));
        Ok(Download {
            file_name,
            size_bytes: part.size_bytes,
            md5: part.md5,
            sha256: part.sha256,
            file: Arc::new(file.await?),
            _held: held,
        })
    }

    async fn choose(&self, ctx: &CallContext, view: &View, found: &Found<'_>, wanted: Option<&str>) -> Result<Chosen> {
        let no_part =
            || CatalogError::NoPart { table: found.name().to_owned(), part: wanted.map(|w| printable(w, 120)) };
        let whole_name = format!("{}.parquet", found.name());
        if let Some(narrowed) = found.narrowed.filter(|part| !part.is_whole()) {
            if wanted.is_some() {
                return Err(no_part().into());
            }
            let slice = self.engine.slices().get(self.engine, narrowed).await?;
            return Ok(Chosen { file_name: whole_name, part: slice.part.clone(), held: Box::new(slice) });
        }
        let Some(published) = found.published else { return Err(self.no_data(ctx, view, found).await) };
        let generation: Arc<Generation> = view.generation.clone();
        let part = match wanted {
            None if published.partitioned => None,
            None => published.parts.first(),
            Some(path) => published.parts.iter().find(|part| part.path == path),
        };
        let Some(part) = part else { return Err(no_part().into()) };
        let file_name = match wanted {
            None => whole_name,
            Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        };
        Ok(Chosen { file_name, part: part.clone(), held: Box::new(generation) })
    }
}

/// The table, if the caller may read it and its rows may leave the server.
fn distributable<'v>(view: &'v View, table: &str) -> Result<Found<'v>> {
    if RelaxedName::parse(table).is_err() {
        return Err(CatalogError::NotFound { table: printable(table, 80), suggestion: None }.into());
    }
    let found = view.find(table)?;
    let stays = found.row.is_some_and(|row| row.server_only)
        || matches!(found.mode(), QueryMode::Remote | QueryMode::Internal)
        || found.narrowed.is_some_and(|part| part.narrowing.distribution == Distribution::ServerOnly);
    if stays { Err(CatalogError::NotDistributable { table: found.name().to_owned() }.into()) } else { Ok(found) }
}

//! Parquet named by its content: written once, never changed, collected when no
//! generation names it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{FileSignature, Part};
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, fault_point, sync_folder};
use crate::extract::{ExtractError, parquet};
use crate::layout::DataFolder;

/// From this size on the two hashes are computed on two threads.
const PARALLEL_BYTES: u64 = 8 << 20;
/// More new blobs than this are made durable by one call for the whole file system.
const MANY: usize = 16;

/// What a file looks like now.
pub(crate) fn signature(path: &Path) -> Result<FileSignature> {
    let meta = path.metadata().map_err(|e| Error::io("look at a Parquet file", e))?;
    Ok(signature_of(&meta))
}

/// What a file with this metadata looks like.
pub(crate) fn signature_of(meta: &std::fs::Metadata) -> FileSignature {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        FileSignature {
            size: meta.len(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }
    #[cfg(not(unix))]
    {
        let since = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        FileSignature {
            size: meta.len(),
            mtime_ns: since.map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(0)),
            ctime_ns: 0,
            inode: 0,
        }
    }
}

/// Takes Parquet files into the blob folder and remembers what must become durable.
#[derive(Debug)]
pub(super) struct Interner<'a> {
    folder: &'a DataFolder,
    touched: Vec<PathBuf>,
}

impl<'a> Interner<'a> {
    pub(super) fn new(folder: &'a DataFolder) -> Self {
        Self { folder, touched: Vec::new() }
    }

    /// The blob of `file`, called `path` inside the extract's `data/`. Hashed only when it
    /// does not look like `known` any more. A file that Agnes wrote itself (`own`) is
    /// linked, since Agnes never writes in place; any other is copied, and what is hashed
    /// is the copy.
    pub(super) fn intern(&mut self, file: &Path, path: &str, own: bool, known: Option<&Part>) -> Result<Part> {
        let before = signature(file)?;
        if let Some(known) = known
            && known.signature == Some(before)
            && self.folder.blob(&known.sha256).metadata().is_ok_and(|m| m.len() == known.size_bytes)
        {
            return Ok(Part { path: path.to_owned(), ..known.clone() });
        }
        let (sha256, md5, rows) = if own { self.link(file)? } else { self.copy(file)? };
        Ok(Part {
            path: path.to_owned(),
            size_bytes: self.folder.blob(&sha256).metadata().map_err(|e| Error::io("read a blob", e))?.len(),
            sha256,
            md5,
            rows,
            // Linking moves ctime, so the signature is that of afterwards.
            signature: Some(signature(file)?),
        })
    }

    fn link(&mut self, file: &Path) -> Result<(String, String, u64)> {
        let rows = parquet::footer(file)?.rows;
        let (sha256, md5) = hash(file)?;
        let blob = self.folder.blob(&sha256);
        if blob.exists() {
            return Ok((sha256, md5, rows));
        }
        self.prepare(&blob)?;
        match fault_point().and_then(|()| std::fs::hard_link(file, &blob)) {
            Ok(()) => read_only(&blob)?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            // Another disk, or too many links.
            Err(e) if matches!(e.raw_os_error(), Some(18 | 31)) => return self.copy(file),
            Err(e) => return Err(Error::io("link a blob", e)),
        }
        Ok((sha256, md5, rows))
    }

    fn copy(&mut self, file: &Path) -> Result<(String, String, u64)> {
        // Under `blobs/` itself: its name is known only when it is hashed.
        let staged = Staged::beside(&self.folder.blobs().join("incoming.parquet"))?;
        let (sha256, md5) = copy_hashed(file, staged.path())?;
        let rows = parquet::footer(staged.path())?.rows;
        self.adopt(staged, &sha256)?;
        Ok((sha256, md5, rows))
    }

    /// Makes a staged file the blob of that hash.
    pub(super) fn adopt(&mut self, staged: Staged, sha256: &str) -> Result<()> {
        let blob = self.folder.blob(sha256);
        if blob.exists() {
            return Ok(());
        }
        self.prepare(&blob)?;
        read_only(staged.path())?;
        staged.publish(&blob)?;
        self.touched.push(blob);
        Ok(())
    }

    /// Writes the rows of a base table of a foreign extract as a blob.
    pub(super) fn table(
        &mut self,
        extract: &Path,
        table: &str,
        path: &str,
        scratch: &Path,
        known: Option<&Part>,
    ) -> Result<Part> {
        use crate::ident::{quote_ident, quote_literal};
        let file = extract.join("extract.duckdb");
        let before = signature(&file)?;
        if let Some(known) = known
            && known.signature == Some(before)
            && self.folder.blob(&known.sha256).exists()
        {
            return Ok(known.clone());
        }
        let staged = Staged::beside(&self.folder.blobs().join("incoming.parquet"))?;
        let db = crate::duck::ScratchDb::open(scratch, &crate::duck::ScratchLimits::default())?;
        db.execute(&format!("ATTACH {} AS src (READ_ONLY)", quote_literal(&file.to_string_lossy())))
            .map_err(|_| ExtractError::Unreadable)?;
        // Ordered, so that the same rows are the same bytes.
        db.execute("SET preserve_insertion_order=true")?;
        let rows = parquet::write_query(&db, &format!("SELECT * FROM src.main.{}", quote_ident(table)), &staged)?.rows;
        let (sha256, md5) = hash(staged.path())?;
        let size_bytes = staged.path().metadata().map_err(|e| Error::io("read a blob", e))?.len();
        self.adopt(staged, &sha256)?;
        Ok(Part { path: path.to_owned(), sha256, md5, size_bytes, rows, signature: Some(before) })
    }

    fn prepare(&mut self, blob: &Path) -> Result<()> {
        let parent = blob.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| Error::io("make a blob folder", e))?;
        self.touched.push(parent.to_owned());
        Ok(())
    }

    /// Makes everything that was taken in durable, names included.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.touched.sort_unstable();
        self.touched.dedup();
        if self.touched.is_empty() {
            return Ok(());
        }
        fault_point().map_err(|e| Error::io("write the blobs to disk", e))?;
        #[cfg(target_os = "linux")]
        if self.touched.len() > MANY {
            let folder = File::open(self.folder.blobs()).map_err(|e| Error::io("write the blobs to disk", e))?;
            rustix::fs::syncfs(&folder).map_err(|e| Error::io("write the blobs to disk", e.into()))?;
            self.touched.clear();
            return Ok(());
        }
        for path in self.touched.drain(..) {
            if path.is_dir() {
                sync_folder(&path)?;
            } else {
                File::open(&path).and_then(|f| f.sync_all()).map_err(|e| Error::io("write a blob to disk", e))?;
            }
        }
        sync_folder(&self.folder.blobs())
    }
}

/// Mode 0444: nothing may change a blob.
fn read_only(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
            .map_err(|e| Error::io("set the mode of a blob", e))?;
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn digest<D: Digest>(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = D::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&buffer[..n]),
        }
    }
}

/// SHA-256 and MD5 of a file.
pub(super) fn hash(path: &Path) -> Result<(String, String)> {
    let size = path.metadata().map_err(|e| Error::io("read a Parquet file", e))?.len();
    let both = if size < PARALLEL_BYTES {
        (digest::<Sha256>(path), digest::<Md5>(path))
    } else {
        std::thread::scope(|scope| {
            let md5 = scope.spawn(|| digest::<Md5>(path));
            let sha256 = digest::<Sha256>(path);
            (sha256, md5.join().unwrap_or_else(|_| Err(std::io::Error::other("a hashing thread ended"))))
        })
    };
    match both {
        (Ok(sha256), Ok(md5)) => Ok((sha256, md5)),
        (Err(e), _) | (_, Err(e)) => Err(Error::io("hash a Parquet file", e)),
    }
}

/// Copies a file and hashes what was copied.
fn copy_hashed(from: &Path, to: &Path) -> Result<(String, String)> {
    let copy = || -> std::io::Result<(String, String)> {
        fault_point()?;
        let (mut from, mut to) = (File::open(from)?, File::create(to)?);
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok((hex(&sha256.finalize()), hex(&md5.finalize()))),
                n => {
                    to.write_all(&buffer[..n])?;
                    sha256.update(&buffer[..n]);
                    md5.update(&buffer[..n]);
                }
            }
        }
    };
    copy().map_err(|e| Error::io("copy a Parquet file", e))
}

//! Parquet named by its content: written once, never changed, collected when no
//! generation names it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{FileSignature, Part};
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, fault_point, open_beneath, sync_folder};
use crate::extract::{self, ExtractError, parquet};
use crate::layout::DataFolder;

/// From this size on the two hashes are computed on two threads.
const PARALLEL_BYTES: u64 = 8 << 20;
/// How often a file that changes while it is copied is copied again.
const TRIES: usize = 3;
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

    /// The blob of the file called `path` inside the `data/` folder of `extract`. Hashed
    /// only when it does not look like `known` any more. A file that Agnes wrote itself
    /// (`own`) is linked, since Agnes never writes in place; any other is copied. What is
    /// hashed is the link or the copy, so nobody can exchange it in between.
    pub(super) fn intern(&mut self, extract: &Path, path: &str, own: bool, known: Option<&Part>) -> Result<Part> {
        let relative = Path::new("data").join(path);
        let before = signature(&extract.join(&relative))?;
        if let Some(known) = known
            && known.signature == Some(before)
            && self.is_blob(&known.sha256, known.size_bytes)
        {
            return Ok(Part { path: path.to_owned(), ..known.clone() });
        }
        let taken = if own { self.link(&extract.join(&relative), before)? } else { None };
        let taken = match taken {
            Some(taken) => taken,
            None => self.copy(extract, &relative)?,
        };
        Ok(Part { path: path.to_owned(), ..taken })
    }

    fn is_blob(&self, sha256: &str, size: u64) -> bool {
        self.folder.blob(sha256).metadata().is_ok_and(|meta| meta.len() == size)
    }

    /// Takes the file by a link to it; `None` where links cannot be made.
    fn link(&mut self, file: &Path, before: FileSignature) -> Result<Option<Part>> {
        let staged = Staged::beside(&self.folder.blobs().join("incoming.parquet"))?;
        match fault_point().and_then(|()| std::fs::hard_link(file, staged.path())) {
            Ok(()) => {}
            // Another disk, too many links, or a file system without.
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::CrossesDevices
                        | std::io::ErrorKind::TooManyLinks
                        | std::io::ErrorKind::Unsupported
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::io("link a blob", e)),
        }
        let mut part = self.hashed(staged)?;
        // Linking moved ctime. Where the name means another file by now, it is looked at
        // again next time.
        let now = signature(file)?;
        part.signature = (FileSignature { ctime_ns: before.ctime_ns, ..now } == before).then_some(now);
        Ok(Some(part))
    }

    fn copy(&mut self, extract: &Path, relative: &Path) -> Result<Part> {
        for _ in 0..TRIES {
            let file = open_beneath(extract, relative)?;
            let look =
                || file.metadata().map(|meta| signature_of(&meta)).map_err(|e| Error::io("look at a Parquet file", e));
            let before = look()?;
            // Under `blobs/` itself: its name is known only when it is hashed.
            let staged = Staged::beside(&self.folder.blobs().join("incoming.parquet"))?;
            copy_file(&file, staged.path())?;
            if look()? == before {
                let part = self.hashed(staged)?;
                return Ok(Part { signature: Some(before), ..part });
            }
        }
        Err(ExtractError::Changing.into())
    }

    /// Makes a staged file, already whole, the blob of its content.
    fn hashed(&mut self, staged: Staged) -> Result<Part> {
        let rows = parquet::footer(staged.path())?.rows;
        let size_bytes = staged.path().metadata().map_err(|e| Error::io("read a blob", e))?.len();
        let (sha256, md5) = hash(staged.path())?;
        self.adopt(staged, &sha256, size_bytes)?;
        Ok(Part { path: String::new(), sha256, md5, size_bytes, rows, signature: None })
    }

    /// Puts a staged file in place under its hash, unless it is there already.
    fn adopt(&mut self, staged: Staged, sha256: &str, size: u64) -> Result<()> {
        if self.is_blob(sha256, size) {
            return Ok(());
        }
        let blob = self.folder.blob(sha256);
        self.prepare(&blob)?;
        read_only(staged.path())?;
        staged.publish(&blob)?;
        self.touched.push(blob);
        Ok(())
    }

    /// Writes the rows of a base table of a foreign extract as a blob, in an engine that
    /// can reach that file and the new blob alone.
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
            && self.is_blob(&known.sha256, known.size_bytes)
        {
            return Ok(known.clone());
        }
        let staged = Staged::beside(&self.folder.blobs().join("incoming.parquet"))?;
        let db = crate::duck::ScratchDb::open(scratch, &crate::duck::ScratchLimits::default())?;
        let sealed = || {
            db.execute(&format!("ATTACH {} AS src (READ_ONLY)", quote_literal(&file.to_string_lossy())))?;
            // Ordered, so that the same rows are the same bytes.
            db.execute(&format!(
                "SET preserve_insertion_order=true; SET allowed_paths=[{}]; SET enable_external_access=false; SET lock_configuration=true",
                quote_literal(&staged.path().to_string_lossy())
            ))?;
            db.rows(&format!(
                "SELECT sql FROM duckdb_tables() WHERE database_name = 'src' AND schema_name = 'main' AND lower(table_name) = lower({})",
                quote_literal(table)
            ))
        };
        let found = sealed().map_err(|_| ExtractError::Unreadable)?;
        // What is attached now may be another file than the one that was looked at.
        if !found
            .first()
            .and_then(|row| row.first())
            .is_some_and(|sql| sql.as_deref().is_some_and(extract::only_stores))
        {
            return Err(ExtractError::Unreadable.into());
        }
        parquet::write_query(&db, &format!("SELECT * FROM src.main.{}", quote_ident(table)), &staged)?;
        drop(db);
        let part = self.hashed(staged)?;
        let now = signature(&file)?;
        Ok(Part { path: path.to_owned(), signature: (now == before).then_some(before), ..part })
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

/// Makes a Parquet file that Agnes wrote itself the blob of its content, durably.
pub(crate) fn adopt(folder: &DataFolder, staged: Staged) -> Result<Part> {
    let mut interner = Interner::new(folder);
    let part = interner.hashed(staged)?;
    interner.sync()?;
    Ok(part)
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

/// Copies what is open; shares its blocks where the file system can.
fn copy_file(from: &File, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        fault_point()?;
        let mut to = File::create(to)?;
        #[cfg(target_os = "linux")]
        if rustix::fs::ioctl_ficlone(&to, from).is_ok() {
            return Ok(());
        }
        let mut from = from;
        std::io::copy(&mut from, &mut to).map(drop)
    };
    copy().map_err(|e| Error::io("copy a Parquet file", e))
}

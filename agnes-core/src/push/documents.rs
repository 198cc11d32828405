//! What a source said of each of its things, as it said it: one JSON file a document, written
//! beside and renamed, below `raw/` of the source's extract. Tables are made of these.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::PushError;
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, fault_point, write_atomically};
use crate::ident::printable;

/// Longest key of a document.
const MAX_KEY: usize = 64;
/// Longest name of a kept file.
const MAX_NAME: usize = 150;

/// Held while a document is read, compared and written; one of them by its path.
static TURNS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

/// The documents of one source. Every call blocks.
#[derive(Debug, Clone)]
pub struct Documents {
    extract: PathBuf,
}

/// A document in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFile {
    /// Its key.
    pub key: String,
    /// When it was last written, in nanoseconds since 1970.
    pub changed_ns: u128,
}

fn checked(key: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(plain) {
        return Ok(key);
    }
    Err(PushError::BadKey { key: printable(key, 80) }.into())
}

/// A file's name without what leads elsewhere or is special somewhere.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ' | '(' | ')') { c } else { '_' };
    let mut name: String = name.chars().map(plain).collect();
    while name.len() > MAX_NAME {
        name.remove(0);
    }
    name
}

impl Documents {
    /// Those of the extract in this folder.
    #[must_use]
    pub fn of(extract: &Path) -> Self {
        Self { extract: extract.to_owned() }
    }

    /// The folder of the extract.
    #[must_use]
    pub fn extract(&self) -> &Path {
        &self.extract
    }

    /// `raw/`.
    #[must_use]
    pub fn raw(&self) -> PathBuf {
        self.extract.join("raw")
    }

    fn folder(&self) -> PathBuf {
        self.raw().join("issues")
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        Ok(self.folder().join(format!("{}.json", checked(key)?)))
    }

    /// The document, if there is one.
    ///
    /// # Errors
    /// `document_key_invalid`, `document_unreadable`, I/O errors.
    pub fn read(&self, key: &str) -> Result<Option<Value>> {
        let bytes = match std::fs::read(self.path(key)?) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read a document", e)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| PushError::Document { key: printable(key, 80) }.into())
    }

    /// Writes what `decide` makes of the document that is there; nothing where it makes none.
    /// One that cannot be read counts as missing. Whether something was written.
    ///
    /// # Errors
    /// `document_key_invalid`, I/O errors.
    pub fn put(&self, key: &str, decide: impl FnOnce(Option<&Value>) -> Option<Value>) -> Result<bool> {
        let path = self.path(key)?;
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % TURNS.len() as u64).unwrap_or_default();
        let _mine = TURNS[turn].lock().unwrap_or_else(PoisonError::into_inner);
        let there = match self.read(key) {
            Err(error) if error.code() == "document_unreadable" => None,
            read => read?,
        };
        let Some(next) = decide(there.as_ref()) else { return Ok(false) };
        let bytes = serde_json::to_vec(&next).map_err(|e| Error::internal("write a document", e))?;
        let staged = Staged::beside(&path)?;
        let write = || -> std::io::Result<()> {
            fault_point()?;
            let mut file = File::create(staged.path())?;
            file.write_all(&bytes)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                file.set_permissions(std::fs::Permissions::from_mode(0o660))?;
            }
            Ok(())
        };
        write().map_err(|e| Error::io("write a document", e))?;
        staged.publish(&path)?;
        Ok(true)
    }

    /// Puts everything that was written so far on the disk, by one call for all of it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sync(&self) -> Result<()> {
        if !self.folder().is_dir() {
            return Ok(());
        }
        let sync = || -> std::io::Result<()> {
            fault_point()?;
            let folder = File::open(self.folder())?;
            #[cfg(target_os = "linux")]
            rustix::fs::syncfs(&folder)?;
            #[cfg(not(target_os = "linux"))]
            {
                for entry in std::fs::read_dir(self.folder())? {
                    File::open(entry?.path())?.sync_all()?;
                }
                folder.sync_all()?;
            }
            Ok(())
        };
        sync().map_err(|e| Error::io("write the documents to disk", e))
    }

    /// Every document by key, deleted ones among them.
    ///
    /// # Errors
    /// I/O errors.
    pub fn list(&self) -> Result<Vec<DocumentFile>> {
        let entries = match std::fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("list the documents", e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list the documents", e))?;
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            // Renamed over meanwhile: there is another one under its name.
            let Ok(changed) = entry.path().metadata().and_then(|meta| meta.modified()) else { continue };
            let changed_ns = changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            found.push(DocumentFile { key: key.to_owned(), changed_ns });
        }
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Where a file that belongs to a document is kept: `raw/attachments/<key>/<id>_<name>`, and
    /// the same below `raw/`. What cannot be in a name is replaced.
    ///
    /// # Errors
    /// `document_key_invalid`, of the key and of the id.
    pub fn attachment(&self, key: &str, id: &str, name: &str) -> Result<(PathBuf, String)> {
        let relative = format!("attachments/{}/{}_{}", checked(key)?, checked(id)?, plain_name(name));
        Ok((self.raw().join(&relative), relative))
    }

    /// A file of notes of the connector beside the documents: JSON under `raw/_<name>.json`.
    ///
    /// # Errors
    /// I/O errors. A note that cannot be read counts as missing.
    pub fn note(&self, name: &str) -> Result<Option<Value>> {
        match std::fs::read(self.raw().join(format!("_{}.json", checked(name)?))) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read a note of the source", e)),
        }
    }

    /// Replaces a file of notes.
    ///
    /// # Errors
    /// I/O errors.
    pub fn set_note(&self, name: &str, note: &Value) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(note).map_err(|e| Error::internal("write a note", e))?;
        write_atomically(&self.raw().join(format!("_{}.json", checked(name)?)), &bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_compared_and_written_under_their_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let documents = Documents::of(folder.path());
        assert_eq!(documents.read("A-1").unwrap(), None);
        assert!(documents.put("A-1", |there| there.is_none().then(|| json!({"n": 1}))).unwrap());
        assert!(!documents.put("A-1", |there| there.is_none().then(|| json!({"n": 2}))).unwrap());
        assert_eq!(documents.read("A-1").unwrap(), Some(json!({"n": 1})));
        std::fs::write(folder.path().join("raw/issues/A-2.json"), b"").unwrap();
        assert_eq!(documents.read("A-2").unwrap_err().code(), "document_unreadable");
        assert!(documents.put("A-2", |there| there.is_none().then(|| json!({}))).unwrap());
        let keys: Vec<_> = documents.list().unwrap().into_iter().map(|file| file.key).collect();
        assert_eq!(keys, ["A-1", "A-2"]);
        for wrong in ["../A-1", "", "A/1", "A-1\n", "é-1"] {
            assert_eq!(documents.put(wrong, |_| None).unwrap_err().code(), "document_key_invalid", "{wrong}");
        }
        documents.sync().unwrap();
    }

    #[test]
    fn files_stay_below_the_folder() {
        let documents = Documents::of(Path::new("/x"));
        for (name, kept) in [
            ("a b.png", "7_a b.png"),
            ("../../etc/passwd", "7_.._.._etc_passwd"),
            ("c:\\x\n", "7_c__x_"),
            ("", "7_"),
            ("Žluť.pdf", "7_Žluť.pdf"),
        ] {
            let (path, relative) = documents.attachment("A-1", "7", name).unwrap();
            assert_eq!(relative, format!("attachments/A-1/{kept}"));
            assert_eq!(path, Path::new("/x/raw").join(&relative));
        }
        let (_, long) = documents.attachment("A-1", "7", &format!("{}.pdf", "é".repeat(400))).unwrap();
        assert!(long.len() < 200 && long.ends_with(".pdf"));
        assert!(documents.attachment("A-1", "../7", "x").is_err());
    }
}

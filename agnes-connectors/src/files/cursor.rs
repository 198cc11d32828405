//! What a run leaves for the next: which files it read, and the table's columns.

use std::collections::BTreeMap;

use agnes_core::orchestrator::FileSignature;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::TableOptions;

/// Grows when files would be read differently than before, so that all are read again.
const READER: u32 = 1;

/// Cursor of a table of files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Fingerprint of the reader and the table's settings.
    pub(crate) settings: String,
    /// Name and type of each column.
    pub(crate) columns: Vec<(String, String)>,
    /// By relative path.
    pub(crate) files: BTreeMap<String, SeenFile>,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenFile {
    /// What it looked like.
    pub(crate) signature: FileSignature,
    /// Its part; none where the table is one file, is split by a column, or the file held nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<String>,
    /// Rows put aside: such files are read again whenever the table is, so that the table of
    /// rejected rows stays whole.
    #[serde(default)]
    pub(crate) rejected: u64,
}

impl Cursor {
    /// The cursor in `stored`, when it was left by this reader with the same settings.
    pub(crate) fn usable(stored: Option<&serde_json::Value>, settings: &str) -> Option<Self> {
        let cursor: Self = serde_json::from_value(stored?.clone()).ok()?;
        (cursor.settings == settings).then_some(cursor)
    }

    /// Whether `file` is as it was.
    pub(crate) fn has(&self, rel: &str, signature: &FileSignature) -> Option<&SeenFile> {
        self.files.get(rel).filter(|seen| same_file(&seen.signature, signature))
    }
}

/// Whether two looks show the same content. The change time is left out: a mere `chmod`
/// moves it.
pub(crate) fn same_file(a: &FileSignature, b: &FileSignature) -> bool {
    (a.size, a.mtime_ns, a.inode) == (b.size, b.mtime_ns, b.inode)
}

/// Fingerprint of everything that decides how files are read.
pub(crate) fn settings(options: &TableOptions, layout: &str) -> String {
    let text = format!("{READER} {layout} {}", serde_json::to_string(options).unwrap_or_default());
    hex(&Sha256::digest(text.as_bytes()), 16)
}

/// Key of the part made from a file: readable, unique by a digest of the whole path.
pub(crate) fn part_key(rel: &str) -> String {
    let stem = super::infer::names::table(rel);
    format!("{}-{}", &stem[..stem.len().min(40)], hex(&Sha256::digest(rel.as_bytes()), 10))
}

fn hex(bytes: &[u8], digits: usize) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..digits].to_owned()
}

//! Where files come from, as a pull sees it.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// What a file is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOf {
    /// A table.
    Table {
        /// Its id.
        id: String,
        /// Path of one part of a partitioned table, as the manifest has it.
        part: Option<String>,
    },
    /// Something that is no table.
    Asset {
        /// Its kind.
        kind: String,
        /// Its path, as the manifest has it.
        path: String,
    },
}

/// One file at its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// What it is of.
    pub of: FileOf,
    /// MD5 of its bytes, which is its tag; empty when unknown.
    pub md5: String,
}

/// A file that is on its way.
pub struct Opened {
    /// Whether only the range that was asked for comes; else all of the file.
    pub is_range: bool,
    /// Tag of the file as the server has it now, without quotes.
    pub tag: Option<String>,
    /// The bytes.
    pub body: Box<dyn FileBody>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("is_range", &self.is_range).field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// Bytes as they come. It may end early: whoever reads it counts.
#[async_trait]
pub trait FileBody: Send {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Those of the way they come.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// Where a workspace pulls from.
#[async_trait]
pub trait Origin: Send + Sync {
    /// The manifest, as it was sent; `None` when it is still the one with the tag `held`.
    ///
    /// # Errors
    /// Those of the server, and of the way to it.
    async fn manifest(&self, held: Option<&str>) -> Result<Option<Vec<u8>>>;

    /// Begins to fetch a file, or a range of it as long as the server has the file that `file`
    /// means.
    ///
    /// # Errors
    /// Those of the server, and of the way to it; what may go better another time says so
    /// ([`is_retryable`](crate::Error::is_retryable)), with `retry_after_seconds` in its facts where
    /// the server said when.
    async fn open(&self, file: &FileRef, range: Option<Range<u64>>) -> Result<Opened>;
}

//! What can go wrong with an extract.

use crate::error::{Coded, ErrorKind};

/// What can go wrong with an extract.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExtractError {
    #[error("the file is not complete Parquet")]
    NotParquet,
    #[error("rows do not fit the table's columns")]
    BadBatch,
    #[error("a table is one file or a set of parts, not both")]
    MixedLayout,
    #[error("the table has no part `{key}`")]
    PartNotFound { key: String },
    #[error("`{key}` cannot be the name of a part")]
    BadPartKey { key: String },
    #[error("nothing was written for the table")]
    NothingWritten,
    #[error("the extract cannot be read")]
    Unreadable,
    #[error("the extract has no usable `_meta` table: {reason}")]
    BadMeta { reason: String },
    #[error("a file of the extract lies outside of its folder")]
    Outside,
    #[error("a file of the extract changes while it is read")]
    Changing,
    #[error("column `{column}` changed from {before} to {after}, which would lose data")]
    IncompatibleDrift { column: String, before: String, after: String },
}

impl Coded for ExtractError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::PartNotFound { .. } => ErrorKind::NotFound,
            Self::Changing => ErrorKind::Unavailable,
            Self::MixedLayout | Self::NothingWritten => ErrorKind::Internal,
            Self::BadPartKey { .. } => ErrorKind::InvalidInput,
            _ => ErrorKind::DataInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotParquet => "not_parquet",
            Self::BadBatch => "bad_batch",
            Self::MixedLayout => "mixed_layout",
            Self::PartNotFound { .. } => "part_not_found",
            Self::BadPartKey { .. } => "bad_part_key",
            Self::NothingWritten => "nothing_written",
            Self::Unreadable => "extract_unreadable",
            Self::BadMeta { .. } => "extract_meta",
            Self::Outside => "file_outside_extract",
            Self::Changing => "file_changing",
            Self::IncompatibleDrift { .. } => "schema_drift",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::IncompatibleDrift { .. } => {
                Some("the last good data stays; correct the source, or unregister and register the table".to_owned())
            }
            Self::Outside => Some("put the file itself into the extract, not a link to another place".to_owned()),
            Self::Changing => Some("let its producer write beside the file and rename".to_owned()),
            Self::Unreadable | Self::BadMeta { .. } => Some("let its producer write the extract again".to_owned()),
            _ => None,
        }
    }
}

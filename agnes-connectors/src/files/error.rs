//! What can go wrong with a source of files. Messages name files relative to the source's
//! folder, never by their place on the server.

use agnes_core::error::{Coded, ErrorKind};
use agnes_core::ident::printable;

/// What can go wrong with a source of files.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FilesError {
    #[error("setting `{key}` is not known")]
    UnknownSetting { key: String, suggestion: Option<String> },
    #[error("setting `{key}` is not valid: {reason}")]
    InvalidSetting { key: String, reason: String },
    #[error("the folder or file of the source cannot be read: {reason}")]
    PathUnreadable { reason: &'static str },
    #[error("the object storage does not accept the credentials")]
    StorageRefused,
    #[error("the object storage does not answer as it should")]
    StorageLost,
    #[error("no file matches `{pattern}`")]
    NoFiles { pattern: String },
    #[error("file `{file}` cannot be opened: {reason}")]
    Unreadable { file: String, reason: &'static str },
    #[error("file `{file}` is empty (0 bytes), so it has no columns")]
    Empty { file: String },
    #[error("file `{file}` has no rows, so its columns are not known")]
    NoColumns { file: String },
    #[error("file `{file}` is damaged or not what its name says: {reason}")]
    Damaged { file: String, reason: String },
    #[error("file `{file}` changed while it was read, twice")]
    Changed { file: String },
    #[error("format of file `{file}` is not known")]
    UnknownFormat { file: String },
    #[error("workbook `{file}` has no visible sheet `{sheet}`")]
    NoSheet { file: String, sheet: String, known: String },
    #[error("there is no column `{column}` to partition by")]
    NoPartitionColumn { column: String, suggestion: Option<String> },
    #[error(
        "{rejected} of {total} rows were rejected, more than `max_rejected` allows; the first: line {line}: {reason}"
    )]
    TooManyRejected { rejected: u64, total: u64, line: String, reason: String },
}

impl FilesError {
    /// An operating system error on opening or reading `file`.
    pub(crate) fn io(file: &str, cause: &std::io::Error) -> Self {
        Self::Unreadable { file: printable(file, 200), reason: io_reason(cause) }
    }

    pub(crate) fn damaged(file: &str, reason: impl Into<String>) -> Self {
        Self::Damaged { file: printable(file, 200), reason: reason.into() }
    }

    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting { key: key.into(), reason: reason.into() }
    }
}

/// `cause` in words that hold no path.
pub(crate) fn io_reason(cause: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as K;
    match cause.kind() {
        K::NotFound => "it does not exist",
        K::PermissionDenied => "permission denied",
        K::IsADirectory => "it is a folder",
        K::StorageFull | K::QuotaExceeded => "the disk is full",
        K::UnexpectedEof => "it ends too early",
        _ => "the operating system reports an error",
    }
}

impl Coded for FilesError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } | Self::NoPartitionColumn { .. } => {
                ErrorKind::InvalidInput
            }
            Self::PathUnreadable { .. } | Self::Unreadable { .. } | Self::StorageRefused => ErrorKind::ConfigInvalid,
            Self::NoFiles { .. } | Self::NoSheet { .. } => ErrorKind::NotFound,
            Self::Changed { .. } | Self::StorageLost => ErrorKind::Unavailable,
            Self::UnknownFormat { .. } => ErrorKind::Unsupported,
            Self::Empty { .. } | Self::NoColumns { .. } | Self::Damaged { .. } | Self::TooManyRejected { .. } => {
                ErrorKind::DataInvalid
            }
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } => "invalid_config",
            Self::PathUnreadable { .. } => "source_unreadable",
            Self::StorageRefused => "storage_refused",
            Self::StorageLost => "storage_lost",
            Self::NoFiles { .. } => "no_files",
            Self::Unreadable { .. } => "file_unreadable",
            Self::Empty { .. } => "file_empty",
            Self::NoColumns { .. } => "file_without_columns",
            Self::Damaged { .. } => "file_damaged",
            Self::Changed { .. } => "file_changed",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::NoSheet { .. } => "sheet_not_found",
            Self::NoPartitionColumn { .. } => "column_not_found",
            Self::TooManyRejected { .. } => "too_many_rejected",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownSetting { suggestion: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NoPartitionColumn { suggestion: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::PathUnreadable { .. } | Self::Unreadable { .. } => {
                "check that the path exists and that the user Agnes runs as may read it".to_owned()
            }
            Self::StorageRefused => "correct the variables that `storage` names, or the rights of the key".to_owned(),
            Self::StorageLost => "it is tried again; check `storage.endpoint` if it stays".to_owned(),
            Self::NoFiles { .. } => {
                "check `path` and `files`; known endings are csv, tsv, json, ndjson, jsonl, parquet, xlsx, with .gz or .zst where usual"
                    .to_owned()
            }
            Self::Empty { .. } | Self::NoColumns { .. } => {
                "the last good data stays; write at least a header line, or remove the file".to_owned()
            }
            Self::Damaged { .. } => "write the file again; the last good data stays".to_owned(),
            Self::Changed { .. } => {
                "have the producer write to another name and rename it when done, or sync later".to_owned()
            }
            Self::UnknownFormat { .. } => "set `format` to csv, tsv, json, ndjson, parquet or xlsx".to_owned(),
            Self::NoSheet { known, .. } => format!("visible sheets: {known}"),
            Self::TooManyRejected { .. } => {
                "check `delimiter`, `header`, `encoding` and `columns`, or raise `max_rejected`".to_owned()
            }
            _ => return None,
        })
    }
}

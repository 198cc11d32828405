//! What can go wrong with uploads.

use crate::error::{Coded, ErrorKind};

/// What can go wrong with uploads.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum UploadError {
    #[error("a file has at most {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("files of one person have at most {limit} bytes in all")]
    Quota { limit: u64 },
    #[error("`{name}` is not a name for an upload")]
    Name { name: String },
    #[error("the file is not whole, or is not packed by gzip")]
    Gzip,
    /// The same for a file of somebody else.
    #[error("you have no session `{name}` here")]
    NoSession { name: String },
    #[error("at most {limit} files of one person can arrive at once")]
    TooMany { limit: usize },
    /// The source of kind `files` could not make a table of it; the code is the source's.
    #[error("the file cannot become a table: {reason}")]
    Unusable { code: String, reason: String, advice: Option<String> },
}

impl Coded for UploadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } | Self::Quota { .. } => ErrorKind::LimitExceeded,
            Self::Name { .. } | Self::Gzip | Self::Unusable { .. } => ErrorKind::InvalidInput,
            Self::NoSession { .. } => ErrorKind::NotFound,
            Self::TooMany { .. } => ErrorKind::RateLimited,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TooLarge { .. } => "upload_too_large",
            Self::Quota { .. } => "upload_quota_exceeded",
            Self::Name { .. } => "invalid_upload_name",
            Self::Gzip => "invalid_gzip",
            Self::NoSession { .. } => "session_not_found",
            Self::TooMany { .. } => "too_many_uploads",
            Self::Unusable { code, .. } => code,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("split it, or compress it where the format allows it".to_owned()),
            Self::Quota { .. } => Some("an admin can remove old files, or raise `uploads.quota_mb`".to_owned()),
            Self::Name { .. } => Some("use letters, digits, `.`, `_` and `-`, at most 200".to_owned()),
            Self::Gzip => Some("send it again, or without `.gz` at the end of its name".to_owned()),
            Self::NoSession { .. } | Self::TooMany { .. } => None,
            Self::Unusable { advice, .. } => advice.clone(),
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::TooLarge { limit } | Self::Quota { limit } => Some(serde_json::json!({"limit": limit})),
            _ => None,
        }
    }
}

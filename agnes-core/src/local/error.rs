//! What can go wrong between processes that share a data folder.

use crate::error::{Coded, ErrorKind};

/// What can go wrong between processes that share a data folder.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LocalError {
    #[error("the data folder is held by {}", process(*pid))]
    Held { pid: Option<u32> },
    #[error("{} holds the data folder and does not answer", process(*pid))]
    NotAnswering { pid: Option<u32> },
    #[error("the process that holds the data folder ended before it answered")]
    Gone,
    #[error("the data folder is held by a process of another user")]
    OtherUser,
    #[error("the process that holds the data folder is another version of Agnes")]
    OtherVersion,
    #[error("the process that holds the data folder does not know `{verb}`")]
    UnknownVerb { verb: String },
    #[error("a message between two processes of this data folder could not be read: {reason}")]
    BadMessage { reason: String },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Coded for LocalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } | Self::NotAnswering { .. } | Self::Gone => ErrorKind::Unavailable,
            Self::OtherUser => ErrorKind::Forbidden,
            Self::OtherVersion | Self::UnknownVerb { .. } => ErrorKind::Unsupported,
            Self::BadMessage { .. } => ErrorKind::Internal,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Held { .. } => "data_folder_held",
            Self::NotAnswering { .. } => "holder_not_answering",
            Self::Gone => "holder_gone",
            Self::OtherUser => "other_local_user",
            Self::OtherVersion => "holder_version",
            Self::UnknownVerb { .. } => "unknown_verb",
            Self::BadMessage { .. } => "bad_local_message",
        }
    }
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Held { .. } => "only one process can hold a data folder: stop that one, or use another folder",
            Self::NotAnswering { .. } => "wait until it has ended, or stop it",
            Self::Gone => "run the command again",
            Self::OtherUser => "run the command as the user who owns the data folder",
            Self::OtherVersion | Self::UnknownVerb { .. } => "stop that process, or use the same version of `agnes`",
            Self::BadMessage { .. } => return None,
        };
        Some(hint.to_owned())
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::Held { pid } | Self::NotAnswering { pid } => Some(serde_json::json!({ "pid": pid })),
            _ => None,
        }
    }
}

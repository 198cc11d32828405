//! What can go wrong with what sources tell by themselves.

use crate::error::{Coded, ErrorKind};

/// What can go wrong with what sources tell by themselves.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PushError {
    #[error("no `{kind}` source takes deliveries here: {missing}")]
    NotConfigured { kind: String, missing: String },
    #[error("the source is not set up for this: {reason}")]
    NotSetUp { reason: String },
    #[error("the signature of the delivery is missing or wrong")]
    Signature,
    #[error("the delivery cannot be read: {reason}")]
    Invalid { reason: &'static str },
    #[error("`{key}` cannot be the key of a document")]
    BadKey { key: String },
    #[error("the kept document of `{key}` cannot be read")]
    Document { key: String },
    #[error("this is running already")]
    Running,
    #[error("there is no attachment `{id}` that you may read")]
    NoAttachment { id: String },
    #[error("the inbox of deliveries is closed")]
    Closed,
    #[error("documents of the source are in `raw` of its extract, and are to be kept elsewhere")]
    RawElsewhere,
}

impl Coded for PushError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotConfigured { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Signature => ErrorKind::Unauthenticated,
            Self::NotSetUp { .. } | Self::Invalid { .. } | Self::BadKey { .. } => ErrorKind::InvalidInput,
            Self::Document { .. } => ErrorKind::DataInvalid,
            Self::Running => ErrorKind::Conflict,
            Self::RawElsewhere => ErrorKind::ConfigInvalid,
            Self::NoAttachment { .. } => ErrorKind::NotFound,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotConfigured { .. } | Self::NotSetUp { .. } => "push_not_configured",
            Self::Signature => "webhook_signature_invalid",
            Self::Invalid { .. } => "webhook_invalid",
            Self::BadKey { .. } => "document_key_invalid",
            Self::Document { .. } => "document_unreadable",
            Self::Running => "already_running",
            Self::NoAttachment { .. } => "attachment_not_found",
            Self::Closed => "inbox_closed",
            Self::RawElsewhere => "raw_folder_elsewhere",
        }
    }
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotConfigured { .. } | Self::NotSetUp { .. } => {
                "add the source, and set the variables that its guide names"
            }
            Self::Signature => "enter the same secret at the source and here",
            Self::Running => "wait for its end",
            Self::Document { .. } => "the next sync of the source fetches it again",
            Self::Closed => "send it again in a moment",
            Self::RawElsewhere => {
                "move what is in it to `JIRA_DATA_DIR`, and start again; until then it is used as it is"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

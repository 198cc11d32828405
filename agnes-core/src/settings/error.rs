//! What can be wrong with a change of settings.

use serde_json::json;

use crate::error::{Coded, ErrorKind};

/// What can be wrong with a change of settings.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SettingsError {
    #[error("there is no section `{section}` that can be edited")]
    UnknownSection { section: String, suggestion: Option<String> },
    #[error("section `{section}` can lock people out: say that you mean it")]
    ConfirmDanger { section: String },
    #[error("`{key}` is not an address that this server may ask: {reason}")]
    PrivateUrl { key: String, reason: String },
    #[error("`{key}` has to be {reason}")]
    Invalid { key: String, reason: String },
    #[error("`{key}` is set by the environment variable `{variable}`")]
    SetByEnvironment { key: String, variable: &'static str },
    #[error("with this change the server would not start: {reason}")]
    WouldNotStart { reason: String, hint: Option<String> },
    #[error("the overlay `instance.yaml` in the state folder is damaged: it is not written over")]
    OverlayCorrupt,
    #[error("this engine was opened without a configuration file: there is nothing to edit")]
    NoFiles,
    #[error("nothing here reads sources of the kind `{kind}`")]
    NotOffered { kind: String, known: String },
    #[error("the source does not answer: {detail}")]
    ConnectionFailed { kind: String, detail: String },
}

impl Coded for SettingsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::OverlayCorrupt => ErrorKind::Conflict,
            Self::NoFiles | Self::NotOffered { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::UnknownSection { .. } => "unknown_section",
            Self::ConfirmDanger { .. } => "confirm_danger_required",
            Self::PrivateUrl { .. } => "private_url",
            Self::Invalid { .. } => "invalid_setting",
            Self::SetByEnvironment { .. } => "set_by_environment",
            Self::WouldNotStart { .. } => "settings_would_not_start",
            Self::OverlayCorrupt => "overlay_corrupt",
            Self::NoFiles => "settings_not_kept",
            Self::NotOffered { .. } => "source_not_offered",
            Self::ConnectionFailed { .. } => "connection_failed",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownSection { suggestion, .. } => {
                suggestion.as_ref().map(|near| format!("did you mean `{near}`?"))
            }
            Self::ConfirmDanger { .. } => Some("send `confirm_danger: true` with it".to_owned()),
            Self::PrivateUrl { .. } => {
                Some("use `https` and a public name, or list the host in `security.allowed_private_hosts`".to_owned())
            }
            Self::SetByEnvironment { variable, .. } => Some(format!("change `{variable}` and start again")),
            Self::WouldNotStart { hint, .. } => hint.clone(),
            Self::OverlayCorrupt => Some("correct the file by hand, or move it away and start again".to_owned()),
            Self::NotOffered { known, .. } => Some(format!("it knows {known}")),
            _ => None,
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::ConnectionFailed { kind, .. } => Some(json!({ "kind": kind })),
            Self::PrivateUrl { key, .. } | Self::Invalid { key, .. } | Self::SetByEnvironment { key, .. } => {
                Some(json!({ "key": key }))
            }
            _ => None,
        }
    }
}

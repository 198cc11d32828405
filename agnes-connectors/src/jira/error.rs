//! What can go wrong with a Jira site. Messages hold what Jira said, never a token or what is
//! in an issue.

use agnes_core::error::{Coded, ErrorKind};
use serde_json::{Value, json};

/// What can go wrong with a Jira site.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JiraError {
    #[error("setting `{key}` is not known")]
    UnknownSetting { key: String, suggestion: Option<String> },
    #[error("setting `{key}` is not valid: {reason}")]
    InvalidSetting { key: String, reason: String },
    #[error("Jira is not configured: {missing}")]
    NotConfigured { missing: String },
    #[error("Jira answered {status} to the request to {call}{words}")]
    Refused { call: &'static str, status: u16, words: String, retry_after: Option<u64> },
    #[error("Jira did not answer the request to {call}: {reason}")]
    Away { call: &'static str, reason: String },
    #[error("Jira's answer to the request to {call} is not what was asked for: {reason}")]
    NotUnderstood { call: &'static str, reason: &'static str },
    #[error("{what} of the issue could not be read to their end: they changed meanwhile")]
    Moving { what: &'static str },
    #[error("the table is none of a Jira source: {table}")]
    NoTable { table: String },
}

impl JiraError {
    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting { key: key.into(), reason: reason.into() }
    }
}

impl Coded for JiraError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } | Self::NoTable { .. } => ErrorKind::InvalidInput,
            Self::NotConfigured { .. } => ErrorKind::ConfigInvalid,
            Self::Refused { status, .. } => crate::calls::kind_of(*status),
            Self::NotUnderstood { .. } => ErrorKind::DataInvalid,
            Self::Away { .. } | Self::Moving { .. } => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } => "invalid_config",
            Self::NotConfigured { .. } => "jira_not_configured",
            Self::Refused { status, .. } => match status {
                401 => "jira_token_refused",
                403 => "jira_forbidden",
                404 => "jira_not_found",
                409 => "jira_conflict",
                413 => "jira_too_large",
                429 => "jira_rate_limited",
                500.. => "jira_unavailable",
                _ => "jira_refused",
            },
            Self::Away { .. } => "jira_unreachable",
            Self::NotUnderstood { .. } => "jira_answer_invalid",
            Self::Moving { .. } => "jira_incomplete",
            Self::NoTable { .. } => "jira_table_unknown",
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownSetting { suggestion: Some(near), .. } => return Some(format!("did you mean `{near}`?")),
            Self::NotConfigured { .. } => {
                "set `domain` and `email` of the source, and the variables that its guide names"
            }
            Self::Refused { retry_after: Some(seconds), .. } => {
                return Some(format!(
                    "Jira asks to wait {seconds} s; it is tried again then, the last good data stays"
                ));
            }
            Self::Refused { status, .. } => match status {
                401 => "the token expired or was revoked: an operator has to set a new one; the last good data stays",
                403 => "the account may not read this: give it access in Jira; the last good data stays",
                404 => "it is not there, or the account may not see it",
                409 | 429 | 500.. => "it is tried again later; the last good data stays",
                _ => "check the settings of the source against the site",
            },
            Self::Away { .. } => "check `domain` and the network; it is tried again, the last good data stays",
            Self::NotUnderstood { .. } => "check that `domain` is that of a Jira Cloud site",
            Self::Moving { .. } => "it is tried again",
            Self::NoTable { .. } => {
                "it has `issues`, `comments`, `attachments`, `changelog`, `issuelinks`, `remote_links`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn facts(&self) -> Option<Value> {
        match self {
            Self::Refused { status, retry_after, .. } => {
                Some(json!({"status": status, "retry_after_seconds": retry_after}))
            }
            _ => None,
        }
    }
}

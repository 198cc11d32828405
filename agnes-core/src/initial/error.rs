//! Why there is no initial workspace, or not this one.

use serde_json::{Value, json};

use crate::error::{Coded, ErrorKind};

/// Why there is no initial workspace, or not this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitialError {
    /// No repository is named.
    #[error("no initial workspace is set up here")]
    NotConfigured,
    /// The files of the repository are not here.
    #[error("the files of the initial workspace are not here yet")]
    NotSynced,
    /// What was kept about it cannot be read.
    #[error("what was kept about the initial workspace cannot be read")]
    Unreadable,
    /// This is no name of a branch.
    #[error("this is not the name of a branch")]
    BadBranch,
    /// Nobody here speaks git.
    #[error("this server cannot read repositories of git")]
    NoGit,
    /// The repository did not come.
    #[error("the repository did not come: {reason}")]
    GitFailed {
        /// In words, without any secret.
        reason: String,
    },
    /// What is in it is not taken.
    #[error("the repository is no initial workspace: {reason}")]
    Invalid {
        /// In words.
        reason: String,
    },
}

impl InitialError {
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }
}

impl Coded for InitialError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotConfigured => ErrorKind::NotFound,
            Self::NotSynced | Self::GitFailed { .. } => ErrorKind::Unavailable,
            Self::Unreadable => ErrorKind::DataInvalid,
            Self::BadBranch | Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::NoGit => ErrorKind::Unsupported,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotConfigured => "initial_workspace_not_configured",
            Self::NotSynced => "initial_workspace_not_synced",
            Self::Unreadable => "initial_workspace_unreadable",
            Self::BadBranch => "bad_branch",
            Self::NoGit => "git_not_available",
            Self::GitFailed { .. } => "git_failed",
            Self::Invalid { .. } => "initial_workspace_invalid",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotConfigured => {
                "`agnes admin initial-workspace set https://git.example.com/team/workspace.git`".into()
            }
            Self::NotSynced => "an admin brings them by `agnes admin initial-workspace sync`".into(),
            Self::Unreadable => "set it again: `agnes admin initial-workspace set URL`".into(),
            Self::BadBranch => "it has letters, digits and `.`, `_`, `-`, `/`, like `main`".into(),
            Self::NoGit => "install `git` 2.37 or newer where the server runs".into(),
            Self::GitFailed { .. } => "check address, branch and token; a private repository needs a token".into(),
            Self::Invalid { .. } => "its files stand below `workspace/`: plain files, no links".into(),
        })
    }
    fn facts(&self) -> Option<Value> {
        match self {
            Self::GitFailed { reason } => Some(json!({"kind": "git_failed", "reason": reason})),
            _ => None,
        }
    }
}

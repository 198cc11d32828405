//! What can go wrong with a workspace.

use crate::error::{Coded, ErrorKind};

/// What to do about a full disk.
pub(super) const FULL_DISK: &str = "free some space on this disk, or pull fewer tables (`agnes pull --lazy TABLE`), then pull again: it goes on where it was";

/// What can go wrong with a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// No folder from here upwards is one.
    #[error("this folder is not a workspace")]
    NoWorkspace,
    /// Its state is gone, or cannot be read.
    #[error("the state of this workspace is gone, or cannot be read")]
    StateUnreadable,
    /// Its state was written by a newer version.
    #[error("this workspace was last used by a newer version")]
    StateTooNew,
    /// Another process pulls into it.
    #[error("another pull runs in this workspace")]
    Busy,
    /// It is for somebody else, or was changed.
    #[error("the manifest is not for `{of}`, whose workspace this is, or was changed on its way")]
    OtherOwner {
        /// Whose the workspace is.
        of: String,
    },
    /// A manifest older than the one before.
    #[error("the server sent an older manifest than before: generation {sent}, here is {here}")]
    Rollback {
        /// Generation of the manifest.
        sent: u64,
        /// Generation of the workspace.
        here: u64,
    },
    /// It is signed by another key, or changed.
    #[error("the manifest is not signed by the key that this workspace knows")]
    OtherKey,
    /// A name in a manifest that is none.
    #[error("the manifest names something that cannot be a table or a file: `{name}`")]
    BadName {
        /// The name, printable.
        name: String,
    },
    /// Nothing of this name is offered.
    #[error("the server offers you no table `{table}` to pull")]
    NotOffered {
        /// What was asked for.
        table: String,
        /// A name like it.
        suggestion: Option<String>,
    },
    /// What came is not what the manifest says.
    #[error("what came for `{table}` is not what the manifest says")]
    Corrupt {
        /// The table.
        table: String,
    },
    /// The server publishes faster than files come.
    #[error("the server published again and again while files came")]
    KeepsChanging,
    /// Not enough space.
    #[error("{needed} bytes and {spare} to spare are needed on this disk, {free} are free")]
    DiskTooFull {
        /// Bytes.
        needed: u64,
        /// Bytes.
        spare: u64,
        /// Bytes.
        free: u64,
    },
    /// A table that is granted, but not here.
    #[error("`{table}` is not on this computer")]
    NotHere {
        /// The table.
        table: String,
        /// Whether its rows stay at the server.
        is_remote: bool,
        /// Bytes of its file.
        size_bytes: u64,
    },
    /// Nothing was pulled yet.
    #[error("there is no data here yet")]
    Empty,
    /// Somebody writes to the database, whose views have to be looked at.
    #[error("`user/duckdb/analytics.duckdb` is open in another program")]
    DatabaseInUse,
}

impl Coded for WorkspaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoWorkspace | Self::NotOffered { .. } | Self::NotHere { .. } | Self::Empty => ErrorKind::NotFound,
            Self::Busy | Self::KeepsChanging | Self::DiskTooFull { .. } | Self::DatabaseInUse => ErrorKind::Unavailable,
            Self::StateUnreadable
            | Self::StateTooNew
            | Self::Rollback { .. }
            | Self::OtherKey
            | Self::OtherOwner { .. }
            | Self::BadName { .. }
            | Self::Corrupt { .. } => ErrorKind::DataInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NoWorkspace => "no_workspace",
            Self::StateUnreadable => "workspace_unreadable",
            Self::StateTooNew => "workspace_too_new",
            Self::Busy => "workspace_busy",
            Self::OtherOwner { .. } => "manifest_of_other",
            Self::Rollback { .. } => "manifest_rollback",
            Self::OtherKey => "manifest_other_key",
            Self::BadName { .. } => "manifest_bad_name",
            Self::NotOffered { .. } => "table_not_offered",
            Self::Corrupt { .. } => "download_corrupt",
            Self::KeepsChanging => "server_keeps_changing",
            Self::DiskTooFull { .. } => "disk_full",
            Self::NotHere { .. } => "table_not_here",
            Self::Empty => "workspace_empty",
            Self::DatabaseInUse => "workspace_database_in_use",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoWorkspace => "`agnes init` makes one".to_owned(),
            Self::StateUnreadable => "`agnes init --force` begins anew; files of your own stay".to_owned(),
            Self::StateTooNew => "`agnes self-upgrade` brings the newer version".to_owned(),
            Self::Busy => "wait for it, then try again".to_owned(),
            Self::OtherOwner { .. } => {
                "`agnes auth whoami` says who you are; `agnes init --force` makes the workspace yours".to_owned()
            }
            Self::Rollback { .. } => {
                "if the server was restored from a backup, `agnes pull --accept-older` takes it".to_owned()
            }
            Self::OtherKey => {
                "ask your admin whether the server was set up anew; `agnes pull --accept-new-key` trusts it".to_owned()
            }
            Self::BadName { .. } => "this server is not to be trusted: tell your admin".to_owned(),
            Self::NotOffered { suggestion: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NotOffered { .. } => "`agnes catalog` shows the tables".to_owned(),
            Self::Corrupt { .. } => {
                "pull again; if it stays, something between you and the server changes data".to_owned()
            }
            Self::KeepsChanging => "pull again in a minute".to_owned(),
            Self::DiskTooFull { .. } => FULL_DISK.to_owned(),
            Self::NotHere { table, is_remote: true, .. } => {
                format!("its rows stay at the server: `agnes query --remote`, or `agnes snapshot create {table}`")
            }
            Self::NotHere { table, .. } => {
                format!("`agnes pull {table}` brings it, `agnes query --remote` asks the server")
            }
            Self::Empty => "run `agnes pull`".to_owned(),
            Self::DatabaseInUse => "close it there, then try again".to_owned(),
        })
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::NotHere { table, is_remote, size_bytes } => {
                Some(serde_json::json!({"table": table, "remote": is_remote, "size_bytes": size_bytes}))
            }
            Self::Rollback { sent, here } => Some(serde_json::json!({"sent": sent, "here": here})),
            _ => None,
        }
    }
}

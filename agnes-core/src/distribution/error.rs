//! Why no command was given or installed.

use crate::error::{Coded, ErrorKind};

/// Why no command was given or installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DistributionError {
    /// This server has none, or not this one.
    #[error("this server does not offer that")]
    NotOffered,
    /// Nobody said for which computer.
    #[error("say for which computer: {}", choices.join(", "))]
    PlatformUnknown {
        /// What there is, as parameters.
        choices: Vec<String>,
    },
    /// The program that runs was not put there from an archive.
    #[error("this `agnes` was not installed by a server's `install.sh`")]
    NotInstalled,
    /// Another process is at it.
    #[error("another process is installing a version")]
    Busy,
    /// What came is not what was offered.
    #[error("the archive is not the one that the server offers: {what}")]
    Corrupt {
        /// What is wrong with it.
        what: String,
    },
    /// What is in it does not run.
    #[error("version {version} does not start on this computer: {what}")]
    DoesNotStart {
        /// As it was offered.
        version: String,
        /// What it said instead of its version.
        what: String,
    },
    /// There is no version before this one.
    #[error("there is no earlier version to go back to")]
    NothingBefore,
}

impl Coded for DistributionError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotOffered | Self::NothingBefore => ErrorKind::NotFound,
            Self::PlatformUnknown { .. } => ErrorKind::InvalidInput,
            Self::NotInstalled => ErrorKind::Unsupported,
            Self::Busy => ErrorKind::Conflict,
            Self::Corrupt { .. } | Self::DoesNotStart { .. } => ErrorKind::DataInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotOffered => "cli_not_offered",
            Self::PlatformUnknown { .. } => "platform_unknown",
            Self::NotInstalled => "not_self_installed",
            Self::Busy => "upgrade_running",
            Self::Corrupt { .. } => "archive_corrupt",
            Self::DoesNotStart { .. } => "archive_does_not_start",
            Self::NothingBefore => "nothing_to_roll_back_to",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotOffered => "`/cli/latest` names what there is".to_owned(),
            Self::PlatformUnknown { .. } => "add `?os=` and `&arch=`".to_owned(),
            Self::NotInstalled => {
                "`curl -fsSL SERVER/cli/install.sh | sh` installs one that upgrades itself".to_owned()
            }
            Self::Busy => "wait for it to end".to_owned(),
            Self::Corrupt { .. } => "nothing was changed; try again".to_owned(),
            Self::DoesNotStart { .. } => "nothing was changed; tell whoever runs the server".to_owned(),
            Self::NothingBefore => "`agnes self-upgrade --force` installs what the server offers".to_owned(),
        })
    }
}

//! Why a command did not end well, and how it is told.

use std::io;

use agnes_core::Error;
use agnes_core::query::RowWriteError;

use crate::exit;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so.
    Engine(Error),
    /// The command line asks for something impossible.
    Usage { message: String, hint: Option<String> },
    /// A file of the user's own, or standard output.
    File { message: String },
    /// Some of it failed; the command has told what.
    Partial,
    /// A step of the demo did not do what it says.
    Demo { message: String },
    /// It is told already: this exit code is all that is left.
    Told(u8),
    /// A bug ended it; `last-error.log` has more.
    Bug,
    /// Ctrl-C.
    Interrupted,
    /// The reader of standard output went away (`| head`): nothing to say.
    PipeClosed,
}

/// Result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A usage error.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A usage error with a hint.
    pub(crate) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A file operation of the command's own failed.
    pub(crate) fn file(action: &str, cause: &io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::File { message: format!("cannot {action}: {cause}") }
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => exit::code(error.kind(), error.code()),
            Self::Usage { .. } => exit::USAGE,
            Self::File { .. } | Self::Partial | Self::Demo { .. } => exit::FAILED,
            Self::Bug => exit::BROKEN,
            Self::Told(code) => *code,
            Self::Interrupted => exit::INTERRUPTED,
            Self::PipeClosed => exit::OK,
        }
    }

    /// What to tell: message, code, hint.
    pub(crate) fn tell(&self) -> Option<(String, Option<String>, Option<String>)> {
        match self {
            Self::Engine(error) => Some((error.to_string(), Some(error.code().to_owned()), error.hint())),
            Self::Usage { message, hint } => Some((message.clone(), None, hint.clone())),
            Self::File { message } | Self::Demo { message } => Some((message.clone(), None, None)),
            Self::Bug => Some((
                "a bug in Agnes ended this command".to_owned(),
                Some("internal".to_owned()),
                Some("`last-error.log` in the configuration folder has more".to_owned()),
            )),
            Self::Interrupted => Some(("interrupted".to_owned(), None, None)),
            Self::Partial | Self::Told(_) | Self::PipeClosed => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::file("write the output", &error)
    }
}

impl From<RowWriteError> for Failure {
    fn from(error: RowWriteError) -> Self {
        match error {
            RowWriteError::Io(cause) => cause.into(),
            format => Self::Engine(format.into()),
        }
    }
}

//! One error type for every frontend: a kind (whose move is next), a stable code, a hint.
//!
//! Each domain has its own enum that implements [`Coded`]; [`Error`] carries any of them.

use std::fmt;

/// Whose move is next. Statuses and exit codes are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Change the request.
    InvalidInput,
    /// The SQL is not one read-only query over granted relations: change it.
    QueryRefused,
    /// Sign in.
    Unauthenticated,
    /// Ask for a grant.
    Forbidden,
    /// Check the name. Also "may not know that it exists".
    NotFound,
    /// It exists already, or somebody changed it: reload.
    Conflict,
    /// A size, row, memory or time limit: narrow the request.
    LimitExceeded,
    /// Too many at once: wait.
    RateLimited,
    /// Try again later.
    Unavailable,
    /// Not offered here: choose another way.
    Unsupported,
    /// The operator has to correct the configuration.
    ConfigInvalid,
    /// Stored data is damaged, too new or not what it claims to be.
    DataInvalid,
    /// A bug in Agnes: report it.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::RateLimited)
    }
}

/// What every domain error answers.
pub trait Coded: std::error::Error {
    /// Whose move is next.
    fn kind(&self) -> ErrorKind;
    /// Stable name of this error, `snake_case`.
    fn code(&self) -> &str;
    /// One thing to try.
    fn hint(&self) -> Option<String> {
        None
    }
    /// Whether the same call may succeed later without any change.
    fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }
    /// Whether a call at once would only wait, or run into the same wall, once more: a later one may
    /// succeed.
    fn only_later_helps(&self) -> bool {
        false
    }
    /// Machine-readable facts (limits, names), as a JSON object.
    fn facts(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Any error of the engine.
///
/// The message tells this layer's step in plain words; the cause is in
/// [`std::error::Error::source`]. Neither holds a secret or a file path of the server.
pub struct Error(Box<dyn Coded + Send + Sync>);

/// Result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whose move is next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }
    /// Stable name of this error.
    #[must_use]
    pub fn code(&self) -> &str {
        self.0.code()
    }
    /// One thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.0.hint()
    }
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable()
    }
    /// Whether a call at once would only wait, or run into the same wall, once more.
    #[must_use]
    pub fn only_later_helps(&self) -> bool {
        self.0.only_later_helps()
    }
    /// Machine-readable facts, as a JSON object.
    #[must_use]
    pub fn facts(&self) -> Option<serde_json::Value> {
        self.0.facts()
    }

    /// A bug in Agnes; `context` says what was being done, without user data.
    pub fn internal(context: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Internal { context, cause: cause.into() }.into()
    }

    /// A file operation failed; `action` is a phrase such as "write the Parquet file".
    pub fn io(action: &'static str, cause: std::io::Error) -> Self {
        IoError { action, cause }.into()
    }

    /// The error as it crosses a process boundary.
    #[must_use]
    pub fn to_wire(&self) -> WireError {
        WireError {
            kind: self.kind(),
            code: self.code().to_owned(),
            message: self.to_string(),
            hint: self.hint(),
            retryable: self.is_retryable(),
            facts: self.facts(),
        }
    }
}

impl<E: Coded + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A bug in Agnes.
#[derive(Debug, thiserror::Error)]
#[error("internal error: {context}")]
pub(crate) struct Internal {
    context: &'static str,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Coded for Internal {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
    fn code(&self) -> &str {
        "internal"
    }
    fn hint(&self) -> Option<String> {
        Some("this is a bug in Agnes; the log has the cause".to_owned())
    }
}

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {}", reason(cause))]
pub(crate) struct IoError {
    action: &'static str,
    #[source]
    cause: std::io::Error,
}

fn reason(cause: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match cause.kind() {
        K::NotFound => "not found".to_owned(),
        K::PermissionDenied => "permission denied".to_owned(),
        K::StorageFull => "the disk is full".to_owned(),
        K::QuotaExceeded => "the disk quota is used up".to_owned(),
        K::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        // The operating system's own words hold no path.
        _ => cause
            .raw_os_error()
            .map_or_else(|| cause.kind().to_string(), |code| std::io::Error::from_raw_os_error(code).to_string()),
    }
}

impl Coded for IoError {
    fn kind(&self) -> ErrorKind {
        match self.cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ConfigInvalid,
            _ => ErrorKind::Internal,
        }
    }
    fn code(&self) -> &str {
        match self.cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "disk_full",
            std::io::ErrorKind::NotFound => "file_not_found",
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => "permission_denied",
            _ => "io_error",
        }
    }
    fn hint(&self) -> Option<String> {
        match self.cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Some("free some space on the disk that holds the data folder, or run `agnes gc`".to_owned())
            }
            std::io::ErrorKind::PermissionDenied => Some("check the owner and mode of the folder".to_owned()),
            _ => None,
        }
    }
    fn only_later_helps(&self) -> bool {
        self.code() == "disk_full"
    }
}

/// An [`Error`] as data: what one process tells another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// Whose move is next.
    pub kind: ErrorKind,
    /// Stable name.
    pub code: String,
    /// For people.
    pub message: String,
    /// One thing to try.
    pub hint: Option<String>,
    /// Whether the same call may succeed later without any change.
    pub retryable: bool,
    /// Machine-readable facts.
    pub facts: Option<serde_json::Value>,
}

impl Coded for WireError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
    fn code(&self) -> &str {
        &self.code
    }
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
    fn is_retryable(&self) -> bool {
        self.retryable
    }
    fn facts(&self) -> Option<serde_json::Value> {
        self.facts.clone()
    }
}

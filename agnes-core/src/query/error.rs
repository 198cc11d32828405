//! What can go wrong with a query after the sandbox let it through.

use crate::error::{Coded, ErrorKind, WireError};

/// Why a query failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum QueryError {
    #[error("the parameters do not fit: {message}")]
    Parameters { message: String },
    #[error("{message}")]
    Failed { message: String, code: &'static str },
    #[error("the query ran longer than {seconds} s and was stopped")]
    Timeout { seconds: u64 },
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the query needs more memory than it may use")]
    OutOfMemory,
    #[error("the query needs more temporary disk space than it may use")]
    OutOfSpill,
    #[error("{limit} queries run already")]
    TooMany { limit: usize, per_user: bool },
    #[error("table `{table}` is registered but has no data yet")]
    NotPublished { table: String, materialized: bool },
    #[error("the data of a table could not be read")]
    DataMissing,
    #[error("an engine instance could not be sealed: `{setting}`")]
    NotSealed { setting: String },
    #[error("the source of `{table}` could not be asked")]
    Remote { table: String },
    #[error("the part of the query that is asked at its source gives more than {limit}")]
    RemoteTooLarge { limit: String },
    #[error("the process that ran the query ended before the query did")]
    WorkerLost,
    #[error("nothing could be started to run the query in")]
    WorkerStart,
    #[error("queries cannot be isolated: not guaranteed here: {missing}")]
    IsolationMissing { missing: String },
    #[error("a process for queries is not confined as it should be: `{guarantee}`")]
    NotConfined { guarantee: &'static str },
    /// As the process told it that ran the query.
    #[error("{0}")]
    Told(Box<WireError>),
}

/// Codes of errors whose words may quote a value.
const VALUES: [&str; 3] = ["query_conversion", "query_out_of_range", "query_failed"];

/// An error of a query over what a policy narrows, without the engine's words.
pub(super) fn without_values(error: crate::Error) -> crate::Error {
    match VALUES.into_iter().find(|code| *code == error.code()) {
        Some(code) => QueryError::Failed { message: String::new(), code }.without_values(true).into(),
        None => error,
    }
}

impl QueryError {
    /// The same without the engine's words where they may quote a value.
    pub(super) fn without_values(self, narrowed: bool) -> Self {
        // By its code: a worker process tells of the same failure in another form.
        let Some(code) = VALUES.into_iter().find(|code| narrowed && *code == self.code()) else { return self };
        let what = match code {
            "query_conversion" => "a value could not be converted",
            "query_out_of_range" => "a value is out of range",
            _ => "the engine could not compute it",
        };
        let message = format!("{what}; a policy narrows what this query reads, so the engine's words are withheld");
        Self::Failed { message, code }
    }
}

impl Coded for QueryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Parameters { .. } | Self::Failed { .. } => ErrorKind::InvalidInput,
            Self::Timeout { .. } | Self::OutOfMemory | Self::OutOfSpill | Self::RemoteTooLarge { .. } => {
                ErrorKind::LimitExceeded
            }
            Self::NotPublished { .. } => ErrorKind::QueryRefused,
            Self::Cancelled | Self::Remote { .. } => ErrorKind::Unavailable,
            Self::TooMany { .. } => ErrorKind::RateLimited,
            Self::DataMissing => ErrorKind::DataInvalid,
            Self::NotSealed { .. } | Self::NotConfined { .. } => ErrorKind::Internal,
            Self::WorkerLost | Self::WorkerStart => ErrorKind::Unavailable,
            Self::IsolationMissing { .. } => ErrorKind::ConfigInvalid,
            Self::Told(error) => error.kind,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Parameters { .. } => "wrong_parameters",
            Self::Failed { code, .. } => code,
            Self::Timeout { .. } => "query_timeout",
            Self::Cancelled => "query_cancelled",
            Self::OutOfMemory => "query_memory",
            Self::OutOfSpill => "query_spill",
            Self::TooMany { .. } => "too_many_queries",
            Self::NotPublished { materialized: true, .. } => "not_materialized_yet",
            Self::NotPublished { .. } => "not_published_yet",
            Self::DataMissing => "data_missing",
            Self::NotSealed { .. } => "instance_not_sealed",
            Self::Remote { .. } => "remote_unavailable",
            Self::RemoteTooLarge { .. } => "remote_too_large",
            Self::WorkerLost => "query_worker_lost",
            Self::WorkerStart => "query_worker_start",
            Self::IsolationMissing { .. } => "isolation_missing",
            Self::NotConfined { .. } => "worker_not_confined",
            Self::Told(error) => &error.code,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Parameters { .. } => Some("write parameters as `?`, `$1` or `$name`".to_owned()),
            Self::Timeout { .. } => Some("filter or aggregate earlier, or ask for a later deadline".to_owned()),
            Self::OutOfMemory | Self::OutOfSpill => {
                Some("filter or aggregate earlier, or select fewer columns".to_owned())
            }
            Self::TooMany { per_user: true, .. } => Some("wait until one of your queries has ended".to_owned()),
            Self::TooMany { .. } => Some("try again in a few seconds".to_owned()),
            Self::NotPublished { table, .. } => Some(format!("`agnes sync --table {table}` brings it up to date")),
            Self::DataMissing => Some("run `agnes doctor`, or sync the source again".to_owned()),
            Self::Remote { .. } => Some("check that the source answers; the log has its words".to_owned()),
            Self::RemoteTooLarge { .. } => Some("filter or aggregate the remote table in a subquery".to_owned()),
            Self::WorkerLost => {
                Some("ask again; if that fails too, the query may need more memory than there is".to_owned())
            }
            Self::WorkerStart => Some("try again in a few seconds; the log has the cause".to_owned()),
            Self::IsolationMissing { .. } => {
                Some("use a newer kernel, or set `query.strict` to false and read what `agnes doctor` says".to_owned())
            }
            Self::Told(error) => error.hint.clone(),
            _ => None,
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::Timeout { seconds } => Some(serde_json::json!({ "reason": "query_timeout", "seconds": seconds })),
            Self::TooMany { limit, per_user } => {
                Some(serde_json::json!({ "reason": "too_many_queries", "limit": limit, "per_user": per_user }))
            }
            Self::Told(error) => error.facts.clone(),
            _ => None,
        }
    }
}

//! What can go wrong when this process calls another. Messages name the host alone: paths and
//! queries of signed URLs are secrets.

use agnes_core::error::{Coded, ErrorKind};

/// What can go wrong when this process calls another.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutboundError {
    #[error("the address cannot be called: {reason}")]
    UrlInvalid { reason: &'static str },
    #[error("`{host}` may not be called: {reason}")]
    Refused { host: String, reason: &'static str },
    #[error("the name `{host}` cannot be resolved")]
    NotFound {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{host}` cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("`{host}` did not answer in time")]
    TimedOut { host: String },
    #[error("the answer of `{host}` broke off")]
    BrokenOff {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("`{host}` redirects more than {most} times, or where a redirect cannot be followed")]
    Redirects { host: String, most: usize },
    #[error("`{host}` answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("the answer of `{host}` is larger than {limit} bytes")]
    TooLarge { host: String, limit: u64 },
    #[error("the answer of `{host}` is not what was asked for: {reason}")]
    NotUnderstood { host: String, reason: &'static str },
    #[error("a header or body of the request cannot be sent")]
    NotSendable,
    #[error("no outgoing connection can be made from here")]
    NoClient,
}

impl OutboundError {
    /// What the client says, without the URL. A refusal of the rules comes out as it went in.
    pub(super) fn of(host: &str, error: reqwest::Error) -> Self {
        let host = super::rules::shown(host);
        let error = error.without_url();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            match inner.downcast_ref::<Self>() {
                Some(Self::Refused { host, reason }) => return Self::Refused { host: host.clone(), reason },
                Some(Self::NotFound { host, source }) => {
                    return Self::NotFound { host: host.clone(), source: std::io::Error::from(source.kind()) };
                }
                _ => cause = inner.source(),
            }
        }
        match () {
            () if error.is_timeout() => Self::TimedOut { host },
            () if error.is_builder() => Self::NotSendable,
            () if error.is_body() || error.is_decode() => Self::BrokenOff { host, source: error },
            () => Self::Unreachable { host, source: error },
        }
    }

    /// Whether the same call may succeed in a moment.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::BrokenOff { .. })
    }
}

impl Coded for OutboundError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UrlInvalid { .. } | Self::Refused { .. } => ErrorKind::InvalidInput,
            Self::NotFound { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } | Self::BrokenOff { .. } => {
                ErrorKind::Unavailable
            }
            Self::Status { status: 401 | 403, .. } => ErrorKind::ConfigInvalid,
            Self::Status { status: 429 | 500.., .. } => ErrorKind::Unavailable,
            Self::Status { .. } | Self::Redirects { .. } | Self::NotUnderstood { .. } => ErrorKind::DataInvalid,
            Self::TooLarge { .. } => ErrorKind::LimitExceeded,
            Self::NotSendable => ErrorKind::InvalidInput,
            Self::NoClient => ErrorKind::ConfigInvalid,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UrlInvalid { .. } => "url_invalid",
            Self::Refused { .. } => "private_url",
            Self::NotFound { .. } => "host_not_found",
            Self::Unreachable { .. } => "host_unreachable",
            Self::TimedOut { .. } => "host_timed_out",
            Self::BrokenOff { .. } => "answer_broken_off",
            Self::Redirects { .. } => "too_many_redirects",
            Self::Status { .. } => "host_refused",
            Self::TooLarge { .. } => "answer_too_large",
            Self::NotUnderstood { .. } => "answer_not_understood",
            Self::NotSendable => "request_not_sendable",
            Self::NoClient => "no_outgoing_calls",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Refused { .. } => {
                    "a host of your own network has to stand in `security.allowed_private_hosts` of `instance.yaml`"
                }
                Self::NotFound { .. } => "check how the name is written, and the name service of this machine",
                Self::Status { status: 401 | 403, .. } => "check the credentials for it",
                Self::NoClient => "install the certificates of the system (`ca-certificates`); the log has the cause",
                _ => return None,
            }
            .to_owned(),
        )
    }

    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::Status { status, .. } => Some(serde_json::json!({"status": status})),
            _ => None,
        }
    }
}

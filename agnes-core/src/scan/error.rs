//! What can be wrong with a scan.

use serde_json::json;

use crate::error::{Coded, ErrorKind};

/// What can be wrong with a scan, beside what can be wrong with every query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScanError {
    #[error("the predicate is refused: {details}")]
    Rejected { kind: &'static str, details: String },
    #[error("there is no column `{column}` in `{table}`")]
    UnknownColumn { column: String, table: String, suggestion: Option<String> },
    #[error("`{text}` is not a column, `ASC` or `DESC` after it or nothing")]
    BadOrder { text: String },
    #[error("`limit` is {limit}, more than the {most} rows of one scan")]
    TooManyRows { limit: u64, most: u64 },
    #[error("the quota of scans is used up")]
    Quota { kind: &'static str, current: u64, limit: u64, retry_after: u64 },
}

impl Coded for ScanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Quota { .. } => ErrorKind::RateLimited,
            _ => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Rejected { .. } => "validator_rejected",
            Self::UnknownColumn { .. } => "unknown_column",
            Self::BadOrder { .. } => "bad_order",
            Self::TooManyRows { .. } => "scan_limit",
            Self::Quota { .. } => "quota_exceeded",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected { kind: "unknown_function", .. } => Some("ask with a query for anything else".to_owned()),
            Self::Rejected { .. } => None,
            Self::UnknownColumn { suggestion, .. } => suggestion.as_ref().map(|near| format!("did you mean `{near}`?")),
            Self::BadOrder { .. } => Some("write it like `amount DESC`".to_owned()),
            Self::TooManyRows { most, .. } => Some(format!("ask for {most} rows or fewer")),
            Self::Quota { kind: "daily_bytes", .. } => Some("it begins anew at midnight UTC".to_owned()),
            Self::Quota { .. } => Some("wait until one of your scans has ended".to_owned()),
        }
    }
    fn facts(&self) -> Option<serde_json::Value> {
        match self {
            Self::Rejected { kind, details } => {
                Some(json!({"error": "validator_rejected", "kind": kind, "details": details}))
            }
            Self::Quota { kind, current, limit, retry_after } => Some(json!({
                "error": "quota_exceeded", "reason": "quota_exceeded", "kind": kind,
                "current": current, "limit": limit, "retry_after_seconds": retry_after,
            })),
            _ => None,
        }
    }
}

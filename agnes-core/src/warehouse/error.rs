//! Why a query of a warehouse does not run.

use serde_json::{Value, json};

use crate::error::{Coded, ErrorKind};

/// Why a query of a warehouse does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum WarehouseError {
    #[error("`{path}` is not a registered table")]
    NotRegistered { path: String },
    #[error("`{path}` is registered as `{registered_as}`, which you may not read")]
    Denied { path: String, registered_as: String },
    #[error("`{path}` is in another project than this server's data")]
    CrossProject { path: String, expected: String },
    #[error("today's bytes are used up: {current} of {limit}")]
    DailyBytes { current: u64, limit: u64, retry_after: u64 },
    #[error("{limit} of your queries and scans run already")]
    Slots { current: u64, limit: u64, retry_after: u64 },
    #[error("the query would read {bytes} bytes, {limit} are allowed")]
    TooLarge { bytes: u64, limit: u64, tables: Vec<String>, view_targets: Vec<String> },
    #[error("the query cannot be estimated: {underlying}")]
    Estimate { underlying: String, original: String },
    #[error("warehouses are being asked about their tables since {started_at}")]
    Refreshing { run_id: String, started_at: String },
    #[error("table `{table}` does not stay in a warehouse")]
    NotThere { table: String },
    #[error("no warehouse is configured")]
    NotConfigured,
    #[error("the warehouse did not answer within {seconds} s")]
    Timeout { seconds: u64, elapsed_ms: u64 },
    #[error("alias `{alias}` {reason}")]
    Alias { alias: String, reason: &'static str },
    #[error("{place}: {kind}: {message}")]
    Hybrid { place: String, kind: &'static str, message: String },
}

impl Coded for WarehouseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRegistered { .. } | Self::Denied { .. } | Self::CrossProject { .. } => ErrorKind::Forbidden,
            Self::DailyBytes { .. } | Self::Slots { .. } => ErrorKind::RateLimited,
            Self::TooLarge { .. } => ErrorKind::LimitExceeded,
            Self::Estimate { .. } | Self::Alias { .. } | Self::Hybrid { .. } => ErrorKind::InvalidInput,
            Self::Refreshing { .. } => ErrorKind::Conflict,
            Self::NotThere { .. } => ErrorKind::InvalidInput,
            Self::NotConfigured => ErrorKind::ConfigInvalid,
            Self::Timeout { .. } => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::NotRegistered { .. } => "bq_path_not_registered",
            Self::Denied { .. } => "bq_path_access_denied",
            Self::CrossProject { .. } => "bq_path_cross_project",
            Self::DailyBytes { .. } => "daily_byte_cap_exceeded",
            Self::Slots { .. } => "concurrent_slot_exceeded",
            Self::TooLarge { .. } => "remote_scan_too_large",
            Self::Estimate { .. } => "remote_estimate_failed",
            Self::Refreshing { .. } => "metadata_refresh_running",
            Self::NotThere { .. } => "not_in_a_warehouse",
            Self::NotConfigured => "not_configured",
            Self::Timeout { .. } => "warehouse_timeout",
            Self::Alias { .. } => "bad_alias",
            Self::Hybrid { .. } => "hybrid_failed",
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotRegistered { .. } => "ask an admin to register the table, then name it as `SHOW TABLES` does",
            Self::Denied { .. } => "ask an admin to grant it, or request access",
            Self::CrossProject { .. } => "tables of other projects are read under their registered names",
            Self::DailyBytes { .. } => "it begins anew at midnight UTC",
            Self::Slots { .. } => "wait until one of them has ended",
            Self::TooLarge { view_targets, .. } if !view_targets.is_empty() => {
                "a LIMIT does not make a view cheaper: filter by the partitioning column, or select fewer columns"
            }
            Self::TooLarge { .. } => "filter by the partitioning column, or select fewer columns",
            Self::Estimate { underlying, .. } => estimate_hint(underlying),
            Self::Refreshing { .. } => "wait until it has ended",
            Self::NotThere { .. } => {
                "only tables with `query_mode` remote, of a source such as BigQuery, are asked about"
            }
            Self::NotConfigured => "add a source of BigQuery",
            Self::Timeout { .. } => "look at the jobs of the billing project in Google's console",
            Self::Alias { .. } => "use letters, digits and `_`, and no name of the engine's own",
            Self::Hybrid { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn facts(&self) -> Option<Value> {
        let code = self.code();
        Some(match self {
            Self::NotRegistered { path } => json!({"reason": code, "path": path}),
            Self::Denied { path, registered_as } => {
                json!({"reason": code, "path": path, "registered_as": registered_as})
            }
            Self::Refreshing { run_id, started_at } => {
                json!({"reason": "already_running", "run_id": run_id, "started_at": started_at, "hint": self.hint()})
            }
            Self::CrossProject { path, expected } => {
                json!({"reason": code, "path": path, "expected_project": expected})
            }
            Self::DailyBytes { current, limit, retry_after } => json!({
                "reason": code, "kind": "daily_bytes", "current": current, "limit": limit,
                "retry_after_seconds": retry_after,
            }),
            Self::Slots { current, limit, retry_after } => json!({
                "reason": code, "kind": "concurrent_scans", "current": current, "limit": limit,
                "retry_after_seconds": retry_after,
            }),
            Self::TooLarge { bytes, limit, tables, view_targets } => json!({
                "reason": code, "scan_bytes": bytes, "limit_bytes": limit, "tables": tables,
                "view_targets": view_targets, "suggestion": self.hint(),
            }),
            Self::Estimate { underlying, original } => json!({
                "kind": code, "message": self.to_string(), "hint": self.hint(), "underlying": underlying,
                "underlying_original": original,
            }),
            Self::Timeout { elapsed_ms, .. } => {
                json!({"kind": "timeout", "elapsed_ms": elapsed_ms, "hint": self.hint()})
            }
            Self::NotThere { .. } | Self::NotConfigured | Self::Alias { .. } | Self::Hybrid { .. } => return None,
        })
    }
}

/// What the words of an estimate that failed say about who has to act.
fn estimate_hint(words: &str) -> &'static str {
    let words = words.to_lowercase();
    if words.contains("syntax") {
        "a reserved word may stand where a name should: quote names"
    } else if words.contains("unrecognized name") || words.contains("column") {
        "check the names of columns against the table's schema"
    } else if words.contains("not found") {
        "the table may have been dropped: ask an admin to look at the source"
    } else {
        "ask for less of the table at a time"
    }
}

//! What can go wrong with a Keboola project. Messages hold what Keboola said, never a token,
//! a signed address or a row.

use agnes_core::error::{Coded, ErrorKind};
use serde_json::{Value, json};

/// What can go wrong with a Keboola project.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeboolaError {
    #[error("setting `{key}` is not known")]
    UnknownSetting { key: String, suggestion: Option<String> },
    #[error("setting `{key}` is not valid: {reason}")]
    InvalidSetting { key: String, reason: String },
    #[error("Keboola is not configured: {missing}")]
    NotConfigured { missing: String },
    #[error("the token in `{env}` belongs to project {found}, not to {wanted}")]
    WrongProject { env: String, found: String, wanted: String },
    #[error("Keboola answered {status} to the request to {call}{words}")]
    Refused { call: &'static str, status: u16, words: String, retry_after: Option<u64> },
    #[error("Keboola did not answer the request to {call}: {reason}")]
    Away { call: &'static str, reason: String },
    #[error("Keboola's answer to the request to {call} is not what was asked for: {reason}")]
    NotUnderstood { call: &'static str, reason: &'static str },
    #[error("Keboola's job {job} failed: {words}")]
    JobFailed { job: String, words: String },
    #[error("Keboola's job {job} did not end within {seconds} s")]
    JobTimeout { job: String, seconds: u64 },
    #[error("the exported file cannot be read: {reason}")]
    File { reason: String },
    #[error("slice {number} of {total} cannot be read: {reason}")]
    Slice { number: usize, total: usize, reason: String },
    #[error("slice {number} of {total} cannot be had: {reason}")]
    SliceAway { number: usize, total: usize, reason: String, retry_after: u64 },
    #[error("the export holds {found} rows, Keboola announced {announced}")]
    RowsMissing { found: u64, announced: u64 },
    #[error("the export needs about {need} MiB of scratch space, {free} MiB are free")]
    NoSpace { need: u64, free: u64 },
    #[error("the columns of the table changed while it was exported")]
    SchemaChanged,
    #[error("the table has no column `{column}`")]
    NoColumn { column: String, suggestion: Option<String> },
    #[error("the table has no primary key, here or there: its changes could only be appended")]
    NoKey,
    #[error("column `{column}` of the primary key holds values that are no {kind}")]
    KeyType { column: String, kind: String },
    #[error("a row filter is not valid: {reason}")]
    Filter { reason: String },
    #[error("`{token}` is not a date placeholder")]
    Placeholder { token: String },
    #[error("the table's query is not valid: {reason}")]
    Query { reason: String },
    #[error("the table names no table of Keboola: {reason}")]
    TableId { reason: &'static str },
}

impl KeboolaError {
    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting { key: key.into(), reason: reason.into() }
    }
}

impl Coded for KeboolaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSetting { .. }
            | Self::InvalidSetting { .. }
            | Self::NoColumn { .. }
            | Self::NoKey
            | Self::Filter { .. }
            | Self::Placeholder { .. }
            | Self::Query { .. }
            | Self::TableId { .. } => ErrorKind::InvalidInput,
            Self::NotConfigured { .. } | Self::WrongProject { .. } => ErrorKind::ConfigInvalid,
            Self::Refused { status, .. } => crate::calls::kind_of(*status),
            Self::NotUnderstood { .. } | Self::JobFailed { .. } | Self::KeyType { .. } => ErrorKind::DataInvalid,
            Self::Away { .. }
            | Self::JobTimeout { .. }
            | Self::File { .. }
            | Self::Slice { .. }
            | Self::SliceAway { .. }
            | Self::RowsMissing { .. }
            | Self::NoSpace { .. }
            | Self::SchemaChanged => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } => "invalid_config",
            Self::NotConfigured { .. } => "keboola_not_configured",
            Self::WrongProject { .. } => "keboola_wrong_project",
            Self::Refused { status, .. } => match status {
                401 => "keboola_token_refused",
                403 => "keboola_forbidden",
                404 => "keboola_not_found",
                409 => "keboola_conflict",
                413 => "keboola_too_large",
                429 => "keboola_rate_limited",
                500.. => "keboola_unavailable",
                _ => "keboola_refused",
            },
            Self::Away { .. } => "keboola_unreachable",
            Self::NotUnderstood { .. } => "keboola_answer_invalid",
            Self::JobFailed { .. } => "keboola_job_failed",
            Self::JobTimeout { .. } => "keboola_job_timeout",
            Self::File { .. } => "keboola_file_invalid",
            Self::Slice { .. } => "keboola_slice_invalid",
            Self::SliceAway { .. } => "keboola_slice_unavailable",
            Self::RowsMissing { .. } => "keboola_rows_missing",
            Self::NoSpace { .. } => "disk_full",
            Self::SchemaChanged => "keboola_schema_changed",
            Self::NoColumn { .. } => "column_not_found",
            Self::NoKey => "keboola_key_missing",
            Self::KeyType { .. } => "keboola_key_type",
            Self::Filter { .. } => "keboola_filter_invalid",
            Self::Placeholder { .. } => "keboola_placeholder_unknown",
            Self::Query { .. } => "keboola_query_invalid",
            Self::TableId { .. } => "keboola_table_unnamed",
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownSetting { suggestion: Some(near), .. } | Self::NoColumn { suggestion: Some(near), .. } => {
                return Some(format!("did you mean `{near}`?"));
            }
            Self::NotConfigured { .. } => {
                "set `stack_url` of the source, and the variable that `token_env` names for the process that runs Agnes"
            }
            Self::WrongProject { .. } => "set a token of the right project, or correct `project_id` of the source",
            Self::Refused { retry_after: Some(seconds), .. } => {
                return Some(format!(
                    "Keboola asks to wait {seconds} s; a later run tries again, the last good data stays"
                ));
            }
            Self::Refused { status, .. } => match status {
                401 => "the token expired or was deleted: an operator has to set a new one; the last good data stays",
                403 => "the token may not read this: give it read access to the bucket, in Keboola",
                404 => {
                    "the table or bucket is not there any more: correct the table, or unregister it; the last good data stays"
                }
                413 => "ask for less: fewer columns, a `where_filters`, or partitions",
                409 | 429 | 500.. => "a later run tries again; the last good data stays",
                _ => "check the table's settings against the table in Keboola",
            },
            Self::Away { .. } => "check `stack_url` and the network; a later run tries again, the last good data stays",
            Self::NotUnderstood { .. } => "check that `stack_url` is the address of a Keboola stack",
            Self::JobFailed { .. } => "the job's page in Keboola has the details; the last good data stays",
            Self::JobTimeout { .. } => {
                "the next run waits for the same job again; raise `export_timeout_seconds` if tables take that long"
            }
            Self::File { .. } | Self::Slice { .. } | Self::RowsMissing { .. } | Self::SchemaChanged => {
                "the export is made anew at the next attempt; the last good data stays"
            }
            Self::SliceAway { .. } => {
                "the next attempt goes on with the slices that are here already; the last good data stays"
            }
            Self::NoSpace { .. } => "free some space on the disk of the scratch folder, or export less",
            Self::NoKey => {
                "name columns that identify a row as its `primary_key`, or make it `full_refresh`; the last good data stays"
            }
            Self::KeyType { .. } => {
                "correct the column's type or its values in Keboola, or sync the table anew with `--full`"
            }
            Self::Filter { .. } => {
                "a filter is `{\"column\": .., \"operator\": \"eq|ne|gt|ge|lt|le\", \"values\": [..]}`"
            }
            Self::Placeholder { .. } => {
                "known: `{{today}}`, `{{last_week}}`, `{{last_month}}`, `{{last_2_months}}`, `{{last_3_months}}`, `{{last_6_months}}`, `{{last_year}}`, `{{last_2_years}}`, `{{start_of_3_months_ago}}`"
            }
            Self::Query { .. } => {
                "it is a JSON object with some of `where_filters`, `columns`, `changed_since`, `changed_until`, `limit`, `file_type`"
            }
            Self::TableId { .. } => "set `bucket` (`in.c-crm`) and `source_table` (`orders`)",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn only_later_helps(&self) -> bool {
        matches!(self, Self::JobTimeout { .. } | Self::NoSpace { .. })
    }

    fn facts(&self) -> Option<Value> {
        match self {
            Self::Refused { status, retry_after, .. } => {
                Some(json!({"status": status, "retry_after_seconds": retry_after}))
            }
            Self::SliceAway { retry_after, .. } if *retry_after > 0 => {
                Some(json!({ "retry_after_seconds": retry_after }))
            }
            Self::JobFailed { job, .. } | Self::JobTimeout { job, .. } => Some(json!({"job": job})),
            _ => None,
        }
    }
}

//! What can go wrong with BigQuery. Messages hold what Google said, never a token or a key.

use agnes_core::error::{Coded, ErrorKind};
use serde_json::{Value, json};

/// What can go wrong with BigQuery.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BigQueryError {
    #[error("setting `{key}` is not known")]
    UnknownSetting { key: String, suggestion: Option<String> },
    #[error("setting `{key}` is not valid: {reason}")]
    InvalidSetting { key: String, reason: String },
    #[error("BigQuery is not configured: {missing}")]
    NotConfigured { missing: String },
    #[error("no access token can be had: {reason}")]
    AuthFailed { reason: String },
    #[error("BigQuery answered {status} to the request to {call}{words}")]
    Refused { call: &'static str, status: u16, reason: String, words: String, retry_after: Option<u64> },
    #[error("BigQuery refused the request to {call}: `{billing}` may not pay for what is in `{data}`{words}")]
    CrossProject { call: &'static str, billing: String, data: String, words: String },
    #[error("BigQuery did not answer the request to {call}: {reason}")]
    Away { call: &'static str, reason: String },
    #[error("BigQuery's answer to the request to {call} is not what was asked for: {reason}")]
    NotUnderstood { call: &'static str, reason: &'static str },
    #[error("BigQuery refused the query: {words}")]
    Query { words: String },
    #[error("the query of a copy is not one that only reads")]
    Writes,
    #[error("the answer is too large for BigQuery: {words}")]
    ResponseTooLarge { words: String },
    #[error("BigQuery's job failed: {words}")]
    JobFailed { words: String },
    #[error("BigQuery's job did not end within {seconds} s")]
    JobTimeout { seconds: u64 },
    #[error("{current} bytes would be read, {limit} are allowed")]
    OverBudget { current: u64, limit: u64 },
    #[error("the table has no name in BigQuery: {reason}")]
    TableId { reason: &'static str },
    #[error("a value of column `{column}` is none of its type")]
    Value { column: String },
}

impl BigQueryError {
    pub(crate) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting { key: key.into(), reason: reason.into() }
    }
}

impl Coded for BigQueryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSetting { .. }
            | Self::InvalidSetting { .. }
            | Self::Query { .. }
            | Self::Writes
            | Self::TableId { .. } => ErrorKind::InvalidInput,
            Self::NotConfigured { .. } | Self::AuthFailed { .. } | Self::CrossProject { .. } => {
                ErrorKind::ConfigInvalid
            }
            Self::Refused { status, reason, .. } => match (status, reason.as_str()) {
                (_, "rateLimitExceeded" | "quotaExceeded") | (429, _) => ErrorKind::RateLimited,
                (401 | 403, _) => ErrorKind::ConfigInvalid,
                (404, _) => ErrorKind::NotFound,
                (500.., _) => ErrorKind::Unavailable,
                _ => ErrorKind::InvalidInput,
            },
            Self::OverBudget { .. } | Self::ResponseTooLarge { .. } => ErrorKind::LimitExceeded,
            Self::NotUnderstood { .. } | Self::JobFailed { .. } | Self::Value { .. } => ErrorKind::DataInvalid,
            Self::Away { .. } | Self::JobTimeout { .. } => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownSetting { .. } | Self::InvalidSetting { .. } => "invalid_config",
            Self::NotConfigured { .. } => "bigquery_not_configured",
            Self::AuthFailed { .. } => "bigquery_auth_failed",
            Self::Refused { status, reason, .. } => match (status, reason.as_str()) {
                (_, "rateLimitExceeded" | "quotaExceeded") | (429, _) => "bigquery_quota",
                (401, _) => "bigquery_token_refused",
                (403, _) => "bigquery_forbidden",
                (404, _) => "bigquery_not_found",
                (500.., _) => "bigquery_unavailable",
                _ => "bigquery_refused",
            },
            Self::CrossProject { .. } => "bigquery_project_forbidden",
            Self::ResponseTooLarge { .. } => "bigquery_response_too_large",
            Self::Away { .. } => "bigquery_unreachable",
            Self::NotUnderstood { .. } => "bigquery_answer_invalid",
            Self::Query { .. } => "bigquery_query_invalid",
            Self::Writes => "bigquery_query_writes",
            Self::JobFailed { .. } => "bigquery_job_failed",
            Self::JobTimeout { .. } => "bigquery_job_timeout",
            Self::OverBudget { .. } => "bigquery_over_budget",
            Self::TableId { .. } => "bigquery_table_unnamed",
            Self::Value { .. } => "bigquery_value_invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownSetting { suggestion: Some(near), .. } => return Some(format!("did you mean `{near}`?")),
            Self::NotConfigured { .. } => "set `project` of the source, and its credentials",
            Self::AuthFailed { .. } => {
                "an operator has to set `GOOGLE_APPLICATION_CREDENTIALS`, or the variable that `key_env` names"
            }
            Self::Refused { retry_after: Some(seconds), .. } => {
                return Some(format!(
                    "Google asks to wait {seconds} s; a later run tries again, the last good data stays"
                ));
            }
            Self::Refused { .. } => match self.code() {
                "bigquery_quota" => "a quota is used up: a later run tries again; the last good data stays",
                "bigquery_token_refused" => "the credentials expired or were deleted: an operator has to set new ones",
                "bigquery_forbidden" => {
                    "give the account `roles/bigquery.dataViewer` on the data, `roles/bigquery.jobUser` and \
                     `roles/bigquery.readSessionUser` on the billing project"
                }
                "bigquery_not_found" => {
                    "the project, dataset or table is not there, or in another `location`; the last good data stays"
                }
                "bigquery_unavailable" => "a later run tries again; the last good data stays",
                _ => "check the table's settings against the table in BigQuery",
            },
            Self::CrossProject { .. } => {
                "give the account `roles/serviceusage.serviceUsageConsumer` on the billing project, or set another one"
            }
            Self::ResponseTooLarge { .. } => "ask for fewer rows or columns, or aggregate",
            Self::Away { .. } => "check the network; a later run tries again, the last good data stays",
            Self::NotUnderstood { .. } => "check that `endpoint` is the address of BigQuery",
            Self::Query { .. } => "correct the table's query: it is GoogleSQL",
            Self::Writes => "give one `SELECT`; what changes data is run at BigQuery itself",
            Self::JobFailed { .. } => "the job's page in Google's console has the details; the last good data stays",
            Self::JobTimeout { .. } => "raise `query_timeout_seconds`, or ask for less; the job was cancelled",
            Self::OverBudget { .. } => {
                "filter by the partitioning column, select fewer columns, or raise `max_bytes_per_materialize`"
            }
            Self::TableId { .. } => "set `bucket` (the dataset) and `source_table`, or `bq_fqn`",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn only_later_helps(&self) -> bool {
        matches!(self, Self::JobTimeout { .. })
    }

    fn facts(&self) -> Option<Value> {
        let mut facts = match self {
            Self::OverBudget { current, limit } => return Some(json!({"current": current, "limit": limit})),
            Self::Refused { status, retry_after, .. } => json!({"status": status, "retry_after_seconds": retry_after}),
            _ => json!({}),
        };
        let word = self.word()?;
        // What scans are refused with has it as `error`, what queries are refused with as `kind`.
        (facts["error"], facts["kind"]) = (word.into(), word.into());
        facts["details"] = match self {
            Self::CrossProject { billing, data, .. } => {
                json!({"billing_project": billing, "data_project": data, "hint": self.hint()})
            }
            _ => json!({"hint": self.hint()}),
        };
        Some(facts)
    }
}

impl BigQueryError {
    /// What clients of warehouse tables know it as; none for what is wrong with a setting.
    fn word(&self) -> Option<&'static str> {
        Some(match self.code() {
            "bigquery_not_configured" => "not_configured",
            "bigquery_auth_failed" | "bigquery_token_refused" => "auth_failed",
            "bigquery_project_forbidden" => "cross_project_forbidden",
            "bigquery_forbidden" => "bq_forbidden",
            "bigquery_response_too_large" => "bq_response_too_large",
            "bigquery_query_invalid" => "bq_bad_request",
            "invalid_config" | "bigquery_over_budget" | "bigquery_table_unnamed" => return None,
            _ => "bq_upstream_error",
        })
    }
}

/// Whether these words say that an answer is larger than BigQuery gives.
pub(crate) fn is_too_large(words: &str) -> bool {
    words.to_ascii_lowercase().contains("response too large")
}

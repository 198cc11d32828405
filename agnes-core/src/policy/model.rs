//! What a policy says, and the repository that keeps policies.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind, Result};

/// How a row filter meets those of the caller's other groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FilterMode {
    /// Opens its rows: a caller sees what any of their permissive filters lets through.
    #[default]
    Permissive,
    /// Closes all others: a caller sees only what every restrictive filter lets through.
    Restrictive,
}

/// Which rows a group may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RowFilter {
    /// A SQL predicate over the table's columns, the policy's mapping tables, and
    /// `$user_id`, `$user_email`, `$user_groups`. A row for which it is null is not read.
    pub predicate: String,
    /// How it meets other filters.
    #[serde(default)]
    pub mode: FilterMode,
}

/// Which end of a text a partial mask keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first characters.
    #[default]
    Start,
    /// The last characters.
    End,
}

/// What a group sees of a column, from the least masked to hidden: the smaller one wins
/// where a caller has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "mask")]
pub enum ColumnRule {
    /// The value of an expression, cast to the column's type.
    Expression {
        /// Over the same names as a row filter.
        sql: String,
    },
    /// Some characters of the value as text, then `***`. A text that is not longer is `***`.
    Partial {
        /// How many characters.
        keep: u32,
        /// Of which end.
        #[serde(default)]
        from: Keep,
    },
    /// HMAC-SHA256 of the value as text with a key of this installation, 64 hex digits:
    /// equal values have equal hashes, in every table.
    Hash,
    /// Null.
    Null,
    /// The column does not exist.
    Hidden,
}

impl ColumnRule {
    /// The name in JSON and on screens.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Expression { .. } => "expression",
            Self::Partial { .. } => "partial",
            Self::Hash => "hash",
            Self::Null => "null",
            Self::Hidden => "hidden",
        }
    }

    /// Place among rules; equal ones are told apart by what they say.
    fn rank(&self) -> (u8, u32, Keep, &str) {
        match self {
            Self::Expression { sql } => (0, 0, Keep::Start, sql),
            Self::Partial { keep, from } => (1, u32::MAX - keep, *from, ""),
            Self::Hash => (2, 0, Keep::Start, ""),
            Self::Null => (3, 0, Keep::Start, ""),
            Self::Hidden => (4, 0, Keep::Start, ""),
        }
    }
}

impl PartialOrd for ColumnRule {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ColumnRule {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// What leaves the server of a narrowed table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// A file with the caller's part of it.
    #[default]
    Slice,
    /// Nothing: it is asked here alone.
    ServerOnly,
}

/// What a policy says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyRules {
    /// Which rows; all without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<RowFilter>,
    /// Columns that are not shown as they are.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnRule>,
    /// Tables that its expressions may read, whole, whatever the caller may read.
    #[serde(default)]
    pub mapping_tables: Vec<String>,
    /// Whether it narrows admins too.
    #[serde(default)]
    pub applies_to_admin: bool,
    /// What leaves the server.
    #[serde(default)]
    pub distribution: Distribution,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What one group may see of one table. A policy opens nothing: it narrows what a grant opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// 32 hex digits.
    pub id: String,
    /// The group.
    pub group_id: String,
    /// What grants name: the registry id, or the published name; case-folded.
    pub table_id: String,
    /// What it says.
    pub rules: PolicyRules,
    /// 1, and one more with every change.
    pub version: u32,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created_at: Option<DateTime<Utc>>,
    /// By whom.
    pub created_by: Option<String>,
    /// When it was changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub updated_at: Option<DateTime<Utc>>,
    /// By whom.
    pub updated_by: Option<String>,
}

/// What a policy said at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyVersion {
    /// The policy.
    pub policy_id: String,
    /// Its number.
    pub version: u32,
    /// What it said; none once it was removed.
    pub rules: Option<PolicyRules>,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub changed_at: Option<DateTime<Utc>>,
    /// By whom.
    pub changed_by: Option<String>,
}

/// Keeps policies: one for each group and table, with everything they ever said. Every
/// write is one transaction and bumps [`crate::store::Store::revision`]; an
/// [`AccessSnapshot`](crate::rbac::AccessSnapshot) holds the policies of its revision.
#[async_trait]
pub trait PolicyRepository: Send + Sync {
    /// All policies by table and group.
    async fn list(&self) -> Result<Vec<Policy>>;
    /// One policy by id.
    async fn get(&self, id: &str) -> Result<Option<Policy>>;
    /// Inserts a policy. `policy_exists` when the group has one for the table,
    /// `group_not_found`.
    async fn insert(&self, policy: &Policy) -> Result<()>;
    /// Replaces rules, version, time and author of the policy whose version is one less.
    /// `policy_not_found`, `policy_changed` when its version is another.
    async fn update(&self, policy: &Policy) -> Result<()>;
    /// Removes a policy. `policy_not_found`.
    async fn delete(&self, id: &str, now: DateTime<Utc>, by: &str) -> Result<Policy>;
    /// What a policy said, newest first; also of a removed one.
    async fn history(&self, id: &str) -> Result<Vec<PolicyVersion>>;
}

/// What can go wrong with policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PolicyError {
    #[error("there is no policy `{policy}`")]
    NotFound { policy: String },
    #[error("`{group}` has a policy for this table already")]
    Exists { group: String },
    #[error("somebody changed the policy meanwhile")]
    Changed,
    #[error("a policy needs a row filter, a column rule or `server_only`")]
    Empty,
    #[error("the policy cannot be used: {what}: {reason}")]
    Invalid { what: String, reason: String },
    #[error("there is no published table `{table}`")]
    NoTable { table: String },
    #[error("`{table}` is asked at its source, where no policy can hold")]
    Remote { table: String },
    #[error("`{table}` belongs to Agnes itself and has rules of its own")]
    Internal { table: String },
    #[error("the policy of `{table}` cannot be applied to its data")]
    Failed { table: String },
    #[error("your part of `{table}` is larger than {limit_mb} MiB")]
    TooLarge { table: String, limit_mb: u64 },
    #[error("your part of `{table}` could not be made within {seconds} s")]
    TooSlow { table: String, seconds: u64 },
    #[error("your part of `{table}` cannot be made now")]
    Unavailable { table: String },
    #[error("a stored policy cannot be read")]
    Unreadable,
    #[error("the key of this installation cannot be read")]
    Key,
}

impl Coded for PolicyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoTable { .. } => ErrorKind::NotFound,
            Self::Exists { .. } | Self::Changed => ErrorKind::Conflict,
            Self::Empty | Self::Invalid { .. } | Self::Internal { .. } => ErrorKind::InvalidInput,
            Self::Remote { .. } => ErrorKind::Unsupported,
            Self::Failed { .. } | Self::Unreadable => ErrorKind::DataInvalid,
            Self::TooLarge { .. } | Self::TooSlow { .. } => ErrorKind::LimitExceeded,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Key => ErrorKind::ConfigInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotFound { .. } => "policy_not_found",
            Self::Exists { .. } => "policy_exists",
            Self::Changed => "policy_changed",
            Self::Empty => "policy_empty",
            Self::Invalid { .. } => "policy_invalid",
            Self::NoTable { .. } => "policy_table_not_found",
            Self::Remote { .. } => "policy_on_remote_table",
            Self::Internal { .. } => "policy_on_internal_table",
            Self::Failed { .. } => "policy_failed",
            Self::TooLarge { .. } => "slice_too_large",
            Self::TooSlow { .. } => "slice_too_slow",
            Self::Unavailable { .. } => "slice_unavailable",
            Self::Unreadable => "policy_unreadable",
            Self::Key => "instance_key_unreadable",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::NotFound { .. } => "`agnes admin policy list` shows the policies",
                Self::Exists { .. } => "`agnes admin policy update` changes it",
                Self::Changed => "look at it again with `agnes admin policy show`, then change it",
                Self::Empty => "revoke the grant to close the whole table",
                Self::Invalid { .. } => "an expression names columns of the table, its mapping tables, and `$user_id`, `$user_email`, `$user_groups`",
                Self::NoTable { .. } => "sync the table first, so that the policy can be tried on its data",
                Self::Remote { .. } => "materialize the table, then put a policy on it",
                Self::Failed { .. } => "an admin finds the cause with `agnes admin policy check`",
                Self::TooLarge { .. } | Self::TooSlow { .. } => "ask an admin for `policy.slice_max_mb`, `policy.slice_timeout_seconds`, or a narrower filter",
                Self::Unavailable { .. } => "pull again later; if it stays, an admin finds the cause in the log of the server",
                Self::Unreadable => "a newer Agnes may have written it: upgrade",
                Self::Key => "restore `instance.key` in the state folder from a backup, or set `AGNES_INSTANCE_KEY`",
                Self::Internal { .. } => return None,
            }
            .to_owned(),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_ordered_from_the_least_masked() {
        let partial = |keep| ColumnRule::Partial { keep, from: Keep::Start };
        let mut rules = [
            ColumnRule::Hidden,
            ColumnRule::Null,
            ColumnRule::Hash,
            partial(2),
            partial(4),
            ColumnRule::Expression { sql: "1".to_owned() },
        ];
        rules.sort();
        assert_eq!(
            rules.iter().map(ColumnRule::as_str).collect::<Vec<_>>(),
            ["expression", "partial", "partial", "hash", "null", "hidden"]
        );
        assert_eq!(rules[1], partial(4));
    }

    #[test]
    fn rules_as_json() {
        let text = r#"{"filter":{"predicate":"region = 'EU'","mode":"restrictive"},
            "columns":{"email":{"mask":"partial","keep":2},"ssn":{"mask":"hidden"}},"distribution":"server_only"}"#;
        let rules: PolicyRules = serde_json::from_str(text).unwrap();
        assert_eq!(rules.columns["email"], ColumnRule::Partial { keep: 2, from: Keep::Start });
        assert_eq!(serde_json::from_str::<PolicyRules>(&serde_json::to_string(&rules).unwrap()).unwrap(), rules);
        assert!(serde_json::from_str::<PolicyRules>(r#"{"filer":null}"#).is_err());
    }
}

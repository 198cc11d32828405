//! The six tables of Jira: their columns, of a fixed shape.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Kinds of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Time,
}
use Kind::{Number as N, Text as T, Time as Z};

const ISSUES: [(&str, Kind); 49] = [
    ("issue_key", T),
    ("issue_id", T),
    ("issue_url", T),
    ("summary", T),
    ("description", T),
    ("issue_type", T),
    ("status", T),
    ("status_category", T),
    ("priority", T),
    ("resolution", T),
    ("project_key", T),
    ("project_name", T),
    ("creator_email", T),
    ("creator_name", T),
    ("reporter_email", T),
    ("reporter_name", T),
    ("assignee_email", T),
    ("assignee_name", T),
    ("created_at", Z),
    ("updated_at", Z),
    ("resolved_at", Z),
    ("due_date", T),
    ("labels", T),
    ("attachment_count", N),
    ("comment_count", N),
    ("issuelink_count", N),
    ("request_type", T),
    ("request_status", T),
    ("severity", T),
    ("triage", T),
    ("configuration_item", T),
    ("participants", T),
    ("organizations", T),
    ("spam", T),
    ("context", T),
    ("custom_url", T),
    ("slack_link", T),
    ("technical_issue_category", T),
    ("email_address", T),
    ("satisfaction", N),
    ("first_response_breached", T),
    ("first_response_goal_millis", N),
    ("first_response_elapsed_millis", N),
    ("time_to_resolution_breached", T),
    ("time_to_resolution_goal_millis", N),
    ("time_to_resolution_elapsed_millis", N),
    ("l3_team", T),
    ("_synced_at", T),
    ("_raw_file", T),
];
const COMMENTS: [(&str, Kind); 8] = [
    ("comment_id", T),
    ("issue_key", T),
    ("author_email", T),
    ("author_name", T),
    ("body", T),
    ("created_at", Z),
    ("updated_at", Z),
    ("update_author_email", T),
];
const ATTACHMENTS: [(&str, Kind); 11] = [
    ("attachment_id", T),
    ("issue_key", T),
    ("filename", T),
    ("local_path", T),
    ("hierarchical_path", T),
    ("size_bytes", N),
    ("mime_type", T),
    ("author_email", T),
    ("created_at", Z),
    ("content_url", T),
    ("thumbnail_url", T),
];
const CHANGELOG: [(&str, Kind); 9] = [
    ("change_id", T),
    ("issue_key", T),
    ("author_email", T),
    ("author_name", T),
    ("field_name", T),
    ("field_type", T),
    ("from_value", T),
    ("to_value", T),
    ("changed_at", Z),
];
const ISSUELINKS: [(&str, Kind); 8] = [
    ("issue_key", T),
    ("link_id", T),
    ("link_type", T),
    ("direction", T),
    ("linked_issue_key", T),
    ("linked_issue_summary", T),
    ("linked_issue_status", T),
    ("linked_issue_priority", T),
];
const REMOTE_LINKS: [(&str, Kind); 6] = [
    ("issue_key", T),
    ("remote_link_id", T),
    ("url", T),
    ("title", T),
    ("application_name", T),
    ("application_type", T),
];

/// The tables: name, columns that identify a row, description.
pub(crate) const TABLES: [(&str, &[&str], &str); 6] = [
    ("issues", &["issue_key"], "one row an issue, with its service levels"),
    ("comments", &["comment_id"], "comments on issues, as plain text"),
    ("attachments", &["attachment_id"], "files of issues; `local_path` is set where the file is here"),
    ("changelog", &["issue_key", "change_id", "field_name"], "what changed on issues: one row for each field"),
    ("issuelinks", &["issue_key", "link_id"], "links between issues, from each side"),
    ("remote_links", &["issue_key", "remote_link_id"], "links from issues to elsewhere"),
];

/// The columns of a table by its number.
pub(crate) fn columns(table: usize) -> &'static [(&'static str, Kind)] {
    match table {
        0 => &ISSUES,
        1 => &COMMENTS,
        2 => &ATTACHMENTS,
        3 => &CHANGELOG,
        4 => &ISSUELINKS,
        _ => &REMOTE_LINKS,
    }
}

/// Whether the table of issues has this column of its own.
pub(crate) fn is_column_of_issues(name: &str) -> bool {
    ISSUES.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// The columns of a table by its number; those of further fields come last.
pub(crate) fn schema(table: usize, further: &[String]) -> SchemaRef {
    let kind = |kind: Kind| match kind {
        T => DataType::Utf8,
        N => DataType::Int64,
        Z => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    };
    let mut fields: Vec<Field> = columns(table).iter().map(|(name, k)| Field::new(*name, kind(*k), true)).collect();
    if table == 0 {
        fields.extend(further.iter().map(|name| Field::new(name, DataType::Utf8, true)));
    }
    Arc::new(Schema::new(fields))
}

//! The audit log, and the rows of internal tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde_json::Value;

use super::{MemoryStore, State};
use crate::audit::{AuditEvent, AuditFilter, AuditRepository};
use crate::error::{Error, Result};
use crate::store::InternalScope;

#[async_trait]
impl AuditRepository for MemoryStore {
    async fn append(&self, events: &[AuditEvent]) -> Result<()> {
        self.state().audit.extend_from_slice(events);
        Ok(())
    }

    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        let starts = |value: &Option<String>, prefix: &Option<String>| {
            prefix.as_ref().is_none_or(|prefix| value.as_ref().is_some_and(|value| value.starts_with(prefix)))
        };
        let wanted = |event: &&AuditEvent| {
            filter.since.is_none_or(|since| event.timestamp >= since)
                && (filter.user_id.is_none() || filter.user_id == event.user_id)
                && filter.action_prefix.as_ref().is_none_or(|prefix| event.action.starts_with(prefix))
                && (filter.resource.is_none() || filter.resource == event.resource)
                && starts(&event.result, &filter.result_prefix)
                && filter.text.as_ref().is_none_or(|text| {
                    let params = event.params.as_ref().map(|params| params.to_string().to_lowercase());
                    params.is_some_and(|params| params.contains(&text.to_lowercase()))
                })
                && (filter.client_kind.is_none() || filter.client_kind == event.client_kind)
                && filter.before.as_ref().is_none_or(|(at, id)| (&event.timestamp, &event.id) < (at, id))
        };
        let mut rows: Vec<AuditEvent> = self.state().audit.iter().filter(wanted).cloned().collect();
        rows.sort_by(|a, b| (b.timestamp, &b.id).cmp(&(a.timestamp, &a.id)));
        rows.truncate(filter.limit);
        Ok(rows)
    }
}

const TEXT: DataType = DataType::Utf8;
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const INT: DataType = DataType::Int32;
const LONG: DataType = DataType::Int64;

/// Columns of `agnes_sessions`.
const SESSIONS: &[(&str, DataType)] = &[
    ("session_file", TEXT),
    ("session_id", TEXT),
    ("username", TEXT),
    ("started_at", TIME),
    ("ended_at", TIME),
    ("active_seconds", INT),
    ("wall_seconds", INT),
    ("user_messages", INT),
    ("assistant_messages", INT),
    ("tool_calls", INT),
    ("tool_errors", INT),
    ("skill_invocations", INT),
    ("subagent_dispatches", INT),
    ("mcp_calls", INT),
    ("slash_commands", INT),
    ("distinct_tools", INT),
    ("distinct_skills", INT),
    ("primary_model", TEXT),
    ("processor_version", INT),
    ("extracted_at", TIME),
    ("input_tokens", LONG),
    ("output_tokens", LONG),
    ("cache_read_tokens", LONG),
    ("cache_creation_tokens", LONG),
    ("user_id", TEXT),
];

/// Columns of `agnes_telemetry`.
const TELEMETRY: &[(&str, DataType)] = &[
    ("id", TEXT),
    ("session_id", TEXT),
    ("session_file", TEXT),
    ("username", TEXT),
    ("event_uuid", TEXT),
    ("parent_uuid", TEXT),
    ("event_type", TEXT),
    ("tool_name", TEXT),
    ("skill_name", TEXT),
    ("subagent_type", TEXT),
    ("command_name", TEXT),
    ("is_error", DataType::Boolean),
    ("source", TEXT),
    ("ref_id", TEXT),
    ("model", TEXT),
    ("cwd", TEXT),
    ("occurred_at", TIME),
    ("processor_version", INT),
    ("extracted_at", TIME),
    ("friction_tags", TEXT),
    ("user_id", TEXT),
];

/// Rows of an internal table. Sessions and telemetry have none: nothing writes them yet.
pub(super) fn internal_rows(state: &State, table: &str, only: Option<&InternalScope>) -> Result<Vec<RecordBatch>> {
    let empty = |columns: &[(&str, DataType)]| {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        RecordBatch::new_empty(Arc::new(Schema::new(fields)))
    };
    Ok(match table {
        "agnes_sessions" => vec![empty(SESSIONS)],
        "agnes_telemetry" => vec![empty(TELEMETRY)],
        "agnes_audit" => vec![audit_batch(state, only)?],
        _ => Vec::new(),
    })
}

fn audit_batch(state: &State, only: Option<&InternalScope>) -> Result<RecordBatch> {
    let mine = |event: &&AuditEvent| only.is_none_or(|scope| event.user_id.as_deref() == Some(scope.user_id.as_str()));
    let rows: Vec<&AuditEvent> = state.audit.iter().filter(mine).collect();
    let text = |value: &dyn Fn(&AuditEvent) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|event| value(event)).collect::<StringArray>())
    };
    let json = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(
        rows.iter().map(|event| event.timestamp.timestamp_micros()),
    ));
    let durations: Int32Array =
        rows.iter().map(|event| event.duration_ms.map(|ms| i32::try_from(ms).unwrap_or(i32::MAX))).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", text(&|event| Some(event.id.clone())), true),
        ("timestamp", times, true),
        ("user_id", text(&|event| event.user_id.clone()), true),
        ("action", text(&|event| Some(event.action.clone())), true),
        ("resource", text(&|event| event.resource.clone()), true),
        ("params", text(&|event| json(&event.params)), true),
        ("result", text(&|event| event.result.clone()), true),
        ("duration_ms", Arc::new(durations) as ArrayRef, true),
        ("params_before", text(&|event| json(&event.params_before)), true),
        ("client_ip", text(&|event| event.client_ip.clone()), true),
        ("client_kind", text(&|event| event.client_kind.clone()), true),
        ("correlation_id", text(&|event| event.correlation_id.clone()), true),
    ])
    .map_err(|e| Error::internal("read the audit log", e))
}

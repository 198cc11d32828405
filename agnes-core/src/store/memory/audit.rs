//! The audit log, and the rows of internal tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{MemoryStore, State};
use crate::audit::{AuditEvent, AuditFigures, AuditFilter, AuditRepository, FacetValue};
use crate::error::{Error, Result};
use crate::store::InternalScope;

#[async_trait]
impl AuditRepository for MemoryStore {
    async fn append(&self, events: &[AuditEvent]) -> Result<()> {
        self.state().audit.extend_from_slice(events);
        Ok(())
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        let mut state = self.state();
        let count = state.audit.len();
        state.audit.retain(|event| event.timestamp >= before);
        Ok((count - state.audit.len()) as u64)
    }

    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        let mut rows: Vec<AuditEvent> =
            self.state().audit.iter().filter(|event| fits(event, filter)).cloned().collect();
        if let Some((at, id)) = &filter.before {
            rows.retain(|event| (&event.timestamp, &event.id) < (at, id));
        }
        rows.sort_by(|a, b| (b.timestamp, &b.id).cmp(&(a.timestamp, &a.id)));
        rows.truncate(filter.limit);
        Ok(rows)
    }

    async fn facets(&self, since: DateTime<Utc>, limit: usize) -> Result<[Vec<FacetValue>; 5]> {
        let state = self.state();
        let one = |column: fn(&AuditEvent) -> Option<&String>| {
            let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
            for value in state.audit.iter().filter(|event| event.timestamp >= since).filter_map(column) {
                *counts.entry(value).or_default() += 1;
            }
            let mut values: Vec<FacetValue> =
                counts.into_iter().map(|(value, count)| FacetValue { value: value.clone(), count }).collect();
            values.sort_by_key(|value| std::cmp::Reverse(value.count));
            values.truncate(limit);
            values
        };
        Ok([
            one(|event| event.user_id.as_ref()),
            one(|event| Some(&event.action)),
            one(|event| event.result.as_ref()),
            one(|event| event.resource.as_ref()),
            one(|event| event.client_kind.as_ref()),
        ])
    }

    async fn figures(&self, filter: &AuditFilter) -> Result<AuditFigures> {
        let state = self.state();
        let rows: Vec<&AuditEvent> = state.audit.iter().filter(|event| fits(event, filter)).collect();
        let mut times: Vec<i64> = rows.iter().filter_map(|event| event.duration_ms).collect();
        times.sort_unstable();
        let place = (times.len() * 95).div_ceil(100).saturating_sub(1);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of one call")]
        let p95_duration_ms = times.get(place).map(|ms| *ms as f64);
        let failed = |event: &&&AuditEvent| event.result.as_ref().is_some_and(|result| result.starts_with("error"));
        Ok(AuditFigures {
            events_total: rows.len() as u64,
            active_users: rows.iter().filter_map(|event| event.user_id.as_ref()).collect::<BTreeSet<_>>().len() as u64,
            errors: rows.iter().filter(failed).count() as u64,
            p95_duration_ms,
        })
    }

    async fn last_seen(&self, only: Option<&str>) -> Result<BTreeMap<String, DateTime<Utc>>> {
        let mut seen: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
        for event in self.state().audit.iter().filter(|event| event.action != "login_failed") {
            if let Some(user) = event.user_id.as_ref().filter(|user| only.is_none_or(|only| only == *user)) {
                let at = seen.entry(user.clone()).or_insert(event.timestamp);
                *at = event.timestamp.max(*at);
            }
        }
        Ok(seen)
    }
}

/// Whether an event is one of those that are asked for, wherever a page begins.
fn fits(event: &AuditEvent, filter: &AuditFilter) -> bool {
    let starts = |value: &Option<String>, prefix: &Option<String>| {
        prefix.as_ref().is_none_or(|prefix| value.as_ref().is_some_and(|value| value.starts_with(prefix)))
    };
    let one_of = |prefixes: &[String]| prefixes.iter().any(|prefix| event.action.starts_with(prefix));
    filter.since.is_none_or(|since| event.timestamp >= since)
        && (filter.user_id.is_none() || filter.user_id == event.user_id)
        && filter.action_prefix.as_ref().is_none_or(|prefix| event.action.starts_with(prefix))
        && (filter.actions.is_empty() || one_of(&filter.actions))
        && (filter.resource.is_none() || filter.resource == event.resource)
        && starts(&event.result, &filter.result_prefix)
        && filter.text.as_ref().is_none_or(|text| {
            let params = event.params.as_ref().map(|params| params.to_string().to_lowercase());
            params.is_some_and(|params| params.contains(&text.to_lowercase()))
        })
        && (filter.client_kind.is_none() || filter.client_kind == event.client_kind)
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

//! The audit log.

use ::duckdb::{Connection, Row, params, params_from_iter};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::values::{json, json_text, stamp, time};
use super::{Db, Fail};
use crate::audit::{AuditEvent, AuditFilter, AuditRepository};
use crate::error::Result;

pub(super) struct Audits(pub(super) Db);

/// Rows of one INSERT.
const ROWS_AT_ONCE: usize = 200;

fn event(row: &Row<'_>) -> ::duckdb::Result<AuditEvent> {
    Ok(AuditEvent {
        id: row.get(0)?,
        timestamp: time(row.get(1)?).unwrap_or(DateTime::UNIX_EPOCH),
        user_id: row.get(2)?,
        action: row.get(3)?,
        resource: row.get(4)?,
        params: json(row.get(5)?),
        params_before: json(row.get(6)?),
        result: row.get(7)?,
        duration_ms: row.get::<_, Option<i64>>(8)?,
        client_ip: row.get(9)?,
        client_kind: row.get(10)?,
        correlation_id: row.get(11)?,
    })
}

#[async_trait]
impl AuditRepository for Audits {
    async fn append(&self, events: &[AuditEvent]) -> Result<()> {
        let rows: Vec<[Option<String>; 12]> = events
            .iter()
            .map(|e| {
                [
                    Some(e.id.clone()),
                    Some(stamp(e.timestamp)),
                    e.user_id.clone(),
                    Some(e.action.clone()),
                    e.resource.clone(),
                    json_text(e.params.as_ref()),
                    json_text(e.params_before.as_ref()),
                    e.result.clone(),
                    e.duration_ms.map(|ms| ms.min(i64::from(i32::MAX)).to_string()),
                    e.client_ip.clone(),
                    e.client_kind.clone(),
                    e.correlation_id.clone(),
                ]
            })
            .collect();
        self.0
            .write("write the audit log", move |conn| {
                let one = "(?, ?::TIMESTAMP, ?, ?, ?, ?::JSON, ?::JSON, ?, ?::INTEGER, ?, ?, ?)";
                for chunk in rows.chunks(ROWS_AT_ONCE) {
                    let sql = format!(
                        "INSERT INTO audit_log (id, timestamp, user_id, action, resource, params, params_before, result, duration_ms, \
                         client_ip, client_kind, correlation_id) VALUES {}",
                        vec![one; chunk.len()].join(", ")
                    );
                    conn.execute(&sql, params_from_iter(chunk.iter().flatten()))?;
                }
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        let filter = filter.clone();
        self.0
            .read("read the audit log", move |conn| {
                let mut wheres = vec!["true".to_owned()];
                let mut values: Vec<String> = Vec::new();
                let mut add = |text: &str, value: Option<String>| {
                    if let Some(value) = value {
                        wheres.push(text.to_owned());
                        values.push(value);
                    }
                };
                add("timestamp >= ?::TIMESTAMP", filter.since.map(stamp));
                add("user_id = ?", filter.user_id);
                add("starts_with(action, ?)", filter.action_prefix);
                add("resource = ?", filter.resource);
                add("starts_with(result, ?)", filter.result_prefix);
                add("contains(lower(params::VARCHAR), lower(?))", filter.text);
                add("client_kind = ?", filter.client_kind);
                if let Some((at, id)) = filter.before {
                    wheres.push("(timestamp, id) < (?::TIMESTAMP, ?)".to_owned());
                    values.extend([stamp(at), id]);
                }
                let sql = format!(
                    "SELECT id, epoch_us(timestamp), user_id, action, resource, params::VARCHAR, params_before::VARCHAR, result, \
                     duration_ms::BIGINT, client_ip, client_kind, correlation_id FROM audit_log WHERE {} \
                     ORDER BY timestamp DESC, id DESC LIMIT {}",
                    wheres.join(" AND "),
                    filter.limit
                );
                conn.prepare(&sql)?.query_map(params_from_iter(values), event)?.collect()
            })
            .await
    }
}

/// Writes a row about something that Agnes did to its own state.
pub(super) fn tell(
    conn: &Connection,
    by: &str,
    action: &str,
    params: &Value,
    now: DateTime<Utc>,
) -> ::duckdb::Result<()> {
    conn.execute(
        "INSERT INTO audit_log (id, timestamp, user_id, action, resource, params, result) \
         VALUES (?, ?::TIMESTAMP, ?, ?, 'state', ?, 'success')",
        params![uuid::Uuid::new_v4().simple().to_string(), stamp(now), by, action, params.to_string()],
    )?;
    Ok(())
}

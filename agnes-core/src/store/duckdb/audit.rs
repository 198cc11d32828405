//! The audit log.

use std::collections::BTreeMap;

use ::duckdb::{Connection, Row, params, params_from_iter};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::values::{json, json_text, stamp, time};
use super::{Db, Fail};
use crate::audit::{AuditEvent, AuditFigures, AuditFilter, AuditRepository, FacetValue};
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

    async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        self.0
            .write("delete old rows of the audit log", move |conn| {
                Ok(conn.execute("DELETE FROM audit_log WHERE timestamp < ?::TIMESTAMP", [stamp(before)])? as u64)
            })
            .await
    }

    async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        let filter = filter.clone();
        self.0
            .read("read the audit log", move |conn| {
                let (wheres, values) = conditions(&filter, true);
                let sql = format!(
                    "SELECT id, epoch_us(timestamp), user_id, action, resource, params::VARCHAR, params_before::VARCHAR, result, \
                     duration_ms::BIGINT, client_ip, client_kind, correlation_id FROM audit_log WHERE {} \
                     ORDER BY timestamp DESC, id DESC LIMIT {}",
                    wheres, filter.limit
                );
                conn.prepare(&sql)?.query_map(params_from_iter(values), event)?.collect()
            })
            .await
    }

    async fn facets(&self, since: DateTime<Utc>, limit: usize) -> Result<[Vec<FacetValue>; 5]> {
        self.0
            .read("count the audit log", move |conn| {
                let one = |column: &str| {
                    let sql = format!(
                        "SELECT {column}, count(*) FROM audit_log WHERE timestamp >= ?::TIMESTAMP AND {column} IS NOT NULL \
                         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}"
                    );
                    let value = |row: &Row<'_>| Ok(FacetValue { value: row.get(0)?, count: row.get(1)? });
                    conn.prepare(&sql)?.query_map([stamp(since)], value)?.collect::<::duckdb::Result<Vec<_>>>()
                };
                Ok([one("user_id")?, one("action")?, one("result")?, one("resource")?, one("client_kind")?])
            })
            .await
    }

    async fn figures(&self, filter: &AuditFilter) -> Result<AuditFigures> {
        let filter = filter.clone();
        self.0
            .read("count the audit log", move |conn| {
                let (wheres, values) = conditions(&filter, false);
                let sql = format!(
                    "SELECT count(*), count(DISTINCT user_id), count(*) FILTER (starts_with(result, 'error')), \
                     quantile_disc(duration_ms::DOUBLE, 0.95) FROM audit_log WHERE {wheres}"
                );
                conn.query_row(&sql, params_from_iter(values), |row| {
                    Ok(AuditFigures {
                        events_total: row.get(0)?,
                        active_users: row.get(1)?,
                        errors: row.get(2)?,
                        p95_duration_ms: row.get(3)?,
                    })
                })
            })
            .await
    }

    async fn last_seen(&self, only: Option<&str>) -> Result<BTreeMap<String, DateTime<Utc>>> {
        let only = only.map(str::to_owned);
        self.0
            .read("read who was seen when", move |conn| {
                let sql = "SELECT user_id, epoch_us(max(timestamp)) FROM audit_log \
                           WHERE user_id IS NOT NULL AND action <> 'login_failed' AND (? IS NULL OR user_id = ?) GROUP BY 1";
                let mut seen = BTreeMap::new();
                let mut statement = conn.prepare(sql)?;
                for row in statement.query_map(params![only, only], |row| Ok((row.get(0)?, time(row.get(1)?))))? {
                    if let (user, Some(at)) = row? {
                        seen.insert(user, at);
                    }
                }
                Ok(seen)
            })
            .await
    }
}

/// What comes after `WHERE`, and its values.
fn conditions(filter: &AuditFilter, with_cursor: bool) -> (String, Vec<String>) {
    let mut wheres = vec!["true".to_owned()];
    let mut values: Vec<String> = Vec::new();
    let mut add = |text: &str, value: Option<String>| {
        if let Some(value) = value {
            wheres.push(text.to_owned());
            values.push(value);
        }
    };
    add("timestamp >= ?::TIMESTAMP", filter.since.map(stamp));
    add("user_id = ?", filter.user_id.clone());
    add("starts_with(action, ?)", filter.action_prefix.clone());
    add("resource = ?", filter.resource.clone());
    add("starts_with(result, ?)", filter.result_prefix.clone());
    add("contains(lower(params::VARCHAR), lower(?))", filter.text.clone());
    add("client_kind = ?", filter.client_kind.clone());
    if !filter.actions.is_empty() {
        wheres.push(format!("({})", vec!["starts_with(action, ?)"; filter.actions.len()].join(" OR ")));
        values.extend(filter.actions.iter().cloned());
    }
    if let Some((at, id)) = filter.before.as_ref().filter(|_| with_cursor) {
        wheres.push("(timestamp, id) < (?::TIMESTAMP, ?)".to_owned());
        values.extend([stamp(*at), id.clone()]);
    }
    (wheres.join(" AND "), values)
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

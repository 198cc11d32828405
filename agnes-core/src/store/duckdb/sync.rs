//! Sync state and history.

use ::duckdb::{Connection, OptionalExt, Row, params, params_from_iter};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::values::{json, stamp, time};
use super::{Db, Fail};
use crate::error::Result;
use crate::sync::{SyncHistory, SyncRepository, SyncState, SyncStatus, SyncUpdate};

pub(super) struct Syncs(pub(super) Db);

/// Rows of one INSERT.
const ROWS_AT_ONCE: usize = 200;

const STATE: &str = "table_id, epoch_us(last_sync), rows, file_size_bytes, uncompressed_size_bytes, columns, hash, status, error, \
                     parts::VARCHAR, cursor::VARCHAR, drift::VARCHAR";
const HISTORY: &str = "id, table_id, epoch_us(synced_at), rows, duration_ms, status, error";

fn state(row: &Row<'_>) -> ::duckdb::Result<SyncState> {
    Ok(SyncState {
        table_id: row.get(0)?,
        last_sync: time(row.get(1)?),
        rows: row.get(2)?,
        file_size_bytes: row.get(3)?,
        uncompressed_size_bytes: row.get(4)?,
        columns: row.get(5)?,
        hash: row.get(6)?,
        status: SyncStatus::from_stored(row.get::<_, Option<String>>(7)?.as_deref().unwrap_or("ok")),
        error: row.get(8)?,
        parts: json(row.get(9)?).and_then(|parts| serde_json::from_value(parts).ok()),
        cursor: json(row.get(10)?),
        drift: json(row.get(11)?),
    })
}

fn history(row: &Row<'_>) -> ::duckdb::Result<SyncHistory> {
    Ok(SyncHistory {
        id: row.get(0)?,
        table_id: row.get(1)?,
        synced_at: time(row.get(2)?).unwrap_or(DateTime::UNIX_EPOCH),
        rows: row.get(3)?,
        duration_ms: row.get::<_, Option<i32>>(4)?.map(i64::from),
        status: SyncStatus::from_stored(row.get::<_, Option<String>>(5)?.as_deref().unwrap_or("ok")),
        error: row.get(6)?,
    })
}

/// Values of one row, as text that DuckDB casts to the column's type.
type Cells = Vec<Option<String>>;

fn insert(conn: &Connection, head: &str, tail: &str, casts: &[&str], rows: &[Cells]) -> ::duckdb::Result<()> {
    let marks: Vec<String> = casts.iter().map(|cast| format!("?::{cast}")).collect();
    let marks = format!("({})", marks.join(", "));
    for chunk in rows.chunks(ROWS_AT_ONCE) {
        let sql = format!("{head} VALUES {} {tail}", vec![marks.as_str(); chunk.len()].join(", "));
        conn.execute(&sql, params_from_iter(chunk.iter().flatten()))?;
    }
    Ok(())
}

#[async_trait]
impl SyncRepository for Syncs {
    async fn update(&self, updates: &[SyncUpdate], now: DateTime<Utc>) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let updates = updates.to_vec();
        self.0
            .write_syncs("record syncs", move |conn| {
                let at = stamp(now);
                let casts = ["VARCHAR", "TIMESTAMP", "BIGINT", "BIGINT", "INTEGER", "VARCHAR", "JSON"];
                let cells = |update: &SyncUpdate| -> Cells {
                    vec![
                        Some(update.table_id.clone()),
                        update.bump_last_sync.then(|| at.clone()),
                        Some(update.rows.to_string()),
                        Some(update.file_size_bytes.to_string()),
                        update.columns.map(|n| n.to_string()),
                        Some(update.hash.clone()),
                        update.parts.as_ref().and_then(|parts| serde_json::to_string(parts).ok()),
                    ]
                };
                // One row a table, the last: a statement may touch a row only once.
                let latest: std::collections::BTreeMap<&str, &SyncUpdate> =
                    updates.iter().map(|update| (update.table_id.as_str(), update)).collect();
                let rows: Vec<Cells> = latest.into_values().map(cells).collect();
                insert(
                    conn,
                    "INSERT INTO sync_state (table_id, last_sync, rows, file_size_bytes, columns, hash, parts)",
                    "ON CONFLICT (table_id) DO UPDATE SET last_sync = coalesce(excluded.last_sync, sync_state.last_sync), \
                     rows = excluded.rows, file_size_bytes = excluded.file_size_bytes, columns = excluded.columns, \
                     hash = excluded.hash, parts = excluded.parts, status = 'ok', error = NULL",
                    &casts,
                    &rows,
                )?;
                let past: Vec<Cells> = updates
                    .iter()
                    .filter(|update| update.history)
                    .map(|update| {
                        vec![
                            Some(uuid::Uuid::new_v4().to_string()),
                            Some(update.table_id.clone()),
                            Some(at.clone()),
                            Some(update.rows.to_string()),
                            update.duration_ms.map(|ms| ms.min(i64::from(i32::MAX)).to_string()),
                            Some("ok".to_owned()),
                        ]
                    })
                    .collect();
                insert(
                    conn,
                    "INSERT INTO sync_history (id, table_id, synced_at, rows, duration_ms, status)",
                    "",
                    &["VARCHAR", "VARCHAR", "TIMESTAMP", "BIGINT", "INTEGER", "VARCHAR"],
                    &past,
                )?;
                Ok(())
            })
            .await
    }

    async fn set_error(&self, table_id: &str, message: &str, now: DateTime<Utc>) -> Result<()> {
        let (id, message) = (table_id.to_owned(), message.to_owned());
        self.0
            .write_syncs("record a failed sync", move |conn| {
                conn.execute(
                    "INSERT INTO sync_state (table_id, status, error) VALUES (?, 'error', ?) \
                     ON CONFLICT (table_id) DO UPDATE SET status = 'error', error = excluded.error",
                    [&id, &message],
                )?;
                conn.execute(
                    "INSERT INTO sync_history (id, table_id, synced_at, status, error) VALUES (?, ?, ?::TIMESTAMP, 'error', ?)",
                    params![uuid::Uuid::new_v4().to_string(), id, stamp(now), message],
                )?;
                Ok(())
            })
            .await
    }

    async fn clear_error(&self, table_id: &str) -> Result<()> {
        let id = table_id.to_owned();
        self.0
            .write_syncs("clear a failed sync", move |conn| {
                conn.execute(
                    "UPDATE sync_state SET status = 'ok', error = '' WHERE table_id = ? AND status = 'error'",
                    [id],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn set_skipped(&self, table_id: &str, reason: &str) -> Result<()> {
        let (id, reason) = (table_id.to_owned(), reason.to_owned());
        self.0
            .write_syncs("record a skipped sync", move |conn| {
                conn.execute(
                    "INSERT INTO sync_state (table_id, status, error) VALUES (?, 'skipped', ?) \
                     ON CONFLICT (table_id) DO UPDATE SET status = 'skipped', error = excluded.error \
                     WHERE sync_state.status IS DISTINCT FROM 'error'",
                    [id, reason],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn set_cursor(&self, table_id: &str, cursor: &Value) -> Result<()> {
        let (id, cursor) = (table_id.to_owned(), cursor.to_string());
        self.0
            .write_syncs("keep a cursor", move |conn| {
                conn.execute(
                    "INSERT INTO sync_state (table_id, cursor) VALUES (?, ?) \
                     ON CONFLICT (table_id) DO UPDATE SET cursor = excluded.cursor",
                    [id, cursor],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn set_drift(&self, table_id: &str, drift: &Value) -> Result<()> {
        let (id, drift) = (table_id.to_owned(), drift.to_string());
        self.0
            .write_syncs("record schema drift", move |conn| {
                conn.execute(
                    "INSERT INTO sync_state (table_id, drift) VALUES (?, ?) \
                     ON CONFLICT (table_id) DO UPDATE SET drift = excluded.drift",
                    [id, drift],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn get(&self, table_id: &str) -> Result<Option<SyncState>> {
        let id = table_id.to_owned();
        self.0
            .read("read a sync state", move |conn| {
                conn.query_row(&format!("SELECT {STATE} FROM sync_state WHERE table_id = ?"), [id], state).optional()
            })
            .await
    }

    async fn all(&self) -> Result<Vec<SyncState>> {
        self.0
            .read("read the sync states", |conn| {
                conn.prepare(&format!("SELECT {STATE} FROM sync_state ORDER BY table_id"))?
                    .query_map([], state)?
                    .collect()
            })
            .await
    }

    async fn history(&self, table_id: &str, limit: usize) -> Result<Vec<SyncHistory>> {
        let id = table_id.to_owned();
        self.0
            .read("read the sync history", move |conn| {
                let sql = format!(
                    "SELECT {HISTORY} FROM sync_history WHERE table_id = ? ORDER BY synced_at DESC, rowid DESC LIMIT {limit}"
                );
                conn.prepare(&sql)?.query_map([id], history)?.collect()
            })
            .await
    }

    async fn recent(&self, since: DateTime<Utc>, limit: usize, status: Option<SyncStatus>) -> Result<Vec<SyncHistory>> {
        self.0
            .read("read the sync history", move |conn| {
                let status = status.map(SyncStatus::as_str);
                let sql = format!(
                    "SELECT {HISTORY} FROM sync_history WHERE synced_at >= ?::TIMESTAMP AND (? IS NULL OR status = ?) \
                     ORDER BY synced_at DESC, rowid DESC LIMIT {limit}"
                );
                conn.prepare(&sql)?.query_map(params![stamp(since), status, status], history)?.collect()
            })
            .await
    }
}

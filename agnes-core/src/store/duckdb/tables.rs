//! The table registry.

use std::sync::atomic::Ordering;

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Db;
use super::values::{json, json_text, stamp, stamp_opt, time};
use crate::error::Result;
use crate::registry::{ColumnMetadata, QueryMode, RegisteredTable, SyncStrategy, TableRepository};

pub(super) struct Tables(pub(super) Db);

const COLUMNS: &str = "id, name, source_type, source, bucket, source_table, source_query, sync_strategy, query_mode, sync_schedule, \
                       primary_key, folder, description, registered_by, epoch_us(registered_at), incremental_window_days, \
                       max_history_days, incremental_column, where_filters, partition_by, partition_granularity, \
                       initial_load_chunk_days, bq_fqn, server_only, options::VARCHAR";

/// Reads a primary key in any form that was ever stored: a JSON array, a comma list, a
/// list with quotes, one name.
fn key_columns(text: Option<String>) -> Option<Vec<String>> {
    let text = text?;
    let text = text.trim();
    if let Ok(Value::Array(items)) = serde_json::from_str(text) {
        let names: Vec<String> = items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        return (!names.is_empty()).then_some(names);
    }
    let names: Vec<String> = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .split(',')
        .map(|name| name.trim().trim_matches(['\'', '"']).to_owned())
        .filter(|name| !name.is_empty() && name != "null")
        .collect();
    (!names.is_empty()).then_some(names)
}

fn table(row: &Row<'_>) -> ::duckdb::Result<RegisteredTable> {
    let text = |n: usize| row.get::<_, Option<String>>(n);
    Ok(RegisteredTable {
        id: row.get(0)?,
        name: row.get(1)?,
        source_type: text(2)?,
        source: text(3)?,
        bucket: text(4)?,
        source_table: text(5)?,
        source_query: text(6)?,
        sync_strategy: text(7)?.and_then(|t| SyncStrategy::parse(&t)).unwrap_or(SyncStrategy::FullRefresh),
        query_mode: text(8)?.and_then(|t| QueryMode::parse(&t)).unwrap_or(QueryMode::Local),
        sync_schedule: text(9)?,
        primary_key: key_columns(text(10)?),
        folder: text(11)?,
        description: text(12)?,
        registered_by: text(13)?,
        registered_at: time(row.get(14)?),
        incremental_window_days: row.get(15)?,
        max_history_days: row.get(16)?,
        incremental_column: text(17)?,
        where_filters: json(text(18)?),
        partition_by: text(19)?,
        partition_granularity: text(20)?,
        initial_load_chunk_days: row.get(21)?,
        bq_fqn: text(22)?,
        server_only: row.get::<_, Option<bool>>(23)?.unwrap_or(false),
        options: json(text(24)?),
    })
}

fn find(conn: &Connection, reference: &str) -> ::duckdb::Result<Option<RegisteredTable>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM table_registry WHERE lower(id) = lower(?) OR lower(name) = lower(?) \
         ORDER BY lower(id) = lower(?) DESC, id LIMIT 1"
    );
    conn.query_row(&sql, [reference, reference, reference], table).optional()
}

/// Inserts a row, or replaces the one with its id.
fn put(conn: &Connection, t: &RegisteredTable) -> ::duckdb::Result<()> {
    let key = t.primary_key.as_ref().map(|names| Value::from(names.clone()).to_string());
    conn.execute(
        "INSERT INTO table_registry (id, name, source_type, source, bucket, source_table, source_query, sync_strategy, \
         query_mode, sync_schedule, primary_key, folder, description, registered_by, registered_at, \
         incremental_window_days, max_history_days, incremental_column, where_filters, partition_by, \
         partition_granularity, initial_load_chunk_days, bq_fqn, server_only, options) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?::TIMESTAMP, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, source_type = excluded.source_type, \
         source = excluded.source, bucket = excluded.bucket, source_table = excluded.source_table, \
         source_query = excluded.source_query, sync_strategy = excluded.sync_strategy, \
         query_mode = excluded.query_mode, sync_schedule = excluded.sync_schedule, \
         primary_key = excluded.primary_key, folder = excluded.folder, description = excluded.description, \
         incremental_window_days = excluded.incremental_window_days, \
         max_history_days = excluded.max_history_days, incremental_column = excluded.incremental_column, \
         where_filters = excluded.where_filters, partition_by = excluded.partition_by, \
         partition_granularity = excluded.partition_granularity, \
         initial_load_chunk_days = excluded.initial_load_chunk_days, bq_fqn = excluded.bq_fqn, \
         server_only = excluded.server_only, options = excluded.options",
        params![
            t.id,
            t.name,
            t.source_type,
            t.source,
            t.bucket,
            t.source_table,
            t.source_query,
            t.sync_strategy.as_str(),
            t.query_mode.as_str(),
            t.sync_schedule,
            key,
            t.folder,
            t.description,
            t.registered_by,
            stamp_opt(t.registered_at),
            t.incremental_window_days,
            t.max_history_days,
            t.incremental_column,
            json_text(t.where_filters.as_ref()),
            t.partition_by,
            t.partition_granularity,
            t.initial_load_chunk_days,
            t.bq_fqn,
            t.server_only,
            json_text(t.options.as_ref()),
        ],
    )?;
    Ok(())
}

#[async_trait]
impl TableRepository for Tables {
    async fn insert(&self, table: &RegisteredTable) -> Result<bool> {
        let table = table.clone();
        self.0
            .write("register a table", move |conn| {
                let taken = find(conn, &table.id)?.is_some() || find(conn, &table.name)?.is_some();
                if !taken {
                    put(conn, &table)?;
                }
                Ok(!taken)
            })
            .await
    }

    async fn upsert(&self, table: &RegisteredTable) -> Result<()> {
        let table = table.clone();
        self.0.write("register a table", move |conn| Ok(put(conn, &table)?)).await
    }

    async fn find(&self, id_or_name: &str) -> Result<Option<RegisteredTable>> {
        let reference = id_or_name.to_owned();
        self.0.read("read a registered table", move |conn| find(conn, &reference)).await
    }

    async fn list(&self) -> Result<Vec<RegisteredTable>> {
        self.0
            .read("list the registered tables", |conn| {
                conn.prepare(&format!("SELECT {COLUMNS} FROM table_registry ORDER BY name, id"))?
                    .query_map([], table)?
                    .collect()
            })
            .await
    }

    async fn delete(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.0
            .write_then(
                "unregister a table",
                move |conn| {
                    let sql = format!("SELECT {COLUMNS} FROM table_registry WHERE lower(id) = lower(?)");
                    let Some(row) = conn.query_row(&sql, [&id], table).optional()? else { return Ok(false) };
                    for (table, column, value) in [
                        ("sync_state", "table_id", &row.name),
                        ("sync_history", "table_id", &row.name),
                        ("table_profiles", "table_id", &row.name),
                        ("view_ownership", "view_name", &row.name),
                        ("column_metadata", "table_id", &row.id),
                        ("bq_metadata_cache", "table_id", &row.id),
                    ] {
                        conn.execute(&format!("DELETE FROM {table} WHERE lower({column}) = lower(?)"), [value])?;
                    }
                    conn.execute(
                        "DELETE FROM resource_grants WHERE resource_type = 'table' AND lower(resource_id) = lower(?)",
                        [&row.id],
                    )?;
                    conn.execute("DELETE FROM table_registry WHERE id = ?", [&row.id])?;
                    Ok(true)
                },
                |inner, _| {
                    inner.revision.fetch_add(1, Ordering::SeqCst);
                    inner.syncs.fetch_add(1, Ordering::SeqCst);
                },
            )
            .await
    }

    async fn column_metadata(&self, table_id: &str) -> Result<Vec<ColumnMetadata>> {
        let id = table_id.to_owned();
        self.0
            .read("read the descriptions of columns", move |conn| {
                conn.prepare(
                    "SELECT column_name, basetype, description, coalesce(confidence, 'manual'), epoch_us(updated_at) FROM column_metadata \
                     WHERE table_id = ? ORDER BY column_name",
                )?
                .query_map([id], |row| {
                    Ok(ColumnMetadata {
                        column_name: row.get(0)?,
                        basetype: row.get(1)?,
                        description: row.get(2)?,
                        confidence: row.get(3)?,
                        updated_at: time(row.get(4)?),
                    })
                })?
                .collect()
            })
            .await
    }

    async fn set_column_metadata(&self, table_id: &str, columns: &[ColumnMetadata], now: DateTime<Utc>) -> Result<()> {
        let (id, columns) = (table_id.to_owned(), columns.to_vec());
        self.0
            .write("describe columns", move |conn| {
                for column in columns {
                    conn.execute(
                        "INSERT INTO column_metadata (table_id, column_name, basetype, description, confidence, updated_at) \
                         VALUES (?, ?, ?, ?, ?, ?::TIMESTAMP) ON CONFLICT (table_id, column_name) DO UPDATE SET \
                         basetype = excluded.basetype, description = excluded.description, confidence = excluded.confidence, \
                         updated_at = excluded.updated_at",
                        params![id, column.column_name, column.basetype, column.description, column.confidence, stamp(now)],
                    )?;
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::key_columns;

    #[test]
    fn keys_in_every_stored_form() {
        for (text, wanted) in [
            (r#"["a","b"]"#, Some(vec!["a", "b"])),
            ("a, b", Some(vec!["a", "b"])),
            ("['a', 'b']", Some(vec!["a", "b"])),
            ("a", Some(vec!["a"])),
            ("", None),
            ("[]", None),
            ("null", None),
        ] {
            let wanted = wanted.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(key_columns(Some(text.to_owned())), wanted, "{text}");
        }
    }
}

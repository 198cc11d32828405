//! What warehouses told of tables.

use ::duckdb::params;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Db;
use super::values::{json, stamp, stamp_opt, time};
use crate::error::Result;
use crate::warehouse::{MetadataRepository, TableMetadata};

#[derive(Debug)]
pub(super) struct Metadata(pub(super) Db);

#[async_trait]
impl MetadataRepository for Metadata {
    async fn list(&self) -> Result<Vec<TableMetadata>> {
        self.0
            .read("read what warehouses told", move |conn| {
                let sql = "SELECT table_id, rows, size_bytes, partition_by, clustered_by::VARCHAR, entity_type, \
                           known_columns::VARCHAR, epoch_us(refreshed_at), epoch_us(error_at), error_msg \
                           FROM bq_metadata_cache ORDER BY table_id";
                let number = |given: Option<i64>| given.and_then(|given| u64::try_from(given).ok());
                let names = |text: Option<String>| {
                    json(text).and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
                };
                let one = |row: &::duckdb::Row<'_>| {
                    Ok(TableMetadata {
                        table_id: row.get(0)?,
                        rows: number(row.get(1)?),
                        size_bytes: number(row.get(2)?),
                        partition_by: row.get(3)?,
                        clustered_by: names(row.get(4)?),
                        entity_type: row.get(5)?,
                        known_columns: names(row.get(6)?),
                        refreshed_at: time(row.get(7)?),
                        error_at: time(row.get(8)?),
                        error_msg: row.get(9)?,
                    })
                };
                conn.prepare(sql)?.query_map([], one)?.collect()
            })
            .await
    }

    async fn put(&self, metadata: &TableMetadata) -> Result<()> {
        let told = metadata.clone();
        self.0
            .write("keep what a warehouse told", move |conn| {
                let number = |given: Option<u64>| given.and_then(|given| i64::try_from(given).ok());
                let names = |given: &[String]| serde_json::json!(given).to_string();
                conn.execute(
                    "INSERT OR REPLACE INTO bq_metadata_cache (table_id, rows, size_bytes, partition_by, clustered_by, \
                     entity_type, known_columns, refreshed_at, error_at, error_msg) \
                     VALUES (?, ?, ?, ?, ?::JSON, ?, ?::JSON, ?::TIMESTAMP, ?::TIMESTAMP, ?)",
                    params![
                        told.table_id,
                        number(told.rows),
                        number(told.size_bytes),
                        told.partition_by,
                        names(&told.clustered_by),
                        told.entity_type,
                        names(&told.known_columns),
                        stamp_opt(told.refreshed_at),
                        stamp_opt(told.error_at),
                        told.error_msg
                    ],
                )?;
                Ok::<_, super::Fail>(())
            })
            .await
    }

    async fn fail(&self, table_id: &str, words: &str, now: DateTime<Utc>) -> Result<()> {
        let (id, words) = (table_id.to_owned(), words.to_owned());
        self.0
            .write("note what a warehouse did not tell", move |conn| {
                conn.execute(
                    "INSERT INTO bq_metadata_cache (table_id, error_at, error_msg) VALUES (?, ?::TIMESTAMP, ?) \
                     ON CONFLICT (table_id) DO UPDATE SET error_at = excluded.error_at, error_msg = excluded.error_msg",
                    params![id, stamp(now), words],
                )?;
                Ok::<_, super::Fail>(())
            })
            .await
    }
}

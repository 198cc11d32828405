//! Profiles.

use ::duckdb::{OptionalExt, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Db;
use super::values::{stamp, time};
use crate::error::Result;
use crate::sync::{ProfileRepository, StoredProfile};

pub(super) struct Profiles(pub(super) Db);

#[async_trait]
impl ProfileRepository for Profiles {
    async fn put(&self, table_id: &str, content_hash: &str, profile: &Value, now: DateTime<Utc>) -> Result<()> {
        let (id, hash, profile) = (table_id.to_owned(), content_hash.to_owned(), profile.to_string());
        self.0
            .write("keep a profile", move |conn| {
                conn.execute(
                    "INSERT INTO table_profiles (table_id, profile, profiled_at, content_hash) VALUES (?, ?, ?::TIMESTAMP, ?) \
                     ON CONFLICT (table_id) DO UPDATE SET profile = excluded.profile, profiled_at = excluded.profiled_at, \
                     content_hash = excluded.content_hash",
                    params![id, profile, stamp(now), hash],
                )?;
                Ok(())
            })
            .await
    }

    async fn get(&self, table_id: &str) -> Result<Option<StoredProfile>> {
        let id = table_id.to_owned();
        self.0
            .read("read a profile", move |conn| {
                conn.query_row(
                    "SELECT profile::VARCHAR, content_hash, epoch_us(profiled_at) FROM table_profiles WHERE table_id = ?",
                    [id],
                    |row| {
                        Ok(StoredProfile {
                            profile: serde_json::from_str(&row.get::<_, String>(0)?).unwrap_or_default(),
                            content_hash: row.get(1)?,
                            profiled_at: time(row.get(2)?).unwrap_or(DateTime::UNIX_EPOCH),
                        })
                    },
                )
                .optional()
            })
            .await
    }

    async fn hashes(&self) -> Result<Vec<(String, String)>> {
        self.0
            .read("read the profiles' hashes", |conn| {
                conn.prepare("SELECT table_id, content_hash FROM table_profiles WHERE content_hash IS NOT NULL")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await
    }
}

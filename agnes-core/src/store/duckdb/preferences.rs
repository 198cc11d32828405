//! Sync preferences.

use ::duckdb::params;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Db;
use super::values::{stamp, time};
use crate::error::Result;
use crate::sync::{PreferenceRepository, SyncPreference, SyncPreferences, TableMode};

pub(super) struct Preferences(pub(super) Db);

/// The row that keeps the mode of a user; no table has this name.
const MODE: &str = "*";

#[async_trait]
impl PreferenceRepository for Preferences {
    async fn of(&self, user_id: &str) -> Result<SyncPreferences> {
        let user = user_id.to_owned();
        self.0
            .read("read sync preferences", move |conn| {
                let sql = "SELECT dataset, coalesce(enabled, false), coalesce(table_mode, 'all'), epoch_us(updated_at) \
                           FROM user_sync_settings WHERE user_id = ? ORDER BY dataset";
                let mut preferences = SyncPreferences::default();
                let mut statement = conn.prepare(sql)?;
                let mut rows = statement.query([user])?;
                while let Some(row) = rows.next()? {
                    let dataset: String = row.get(0)?;
                    if TableMode::from_stored(&row.get::<_, String>(2)?) == TableMode::Explicit {
                        preferences.table_mode = TableMode::Explicit;
                    }
                    if dataset != MODE {
                        let (enabled, updated_at) = (row.get(1)?, time(row.get(3)?));
                        preferences.settings.push(SyncPreference { dataset, enabled, updated_at });
                    }
                }
                Ok(preferences)
            })
            .await
    }

    async fn set(
        &self,
        user_id: &str,
        entries: &[(String, bool)],
        table_mode: Option<TableMode>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (user, entries) = (user_id.to_owned(), entries.to_vec());
        self.0
            .write_syncs("keep sync preferences", move |conn| {
                for (dataset, enabled) in &entries {
                    conn.execute(
                        "INSERT INTO user_sync_settings (user_id, dataset, enabled, updated_at) VALUES (?, ?, ?, ?::TIMESTAMP) \
                         ON CONFLICT (user_id, dataset) DO UPDATE SET enabled = excluded.enabled, updated_at = excluded.updated_at",
                        params![user, dataset, enabled, stamp(now)],
                    )?;
                }
                if let Some(mode) = table_mode {
                    // Rows of older versions carry the mode; from now on only this one does.
                    conn.execute("UPDATE user_sync_settings SET table_mode = 'all' WHERE user_id = ?", [&user])?;
                    conn.execute(
                        "INSERT INTO user_sync_settings (user_id, dataset, enabled, table_mode, updated_at) \
                         VALUES (?, ?, false, ?, ?::TIMESTAMP) ON CONFLICT (user_id, dataset) \
                         DO UPDATE SET table_mode = excluded.table_mode, updated_at = excluded.updated_at",
                        params![user, MODE, mode.as_str(), stamp(now)],
                    )?;
                }
                Ok(())
            })
            .await
    }
}

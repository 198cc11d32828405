//! Sync state, history, profiles.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{MemoryStore, State};
use crate::error::Result;
use crate::sync::{ProfileRepository, StoredProfile, SyncHistory, SyncRepository, SyncState, SyncStatus, SyncUpdate};

impl State {
    fn sync_state(&mut self, table_id: &str) -> &mut SyncState {
        self.sync_revision += 1;
        self.states.entry(table_id.to_owned()).or_insert_with(|| SyncState {
            table_id: table_id.to_owned(),
            last_sync: None,
            rows: None,
            file_size_bytes: None,
            uncompressed_size_bytes: None,
            columns: None,
            hash: None,
            status: SyncStatus::Ok,
            error: None,
            parts: None,
            cursor: None,
            drift: None,
        })
    }

    fn past(&self, wanted: impl Fn(&SyncHistory) -> bool, limit: usize) -> Vec<SyncHistory> {
        let mut rows: Vec<SyncHistory> = self.history.iter().rev().filter(|past| wanted(past)).cloned().collect();
        // Stable: of two with one time, the one recorded last comes first.
        rows.sort_by_key(|past| std::cmp::Reverse(past.synced_at));
        rows.truncate(limit);
        rows
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[async_trait]
impl SyncRepository for MemoryStore {
    async fn update(&self, updates: &[SyncUpdate], now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        for update in updates {
            let row = state.sync_state(&update.table_id);
            if update.bump_last_sync {
                row.last_sync = Some(now);
            }
            row.rows = Some(update.rows);
            row.file_size_bytes = Some(update.file_size_bytes);
            row.columns = update.columns;
            row.hash = Some(update.hash.clone());
            row.parts.clone_from(&update.parts);
            row.status = SyncStatus::Ok;
            row.error = None;
            if update.history {
                state.history.push(SyncHistory {
                    id: new_id(),
                    table_id: update.table_id.clone(),
                    synced_at: now,
                    rows: Some(update.rows),
                    duration_ms: update.duration_ms,
                    status: SyncStatus::Ok,
                    error: None,
                });
            }
        }
        Ok(())
    }

    async fn set_error(&self, table_id: &str, message: &str, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        let row = state.sync_state(table_id);
        row.status = SyncStatus::Error;
        row.error = Some(message.to_owned());
        state.history.push(SyncHistory {
            id: new_id(),
            table_id: table_id.to_owned(),
            synced_at: now,
            rows: None,
            duration_ms: None,
            status: SyncStatus::Error,
            error: Some(message.to_owned()),
        });
        Ok(())
    }

    async fn clear_error(&self, table_id: &str) -> Result<()> {
        let mut state = self.state();
        state.sync_revision += 1;
        if let Some(row) = state.states.get_mut(table_id).filter(|row| row.status == SyncStatus::Error) {
            row.status = SyncStatus::Ok;
            row.error = Some(String::new());
        }
        Ok(())
    }

    async fn set_skipped(&self, table_id: &str, reason: &str) -> Result<()> {
        let mut state = self.state();
        let row = state.sync_state(table_id);
        if row.status != SyncStatus::Error {
            row.status = SyncStatus::Skipped;
            row.error = Some(reason.to_owned());
        }
        Ok(())
    }

    async fn set_cursor(&self, table_id: &str, cursor: &Value) -> Result<()> {
        self.state().sync_state(table_id).cursor = Some(cursor.clone());
        Ok(())
    }

    async fn set_drift(&self, table_id: &str, drift: &Value) -> Result<()> {
        self.state().sync_state(table_id).drift = Some(drift.clone());
        Ok(())
    }

    async fn get(&self, table_id: &str) -> Result<Option<SyncState>> {
        Ok(self.state().states.get(table_id).cloned())
    }

    async fn all(&self) -> Result<Vec<SyncState>> {
        Ok(self.state().states.values().cloned().collect())
    }

    async fn history(&self, table_id: &str, limit: usize) -> Result<Vec<SyncHistory>> {
        Ok(self.state().past(|past| past.table_id == table_id, limit))
    }

    async fn recent(&self, since: DateTime<Utc>, limit: usize, status: Option<SyncStatus>) -> Result<Vec<SyncHistory>> {
        let wanted = |past: &SyncHistory| past.synced_at >= since && status.is_none_or(|status| past.status == status);
        Ok(self.state().past(wanted, limit))
    }
}

#[async_trait]
impl ProfileRepository for MemoryStore {
    async fn put(&self, table_id: &str, content_hash: &str, profile: &Value, now: DateTime<Utc>) -> Result<()> {
        let profile =
            StoredProfile { profile: profile.clone(), content_hash: Some(content_hash.to_owned()), profiled_at: now };
        self.state().profiles.insert(table_id.to_owned(), profile);
        Ok(())
    }

    async fn get(&self, table_id: &str) -> Result<Option<StoredProfile>> {
        Ok(self.state().profiles.get(table_id).cloned())
    }

    async fn hashes(&self) -> Result<Vec<(String, String)>> {
        let state = self.state();
        let hashes =
            state.profiles.iter().filter_map(|(id, profile)| Some((id.clone(), profile.content_hash.clone()?)));
        Ok(hashes.collect())
    }
}

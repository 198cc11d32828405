//! Sync preferences.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::error::Result;
use crate::sync::{PreferenceRepository, SyncPreference, SyncPreferences, TableMode};

#[async_trait]
impl PreferenceRepository for MemoryStore {
    async fn of(&self, user_id: &str) -> Result<SyncPreferences> {
        Ok(self.state().preferences.get(user_id).cloned().unwrap_or_default())
    }

    async fn set(
        &self,
        user_id: &str,
        entries: &[(String, bool)],
        table_mode: Option<TableMode>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut state = self.state();
        state.sync_revision += 1;
        let kept = state.preferences.entry(user_id.to_owned()).or_default();
        for (dataset, enabled) in entries {
            kept.settings.retain(|one| one.dataset != *dataset);
            let (dataset, enabled) = (dataset.clone(), *enabled);
            kept.settings.push(SyncPreference { dataset, enabled, updated_at: Some(now) });
        }
        kept.settings.sort_by(|a, b| a.dataset.cmp(&b.dataset));
        kept.table_mode = table_mode.unwrap_or(kept.table_mode);
        Ok(())
    }
}

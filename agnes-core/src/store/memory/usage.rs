//! How much people scanned.

use async_trait::async_trait;
use chrono::NaiveDate;

use super::MemoryStore;
use crate::error::Result;
use crate::scan::UsageRepository;

#[async_trait]
impl UsageRepository for MemoryStore {
    async fn of_day(&self, day: NaiveDate) -> Result<Vec<(String, u64)>> {
        let state = self.state();
        let scanned = state.scanned.iter().filter(|((_, when), _)| *when == day);
        Ok(scanned.map(|((user, _), bytes)| (user.clone(), *bytes)).collect())
    }

    async fn add(&self, user_id: &str, day: NaiveDate, bytes: u64) -> Result<()> {
        let mut state = self.state();
        state.scanned.retain(|(_, when), _| *when >= day);
        let scanned = state.scanned.entry((user_id.to_owned(), day)).or_default();
        *scanned = scanned.saturating_add(bytes);
        Ok(())
    }
}

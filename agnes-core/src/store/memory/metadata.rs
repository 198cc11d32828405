//! What warehouses told of tables.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::error::Result;
use crate::warehouse::{MetadataRepository, TableMetadata};

#[async_trait]
impl MetadataRepository for MemoryStore {
    async fn list(&self) -> Result<Vec<TableMetadata>> {
        Ok(self.state().metadata.values().cloned().collect())
    }

    async fn put(&self, metadata: &TableMetadata) -> Result<()> {
        self.state().metadata.insert(metadata.table_id.clone(), metadata.clone());
        Ok(())
    }

    async fn fail(&self, table_id: &str, words: &str, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        let table = state.metadata.entry(table_id.to_owned()).or_default();
        table.table_id = table_id.to_owned();
        (table.error_at, table.error_msg) = (Some(now), Some(words.to_owned()));
        Ok(())
    }
}

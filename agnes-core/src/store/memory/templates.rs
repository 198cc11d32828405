//! Texts that admins edit.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::error::Result;
use crate::templates::{StoredTemplate, TemplateRepository};

#[async_trait]
impl TemplateRepository for MemoryStore {
    async fn find(&self, key: &str) -> Result<StoredTemplate> {
        Ok(self.state().templates.get(key).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &str, content: Option<&str>, by: &str, at: DateTime<Utc>) -> Result<()> {
        let kept = StoredTemplate {
            content: content.map(ToOwned::to_owned),
            updated_at: Some(at),
            updated_by: Some(by.to_owned()),
        };
        self.state().templates.insert(key.to_owned(), kept);
        Ok(())
    }
}

//! Saved filters of the audit log.

use async_trait::async_trait;

use super::MemoryStore;
use crate::audit::{SavedView, ViewError, ViewRepository};
use crate::error::Result;
use crate::ident::printable;

#[async_trait]
impl ViewRepository for MemoryStore {
    async fn list(&self, user_id: &str) -> Result<Vec<SavedView>> {
        let mut views = self.state().views.get(user_id).cloned().unwrap_or_default();
        views.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(views)
    }

    async fn insert(&self, user_id: &str, view: &SavedView, limit: usize) -> Result<()> {
        let mut state = self.state();
        let views = state.views.entry(user_id.to_owned()).or_default();
        if views.iter().any(|other| other.name == view.name) {
            return Err(ViewError::Exists { name: printable(&view.name, 80) }.into());
        }
        if views.len() >= limit {
            return Err(ViewError::TooMany { limit }.into());
        }
        views.push(view.clone());
        Ok(())
    }

    async fn delete(&self, user_id: &str, id: &str) -> Result<bool> {
        let mut state = self.state();
        let views = state.views.entry(user_id.to_owned()).or_default();
        let before = views.len();
        views.retain(|view| view.id != id);
        Ok(views.len() < before)
    }
}

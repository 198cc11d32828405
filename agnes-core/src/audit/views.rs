//! Filters of the log that an admin keeps for themselves.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Audit;
use crate::context::CallContext;
use crate::error::{Coded, ErrorKind, Result};
use crate::ident::printable;

/// Views of one person.
const MAX_VIEWS: usize = 100;
/// Longest name, characters.
const MAX_NAME: usize = 80;
/// Largest filter, bytes of JSON.
const MAX_QUERY: usize = 64 << 10;

/// A filter with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedView {
    /// 32 hex digits.
    pub id: String,
    /// Unique among the views of one person.
    pub name: String,
    /// The filter, an object of the frontend's own.
    pub query: Value,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
}

/// Keeps saved views. Every method is one transaction.
#[async_trait]
pub trait ViewRepository: Send + Sync {
    /// Views of one person, newest first.
    async fn list(&self, user_id: &str) -> Result<Vec<SavedView>>;
    /// Keeps a view. `view_exists` when the person has one of this name, `too_many_views` when
    /// they have `limit` of them.
    async fn insert(&self, user_id: &str, view: &SavedView, limit: usize) -> Result<()>;
    /// Removes a view; `false` when this person has none of this id.
    async fn delete(&self, user_id: &str, id: &str) -> Result<bool>;
}

/// What can go wrong with saved views.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ViewError {
    #[error("there is no saved view `{view}`")]
    NotFound { view: String },
    #[error("you have a view named `{name}` already")]
    Exists { name: String },
    #[error("one person keeps at most {limit} views")]
    TooMany { limit: usize },
    #[error("a view needs a name of at most {MAX_NAME} characters, and an object of at most {MAX_QUERY} bytes")]
    Invalid,
}

impl Coded for ViewError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. } | Self::TooMany { .. } => ErrorKind::Conflict,
            Self::Invalid => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotFound { .. } => "view_not_found",
            Self::Exists { .. } => "view_exists",
            Self::TooMany { .. } => "too_many_views",
            Self::Invalid => "invalid_view",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooMany { .. } => Some("remove one first".to_owned()),
            _ => None,
        }
    }
}

impl Audit<'_> {
    /// The caller's saved views, newest first. For admins who are people.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn views(&self, ctx: &CallContext) -> Result<Vec<SavedView>> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        self.engine.store().views().list(ctx.principal().user_id()).await
    }

    /// Keeps a filter of the caller's under a name.
    ///
    /// # Errors
    /// `invalid_view`, `view_exists`, `too_many_views` above 100, `admin_required`,
    /// `service_forbidden`.
    pub async fn save_view(&self, ctx: &CallContext, name: &str, query: Value) -> Result<SavedView> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let name = name.trim();
        let fits = !name.is_empty() && name.chars().count() <= MAX_NAME;
        if !fits || !query.is_object() || query.to_string().len() > MAX_QUERY {
            return Err(ViewError::Invalid.into());
        }
        let view = SavedView {
            id: uuid::Uuid::new_v4().simple().to_string(),
            name: name.to_owned(),
            query,
            created_at: Some(self.engine.clock().now()),
        };
        let done = self.engine.store().views().insert(ctx.principal().user_id(), &view, MAX_VIEWS).await;
        let facts = serde_json::json!({"id": view.id, "name": view.name});
        self.event(ctx, "activity.view_saved").params(facts).outcome(&done).record().await;
        done.map(|()| view)
    }

    /// Removes one of the caller's views. Somebody else's does not exist for them.
    ///
    /// # Errors
    /// `view_not_found`, `admin_required`, `service_forbidden`.
    pub async fn delete_view(&self, ctx: &CallContext, id: &str) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let done = match self.engine.store().views().delete(ctx.principal().user_id(), id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ViewError::NotFound { view: printable(id, 80) }.into()),
            Err(error) => Err(error),
        };
        let facts = serde_json::json!({"id": printable(id, 80)});
        self.event(ctx, "activity.view_deleted").params(facts).outcome(&done).record().await;
        done
    }
}

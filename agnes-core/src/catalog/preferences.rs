//! What a person wants to pull; it narrows their manifest, never what they may read.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Catalog, CatalogError};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::printable;
use crate::sync::{SyncPreferences, TableMode};

/// Tables that one call may switch.
const MAX_ENTRIES: usize = 500;

impl Catalog<'_> {
    /// The caller's own preferences.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`.
    pub async fn preferences(&self, ctx: &CallContext) -> Result<SyncPreferences> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        self.engine.store().preferences().of(ctx.principal().user_id()).await
    }

    /// Switches tables on or off for the caller (by id or name), and changes the mode where
    /// one is given. Answers for each table whether it was kept: a table the caller may not
    /// read can be switched off, but not on.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `read_only_view`, `too_many_entries` for more than 500.
    pub async fn set_preferences(
        &self,
        ctx: &CallContext,
        wanted: &BTreeMap<String, bool>,
        table_mode: Option<TableMode>,
    ) -> Result<BTreeMap<String, bool>> {
        if wanted.len() > MAX_ENTRIES {
            return Err(CatalogError::TooManyEntries { limit: MAX_ENTRIES }.into());
        }
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        ctx.principal().require_own()?;
        let view = self.view(ctx).await?;
        let known = self.engine.store().preferences().of(ctx.principal().user_id()).await?;
        let mut kept = BTreeMap::new();
        let mut entries = Vec::new();
        for (table, enabled) in wanted {
            let found = view.find(table).ok();
            kept.insert(table.clone(), found.is_some() || !enabled);
            match found {
                Some(found) => entries.push((found.name().to_owned(), *enabled)),
                // Switched on while it could be read: off is always allowed.
                None if !enabled && known.settings.iter().any(|one| one.dataset.eq_ignore_ascii_case(table)) => {
                    entries.push((table.clone(), false));
                }
                None => {}
            }
        }
        let now = self.engine.clock().now();
        let set = self.engine.store().preferences().set(ctx.principal().user_id(), &entries, table_mode, now).await;
        let names: Vec<String> = wanted.keys().take(50).map(|name| printable(name, 64)).collect();
        self.engine
            .audit()
            .event(ctx, "sync.settings")
            .params(json!({"tables": names, "table_mode": table_mode}))
            .outcome(&set)
            .record()
            .await;
        set.map(|()| kept)
    }
}

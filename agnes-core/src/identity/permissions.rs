//! Grants of tables, for scripts that think in data sets. Nothing of its own is kept.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Identity, ViaGroup};
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::ident::printable;
use crate::rbac::{AccessError, AccessSnapshot, AuthMethod, Grant, Principal, Reason, ResourceType, fold_resource_id};

/// A table that a group may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Id of the grant.
    pub id: String,
    /// Id of the table.
    pub dataset: String,
    /// The group.
    pub group_id: String,
    /// Its name.
    pub group_name: String,
    /// How many active people are in it.
    pub users_count: usize,
    /// When it was granted.
    pub granted_at: Option<DateTime<Utc>>,
    /// By whom.
    pub granted_by: Option<String>,
    /// The groups through which the person who was asked for gets the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_groups: Option<Vec<ViaGroup>>,
}

/// Whether somebody may read a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionCheck {
    /// Whether they may.
    pub allowed: bool,
    /// `admin`, `group` or `none`.
    pub reason: String,
    /// The groups that open it.
    pub via_groups: Vec<ViaGroup>,
}

/// The groups of this user that open this table.
fn via(access: &AccessSnapshot, user_id: &str, table: &str) -> Vec<ViaGroup> {
    let mine = access.groups_of.get(user_id);
    let grants = access.grants.get(&(ResourceType::Table, fold_resource_id(ResourceType::Table, table)));
    let open = grants.into_iter().flatten().filter(|(group, _)| mine.is_some_and(|mine| mine.contains(group)));
    open.map(|(group, _)| ViaGroup {
        group_id: group.clone(),
        group_name: access.groups.get(group).map(|group| group.name.clone()).unwrap_or_default(),
    })
    .collect()
}

impl Identity<'_> {
    /// Which groups may read which tables: of one group, of one person, on one table, as far
    /// as each is given.
    ///
    /// # Errors
    /// `group_not_found`, `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn permissions(
        &self,
        ctx: &CallContext,
        group: Option<&str>,
        user: Option<&str>,
        dataset: Option<&str>,
    ) -> Result<Vec<Permission>> {
        self.manager(ctx).await?;
        let group = match group {
            Some(reference) => Some(self.find_group(reference).await?.id),
            None => None,
        };
        let user = match user {
            Some(reference) => Some(self.find_user(reference).await?.id),
            None => None,
        };
        let (access, index) = (self.engine.access().await?, self.engine.table_index().await?);
        let dataset = dataset.map(|name| index.find(name).map_or(name, |table| table.id.as_str()).to_lowercase());
        let mine = user.as_ref().and_then(|id| access.groups_of.get(id));
        let is_wanted = |grant: &Grant| {
            grant.resource_type == ResourceType::Table
                && dataset.as_ref().is_none_or(|id| *id == grant.resource_id.to_lowercase())
                && (user.is_none() || mine.is_some_and(|mine| mine.contains(&grant.group_id)))
        };
        let grants = self.engine.store().access().grants(group.as_deref()).await?;
        let mut rows: Vec<Permission> =
            grants.into_iter().filter(is_wanted).map(|grant| permission(&access, grant)).collect();
        if let Some(user) = &user {
            for row in &mut rows {
                row.via_groups = Some(via(&access, user, &row.dataset));
            }
        }
        Ok(rows)
    }

    /// Lets a group (id or name) read a table (id or name); `false` when it might already.
    ///
    /// # Errors
    /// `group_not_found`, `resource_id_required`, `admin_required`, `service_forbidden`.
    pub async fn permit(&self, ctx: &CallContext, dataset: &str, group: &str) -> Result<(Permission, bool)> {
        let made = match self.grant(ctx, group, ResourceType::Table, dataset).await {
            Ok(row) => {
                return Ok((permission(&*self.engine.access().await?, row.grant), true));
            }
            Err(error) if error.code() == "grant_exists" => error,
            Err(error) => return Err(error),
        };
        let same = self.permissions(ctx, Some(group), None, Some(dataset)).await?;
        // Gone again a moment later: what was said first is true then.
        same.into_iter().next().map(|row| (row, false)).ok_or(made)
    }

    /// Takes a permission back, by the exact id of its grant. A grant of another kind of
    /// resource is none.
    ///
    /// # Errors
    /// `grant_not_found`, `admin_required`, `service_forbidden`.
    pub async fn forbid(&self, ctx: &CallContext, id: &str) -> Result<()> {
        self.manager(ctx).await?;
        let grants = self.engine.store().access().grants(None).await?;
        if !grants.iter().any(|grant| grant.id == id && grant.resource_type == ResourceType::Table) {
            return Err(Error::from(AccessError::GrantNotFound { grant: printable(id, 80) }));
        }
        self.revoke(ctx, id).await.map(drop)
    }

    /// Whether a person may read a table, and why.
    ///
    /// # Errors
    /// `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn check_permission(&self, ctx: &CallContext, user: &str, dataset: &str) -> Result<PermissionCheck> {
        self.manager(ctx).await?;
        let user = self.find_user(user).await?;
        let (access, index) = (self.engine.access().await?, self.engine.table_index().await?);
        let id = index.find(dataset).map_or(dataset, |table| table.id.as_str());
        let who = Principal::user(&user.id, AuthMethod::Local, ctx.principal().client());
        let decision = access.decide(&who, ResourceType::Table, id);
        let reason = match decision.reason {
            Reason::Admin | Reason::TrustedOwner => "admin",
            // Every active user may name an internal table: as members of Everyone.
            Reason::Grant { .. } | Reason::InternalTable => "group",
            Reason::NoGrant | Reason::InactiveUser => "none",
        };
        let via_groups = if decision.allowed { via(&access, &user.id, id) } else { Vec::new() };
        Ok(PermissionCheck { allowed: decision.allowed, reason: reason.to_owned(), via_groups })
    }
}

fn permission(access: &AccessSnapshot, grant: Grant) -> Permission {
    Permission {
        users_count: access.active_members(&grant.group_id),
        group_name: access.groups.get(&grant.group_id).map(|group| group.name.clone()).unwrap_or_default(),
        id: grant.id,
        dataset: grant.resource_id,
        group_id: grant.group_id,
        granted_at: grant.assigned_at,
        granted_by: grant.assigned_by,
        via_groups: None,
    }
}

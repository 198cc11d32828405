//! Grants, and what they open for one person.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Identity;
use super::service::{new_id, resolve};
use crate::context::CallContext;
use crate::engine::TableIndex;
use crate::error::Result;
use crate::orchestrator::Generation;
use crate::rbac::{Ability, AccessError, AccessSnapshot, AuthMethod, Grant, Principal, ResourceType};

/// A grant with the names behind its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// The grant.
    #[serde(flatten)]
    pub grant: Grant,
    /// Name of its group.
    pub group_name: String,
    /// Whether the resource it names exists.
    pub resource_exists: bool,
}

/// Which grants: those that every named field fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantFilter {
    /// Of the group with exactly this id.
    pub group_id: Option<String>,
    /// Of this kind of resource, by its name.
    pub resource_type: Option<String>,
    /// Of this resource. Tables are found whatever the case of their id, other resources are not.
    pub resource_id: Option<String>,
}

impl GrantFilter {
    fn fits(&self, grant: &Grant) -> bool {
        let is = |id: &String| match grant.resource_type {
            ResourceType::Table => id.eq_ignore_ascii_case(&grant.resource_id),
            _ => *id == grant.resource_id,
        };
        self.group_id.as_ref().is_none_or(|id| *id == grant.group_id)
            && self.resource_type.as_ref().is_none_or(|kind| kind == grant.resource_type.as_str())
            && self.resource_id.as_ref().is_none_or(is)
    }
}

/// What one person may use, and through which groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveAccess {
    /// Members of Admin pass every check; `items` lists explicit grants only.
    pub is_admin: bool,
    /// By type and id.
    pub items: Vec<EffectiveItem>,
}

/// One resource a person may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveItem {
    /// What kind of resource.
    pub resource_type: ResourceType,
    /// Which one.
    pub resource_id: String,
    /// The groups that open it.
    pub via_groups: Vec<ViaGroup>,
}

/// A group that opens a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViaGroup {
    /// Its id.
    pub group_id: String,
    /// Its name.
    pub group_name: String,
}

impl Identity<'_> {
    pub(crate) async fn find_grant(&self, reference: &str) -> Result<Grant> {
        let grants = self.engine.store().access().grants(None).await?;
        resolve(reference, &grants, |g| &g.id, |g| &g.id)?
            .ok_or_else(|| AccessError::GrantNotFound { grant: crate::ident::printable(reference, 80) }.into())
    }

    /// Grants, optionally of one group.
    ///
    /// # Errors
    /// `group_not_found`, `admin_required`, `service_forbidden`.
    pub async fn grants(&self, ctx: &CallContext, group: Option<&str>) -> Result<Vec<GrantRow>> {
        self.manager(ctx).await?;
        let group = match group {
            Some(reference) => Some(self.find_group(reference).await?.id),
            None => None,
        };
        let grants = self.engine.store().access().grants(group.as_deref()).await?;
        let (access, index) = (self.engine.access().await?, self.engine.table_index().await?);
        let generation = self.engine.generation();
        Ok(grants.into_iter().map(|grant| row(grant, &access, &index, &generation)).collect())
    }

    /// Grants that a filter lets through; none where it names what is not there.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn grants_where(&self, ctx: &CallContext, filter: &GrantFilter) -> Result<Vec<GrantRow>> {
        let mut rows = self.grants(ctx, None).await?;
        rows.retain(|row| filter.fits(&row.grant));
        Ok(rows)
    }

    /// Opens a resource to a group. A table may be named by id or name; an id that names
    /// nothing yet is accepted and answered with `resource_exists: false`.
    ///
    /// # Errors
    /// `resource_id_required`, `group_not_found`, `grant_exists`, `admin_required`, `service_forbidden`.
    pub async fn grant(
        &self,
        ctx: &CallContext,
        group: &str,
        resource_type: ResourceType,
        resource_id: &str,
    ) -> Result<GrantRow> {
        self.manager(ctx).await?;
        let group = self.find_group(group).await?;
        let mut resource_id = resource_id.trim().to_owned();
        if resource_id.is_empty() {
            return Err(AccessError::ResourceIdRequired.into());
        }
        let index = self.engine.table_index().await?;
        if resource_type == ResourceType::Table
            && let Some(table) = index.find(&resource_id)
        {
            resource_id.clone_from(&table.id);
        }
        let grant = Grant {
            id: new_id(),
            group_id: group.id.clone(),
            resource_type,
            resource_id,
            assigned_at: Some(self.engine.clock().now()),
            assigned_by: Some(ctx.principal().user_id().to_owned()),
        };
        let done = self.engine.store().access().insert_grant(&grant).await;
        self.engine
            .audit()
            .event(ctx, "resource_grant.created")
            .resource(format!("{}:{}", resource_type.as_str(), grant.resource_id))
            .params(json!({"id": grant.id, "group_id": group.id, "group": group.name,
                "resource_type": resource_type.as_str(), "resource_id": grant.resource_id}))
            .outcome(&done)
            .record()
            .await;
        done?;
        Ok(row(grant, &*self.engine.access().await?, &index, &self.engine.generation()))
    }

    /// Takes a grant back; it is gone from the next call on.
    ///
    /// # Errors
    /// `grant_not_found`, `ambiguous_reference`, `admin_required`, `service_forbidden`.
    pub async fn revoke(&self, ctx: &CallContext, grant: &str) -> Result<Grant> {
        self.manager(ctx).await?;
        let found = self.find_grant(grant).await?;
        self.take_back(ctx, &found).await
    }

    /// [`Identity::revoke`] of the grant with exactly this id. Prefixes are for those who type.
    ///
    /// # Errors
    /// `grant_not_found`, `admin_required`, `service_forbidden`.
    pub async fn revoke_exact(&self, ctx: &CallContext, id: &str) -> Result<Grant> {
        self.manager(ctx).await?;
        let grants = self.engine.store().access().grants(None).await?;
        let missing = || AccessError::GrantNotFound { grant: crate::ident::printable(id, 80) };
        let found = grants.into_iter().find(|grant| grant.id == id).ok_or_else(missing)?;
        self.take_back(ctx, &found).await
    }

    async fn take_back(&self, ctx: &CallContext, found: &Grant) -> Result<Grant> {
        let done = self.engine.store().access().delete_grant(&found.id).await;
        self.engine
            .audit()
            .event(ctx, "resource_grant.deleted")
            .resource(format!("{}:{}", found.resource_type.as_str(), found.resource_id))
            .before(json!({"id": found.id, "group_id": found.group_id,
                "resource_type": found.resource_type.as_str(), "resource_id": found.resource_id}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// What a user may use, and through which groups.
    ///
    /// # Errors
    /// `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn effective_access(&self, ctx: &CallContext, user: &str) -> Result<EffectiveAccess> {
        self.manager(ctx).await?;
        let user = self.find_user(user).await?;
        let principal = Principal::user(&user.id, AuthMethod::Local, ctx.principal().client());
        Ok(effective(&*self.engine.access().await?, &principal))
    }

    /// What the caller may use, and through which groups.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`.
    pub async fn my_access(&self, ctx: &CallContext) -> Result<EffectiveAccess> {
        let access = self.engine.access().await?;
        access.require_active(ctx.principal())?;
        ctx.principal().require(Ability::Everything)?;
        Ok(effective(&access, ctx.principal()))
    }
}

/// A grant with the names behind its ids.
fn row(grant: Grant, access: &AccessSnapshot, index: &TableIndex, generation: &Generation) -> GrantRow {
    GrantRow {
        group_name: access.groups.get(&grant.group_id).map(|group| group.name.clone()).unwrap_or_default(),
        resource_exists: grant.resource_type.exists(&grant.resource_id, index, generation),
        grant,
    }
}

/// The explicit grants of an active user.
fn effective(access: &AccessSnapshot, who: &Principal) -> EffectiveAccess {
    let mine = access.groups_of.get(who.user_id()).filter(|_| access.is_active(who));
    let items = access.grants.iter().filter_map(|((resource_type, resource_id), grants)| {
        let via_groups: Vec<ViaGroup> = grants
            .iter()
            .filter(|(group, _)| mine.is_some_and(|mine| mine.contains(group)))
            .map(|(group, _)| ViaGroup {
                group_id: group.clone(),
                group_name: access.groups.get(group).map(|g| g.name.clone()).unwrap_or_default(),
            })
            .collect();
        (!via_groups.is_empty()).then(|| EffectiveItem {
            resource_type: *resource_type,
            resource_id: resource_id.clone(),
            via_groups,
        })
    });
    EffectiveAccess { is_admin: access.is_admin(who), items: items.collect() }
}

//! What admins do with users, groups, members and grants.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{User, UserError, normal_email};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Coded, ErrorKind, Result};
use crate::rbac::{
    AccessError, AuthMethod, ClientKind, Grant, Group, Member, MemberSource, Principal, ResourceType, fold_resource_id,
};

/// Users, groups and grants of an engine. Everything here is for admins.
///
/// Where a method takes a reference to a user or group, an exact id wins, then an exact
/// name or e-mail address, then a unique prefix of either.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Users, groups and grants.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity { engine: self }
    }
}

/// A group with what people want to know about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// `system`, `google_sync` or `custom`.
    pub origin: String,
    /// How many members it has.
    pub member_count: usize,
    /// How many grants it has.
    pub grant_count: usize,
}

/// A member of a group, with their address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The person.
    pub user_id: String,
    /// Their address; empty for a membership of a user who is gone.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Whether they are active.
    pub active: bool,
    /// How they got in.
    pub source: MemberSource,
    /// When.
    pub added_at: Option<chrono::DateTime<chrono::Utc>>,
    /// By whom.
    pub added_by: Option<String>,
}

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

/// A reference fits several things.
#[derive(Debug, thiserror::Error)]
#[error("`{reference}` fits several: {}", candidates.join(", "))]
struct Ambiguous {
    reference: String,
    candidates: Vec<String>,
}

impl Coded for Ambiguous {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
    fn code(&self) -> &str {
        "ambiguous_reference"
    }
    fn hint(&self) -> Option<String> {
        Some("give the whole name, address or id".to_owned())
    }
}

/// Finds what `reference` means: an exact id, else an exact name (case-folded), else a
/// unique prefix of either.
pub(crate) fn resolve<T: Clone>(
    reference: &str,
    items: &[T],
    id: fn(&T) -> &str,
    name: fn(&T) -> &str,
) -> Result<Option<T>> {
    let folded = reference.trim().to_lowercase();
    if folded.is_empty() {
        return Ok(None);
    }
    let exact = items.iter().find(|item| id(item) == reference);
    if let Some(found) = exact.or_else(|| items.iter().find(|item| name(item).to_lowercase() == folded)) {
        return Ok(Some(found.clone()));
    }
    let near: Vec<&T> = items
        .iter()
        .filter(|item| id(item).starts_with(reference) || name(item).to_lowercase().starts_with(&folded))
        .collect();
    match near.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some((*only).clone())),
        many => Err(Ambiguous {
            reference: crate::ident::printable(reference, 80),
            candidates: many.iter().take(10).map(|item| name(item).to_owned()).collect(),
        }
        .into()),
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Identity<'_> {
    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    async fn find_user(&self, reference: &str) -> Result<User> {
        let users = self.engine.store().users().list().await?;
        resolve(reference, &users, |u| &u.id, |u| &u.email)?
            .ok_or_else(|| UserError::NotFound { user: crate::ident::printable(reference, 80) }.into())
    }

    pub(crate) async fn find_group(&self, reference: &str) -> Result<Group> {
        let groups = self.engine.store().access().groups().await?;
        resolve(reference, &groups, |g| &g.id, |g| &g.name)?
            .ok_or_else(|| AccessError::GroupNotFound { group: crate::ident::printable(reference, 80) }.into())
    }

    pub(crate) async fn find_grant(&self, reference: &str) -> Result<Grant> {
        let grants = self.engine.store().access().grants(None).await?;
        resolve(reference, &grants, |g| &g.id, |g| &g.id)?
            .ok_or_else(|| AccessError::GrantNotFound { grant: crate::ident::printable(reference, 80) }.into())
    }

    /// Adds an active user; they become a member of Everyone.
    ///
    /// # Errors
    /// `invalid_email`, `user_exists`, `admin_required`.
    pub async fn add_user(&self, ctx: &CallContext, email: &str, name: Option<&str>) -> Result<User> {
        self.admin(ctx).await?;
        let now = self.engine.clock().now();
        let user = User {
            id: new_id(),
            email: normal_email(email)?,
            name: name.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()),
            active: true,
            deactivated_at: None,
            deactivated_by: None,
            created_at: Some(now),
            updated_at: Some(now),
            onboarded: false,
            last_pull_at: None,
        };
        let done = self.engine.store().users().insert(&user).await;
        self.engine
            .audit()
            .event(ctx, "user.created")
            .resource(format!("user:{}", user.email))
            .params(json!({"id": user.id, "email": user.email}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| user)
    }

    /// All users by address.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn users(&self, ctx: &CallContext) -> Result<Vec<User>> {
        self.admin(ctx).await?;
        self.engine.store().users().list().await
    }

    /// One user.
    ///
    /// # Errors
    /// `user_not_found`, `ambiguous_reference`, `admin_required`.
    pub async fn user(&self, ctx: &CallContext, reference: &str) -> Result<User> {
        self.admin(ctx).await?;
        self.find_user(reference).await
    }

    /// Activates or deactivates a user.
    ///
    /// # Errors
    /// `user_not_found`, `last_admin`, `self_target`, `admin_required`.
    pub async fn set_active(&self, ctx: &CallContext, reference: &str, active: bool) -> Result<User> {
        self.admin(ctx).await?;
        let user = self.find_user(reference).await?;
        if !active && user.id == ctx.principal().user_id() {
            return Err(UserError::SelfTarget.into());
        }
        let now = self.engine.clock().now();
        let done = self.engine.store().users().set_active(&user.id, active, ctx.principal().user_id(), now).await;
        self.engine
            .audit()
            .event(ctx, if active { "user.activated" } else { "user.deactivated" })
            .resource(format!("user:{}", user.email))
            .before(json!({"active": user.active}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Deletes a user with memberships, tokens and preferences; audit rows stay.
    ///
    /// # Errors
    /// `user_not_found`, `last_admin`, `self_target`, `admin_required`.
    pub async fn remove_user(&self, ctx: &CallContext, reference: &str) -> Result<User> {
        self.admin(ctx).await?;
        let user = self.find_user(reference).await?;
        if user.id == ctx.principal().user_id() {
            return Err(UserError::SelfTarget.into());
        }
        let done = self.engine.store().users().delete(&user.id).await;
        self.engine
            .audit()
            .event(ctx, "user.deleted")
            .resource(format!("user:{}", user.email))
            .before(json!({"id": user.id, "email": user.email}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| user)
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `name_required`, `group_exists`, `admin_required`.
    pub async fn create_group(&self, ctx: &CallContext, name: &str, description: Option<&str>) -> Result<Group> {
        self.admin(ctx).await?;
        let name = name.trim();
        if name.is_empty() {
            return Err(AccessError::NameRequired.into());
        }
        let group = Group {
            id: new_id(),
            name: name.to_owned(),
            description: description.map(str::to_owned),
            is_system: false,
            created_at: Some(self.engine.clock().now()),
            created_by: Some(ctx.principal().user_id().to_owned()),
        };
        let done = self.engine.store().access().insert_group(&group).await;
        self.engine
            .audit()
            .event(ctx, "user_group.created")
            .resource(format!("group:{name}"))
            .params(json!({"id": group.id, "name": name}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| group)
    }

    /// All groups: system first, then by name.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn groups(&self, ctx: &CallContext) -> Result<Vec<GroupRow>> {
        self.admin(ctx).await?;
        let access = self.engine.access().await?;
        let groups = self.engine.store().access().groups().await?;
        let grants = self.engine.store().access().grants(None).await?;
        Ok(groups
            .into_iter()
            .map(|group| GroupRow {
                origin: origin(&group).to_owned(),
                member_count: access.groups_of.values().filter(|mine| mine.contains(&group.id)).count(),
                grant_count: grants.iter().filter(|grant| grant.group_id == group.id).count(),
                group,
            })
            .collect())
    }

    /// Deletes a group with its members and grants.
    ///
    /// # Errors
    /// `group_not_found`, `system_group_delete`, `admin_required`.
    pub async fn delete_group(&self, ctx: &CallContext, reference: &str) -> Result<Group> {
        self.admin(ctx).await?;
        let group = self.find_group(reference).await?;
        let done = self.engine.store().access().delete_group(&group.id).await;
        self.engine
            .audit()
            .event(ctx, "user_group.deleted")
            .resource(format!("group:{}", group.name))
            .before(json!({"id": group.id, "name": group.name}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| group)
    }

    /// Members of a group by address.
    ///
    /// # Errors
    /// `group_not_found`, `admin_required`.
    pub async fn members(&self, ctx: &CallContext, group: &str) -> Result<Vec<MemberRow>> {
        self.admin(ctx).await?;
        let group = self.find_group(group).await?;
        let users = self.engine.store().users().list().await?;
        let rows = self.engine.store().access().members(&group.id).await?;
        Ok(rows
            .into_iter()
            .map(|member| {
                let user = users.iter().find(|user| user.id == member.user_id);
                MemberRow {
                    email: user.map(|u| u.email.clone()).unwrap_or_default(),
                    name: user.and_then(|u| u.name.clone()),
                    active: user.is_some_and(|u| u.active),
                    user_id: member.user_id,
                    source: member.source,
                    added_at: member.added_at,
                    added_by: member.added_by,
                }
            })
            .collect())
    }

    /// Adds a user to a group.
    ///
    /// # Errors
    /// `group_not_found`, `user_not_found`, `already_member`, `admin_required`.
    pub async fn add_member(&self, ctx: &CallContext, group: &str, user: &str) -> Result<Member> {
        self.admin(ctx).await?;
        let group = self.find_group(group).await?;
        let user = self.find_user(user).await?;
        let member = Member {
            group_id: group.id.clone(),
            user_id: user.id.clone(),
            source: MemberSource::Admin,
            added_at: Some(self.engine.clock().now()),
            added_by: Some(ctx.principal().user_id().to_owned()),
        };
        let done = match self.engine.store().access().add_member(&member).await {
            Ok(true) => Ok(member),
            Ok(false) => Err(AccessError::AlreadyMember { user: user.email.clone(), group: group.name.clone() }.into()),
            Err(error) => Err(error),
        };
        self.engine
            .audit()
            .event(ctx, "user_group.member_added")
            .resource(format!("group:{}", group.name))
            .params(json!({"group_id": group.id, "user_id": user.id, "email": user.email}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Removes a user from a group.
    ///
    /// # Errors
    /// `group_not_found`, `user_not_found`, `no_removable_membership`, `last_admin`,
    /// `admin_required`.
    pub async fn remove_member(&self, ctx: &CallContext, group: &str, user: &str) -> Result<()> {
        self.admin(ctx).await?;
        let group = self.find_group(group).await?;
        let user = self.find_user(user).await?;
        let done = self.engine.store().access().remove_member(&group.id, &user.id).await;
        self.engine
            .audit()
            .event(ctx, "user_group.member_removed")
            .resource(format!("group:{}", group.name))
            .before(json!({"group_id": group.id, "user_id": user.id, "email": user.email}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Grants, optionally of one group.
    ///
    /// # Errors
    /// `group_not_found`, `admin_required`.
    pub async fn grants(&self, ctx: &CallContext, group: Option<&str>) -> Result<Vec<GrantRow>> {
        self.admin(ctx).await?;
        let group = match group {
            Some(reference) => Some(self.find_group(reference).await?.id),
            None => None,
        };
        let access = self.engine.access().await?;
        let mut rows = Vec::new();
        for grant in self.engine.store().access().grants(group.as_deref()).await? {
            rows.push(GrantRow {
                group_name: access.groups.get(&grant.group_id).map(|g| g.name.clone()).unwrap_or_default(),
                resource_exists: self.resource_exists(grant.resource_type, &grant.resource_id).await?,
                grant,
            });
        }
        Ok(rows)
    }

    /// Opens a resource to a group. A table may be named by id or name; an id that names
    /// nothing yet is accepted and answered with `resource_exists: false`.
    ///
    /// # Errors
    /// `resource_id_required`, `group_not_found`, `grant_exists`, `admin_required`.
    pub async fn grant(
        &self,
        ctx: &CallContext,
        group: &str,
        resource_type: ResourceType,
        resource_id: &str,
    ) -> Result<GrantRow> {
        self.admin(ctx).await?;
        let group = self.find_group(group).await?;
        let mut resource_id = resource_id.trim().to_owned();
        if resource_id.is_empty() {
            return Err(AccessError::ResourceIdRequired.into());
        }
        if resource_type == ResourceType::Table
            && let Some(table) = self.engine.store().tables().find(&resource_id).await?
        {
            resource_id = table.id;
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
        let resource_exists = self.resource_exists(resource_type, &grant.resource_id).await?;
        Ok(GrantRow { group_name: group.name, resource_exists, grant })
    }

    /// Takes a grant back; it is gone from the next call on.
    ///
    /// # Errors
    /// `grant_not_found`, `ambiguous_reference`, `admin_required`.
    pub async fn revoke(&self, ctx: &CallContext, grant: &str) -> Result<Grant> {
        self.admin(ctx).await?;
        let found = self.find_grant(grant).await?;
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
    /// `user_not_found`, `admin_required`.
    pub async fn effective_access(&self, ctx: &CallContext, user: &str) -> Result<EffectiveAccess> {
        self.admin(ctx).await?;
        let user = self.find_user(user).await?;
        let access = self.engine.access().await?;
        let principal = Principal::user(&user.id, AuthMethod::Local, ctx.principal().client());
        let mine = access.groups_of.get(&user.id).cloned().unwrap_or_default();
        let items = access
            .grants
            .iter()
            .filter_map(|((resource_type, resource_id), grants)| {
                let via_groups: Vec<ViaGroup> = grants
                    .iter()
                    .filter(|(group, _)| user.active && mine.contains(group))
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
            })
            .collect();
        Ok(EffectiveAccess { is_admin: access.is_admin(&principal), items })
    }

    /// The principal of an active user, to see what they would see. Audited.
    ///
    /// # Errors
    /// `user_not_found`, `inactive_user`, `admin_required`.
    pub async fn principal_of(&self, ctx: &CallContext, user: &str, client: ClientKind) -> Result<Principal> {
        self.admin(ctx).await?;
        let user = self.find_user(user).await?;
        let principal = Principal::user(&user.id, AuthMethod::Local, client);
        let done = self.engine.access().await?.require_active(&principal);
        self.engine
            .audit()
            .event(ctx, "admin.act_as")
            .resource(format!("user:{}", user.email))
            .params(json!({"user_id": user.id}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| principal)
    }

    async fn resource_exists(&self, resource_type: ResourceType, id: &str) -> Result<bool> {
        if resource_type != ResourceType::Table {
            return Ok(false);
        }
        let folded = fold_resource_id(resource_type, id);
        Ok(self.engine.store().tables().find(id).await?.is_some() || self.engine.generation().table(&folded).is_some())
    }
}

fn origin(group: &Group) -> &'static str {
    if group.is_system {
        "system"
    } else if group.created_by.as_deref() == Some("system:google-sync") {
        "google_sync"
    } else {
        "custom"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_exactly_before_by_prefix() {
        let items = [("1", "ann@x"), ("2", "anna@x"), ("ann", "zoe@x")];
        let find = |r: &str| resolve(r, &items, |i| i.0, |i| i.1).map(|o| o.map(|i| i.1));
        assert_eq!(find("ann").ok().flatten(), Some("zoe@x"));
        assert_eq!(find("ANNA@X").ok().flatten(), Some("anna@x"));
        assert_eq!(find("zoe").ok().flatten(), Some("zoe@x"));
        assert_eq!(find("an").err().map(|e| e.code().to_owned()).as_deref(), Some("ambiguous_reference"));
        assert_eq!(find("nobody").ok().flatten(), None);
        assert_eq!(find("  ").ok().flatten(), None);
    }
}

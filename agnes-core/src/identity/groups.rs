//! Groups and who belongs to them.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Identity;
use super::service::new_id;
use crate::context::CallContext;
use crate::error::Result;
use crate::rbac::{AccessError, Group, Member, MemberSource};

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

/// One group of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group_id: String,
    /// Its name.
    pub group_name: String,
    /// Seeded by Agnes.
    pub is_system: bool,
    /// `system`, `google_sync` or `custom`.
    pub origin: String,
    /// How they got in.
    pub source: MemberSource,
    /// When.
    pub added_at: Option<chrono::DateTime<chrono::Utc>>,
    /// By whom.
    pub added_by: Option<String>,
}

impl Identity<'_> {
    /// Makes a group.
    ///
    /// # Errors
    /// `name_required`, `group_exists`, `admin_required`, `service_forbidden`.
    pub async fn create_group(&self, ctx: &CallContext, name: &str, description: Option<&str>) -> Result<Group> {
        self.manager(ctx).await?;
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

    /// Changes name and description, as far as they are given.
    ///
    /// # Errors
    /// `group_not_found`, `name_required`, `group_exists`, `system_group_rename`,
    /// `google_managed_readonly` for the name of a group of the directory, `admin_required`,
    /// `service_forbidden`.
    pub async fn update_group(
        &self,
        ctx: &CallContext,
        reference: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Group> {
        self.manager(ctx).await?;
        let group = self.find_group(reference).await?;
        let new = name.map_or(group.name.as_str(), str::trim);
        if new.is_empty() {
            return Err(AccessError::NameRequired.into());
        }
        if group.is_from_directory() && new != group.name {
            return Err(AccessError::GoogleManaged { group: group.name }.into());
        }
        let words = description.or(group.description.as_deref());
        let done = self.engine.store().access().update_group(&group.id, new, words).await;
        self.engine
            .audit()
            .event(ctx, "user_group.updated")
            .resource(format!("group:{}", group.name))
            .before(json!({"id": group.id, "name": group.name, "description": group.description}))
            .params(json!({"id": group.id, "name": new, "description": words}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// The groups of a user by name.
    ///
    /// # Errors
    /// `user_not_found`, `admin_required`.
    pub async fn memberships(&self, ctx: &CallContext, user: &str) -> Result<Vec<Membership>> {
        self.admin(ctx).await?;
        let user = self.find_user(user).await?;
        let access = self.engine.access().await?;
        let rows = self.engine.store().access().memberships(&user.id).await?;
        let rows = rows.into_iter().filter_map(|member| {
            let group = access.groups.get(&member.group_id)?;
            Some(Membership {
                group_name: group.name.clone(),
                is_system: group.is_system,
                origin: group.origin().to_owned(),
                group_id: member.group_id,
                source: member.source,
                added_at: member.added_at,
                added_by: member.added_by,
            })
        });
        Ok(rows.collect())
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
                origin: group.origin().to_owned(),
                member_count: access.groups_of.values().filter(|mine| mine.contains(&group.id)).count(),
                grant_count: grants.iter().filter(|grant| grant.group_id == group.id).count(),
                group,
            })
            .collect())
    }

    /// Deletes a group with its members and grants.
    ///
    /// # Errors
    /// `group_not_found`, `system_group_delete`, `admin_required`, `service_forbidden`.
    pub async fn delete_group(&self, ctx: &CallContext, reference: &str) -> Result<Group> {
        self.manager(ctx).await?;
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
    /// `group_not_found`, `user_not_found`, `already_member`, `google_managed_readonly`, `admin_required`, `service_forbidden`.
    pub async fn add_member(&self, ctx: &CallContext, group: &str, user: &str) -> Result<Member> {
        self.manager(ctx).await?;
        let group = self.find_group(group).await?;
        let user = self.find_user(user).await?;
        if group.is_from_directory() {
            return Err(AccessError::GoogleManaged { group: group.name }.into());
        }
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
    /// `admin_required`, `service_forbidden`.
    pub async fn remove_member(&self, ctx: &CallContext, group: &str, user: &str) -> Result<()> {
        self.manager(ctx).await?;
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
}

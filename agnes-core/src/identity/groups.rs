//! Groups and who belongs to them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::service::new_id;
use super::{Identity, User};
use crate::config::DirectoryConfig;
use crate::context::CallContext;
use crate::error::Result;
use crate::rbac::{AccessError, AccessSnapshot, Group, Member, MemberSource};

/// A membership that the caller gives.
pub(super) fn member_of(ctx: &CallContext, group: &Group, user: &User, now: DateTime<Utc>) -> Member {
    Member {
        group_id: group.id.clone(),
        user_id: user.id.clone(),
        source: MemberSource::Admin,
        added_at: Some(now),
        added_by: Some(ctx.principal().user_id().to_owned()),
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
    /// The directory's group that this system group is, where one is configured.
    #[serde(default)]
    pub mapped_email: Option<String>,
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

impl MemberRow {
    /// A membership of a person, where they are known.
    #[must_use]
    pub fn of(member: Member, user: Option<&User>) -> Self {
        Self {
            email: user.map(|u| u.email.clone()).unwrap_or_default(),
            name: user.and_then(|u| u.name.clone()),
            active: user.is_some_and(|u| u.active),
            user_id: member.user_id,
            source: member.source,
            added_at: member.added_at,
            added_by: member.added_by,
        }
    }
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

impl Membership {
    /// A membership in a group.
    #[must_use]
    pub fn of(member: Member, group: &Group) -> Self {
        Self {
            group_name: group.name.clone(),
            is_system: group.is_system,
            origin: group.origin().to_owned(),
            group_id: member.group_id,
            source: member.source,
            added_at: member.added_at,
            added_by: member.added_by,
        }
    }
}

/// All groups: system first, then by name.
pub(super) fn rows(access: &AccessSnapshot, directory: &DirectoryConfig) -> Vec<GroupRow> {
    let mut members: HashMap<&str, usize> = HashMap::new();
    for group in access.groups_of.values().flatten() {
        *members.entry(group).or_default() += 1;
    }
    let mut grants: HashMap<&str, usize> = HashMap::new();
    for ((group, _), ids) in &access.granted_to {
        *grants.entry(group).or_default() += ids.len();
    }
    let count = |of: &HashMap<&str, usize>, group: &Group| of.get(group.id.as_str()).copied().unwrap_or(0);
    let mut rows: Vec<GroupRow> = access
        .groups
        .values()
        .map(|group| GroupRow {
            origin: group.origin().to_owned(),
            member_count: count(&members, group),
            grant_count: count(&grants, group),
            mapped_email: directory.mapped(group),
            group: group.clone(),
        })
        .collect();
    rows.sort_by(|a, b| (!a.group.is_system, &a.group.name).cmp(&(!b.group.is_system, &b.group.name)));
    rows
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
    /// `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn memberships(&self, ctx: &CallContext, user: &str) -> Result<Vec<Membership>> {
        self.manager(ctx).await?;
        let user = self.find_user(user).await?;
        let access = self.engine.access().await?;
        let rows = self.engine.store().access().memberships(&user.id).await?;
        let rows = rows.into_iter().filter_map(|member| {
            let group = access.groups.get(&member.group_id)?;
            Some(Membership::of(member, group))
        });
        Ok(rows.collect())
    }

    /// All groups: system first, then by name.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn groups(&self, ctx: &CallContext) -> Result<Vec<GroupRow>> {
        self.manager(ctx).await?;
        Ok(rows(&*self.engine.access().await?, &self.engine.config().directory))
    }

    /// The group with exactly this id. Names and prefixes are for those who type.
    ///
    /// # Errors
    /// `group_not_found`, `admin_required`, `service_forbidden`.
    pub async fn group(&self, ctx: &CallContext, id: &str) -> Result<GroupRow> {
        self.manager(ctx).await?;
        let found = rows(&*self.engine.access().await?, &self.engine.config().directory)
            .into_iter()
            .find(|row| row.group.id == id);
        found.ok_or_else(|| AccessError::GroupNotFound { group: crate::ident::printable(id, 80) }.into())
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
    /// `group_not_found`, `admin_required`, `service_forbidden`.
    pub async fn members(&self, ctx: &CallContext, group: &str) -> Result<Vec<MemberRow>> {
        self.manager(ctx).await?;
        let group = self.find_group(group).await?;
        let users = self.engine.store().users().list().await?;
        let rows = self.engine.store().access().members(&group.id).await?;
        Ok(rows
            .into_iter()
            .map(|member| {
                let user = users.iter().find(|user| user.id == member.user_id);
                MemberRow::of(member, user)
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
        let member = member_of(ctx, &group, &user, self.engine.clock().now());
        let done = match self.engine.store().access().add_member(&member).await {
            Ok(true) => Ok(member),
            Ok(false) => Err(AccessError::AlreadyMember { user: user.email.clone(), group: group.name.clone() }.into()),
            Err(error) => Err(error),
        };
        self.member_added(ctx, &group, &user, &done).await;
        done
    }

    /// Records that somebody was added, or was not.
    pub(super) async fn member_added<T: Sync>(&self, ctx: &CallContext, group: &Group, user: &User, done: &Result<T>) {
        self.engine
            .audit()
            .event(ctx, "user_group.member_added")
            .resource(format!("group:{}", group.name))
            .params(json!({"group_id": group.id, "user_id": user.id, "email": user.email}))
            .outcome(done)
            .record()
            .await;
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

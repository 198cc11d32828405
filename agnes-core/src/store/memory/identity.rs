//! Users, groups, members, grants.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{MemoryStore, State};
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{User, UserChange, UserError, UserRepository, is_service_account};
use crate::rbac::{
    ADMIN_GROUP, AccessError, AccessRepository, AccessSnapshot, DIRECTORY_SYNC, DirectoryChange, DirectoryGroup,
    EVERYONE_GROUP, Grant, Group, Member, MemberSource, ResourceType, fold_resource_id,
};

pub(super) fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

pub(super) fn no_user(id: &str) -> UserError {
    UserError::NotFound { user: printable(id, 80) }
}

fn no_group(id: &str) -> AccessError {
    AccessError::GroupNotFound { group: printable(id, 80) }
}

impl State {
    fn group_named(&self, name: &str) -> Option<&Group> {
        let name = fold(name);
        let mut found: Vec<&Group> = self.groups.values().filter(|group| fold(&group.name) == name).collect();
        found.sort_by_key(|group| !group.is_system);
        found.first().copied()
    }

    pub(super) fn is_member(&self, group_id: &str, user_id: &str) -> bool {
        self.members.iter().any(|member| member.group_id == group_id && member.user_id == user_id)
    }

    pub(super) fn seed_member(&mut self, user_id: &str, now: Option<DateTime<Utc>>) {
        let Some(group_id) =
            self.groups.values().find(|group| group.name == EVERYONE_GROUP).map(|group| group.id.clone())
        else {
            return;
        };
        if !self.is_member(&group_id, user_id) {
            let user_id = user_id.to_owned();
            self.members.push(Member {
                group_id,
                user_id,
                source: MemberSource::SystemSeed,
                added_at: now,
                added_by: None,
            });
        }
    }

    /// Whether `user_id` is an active Admin and no other active person is.
    fn only_admin(&self, user_id: &str) -> bool {
        let admins: Vec<&User> = self
            .members
            .iter()
            .filter(|member| self.groups.get(&member.group_id).is_some_and(|group| group.name == ADMIN_GROUP))
            .filter_map(|member| self.users.get(&member.user_id))
            .filter(|user| user.active)
            .collect();
        // Service accounts are no people.
        let person = |user: &&&User| user.id != user_id && !is_service_account(&user.email);
        admins.iter().any(|user| user.id == user_id) && !admins.iter().any(|user| person(&user))
    }
}

#[async_trait]
impl UserRepository for MemoryStore {
    async fn insert_with(&self, user: &User, members: &[Member]) -> Result<()> {
        let mut state = self.state();
        if let Some(member) = members.iter().find(|member| !state.groups.contains_key(&member.group_id)) {
            return Err(no_group(&member.group_id).into());
        }
        let email = fold(&user.email);
        if let Some(other) = state.users.values().find(|other| fold(&other.email) == email || other.id == user.id) {
            return Err(UserError::Exists { email: user.email.clone(), active: other.active }.into());
        }
        state.users.insert(user.id.clone(), user.clone());
        if user.active {
            state.seed_member(&user.id, user.created_at);
        }
        for member in members {
            state.add_member(member)?;
        }
        state.revision += 1;
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<User>> {
        Ok(self.state().users.get(id).cloned())
    }

    async fn by_email(&self, email: &str) -> Result<Option<User>> {
        let email = fold(email);
        Ok(self.state().users.values().find(|user| fold(&user.email) == email).cloned())
    }

    async fn list(&self) -> Result<Vec<User>> {
        let mut users: Vec<User> = self.state().users.values().cloned().collect();
        users.sort_by(|a, b| (&a.email, &a.id).cmp(&(&b.email, &b.id)));
        Ok(users)
    }

    async fn update(&self, id: &str, change: &UserChange, now: DateTime<Utc>) -> Result<User> {
        let mut state = self.state();
        let Some(user) = state.users.get_mut(id) else { return Err(no_user(id).into()) };
        if change.name.is_some() {
            user.name.clone_from(&change.name);
        }
        user.onboarded = change.onboarded.unwrap_or(user.onboarded);
        user.updated_at = Some(now);
        let user = user.clone();
        state.revision += 1;
        Ok(user)
    }

    async fn set_active(&self, id: &str, active: bool, by: &str, now: DateTime<Utc>) -> Result<User> {
        let mut state = self.state();
        if !active && state.users.get(id).is_some_and(|user| is_service_account(&user.email)) {
            return Err(UserError::ServiceAccount.into());
        }
        if !active && state.only_admin(id) {
            return Err(AccessError::LastAdmin.into());
        }
        let Some(user) = state.users.get_mut(id) else { return Err(no_user(id).into()) };
        user.active = active;
        user.deactivated_at = (!active).then_some(now);
        user.deactivated_by = (!active).then(|| by.to_owned());
        user.updated_at = Some(now);
        let user = user.clone();
        if active {
            state.seed_member(id, Some(now));
        }
        state.revision += 1;
        Ok(user)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let mut state = self.state();
        let Some(user) = state.users.get(id) else { return Err(no_user(id).into()) };
        if is_service_account(&user.email) {
            return Err(UserError::ServiceAccount.into());
        }
        if state.only_admin(id) {
            return Err(AccessError::LastAdmin.into());
        }
        state.users.remove(id);
        state.secrets.remove(id);
        state.tokens.retain(|_, token| token.user_id != id);
        state.codes.retain(|_, code| code.user_id.as_deref() != Some(id));
        state.oauth_codes.retain(|_, (code, _)| code.user_id != id);
        state.requests.retain(|request| request.user_id != id);
        state.preferences.remove(id);
        state.views.remove(id);
        state.members.retain(|member| member.user_id != id);
        state.revision += 1;
        Ok(())
    }

    async fn touch_last_pull(&self, id: &str, now: DateTime<Utc>) -> Result<()> {
        if let Some(user) = self.state().users.get_mut(id) {
            user.last_pull_at = Some(now);
        }
        Ok(())
    }
}

#[async_trait]
impl AccessRepository for MemoryStore {
    async fn seed_system_groups(&self, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        for (name, description) in [(ADMIN_GROUP, "May do everything"), (EVERYONE_GROUP, "Every active user")] {
            // Exactly this name: a group `admin` that somebody made must not become the Admins.
            let exact = state.groups.values().find(|group| group.name == name).cloned();
            let mut group = exact.unwrap_or_else(|| Group {
                id: uuid::Uuid::new_v4().simple().to_string(),
                name: String::new(),
                description: Some(description.to_owned()),
                is_system: true,
                created_at: Some(now),
                created_by: None,
            });
            group.is_system = true;
            name.clone_into(&mut group.name);
            state.groups.insert(group.id.clone(), group);
        }
        let active: Vec<String> = state.users.values().filter(|user| user.active).map(|user| user.id.clone()).collect();
        for id in active {
            state.seed_member(&id, Some(now));
        }
        state.revision += 1;
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = self.state().groups.values().cloned().collect();
        groups.sort_by(|a, b| (!a.is_system, &a.name).cmp(&(!b.is_system, &b.name)));
        Ok(groups)
    }

    async fn group(&self, id: &str) -> Result<Option<Group>> {
        Ok(self.state().groups.get(id).cloned())
    }

    async fn group_by_name(&self, name: &str) -> Result<Option<Group>> {
        Ok(self.state().group_named(name).cloned())
    }

    async fn insert_group(&self, group: &Group) -> Result<()> {
        let mut state = self.state();
        if state.group_named(&group.name).is_some() || state.groups.contains_key(&group.id) {
            return Err(AccessError::GroupExists { name: group.name.clone() }.into());
        }
        state.groups.insert(group.id.clone(), group.clone());
        state.revision += 1;
        Ok(())
    }

    async fn update_group(&self, id: &str, name: &str, description: Option<&str>) -> Result<Group> {
        let name = name.trim();
        let mut state = self.state();
        let Some(before) = state.groups.get(id).cloned() else { return Err(no_group(id).into()) };
        if before.is_system && before.name != name {
            return Err(AccessError::SystemGroupRename { name: before.name }.into());
        }
        if state.groups.values().any(|other| other.id != id && fold(&other.name) == fold(name)) {
            return Err(AccessError::GroupExists { name: name.to_owned() }.into());
        }
        let group = Group { name: name.to_owned(), description: description.map(str::to_owned), ..before };
        state.groups.insert(id.to_owned(), group.clone());
        state.revision += 1;
        Ok(group)
    }

    async fn delete_group(&self, id: &str) -> Result<()> {
        let mut state = self.state();
        let Some(group) = state.groups.get(id) else { return Err(no_group(id).into()) };
        if group.is_system {
            return Err(AccessError::SystemGroupDelete { name: group.name.clone() }.into());
        }
        state.groups.remove(id);
        state.members.retain(|member| member.group_id != id);
        state.grants.retain(|_, grant| grant.group_id != id);
        state.policies.retain(|_, policy| policy.group_id != id);
        state.revision += 1;
        Ok(())
    }

    async fn members(&self, group_id: &str) -> Result<Vec<Member>> {
        let state = self.state();
        let mut members: Vec<Member> =
            state.members.iter().filter(|member| member.group_id == group_id).cloned().collect();
        let email = |member: &Member| state.users.get(&member.user_id).map(|user| user.email.clone());
        // Users who are gone come last.
        members.sort_by_key(|member| (email(member).is_none(), email(member), member.user_id.clone()));
        Ok(members)
    }

    async fn memberships(&self, user_id: &str) -> Result<Vec<Member>> {
        let state = self.state();
        let name = |member: &Member| state.groups.get(&member.group_id).map(|group| group.name.clone());
        let mine = state.members.iter().filter(|member| member.user_id == user_id && name(member).is_some());
        let mut mine: Vec<Member> = mine.cloned().collect();
        mine.sort_by_key(|member| (name(member), member.group_id.clone()));
        Ok(mine)
    }

    async fn add_member(&self, member: &Member) -> Result<bool> {
        self.state().add_member(member)
    }

    async fn remove_member(&self, group_id: &str, user_id: &str) -> Result<()> {
        let mut state = self.state();
        let place = state.members.iter().position(|member| member.group_id == group_id && member.user_id == user_id);
        let removable =
            place.filter(|at| state.members.get(*at).is_some_and(|member| member.source != MemberSource::GoogleSync));
        let Some(at) = removable else { return Err(AccessError::NoRemovableMembership.into()) };
        let admins = state.groups.get(group_id).is_some_and(|group| group.name == ADMIN_GROUP);
        if admins && state.users.get(user_id).is_some_and(|user| is_service_account(&user.email)) {
            return Err(UserError::ServiceAccount.into());
        }
        if admins && state.only_admin(user_id) {
            return Err(AccessError::LastAdmin.into());
        }
        state.members.remove(at);
        state.revision += 1;
        Ok(())
    }

    async fn replace_directory_groups(
        &self,
        user_id: &str,
        groups: &[DirectoryGroup],
        now: DateTime<Utc>,
    ) -> Result<DirectoryChange> {
        self.state().replace_directory_groups(user_id, groups, now)
    }

    async fn settle_seeded_admin(&self, user_id: &str) -> Result<()> {
        let mut state = self.state();
        let State { members, groups, .. } = &mut *state;
        for member in members.iter_mut() {
            let admins = groups.get(&member.group_id).is_some_and(|group| group.is_system && group.name == ADMIN_GROUP);
            if admins && member.user_id == user_id && member.source == MemberSource::SystemSeed {
                member.source = MemberSource::Admin;
            }
        }
        Ok(())
    }

    async fn grants(&self, group_id: Option<&str>) -> Result<Vec<Grant>> {
        let state = self.state();
        let mut grants: Vec<Grant> =
            state.grants.values().filter(|grant| group_id.is_none_or(|id| grant.group_id == id)).cloned().collect();
        grants.sort_by_key(|grant| {
            let group = state.groups.get(&grant.group_id).map(|group| group.name.clone());
            (group.is_none(), group, grant.resource_type.as_str(), grant.resource_id.clone())
        });
        Ok(grants)
    }

    async fn insert_grant(&self, grant: &Grant) -> Result<()> {
        self.state().insert_grant(grant)
    }

    async fn delete_grant(&self, id: &str) -> Result<Grant> {
        let mut state = self.state();
        let Some(grant) = state.grants.remove(id) else {
            return Err(AccessError::GrantNotFound { grant: printable(id, 80) }.into());
        };
        state.revision += 1;
        Ok(grant)
    }

    async fn delete_grants_of(&self, resource_type: ResourceType, resource_id: &str) -> Result<usize> {
        Ok(self.state().delete_grants_of(resource_type, resource_id))
    }

    async fn snapshot(&self) -> Result<AccessSnapshot> {
        let state = self.state();
        let mut snapshot = AccessSnapshot { revision: state.revision, ..AccessSnapshot::default() };
        snapshot.groups.clone_from(&state.groups);
        snapshot.active_users =
            state.users.values().filter(|user| user.active).map(|user| (user.id.clone(), user.email.clone())).collect();
        snapshot.admin_group = state
            .groups
            .values()
            .find(|group| group.is_system && group.name == ADMIN_GROUP)
            .map(|group| group.id.clone());
        for member in &state.members {
            snapshot.groups_of.entry(member.user_id.clone()).or_default().insert(member.group_id.clone());
            if member.source == MemberSource::GoogleSync {
                snapshot.from_directory.insert(member.user_id.clone());
            }
        }
        for grant in state.grants.values() {
            let id = fold_resource_id(grant.resource_type, &grant.resource_id);
            snapshot.granted_to.entry((grant.group_id.clone(), grant.resource_type)).or_default().insert(id.clone());
            snapshot
                .grants
                .entry((grant.resource_type, id))
                .or_default()
                .push((grant.group_id.clone(), grant.id.clone()));
        }
        for policy in state.policies.values() {
            snapshot.policies.entry(policy.table_id.clone()).or_default().push(policy.clone());
        }
        Ok(snapshot)
    }
}

impl State {
    /// Adds a member; `false` when the pair is there.
    pub(super) fn add_member(&mut self, member: &Member) -> Result<bool> {
        if !self.groups.contains_key(&member.group_id) {
            return Err(no_group(&member.group_id).into());
        }
        if !self.users.contains_key(&member.user_id) {
            return Err(no_user(&member.user_id).into());
        }
        if self.is_member(&member.group_id, &member.user_id) {
            return Ok(false);
        }
        self.members.push(member.clone());
        self.revision += 1;
        Ok(true)
    }

    /// Replaces the memberships of source `google_sync` of a user.
    fn replace_directory_groups(
        &mut self,
        user_id: &str,
        groups: &[DirectoryGroup],
        now: DateTime<Utc>,
    ) -> Result<DirectoryChange> {
        if !self.users.contains_key(user_id) {
            return Err(no_user(user_id).into());
        }
        let mut change = DirectoryChange::default();
        let (mut wanted, mut made) = (BTreeMap::new(), Vec::new());
        for group in groups {
            let DirectoryGroup::Named(address) = group else {
                let known = self.groups.values().find(|known| known.is_system && known.name == group.name());
                match known {
                    Some(known) => drop(wanted.insert(known.id.clone(), known.name.clone())),
                    None => change.ignored.push(group.name().to_owned()),
                }
                continue;
            };
            match self.group_named(address) {
                Some(known) if known.is_from_directory() => drop(wanted.insert(known.id.clone(), known.name.clone())),
                Some(_) => change.ignored.push(address.clone()),
                None => {
                    let group = Group {
                        id: uuid::Uuid::new_v4().simple().to_string(),
                        name: address.clone(),
                        description: None,
                        is_system: false,
                        created_at: Some(now),
                        created_by: Some(DIRECTORY_SYNC.to_owned()),
                    };
                    wanted.insert(group.id.clone(), group.name.clone());
                    made.push(group);
                }
            }
        }
        let goes = |member: &Member| {
            member.user_id == user_id
                && member.source == MemberSource::GoogleSync
                && !wanted.contains_key(&member.group_id)
        };
        let name = |id: &str| self.groups.get(id).map_or_else(|| id.to_owned(), |group| group.name.clone());
        change.removed =
            self.members.iter().filter(|member| goes(member)).map(|member| name(&member.group_id)).collect();
        if change.removed.iter().any(|name| name == ADMIN_GROUP) && self.only_admin(user_id) {
            return Err(AccessError::LastAdmin.into());
        }
        self.members.retain(|member| !goes(member));
        self.groups.extend(made.into_iter().map(|group| (group.id.clone(), group)));
        for (group_id, name) in wanted {
            if !self.is_member(&group_id, user_id) {
                self.members.push(Member {
                    group_id,
                    user_id: user_id.to_owned(),
                    source: MemberSource::GoogleSync,
                    added_at: Some(now),
                    added_by: Some(DIRECTORY_SYNC.to_owned()),
                });
                change.added.push(name);
            }
        }
        change.added.sort();
        change.removed.sort();
        if !change.is_empty() {
            self.revision += 1;
        }
        Ok(change)
    }

    /// Inserts a grant, unless the group has it.
    pub(super) fn insert_grant(&mut self, grant: &Grant) -> Result<()> {
        let Some(group) = self.groups.get(&grant.group_id) else { return Err(no_group(&grant.group_id).into()) };
        let folded = fold_resource_id(grant.resource_type, &grant.resource_id);
        let same = |other: &Grant| {
            other.group_id == grant.group_id
                && other.resource_type == grant.resource_type
                && fold_resource_id(other.resource_type, &other.resource_id) == folded
        };
        if self.grants.values().any(same) {
            return Err(AccessError::GrantExists { group: group.name.clone() }.into());
        }
        self.grants.insert(grant.id.clone(), grant.clone());
        self.revision += 1;
        Ok(())
    }

    /// Deletes the grants of one resource; how many.
    pub(super) fn delete_grants_of(&mut self, resource_type: ResourceType, resource_id: &str) -> usize {
        let (folded, before) = (fold_resource_id(resource_type, resource_id), self.grants.len());
        self.grants.retain(|_, grant| {
            grant.resource_type != resource_type || fold_resource_id(resource_type, &grant.resource_id) != folded
        });
        self.revision += 1;
        before - self.grants.len()
    }
}

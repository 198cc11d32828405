//! People as admins see them: rows with groups and sign-in, new accounts, changes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::groups::member_of;
use super::service::new_id;
use super::{
    CredentialSnapshot, Identity, Letter, MyGroup, SignIn, User, UserChange, UserError, is_service_account,
    normal_email,
};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::printable;
use crate::rbac::{AccessError, AccessSnapshot, AuthMethod, EVERYONE_GROUP, Group, Member, Principal};

/// Most characters of a name.
const LONGEST_NAME: usize = 200;

/// A name as it is kept: in one short line.
pub(super) fn shown_name(text: &str) -> Option<String> {
    let name: String = text.trim().chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    Some(name).filter(|name| !name.is_empty())
}

/// A user with what admins want to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The account.
    #[serde(flatten)]
    pub user: User,
    /// Whether they are an active member of Admin.
    pub is_admin: bool,
    /// Whether the Workspace directory put them into some group.
    pub is_sso_user: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Their groups, by name.
    pub groups: Vec<MyGroup>,
    /// When they last did something that the audit log has.
    pub last_seen_at: Option<DateTime<Utc>>,
}

/// Which people, by address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeopleFilter {
    /// Whose address or name holds this text, whatever its case.
    pub text: Option<String>,
    /// Who are active, or who are not.
    pub active: Option<bool>,
    /// At most this many ...
    pub limit: usize,
    /// ... after this many.
    pub offset: usize,
}

impl Default for PeopleFilter {
    fn default() -> Self {
        Self { text: None, active: None, limit: usize::MAX, offset: 0 }
    }
}

/// A user to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Groups to begin with beside Everyone: names, ids or unique prefixes.
    pub groups: Vec<String>,
    /// Whether to make a link with which they set their password.
    pub invite: bool,
}

/// The groups of a user, by name.
pub(super) fn groups_of(access: &AccessSnapshot, user_id: &str) -> Vec<MyGroup> {
    let mine = access.groups_of.get(user_id).into_iter().flatten().filter_map(|id| access.groups.get(id));
    let mut groups: Vec<MyGroup> = mine
        .map(|group| MyGroup {
            id: group.id.clone(),
            name: group.name.clone(),
            is_system: group.is_system,
            origin: group.origin().to_owned(),
        })
        .collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    groups
}

fn person(
    user: User,
    access: &AccessSnapshot,
    known: &CredentialSnapshot,
    seen: &BTreeMap<String, DateTime<Utc>>,
) -> Person {
    let who = Principal::user(&user.id, AuthMethod::Local, crate::rbac::ClientKind::Api);
    Person {
        is_admin: access.is_admin(&who),
        is_sso_user: access.is_directory_user(&user.id),
        has_password: known.accounts.get(&user.id).is_some_and(|account| account.has_password()),
        groups: groups_of(access, &user.id),
        last_seen_at: seen.get(&user.id).copied().max(user.last_pull_at),
        user,
    }
}

impl Identity<'_> {
    /// People by address, with their groups; accounts of Agnes itself are left out. The same
    /// few questions to the state however many they are.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn people(&self, ctx: &CallContext, filter: &PeopleFilter) -> Result<Vec<Person>> {
        self.manager(ctx).await?;
        let text = filter.text.as_ref().map(|text| text.trim().to_lowercase());
        let is_wanted = |user: &User| {
            !is_service_account(&user.email)
                && filter.active.is_none_or(|active| active == user.active)
                && text.as_ref().is_none_or(|text| {
                    user.email.to_lowercase().contains(text)
                        || user.name.as_ref().is_some_and(|name| name.to_lowercase().contains(text))
                })
        };
        let mut users = self.engine.store().users().list().await?;
        users.retain(is_wanted);
        self.persons(users.into_iter().skip(filter.offset).take(filter.limit).collect()).await
    }

    /// The user with exactly this id or address. Prefixes are for those who type.
    ///
    /// # Errors
    /// `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn person(&self, ctx: &CallContext, id_or_email: &str) -> Result<Person> {
        let user = self.exact_user(ctx, id_or_email).await?;
        self.person_of(user).await
    }

    /// As [`Identity::person`], the account alone.
    ///
    /// # Errors
    /// `user_not_found`, `admin_required`, `service_forbidden`.
    pub async fn exact_user(&self, ctx: &CallContext, id_or_email: &str) -> Result<User> {
        self.manager(ctx).await?;
        let users = self.engine.store().users();
        let found = match users.get(id_or_email).await? {
            Some(found) => Some(found),
            None => users.by_email(id_or_email).await?,
        };
        found.ok_or_else(|| UserError::NotFound { user: printable(id_or_email, 80) }.into())
    }

    /// The user that a reference means, as [`Identity::user`] finds them.
    ///
    /// # Errors
    /// `user_not_found`, `ambiguous_reference`, `admin_required`, `service_forbidden`.
    pub async fn show_person(&self, ctx: &CallContext, reference: &str) -> Result<Person> {
        let user = self.user(ctx, reference).await?;
        self.person_of(user).await
    }

    async fn person_of(&self, user: User) -> Result<Person> {
        let id = user.id.clone();
        self.persons(vec![user]).await?.pop().ok_or_else(|| UserError::NotFound { user: id }.into())
    }

    async fn persons(&self, users: Vec<User>) -> Result<Vec<Person>> {
        let (access, known) = (self.engine.access().await?, SignIn { engine: self.engine }.credentials().await?);
        let only = if let [user] = users.as_slice() { Some(user.id.as_str()) } else { None };
        self.engine.audit_log().flush().await;
        let seen = self.engine.store().audit().last_seen(only).await?;
        Ok(users.into_iter().map(|user| person(user, &access, &known, &seen)).collect())
    }

    /// Makes an active user, a member of Everyone and of these groups; with `invite` also a
    /// link with which they set their password, good for 7 days.
    ///
    /// # Errors
    /// `invalid_email`, `user_exists`, `service_account`, `group_not_found`,
    /// `google_managed_readonly`, `admin_required`, `service_forbidden`.
    pub async fn create_user(&self, ctx: &CallContext, new: &NewUser) -> Result<(User, Option<Letter>)> {
        self.manager(ctx).await?;
        let now = self.engine.clock().now();
        let email = normal_email(&new.email)?;
        if is_service_account(&email) {
            return Err(UserError::ServiceAccount.into());
        }
        // Looked at first: nobody is made whose groups are not there.
        let mut groups: Vec<Group> = Vec::new();
        for reference in &new.groups {
            let group = self.find_group(reference).await?;
            // Everybody is of that one, and of others once.
            if group.name == EVERYONE_GROUP || groups.iter().any(|known| known.id == group.id) {
                continue;
            }
            if group.is_from_directory() {
                return Err(AccessError::GoogleManaged { group: group.name }.into());
            }
            groups.push(group);
        }
        let name = new.name.as_deref().and_then(shown_name);
        let user = User { name, ..User::new(new_id(), email, now) };
        let members: Vec<Member> = groups.iter().map(|group| member_of(ctx, group, &user, now)).collect();
        let done = self.engine.store().users().insert_with(&user, &members).await;
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        self.engine
            .audit()
            .event(ctx, "user.create")
            .resource(format!("user:{}", user.email))
            .params(json!({"id": user.id, "email": user.email, "groups": names}))
            .outcome(&done)
            .record()
            .await;
        done?;
        for group in &groups {
            self.member_added(ctx, group, &user, &Ok(())).await;
        }
        let letter = if new.invite { Some(self.invite(ctx, &user.id).await?) } else { None };
        Ok((user, letter))
    }

    /// Changes a user's name, lets them in or locks them out, as far as either is given.
    ///
    /// # Errors
    /// As [`Identity::set_active`] and [`Identity::rename_user`].
    pub async fn update_user(
        &self,
        ctx: &CallContext,
        reference: &str,
        name: Option<&str>,
        active: Option<bool>,
    ) -> Result<User> {
        self.manager(ctx).await?;
        let mut user = self.find_user(reference).await?;
        // What may be refused comes first, so that a refusal changes nothing.
        if let Some(active) = active
            && active != user.active
        {
            user = self.set_active(ctx, &user.id, active).await?;
        }
        match name {
            Some(name) => self.rename_user(ctx, &user.id, name).await,
            None => Ok(user),
        }
    }

    /// Gives a user another name.
    ///
    /// # Errors
    /// `user_not_found`, `service_account`, `admin_required`, `service_forbidden`.
    pub async fn rename_user(&self, ctx: &CallContext, reference: &str, name: &str) -> Result<User> {
        self.manager(ctx).await?;
        let user = self.find_user(reference).await?;
        if is_service_account(&user.email) {
            return Err(UserError::ServiceAccount.into());
        }
        let change = UserChange { name: Some(shown_name(name).unwrap_or_default()), onboarded: None };
        let done = self.engine.store().users().update(&user.id, &change, self.engine.clock().now()).await;
        self.engine
            .audit()
            .event(ctx, "user.update")
            .resource(format!("user:{}", user.email))
            .before(json!({"name": user.name}))
            .params(json!({"name": change.name}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Activates or deactivates a user.
    ///
    /// # Errors
    /// `user_not_found`, `last_admin`, `self_target`, `service_account`, `sso_managed` when the
    /// directory decides who is in, `admin_required`, `service_forbidden`.
    pub async fn set_active(&self, ctx: &CallContext, reference: &str, active: bool) -> Result<User> {
        self.manager(ctx).await?;
        let user = self.find_user(reference).await?;
        if !active {
            self.may_end(ctx, &user).await?;
        }
        let now = self.engine.clock().now();
        let done = self.engine.store().users().set_active(&user.id, active, ctx.principal().user_id(), now).await;
        self.engine
            .audit()
            .event(ctx, if active { "user.activate" } else { "user.deactivate" })
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
    /// As [`Identity::set_active`].
    pub async fn remove_user(&self, ctx: &CallContext, reference: &str) -> Result<User> {
        self.manager(ctx).await?;
        let user = self.find_user(reference).await?;
        self.may_end(ctx, &user).await?;
        let done = self.engine.store().users().delete(&user.id).await;
        self.engine
            .audit()
            .event(ctx, "user.delete")
            .resource(format!("user:{}", user.email))
            .before(json!({"id": user.id, "email": user.email}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| user)
    }

    /// Nobody ends themselves, nor whom the directory keeps.
    async fn may_end(&self, ctx: &CallContext, user: &User) -> Result<()> {
        if user.id == ctx.principal().user_id() {
            return Err(UserError::SelfTarget.into());
        }
        let kept = self.engine.config().auth.directory_lifecycle;
        if kept && self.engine.access().await?.is_directory_user(&user.id) {
            return Err(UserError::DirectoryManaged.into());
        }
        Ok(())
    }
}

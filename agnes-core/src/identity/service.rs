//! The handle on people, groups and grants; what references mean; people.

use serde_json::json;

use super::{NewUser, User, UserError};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::rbac::{AccessError, AuthMethod, ClientKind, Group, Principal};

/// Users, groups and grants of an engine. Everything here is for admins.
///
/// Where a method takes a reference to a user or group, an exact id wins, then an exact
/// name or e-mail address, then a unique prefix of either.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// Users, groups and grants.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity { engine: self }
    }
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

pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Identity<'_> {
    /// An admin who may see and change who may what: a person.
    pub(super) async fn manager(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    pub(super) async fn find_user(&self, reference: &str) -> Result<User> {
        let users = self.engine.store().users().list().await?;
        resolve(reference, &users, |u| &u.id, |u| &u.email)?
            .ok_or_else(|| UserError::NotFound { user: crate::ident::printable(reference, 80) }.into())
    }

    pub(crate) async fn find_group(&self, reference: &str) -> Result<Group> {
        let groups = self.engine.store().access().groups().await?;
        resolve(reference, &groups, |g| &g.id, |g| &g.name)?
            .ok_or_else(|| AccessError::GroupNotFound { group: crate::ident::printable(reference, 80) }.into())
    }

    /// Adds an active user; they become a member of Everyone.
    ///
    /// # Errors
    /// `invalid_email`, `user_exists`, `service_account`, `admin_required`, `service_forbidden`.
    pub async fn add_user(&self, ctx: &CallContext, email: &str, name: Option<&str>) -> Result<User> {
        let new = NewUser { email: email.to_owned(), name: name.map(str::to_owned), ..NewUser::default() };
        self.create_user(ctx, &new).await.map(|(user, _)| user)
    }

    /// All users by address.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn users(&self, ctx: &CallContext) -> Result<Vec<User>> {
        self.manager(ctx).await?;
        self.engine.store().users().list().await
    }

    /// One user.
    ///
    /// # Errors
    /// `user_not_found`, `ambiguous_reference`, `admin_required`, `service_forbidden`.
    pub async fn user(&self, ctx: &CallContext, reference: &str) -> Result<User> {
        self.manager(ctx).await?;
        self.find_user(reference).await
    }

    /// The principal of an active user, to see what they would see. Audited.
    ///
    /// # Errors
    /// `user_not_found`, `inactive_user`, `admin_required`, `service_forbidden`.
    pub async fn principal_of(&self, ctx: &CallContext, user: &str, client: ClientKind) -> Result<Principal> {
        self.manager(ctx).await?;
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
}

impl Identity<'_> {
    /// The call as an admin makes it who wants to see what this user sees: it reads what they
    /// may read, changes nothing, and is audited under the admin's name. A user who is no
    /// longer active sees nothing.
    ///
    /// # Errors
    /// `user_not_found`, `user_deactivated`, `admin_required`, `service_forbidden`,
    /// `read_only_view`.
    pub async fn see_as(&self, ctx: &CallContext, user: &str) -> Result<CallContext> {
        self.manager(ctx).await?;
        let user = self.find_user(user).await?;
        let by = ctx.principal();
        let seen = Principal::user(&user.id, by.auth(), by.client()).seen_by(by);
        // Who asks is signed in all the same.
        let done = self.engine.access().await?.require_active(&seen);
        let done = done.map_err(|_| Error::from(UserError::SeesNothing { email: user.email.clone() }));
        self.engine
            .audit()
            .event(ctx, "admin.see_as")
            .resource(format!("user:{}", user.email))
            .params(json!({"user_id": user.id}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| ctx.acting_as(seen))
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

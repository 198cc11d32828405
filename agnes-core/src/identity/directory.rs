//! Groups of the company's directory become groups here: at each sign-in elsewhere, and when
//! somebody asks for it.
//!
//! The directory may be out of reach. Then nothing is known, which is not the same as knowing
//! that somebody is in no group: what was known before stays.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sign_in::SignIn;
use super::{Account, ExternalError, SignInError};
use crate::config::DirectoryConfig;
use crate::context::{CallContext, Client};
use crate::error::Result;
use crate::rbac::{Ability, DirectoryChange, DirectoryGroup, Group, MemberSource};

/// The company's directory.
#[async_trait]
pub trait Directory: Send + Sync + std::fmt::Debug {
    /// Addresses of all groups that `email` is in.
    ///
    /// # Errors
    /// Whatever keeps it from knowing all of them.
    async fn groups_of(&self, email: &str) -> Result<Vec<String>>;
}

/// What a sync of the caller's groups would do, for whoever sets the sync up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPreview {
    /// Whether the directory could not be asked.
    pub soft_failed: bool,
    /// Beginning of the addresses that count.
    pub prefix: Option<String>,
    /// Addresses as the directory says them.
    pub fetched: Vec<String>,
    /// Those that count.
    pub fetched_relevant: Vec<String>,
    /// Names of the caller's groups that came from the directory.
    pub current_names: Vec<String>,
    /// Addresses of those groups.
    pub current_external_ids: Vec<String>,
    /// Names of groups they would be put in.
    pub would_add: Vec<String>,
    /// Names of groups they would be taken out of.
    pub would_remove: Vec<String>,
}

/// What the directory said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Nobody asked: it is not set up.
    Off,
    /// No information.
    Unknown,
    /// All groups, lower case.
    Groups(BTreeSet<String>),
}

impl DirectoryConfig {
    /// Whether a group, by its address in lower case, counts.
    fn counts(&self, address: &str) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| address.starts_with(prefix))
    }

    /// What a group is called here.
    fn meaning(&self, address: &str) -> DirectoryGroup {
        match address {
            admin if self.admin.as_deref() == Some(admin) => DirectoryGroup::Admin,
            everyone if self.everyone.as_deref() == Some(everyone) => DirectoryGroup::Everyone,
            other => DirectoryGroup::Named(other.to_owned()),
        }
    }

    /// What the groups that count are called here.
    pub(super) fn wanted(&self, groups: &BTreeSet<String>) -> Vec<DirectoryGroup> {
        let wanted: BTreeSet<DirectoryGroup> =
            groups.iter().filter(|address| self.counts(address)).map(|address| self.meaning(address)).collect();
        wanted.into_iter().collect()
    }

    /// The address of the directory's group that a system group here is.
    pub(super) fn mapped(&self, group: &Group) -> Option<String> {
        let address = self.address_of(&group.name);
        (group.is_system && address != group.name).then(|| address.to_owned())
    }

    /// What groups of a developer's machine, by id and name, are called here: a directory says
    /// either as the address.
    pub(super) fn simulated(&self, groups: &[(String, String)]) -> Vec<DirectoryGroup> {
        let mut wanted = BTreeSet::new();
        for (id, name) in groups {
            let (id, name) = (id.trim().to_lowercase(), name.trim());
            let folded = name.to_lowercase();
            if !name.is_empty() && (self.counts(&id) || self.counts(&folded)) {
                let mapped = [self.meaning(&id), self.meaning(&folded)];
                let mapped = mapped.into_iter().find(|group| !matches!(group, DirectoryGroup::Named(_)));
                wanted.insert(mapped.unwrap_or_else(|| DirectoryGroup::Named(name.to_owned())));
            }
        }
        wanted.into_iter().collect()
    }

    /// The address of a group here that came from the directory.
    fn address_of<'a>(&'a self, name: &'a str) -> &'a str {
        let mapped = [(&self.admin, DirectoryGroup::Admin), (&self.everyone, DirectoryGroup::Everyone)];
        let found =
            mapped.into_iter().find(|(_, group)| group.name() == name).and_then(|(address, _)| address.as_deref());
        found.unwrap_or(name)
    }
}

impl SignIn<'_> {
    fn directory(&self) -> &DirectoryConfig {
        &self.engine.config().directory
    }

    /// Asks the directory; a failure is logged and is no information.
    pub(super) async fn fetch_groups(&self, email: &str, directory: Option<&dyn Directory>) -> Fetched {
        let config = self.directory();
        let found = match (&config.mock_groups, directory) {
            (Some(groups), _) => Ok(groups.clone()),
            (None, _) if config.subject.is_none() => return Fetched::Off,
            (None, None) => return Fetched::Off,
            (None, Some(directory)) => directory.groups_of(email).await,
        };
        match found {
            // What is no address names no group.
            Ok(groups) => {
                Fetched::Groups(groups.iter().filter_map(|address| super::normal_email(address).ok()).collect())
            }
            Err(error) => {
                tracing::warn!(code = error.code(), "the directory did not say somebody's groups: {error}");
                Fetched::Unknown
            }
        }
    }

    /// Names of the groups that somebody is in because the directory said so, sorted.
    pub(super) async fn directory_groups(&self, user_id: &str) -> Result<Vec<String>> {
        let (access, members) = (self.engine.access().await?, self.engine.store().access().memberships(user_id).await?);
        let mine = members.iter().filter(|member| member.source == MemberSource::GoogleSync);
        let mut names: Vec<String> =
            mine.filter_map(|member| access.groups.get(&member.group_id)).map(|group| group.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    /// Makes somebody's groups what the directory says, and notes it.
    pub(super) async fn apply_groups(
        &self,
        client: &Client,
        account: &Account,
        wanted: &[DirectoryGroup],
    ) -> Result<DirectoryChange> {
        let now = self.engine.clock().now();
        let done = self.engine.store().access().replace_directory_groups(&account.id, wanted, now).await;
        let change = done.as_ref().cloned().unwrap_or_default();
        if !change.is_empty() || !change.ignored.is_empty() || done.is_err() {
            let event = self.engine.audit().event_of(client, Some(&account.id), "group_sync");
            let params = json!({"added": change.added, "removed": change.removed, "ignored": change.ignored});
            event.resource(format!("user:{}", account.email)).params(params).outcome(&done).record().await;
        }
        done
    }

    /// Makes the caller's groups what the directory says now; at most once a minute.
    ///
    /// # Errors
    /// `group_sync_off`, `group_check_unavailable` (nothing changed), `rate_limited`,
    /// `last_admin`, `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn refresh_groups(
        &self,
        ctx: &CallContext,
        client: &Client,
        directory: Option<&dyn Directory>,
    ) -> Result<DirectoryChange> {
        let account = self.caller_with_groups(ctx).await?;
        if !self.state().refreshed.entry(account.id.clone()).or_insert(()).is_fresh() {
            return Err(ExternalError::TooSoon.into());
        }
        match self.fetch_groups(&account.email, directory).await {
            Fetched::Off => Err(ExternalError::GroupSyncOff.into()),
            Fetched::Unknown => Err(ExternalError::GroupCheckUnavailable.into()),
            Fetched::Groups(groups) => self.apply_groups(client, &account, &self.directory().wanted(&groups)).await,
        }
    }

    /// What [`SignIn::refresh_groups`] would do. Changes nothing.
    ///
    /// # Errors
    /// `group_sync_off`, `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn preview_groups(&self, ctx: &CallContext, directory: Option<&dyn Directory>) -> Result<GroupPreview> {
        let account = self.caller_with_groups(ctx).await?;
        let config = self.directory();
        let current = self.directory_groups(&account.id).await?;
        let fetched = match self.fetch_groups(&account.email, directory).await {
            Fetched::Off => return Err(ExternalError::GroupSyncOff.into()),
            Fetched::Unknown => None,
            Fetched::Groups(groups) => Some(groups),
        };
        let access = self.engine.access().await?;
        let mine: BTreeSet<&str> = access
            .groups_of
            .get(&account.id)
            .into_iter()
            .flatten()
            .filter_map(|id| access.groups.get(id))
            .map(|group| group.name.as_str())
            .collect();
        let wanted: Option<Vec<DirectoryGroup>> = fetched.as_ref().map(|groups| config.wanted(groups));
        let names = |groups: &[DirectoryGroup]| groups.iter().map(|group| group.name().to_owned()).collect::<Vec<_>>();
        let wanted = wanted.map(|groups| names(&groups));
        Ok(GroupPreview {
            soft_failed: fetched.is_none(),
            prefix: config.prefix.clone(),
            fetched_relevant: fetched.iter().flatten().filter(|address| config.counts(address)).cloned().collect(),
            fetched: fetched.into_iter().flatten().collect(),
            would_add: wanted.iter().flatten().filter(|name| !mine.contains(name.as_str())).cloned().collect(),
            would_remove: match &wanted {
                Some(wanted) => current.iter().filter(|name| !wanted.contains(name)).cloned().collect(),
                None => Vec::new(),
            },
            current_external_ids: current.iter().map(|name| config.address_of(name).to_owned()).collect(),
            current_names: current,
        })
    }

    /// The caller, who may have groups of the directory.
    async fn caller_with_groups(&self, ctx: &CallContext) -> Result<Account> {
        let principal = ctx.principal();
        self.engine.access().await?.require_active(principal)?;
        principal.require_person()?;
        principal.require(Ability::Everything)?;
        principal.require_own()?;
        if !self.directory().is_on() {
            return Err(ExternalError::GroupSyncOff.into());
        }
        let account = self.credentials().await?.accounts.get(principal.user_id()).cloned();
        let account = account.filter(|account| !super::is_service_account(&account.email));
        account.ok_or_else(|| SignInError::UserGone.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_count_and_mean_what_the_operator_says() {
        let config = DirectoryConfig {
            prefix: Some("agnes-".into()),
            admin: Some("agnes-admins@acme.example".into()),
            everyone: Some("agnes-all@acme.example".into()),
            ..DirectoryConfig::default()
        };
        let groups = |list: &[&str]| list.iter().map(|address| (*address).to_owned()).collect::<BTreeSet<_>>();
        let all = groups(&[
            "agnes-admins@acme.example",
            "agnes-all@acme.example",
            "agnes-x@acme.example",
            "other@acme.example",
        ]);
        let named = DirectoryGroup::Named("agnes-x@acme.example".into());
        assert_eq!(config.wanted(&all), [DirectoryGroup::Admin, DirectoryGroup::Everyone, named]);
        assert_eq!(config.wanted(&groups(&["x-agnes-@acme.example"])), []);
        // Without a prefix all of them count; a group called like a system group is none.
        let open = DirectoryConfig::default();
        let odd = DirectoryGroup::Named("admin@acme.example".into());
        assert_eq!(open.wanted(&groups(&["admin@acme.example"])), [odd]);
        assert_eq!((config.address_of("Admin"), open.address_of("Admin")), ("agnes-admins@acme.example", "Admin"));
    }
}

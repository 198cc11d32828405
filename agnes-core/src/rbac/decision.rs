//! The decision: pure, values in, values out.

use std::collections::BTreeSet;

use super::{Ability, AccessError, AccessSnapshot, Principal, ResourceType};
use crate::error::Result;

/// Ids of the internal tables: every active user may name them, rows are filtered per caller.
pub const INTERNAL_TABLES: [&str; 3] = ["agnes_sessions", "agnes_telemetry", "agnes_audit"];

/// Why a decision came out as it did; goes into the audit log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// The caller owns the data folder.
    TrustedOwner,
    /// The caller is a member of Admin.
    Admin,
    /// An internal table; rows are filtered.
    InternalTable,
    /// A grant opens it.
    Grant {
        /// The group the grant belongs to.
        group_id: String,
        /// The grant.
        grant_id: String,
    },
    /// Nothing opens it.
    NoGrant,
    /// The user is unknown or not active.
    InactiveUser,
}

/// One answer with its reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// Allowed or not.
    pub allowed: bool,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

/// What a principal may read of one resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accessible {
    /// Everything that exists.
    All,
    /// These ids (case-folded for tables).
    Only(BTreeSet<String>),
}

impl Accessible {
    /// Whether the set holds `id` (case-folded by the caller for tables).
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(id),
        }
    }
}

/// `id` as grants compare it.
#[must_use]
pub fn fold_resource_id(resource_type: ResourceType, id: &str) -> String {
    if resource_type == ResourceType::Table { id.to_lowercase() } else { id.to_owned() }
}

impl AccessSnapshot {
    /// Whether `principal` is the owner or an active member of Admin.
    #[must_use]
    pub fn is_admin(&self, principal: &Principal) -> bool {
        principal.is_trusted_owner()
            || self.active_users.contains_key(principal.user_id())
                && self.admin_group.as_ref().is_some_and(|admin| {
                    self.groups_of.get(principal.user_id()).is_some_and(|groups| groups.contains(admin))
                })
    }

    /// Whether `principal` is the owner or an active user.
    #[must_use]
    pub fn is_active(&self, principal: &Principal) -> bool {
        principal.is_trusted_owner() || self.active_users.contains_key(principal.user_id())
    }

    /// How many active people are in a group.
    #[must_use]
    pub fn active_members(&self, group_id: &str) -> usize {
        let is_in = |groups: &BTreeSet<String>| groups.contains(group_id);
        self.groups_of.iter().filter(|(user, groups)| is_in(groups) && self.active_users.contains_key(*user)).count()
    }

    /// Whether the Workspace directory put this user into some group, and so keeps them.
    #[must_use]
    pub fn is_directory_user(&self, user_id: &str) -> bool {
        self.from_directory.contains(user_id)
            || self.groups_of.get(user_id).is_some_and(|mine| {
                mine.iter().any(|id| self.groups.get(id).is_some_and(super::Group::is_from_directory))
            })
    }

    /// Refuses unknown and inactive users.
    ///
    /// # Errors
    /// [`AccessError::InactivePrincipal`].
    pub fn require_active(&self, principal: &Principal) -> Result<()> {
        if self.is_active(principal) { Ok(()) } else { Err(AccessError::InactivePrincipal.into()) }
    }

    /// Refuses everybody but admins.
    ///
    /// # Errors
    /// [`AccessError::InactivePrincipal`], [`AccessError::AdminRequired`]; also for an admin
    /// [`AccessError::ScopeDenied`] with a narrow token and [`AccessError::ReadOnlyView`]
    /// while another admin looks at what they see.
    pub fn require_admin(&self, principal: &Principal) -> Result<()> {
        self.require_active(principal)?;
        if !self.is_admin(principal) {
            return Err(AccessError::AdminRequired.into());
        }
        principal.require(Ability::Everything)?;
        principal.require_own()
    }

    /// Refuses everybody but admins who are people: the service neither sees nor changes who
    /// may what.
    ///
    /// # Errors
    /// Those of [`AccessSnapshot::require_admin`], [`AccessError::ServiceForbidden`].
    pub fn require_access_admin(&self, principal: &Principal) -> Result<()> {
        self.require_admin(principal)?;
        principal.require_person()
    }

    /// May `principal` use this resource, and why.
    #[must_use]
    pub fn decide(&self, principal: &Principal, resource_type: ResourceType, id: &str) -> Decision {
        let allow = |reason| Decision { allowed: true, reason };
        let deny = |reason| Decision { allowed: false, reason };
        if principal.is_trusted_owner() {
            return allow(Reason::TrustedOwner);
        }
        if !self.is_active(principal) {
            return deny(Reason::InactiveUser);
        }
        let id = fold_resource_id(resource_type, id);
        if resource_type == ResourceType::Table && INTERNAL_TABLES.contains(&id.as_str()) {
            return allow(Reason::InternalTable);
        }
        if self.is_admin(principal) {
            return allow(Reason::Admin);
        }
        let groups = self.groups_of.get(principal.user_id());
        let grant = self
            .grants
            .get(&(resource_type, id))
            .and_then(|grants| grants.iter().find(|(group, _)| groups.is_some_and(|mine| mine.contains(group))));
        match grant {
            Some((group_id, grant_id)) => {
                allow(Reason::Grant { group_id: group_id.clone(), grant_id: grant_id.clone() })
            }
            None => deny(Reason::NoGrant),
        }
    }

    /// Adds a membership and a grant that are only looked at: `id` is folded as grants compare it.
    pub(crate) fn give(&mut self, group: &str, user: &str, resource_type: ResourceType, id: &str) {
        self.groups_of.entry(user.to_owned()).or_default().insert(group.to_owned());
        self.granted_to.entry((group.to_owned(), resource_type)).or_default().insert(id.to_owned());
        let grants = self.grants.entry((resource_type, id.to_owned())).or_default();
        if !grants.iter().any(|(has, _)| has == group) {
            grants.push((group.to_owned(), "preview".to_owned()));
        }
    }

    /// Everything of one type that `principal` may use: one question, not one per row.
    /// Internal tables are not listed here.
    #[must_use]
    pub fn accessible(&self, principal: &Principal, resource_type: ResourceType) -> Accessible {
        if !self.is_active(principal) {
            return Accessible::Only(BTreeSet::new());
        }
        if self.is_admin(principal) {
            return Accessible::All;
        }
        let ids = self
            .groups_of
            .get(principal.user_id())
            .into_iter()
            .flatten()
            .filter_map(|group| self.granted_to.get(&(group.clone(), resource_type)))
            .flatten()
            .cloned()
            .collect();
        Accessible::Only(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{AuthMethod, ClientKind, Proof, Scope};

    fn snapshot() -> AccessSnapshot {
        let mut s = AccessSnapshot { admin_group: Some("ga".into()), ..AccessSnapshot::default() };
        for (user, groups) in [("ann", vec!["ga"]), ("bob", vec!["gb"]), ("cy", vec![])] {
            s.active_users.insert(user.into(), format!("{user}@acme.example"));
            s.groups_of.insert(user.into(), groups.into_iter().map(String::from).collect());
        }
        s.groups_of.insert("gone".into(), ["ga".to_owned()].into());
        s.grants.insert((ResourceType::Table, "orders".into()), vec![("gb".into(), "g1".into())]);
        s.granted_to.insert(("gb".into(), ResourceType::Table), ["orders".to_owned()].into());
        s
    }

    fn user(id: &str) -> Principal {
        Principal::user(id, AuthMethod::Session, ClientKind::Web)
    }

    #[test]
    fn decisions() {
        let s = snapshot();
        let check = |who: &str, table: &str, allowed: bool| {
            assert_eq!(s.decide(&user(who), ResourceType::Table, table).allowed, allowed, "{who} {table}");
        };
        check("ann", "orders", true);
        check("ann", "salaries", true);
        check("bob", "orders", true);
        check("bob", "ORDERS", true);
        check("bob", "salaries", false);
        check("bob", "agnes_audit", true);
        check("cy", "orders", false);
        check("gone", "orders", false);
        check("gone", "agnes_audit", false);
        assert_eq!(
            s.decide(&user("bob"), ResourceType::Table, "orders").reason,
            Reason::Grant { group_id: "gb".into(), grant_id: "g1".into() }
        );
    }

    #[test]
    fn a_missing_admin_group_makes_nobody_admin() {
        let s = AccessSnapshot { admin_group: None, ..snapshot() };
        assert!(!s.is_admin(&user("ann")));
        assert!(s.require_admin(&user("ann")).is_err());
    }

    #[test]
    fn narrow_tokens_the_service_and_lookers_on_are_no_admins() {
        let s = snapshot();
        let code = |result: Result<()>| result.err().map(|error| error.code().to_owned());
        let with = |scope| user("ann").with_proof(Proof { id: "t".into(), scope, expires_at: None });
        assert_eq!(code(s.require_admin(&with(Scope::General))), None);
        assert_eq!(code(s.require_admin(&with(Scope::BootstrapAnalyst))).as_deref(), Some("scope_denied"));
        assert_eq!(code(s.require_admin(&with(Scope::Desktop))).as_deref(), Some("scope_denied"));
        let looked_at = user("ann").seen_by(&user("ann"));
        assert_eq!(code(s.require_admin(&looked_at)).as_deref(), Some("read_only_view"));
        assert!(s.decide(&looked_at, ResourceType::Table, "salaries").allowed);
        let service = Principal::user("ann", AuthMethod::Service, ClientKind::Scheduler);
        assert_eq!(code(s.require_admin(&service)), None);
        assert_eq!(code(s.require_access_admin(&service)).as_deref(), Some("service_forbidden"));
        assert_eq!(code(s.require_access_admin(&user("ann"))), None);
        assert_eq!(code(s.require_access_admin(&user("bob"))).as_deref(), Some("admin_required"));
    }

    #[test]
    fn scopes_open_what_they_say() {
        use Ability::{Catalog, Desktop, Download, Everything, Manifest, Me, Rows};
        let opens =
            |scope: Scope| [Me, Catalog, Manifest, Download, Desktop, Rows, Everything].map(|a| scope.allows(a));
        assert_eq!(opens(Scope::General), [true; 7]);
        assert_eq!(opens(Scope::BootstrapAnalyst), [true, true, true, true, false, false, false]);
        assert_eq!(opens(Scope::Desktop), [false, false, false, false, true, false, false]);
        assert_eq!(opens(Scope::Mcp), [true, true, false, false, false, true, false]);
        assert_eq!(Scope::parse("bootstrap-analyst"), Some(Scope::BootstrapAnalyst));
        assert_eq!(Scope::parse("everything"), None);
    }

    #[test]
    fn only_a_session_of_ones_own_is_one() {
        let code = |principal: &Principal| principal.require_session().err().map(|error| error.code().to_owned());
        let by = |auth| Principal::user("ann", auth, ClientKind::Api);
        assert_eq!(code(&by(AuthMethod::Session)), None);
        for auth in [AuthMethod::Pat, AuthMethod::Service, AuthMethod::Desktop, AuthMethod::Local] {
            assert_eq!(code(&by(auth)).as_deref(), Some("session_required"));
        }
        assert_eq!(code(&by(AuthMethod::Session).seen_by(&user("bob"))).as_deref(), Some("read_only_view"));
    }

    #[test]
    fn sets_agree_with_single_decisions() {
        let s = snapshot();
        for who in ["ann", "bob", "cy", "gone"] {
            let set = s.accessible(&user(who), ResourceType::Table);
            for table in ["orders", "salaries"] {
                assert_eq!(set.contains(table), s.decide(&user(who), ResourceType::Table, table).allowed);
            }
        }
    }
}

//! Groups, members and grants, and the repository that keeps them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind, Result};
use crate::policy::Policy;
use crate::rbac::{DirectoryChange, DirectoryGroup};

/// Name of the system group whose members pass every check.
pub const ADMIN_GROUP: &str = "Admin";
/// Name of the system group every active user belongs to.
pub const EVERYONE_GROUP: &str = "Everyone";

/// The kinds of resource a grant can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceType {
    /// A registered table, by registry id.
    Table,
    /// A plugin, `<marketplace>/<plugin>`.
    MarketplacePlugin,
    /// One of the six memory domains.
    MemoryDomain,
}

impl ResourceType {
    /// Every type, in display order.
    pub const ALL: [Self; 3] = [Self::Table, Self::MarketplacePlugin, Self::MemoryDomain];

    /// The key in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::MarketplacePlugin => "marketplace_plugin",
            Self::MemoryDomain => "memory_domain",
        }
    }

    /// Parses a key.
    ///
    /// # Errors
    /// [`AccessError::UnknownResourceType`].
    pub fn parse(key: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == key)
            .ok_or_else(|| AccessError::UnknownResourceType { key: crate::ident::printable(key, 64) }.into())
    }
}

/// How somebody became a member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberSource {
    /// An admin added them.
    Admin,
    /// The Workspace group sync added them.
    GoogleSync,
    /// Agnes added them.
    SystemSeed,
    /// The break-glass command added them.
    CliBreakGlass,
}

impl MemberSource {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::GoogleSync => "google_sync",
            Self::SystemSeed => "system_seed",
            Self::CliBreakGlass => "cli_break_glass",
        }
    }

    /// The source stored as `text`; anything unknown counts as `admin`.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        [Self::GoogleSync, Self::SystemSeed, Self::CliBreakGlass]
            .into_iter()
            .find(|s| s.as_str() == text)
            .unwrap_or(Self::Admin)
    }
}

/// A named set of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// 32 hex digits.
    pub id: String,
    /// Unique, trimmed; compared case-folded.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Seeded by Agnes: cannot be renamed or deleted.
    pub is_system: bool,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// Who made it.
    pub created_by: Option<String>,
}

/// Who makes groups of the Workspace directory.
pub const DIRECTORY_SYNC: &str = "system:google-sync";

impl Group {
    /// Whether its members come from the Workspace directory and cannot be set here.
    #[must_use]
    pub fn is_from_directory(&self) -> bool {
        self.created_by.as_deref() == Some(DIRECTORY_SYNC)
    }

    /// Where it comes from: `system`, `google_sync` or `custom`.
    #[must_use]
    pub fn origin(&self) -> &'static str {
        if self.is_system {
            "system"
        } else if self.is_from_directory() {
            "google_sync"
        } else {
            "custom"
        }
    }
}

/// One person in one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The group.
    pub group_id: String,
    /// The person.
    pub user_id: String,
    /// How they got in. Adding an existing pair keeps the first source.
    pub source: MemberSource,
    /// When.
    pub added_at: Option<DateTime<Utc>>,
    /// By whom.
    pub added_by: Option<String>,
}

/// One resource opened to one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// 32 hex digits.
    pub id: String,
    /// The group.
    pub group_id: String,
    /// What kind of resource.
    pub resource_type: ResourceType,
    /// Which one; a table's registry id compares case-folded.
    pub resource_id: String,
    /// When.
    pub assigned_at: Option<DateTime<Utc>>,
    /// By whom.
    pub assigned_by: Option<String>,
}

/// All that a decision needs, as of one revision of the state: users, groups, members, grants.
///
/// Rebuilt when the revision moved, never used past it, so it is not a cache that can be stale.
#[derive(Debug, Clone, Default)]
pub struct AccessSnapshot {
    /// The revision this was read at.
    pub revision: u64,
    /// Active users by id, with their e-mail address.
    pub active_users: BTreeMap<String, String>,
    /// Groups by id.
    pub groups: BTreeMap<String, Group>,
    /// Group ids by user id.
    pub groups_of: BTreeMap<String, BTreeSet<String>>,
    /// `(group id, grant id)` by resource; a table's id is case-folded here.
    pub grants: BTreeMap<(ResourceType, String), Vec<(String, String)>>,
    /// Resource ids (case-folded for tables) by group and type.
    pub granted_to: BTreeMap<(String, ResourceType), BTreeSet<String>>,
    /// Id of the Admin group; `None` means nobody is an admin.
    pub admin_group: Option<String>,
    /// Policies by table id, case-folded.
    pub policies: BTreeMap<String, Vec<Policy>>,
    /// Ids of users whom the Workspace directory put into some group.
    pub from_directory: BTreeSet<String>,
}

/// Keeps groups, members and grants. Every method is one transaction and bumps
/// [`crate::store::Store::revision`] when it changed something.
///
/// Ids are made by the caller (32 hex digits); times come from the engine's clock.
#[async_trait]
pub trait AccessRepository: Send + Sync {
    /// Makes `Admin` and `Everyone` when missing; promotes groups of those names to
    /// system groups, keeping their description. Adds every active user to Everyone.
    async fn seed_system_groups(&self, now: DateTime<Utc>) -> Result<()>;
    /// All groups: system first, then by name.
    async fn groups(&self) -> Result<Vec<Group>>;
    /// One group by id.
    async fn group(&self, id: &str) -> Result<Option<Group>>;
    /// One group by name, case-folded.
    async fn group_by_name(&self, name: &str) -> Result<Option<Group>>;
    /// Inserts a group. `group_exists` when the case-folded name is taken.
    async fn insert_group(&self, group: &Group) -> Result<()>;
    /// Replaces name and description. `group_exists`, `group_not_found`, `system_group_rename`.
    async fn update_group(&self, id: &str, name: &str, description: Option<&str>) -> Result<Group>;
    /// Deletes a group with its members, grants and policies. `group_not_found`, `system_group_delete`.
    async fn delete_group(&self, id: &str) -> Result<()>;
    /// Members of a group by e-mail address.
    async fn members(&self, group_id: &str) -> Result<Vec<Member>>;
    /// Memberships of a user by group name.
    async fn memberships(&self, user_id: &str) -> Result<Vec<Member>>;
    /// Adds a member; `false` when the pair exists (its first source stays).
    /// `group_not_found`, `user_not_found`.
    async fn add_member(&self, member: &Member) -> Result<bool>;
    /// Removes a member. `no_removable_membership` when there is none or it came from
    /// `google_sync`; `last_admin` when no other active Admin would remain (checked in
    /// the same transaction).
    async fn remove_member(&self, group_id: &str, user_id: &str) -> Result<()>;
    /// Replaces what the directory says of a user: their memberships of source `google_sync`
    /// become these groups, which are made where missing; those of other sources stay. Moves
    /// the revision only when something changed. `user_not_found`; `last_admin`, with nothing
    /// changed, when no other active Admin would remain.
    async fn replace_directory_groups(
        &self,
        user_id: &str,
        groups: &[DirectoryGroup],
        now: DateTime<Utc>,
    ) -> Result<DirectoryChange>;
    /// Says that a seeded Admin signed in as a person: from then on nobody else may make the
    /// first Admin.
    async fn settle_seeded_admin(&self, user_id: &str) -> Result<()>;
    /// Grants, optionally of one group, by group name, type and resource id.
    async fn grants(&self, group_id: Option<&str>) -> Result<Vec<Grant>>;
    /// Inserts a grant. `grant_exists`, `group_not_found`.
    async fn insert_grant(&self, grant: &Grant) -> Result<()>;
    /// Deletes a grant and returns it. `grant_not_found`.
    async fn delete_grant(&self, id: &str) -> Result<Grant>;
    /// Deletes the grants of one resource, by exact id (case-folded for tables); how many.
    async fn delete_grants_of(&self, resource_type: ResourceType, resource_id: &str) -> Result<usize>;
    /// Everything a decision needs, read in one transaction.
    async fn snapshot(&self) -> Result<AccessSnapshot>;
}

/// What can go wrong with groups, members and grants.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AccessError {
    #[error("there is no group `{group}`")]
    GroupNotFound { group: String },
    #[error("a group named `{name}` exists already")]
    GroupExists { name: String },
    #[error("a group needs a name")]
    NameRequired,
    #[error("`{name}` is a system group and keeps its name")]
    SystemGroupRename { name: String },
    #[error("`{name}` is a system group and cannot be deleted")]
    SystemGroupDelete { name: String },
    #[error("`{user}` is a member of `{group}` already")]
    AlreadyMember { user: String, group: String },
    #[error("there is no membership that can be removed here")]
    NoRemovableMembership,
    #[error("the members of `{group}` come from the directory")]
    GoogleManaged { group: String },
    #[error("this would leave no active Admin")]
    LastAdmin,
    #[error("there is no grant `{grant}`")]
    GrantNotFound { grant: String },
    #[error("`{group}` has this grant already")]
    GrantExists { group: String },
    #[error("`{key}` is not a resource type")]
    UnknownResourceType { key: String },
    #[error("a grant needs the id of a resource")]
    ResourceIdRequired,
    #[error("this needs an admin")]
    AdminRequired,
    #[error("this user is unknown or not active")]
    InactivePrincipal,
    #[error("a token of scope `{scope}` may not be used for this")]
    ScopeDenied { scope: &'static str },
    #[error("this needs a sign-in of your own, not a caller of kind `{auth}`")]
    SessionRequired { auth: &'static str },
    #[error("looking at what somebody else sees changes nothing")]
    ReadOnlyView,
    #[error("this is for people: the token of the service is not for users, groups, grants, policies or tokens")]
    ServiceForbidden,
}

impl Coded for AccessError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::GroupNotFound { .. } | Self::NoRemovableMembership | Self::GrantNotFound { .. } => {
                ErrorKind::NotFound
            }
            Self::GroupExists { .. }
            | Self::SystemGroupRename { .. }
            | Self::SystemGroupDelete { .. }
            | Self::AlreadyMember { .. }
            | Self::GoogleManaged { .. }
            | Self::LastAdmin
            | Self::GrantExists { .. } => ErrorKind::Conflict,
            Self::NameRequired | Self::UnknownResourceType { .. } | Self::ResourceIdRequired => ErrorKind::InvalidInput,
            Self::AdminRequired
            | Self::ScopeDenied { .. }
            | Self::SessionRequired { .. }
            | Self::ReadOnlyView
            | Self::ServiceForbidden => ErrorKind::Forbidden,
            Self::InactivePrincipal => ErrorKind::Unauthenticated,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::GroupNotFound { .. } => "group_not_found",
            Self::GroupExists { .. } => "group_exists",
            Self::NameRequired => "name_required",
            Self::SystemGroupRename { .. } => "system_group_rename",
            Self::SystemGroupDelete { .. } => "system_group_delete",
            Self::AlreadyMember { .. } => "already_member",
            Self::NoRemovableMembership => "no_removable_membership",
            Self::GoogleManaged { .. } => "google_managed_readonly",
            Self::LastAdmin => "last_admin",
            Self::GrantNotFound { .. } => "grant_not_found",
            Self::GrantExists { .. } => "grant_exists",
            Self::UnknownResourceType { .. } => "unknown_resource_type",
            Self::ResourceIdRequired => "resource_id_required",
            Self::AdminRequired => "admin_required",
            Self::InactivePrincipal => "inactive_user",
            Self::ScopeDenied { .. } => "scope_denied",
            Self::SessionRequired { .. } => "session_required",
            Self::ReadOnlyView => "read_only_view",
            Self::ServiceForbidden => "service_forbidden",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::GroupNotFound { .. } => Some("`agnes admin group list` shows the groups".to_owned()),
            Self::GrantNotFound { .. } => Some("`agnes admin grant list` shows the grants".to_owned()),
            Self::GoogleManaged { .. } => Some("change them in the directory, or choose another group".to_owned()),
            Self::LastAdmin => Some("add another active user to the group `Admin` first".to_owned()),
            Self::UnknownResourceType { .. } => {
                Some(format!("known types: {}", ResourceType::ALL.map(ResourceType::as_str).join(", ")))
            }
            Self::ScopeDenied { .. } => Some("use a token of scope `general`".to_owned()),
            Self::SessionRequired { .. } => Some("sign in with a browser or a password".to_owned()),
            Self::AdminRequired => Some("ask a member of the group `Admin`".to_owned()),
            _ => None,
        }
    }
}

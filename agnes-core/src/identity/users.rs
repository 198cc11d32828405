//! Users and the repository that keeps them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind, Result};
use crate::rbac::Member;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// 32 hex digits or a UUID; older installations may hold other texts.
    pub id: String,
    /// Unique, stored trimmed and case-folded.
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// Inactive users pass no check.
    pub active: bool,
    /// When they were made inactive.
    pub deactivated_at: Option<DateTime<Utc>>,
    /// By whom.
    pub deactivated_by: Option<String>,
    /// When the row was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When the row was last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// Whether they finished the first-steps page.
    pub onboarded: bool,
    /// When they last fetched the manifest.
    pub last_pull_at: Option<DateTime<Utc>>,
}

impl User {
    /// An active user with nothing but an address.
    #[must_use]
    pub fn new(id: String, email: String, now: DateTime<Utc>) -> Self {
        Self {
            id,
            email,
            name: None,
            active: true,
            deactivated_at: None,
            deactivated_by: None,
            created_at: Some(now),
            updated_at: Some(now),
            onboarded: false,
            last_pull_at: None,
        }
    }
}

/// An e-mail address as it is stored and compared: trimmed, case-folded.
///
/// # Errors
/// [`UserError::InvalidEmail`] unless it has one `@` with text on both sides, no white
/// space or control character, and at most 254 bytes (RFC 5321).
pub fn normal_email(text: &str) -> Result<String> {
    let email = text.trim().to_lowercase();
    let valid = email.len() <= 254
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && email
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if valid { Ok(email) } else { Err(UserError::InvalidEmail { email: crate::ident::printable(text, 80) }.into()) }
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// The name.
    pub name: Option<String>,
    /// Whether they finished the first-steps page.
    pub onboarded: Option<bool>,
}

/// Address of the service user behind the scheduler's token.
pub const SCHEDULER_EMAIL: &str = "scheduler@system.local";

/// Whether an address belongs to Agnes itself: no person, cannot sign in, be deactivated,
/// deleted or taken out of Admin, and counts as nobody where an Admin must remain.
#[must_use]
pub fn is_service_account(email: &str) -> bool {
    email.trim().to_lowercase().ends_with("@system.local")
}

/// Keeps users. Every method is one transaction and bumps
/// [`crate::store::Store::revision`] when it changed something a decision depends on.
#[async_trait]
pub trait UserRepository: Send + Sync {
    /// Inserts a user and, when active, makes them a member of Everyone (`system_seed`).
    /// `user_exists` when the address is taken.
    async fn insert(&self, user: &User) -> Result<()> {
        self.insert_with(user, &[]).await
    }
    /// As [`UserRepository::insert`], together with these memberships of theirs; nobody is made
    /// where one of the groups is not there (`group_not_found`).
    async fn insert_with(&self, user: &User, members: &[Member]) -> Result<()>;
    /// One user by id.
    async fn get(&self, id: &str) -> Result<Option<User>>;
    /// One user by address, trimmed and case-folded.
    async fn by_email(&self, email: &str) -> Result<Option<User>>;
    /// All users by address.
    async fn list(&self) -> Result<Vec<User>>;
    /// Changes what `change` says. `user_not_found`.
    async fn update(&self, id: &str, change: &UserChange, now: DateTime<Utc>) -> Result<User>;
    /// Activates or deactivates. `user_not_found`; `service_account`; `last_admin` when no
    /// other active Admin would remain.
    async fn set_active(&self, id: &str, active: bool, by: &str, now: DateTime<Utc>) -> Result<User>;
    /// Deletes a user with memberships, tokens, preferences; audit rows stay.
    /// `user_not_found`, `service_account`, `last_admin`.
    async fn delete(&self, id: &str) -> Result<()>;
    /// Notes that the user fetched the manifest.
    async fn touch_last_pull(&self, id: &str, now: DateTime<Utc>) -> Result<()>;
}

/// What can go wrong with users.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum UserError {
    #[error("there is no user `{user}`")]
    NotFound { user: String },
    #[error("a user with the address `{email}` exists already{}", if *active { "" } else { ", and is not active" })]
    Exists { email: String, active: bool },
    #[error("`{email}` is not an e-mail address")]
    InvalidEmail { email: String },
    #[error("`{email}` is not active, so there is nothing that they see")]
    SeesNothing { email: String },
    #[error("nobody can deactivate or delete themselves")]
    SelfTarget,
    #[error("this account belongs to Agnes itself")]
    ServiceAccount,
    #[error("this account is kept by the directory")]
    DirectoryManaged,
}

impl Coded for UserError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. }
            | Self::SeesNothing { .. }
            | Self::SelfTarget
            | Self::ServiceAccount
            | Self::DirectoryManaged => ErrorKind::Conflict,
            Self::InvalidEmail { .. } => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotFound { .. } => "user_not_found",
            Self::Exists { .. } => "user_exists",
            Self::InvalidEmail { .. } => "invalid_email",
            Self::SeesNothing { .. } => "user_deactivated",
            Self::SelfTarget => "self_target",
            Self::ServiceAccount => "service_account",
            Self::DirectoryManaged => "sso_managed",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("`agnes admin user list` shows the users".to_owned()),
            Self::Exists { active: false, .. } | Self::SeesNothing { .. } => Some("activate them instead".to_owned()),
            Self::DirectoryManaged => Some("change it in the directory".to_owned()),
            _ => None,
        }
    }
}

//! What proves who somebody is, and the repository that keeps it: passwords, one-shot tokens
//! and codes, ended sessions. Tokens and codes are kept as SHA-256 only.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{StoredToken, TokenKind, User};
use crate::error::Result;
use crate::secret::Secret;

/// What signing in needs to know of a user.
#[derive(Debug, Clone)]
pub struct Account {
    /// 32 hex digits.
    pub id: String,
    /// Trimmed, case-folded.
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// Inactive users cannot sign in, their tokens are refused.
    pub active: bool,
    /// Whether they finished the first-steps page.
    pub onboarded: bool,
    /// When they last fetched the manifest, as of the snapshot.
    pub last_pull_at: Option<DateTime<Utc>>,
    /// The hash of their password, where one was set.
    pub password_hash: Option<Secret>,
    /// Whether the next sign-in by password asks for a new one.
    pub must_change_password: bool,
    /// Sessions that began then or earlier are over ...
    pub sessions_valid_after: Option<DateTime<Utc>>,
    /// ... but this one.
    pub kept_session: Option<String>,
}

impl Account {
    /// Whether a password was set.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password_hash.is_some()
    }
}

/// Everything that tells what a credential is worth, as of one revision of the state.
///
/// Rebuilt when the revision moved, never used past it, so it is not a cache that can be stale.
#[derive(Debug, Clone, Default)]
pub struct CredentialSnapshot {
    /// The [`crate::store::Store::credential_revision`] this was read at.
    pub revision: u64,
    /// Users by id.
    pub accounts: BTreeMap<String, Account>,
    /// Their ids by address, trimmed and case-folded; of two with the same one the first.
    pub addresses: BTreeMap<String, String>,
    /// Tokens by kind and id, revoked ones among them.
    pub tokens: BTreeMap<(TokenKind, String), StoredToken>,
    /// Ids of sessions that were ended before their time.
    pub ended: BTreeSet<String>,
}

impl CredentialSnapshot {
    /// Of these accounts, and of nothing else yet.
    #[must_use]
    pub fn of(revision: u64, accounts: BTreeMap<String, Account>) -> Self {
        let addresses = accounts.values().rev().map(|account| (folded(&account.email), account.id.clone())).collect();
        Self { revision, accounts, addresses, ..Self::default() }
    }

    /// Who has this address. Takes as long for those who are not there.
    #[must_use]
    pub fn account_of(&self, email: &str) -> Option<&Account> {
        self.accounts.get(self.addresses.get(&folded(email)).map_or("", String::as_str))
    }
}

/// An address as it is compared.
pub(super) fn folded(email: &str) -> String {
    email.trim().to_lowercase()
}

/// The one-shot tokens of a user: one column for each purpose, so that one never overwrites
/// another. A new one replaces the old one of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserToken {
    /// Sets the first password.
    Setup,
    /// Sets a new password.
    Reset,
    /// Signs in.
    Login,
}

/// A password that takes the place of another. Every outstanding one-shot token of the user
/// goes with the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordChange {
    /// The argon2id hash, with its parameters.
    pub hash: String,
    /// Whether the next sign-in asks for another one.
    pub must_change: bool,
    /// A name to set along with it.
    pub name: Option<String>,
    /// Ends sessions that began by then ...
    pub end_sessions: Option<DateTime<Utc>>,
    /// ... but this one.
    pub keep_session: Option<String>,
}

/// What a one-shot code is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodePurpose {
    /// Links a desktop application.
    Desktop,
    /// Gives the command line a token after a sign-in in the browser.
    Cli,
    /// Makes the first Admin.
    Bootstrap,
}

impl CodePurpose {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Cli => "cli",
            Self::Bootstrap => "bootstrap",
        }
    }
}

/// A one-shot code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneShotCode {
    /// SHA-256 of the code, 64 hex digits.
    pub code_hash: String,
    /// What it is good for.
    pub purpose: CodePurpose,
    /// Whose it is; nobody's for a bootstrap.
    pub user_id: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Keeps credentials. Every method is one transaction and, unless it says otherwise, moves
/// [`crate::store::Store::credential_revision`] when it changed something.
#[async_trait]
pub trait CredentialRepository: Send + Sync {
    /// Everything that tells what a credential is worth, read in one transaction.
    async fn snapshot(&self) -> Result<CredentialSnapshot>;
    /// Replaces a hash of the same password by a stronger one, if it is still `old`.
    async fn rehash(&self, user_id: &str, old: &str, new: &str) -> Result<()>;
    /// Sets a password. `user_not_found`.
    async fn set_password(&self, user_id: &str, change: &PasswordChange, now: DateTime<Utc>) -> Result<()>;
    /// Keeps the hash of a new one-shot token; moves no revision. `user_not_found`.
    async fn set_user_token(&self, user_id: &str, kind: UserToken, hash: &str, now: DateTime<Utc>) -> Result<()>;
    /// Whose one-shot token this is, if it was made after `made_after`. Changes nothing.
    async fn owner_of_user_token(
        &self,
        email: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
    ) -> Result<Option<String>>;
    /// Takes a one-shot token of an active user and does what it is for, in one statement:
    /// of several callers one gets `true`.
    async fn consume_user_token(
        &self,
        user_id: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
        change: Option<&PasswordChange>,
        now: DateTime<Utc>,
    ) -> Result<bool>;
    /// Ends one session; forgets ended sessions whose time is over.
    async fn end_session(&self, session: &str, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<()>;
    /// Ends every session of a user that began by `now`, but `keep`. `user_not_found`.
    async fn end_sessions(&self, user_id: &str, keep: Option<&str>, now: DateTime<Utc>) -> Result<()>;
    /// Keeps a code, forgets expired ones; moves no revision. A bootstrap code replaces the
    /// earlier ones.
    async fn insert_code(&self, code: &OneShotCode) -> Result<()>;
    /// Takes a code that has not expired, in one statement: of several callers one gets it.
    /// Moves no revision.
    async fn consume_code(&self, hash: &str, purpose: CodePurpose, now: DateTime<Utc>) -> Result<Option<OneShotCode>>;
    /// Whether the first Admin may still be made by whoever comes first: nobody has a
    /// password, and no active Admin is there but one that Agnes seeded.
    async fn bootstrap_open(&self) -> Result<bool>;
    /// Makes the first Admin in one transaction: inserts `user`, or activates who has that
    /// address (their id and name stay), sets the password if there is one, adds them to
    /// Admin. `None` when [`CredentialRepository::bootstrap_open`] is no longer so.
    async fn bootstrap(&self, user: &User, password_hash: Option<&str>, now: DateTime<Utc>) -> Result<Option<User>>;
}

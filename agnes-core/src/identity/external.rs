//! Signing in with what an identity provider says: who may come in, and what becomes of them.
//! Checking that the provider said it is the frontend's.

use std::collections::BTreeSet;

use serde_json::json;

use super::directory::{Directory, Fetched};
use super::service::new_id;
use super::sign_in::{Session, SignIn};
use super::{Account, SignInError, User, normal_email};
use crate::context::Client;
use crate::error::{Coded, ErrorKind, Result};
use crate::ident::printable;

/// Who an identity provider says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalIdentity {
    /// Name of the way to sign in, such as `google`.
    pub provider: &'static str,
    /// Their address.
    pub email: Option<String>,
    /// Whether the provider knows it to be theirs.
    pub email_verified: bool,
    /// Their name.
    pub name: Option<String>,
}

/// Why somebody does not come in who proved elsewhere who they are; and what can go wrong with
/// groups of the directory.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExternalError {
    #[error("the identity provider vouches for no e-mail address")]
    NoEmail,
    #[error("people with an address of this domain cannot sign in here")]
    DomainNotAllowed,
    #[error("only members of certain groups of the directory may sign in")]
    NotInAllowedGroup,
    #[error("the directory of groups cannot be asked at the moment")]
    GroupCheckUnavailable,
    #[error("groups come from no directory here")]
    GroupSyncOff,
    #[error("the groups were brought up to date less than a minute ago")]
    TooSoon,
}

impl Coded for ExternalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoEmail | Self::DomainNotAllowed | Self::NotInAllowedGroup => ErrorKind::Forbidden,
            Self::GroupCheckUnavailable => ErrorKind::Unavailable,
            Self::GroupSyncOff => ErrorKind::NotFound,
            Self::TooSoon => ErrorKind::RateLimited,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NoEmail => "no_email",
            Self::DomainNotAllowed => "domain_not_allowed",
            Self::NotInAllowedGroup => "not_in_allowed_group",
            Self::GroupCheckUnavailable => "group_check_unavailable",
            Self::GroupSyncOff => "group_sync_off",
            Self::TooSoon => "rate_limited",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::NoEmail => "confirm the address there, or sign in with another account",
                Self::DomainNotAllowed => {
                    "ask a member of the group `Admin` to add you, or sign in with another account"
                }
                Self::NotInAllowedGroup => "ask for membership of a group of your directory that may use Agnes",
                Self::GroupCheckUnavailable => "try again later",
                Self::GroupSyncOff => "the operator sets `GOOGLE_ADMIN_SDK_SUBJECT`",
                Self::TooSoon => "try again in a minute",
            }
            .to_owned(),
        )
    }
}

impl SignIn<'_> {
    /// Signs in somebody whom an identity provider vouches for. Who comes first becomes a user,
    /// if the operator allows their domain; their groups become what `directory` says.
    ///
    /// # Errors
    /// `provider_disabled`, `no_email`, `domain_not_allowed`, `account_deactivated`, `not_in_allowed_group`,
    /// `group_check_unavailable`.
    pub async fn with_provider(
        &self,
        client: &Client,
        who: &ExternalIdentity,
        directory: Option<&dyn Directory>,
    ) -> Result<Session> {
        self.require_provider(who.provider)?;
        match self.admit(client, who, directory).await {
            Ok(account) => self.begin(client, &account, who.provider).await,
            Err(error) => {
                let email = who.email.as_deref().map(|email| printable(email, 254));
                let params = json!({"email": email, "provider": who.provider});
                self.engine.audit().event_of(client, None, "login_failed").params(params).result(error.code()).later();
                Err(error)
            }
        }
    }

    /// The account of somebody who may come in.
    async fn admit(
        &self,
        client: &Client,
        who: &ExternalIdentity,
        directory: Option<&dyn Directory>,
    ) -> Result<Account> {
        let given = who.email.as_deref().filter(|_| who.email_verified);
        let email = given.and_then(|email| normal_email(email).ok()).ok_or(ExternalError::NoEmail)?;
        let auth = &self.engine.config().auth;
        if super::is_service_account(&email) || !auth.allows(&email) {
            return Err(ExternalError::DomainNotAllowed.into());
        }
        let known = self.account_of(&email).await?;
        // Where no domain is named nobody makes their own account.
        if known.is_none() && auth.allowed_domains.is_empty() {
            return Err(ExternalError::DomainNotAllowed.into());
        }
        if known.as_ref().is_some_and(|account| !account.active) {
            return Err(SignInError::Deactivated.into());
        }
        let fetched = self.fetch_groups(&email, directory).await;
        if let Err(error) = self.check_gate(known.as_ref(), &fetched).await {
            if let (Some(account), Fetched::Groups(groups)) = (&known, &fetched) {
                self.apply_or_warn(client, account, groups).await;
            }
            return Err(error);
        }
        let account = match known {
            Some(account) => account,
            None => self.first_sign_in(client, &email, who).await?,
        };
        if let Fetched::Groups(groups) = &fetched {
            self.apply_or_warn(client, &account, groups).await;
        }
        self.engine.store().access().settle_seeded_admin(&account.id).await?;
        Ok(account)
    }

    /// Whatever becomes of their groups, they proved who they are: the last Admin, too, whose
    /// membership stays, signs in.
    async fn apply_or_warn(&self, client: &Client, account: &Account, groups: &BTreeSet<String>) {
        if let Err(error) = self.apply_groups(client, account, &self.engine.config().directory.wanted(groups)).await {
            tracing::warn!(code = error.code(), "the groups of somebody who signs in stay as they were: {error}");
        }
    }

    /// Where only groups with a certain beginning may come in: whether this person is in one.
    async fn check_gate(&self, known: Option<&Account>, fetched: &Fetched) -> Result<()> {
        let directory = &self.engine.config().directory;
        if directory.prefix.is_none() {
            return Ok(());
        }
        match fetched {
            Fetched::Groups(groups) if directory.wanted(groups).is_empty() => {
                Err(ExternalError::NotInAllowedGroup.into())
            }
            Fetched::Unknown => {
                // What was known before counts.
                let before = match known {
                    Some(account) => self.directory_groups(&account.id).await?,
                    None => Vec::new(),
                };
                if before.is_empty() { Err(ExternalError::GroupCheckUnavailable.into()) } else { Ok(()) }
            }
            Fetched::Groups(_) | Fetched::Off => Ok(()),
        }
    }

    async fn account_of(&self, email: &str) -> Result<Option<Account>> {
        let found = self.engine.store().users().by_email(email).await?;
        let known = self.credentials().await?;
        Ok(found.and_then(|user| known.accounts.get(&user.id).cloned()))
    }

    /// Makes the account of somebody who comes for the first time.
    async fn first_sign_in(&self, client: &Client, email: &str, who: &ExternalIdentity) -> Result<Account> {
        let name = who.name.as_deref().and_then(super::people::shown_name);
        let user = User { name, ..User::new(new_id(), email.to_owned(), self.engine.clock().now()) };
        match self.engine.store().users().insert(&user).await {
            Ok(()) => {
                let event = self.engine.audit().event_of(client, Some(&user.id), "user_created_oauth");
                let params = json!({"id": user.id, "email": email, "provider": who.provider});
                event.resource(format!("user:{email}")).params(params).record().await;
            }
            // They came twice at once.
            Err(error) if error.code() == "user_exists" => {}
            Err(error) => return Err(error),
        }
        let account = self.account_of(email).await?.ok_or(SignInError::UserGone)?;
        if account.active { Ok(account) } else { Err(SignInError::Deactivated.into()) }
    }
}

//! What a server does about people when it starts, and how the first Admin is made.

use chrono::TimeDelta;
use serde_json::json;

use super::service::new_id;
use super::session::{hash_of, new_secret};
use super::sign_in::{Session, SignIn};
use super::{CodePurpose, OneShotCode, PasswordChange, SCHEDULER_EMAIL, SignInError, User, UserError, normal_email};
use crate::context::{CallContext, Client};
use crate::error::Result;
use crate::rbac::{ADMIN_GROUP, ClientKind, Member, MemberSource, Principal};
use crate::secret::Secret;

/// Address of an Admin to make at the start.
const SEED_EMAIL: &str = "SEED_ADMIN_EMAIL";
/// Their password, where they have none.
const SEED_PASSWORD: &str = "SEED_ADMIN_PASSWORD";
/// How long the link of the start is good for.
const LINK_LIFE: TimeDelta = TimeDelta::hours(24);

/// What whoever starts a server should know.
#[derive(Debug, Clone)]
pub struct Startup {
    /// There is no Admin yet: whoever comes first may become one. What goes into the one-time
    /// link for them, good for a day.
    pub bootstrap: Option<Secret>,
}

/// Who wants to be the first Admin.
#[derive(Debug, Clone, Default)]
pub struct FirstAdmin {
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Their password; without one they need another way to sign in again.
    pub password: Option<Secret>,
    /// What they bring along: the token of the operator, or what was in the link.
    pub token: Option<Secret>,
    /// The name of the server that the request was sent to, where it has one. Who comes by a name
    /// that is not this server's, as a page of somebody else could have it, has to bring a token.
    pub host: Option<String>,
}

impl SignIn<'_> {
    /// Prepares for serving people: reads the secrets, makes the service's user and the Admin
    /// whom the operator names, looks whether there is an Admin at all.
    ///
    /// # Errors
    /// `sign_in_secret_unreadable`, `seed_admin_invalid`.
    pub async fn start(&self) -> Result<Startup> {
        self.keys().await?;
        self.ensure_service_user().await?;
        if let Some(email) = self.engine.secrets().get(SEED_EMAIL) {
            self.seed_admin(email.expose()).await.map_err(|error| match error.code() {
                "invalid_email" | "service_account" | "password_too_short" | "password_too_long" => {
                    tracing::error!(code = error.code(), "`{SEED_EMAIL}` and `{SEED_PASSWORD}`: {error}");
                    SignInError::SeedInvalid.into()
                }
                _ => error,
            })?;
        }
        if let Some(dev) = &self.engine.config().dev {
            self.ensure_developer(dev).await?;
            return Ok(Startup { bootstrap: None });
        }
        if !self.engine.store().credentials().bootstrap_open().await? {
            return Ok(Startup { bootstrap: None });
        }
        tracing::warn!("there is no Admin yet: whoever opens the first-time setup becomes one");
        let code = self.code(CodePurpose::Bootstrap, None, LINK_LIFE).await?.0;
        Ok(Startup { bootstrap: Some(code) })
    }

    async fn ensure_service_user(&self) -> Result<()> {
        let (store, now) = (self.engine.store(), self.engine.clock().now());
        let user = match store.users().by_email(SCHEDULER_EMAIL).await? {
            Some(user) if user.active => user,
            Some(user) => store.users().set_active(&user.id, true, "system:start", now).await?,
            None => {
                let name = Some("Scheduler".to_owned());
                let user = User { name, ..User::new(new_id(), SCHEDULER_EMAIL.to_owned(), now) };
                store.users().insert(&user).await?;
                user
            }
        };
        if let Some(group) = store.access().group_by_name(ADMIN_GROUP).await? {
            let member = Member {
                group_id: group.id,
                user_id: user.id,
                source: MemberSource::SystemSeed,
                added_at: Some(now),
                added_by: None,
            };
            store.access().add_member(&member).await?;
        }
        Ok(())
    }

    async fn seed_admin(&self, email: &str) -> Result<()> {
        let email = normal_email(email)?;
        if super::is_service_account(&email) {
            return Err(UserError::ServiceAccount.into());
        }
        let password = self.engine.secrets().get(SEED_PASSWORD);
        if let Some(password) = &password {
            super::password::check_rules(password)?;
        }
        let owner = Principal::trusted_owner_of_the_data_folder("the operator names an Admin", ClientKind::Api);
        let ctx = CallContext::new(owner);
        let identity = self.engine.identity();
        let done = identity.make_admin(&ctx, &email, MemberSource::SystemSeed).await?;
        let known = self.credentials().await?;
        let account = known.accounts.get(&done.user.id);
        if let (Some(password), Some(account)) = (password, account.filter(|account| !account.has_password())) {
            let hash = self.state().passwords.hash(&password).await?;
            let now = self.engine.clock().now();
            let change =
                PasswordChange { hash, must_change: false, name: None, end_sessions: None, keep_session: None };
            self.engine.store().credentials().set_password(&account.id, &change, now).await?;
        }
        if done.created || !done.already_admin {
            let event = self.engine.audit().event(&ctx, "user.create").resource(format!("user:{email}"));
            event.params(json!({"id": done.user.id, "email": email, "seed": true})).record().await;
        }
        Ok(())
    }

    /// Whether the first Admin may still be made by whoever comes first.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn bootstrap_open(&self) -> Result<bool> {
        self.engine.store().credentials().bootstrap_open().await
    }

    /// Makes the first Admin and signs them in. Where the operator set a token, it has to be
    /// brought along, or what was in the link of the start.
    ///
    /// # Errors
    /// `bootstrap_closed`, `bootstrap_token_invalid`, `invalid_email`, `service_account`,
    /// `password_too_short`, `password_too_long`, `sign_in_busy`.
    pub async fn bootstrap(&self, client: &Client, wanted: &FirstAdmin) -> Result<Session> {
        let done = self.bootstrap_checked(wanted).await;
        let user_id = done.as_ref().ok().map(|(user, _)| user.id.clone());
        let known = done.as_ref().is_ok_and(|(_, known)| *known);
        let action = if known { "bootstrap_activated_seed" } else { "bootstrap_completed" };
        let event = self.engine.audit().event_of(client, user_id.as_deref(), action);
        let params = json!({"email": crate::ident::printable(&wanted.email, 254)});
        event.params(params).outcome(&done).record().await;
        let (user, _) = done?;
        let account = self.credentials().await?.accounts.get(&user.id).cloned();
        self.begin(client, &account.ok_or(SignInError::UserGone)?, "bootstrap").await
    }

    /// The first Admin, and whether they were known before.
    async fn bootstrap_checked(&self, wanted: &FirstAdmin) -> Result<(User, bool)> {
        if !self.bootstrap_open().await? {
            return Err(SignInError::BootstrapClosed.into());
        }
        let foreign = wanted.host.as_ref().is_some_and(|host| self.engine.config().site.is_foreign_name(host));
        if foreign && wanted.token.is_none() {
            return Err(SignInError::BootstrapForeignName.into());
        }
        let email = normal_email(&wanted.email)?;
        if super::is_service_account(&email) {
            return Err(UserError::ServiceAccount.into());
        }
        let hash = match &wanted.password {
            Some(password) => Some(self.state().passwords.hash(password).await?),
            None => None,
        };
        let now = self.engine.clock().now();
        // Last of all: what is wrong with the rest must not use the link up.
        let brought = match self.keys().await?.bootstrap(wanted.token.as_ref()) {
            Some(true) => true,
            None if wanted.token.is_none() => true,
            _ => self.took_bootstrap_code(wanted.token.as_ref()).await?,
        };
        if !brought {
            return Err(SignInError::BootstrapTokenInvalid.into());
        }
        let name = wanted.name.as_ref().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let user = User { name, ..User::new(new_id(), email, now) };
        let made = self.engine.store().credentials().bootstrap(&user, hash.as_deref(), now).await?;
        let made = made.ok_or(SignInError::BootstrapClosed)?;
        let known = made.id != user.id;
        Ok((made, known))
    }

    async fn took_bootstrap_code(&self, token: Option<&Secret>) -> Result<bool> {
        let Some(token) = token else { return Ok(false) };
        let (hash, now) = (hash_of(token.expose()), self.engine.clock().now());
        Ok(self.engine.store().credentials().consume_code(&hash, CodePurpose::Bootstrap, now).await?.is_some())
    }

    /// Makes a one-shot code; when it ends.
    pub(super) async fn code(
        &self,
        purpose: CodePurpose,
        user_id: Option<&str>,
        life: TimeDelta,
    ) -> Result<(Secret, chrono::DateTime<chrono::Utc>)> {
        let (code, now) = (new_secret()?, self.engine.clock().now());
        let kept = OneShotCode {
            code_hash: hash_of(code.expose()),
            purpose,
            user_id: user_id.map(str::to_owned),
            created_at: now,
            expires_at: now + life,
        };
        self.engine.store().credentials().insert_code(&kept).await?;
        Ok((code, kept.expires_at))
    }
}

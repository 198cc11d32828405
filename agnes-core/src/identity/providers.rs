//! Ways to sign in: which are switched on, and what whoever is signed out may ask for.

use chrono::TimeDelta;

use super::sign_in::SignIn;
use super::{Letter, SignInError, UserToken};
use crate::config::Config;
use crate::error::Result;
use crate::mail::Asked;
use crate::rbac::ADMIN_GROUP;
use crate::secret::Secret;

impl SignIn<'_> {
    /// Signs a value that a browser keeps for a while: good for `purpose` alone, readable by
    /// whoever holds it.
    ///
    /// # Errors
    /// `sign_in_secret_unreadable`.
    pub async fn seal(&self, purpose: &str, value: &serde_json::Value, life: TimeDelta) -> Result<Secret> {
        self.keys().await?.seal(purpose, value, self.engine.clock().now() + life)
    }

    /// What [`SignIn::seal`] signed for `purpose`, if its time is not over.
    ///
    /// # Errors
    /// `sign_in_secret_unreadable`.
    pub async fn unseal(&self, purpose: &str, text: &str) -> Result<Option<serde_json::Value>> {
        Ok(self.keys().await?.unseal(purpose, text, self.engine.clock().now()))
    }

    /// Whether this way to sign in is switched on.
    ///
    /// # Errors
    /// `provider_disabled`.
    pub fn require_provider(&self, name: &'static str) -> Result<()> {
        if self.engine.config().auth.offers(name) { Ok(()) } else { Err(SignInError::ProviderOff { name }.into()) }
    }

    /// Whether there are desktop tokens: a secret for them is set. Known once
    /// [`SignIn::start`] was called.
    #[must_use]
    pub fn has_desktop(&self) -> bool {
        self.state().keys.get().is_some_and(super::session::Keys::has_desktop)
    }

    /// Whether the first Admin has to bring a token of the operator. Known once
    /// [`SignIn::start`] was called.
    #[must_use]
    pub fn bootstrap_needs_token(&self) -> bool {
        self.state().keys.get().is_some_and(|keys| keys.bootstrap(None).is_some())
    }

    /// What to send to somebody who asks for it: nothing unless they are known, active and of
    /// an allowed domain, and the link would be of use.
    pub(crate) async fn ask_for(&self, asked: Asked, email: &str) -> Result<Option<Letter>> {
        if asked != Asked::Login && !self.engine.config().auth.allows(email) {
            return Ok(None);
        }
        match asked {
            Asked::Setup => self.ask_for_setup(email).await,
            Asked::Reset => self.ask_for_reset(email).await,
            Asked::Login => self.ask_for_link(email).await,
        }
    }

    /// A link that signs in, for whoever develops on this machine: they have no mailbox.
    ///
    /// # Errors
    /// `provider_disabled` anywhere else.
    pub async fn link_for_developer(&self, email: &str) -> Result<Option<Letter>> {
        if self.engine.config().dev.is_none() {
            return Err(SignInError::ProviderOff { name: "email" }.into());
        }
        self.ask_for_link(email).await
    }

    /// Checks that somebody who may administer can still sign in with what is switched on.
    ///
    /// # Errors
    /// `no_provider_left`.
    pub async fn check_providers(&self) -> Result<()> {
        let is_left = self.has_provider_left(self.engine.config(), self.engine.mails().is_on()).await?;
        if is_left { Ok(()) } else { Err(SignInError::NoProviderLeft.into()) }
    }

    /// Whether somebody who may administer could sign in with this configuration, where mails
    /// leave or not.
    pub(crate) async fn has_provider_left(&self, config: &Config, mails: bool) -> Result<bool> {
        let auth = &config.auth;
        if auth.disabled_providers.is_empty() || config.dev.is_some() {
            return Ok(true);
        }
        if config.oidc.iter().any(|provider| auth.offers(provider.name)) {
            return Ok(true);
        }
        let (access, known) = (self.engine.access().await?, self.credentials().await?);
        let group = access.groups.values().find(|group| group.name == ADMIN_GROUP).map(|group| group.id.as_str());
        let mut admins = known.accounts.values().filter(|account| {
            let groups = access.groups_of.get(&account.id);
            account.active
                && !super::is_service_account(&account.email)
                && groups.into_iter().flatten().any(|id| Some(id.as_str()) == group)
        });
        let nobody = admins.clone().next().is_none();
        let can = |by_mail: bool, has_password: bool, allowed: bool| {
            (auth.offers("password") && (has_password || mails)) || (by_mail && allowed)
        };
        let by_mail = auth.offers("email") && mails;
        Ok(if nobody {
            // The first Admin brings a password, or has an address.
            auth.offers("password") || by_mail
        } else {
            admins.any(|admin| can(by_mail, admin.has_password(), auth.allows(&admin.email)))
        })
    }
}

impl UserToken {
    /// The way to sign in that a link of this kind belongs to.
    #[must_use]
    pub fn provider(self) -> &'static str {
        match self {
            Self::Setup | Self::Reset => "password",
            Self::Login => "email",
        }
    }
}

//! A developer's machine: everybody who reaches it is one user.

use super::sign_in::{SignIn, context};
use super::{SignInError, UserError, normal_email};
use crate::config::DevConfig;
use crate::context::{CallContext, Client};
use crate::error::Result;
use crate::rbac::{AuthMethod, ClientKind, MemberSource, Principal};

impl SignIn<'_> {
    /// Makes the developer and their groups.
    pub(super) async fn ensure_developer(&self, dev: &DevConfig) -> Result<()> {
        tracing::warn!("development mode: nobody has to sign in, everybody who reaches this server is an Admin");
        let email = normal_email(&dev.email)?;
        if super::is_service_account(&email) {
            return Err(UserError::ServiceAccount.into());
        }
        let owner = Principal::trusted_owner_of_the_data_folder("development mode", ClientKind::Api);
        let made =
            self.engine.identity().make_admin(&CallContext::new(owner), &email, MemberSource::SystemSeed).await?;
        let known = self.credentials().await?;
        let account = known.accounts.get(&made.user.id).ok_or(SignInError::UserGone)?;
        // As the directory's: what is no longer listed is taken away.
        let wanted = self.engine.config().directory.simulated(&dev.groups);
        self.apply_groups(&Client::at(None), account, &wanted).await?;
        Ok(())
    }

    /// Who sends every request on a developer's machine.
    ///
    /// # Errors
    /// `user_not_found`, `account_deactivated`; `token_invalid` where it is not switched on.
    pub async fn developer(&self, client: &Client) -> Result<CallContext> {
        let dev = self.engine.config().dev.as_ref().ok_or(SignInError::TokenInvalid)?;
        let (email, known) = (normal_email(&dev.email)?, self.credentials().await?);
        let account = known.accounts.values().find(|account| account.email == email).ok_or(SignInError::UserGone)?;
        if !account.active {
            return Err(SignInError::Deactivated.into());
        }
        Ok(context(client, account, AuthMethod::Dev, None))
    }
}

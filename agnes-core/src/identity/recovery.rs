//! What admins do about other people's passwords, and what the owner of the data folder does
//! when no Admin is left.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::service::new_id;
use super::sign_in::SignIn;
use super::{Account, Identity, Letter, PasswordChange, User, UserError, UserToken, normal_email};
use crate::context::CallContext;
use crate::error::Result;
use crate::rbac::{ADMIN_GROUP, AccessError, Member, MemberSource};
use crate::secret::Secret;

/// What breaking the glass did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BreakGlass {
    /// The Admin.
    pub user: User,
    /// Whether they were made just now.
    pub created: bool,
    /// Whether they were inactive.
    pub reactivated: bool,
    /// Whether they were an active Admin before: nothing was changed.
    pub already_admin: bool,
    /// Path and query of the server's page on which they set a password: for the operator's
    /// eyes, once.
    #[serde(with = "shown_once")]
    pub link: Secret,
}

/// A link with which somebody sets a password, for the eyes of who asked for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordLink {
    /// Whose password.
    pub email: String,
    /// Path and query of the server's page, good once.
    #[serde(with = "shown_once")]
    pub link: Secret,
    /// When it ends.
    pub expires_at: chrono::DateTime<chrono::Utc>,
}

impl From<Letter> for PasswordLink {
    fn from(letter: Letter) -> Self {
        Self { link: letter.path(), email: letter.email, expires_at: letter.expires_at }
    }
}

/// A secret that is on its way to the one person it is for, or from them.
pub(crate) mod shown_once {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

/// An Admin that was made, or was there.
pub(super) struct MadeAdmin {
    pub(super) user: User,
    pub(super) created: bool,
    pub(super) reactivated: bool,
    pub(super) already_admin: bool,
}

impl Identity<'_> {
    async fn account(&self, user: &str) -> Result<Account> {
        let user = self.find_user(user).await?;
        if super::is_service_account(&user.email) {
            return Err(UserError::ServiceAccount.into());
        }
        let known = SignIn { engine: self.engine }.credentials().await?;
        known.accounts.get(&user.id).cloned().ok_or_else(|| UserError::NotFound { user: user.email }.into())
    }

    /// A user whose password is an admin's business: the directory keeps no password here.
    async fn own_account(&self, user: &str) -> Result<Account> {
        let account = self.account(user).await?;
        if self.engine.access().await?.is_directory_user(&account.id) {
            return Err(UserError::DirectoryManaged.into());
        }
        Ok(account)
    }

    async fn link(&self, ctx: &CallContext, user: &str, kind: UserToken, action: &'static str) -> Result<Letter> {
        self.manager(ctx).await?;
        let account = self.own_account(user).await?;
        let done = SignIn { engine: self.engine }.letter(&account, kind).await;
        let event = self.engine.audit().event(ctx, action).resource(format!("user:{}", account.email));
        event.params(json!({"user_id": account.id})).outcome(&done).record().await;
        done
    }

    /// A link with which a user sets their first password, good for 7 days.
    ///
    /// # Errors
    /// `user_not_found`, `service_account`, `sso_managed`, `admin_required`, `service_forbidden`.
    pub async fn invite(&self, ctx: &CallContext, user: &str) -> Result<Letter> {
        self.link(ctx, user, UserToken::Setup, "user.invite").await
    }

    /// A link with which a user sets a new password, good for 24 hours.
    ///
    /// # Errors
    /// As [`Identity::invite`].
    pub async fn reset_link(&self, ctx: &CallContext, user: &str) -> Result<Letter> {
        self.link(ctx, user, UserToken::Reset, "user.reset_password").await
    }

    /// Sets a user's password; their sessions end. With `must_change` the next sign-in asks
    /// for another one.
    ///
    /// # Errors
    /// `password_too_short`, `password_too_long`, `user_not_found`, `service_account`,
    /// `sso_managed`, `sign_in_busy`, `admin_required`, `service_forbidden`.
    pub async fn set_password(
        &self,
        ctx: &CallContext,
        user: &str,
        password: &Secret,
        must_change: bool,
    ) -> Result<()> {
        self.manager(ctx).await?;
        let account = self.own_account(user).await?;
        let sign_in = SignIn { engine: self.engine };
        let hash = sign_in.state().passwords.hash(password).await?;
        let changing = sign_in.state().changing.write().await;
        let now = self.engine.clock().now();
        let change = PasswordChange { hash, must_change, name: None, end_sessions: Some(now), keep_session: None };
        let done = self.engine.store().credentials().set_password(&account.id, &change, now).await;
        drop(changing);
        let event = self.engine.audit().event(ctx, "user.set_password").resource(format!("user:{}", account.email));
        event.params(json!({"user_id": account.id, "must_change": must_change})).outcome(&done).record().await;
        done
    }

    /// Makes this address an active Admin, whoever it is: for the owner of the data folder,
    /// when nobody else can. Makes the user when there is none, the group Admin as well.
    ///
    /// # Errors
    /// `admin_required` for anybody else, `invalid_email`, `service_account`.
    pub async fn break_glass(&self, ctx: &CallContext, email: &str) -> Result<BreakGlass> {
        if !ctx.principal().is_trusted_owner() {
            return Err(AccessError::AdminRequired.into());
        }
        let email = normal_email(email)?;
        if super::is_service_account(&email) {
            return Err(UserError::ServiceAccount.into());
        }
        let done = self.make_admin(ctx, &email, MemberSource::CliBreakGlass).await;
        let event = self.engine.audit().event(ctx, "break_glass.grant_admin").resource(format!("user:{email}"));
        event.outcome(&done).record().await;
        let MadeAdmin { user, created, reactivated, already_admin } = done?;
        let account = self.account(&user.id).await?;
        // Nobody else may be there who could send them a link.
        let kind = if account.has_password() { UserToken::Reset } else { UserToken::Setup };
        let link = SignIn { engine: self.engine }.letter(&account, kind).await?.path();
        Ok(BreakGlass { user, created, reactivated, already_admin, link })
    }

    /// Makes this address, as [`normal_email`] writes it, an active Admin.
    pub(super) async fn make_admin(&self, ctx: &CallContext, email: &str, source: MemberSource) -> Result<MadeAdmin> {
        let (store, now) = (self.engine.store(), self.engine.clock().now());
        store.access().seed_system_groups(now).await?;
        let (by, known) = (ctx.principal().user_id().to_owned(), store.users().by_email(email).await?);
        let mut done = MadeAdmin {
            user: known.clone().unwrap_or_else(|| User::new(new_id(), email.to_owned(), now)),
            created: known.is_none(),
            reactivated: known.as_ref().is_some_and(|user| !user.active),
            already_admin: false,
        };
        if done.created {
            store.users().insert(&done.user).await?;
        }
        if done.reactivated {
            done.user = store.users().set_active(&done.user.id, true, &by, now).await?;
        }
        let group = store.access().group_by_name(ADMIN_GROUP).await?;
        let group_id = group.ok_or_else(|| AccessError::GroupNotFound { group: ADMIN_GROUP.to_owned() })?.id;
        let member =
            Member { group_id, user_id: done.user.id.clone(), source, added_at: Some(now), added_by: Some(by) };
        let added = store.access().add_member(&member).await?;
        done.already_admin = !added && !done.reactivated;
        Ok(done)
    }
}

impl SignIn<'_> {
    /// Waits until the uses of tokens noted so far are written.
    pub async fn settle(&self) {
        self.state().settle().await;
    }
}

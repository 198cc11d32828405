//! What can be asked of a data folder, and on whose behalf.

use std::future::Future;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connector::Progress;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::{ClientKind, Principal};

/// One engine method as a value, so that it can run here or in the process that holds the
/// folder. Each verb of [`crate::local`] is the method of the same name.
pub trait Verb: Serialize + DeserializeOwned + Send + 'static {
    /// `<domain>.<method>`.
    const NAME: &'static str;
    /// What the method gives.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Calls the method.
    ///
    /// # Errors
    /// Those of the method.
    fn run(
        self,
        engine: &Engine,
        ctx: &CallContext,
        progress: Progress,
    ) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// On whose behalf a call is made. Who reaches a data folder's files owns them, so a local
/// caller is the folder's owner, or acts as one of its users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Caller {
    /// Through which frontend.
    pub client: ClientKind,
    /// A user's id, address or unique prefix to act as.
    pub as_user: Option<String>,
    /// End the call after this time.
    pub timeout: Option<Duration>,
}

impl Caller {
    /// The owner of the folder, through `client`.
    #[must_use]
    pub fn owner(client: ClientKind) -> Self {
        Self { client, as_user: None, timeout: None }
    }

    /// The same caller, acting as `user` (an id, an address, a unique prefix of one).
    #[must_use]
    pub fn acting_as(&self, user: Option<&str>) -> Self {
        Self { as_user: user.map(ToOwned::to_owned), ..self.clone() }
    }

    /// The context of a call on this caller's behalf.
    pub(super) async fn context(&self, engine: &Engine) -> Result<CallContext> {
        let owner = Principal::trusted_owner_of_the_data_folder("a local process of the folder's owner", self.client);
        let mut ctx = CallContext::new(owner);
        if let Some(user) = &self.as_user {
            ctx = CallContext::new(engine.identity().principal_of(&ctx, user, self.client).await?);
        }
        Ok(match self.timeout {
            Some(timeout) => ctx.with_timeout(timeout),
            None => ctx,
        })
    }
}

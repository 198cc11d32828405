//! An engine with people, and a clock that the test moves.

use std::sync::Arc;

use agnes_core::audit::{AuditEvent, AuditFilter};
use agnes_core::clock::FixedClock;
use agnes_core::config::Config;
use agnes_core::identity::{Session, SignedIn, User};
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::secret::{FixedSecrets, Secret};
use agnes_core::store::memory::MemoryStore;
use agnes_core::{CallContext, Client, Engine, Result};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};

/// What the tests type.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// Secrets of the test's environment.
pub(crate) const SERVICE: &str = "service-token-of-at-least-32-characters";

pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) root: tempfile::TempDir,
}

pub(crate) fn start() -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000, 250_000_000).unwrap()
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

pub(crate) fn client() -> Client {
    Client::at(Some("10.0.0.1".parse().unwrap()))
}

pub(crate) fn client_at(ip: &str) -> Client {
    Client::at(Some(ip.parse().unwrap()))
}

/// The call must fail with this code.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>, code: &str) {
    match result {
        Ok(_) => panic!("not refused with `{code}`"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

impl Site {
    /// With the embedded state, or with state in memory.
    pub(crate) async fn new(embedded: bool) -> Self {
        Self::with(embedded, &[("SCHEDULER_API_TOKEN", SERVICE)]).await
    }

    pub(crate) async fn with(embedded: bool, secrets: &[(&str, &str)]) -> Self {
        Self::configured(embedded, secrets, Config::default()).await
    }

    pub(crate) async fn configured(embedded: bool, secrets: &[(&str, &str)], config: Config) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = Arc::new(FixedClock::at(start()));
        let mut builder = Engine::builder(root.path())
            .clock(clock.clone())
            .config(config)
            .secrets(Arc::new(FixedSecrets::new(secrets.iter().copied())));
        if !embedded {
            builder = builder.store(Arc::new(MemoryStore::new()));
        }
        Self { engine: builder.open().await.unwrap(), clock, root }
    }

    /// Lets time pass.
    pub(crate) fn later(&self, by: TimeDelta) {
        use agnes_core::clock::Clock;
        self.clock.set(self.clock.now() + by);
    }

    pub(crate) async fn user(&self, email: &str) -> User {
        self.engine.identity().add_user(&owner(), email, None).await.unwrap()
    }

    /// A user with [`PASSWORD`].
    pub(crate) async fn person(&self, email: &str) -> User {
        let user = self.user(email).await;
        let letter = self.engine.sign_in().ask_for_setup(email).await.unwrap().unwrap();
        let (sign_in, client, password) = (self.engine.sign_in(), client(), Secret::new(PASSWORD));
        sign_in.set_up_password(&client, email, letter.token.expose(), &password, None).await.unwrap();
        user
    }

    pub(crate) async fn admin(&self, email: &str) -> User {
        let user = self.person(email).await;
        self.engine.identity().add_member(&owner(), "Admin", email).await.unwrap();
        user
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Result<SignedIn> {
        self.engine.sign_in().with_password(&client(), email, &Secret::new(password)).await
    }

    pub(crate) async fn session(&self, email: &str) -> Session {
        match self.sign_in(email, PASSWORD).await.unwrap() {
            SignedIn::Session(session) => session,
            SignedIn::ChangeRequired { .. } => panic!("a new password is asked for"),
        }
    }

    /// The caller whose token this is.
    pub(crate) async fn caller(&self, token: &Secret) -> Result<CallContext> {
        self.engine.sign_in().authenticate(&client(), token.expose()).await
    }

    /// Somebody who signed in.
    pub(crate) async fn signed_in(&self, email: &str) -> CallContext {
        let session = self.session(email).await;
        self.caller(&session.token).await.unwrap()
    }

    pub(crate) async fn audit(&self, action: &str) -> Vec<AuditEvent> {
        let filter = AuditFilter { action_prefix: Some(action.into()), limit: 100, ..AuditFilter::default() };
        self.engine.audit().list(&owner(), &filter).await.unwrap()
    }

    /// Every byte of the state, the secrets' own files aside.
    pub(crate) fn state_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(self.engine.folder().state_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.to_string_lossy().contains("system.duckdb") {
                bytes.extend(std::fs::read(path).unwrap());
            }
        }
        bytes
    }
}

/// Runs a test on each store.
macro_rules! on_both_stores {
    ($($name:ident)*) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn embedded() {
                super::$name(crate::support::Site::new(true).await).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn in_memory() {
                super::$name(crate::support::Site::new(false).await).await;
            }
        })*
    };
}
pub(crate) use on_both_stores;

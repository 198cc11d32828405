//! Who is calling, and how they proved it.

use chrono::{DateTime, Utc};

use super::AccessError;
use crate::error::Result;

/// How the caller proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// The owner of the data folder's files, through the command line or an embedder.
    Local,
    /// A signed-in browser session.
    Session,
    /// A personal access token.
    Pat,
    /// A service token.
    Service,
    /// A desktop token.
    Desktop,
    /// Nobody proved anything: the developer's machine with `LOCAL_DEV_MODE`.
    Dev,
}

impl AuthMethod {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Session => "session",
            Self::Pat => "pat",
            Self::Service => "service",
            Self::Desktop => "desktop",
            Self::Dev => "dev",
        }
    }
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything its user may do, but what asks for a session.
    #[default]
    General,
    /// What setting up an analyst's laptop takes.
    BootstrapAnalyst,
    /// What a desktop application asks for.
    Desktop,
    /// What an assistant asks for: tables and their rows, to read.
    Mcp,
}

/// What a call is for, as far as scopes tell calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ability {
    /// Who am I.
    Me,
    /// Saying that the first steps are done.
    Onboarded,
    /// Names and descriptions of tables.
    Catalog,
    /// What there is to pull.
    Manifest,
    /// Files of tables.
    Download,
    /// The welcome text, the initial workspace, the memory bundle.
    Workspace,
    /// The endpoints of desktop applications.
    Desktop,
    /// Rows: queries, scans and what they would read.
    Rows,
    /// Anything else.
    Everything,
}

impl Scope {
    /// The text in the database, in tokens and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::BootstrapAnalyst => "bootstrap-analyst",
            Self::Desktop => "desktop",
            Self::Mcp => "mcp",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::General, Self::BootstrapAnalyst, Self::Desktop, Self::Mcp]
            .into_iter()
            .find(|scope| scope.as_str() == text)
    }

    /// Whether a token of this scope opens such a call.
    #[must_use]
    pub fn allows(self, ability: Ability) -> bool {
        match self {
            Self::General => true,
            Self::BootstrapAnalyst => !matches!(ability, Ability::Desktop | Ability::Rows | Ability::Everything),
            Self::Desktop => ability == Ability::Desktop,
            Self::Mcp => matches!(ability, Ability::Me | Ability::Catalog | Ability::Rows),
        }
    }
}

/// The session or token a caller came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Its id, 32 hex digits.
    pub id: String,
    /// What it may be used for.
    pub scope: Scope,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Which frontend the call came through; the audit's `client_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// A browser.
    Web,
    /// The `agnes` command.
    Cli,
    /// The scheduler.
    Scheduler,
    /// Any other client of the API, the Python and Rust libraries among them.
    Api,
    /// The desktop application.
    Desktop,
    /// An assistant, through the Model Context Protocol.
    Mcp,
}

impl ClientKind {
    /// The name used in the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Cli => "cli",
            Self::Scheduler => "scheduler",
            Self::Api => "api",
            Self::Desktop => "desktop",
            Self::Mcp => "mcp",
        }
    }
}

/// Who is calling. It carries an identity, never rights: groups and grants are looked
/// up at each call, so that a removed grant is gone from the next call on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    who: Who,
    auth: AuthMethod,
    client: ClientKind,
    proof: Option<Box<Proof>>,
    viewer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    User { id: String },
    TrustedOwner { reason: &'static str },
}

/// Audit name of the owner of the data folder.
pub const LOCAL_OWNER_ID: &str = "local@system.local";

impl Principal {
    /// The user with this id. Unknown and inactive users are refused at each call.
    #[must_use]
    pub fn user(id: impl Into<String>, auth: AuthMethod, client: ClientKind) -> Self {
        Self { who: Who::User { id: id.into() }, auth, client, proof: None, viewer: None }
    }

    /// Trusted code of an embedder, or the operator who owns the data folder's files:
    /// passes every check as a member of Admin would, and is audited as
    /// [`LOCAL_OWNER_ID`]. The long name is meant to show in review; `reason` is logged.
    #[must_use]
    pub fn trusted_owner_of_the_data_folder(reason: &'static str, client: ClientKind) -> Self {
        Self { who: Who::TrustedOwner { reason }, auth: AuthMethod::Local, client, proof: None, viewer: None }
    }

    /// The same caller, who came with this session or token.
    #[must_use]
    pub(crate) fn with_proof(mut self, proof: Proof) -> Self {
        self.proof = Some(Box::new(proof));
        self
    }

    /// The same user as an admin looks at what they see: may read, may change nothing.
    #[must_use]
    pub(crate) fn seen_by(mut self, admin: &Self) -> Self {
        self.viewer = Some(admin.user_id().to_owned());
        self
    }

    /// The session or token the caller came with.
    #[must_use]
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_deref()
    }

    /// What the caller's token may be used for.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.proof.as_ref().map(|proof| proof.scope).unwrap_or_default()
    }

    /// The id of the admin who looks at what this user sees.
    #[must_use]
    pub fn viewer(&self) -> Option<&str> {
        self.viewer.as_deref()
    }

    /// Refuses a token whose scope does not open such a call.
    ///
    /// # Errors
    /// [`AccessError::ScopeDenied`].
    pub fn require(&self, ability: Ability) -> Result<()> {
        let scope = self.scope();
        if scope.allows(ability) { Ok(()) } else { Err(AccessError::ScopeDenied { scope: scope.as_str() }.into()) }
    }

    /// Refuses an admin who looks at what somebody else sees: that is for reading.
    ///
    /// # Errors
    /// [`AccessError::ReadOnlyView`].
    pub fn require_own(&self) -> Result<()> {
        if self.viewer.is_none() { Ok(()) } else { Err(AccessError::ReadOnlyView.into()) }
    }

    /// Refuses the service, which is no person and has no account of its own.
    ///
    /// # Errors
    /// [`AccessError::ServiceForbidden`].
    pub fn require_person(&self) -> Result<()> {
        if self.auth == AuthMethod::Service { Err(AccessError::ServiceForbidden.into()) } else { Ok(()) }
    }

    /// Refuses everybody who did not sign in themselves: tokens, the service, an admin who
    /// looks at what somebody else sees.
    ///
    /// # Errors
    /// [`AccessError::SessionRequired`], [`AccessError::ReadOnlyView`].
    pub fn require_session(&self) -> Result<()> {
        self.require_own()?;
        match self.auth {
            AuthMethod::Session | AuthMethod::Dev => Ok(()),
            auth => Err(AccessError::SessionRequired { auth: auth.as_str() }.into()),
        }
    }

    /// The user id used in audit rows and row filters.
    #[must_use]
    pub fn user_id(&self) -> &str {
        match &self.who {
            Who::User { id } => id,
            Who::TrustedOwner { .. } => LOCAL_OWNER_ID,
        }
    }

    /// Whether this is the trusted owner of the data folder.
    #[must_use]
    pub fn is_trusted_owner(&self) -> bool {
        matches!(self.who, Who::TrustedOwner { .. })
    }

    /// Why the owner's rights were taken, if they were.
    #[must_use]
    pub fn trust_reason(&self) -> Option<&'static str> {
        match self.who {
            Who::TrustedOwner { reason } => Some(reason),
            Who::User { .. } => None,
        }
    }

    /// How the caller proved who they are.
    #[must_use]
    pub fn auth(&self) -> AuthMethod {
        self.auth
    }

    /// Which frontend the call came through.
    #[must_use]
    pub fn client(&self) -> ClientKind {
        self.client
    }
}

//! Who is calling.

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
        Self { who: Who::User { id: id.into() }, auth, client }
    }

    /// Trusted code of an embedder, or the operator who owns the data folder's files:
    /// passes every check as a member of Admin would, and is audited as
    /// [`LOCAL_OWNER_ID`]. The long name is meant to show in review; `reason` is logged.
    #[must_use]
    pub fn trusted_owner_of_the_data_folder(reason: &'static str, client: ClientKind) -> Self {
        Self { who: Who::TrustedOwner { reason }, auth: AuthMethod::Local, client }
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

//! What can go wrong with signing in.

use crate::error::{Coded, ErrorKind};

/// What can go wrong with signing in.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SignInError {
    #[error("this token is not valid, or the session is over")]
    TokenInvalid,
    #[error("the user of this token is gone")]
    UserGone,
    #[error("this account is deactivated")]
    Deactivated,
    #[error("this account is deactivated")]
    SetupDeactivated,
    #[error("this token is not known")]
    TokenUnknown,
    #[error("this token was revoked")]
    TokenRevoked,
    #[error("this token has expired")]
    TokenExpired,
    #[error("this token is not the one that was made")]
    TokenMismatch,
    #[error("this session was ended")]
    SessionRevoked,
    #[error("the user of the service is missing")]
    ServiceUserMissing,
    #[error("address and password do not fit")]
    InvalidCredentials,
    #[error("this account has no password")]
    ExternalOnly,
    #[error("a new password is asked for")]
    PasswordChangeRequired,
    #[error("a password has at least {} characters", super::SHORTEST_PASSWORD)]
    PasswordTooShort,
    #[error("a password has at most {} bytes", super::LONGEST_PASSWORD)]
    PasswordTooLong,
    #[error("this link was used already, is too old, or is not one of ours")]
    OneShotInvalid,
    #[error("this link was used already, is too old, or is not one of ours")]
    LinkInvalid,
    #[error("this code was used already, is too old, or is not one of ours")]
    CodeInvalid,
    #[error("too many people sign in at the moment")]
    Busy,
    #[error("a secret of this installation cannot be read")]
    SecretUnreadable,
    #[error("the Admin to make at the start is not valid")]
    SeedInvalid,
    #[error("desktop applications are switched off")]
    DesktopOff,
    #[error("there is an Admin already")]
    BootstrapClosed,
    #[error("this is not the token that a first Admin has to bring")]
    BootstrapTokenInvalid,
    #[error("a request to a name that is not this server's has to bring the token of the start")]
    BootstrapForeignName,
    #[error("signing in by `{name}` is switched off")]
    ProviderOff { name: &'static str },
    #[error("no Admin could sign in with the ways that are left")]
    NoProviderLeft,
}

impl Coded for SignInError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TokenInvalid
            | Self::UserGone
            | Self::Deactivated
            | Self::TokenUnknown
            | Self::TokenRevoked
            | Self::TokenExpired
            | Self::TokenMismatch
            | Self::SessionRevoked
            | Self::ServiceUserMissing
            | Self::InvalidCredentials
            | Self::ExternalOnly
            | Self::LinkInvalid => ErrorKind::Unauthenticated,
            Self::SetupDeactivated
            | Self::PasswordChangeRequired
            | Self::BootstrapClosed
            | Self::BootstrapTokenInvalid
            | Self::BootstrapForeignName
            | Self::ProviderOff { .. } => ErrorKind::Forbidden,
            Self::PasswordTooShort | Self::PasswordTooLong | Self::OneShotInvalid | Self::CodeInvalid => {
                ErrorKind::InvalidInput
            }
            Self::Busy => ErrorKind::RateLimited,
            Self::SecretUnreadable | Self::SeedInvalid | Self::NoProviderLeft => ErrorKind::ConfigInvalid,
            Self::DesktopOff => ErrorKind::NotFound,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TokenInvalid => "token_invalid",
            Self::UserGone => "user_not_found",
            Self::Deactivated | Self::SetupDeactivated => "account_deactivated",
            Self::TokenUnknown => "token_unknown",
            Self::TokenRevoked => "token_revoked",
            Self::TokenExpired => "token_expired",
            Self::TokenMismatch => "token_mismatch",
            Self::SessionRevoked => "session_revoked",
            Self::ServiceUserMissing => "service_user_missing",
            Self::InvalidCredentials => "invalid_credentials",
            Self::ExternalOnly => "external_auth_only",
            Self::PasswordChangeRequired => "password_change_required",
            Self::PasswordTooShort => "password_too_short",
            Self::PasswordTooLong => "password_too_long",
            Self::OneShotInvalid => "token_invalid_or_expired",
            Self::LinkInvalid => "link_invalid_or_expired",
            Self::CodeInvalid => "code_invalid_or_expired",
            Self::Busy => "sign_in_busy",
            Self::SecretUnreadable => "sign_in_secret_unreadable",
            Self::SeedInvalid => "seed_admin_invalid",
            Self::DesktopOff => "desktop_off",
            Self::BootstrapClosed => "bootstrap_closed",
            Self::BootstrapTokenInvalid | Self::BootstrapForeignName => "bootstrap_token_invalid",
            Self::ProviderOff { .. } => "provider_disabled",
            Self::NoProviderLeft => "no_provider_left",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::TokenInvalid | Self::SessionRevoked | Self::TokenExpired | Self::TokenRevoked => "sign in again",
                Self::Deactivated | Self::SetupDeactivated => "ask a member of the group `Admin`",
                Self::ExternalOnly => "sign in on the web page, and make a token there",
                Self::PasswordChangeRequired => "sign in on the web page: it asks for a new password",
                Self::OneShotInvalid | Self::LinkInvalid | Self::CodeInvalid => "ask for a new one",
                Self::SecretUnreadable => {
                    "check owner, mode and content of `.jwt_secret`, `.session_secret` and `.scheduler_token` in the state folder; \
                     a deleted file is made anew and ends every session and token"
                }
                Self::SeedInvalid => "correct `SEED_ADMIN_EMAIL` and `SEED_ADMIN_PASSWORD`",
                Self::DesktopOff => "set `DESKTOP_JWT_SECRET` to at least 32 characters",
                Self::BootstrapClosed => "sign in, or recover with `agnes admin break-glass <address>`",
                Self::BootstrapTokenInvalid => "use the value of `AGNES_BOOTSTRAP_TOKEN`, or the link in the log",
                Self::BootstrapForeignName => "use the link in the log, or set `DOMAIN` or `SERVER_URL`",
                Self::ProviderOff { .. } => "choose another way on the sign-in page",
                Self::NoProviderLeft => {
                    "take one out of `auth.disabled_providers`, set up another one, or give an Admin a password"
                }
                _ => return None,
            }
            .to_owned(),
        )
    }
}

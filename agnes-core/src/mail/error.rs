//! What can go wrong with sending a mail.

use crate::error::{Coded, ErrorKind};

/// What can go wrong with sending a mail. No variant holds an address, a text or a password.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MailError {
    #[error("mails are switched off")]
    Off,
    #[error("the mail server could not be reached")]
    Unreachable,
    #[error("the mail server did not answer in time")]
    Timeout,
    #[error("the mail server refused our user or password")]
    SignInRefused,
    #[error("the mail server refused the mail")]
    Refused,
    #[error("this address cannot be written to")]
    BadAddress,
    #[error("the transport of mails is not set up right: {reason}")]
    Setup { reason: &'static str },
}

impl Coded for MailError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Off => ErrorKind::Unsupported,
            Self::Unreachable | Self::Timeout => ErrorKind::Unavailable,
            Self::BadAddress => ErrorKind::InvalidInput,
            Self::SignInRefused | Self::Refused | Self::Setup { .. } => ErrorKind::ConfigInvalid,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Off => "mail_off",
            Self::Unreachable => "mail_unreachable",
            Self::Timeout => "mail_timeout",
            Self::SignInRefused => "mail_sign_in_refused",
            Self::Refused => "mail_refused",
            Self::BadAddress => "mail_bad_address",
            Self::Setup { .. } => "mail_setup_invalid",
        }
    }
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Off => "set `SMTP_HOST`, or `SENDGRID_API_KEY`, and the sender's address",
            Self::Unreachable | Self::Timeout => "check host and port of the mail server, and the network between",
            Self::SignInRefused => "check `SMTP_USER` and `SMTP_PASSWORD`, or `SENDGRID_API_KEY`",
            Self::Refused => "check whether the mail server lets this sender write to this recipient",
            Self::Setup { .. } => "correct the section `email`, or the variables that stand for it",
            Self::BadAddress => return None,
        };
        Some(hint.to_owned())
    }
}

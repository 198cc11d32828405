//! Mails leave by SMTP, or by the SendGrid API.

mod sendgrid;
mod smtp;

use std::sync::Arc;

use agnes_core::config::Config;
use agnes_core::mail::{MailError, Mailer};

use crate::outbound::{Outbound, Rules};

pub use sendgrid::SendGrid;
pub use smtp::Smtp;

/// The transport that the configuration names, if it names one.
///
/// # Errors
/// [`MailError::Setup`] for a transport that could never send anything.
pub fn mailer(config: &Config) -> Result<Option<Arc<dyn Mailer>>, MailError> {
    if config.email.sendgrid_key.is_some() {
        let outbound = Outbound::new(Rules::default().allowing(&config.allowed_private_hosts));
        return Ok(Some(Arc::new(SendGrid::new(&config.email, outbound)?)));
    }
    if config.email.smtp_host.is_some() {
        return Ok(Some(Arc::new(Smtp::new(&config.email)?)));
    }
    Ok(None)
}

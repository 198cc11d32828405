//! Mails by the SendGrid API, version 3.

use agnes_core::config::EmailConfig;
use agnes_core::mail::{Mail, MailError, Mailer, SEND_TIMEOUT};
use agnes_core::secret::Secret;
use async_trait::async_trait;
use serde_json::json;

use crate::outbound::{Outbound, OutboundError};

/// Where the service is.
const SERVICE: &str = "https://api.sendgrid.com";

/// Sends mails by the SendGrid API.
#[derive(Debug)]
pub struct SendGrid {
    outbound: Outbound,
    service: String,
    key: Secret,
    from: String,
    from_name: Option<String>,
}

impl SendGrid {
    /// Sends with this configuration. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`MailError::Setup`].
    pub fn new(config: &EmailConfig, outbound: Outbound) -> Result<Self, MailError> {
        let setup = |reason| MailError::Setup { reason };
        let key = config.sendgrid_key.clone().ok_or(setup("`SENDGRID_API_KEY` is missing"))?;
        let from = config.from.as_deref().map(str::trim).filter(|from| from.contains('@'));
        let from = from.ok_or(setup("the sender's address is missing: set `EMAIL_FROM_ADDRESS`"))?.to_owned();
        Ok(Self { outbound, service: SERVICE.to_owned(), key, from, from_name: config.from_name.clone() })
    }

    /// The same, with the service elsewhere.
    #[must_use]
    pub fn at(self, service: impl Into<String>) -> Self {
        Self { service: service.into(), ..self }
    }
}

#[async_trait]
impl Mailer for SendGrid {
    fn name(&self) -> &'static str {
        "sendgrid"
    }

    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let person = |email: &str, name: Option<&str>| match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => json!({"email": email, "name": name}),
            None => json!({"email": email}),
        };
        let body = json!({
            "personalizations": [{"to": [person(&mail.to, mail.name.as_deref())]}],
            "from": person(&self.from, self.from_name.as_deref()),
            "subject": mail.subject,
            "content": [
                {"type": "text/plain", "value": mail.text.expose()},
                {"type": "text/html", "value": mail.html.expose()},
            ],
            // A tracked link goes through somebody else's server, and its token with it.
            "tracking_settings": {
                "click_tracking": {"enable": false, "enable_text": false},
                "open_tracking": {"enable": false},
            },
        });
        // Never repeated: a mail that was taken must not come twice.
        let url = format!("{}/v3/mail/send", self.service);
        let sent = self.outbound.post(&url).bearer(&self.key).timeout(SEND_TIMEOUT).json(&body).send().await;
        let status = match sent {
            Ok(answer) => answer.status().as_u16(),
            Err(OutboundError::TimedOut { .. }) => return Err(MailError::Timeout),
            Err(OutboundError::UrlInvalid { .. } | OutboundError::Refused { .. } | OutboundError::NotSendable) => {
                return Err(MailError::Setup { reason: "the service or its key cannot be used" });
            }
            Err(error) => {
                tracing::warn!("the mail service was not reached: {error}");
                return Err(MailError::Unreachable);
            }
        };
        match status {
            200..300 => Ok(()),
            401 => Err(MailError::SignInRefused),
            429 | 500.. => Err(MailError::Unreachable),
            _ => Err(MailError::Refused),
        }
    }
}

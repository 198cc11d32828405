//! Mails by SMTP: a connection for each mail, encrypted unless the operator says otherwise.

use agnes_core::config::{EmailConfig, SmtpTls};
use agnes_core::mail::{Mail, MailError, Mailer, SEND_TIMEOUT};
use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

/// Sends mails to an SMTP server.
#[derive(Debug)]
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// Sends with this configuration. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`MailError::Setup`].
    pub fn new(config: &EmailConfig) -> Result<Self, MailError> {
        let setup = |reason| MailError::Setup { reason };
        let host = config.smtp_host.clone().ok_or(setup("`SMTP_HOST` is missing"))?;
        let from = config.from.as_deref().ok_or(setup("the sender's address is missing: set `SMTP_FROM`"))?;
        let from: Address = from.trim().parse().map_err(|_| setup("the sender's address is not an address"))?;
        let tls = || TlsParameters::new_rustls(host.clone()).map_err(|_| setup("the name of the server is not valid"));
        let tls = match config.smtp_tls {
            SmtpTls::None => Tls::None,
            SmtpTls::Implicit => Tls::Wrapper(tls()?),
            SmtpTls::StartTls => Tls::Required(tls()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&host)
            .port(config.smtp_port)
            .tls(tls)
            .timeout(Some(SEND_TIMEOUT));
        if let Some(user) = &config.smtp_user {
            let password = config.smtp_password.as_ref().map_or("", |password| password.expose());
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        let from = Mailbox::new(config.from_name.as_deref().map(one_line), from);
        Ok(Self { transport: builder.build(), from })
    }

    fn message(&self, mail: &Mail) -> Result<Message, MailError> {
        let to: Address = mail.to.parse().map_err(|_| MailError::BadAddress)?;
        // So that no out-of-office note answers it.
        let made_by_a_program = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(mail.name.as_deref().map(one_line), to))
            .subject(one_line(&mail.subject))
            .raw_header(HeaderValue::new(made_by_a_program, "auto-generated".to_owned()))
            .multipart(MultiPart::alternative_plain_html(mail.text.expose().to_owned(), mail.html.expose().to_owned()))
            .map_err(|_| MailError::BadAddress)
    }
}

/// The text without control characters: a line end in a header makes the library panic.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[async_trait]
impl Mailer for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = self.message(mail)?;
        self.transport.send(message).await.map(drop).map_err(|error| {
            // The words of the server may hold addresses: its code is enough.
            let code = error.status().map(|code| code.to_string()).unwrap_or_default();
            tracing::debug!(code, "the mail server did not take a mail");
            match code.as_str() {
                "530" | "534" | "535" | "538" => MailError::SignInRefused,
                _ if error.is_timeout() => MailError::Timeout,
                _ if error.is_response() || error.is_permanent() || error.is_transient() => MailError::Refused,
                _ if error.is_client() => MailError::Setup { reason: "the mail server offers no way to sign in" },
                _ => MailError::Unreachable,
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use agnes_core::secret::Secret;

    use super::*;

    #[test]
    fn no_text_of_a_person_becomes_a_header() {
        let config = EmailConfig {
            from: Some("agnes@x.example".to_owned()),
            from_name: Some("Agnes".to_owned()),
            smtp_host: Some("mail.x.example".to_owned()),
            smtp_port: 587,
            ..EmailConfig::default()
        };
        let smtp = Smtp::new(&config).unwrap();
        let mail = |to: &str, name: &str| Mail {
            to: to.to_owned(),
            name: Some(name.to_owned()),
            subject: "Žluťoučký\r\nBcc: evil@x.example".to_owned(),
            text: Secret::new("text"),
            html: Secret::new("<p>text</p>"),
        };
        let sent = smtp.message(&mail("ann@x.example", "Ann\r\nBcc: evil@x.example")).unwrap();
        let text = String::from_utf8(sent.formatted()).unwrap();
        assert!(!text.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{text}");
        assert!(text.contains("Auto-Submitted: auto-generated"));
        assert!(smtp.message(&mail("ann@x.example\r\nBcc: e@x.example", "")).is_err());
        for (broken, host) in [(Some("no address"), Some("h")), (None, Some("h")), (Some("a@x.example"), None)] {
            let config =
                EmailConfig { from: broken.map(str::to_owned), smtp_host: host.map(str::to_owned), ..config.clone() };
            assert!(matches!(Smtp::new(&config), Err(MailError::Setup { .. })), "{broken:?} {host:?}");
        }
    }
}

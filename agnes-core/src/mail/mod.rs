//! Mails with links: what they say, who sends them, and what became of them.
//!
//! The engine writes them, a [`Mailer`] that the program hands in sends them. Sending never
//! runs inside a request that must not tell whether there was somebody to send to.

mod error;
mod letter;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use error::MailError;

use crate::engine::Engine;
use crate::error::Result;
use crate::identity::{AccessRequest, Account, Letter};
use crate::secret::Secret;

/// Longest time that sending one mail takes.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// Mails that people asked for, sent or waiting at a time; what comes above is dropped, with
/// a line in the log.
const WAITING: usize = 256;
/// Mails sent at a time.
const SENDING: usize = 4;
/// How long closing waits for mails that are being sent.
const LAST_MAILS: Duration = Duration::from_secs(5);

/// A mail to one person, in words and as a page. Its texts hold a link that signs in.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Their address.
    pub to: String,
    /// Their name.
    pub name: Option<String>,
    /// What it is about, one line.
    pub subject: String,
    /// The mail in words.
    pub text: Secret,
    /// The same as HTML.
    pub html: Secret,
}

/// Sends mails: by SMTP, by the API of a provider.
#[async_trait]
pub trait Mailer: Send + Sync + std::fmt::Debug {
    /// Name of the transport, such as `smtp`.
    fn name(&self) -> &'static str;
    /// Hands one mail over. The engine gives up after [`SEND_TIMEOUT`].
    ///
    /// # Errors
    /// [`MailError`].
    async fn send(&self, mail: &Mail) -> Result<(), MailError>;
}

/// What somebody who is not signed in may ask to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A link to set the first password.
    Setup,
    /// A link to set a new password.
    Reset,
    /// A link that signs in.
    Login,
}

/// How sending mails goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MailStatus {
    /// Name of the transport; none when mails are switched off.
    pub transport: Option<&'static str>,
    /// Mails handed over since the start.
    pub sent: u64,
    /// Mails that could not be handed over since the start.
    pub failed: u64,
    /// When the last one was handed over.
    pub last_sent_at: Option<DateTime<Utc>>,
    /// When the last one could not be.
    pub last_failed_at: Option<DateTime<Utc>>,
    /// Code of the last failure, gone with the next mail that is handed over.
    pub last_error: Option<String>,
}

/// What an engine keeps of its mails.
#[derive(Debug)]
pub(crate) struct MailState {
    mailer: Option<Arc<dyn Mailer>>,
    status: Mutex<MailStatus>,
    turns: Semaphore,
    running: Mutex<JoinSet<()>>,
}

impl MailState {
    pub(crate) fn new(mailer: Option<Arc<dyn Mailer>>) -> Self {
        let status = MailStatus { transport: mailer.as_ref().map(|mailer| mailer.name()), ..MailStatus::default() };
        Self { mailer, status: Mutex::new(status), turns: Semaphore::new(SENDING), running: Mutex::new(JoinSet::new()) }
    }

    /// Waits for mails that are being sent, not for long.
    pub(crate) async fn settle(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_MAILS, all).await.is_err() {
            tracing::warn!("mails were not sent before the end");
        }
    }

    fn note(&self, done: &Result<()>, now: DateTime<Utc>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(()) => {
                status.sent += 1;
                status.last_sent_at = Some(now);
                status.last_error = None;
            }
            Err(error) => {
                status.failed += 1;
                status.last_failed_at = Some(now);
                status.last_error = Some(error.code().to_owned());
            }
        }
    }
}

/// Sending mails.
#[derive(Debug, Clone, Copy)]
pub struct Mails<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Sending mails.
    #[must_use]
    pub fn mails(&self) -> Mails<'_> {
        Mails { engine: self }
    }
}

impl Mails<'_> {
    fn state(&self) -> &MailState {
        self.engine.mail_state()
    }

    /// Whether there is a transport.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state().mailer.is_some()
    }

    /// How sending goes, for admins.
    #[must_use]
    pub fn status(&self) -> MailStatus {
        self.state().status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends the link of `letter`, which begins with `origin` (`https://agnes.example`), and
    /// waits for the outcome: for callers who may know it.
    ///
    /// # Errors
    /// `mail_off`, `mail_timeout`, and what the transport says: `mail_unreachable`,
    /// `mail_refused`, `mail_sign_in_refused`.
    pub async fn send(&self, letter: &Letter, origin: &str) -> Result<()> {
        self.hand_over(&letter::mail(letter, origin, &self.engine.live_config().site.product)).await
    }

    async fn hand_over(&self, mail: &Mail) -> Result<()> {
        let Some(mailer) = &self.state().mailer else { return Err(MailError::Off.into()) };
        let _turn = self.state().turns.acquire().await;
        let sent = tokio::time::timeout(SEND_TIMEOUT, mailer.send(mail)).await;
        let done = sent.unwrap_or(Err(MailError::Timeout)).map_err(crate::error::Error::from);
        self.state().note(&done, self.engine.clock().now());
        if let Err(error) = &done {
            tracing::error!(code = error.code(), transport = mailer.name(), "a mail was not sent: {error}");
        }
        done
    }

    /// Sends this person what they asked for, if they may have it; the link leads on to `next`,
    /// where that is a path of this server. Neither the answer nor its
    /// time tells whether there was somebody to send to: all of it happens later.
    pub fn send_later(&self, asked: Asked, email: &str, origin: &str, next: Option<&str>) {
        let next = next.and_then(crate::config::local_path).map(ToOwned::to_owned);
        let (engine, email, origin) = (self.engine.clone(), email.to_owned(), origin.to_owned());
        self.later(async move {
            match engine.sign_in().ask_for(asked, &email).await {
                // What went wrong is in the log and in the status.
                Ok(Some(letter)) => drop(engine.mails().send(&Letter { next, ..letter }, &origin).await),
                Ok(None) => {}
                Err(error) => tracing::error!(code = error.code(), "a mail was not written: {error}"),
            }
        });
    }

    /// Tells somebody how their request for access ended, later.
    pub(crate) fn answer_later(&self, request: &AccessRequest, to: &Account) {
        let mail = letter::answer(request, to, &self.engine.live_config().site.product);
        let engine = self.engine.clone();
        self.later(async move { drop(engine.mails().hand_over(&mail).await) });
    }

    /// Sends a mail after the call that it belongs to; nothing without a transport.
    fn later(&self, sending: impl Future<Output = ()> + Send + 'static) {
        if !self.is_on() {
            return;
        }
        let mut running = self.state().running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        if running.len() >= WAITING {
            tracing::error!("too many mails are waiting: one was dropped");
            return;
        }
        running.spawn(sending);
    }

    /// Waits until every mail that was asked for is sent, or failed; not for long.
    pub async fn settle(&self) {
        self.state().settle().await;
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

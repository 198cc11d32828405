//! A request: what is sent, how often, for how long.

use std::time::{Duration, Instant};

use agnes_core::secret::Secret;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use serde::Serialize;

use super::answer::Answer;
use super::error::OutboundError;
use super::{Method, Outbound, Url, rules};

/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// Repetitions of a call that may pass.
const REPETITIONS: usize = 2;
/// The longest pause before a repetition, also where the other side asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long everything may take, where the request says nothing else.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer, where the request says nothing else.
const BODY: u64 = 8 << 20;

/// A request that can be sent. Its parts are checked when it is.
#[must_use = "nothing is sent before `send`"]
#[derive(Clone)]
pub struct Request<'a> {
    outbound: &'a Outbound,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    timeout: Duration,
    limit: u64,
    repeatable: bool,
    /// The only hosts that may be asked, redirects among it; none where any may.
    hosts: Option<Vec<String>>,
    /// Whether a part of it cannot be sent.
    broken: bool,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(outbound: &'a Outbound, method: Method, url: &str) -> Self {
        let repeatable = matches!(method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE);
        let (url, headers) = (url.to_owned(), HeaderMap::new());
        Self {
            outbound,
            method,
            url,
            headers,
            body: None,
            timeout: TIMEOUT,
            limit: BODY,
            repeatable,
            hosts: None,
            broken: false,
        }
    }

    /// Sets a header. Its value is a secret for all that is logged; a redirect to another
    /// origin does not get it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(name != ACCEPT && name != CONTENT_TYPE);
                self.headers.insert(name, value);
            }
            _ => self.broken = true,
        }
        self
    }

    /// Sets `Authorization: Bearer`.
    pub fn bearer(self, token: &Secret) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {}", token.expose()))
    }

    /// Sends bytes of this type.
    pub fn body(self, content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.bytes(bytes).header(CONTENT_TYPE.as_str(), content_type)
    }

    /// Sends bytes whose type a header says.
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// Sends JSON.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.body("application/json", bytes),
            Err(_) => {
                self.broken = true;
                self
            }
        }
    }

    /// Sends a form.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.body("application/x-www-form-urlencoded", text)
    }

    /// How long everything may take, repetitions, pauses and body among it; 60 s unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Bytes of the answer's body; 8 MiB unless said.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Says that sending this more than once does no more than sending it once.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Asks no host but these, and goes to no other when it is sent on.
    pub fn only_at(mut self, hosts: &[String]) -> Self {
        self.hosts = Some(hosts.iter().map(|host| host.to_ascii_lowercase()).collect());
        self
    }

    /// Sends it, more than once where that is harmless and may help.
    ///
    /// # Errors
    /// `url_invalid`, `private_url`, `host_not_found`, `host_unreachable`, `host_timed_out`,
    /// `too_many_redirects`, `request_not_sendable`, `no_outgoing_calls`. A status that means
    /// failure is an answer.
    pub async fn send(self) -> Result<Answer, OutboundError> {
        if self.broken {
            return Err(OutboundError::NotSendable);
        }
        let url = rules::parse(&self.url)?;
        let deadline = Instant::now() + self.timeout;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(REPETITIONS)
            .with_jitter()
            .build();
        loop {
            let done = self.once(url.clone(), deadline).await;
            let (again, asked) = match &done {
                Ok(answer) => (matches!(answer.status().as_u16(), 429 | 502 | 503 | 504), retry_after(answer)),
                Err(error) => (error.may_pass(), None),
            };
            if !again || !self.repeatable {
                return done;
            }
            let Some(pause) = pauses.next() else { return done };
            let pause = asked.map_or(pause, |asked| asked.max(pause));
            if pause > LONGEST_PAUSE || Instant::now() + pause >= deadline {
                return done;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends it once, and follows where it leads.
    async fn once(&self, mut url: Url, deadline: Instant) -> Result<Answer, OutboundError> {
        let (client, mut headers) = (self.outbound.client()?, self.headers.clone());
        for _ in 0..=REDIRECTS {
            // The name is checked by the client's resolver, which knows what it connects to.
            self.outbound.rules().vet(&url)?;
            let host = url.host_str().unwrap_or_default().to_owned();
            if self.hosts.as_ref().is_some_and(|hosts| !hosts.contains(&host)) {
                let reason = "it is not one of the hosts that may be asked for this";
                return Err(OutboundError::Refused { host: rules::shown(&host), reason });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = client.request(self.method.clone(), url.clone()).headers(headers.clone()).timeout(left);
            if let Some(body) = &self.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| OutboundError::of(&host, error))?;
            let status = response.status();
            tracing::debug!(host, status = status.as_u16(), method = %self.method, "called");
            if !(status.is_redirection() && response.headers().contains_key(LOCATION)) {
                return Ok(Answer::new(response, host, self.limit));
            }
            let next =
                response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
            // A body is sent to nobody but whom it was meant for.
            let next = next.filter(|_| matches!(self.method, Method::GET | Method::HEAD));
            let next = next.ok_or_else(|| too_many(&host))?;
            if next.origin() != url.origin() {
                headers = headers.remove(ACCEPT).map(|accept| (ACCEPT, accept)).into_iter().collect();
            }
            url = next;
        }
        Err(too_many(url.host_str().unwrap_or_default()))
    }
}

fn too_many(host: &str) -> OutboundError {
    OutboundError::Redirects { host: rules::shown(host), most: REDIRECTS }
}

/// How long the other side asks to wait: seconds or a date (RFC 9110, 10.2.3).
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header(RETRY_AFTER.as_str())?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    (at.to_utc() - chrono::Utc::now()).to_std().ok()
}

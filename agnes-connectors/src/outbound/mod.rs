//! The one HTTP client that reaches out of this process: to identity providers, mail services
//! and the APIs of sources.
//!
//! An address may come from a person's settings, so every call keeps to the same rules,
//! against servers that are made to call what only they can reach (SSRF):
//!
//! - `https` only, no user name in the address, no name that means this machine or network;
//! - every address a name resolves to is a public one, and a connection goes to an address
//!   that was checked, never to one that was resolved again;
//! - at most three redirects, each checked like the first address, without the headers of the
//!   request once another origin is asked;
//! - hosts that the operator names (`security.allowed_private_hosts`) may be private, and may
//!   be asked by `http`.
//!
//! Proxies of the environment are not used: behind one nothing would be known of the address
//! that is reached. Certificates are those of the system (`SSL_CERT_FILE` adds to them).
//!
//! ```no_run
//! # async fn f() -> Result<(), agnes_connectors::outbound::OutboundError> {
//! use agnes_connectors::outbound::{Outbound, Rules};
//! let outbound = Outbound::new(Rules::default());
//! let names: Vec<String> = outbound.get("https://api.example.com/names").send().await?.ok()?.json().await?;
//! # Ok(()) }
//! ```
//!
//! Calls that may be repeated (`GET`, `HEAD`, `PUT`, `DELETE`, and what says
//! [`Request::repeatable`]) are, three times in all, after pauses that grow and vary, or as
//! `Retry-After` asks. Errors name the host, never path, query, headers or bodies.

mod address;
mod answer;
mod authority;
mod error;
mod request;
mod rules;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use answer::Answer;
pub use authority::private_authority;
pub use error::OutboundError;
pub use request::Request;
pub use reqwest::{Method, StatusCode, Url};
pub use rules::{Names, Rules};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the other side may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections kept for another call to the same host.
const IDLE: usize = 4;

/// Sends requests out of this process. Cheap to clone; one for a process is enough.
#[derive(Debug, Clone)]
pub struct Outbound(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Arc<Rules>,
    /// Made at the first call: a machine without certificates can do everything else.
    client: OnceLock<Option<reqwest::Client>>,
}

impl Outbound {
    /// A client that keeps to `rules`.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(Inner { rules: Arc::new(rules), client: OnceLock::new() }))
    }

    /// A `GET` of `url`.
    pub fn get(&self, url: &str) -> Request<'_> {
        self.request(Method::GET, url)
    }

    /// A `POST` to `url`.
    pub fn post(&self, url: &str) -> Request<'_> {
        self.request(Method::POST, url)
    }

    /// A request.
    pub fn request(&self, method: Method, url: &str) -> Request<'_> {
        Request::new(self, method, url)
    }

    /// Whether `url` may be called as of now, for settings that are about to be saved. Sends
    /// nothing but a question for the name; each call checks again.
    ///
    /// # Errors
    /// `url_invalid`, `private_url`, `host_not_found`.
    pub async fn check(&self, url: &str) -> Result<(), OutboundError> {
        self.rules().vet(&rules::parse(url)?)?.resolved().await.map(drop)
    }

    /// As [`Outbound::check`], for a program that connects by itself: the addresses it may connect to, none where
    /// the URL names an address or a host that the operator allowed.
    pub(crate) async fn addresses_of(&self, url: &Url) -> Result<Vec<std::net::IpAddr>, OutboundError> {
        self.rules().vet(url)?.resolved().await
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.0.rules
    }

    pub(crate) fn client(&self) -> Result<&reqwest::Client, OutboundError> {
        let make = || {
            let made = reqwest::Client::builder()
                .user_agent(concat!("agnes/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(rules::Checked(self.0.rules.clone())))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .pool_max_idle_per_host(IDLE)
                .build();
            made.map_err(|error| tracing::error!(%error, "no HTTP client can be made")).ok()
        };
        self.0.client.get_or_init(make).as_ref().ok_or(OutboundError::NoClient)
    }
}

#[async_trait::async_trait]
impl agnes_core::settings::AddressRules for Outbound {
    async fn check(&self, url: &str) -> Result<(), String> {
        Self::check(self, url).await.map_err(|error| error.to_string())
    }
}

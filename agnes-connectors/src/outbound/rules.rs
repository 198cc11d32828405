//! Which addresses may be called, before and after their names are resolved.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use super::address::is_public;
use super::error::OutboundError;

/// Finds the addresses of a name.
#[async_trait]
pub trait Names: Send + Sync {
    /// Every address of `name`, of both families.
    ///
    /// # Errors
    /// What the resolver says; the call is refused.
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The names as the system knows them.
struct SystemNames;

#[async_trait]
impl Names for SystemNames {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Which addresses may be called.
pub struct Rules {
    allowed: BTreeSet<String>,
    names: Arc<dyn Names>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { allowed: BTreeSet::new(), names: Arc::new(SystemNames) }
    }
}

impl Rules {
    /// Allows these hosts, names or addresses as they stand in a URL, to be private and to be
    /// asked by `http`.
    #[must_use]
    pub fn allowing<H: AsRef<str>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.allowed.extend(hosts.into_iter().map(|host| normal(host.as_ref())));
        self
    }

    /// Resolves names by `names`, for tests and embedders.
    #[must_use]
    pub fn with_names(mut self, names: impl Names + 'static) -> Self {
        self.names = Arc::new(names);
        self
    }

    /// Whether the operator named this host.
    pub(crate) fn allows(&self, host: &str) -> bool {
        self.allowed.contains(&normal(host))
    }

    /// Checks what can be known of `url` before its name is resolved.
    pub(super) fn vet<'a>(&'a self, url: &'a Url) -> Result<Vetted<'a>, OutboundError> {
        let host = url.host().ok_or(OutboundError::UrlInvalid { reason: "it names no host" })?;
        let text = match &host {
            Host::Domain(name) => normal(name),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let allowed = self.allows(&text);
        let refused = |reason| Err(OutboundError::Refused { host: shown(&text), reason });
        if !url.username().is_empty() || url.password().is_some() {
            return refused("a user name or password stands in the address");
        }
        match url.scheme() {
            "https" => {}
            "http" if allowed => {}
            _ => return refused("only https may be used"),
        }
        if allowed {
            return Ok(Vetted { rules: self, resolve: None });
        }
        let address = match &host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        };
        match address {
            Some(address) if !is_public(address) => refused("the address is not a public one"),
            Some(_) => Ok(Vetted { rules: self, resolve: None }),
            None if is_local_name(&text) => refused("the name is one of this machine or network"),
            None => Ok(Vetted { rules: self, resolve: Some(text) }),
        }
    }

    /// The addresses of `name`, each of which may be called.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, OutboundError> {
        let host = || shown(name);
        let found =
            self.names.resolve(name).await.map_err(|source| OutboundError::NotFound { host: host(), source })?;
        if found.is_empty() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no addresses");
            return Err(OutboundError::NotFound { host: host(), source });
        }
        if !self.allows(name) && found.iter().any(|address| !is_public(*address)) {
            return Err(OutboundError::Refused {
                host: host(),
                reason: "it resolves to an address that is not public",
            });
        }
        Ok(found)
    }
}

/// A URL that passed as far as can be told without resolving its name.
pub(super) struct Vetted<'a> {
    rules: &'a Rules,
    resolve: Option<String>,
}

impl Vetted<'_> {
    /// Resolves the name, if there is one to check; to which addresses.
    pub(super) async fn resolved(self) -> Result<Vec<IpAddr>, OutboundError> {
        match &self.resolve {
            Some(name) => self.rules.addresses(name).await,
            None => Ok(Vec::new()),
        }
    }
}

/// Resolves names for the client: it connects to what this returns, and to nothing else.
pub(super) struct Checked(pub(super) Arc<Rules>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let found = rules.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// Reads a URL.
pub(super) fn parse(text: &str) -> Result<Url, OutboundError> {
    // What stands between white space or breaks a line was not meant as an address.
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(OutboundError::UrlInvalid { reason: "it holds characters that no address has" });
    }
    Url::parse(text).map_err(|_| OutboundError::UrlInvalid { reason: "it is not a whole URL" })
}

/// A host as it is compared: lower case, without brackets and final dot.
fn normal(host: &str) -> String {
    let host = host.trim().trim_start_matches('[').trim_end_matches(']');
    host.strip_suffix('.').unwrap_or(host).to_lowercase()
}

fn is_local_name(name: &str) -> bool {
    ["localhost", "internal", "local"]
        .iter()
        .any(|last| name.strip_suffix(last).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// A host as messages show it.
pub(super) fn shown(host: &str) -> String {
    agnes_core::ident::printable(host, 120)
}

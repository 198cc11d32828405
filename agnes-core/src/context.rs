//! Who calls, from where, under which request id, until when. First argument of every
//! governed call.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::rbac::{AuthMethod, ClientKind, Principal};

/// What is known of a request before anybody knows who sent it.
#[derive(Debug, Clone)]
pub struct Client {
    ip: Option<IpAddr>,
    agnes_command: bool,
    browser: bool,
    assistant: bool,
    request_id: String,
}

impl Client {
    /// A client at this address, as the frontend knows it behind its trusted proxies.
    #[must_use]
    pub fn at(ip: Option<IpAddr>) -> Self {
        Self { ip, agnes_command: false, browser: false, assistant: false, request_id: new_request_id() }
    }

    /// Says what it calls itself; `agnes/...` is the command line.
    #[must_use]
    pub fn with_user_agent(mut self, text: &str) -> Self {
        self.agnes_command = text.starts_with("agnes/");
        self
    }

    /// Says that the request came with the session cookie, or from a form of a page.
    #[must_use]
    pub fn from_browser(mut self) -> Self {
        self.browser = true;
        self
    }

    /// Says that an assistant asks, through the Model Context Protocol.
    #[must_use]
    pub fn from_assistant(mut self) -> Self {
        self.assistant = true;
        self
    }

    /// Uses `id` (`[A-Za-z0-9_-]{1,64}`) as the request id; any other text is ignored.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        if is_request_id(id) {
            id.clone_into(&mut self.request_id);
        }
        self
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The network it is in, as limits count it.
    #[must_use]
    pub fn network(&self) -> Option<IpAddr> {
        self.ip.map(network)
    }

    /// The request id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The audit's `client_kind` of a call that is proven in this way; the one place that
    /// decides it.
    #[must_use]
    pub fn kind(&self, proven: Option<AuthMethod>) -> ClientKind {
        match proven {
            _ if self.assistant => ClientKind::Mcp,
            Some(AuthMethod::Service) => ClientKind::Scheduler,
            Some(AuthMethod::Desktop) => ClientKind::Desktop,
            Some(AuthMethod::Pat) if self.agnes_command => ClientKind::Cli,
            _ if self.browser => ClientKind::Web,
            _ => ClientKind::Api,
        }
    }
}

/// What counts as one sender: an address of IPv4; of IPv6 the first half, as whoever has one
/// address there has all of its network (RFC 6177).
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

fn new_request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}

fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The context of one call.
#[derive(Debug, Clone)]
pub struct CallContext {
    principal: Principal,
    client_ip: Option<IpAddr>,
    request_id: String,
    deadline: Option<Instant>,
}

impl CallContext {
    /// A context for `principal` with a fresh request id and no deadline of its own
    /// (the engine's limits still hold).
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self { principal, client_ip: None, request_id: new_request_id(), deadline: None }
    }

    /// A context for `principal`, who sent the request of `client`.
    #[must_use]
    pub fn from_client(principal: Principal, client: &Client) -> Self {
        Self { principal, client_ip: client.ip, request_id: client.request_id.clone(), deadline: None }
    }

    /// The same call for another principal.
    #[must_use]
    pub fn acting_as(&self, principal: Principal) -> Self {
        Self { principal, ..self.clone() }
    }

    /// Uses `id` (`[A-Za-z0-9_-]{1,64}`) as the request id; any other text is ignored.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        if is_request_id(id) {
            id.clone_into(&mut self.request_id);
        }
        self
    }

    /// Ends the call after `timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Instant::now().checked_add(timeout);
        self
    }

    /// Who calls.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The address of the client, where a frontend knows one.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// The request id, in every audit row of this call.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// When the call must end, if it must.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_tells_the_kind_of_client() {
        let client = Client::at(None);
        let agnes = client.clone().with_user_agent("agnes/1.2");
        assert_eq!(client.kind(Some(AuthMethod::Service)), ClientKind::Scheduler);
        assert_eq!(client.kind(Some(AuthMethod::Desktop)), ClientKind::Desktop);
        assert_eq!(agnes.kind(Some(AuthMethod::Pat)), ClientKind::Cli);
        assert_eq!(client.clone().with_user_agent("curl agnes/").kind(Some(AuthMethod::Pat)), ClientKind::Api);
        assert_eq!(agnes.kind(Some(AuthMethod::Session)), ClientKind::Api);
        assert_eq!(client.clone().from_browser().kind(Some(AuthMethod::Session)), ClientKind::Web);
        assert_eq!(client.kind(None), ClientKind::Api);
        assert_eq!(agnes.from_assistant().kind(Some(AuthMethod::Pat)), ClientKind::Mcp);
    }

    #[test]
    fn request_ids_are_taken_only_when_harmless() {
        assert_eq!(Client::at(None).with_request_id("req-1").request_id(), "req-1");
        for odd in ["", "a b", "a\nb", &"x".repeat(65)] {
            assert_eq!(Client::at(None).with_request_id(odd).request_id().len(), 12);
        }
    }
}

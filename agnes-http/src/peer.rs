//! The other end of a connection.

use std::net::SocketAddr;

use axum::http::HeaderMap;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Peer {
    /// Whether the request comes from this machine, and no proxy says it passes it on.
    pub(crate) fn is_this_machine(self, headers: &HeaderMap) -> bool {
        self.0.ip().is_loopback() && !headers.contains_key("x-forwarded-for") && !headers.contains_key("forwarded")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_speaks_for_others() {
        let mut headers = HeaderMap::new();
        let near = Peer("127.0.0.1:9".parse().unwrap());
        assert!(near.is_this_machine(&headers));
        assert!(!Peer("10.0.0.1:9".parse().unwrap()).is_this_machine(&headers));
        headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
        assert!(!near.is_this_machine(&headers));
    }
}

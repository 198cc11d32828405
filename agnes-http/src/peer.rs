//! The other end of a connection.

use std::net::{IpAddr, SocketAddr};

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

/// The client's address: the peer's, or what the outermost trusted proxy wrote. Never what the
/// client could have written.
pub(crate) fn client_address(headers: &HeaderMap, peer: Option<Peer>, trusted_hops: usize) -> Option<IpAddr> {
    let peer = peer.map(|peer| peer.0.ip());
    if trusted_hops == 0 {
        return peer;
    }
    let texts = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = texts.flat_map(|text| text.split(',')).map(str::trim).collect();
    let Some(nth) = hops.len().checked_sub(trusted_hops) else { return peer };
    hops.get(nth).and_then(|text| text.parse().ok()).or(peer)
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

    #[test]
    fn a_client_cannot_choose_its_address() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "6.6.6.6, 1.2.3.4".parse().unwrap());
        let peer = Some(Peer("127.0.0.1:9".parse().unwrap()));
        let address = |hops| client_address(&headers, peer, hops).map(|ip| ip.to_string());
        assert_eq!(address(0).as_deref(), Some("127.0.0.1"));
        assert_eq!(address(1).as_deref(), Some("1.2.3.4"));
        assert_eq!(address(2).as_deref(), Some("6.6.6.6"));
        assert_eq!(address(3).as_deref(), Some("127.0.0.1"), "fewer proxies than were promised");
    }
}

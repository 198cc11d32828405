//! Addresses of other servers that an admin may enter.
//!
//! What can be told from the text is decided here; whoever can resolve names and keep to the
//! answer brings an [`AddressRules`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;

use super::check::url_host;

/// Decides whether this server may ask an address, names resolved.
#[async_trait]
pub trait AddressRules: Send + Sync + std::fmt::Debug {
    /// Whether it may; in words why it may not.
    async fn check(&self, url: &str) -> Result<(), String>;
}

/// What the text of an address tells against it.
pub(super) fn refused(url: &str) -> Option<&'static str> {
    if !url.starts_with("https://") {
        return Some("it has to begin with `https://`");
    }
    let host = url_host(url)?.trim_end_matches('.').to_ascii_lowercase();
    let private_name = ["localhost", "local", "internal"]
        .iter()
        .any(|end| host == *end || host.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')));
    // Numbers that are no address of four parts are one to many resolvers.
    let number = host
        .split('.')
        .all(|part| !part.is_empty() && (part.bytes().all(|b| b.is_ascii_digit()) || part.starts_with("0x")));
    match host.parse::<IpAddr>() {
        Ok(address) if is_private(address) => Some("it is in a private or reserved network"),
        Ok(_) => None,
        Err(_) if private_name || number => Some("its name is of a private network"),
        Err(_) => None,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            let inner = |high: u16, low: u16| {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                is_private_v4(Ipv4Addr::new(a, b, c, d))
            };
            let nat64 = (first, second) == (0x64, 0xff9b);
            let mapped = address.to_ipv4_mapped().is_some() || address.to_ipv4().is_some() || nat64;
            address == Ipv6Addr::UNSPECIFIED
                || address.is_loopback()
                || address.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || (first, second) == (0x2001, 0xdb8)
                || mapped && inner(address.segments()[6], address.segments()[7])
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || matches!(a, 0 | 240..=255)
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_refused() {
        for bad in [
            "http://a.example",
            "https://localhost",
            "https://LOCALHOST./x",
            "https://a.localhost:8443",
            "https://metadata.google.internal/",
            "https://printer.local",
            "https://127.0.0.1",
            "https://10.0.0.1",
            "https://169.254.169.254/latest",
            "https://100.64.0.1",
            "https://192.168.1.1",
            "https://0.0.0.0",
            "https://224.0.0.1",
            "https://[::1]",
            "https://[::]",
            "https://[fd00::1]",
            "https://[fe80::1]",
            "https://[::ffff:10.0.0.1]",
            "https://[64:ff9b::a00:1]",
            "https://2130706433",
            "https://0x7f000001",
            "https://127.1",
        ] {
            assert!(refused(bad).is_some(), "{bad}");
        }
        for good in ["https://a.example", "https://8.8.8.8", "https://[2606:4700::1111]/x", "https://10.example"] {
            assert_eq!(refused(good), None, "{good}");
        }
    }
}

//! Where an installation is found, what it is called, and which addresses belong to it.

use std::collections::BTreeMap;

use crate::secret::Secret;

/// Where sign-in lands unless the operator says otherwise.
const HOME: &str = "/dashboard";
/// Longest path that is kept.
const LONGEST_PATH: usize = 2048;

/// What an installation is called and where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteConfig {
    /// `instance.brand`, else `instance.name`, else `Agnes`.
    pub product: String,
    /// A line below it.
    pub subtitle: Option<String>,
    /// Colours, lengths and fonts of pages: what is set of `theme`, by its name there.
    pub theme: BTreeMap<String, String>,
    /// `instance.logo_svg`: the mark of pages, without scripts, handlers and links to elsewhere.
    pub logo_svg: Option<String>,
    /// A path of this server, where sign-in lands.
    pub home_route: String,
    /// `SERVER_URL`: scheme, host and port, without a slash at the end.
    pub server_url: Option<String>,
    /// `DOMAIN`: the public name of this server.
    pub domain: Option<String>,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            product: "Agnes".to_owned(),
            subtitle: None,
            theme: BTreeMap::new(),
            logo_svg: None,
            home_route: HOME.to_owned(),
            server_url: None,
            domain: None,
        }
    }
}

impl SiteConfig {
    /// Whether a `Host` is one of ours: that of `SERVER_URL`, `DOMAIN`, or this machine. A
    /// request may carry any host: what is not ours must not get into a mail or a redirect.
    #[must_use]
    pub fn is_own_host(&self, host: &str) -> bool {
        let given = host.to_ascii_lowercase();
        let url_host = self.server_url.as_deref().and_then(|url| url.split_once("://")).map(|(_, host)| host);
        let name = without_port(&given);
        url_host.is_some_and(|own| own.eq_ignore_ascii_case(&given))
            || self.domain.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(&given) || own == name)
            || is_this_machine(name)
    }

    /// Whether a `Host` is a public name that is not ours: somebody else may have made it mean
    /// this machine, to have a browser here talk to it.
    #[must_use]
    pub fn is_foreign_name(&self, host: &str) -> bool {
        let lower = host.to_ascii_lowercase();
        let name = without_port(&lower);
        let is_plain = name.parse::<std::net::IpAddr>().is_ok() || (!name.is_empty() && !name.contains('.'));
        !is_plain && !self.is_own_host(host)
    }

    /// How links to this server begin, for a request to `host`: `SERVER_URL`, else the
    /// request's own host if it is ours, else `DOMAIN`, else `bound`, the address that the
    /// server listens at. Where there is a `DOMAIN`, the host is this machine only for who
    /// `is_here`: a link would lead anybody else to their own machine.
    #[must_use]
    pub fn origin(&self, host: Option<&str>, is_https: bool, is_here: bool, bound: &str) -> String {
        if let Some(url) = &self.server_url {
            return url.clone();
        }
        let scheme = if is_https { "https" } else { "http" };
        let fits = |host: &&str| {
            let reaches =
                is_here || self.domain.is_none() || !is_this_machine(without_port(&host.to_ascii_lowercase()));
            self.is_own_host(host) && reaches
        };
        match (host.filter(fits), &self.domain) {
            (Some(host), _) => format!("{scheme}://{}", host.to_ascii_lowercase()),
            (None, Some(domain)) => format!("https://{domain}"),
            (None, None) => format!("http://{bound}"),
        }
    }
}

/// The part of `host:port` before the port; only what can be a host at all.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if rest.is_empty() || is_port(rest) => address,
        Some(_) => "",
        None => match host.find(':') {
            Some(at) if is_port(&host[at..]) => &host[..at],
            Some(_) => "",
            None => host,
        },
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

/// Whether a host, without a port, means the machine itself.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `text` if it is a path of this server and nothing a browser could take for another one:
/// the rule for every `next`, and for the home route.
#[must_use]
pub fn local_path(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('/')?;
    let odd = |c: char| c.is_control() || c == '\\';
    (text.len() <= LONGEST_PATH && !rest.starts_with('/') && !text.contains(odd)).then_some(text)
}

/// How a connection to an SMTP server is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SmtpTls {
    /// By `STARTTLS`, or not at all.
    #[default]
    StartTls,
    /// From the first byte on.
    Implicit,
    /// Not at all.
    None,
}

/// How mails leave.
#[derive(Debug, Clone, Default)]
pub struct EmailConfig {
    /// Address of the sender.
    pub from: Option<String>,
    /// Name of the sender.
    pub from_name: Option<String>,
    /// Key of the SendGrid API; it goes before SMTP.
    pub sendgrid_key: Option<Secret>,
    /// Host of the SMTP server.
    pub smtp_host: Option<String>,
    /// Its port.
    pub smtp_port: u16,
    /// How the connection is encrypted.
    pub smtp_tls: SmtpTls,
    /// Who signs in there, if anybody.
    pub smtp_user: Option<String>,
    /// Their password.
    pub smtp_password: Option<Secret>,
}

/// A developer's machine, where everybody is one user: `LOCAL_DEV_MODE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevConfig {
    /// Their address.
    pub email: String,
    /// Groups they are in, as a directory would say: id and name.
    pub groups: Vec<(String, String)>,
    /// Whether others than this machine may connect: `AGNES_ALLOW_INSECURE_DEV`.
    pub allow_others: bool,
}

impl DevConfig {
    /// Whether a server may listen at this address: everybody who reaches it is an Admin.
    #[must_use]
    pub fn may_listen_at(&self, ip: std::net::IpAddr) -> bool {
        ip.is_loopback() || self.allow_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leaves_the_site() {
        for good in ["/", "/dashboard", "/catalog?table=a&b=%2F%2Fevil", "/a//b", "/ž", "/%2F%2Fevil", "/a:b@c"] {
            assert_eq!(local_path(good), Some(good));
        }
        for bad in [
            "",
            "evil",
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "\\/evil",
            "https://evil",
            "https:evil",
            "/\t/evil",
            "\t//evil",
            " //evil",
            "/\n/evil",
            "/a\\b",
            "/\u{0}",
            "/a\r\nSet-Cookie: b",
            "javascript:alert(1)",
            "/\u{85}x",
        ] {
            assert_eq!(local_path(bad), None, "{bad:?}");
        }
        assert_eq!(local_path(&format!("/{}", "x".repeat(LONGEST_PATH))), None);
    }

    #[test]
    fn a_forged_host_is_not_ours() {
        let local = SiteConfig::default();
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "[::1]"] {
            assert!(local.is_own_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost:8000@evil.example",
            "127.0.0.1.evil.example",
            "",
            "localhost:x",
            "[::1]evil",
            "[::1",
            "::1]",
            "evil.example:127",
            "localhost/evil",
            "localhost:+80",
        ] {
            assert!(!local.is_own_host(host), "{host}");
            assert_eq!(local.origin(Some(host), false, true, "127.0.0.1:9"), "http://127.0.0.1:9");
        }
        for (host, foreign) in [
            ("evil.example", true),
            ("10.0.0.5:8000", false),
            ("app:8000", false),
            ("[fe80::1]:8000", false),
            ("localhost", false),
            ("", true),
            ("a.b:x", true),
        ] {
            assert_eq!(local.is_foreign_name(host), foreign, "{host}");
        }
        let named = SiteConfig { domain: Some("agnes.example".to_owned()), ..SiteConfig::default() };
        assert!(named.is_own_host("Agnes.example") && named.is_own_host("agnes.example:8443"));
        assert!(!named.is_own_host("agnes.example.evil") && !named.is_own_host("x.agnes.example"));
        assert_eq!(named.origin(Some("evil"), false, true, "x"), "https://agnes.example");
        assert_eq!(named.origin(Some("agnes.example:81"), true, false, "x"), "https://agnes.example:81");
        for host in ["localhost:31337", "LOCALHOST", "127.0.0.2:1", "[::1]:9"] {
            assert_eq!(named.origin(Some(host), false, false, "x"), "https://agnes.example");
            assert_eq!(named.origin(Some(host), false, true, "x"), format!("http://{}", host.to_lowercase()));
        }
        assert_eq!(local.origin(Some("localhost:8000"), false, false, "x"), "http://localhost:8000");
        let url = SiteConfig { server_url: Some("https://a.example:444".to_owned()), ..SiteConfig::default() };
        assert!(url.is_own_host("a.example:444") && !url.is_own_host("a.example"));
        assert_eq!(url.origin(Some("localhost"), false, true, "x"), "https://a.example:444");
    }
}

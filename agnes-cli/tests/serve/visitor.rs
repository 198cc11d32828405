//! A browser without a window: keeps cookies, follows redirects, sends forms.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::process::Answer;

/// Redirects that are followed.
const REDIRECTS: usize = 20;

#[derive(Default)]
pub(crate) struct Browser {
    /// By host and port, then by name.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Addresses it was at, in order.
    pub(crate) seen: Vec<String>,
}

/// Where a visit ended.
pub(crate) struct Page {
    pub(crate) url: String,
    pub(crate) answer: Answer,
}

/// Host with port, and the rest, of an `http` address.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not an address: {url}"));
    let at = rest.find('/').unwrap_or(rest.len());
    (&rest[..at], if at == rest.len() { "/" } else { &rest[at..] })
}

impl Browser {
    /// One request, without following where it leads.
    fn send(&mut self, method: &str, url: &str, body: Option<&str>) -> Answer {
        self.seen.push(url.to_owned());
        let (host, path) = split(url);
        let cookies: Vec<String> =
            self.cookies.get(host).into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = if cookies.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
        let form = body.map_or_else(String::new, |body| {
            format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len())
        });
        let origin = if method == "GET" { String::new() } else { format!("Origin: http://{host}\r\n") };
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: text/html\r\n{cookies}{form}{origin}\r\n"
        );
        stream.write_all(format!("{head}{}", body.unwrap_or_default()).as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let answer = Answer::of(&bytes);
        let jar = self.cookies.entry(host.to_owned()).or_default();
        for line in answer.head.lines().filter(|line| line.to_lowercase().starts_with("set-cookie:")) {
            let pair = line.split_once(':').unwrap().1.split(';').next().unwrap();
            let (name, value) = pair.trim().split_once('=').unwrap();
            if value.is_empty() { drop(jar.remove(name)) } else { drop(jar.insert(name.to_owned(), value.to_owned())) }
        }
        answer
    }

    pub(crate) fn get(&mut self, url: &str) -> Answer {
        self.send("GET", url, None)
    }

    /// A `POST` without a body, as a script of a page sends it.
    pub(crate) fn post(&mut self, url: &str) -> Answer {
        self.send("POST", url, Some(""))
    }

    /// Goes to an address and wherever it leads.
    pub(crate) fn visit(&mut self, url: &str) -> Page {
        let answer = self.get(url);
        self.follow(url, answer)
    }

    /// Sends a form to an address, and goes wherever that leads.
    pub(crate) fn send_form(&mut self, url: &str, body: &str) -> Page {
        let answer = self.send("POST", url, Some(body));
        self.follow(url, answer)
    }

    fn follow(&mut self, url: &str, mut answer: Answer) -> Page {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let Some(to) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else { break };
            let next = if to.starts_with('/') { format!("http://{}{to}", split(&url).0) } else { to.to_owned() };
            // A server that is gone ends the visit.
            if TcpStream::connect(split(&next).0).is_err() {
                url = next;
                break;
            }
            url = next;
            answer = self.get(&url);
        }
        Page { url, answer }
    }
}

//! HTTP on plain sockets, for stand-ins of servers: requests as they came in, byte by byte.

use std::io::BufRead;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST` ...
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Everything before the body: the first line, the fields, an empty line.
    pub head: String,
    /// As long as `Content-Length` said.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request; `None` where the connection ends before it is whole.
    pub fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
            if &head[before..] == "\r\n" {
                break;
            }
        }
        let mut first = head.lines().next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let mut request = Self { method, target, head, body: Vec::new() };
        let length = request.header("Content-Length").map_or(Some(0), |text| text.parse().ok())?;
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    /// The value of a field, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The head without these fields and without the empty line at its end: to hand it on.
    #[must_use]
    pub fn head_without(&self, names: &[&str]) -> String {
        let is_named = |line: &str| {
            line.split_once(':').is_some_and(|(key, _)| names.iter().any(|name| key.eq_ignore_ascii_case(name)))
        };
        let kept = self.head.trim_end().split_inclusive("\r\n").filter(|line| !is_named(line));
        let mut head: String = kept.collect();
        if !head.ends_with("\r\n") {
            head.push_str("\r\n");
        }
        head
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_another() {
        let text = "POST /a?b=1 HTTP/1.1\r\nHost: x\r\ncontent-length:  3\r\nConnection: close\r\n\r\nabc\
                    GET / HTTP/1.1\r\nX: y\r\n\r\n";
        let mut reader = text.as_bytes();
        let first = Request::read(&mut reader).unwrap();
        assert_eq!((first.method.as_str(), first.target.as_str(), &first.body[..]), ("POST", "/a?b=1", &b"abc"[..]));
        assert_eq!((first.header("HOST"), first.header("b")), (Some("x"), None));
        assert_eq!(first.head_without(&["connection", "Content-Length"]), "POST /a?b=1 HTTP/1.1\r\nHost: x\r\n");
        let second = Request::read(&mut reader).unwrap();
        assert_eq!((second.target.as_str(), second.body.len()), ("/", 0));
        assert_eq!(second.head_without(&["x"]), "GET / HTTP/1.1\r\n");
        assert!(Request::read(&mut reader).is_none());
        for broken in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabc", "\r\n"] {
            assert!(Request::read(&mut broken.as_bytes()).is_none(), "{broken:?}");
        }
        assert!(Request::read(&mut &b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"[..]).is_none());
    }
}

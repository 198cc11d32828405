//! What a server is asked.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

/// How long an answer may take, unless the call says otherwise.
const USUAL: Duration = Duration::from_secs(30);

/// One call of a server.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<(String, Vec<u8>)>,
    pub(super) timeout: Option<Duration>,
    pub(super) is_file: bool,
    pub(super) is_public: bool,
}

impl Call {
    /// A call of the path that these segments make; each is encoded by itself.
    #[must_use]
    pub fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            timeout: Some(USUAL),
            is_file: false,
            is_public: false,
        }
    }

    /// Reads.
    #[must_use]
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// Does something.
    #[must_use]
    pub fn post(path: &[&str], body: Value) -> Self {
        Self::new(Method::POST, path).json(&body)
    }

    /// With JSON.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(("application/json".to_owned(), body.to_string().into_bytes()));
        self
    }

    /// With one file in a form.
    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        let cut = format!("agnes-{:016x}{:016x}", fold(content), content.len());
        let name = name.replace(['"', '\r', '\n'], "_");
        let head = format!(
            "--{cut}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), content, format!("\r\n--{cut}--\r\n").as_bytes()].concat();
        self.body = Some((format!("multipart/form-data; boundary={cut}"), body));
        self
    }

    /// With a parameter.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a parameter, where there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.param(name, value),
            None => self,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Within this time, beginning to end.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Within no time: it only may not be silent for long.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// For a file: it may take any time, but not be silent for long.
    #[must_use]
    pub fn of_file(mut self) -> Self {
        self.is_file = true;
        self.unlimited()
    }

    /// Without a token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.is_public = true;
        self
    }
}

/// A number that two contents hardly share: no content may hold the cut of its own form.
fn fold(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Headers of a request for a range of a file, as long as it has this tag.
pub(super) fn range_headers(call: Call, range: &std::ops::Range<u64>, md5: &str) -> Call {
    let call = call.header("range", format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
    if md5.is_empty() { call } else { call.header("if-range", format!("\"{md5}\"")) }
}

/// Header of a request for what has another tag.
pub(super) fn unless(call: Call, tag: &str) -> Call {
    call.header("if-none-match", format!("\"{tag}\""))
}

//! A server process of its own data folder, and a client that shows every byte.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The built command.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_agnes");

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    /// What it said before it served.
    pub(crate) said: String,
    /// What it said since then.
    pub(crate) log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// What no log may hold.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says that no server of this test run may log this. Most log at trace level, and what all of them
/// logged is searched when they end.
pub(crate) fn is_secret(text: &str) {
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    if !secrets.iter().any(|known| known == text) {
        secrets.push(text.to_owned());
    }
}

impl Server {
    /// Starts in an empty folder, without any configuration.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start_in(folder: tempfile::TempDir) -> Self {
        Self::start_with(folder, &[], &[])
    }

    /// Starts with further arguments and variables.
    pub(crate) fn start_with(folder: tempfile::TempDir, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(BINARY)
            // A relative folder, as the one that is taken where none is named.
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir", "."])
            .args(more)
            .current_dir(folder.path())
            .env("AGNES_LOG", "trace")
            // Nothing is due while a test looks, unless it says so.
            .env("SCHEDULER_STARTUP_GRACE_SECONDS", "3600")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the server ended: {seen}");
            seen += &line;
            if let Some((_, address)) = line.trim().split_once("Serving on http://") {
                break address.parse().unwrap();
            }
        };
        // Somebody has to read what it logs.
        let log = Arc::<Mutex<String>>::default();
        let reader = std::thread::spawn({
            let log = log.clone();
            move || {
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&std::mem::take(&mut line));
                }
            }
        });
        let server = Self { child, address, folder, said: seen, log, reader: Some(reader) };
        let patience = Instant::now() + Duration::from_secs(60);
        while server.get("/readyz").status != 200 {
            assert!(Instant::now() < patience, "the server never got ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// What it logged since it serves, so far.
    pub(crate) fn logs(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After its end: no line of its logs has a secret.
    fn check_logs(&mut self) {
        // Workers have the same output and end with it.
        self.reader.take().map(std::thread::JoinHandle::join);
        let logs = self.logs();
        for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let line = logs.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "a secret is in a log: {}", line.unwrap_or_default());
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n"))
    }

    /// Sends these bytes, reads until the server closes.
    pub(crate) fn send(&self, text: &str) -> Answer {
        self.send_bytes(text.as_bytes())
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> Answer {
        self.try_send(bytes).unwrap()
    }

    /// [`send`](Self::send) to a server that may be gone; then nothing, or what arrived.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = stream.write_all(bytes);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let answer = Answer::of(&bytes);
        answer.secrets().iter().for_each(|secret| is_secret(secret));
        Some(answer)
    }

    /// The cookie that forms need, as a browser gets it from a page.
    pub(crate) fn form_token(&self) -> String {
        let page = self.get("/login");
        let cookie = page.header("set-cookie").and_then(|cookie| cookie.strip_prefix("csrf=")).unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Sends a form, as a page of the server would, with further lines of a head.
    pub(crate) fn form(&self, path: &str, fields: &str, headers: &str) -> Answer {
        let token = self.form_token();
        self.raw_form(path, &format!("csrf_token={token}&{fields}"), &format!("Cookie: csrf={token}\r\n{headers}"))
    }

    /// Sends these fields and lines of a head.
    pub(crate) fn raw_form(&self, path: &str, fields: &str, headers: &str) -> Answer {
        let host = if headers.contains("Host:") { "" } else { "Host: t\r\n" };
        self.send(&format!(
            "POST {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{fields}",
            fields.len()
        ))
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and gives its folder.
    pub(crate) fn ended(mut self) -> (ExitStatus, tempfile::TempDir) {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.check_logs();
                let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
                return (status, folder);
            }
            assert!(Instant::now() < patience, "the server did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.check_logs();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Fields after a body in chunks, names in lower case.
    pub(crate) trailers: BTreeMap<String, String>,
    /// Whether the body is as long as the head said, or its last chunk came.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = bytes.get(end + 4..).unwrap_or_default().to_vec();
        let mut answer = Self { status, head, body, trailers: BTreeMap::new(), is_whole: true };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.unpack();
        } else if let Some(length) = answer.header("content-length") {
            answer.is_whole = length.parse() == Ok(answer.body.len());
        }
        answer
    }

    /// Puts chunks together.
    fn unpack(&mut self) {
        let (packed, mut at) = (std::mem::take(&mut self.body), 0);
        self.is_whole = false;
        let line = |at: usize| {
            let length = packed.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
            Some((String::from_utf8_lossy(&packed[at..at + length]).into_owned(), at + length + 2))
        };
        while let Some((size, start)) = line(at) {
            let Ok(size) = usize::from_str_radix(&size, 16) else { return };
            if size == 0 {
                self.is_whole = true;
                at = start;
                while let Some((field, next)) = line(at).filter(|(field, _)| !field.is_empty()) {
                    let (name, value) = field.split_once(':').unwrap();
                    self.trailers.insert(name.to_lowercase(), value.trim().to_owned());
                    at = next;
                }
                return;
            }
            let Some(chunk) = packed.get(start..start + size) else { return };
            self.body.extend_from_slice(chunk);
            at = start + size + 2;
        }
    }

    /// What it gives away to whoever asked, and to nobody else.
    fn secrets(&self) -> Vec<String> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let named = ["access_token", "token"].iter().filter_map(|name| body.get(*name)?.as_str());
        let cookies = self.head.lines().filter_map(|line| line.split_once("access_token=")?.1.split(';').next());
        named.chain(cookies).filter(|text| text.len() >= 16).map(ToOwned::to_owned).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {} {}", self.head, self.text()))
    }
}

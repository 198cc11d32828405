//! A proxy between a laptop and its server that does to files what networks and disks do.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is done to answers of downloads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Crooked {
    Not,
    /// Ends the connection after so many bytes of a body, as often as said.
    Cut {
        after: usize,
        times: usize,
    },
    /// Says that it is shorter, and sends no more.
    Short {
        by: usize,
    },
    /// Changes a byte of each body, as often as said.
    Flip {
        times: usize,
    },
    /// Answers 429, as often as said.
    Throttle {
        times: usize,
    },
    /// Answers 500, as often as said.
    Fail {
        times: usize,
    },
    /// Sends slowly: so many bytes, then a pause.
    Slow {
        bytes: usize,
        pause: Duration,
    },
    /// Hides that there are ranges: all of the file for every request.
    NoRanges,
    /// Answers 404 to downloads of this table.
    Gone(&'static str),
    /// Answers 404 to downloads of this document.
    Missing(&'static str),
    /// Answers that the manifest has not changed.
    Unchanged,
    /// Sends this instead of the manifest.
    Manifest(Vec<u8>),
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    how: Arc<Mutex<Crooked>>,
    /// Bytes of bodies of files that went through.
    pub(crate) moved: Arc<AtomicUsize>,
    /// Requests for files.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (how, moved, asked) = (Arc::new(Mutex::new(Crooked::Not)), Arc::default(), Arc::default());
        let server = Arc::new(Mutex::new(server));
        let proxy = Self { address: listener.local_addr().unwrap(), server, how, moved, asked };
        let (how, moved, asked) = (proxy.how.clone(), proxy.moved.clone(), proxy.asked.clone());
        let server = proxy.server.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (how, moved, asked) = (how.clone(), moved.clone(), asked.clone());
                let server = *server.lock().unwrap_or_else(PoisonError::into_inner);
                std::thread::spawn(move || pass(client, server, &how, &moved, &asked));
            }
        });
        proxy
    }

    /// From now on before another server.
    pub(crate) fn turn_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    pub(crate) fn set(&self, how: Crooked) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = how;
    }

    pub(crate) fn moved(&self) -> usize {
        self.moved.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Takes one off the count of how often something is done; whether it is done now.
fn now(times: &mut usize) -> bool {
    let is_now = *times > 0;
    *times = times.saturating_sub(1);
    is_now
}

/// Reads a head, byte by byte: none is read too many.
fn head(from: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn length(head: &str) -> usize {
    let field =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    field.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// One request of one connection, answered with a connection that ends.
fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    how: &Mutex<Crooked>,
    moved: &AtomicUsize,
    asked: &AtomicUsize,
) -> Option<()> {
    let request = head(&mut client)?;
    let mut body = vec![0; length(&request)];
    client.read_exact(&mut body).ok()?;
    let is_file = request.contains("/download") || request.contains("/cli/artifact/");
    let is_manifest = request.contains("/api/sync/manifest");
    if is_file {
        asked.fetch_add(1, Ordering::SeqCst);
    }
    let mut crooked = {
        let mut how = how.lock().unwrap_or_else(PoisonError::into_inner);
        let now_so = match &mut *how {
            Crooked::Cut { times, .. }
            | Crooked::Flip { times }
            | Crooked::Throttle { times }
            | Crooked::Fail { times } => is_file && now(times),
            Crooked::Manifest(_) | Crooked::Unchanged => is_manifest,
            Crooked::Gone(table) => request.contains(&format!("/api/data/{table}/download")),
            Crooked::Missing(path) => request.contains(&format!("/download?path={path}")),
            _ => is_file,
        };
        if now_so { how.clone() } else { Crooked::Not }
    };
    let plain = |status: &str, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    match &crooked {
        Crooked::Throttle { .. } => {
            client.write_all(&plain("429 Too Many Requests", "Retry-After: 1\r\n", b"{}")).ok()?;
            return Some(());
        }
        Crooked::Fail { .. } => {
            client.write_all(&plain("500 Internal Server Error", "", b"{}")).ok()?;
            return Some(());
        }
        Crooked::Gone(_) | Crooked::Missing(_) => {
            client.write_all(&plain("404 Not Found", "", b"{}")).ok()?;
            return Some(());
        }
        Crooked::Unchanged => {
            client.write_all(&plain("304 Not Modified", "", b"")).ok()?;
            return Some(());
        }
        Crooked::Manifest(instead) => {
            client.write_all(&plain("200 OK", "Content-Type: application/json\r\n", instead)).ok()?;
            return Some(());
        }
        _ => {}
    }
    let mut upstream = TcpStream::connect(server).ok()?;
    let mut sent = String::new();
    for line in request.trim_end().lines() {
        let lower = line.to_ascii_lowercase();
        let hides = crooked == Crooked::NoRanges && (lower.starts_with("range:") || lower.starts_with("if-range:"));
        if !hides && !lower.starts_with("connection:") {
            sent += line;
            sent += "\r\n";
        }
    }
    upstream.write_all(format!("{sent}Connection: close\r\n\r\n").as_bytes()).ok()?;
    upstream.write_all(&body).ok()?;
    let answer = head(&mut upstream)?;
    let total = length(&answer);
    let is_ok = answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 206");
    if !is_ok {
        crooked = Crooked::Not;
    }
    let mut answer = answer.replace("connection: keep-alive", "connection: close");
    if let Crooked::Short { by } = crooked {
        answer = answer
            .replace(&format!("content-length: {total}"), &format!("content-length: {}", total.saturating_sub(by)));
    }
    client.write_all(answer.as_bytes()).ok()?;
    let (mut passed, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        let size = if let Crooked::Slow { bytes, .. } = crooked { bytes.min(piece.len()) } else { piece.len() };
        let read = upstream.read(&mut piece[..size]).ok()?;
        if read == 0 {
            return Some(());
        }
        let bytes = &mut piece[..read];
        let mut end = read;
        match &crooked {
            Crooked::Cut { after, .. } if passed + read > *after => end = after.saturating_sub(passed),
            Crooked::Short { by } if passed + read > total.saturating_sub(*by) => {
                end = total.saturating_sub(*by).saturating_sub(passed);
            }
            Crooked::Flip { .. } if passed == 0 => bytes[read / 2] ^= 1,
            Crooked::Slow { pause, .. } => std::thread::sleep(*pause),
            _ => {}
        }
        client.write_all(&bytes[..end]).ok()?;
        if is_file {
            moved.fetch_add(end, Ordering::SeqCst);
        }
        passed += read;
        if end < read {
            return Some(());
        }
    }
}

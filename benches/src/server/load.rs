//! A client that costs little, and two ways to use many of it: as fast as they can, and at a
//! fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Fallible;

/// A request that can be sent again and again.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) accept: Option<&'static str>,
    /// The tag of what is held already.
    pub(super) held: Option<String>,
    /// JSON; then it is a `POST`.
    pub(super) body: Option<Bytes>,
}

impl Asked {
    pub(super) fn get(path: &str, token: &str) -> Self {
        Self { path: path.to_owned(), token: Some(token.to_owned()), ..Self::default() }
    }

    pub(super) fn post(path: &str, token: Option<&str>, body: &serde_json::Value) -> Self {
        let (token, body) = (token.map(ToOwned::to_owned), Some(body.to_string().into()));
        Self { path: path.to_owned(), token, body, ..Self::default() }
    }

    fn request(&self) -> Fallible<Request<Full<Bytes>>> {
        let method = if self.body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(&self.path).header(HOST, "localhost");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(accept) = self.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(held) = &self.held {
            request = request.header(IF_NONE_MATCH, held);
        }
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::new(self.body.clone().unwrap_or_default()))?)
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) tag: Option<String>,
    /// Bytes of the body, which is thrown away.
    pub(super) bytes: u64,
    /// Time until the last of them.
    pub(super) took: Duration,
}

/// One connection that is kept.
pub(super) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub(super) async fn connect(to: SocketAddr) -> Fallible<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(super) async fn ask(&mut self, asked: &Asked) -> Fallible<Reply> {
        let request = asked.request()?;
        let started = Instant::now();
        self.0.ready().await?;
        let mut response = self.0.send_request(request).await?;
        let status = response.status().as_u16();
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned);
        let mut bytes = 0;
        while let Some(frame) = response.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(Reply { status, tag, bytes, took: started.elapsed() })
    }

    /// [`ask`](Self::ask) of what must be answered so.
    pub(super) async fn expect(&mut self, asked: &Asked, status: u16) -> Fallible<Reply> {
        let reply = self.ask(asked).await?;
        if reply.status != status {
            return Err(format!("{} answered {} instead of {status}", asked.path, reply.status).into());
        }
        Ok(reply)
    }
}

/// What many requests took, shortest first, and how many failed.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    sorted: Vec<Duration>,
    pub(super) failed: usize,
}

impl Latencies {
    fn of(mut times: Vec<Duration>, failed: usize) -> Self {
        times.sort_unstable();
        Self { sorted: times, failed }
    }

    /// The time that this share of the requests did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or(Duration::MAX)
    }

    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }
}

/// Sends `rate` requests a second for some time over some connections. A latency counts from
/// when its request was due, not from when a connection had time for it: a server that stops
/// for a while does not hide the requests that could not be sent meanwhile.
pub(super) async fn at_rate(
    to: SocketAddr,
    connections: usize,
    rate: u32,
    time: Duration,
    asked: &Asked,
) -> Fallible<Latencies> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(to).await?);
    }
    let (due, waiting) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let workers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (waiting, asked) = (waiting.clone(), asked.clone());
            tokio::spawn(async move {
                let (mut times, mut failed) = (Vec::new(), 0);
                loop {
                    let due = waiting.lock().await.recv().await;
                    let Some(due) = due else { return (times, failed) };
                    match client.ask(&asked).await {
                        Ok(reply) if reply.status == 200 => times.push(due.elapsed()),
                        _ => failed += 1,
                    }
                }
            })
        })
        .collect();
    // A thread of its own: the timers of the runtime count in milliseconds.
    let pace = std::thread::spawn(move || {
        let (start, each) = (Instant::now(), Duration::from_secs(1) / rate);
        for number in 0..(time.as_secs_f64() * f64::from(rate)) as u32 {
            let at = start + each * number;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send(at).is_err() {
                return;
            }
        }
    });
    let (mut times, mut failed) = (Vec::new(), 0);
    for worker in workers {
        let (some, not) = worker.await?;
        times.extend(some);
        failed += not;
    }
    pace.join().map_err(|_| "the pace was lost")?;
    Ok(Latencies::of(times, failed))
}

/// Each of these asks again as soon as it has its answer, until the time is over.
pub(super) async fn flat_out(to: SocketAddr, asked: Vec<Asked>, time: Duration) -> Fallible<Latencies> {
    let end = Instant::now() + time;
    let mut workers = Vec::new();
    for asked in asked {
        let mut client = Client::connect(to).await?;
        workers.push(tokio::spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while Instant::now() < end {
                match client.ask(&asked).await {
                    Ok(reply) if reply.status == 200 => times.push(reply.took),
                    _ => failed += 1,
                }
            }
            (times, failed)
        }));
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    for worker in workers {
        let (some, not) = worker.await?;
        times.extend(some);
        failed += not;
    }
    Ok(Latencies::of(times, failed))
}

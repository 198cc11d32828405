//! A server that answers what a test says, and names that mean what a test says.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agnes_connectors::outbound::{Names, Outbound, Rules};
use agnes_core::testing::Request;
use async_trait::async_trait;

/// One answer: the raw text, and how long it waits before it says that.
type Script = Box<dyn Fn(usize, &str) -> (Duration, String) + Send>;

/// A server on a port of this machine.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Requests as they came, heads and bodies.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Answers the n-th request by `script`.
    pub(crate) fn new(script: impl Fn(usize, &str) -> (Duration, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (script, log): (Script, _) = (Box::new(script), seen.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let request = Request::read(&mut BufReader::new(&stream));
                let text = |request: Request| request.head + &String::from_utf8_lossy(&request.body);
                let request = request.map(text).unwrap_or_default();
                log.lock().unwrap().push(request.clone());
                let (wait, answer) = script(number, &request);
                std::thread::sleep(wait);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, seen }
    }

    /// Answers every request with `answer`.
    pub(crate) fn saying(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::new(move |_, _| (Duration::ZERO, answer.clone()))
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// An address of it under the name `host`.
    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }
}

/// An answer with this status and body.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Names that resolve to one list after another; the last one stays.
#[derive(Clone, Default)]
pub(crate) struct Table(Arc<Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>>);

impl Table {
    pub(crate) fn with(self, name: &str, answers: &[&[&str]]) -> Self {
        let parse = |list: &&[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), answers.iter().map(parse).collect());
        self
    }
}

#[async_trait]
impl Names for Table {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        let mut table = self.0.lock().unwrap();
        let answers = table.get_mut(name).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// A client that may call `good.example`, which is this machine; other names are in `table`.
pub(crate) fn client(table: Table) -> Outbound {
    let table = table.with("good.example", &[&["127.0.0.1"]]).with("other.example", &[&["127.0.0.1"]]);
    Outbound::new(Rules::default().allowing(["Good.Example.", "other.example"]).with_names(table))
}

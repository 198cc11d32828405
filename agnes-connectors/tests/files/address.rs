//! A file behind an HTTP address, for whoever has its token.

use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex};

use agnes_core::connector::Connector;
use agnes_core::orchestrator::AttachPolicy;
use agnes_core::testing::connector_suite::{ConnectorFixture, ConnectorRun};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const TOKEN: &str = "token-of-the-file";

/// What is served, and how often it was.
struct File {
    body: String,
    tag: u32,
    sent: usize,
    /// Told when the file is asked for the next time, which breaks off in the middle and never ends.
    held: Option<oneshot::Sender<()>>,
}

/// A server of one file; it ends with the process.
struct Address {
    host: String,
    file: Arc<Mutex<File>>,
}

impl Address {
    fn start() -> Self {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = server.local_addr().unwrap().to_string();
        let file = Arc::new(Mutex::new(File { body: "id,name\n1,a\n2,b\n".to_owned(), tag: 1, sent: 0, held: None }));
        let served = file.clone();
        std::thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut line, mut headers) = (String::new(), String::new(), Vec::new());
                drop(reader.read_line(&mut first));
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    headers.push(line.trim().to_lowercase());
                    line.clear();
                }
                let mut file = served.lock().unwrap();
                let tag = format!("\"e{}\"", file.tag);
                let has = |header: String| headers.contains(&header);
                let other =
                    headers.iter().any(|line| line.starts_with("if-match:")) && !has(format!("if-match: {tag}"));
                let status = match (has(format!("authorization: bearer {TOKEN}")), other) {
                    (false, _) => "401 Unauthorized",
                    (true, true) => "412 Precondition Failed",
                    (true, false) => "200 OK",
                };
                let whole = if status == "200 OK" { file.body.clone() } else { String::new() };
                let head = format!(
                    "HTTP/1.1 {status}\r\nETag: {tag}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n",
                    whole.len()
                );
                let body = if first.starts_with("GET") { whole } else { String::new() };
                file.sent += usize::from(!body.is_empty());
                if !body.is_empty()
                    && let Some(held) = file.held.take()
                {
                    stream.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).unwrap();
                    held.send(()).unwrap();
                    drop(file);
                    loop {
                        std::thread::park();
                    }
                }
                drop(stream.write_all(format!("{head}{body}").as_bytes()));
            }
        });
        Self { host, file }
    }

    /// Puts another file there.
    fn put(&self, body: &str) {
        let mut file = self.file.lock().unwrap();
        file.body = body.to_owned();
        file.tag += 1;
    }

    fn sent(&self) -> usize {
        self.file.lock().unwrap().sent
    }
}

impl ConnectorFixture for Address {
    fn connector(&self) -> Arc<dyn Connector> {
        files()
    }
    fn config(&self) -> Value {
        json!({"path": format!("http://{}/data/sales.csv", self.host), "storage": {"token_env": "FILE_TOKEN"}})
    }
    fn rows(&self) -> u64 {
        2
    }
    fn grow(&self) -> u64 {
        self.put("id,name\n1,a\n2,b\n3,c\n");
        3
    }
    fn empty(&self) {
        self.put("id,name\n");
    }
    fn columns(&self) -> Vec<(String, String)> {
        [("id", "BIGINT"), ("name", "VARCHAR")].map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.put("id,name,colour\n1,a,red\n2,b,blue\n");
        Some("colour".to_owned())
    }
    fn hold(&self) -> Option<oneshot::Receiver<()>> {
        let (tell, told) = oneshot::channel();
        self.file.lock().unwrap().held = Some(tell);
        Some(told)
    }
    fn secrets(&self) -> Vec<(String, String)> {
        vec![("FILE_TOKEN".to_owned(), TOKEN.to_owned())]
    }
    fn attach(&self) -> AttachPolicy {
        AttachPolicy { hosts: vec![self.host.clone()], ..AttachPolicy::default() }
    }
}

fn files() -> Arc<dyn Connector> {
    agnes_connectors::builtin().get("files").unwrap()
}

agnes_core::connector_suite!(behind_an_address, Some(super::Address::start()), super::files());

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_again_when_its_tag_is_another() {
    let address = Address::start();
    let run = ConnectorRun::new(&address).unwrap();
    let mut request = run.request().await.unwrap();
    assert_eq!(request.name.as_str(), "sales");
    request.cursor = run.run(&request).await.unwrap().cursor;
    assert_eq!(run.count(&request.name).unwrap(), 2);
    let sent = address.sent();
    assert!(run.run(&request).await.unwrap().unchanged);
    assert_eq!(address.sent(), sent, "what is unchanged is not fetched");
    // As long as before, and as old: only the tag tells.
    address.put("id,name\n3,c\n4,d\n");
    let report = run.run(&request).await.unwrap();
    assert!(!report.unchanged && address.sent() > sent);
    request.cursor = report.cursor;
    assert!(run.run(&request).await.unwrap().unchanged);
    address.grow();
    request.cursor = run.run(&request).await.unwrap().cursor;
    assert_eq!(run.count(&request.name).unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_for_whoever_has_its_token() {
    let address = Address::start();
    let wrong = vec![("FILE_TOKEN".to_owned(), "another".to_owned())];
    let error = ConnectorRun::with_secrets(&address, wrong).unwrap().discover().await.unwrap_err();
    assert_eq!(error.code(), "storage_refused", "{error}");
}

//! What operators see: logs, traces, and the API's description in a browser.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;

use super::process::{BINARY, Server};
use super::world::{PASSWORD, World};

/// A collector: takes traces over HTTP as OTLP says, and hands on their spans.
fn collector() -> (String, mpsc::Receiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (sender, spans)) = (listener.local_addr().unwrap(), mpsc::channel());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
                        match name.to_ascii_lowercase().as_str() {
                            "content-length" => length = value.parse().unwrap(),
                            "content-type" => assert_eq!(value, "application/x-protobuf"),
                            _ => {}
                        }
                    }
                    assert!(head.starts_with("POST /v1/traces "), "{head}");
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                    for span in scopes.flat_map(|scope| scope.spans) {
                        let _ = sender.send(span);
                    }
                    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    (format!("http://{address}"), spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn requests_are_traced_where_a_collector_is_named() {
    let (endpoint, spans) = collector();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let world = World::start_with(&[], &variables);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let fields = format!("{}traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n", world.authorization("member"));
    assert_eq!(world.server.get_with("/api/data/orders/check-access", &fields).status, 204);
    let patience = Instant::now() + Duration::from_secs(30);
    let span = loop {
        let span = spans.recv_timeout(patience.saturating_duration_since(Instant::now())).expect("no span came");
        if hex(&span.trace_id) == trace && span.name.starts_with("GET ") {
            break span;
        }
    };
    assert_eq!(span.name, "GET /api/data/{table_id}/check-access");
    assert_eq!((hex(&span.parent_span_id).as_str(), span.kind), ("00f067aa0ba902b7", 2));
    assert!(span.attributes.iter().any(|attribute| attribute.key == "request_id"));
    // What is left is sent when it ends.
    assert_eq!(world.server.get("/api/version").status, 200);
    world.server.signal("TERM");
    assert!(world.server.ended().0.success());
    assert!(spans.try_iter().any(|span| span.name == "GET /api/version"));
}

#[test]
fn a_collector_that_is_gone_holds_up_nothing() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let server = Server::start_with(tempfile::tempdir().unwrap(), &[], &variables);
    assert_eq!(server.get("/api/version").status, 200);
    server.signal("TERM");
    assert!(server.ended().0.success());
}

#[test]
fn logs_are_lines_of_json_with_the_request_and_without_secrets() {
    let world = World::start();
    let fields = format!("{}X-Request-Id: seen-in-logs\r\n", world.authorization("member"));
    assert_eq!(world.server.get_with("/api/nothing%0Ahere?token=x", &fields).status, 404);
    // Secrets in every place that takes one.
    let credentials = serde_json::json!({"email": "member@example.com", "password": PASSWORD});
    let session = world.send("nobody", "POST", "/auth/token", &credentials).json();
    let session = session["access_token"].as_str().unwrap();
    let cookie = format!("Cookie: access_token={session}; other={session}\r\n");
    assert_eq!(world.server.get_with("/auth/me", &cookie).status, 200);
    let broken = format!("Authorization: Bearer {session}x\r\n");
    assert_eq!(world.server.get_with("/auth/me", &broken).status, 401);
    let change = serde_json::json!({"current_password": "x", "new_password": PASSWORD});
    assert_eq!(world.try_send_as(session, "POST", "/auth/password/change", &change).map(|a| a.status), Some(401));
    let patience = Instant::now() + Duration::from_secs(20);
    let line = loop {
        let logs = world.server.logs();
        let own = logs.lines().find(|line| line.contains("seen-in-logs") && line.contains("answered"));
        if let Some(line) = own {
            break serde_json::from_str::<Value>(line).unwrap();
        }
        assert!(Instant::now() < patience, "the request is not in the log");
        std::thread::sleep(Duration::from_millis(50));
    };
    for (name, value) in [("lvl", "info"), ("service", "agnes"), ("msg", "answered"), ("request_id", "seen-in-logs")] {
        assert_eq!(line[name], value, "{line}");
    }
    assert!(line["ts"].is_string() && line["logger"] == "agnes_http::frame" && line["status"] == 404, "{line}");
    // Ending it searches all of it for every secret of this test run.
    world.server.signal("TERM");
    assert!(world.server.ended().0.success());
}

#[test]
fn the_documentation_needs_nothing_from_elsewhere() {
    let world = World::start();
    assert!([302, 401].contains(&world.get("nobody", "/docs").status));
    let page = world.get("stranger", "/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http") && !policy.contains("unsafe-eval"),
        "{policy}"
    );
    let text = page.text();
    let nonce = policy.split_once("'nonce-").unwrap().1.split('\'').next().unwrap();
    assert_eq!(text.matches("<script").count(), text.matches(&format!("<script nonce=\"{nonce}\"")).count());
    assert!(!text.contains("://"), "{text}");
    let mut files = 0;
    for piece in text.split(['"']).filter(|piece| piece.starts_with("docs/")) {
        let file = world.get("stranger", &format!("/{piece}"));
        assert!(file.status == 200 && !file.body.is_empty(), "{piece}: {}", file.status);
        files += 1;
    }
    assert_eq!(files, 5);
    assert_ne!(
        page.header("content-security-policy"),
        world.get("stranger", "/docs").header("content-security-policy")
    );
    assert_eq!(world.get("stranger", "/docs/../openapi.json").status, 404);
    assert_eq!(world.get("stranger", "/docs/nothing.js").status, 404);
}

#[test]
fn pages_of_named_origins_may_call_it() {
    let variables = [("CORS_ORIGINS", "https://app.example.com, http://localhost:3000")];
    let server = Server::start_with(tempfile::tempdir().unwrap(), &[], &variables);
    let ask = |origin: &str| {
        server.send(&format!(
            "OPTIONS /api/query HTTP/1.1\r\nHost: t\r\nConnection: close\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n"
        ))
    };
    let allowed = ask("https://app.example.com");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    let taken = allowed.header("access-control-allow-headers").unwrap().to_lowercase();
    for name in ["authorization", "content-type", "x-request-id", "x-agnes-see-as", "x-bootstrap-token"] {
        assert!(taken.split(',').any(|one| one.trim() == name), "{name}: {taken}");
    }
    for other in ["https://evil.example", "null", "https://app.example.com.evil.example"] {
        assert_eq!(ask(other).header("access-control-allow-origin"), None, "{other}");
    }
    let answer = server.get_with("/api/health", "Origin: http://localhost:3000\r\n");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("http://localhost:3000")));
    assert!(answer.header("access-control-expose-headers").is_some_and(|names| names.contains("x-request-id")));
    assert_eq!(server.get("/api/health").header("access-control-allow-origin"), None);
    // Failures too: a page has to see why.
    let missing = server.get_with("/api/nothing", "Origin: http://localhost:3000\r\n");
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some("http://localhost:3000")));
}

#[test]
fn everybody_is_no_origin() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in ["*", "https://a.example,*", "a.example"] {
        let output = Command::new(BINARY)
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .current_dir(folder.path())
            .env("CORS_ORIGINS", wrong)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("CORS_ORIGINS"));
    }
}

#[test]
fn answers_are_packed_where_it_helps() {
    let world = World::start();
    let packed = |path: &str, with: &str| {
        let fields = format!("{}Accept-Encoding: {with}\r\n", world.authorization("member"));
        let answer = world.server.get_with(path, &fields);
        assert_eq!(answer.status, 200, "{path}");
        answer.header("content-encoding").map(ToOwned::to_owned)
    };
    assert_eq!(packed("/openapi.json", "gzip").as_deref(), Some("gzip"));
    assert_eq!(packed("/openapi.json", "zstd, gzip;q=0.5").as_deref(), Some("zstd"));
    assert_eq!(packed("/openapi.json", "identity"), None);
    assert_eq!(packed("/api/version", "gzip"), None, "too short");
    assert_eq!(packed("/api/data/orders/download", "gzip, zstd"), None, "packed already, and its length counts");
    let sql =
        serde_json::json!({"sql": "select i, 'some text of row ' || i as t from range(300000) r(i)", "limit": 300000});
    let streamed = world.send_with("member", "POST", "/api/query", &sql, "Accept-Encoding: gzip\r\n");
    assert_eq!(streamed.header("content-encoding"), None, "a stream");
    let small = serde_json::json!({"sql": "select i, 'some text of row ' || i as t from range(500) r(i)"});
    let whole = world.send_with("member", "POST", "/api/query", &small, "Accept-Encoding: gzip\r\n");
    assert_eq!(whole.header("content-encoding"), Some("gzip"));
}

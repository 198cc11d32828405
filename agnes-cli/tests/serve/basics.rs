//! Start, health, the shape of failures, and the end.

use std::process::Command;

use super::process::{BINARY, Server};

#[test]
fn a_first_start_needs_no_configuration() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").status, 200);
    let health = server.get("/api/health");
    assert_eq!((health.status, health.json()), (200, serde_json::json!({"status": "ok", "db_schema": "ok"})));
    let version = server.get("/api/version");
    assert_eq!(version.json()["version"], env!("CARGO_PKG_VERSION"));
    assert!(version.header("x-agnes-min-version").is_some());
    assert_eq!(server.get("/api/sync/status").json(), serde_json::json!({"locked": false}));
    let figures = server.get("/metrics").text();
    assert!(figures.contains("agnes_http_requests_total") && figures.ends_with("# EOF\n"), "{figures}");
    let proxied = server.get_with("/metrics", "X-Forwarded-For: 1.2.3.4\r\n");
    assert_eq!((proxied.status, proxied.json()["code"].as_str()), (401, Some("auth_required")));
}

#[test]
fn failures_have_one_shape() {
    let server = Server::start();
    let nothing = server.get_with("/api/nothing", "X-Request-Id: mine-1\r\n");
    assert_eq!(nothing.status, 404);
    assert_eq!(nothing.header("content-type"), Some("application/problem+json"));
    assert_eq!(nothing.header("x-request-id"), Some("mine-1"));
    let body = nothing.json();
    for (field, expected) in [("code", "not_found"), ("request_id", "mine-1"), ("title", "Not Found")] {
        assert_eq!(body[field], expected);
    }
    assert!(body["detail"].is_string() && body["type"].is_string());
    let method = server.send("DELETE /api/health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_eq!((method.status, method.json()["code"].as_str()), (405, Some("method_not_allowed")));
    assert!(method.header("allow").is_some_and(|allow| allow.contains("GET")), "{}", method.head);
    // A page for those who name it, outside of the addresses that programs use.
    let page = server.get_with("/nothing", "Accept: text/html,*/*\r\n");
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{}", page.head);
    assert!(page.header("content-security-policy").is_some());
    let program = server.get_with("/api/nothing", "Accept: text/html\r\n");
    assert_eq!(program.header("content-type"), Some("application/problem+json"));
    for answer in [&nothing, &page, &server.get("/api/health")] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("server"), None);
    }
}

#[test]
fn bad_requests_end_in_an_answer() {
    let server = Server::start();
    let huge = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    assert!([400, 431, 0].contains(&server.send(&huge).status));
    assert_eq!(server.send("nonsense\r\n\r\n").status, 400);
    assert_eq!(server.get("/api/health").status, 200);
}

#[test]
fn a_signal_ends_it_in_good_order() {
    let server = Server::start();
    server.signal("TERM");
    let (status, folder) = server.ended();
    assert!(status.success(), "{status}");
    // What was served is there for the next one.
    let again = Server::start_in(folder);
    assert_eq!(again.get("/api/health").status, 200);
}

#[test]
fn a_killed_one_starts_again() {
    let server = Server::start();
    server.signal("KILL");
    let (_, folder) = server.ended();
    assert_eq!(Server::start_in(folder).get("/api/health").status, 200);
}

#[test]
fn other_commands_work_beside_it() {
    let server = Server::start();
    let told = Command::new(BINARY)
        .args(["catalog", "--json", "--data-dir"])
        .arg(server.folder.path())
        .current_dir(server.folder.path())
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

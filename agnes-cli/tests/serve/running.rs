//! Queries that run while a test looks at the server.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::world::World;

/// A query that never ends, and has no row before.
pub(crate) const ENDLESS: &str = "select count(*) from range(10000000000000) a(i) where i % 7 = 3";

/// Sends a query and does not read the answer.
pub(crate) fn leave_running(world: &World, who: &str, accept: &str, sql: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.server.address).unwrap();
    let body = json!({ "sql": sql }).to_string();
    let head = format!(
        "POST /api/query HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        world.authorization(who),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// A figure of `/metrics` without labels.
pub(crate) fn figure(world: &World, name: &str) -> i64 {
    let text = world.get("nobody", "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no `{name}`: {text}")).parse().unwrap()
}

/// Waits until so many queries run, and so many of them have no row yet.
pub(crate) fn wait_for(world: &World, running: i64, without_rows: i64) {
    let counted = || (figure(world, "agnes_queries_running"), figure(world, "agnes_queries_waiting"));
    let patience = Instant::now() + Duration::from_secs(60);
    while counted() != (running, without_rows) {
        assert!(Instant::now() < patience, "{:?}, not {:?}", counted(), (running, without_rows));
        std::thread::sleep(Duration::from_millis(50));
    }
}

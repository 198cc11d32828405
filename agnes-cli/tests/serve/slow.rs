//! Clients that send slowly, or stop in the middle.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::world::World;

/// Begins a request and sends no more than this.
fn begin(world: &World, who: &str, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (line, fields) = head.split_once('\n').unwrap();
    let authorization = world.authorization(who);
    write!(stream, "{line} HTTP/1.1\r\nHost: t\r\n{authorization}{}\r\n\r\n{body}", fields.replace('\n', "\r\n"))
        .unwrap();
    stream
}

/// All that the server says until it closes the connection.
fn answer(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

const JSON: &str = "Content-Type: application/json\nContent-Length: 1000";

#[test]
fn a_body_that_does_not_arrive_gives_its_connection_back() {
    let world = World::start_with(&[], &[("AGNES_BODY_TIMEOUT_SECONDS", "3")]);
    let form = "Content-Type: multipart/form-data; boundary=cut\nContent-Length: 90000";
    let part = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half\"\r\n\r\nabc";
    let stalled = [
        begin(&world, "nobody", &format!("POST /auth/token\n{JSON}"), "{\"email\": \"a"),
        begin(&world, "member", &format!("POST /api/query\n{JSON}"), "{"),
        begin(&world, "member", &format!("POST /api/upload/artifacts\n{form}"), part),
        begin(&world, "member", &format!("POST /api/upload/local-md\n{JSON}"), "{"),
    ];
    for stream in stalled {
        let said = answer(stream);
        assert!(said.starts_with("HTTP/1.1 408") && said.contains("request_timeout"), "{said}");
    }
    let left = std::fs::read_dir(world.server.folder.path().join("user_artifacts")).into_iter().flatten().flatten();
    let left: Vec<_> = left.flat_map(|person| std::fs::read_dir(person.path()).unwrap().flatten()).collect();
    assert!(left.is_empty(), "{left:?}");
    // Slow is not silent: what keeps coming is waited for.
    let text = json!({"sql": "select 1"}).to_string();
    let head =
        format!("POST /api/query\nConnection: close\nContent-Type: application/json\nContent-Length: {}", text.len());
    let mut slow = begin(&world, "member", &head, "");
    for byte in text.chars() {
        write!(slow, "{byte}").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(answer(slow).starts_with("HTTP/1.1 200"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_takes_nothing_of_its_answer_is_sent_away() {
    let world = World::start_with(&[], &[("AGNES_READER_TIMEOUT_SECONDS", "1")]);
    // More than the buffers on the way hold.
    let text = json!({"sql": "select i, repeat('x', 100) as x from range(2000000) r(i)"}).to_string();
    let head =
        format!("POST /api/query\nAccept: text/csv\nContent-Type: application/json\nContent-Length: {}", text.len());
    let mut stalled: Vec<TcpStream> = (0..2).map(|_| begin(&world, "member", &head, &text)).collect();
    for stream in &mut stalled {
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
    }
    let open =
        || {
            world.server.get("/metrics").text().lines().find_map(|line| {
                line.strip_prefix("agnes_http_connections ").map(|count| count.parse::<u32>().unwrap())
            })
        };
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    // The one that asks.
    while open().unwrap() > 1 {
        assert!(std::time::Instant::now() < patience, "who reads nothing is kept");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Who may not send notes holds nobody up, and neither do those who may and then do not.
#[test]
fn notes_that_do_not_arrive_keep_nobody_waiting() {
    let world = World::start_with(&[], &[("AGNES_BODY_TIMEOUT_SECONDS", "1")]);
    let chunked = "POST /api/upload/local-md\nContent-Type: application/json\nTransfer-Encoding: chunked";
    let stalled: Vec<_> = (0..2).map(|_| begin(&world, "member", chunked, "1\r\n{\r\n")).collect();
    let refused: Vec<_> = (0..4).map(|_| begin(&world, "narrow", chunked, "1\r\n{\r\n")).collect();
    for stream in refused {
        let said = answer(stream);
        assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    }
    let long = json!({"content": "x".repeat(2 << 20)});
    assert_eq!(world.send("admin", "POST", "/api/upload/local-md", &long).status, 200);
    for stream in stalled {
        assert!(answer(stream).starts_with("HTTP/1.1 408"));
    }
}

/// Who is answered before its body came either goes on over the same connection, or is told that it ends.
#[test]
fn an_early_answer_says_whether_the_connection_goes_on() {
    let world = World::start();
    let ask = |more: &str| begin(&world, "nobody", &format!("POST /api/mcp/http\nContent-Length: 2{more}"), "");
    let ends = |said: &str| said.to_lowercase().contains("\r\nconnection: close\r\n");
    for more in ["", "\nExpect: 100-continue"] {
        let said = answer(ask(more));
        assert!(said.starts_with("HTTP/1.1 401") && ends(&said), "{more}: {said}");
    }
    let mut stream = ask("");
    write!(stream, "{{}}GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let said = answer(stream);
    let (first, second) = said.split_at(said.rfind("HTTP/1.1 ").unwrap());
    assert!(first.starts_with("HTTP/1.1 401") && !ends(first), "{said}");
    assert!(second.starts_with("HTTP/1.1 200"), "{said}");
    // Nor does a long one keep anybody from the answer, but for one that no request has.
    let long = "x".repeat(8 << 20);
    for length in [long.len(), 1 << 30] {
        let head = format!("POST /api/upload/local-md\nConnection: close\nContent-Length: {length}");
        assert!(
            answer(begin(&world, "nobody", &head, if length == long.len() { &long } else { "" }))
                .starts_with("HTTP/1.1 401")
        );
    }
}

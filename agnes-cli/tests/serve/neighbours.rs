//! Clients that are slow, many, greedy or without end, and those beside them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::process::{Answer, Server};
use super::world::World;

/// Quiet: thousands of connections at trace level are a test of the log.
const QUIET: (&str, &str) = ("AGNES_LOG", "info");

/// As many open files as this process may have.
fn most_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    usize::try_from(limit.maximum.unwrap_or(1 << 20)).unwrap()
}

/// Small requests of everybody still answer.
fn still_answers(world: &World) {
    for _ in 0..20 {
        assert_eq!(world.server.get("/api/health").status, 200);
        assert_eq!(world.get("member", "/auth/me").status, 200);
        assert_eq!(world.send("member", "POST", "/api/query", &json!({"sql": "select 1"})).status, 200);
    }
}

/// Waits until the server has this many connections.
fn wait_for_connections(server: &Server, wanted: usize) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let text = server.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix("agnes_http_connections "));
        let now: usize = line.and_then(|number| number.parse().ok()).unwrap_or_default();
        if now >= wanted {
            return;
        }
        assert!(Instant::now() < patience, "{now} of {wanted} connections were taken");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn slow_clients_hold_up_nobody_and_are_sent_away() {
    most_files();
    let world = World::start_with(&[], &[QUIET]);
    let mut slow: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(world.server.address).unwrap();
            stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: t\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    wait_for_connections(&world.server, 1000);
    for _ in 0..3 {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
        still_answers(&world);
    }
    // A head has some seconds to arrive.
    let (mut last, patience) = (slow.pop().unwrap(), Instant::now() + Duration::from_secs(60));
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut told = Vec::new();
    let _ = last.read_to_end(&mut told);
    assert!(Instant::now() < patience, "a client that never ends its request is kept");
}

#[test]
fn thousands_of_connections_are_held() {
    // Ours and the server's, which has the same limit, and room for files.
    let wanted = 10_000.min(most_files().saturating_sub(500));
    let world = World::start_with(&[], &[QUIET]);
    let mut held: Vec<TcpStream> = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let mut stream = TcpStream::connect(world.server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        held.push(stream);
    }
    for stream in &mut held {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    still_answers(&world);
    drop(held);
    still_answers(&world);
}

#[test]
fn heads_and_bodies_without_end_are_cut_off() {
    let world = World::start();
    let many = "X-A: b\r\n".repeat(500);
    for head in [format!("X: {}\r\n", "a".repeat(200_000)), many, format!("{}: x\r\n", "n".repeat(70_000))] {
        let status = world.server.get_with("/api/health", &head).status;
        assert!([400, 431, 0].contains(&status), "{status}");
    }
    let long = world.server.get(&format!("/api/{}", "x".repeat(100_000))).status;
    assert!([400, 404, 414, 431, 0].contains(&long), "{long}");
    // A body in pieces that never ends: the limit ends it, not memory.
    let mut stream = TcpStream::connect(world.server.address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /api/query HTTP/1.1\r\nHost: t\r\n{}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        world.authorization("member")
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0_u64;
    while sent < 200 << 20 && stream.write_all(piece.as_bytes()).is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 200 << 20, "it took a body of {sent} bytes");
    // Its answer may be lost with the connection: what was not read is in the way.
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told);
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&told));
    let declared = format!(
        "POST /api/query HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{}Content-Type: application/json\r\n\
         Content-Length: 99999999999\r\n\r\n",
        world.authorization("member")
    );
    assert_eq!(world.server.send(&declared).status, 413);
    still_answers(&world);
}

/// Asks one query after the other until told to stop; gives how many were answered.
fn keep_asking(world: &World, who: &str, sql: &str, accept: &str, stop: &AtomicBool) -> usize {
    let mut answered = 0;
    while !stop.load(Relaxed) {
        let answer: Answer = world.query(who, sql, accept);
        assert!(answer.status == 200 && answer.is_whole, "{} {}", answer.status, answer.head);
        answered += 1;
    }
    answered
}

#[test]
fn one_who_takes_all_leaves_room_for_others() {
    let world = World::start_with(&[], &[QUIET]);
    let stop = AtomicBool::new(false);
    let sql = "select i, i * 2 as j, 'some text of row ' || i as t from range(100000) r(i)";
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| keep_asking(&world, "admin", sql, "text/csv", &stop));
        for _ in 0..3 {
            still_answers(&world);
        }
        stop.store(true, Relaxed);
        assert!(greedy.join().unwrap() > 0);
    });
}

#[test]
fn a_new_table_is_there_for_the_next_query_while_others_ask() {
    let world = World::start_with(&[], &[QUIET]);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (world, stop, asked) = (&world, &stop, &asked);
            let who = if client % 2 == 0 { "member" } else { "admin" };
            scope.spawn(move || {
                let sql = "select status, sum(amount) from orders group by status order by status";
                asked.fetch_add(keep_asking(world, who, sql, "application/json", stop), Relaxed);
            });
        }
        for number in 0..5 {
            let table = format!("new_{number}");
            let from = json!({"sql": format!("select n from {table}")});
            assert_eq!(world.send("admin", "POST", "/api/query", &from).status, 400, "there before it was made");
            let source = format!("more_{number}");
            let files = world.server.folder.path().join(&source);
            std::fs::create_dir(&files).unwrap();
            std::fs::write(files.join(format!("{table}.csv")), format!("n\n{number}\n")).unwrap();
            world.command(&["source", "add", &source, "--path", files.to_str().unwrap()]);
            world.command(&["sync", "--source", &source]);
            let answer = world.send("admin", "POST", "/api/query", &from);
            assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([[number]])));
        }
        stop.store(true, Relaxed);
    });
    assert!(asked.load(Relaxed) >= 8, "the others were kept waiting");
}

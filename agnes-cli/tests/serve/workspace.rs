//! What is done in a workspace beside pulling: snapshots, sessions of an assistant, where a query
//! is answered.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::laptop::{Laptop, files_below, text};
use super::process::BINARY;
use super::world::World;

#[test]
fn a_query_is_answered_where_it_can_be() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("admin"), &["--lazy"]);
    assert!(laptop.files().is_empty(), "nothing was asked for");
    let told = laptop.fails(1, &["query", "select * from orders"]);
    assert!(told.contains("agnes pull orders"), "{told}");
    let auto = |sql: &str| {
        let output = laptop.run(&["query", "--scope", "auto", sql, "--json"]);
        assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
        (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), text(&output.stderr))
    };
    let sql = "select count(*)::int as n from orders";
    let (rows, told) = auto(sql);
    assert_eq!(rows, json!([{"n": 4}]));
    assert!(told.contains("asking http://"), "{told}");
    let report = laptop.json(&["pull", "orders"]);
    assert_eq!(report["updated"], json!(["orders"]), "{report}");
    let (rows, told) = auto(sql);
    assert_eq!(rows, json!([{"n": 4}]));
    assert!(told.contains("answered here"), "{told}");
    assert_eq!(laptop.files(), ["orders.parquet"], "the other one was not asked for");
    laptop.ok(&["pull", "--all"]);
    assert_eq!(laptop.files(), ["orders.parquet", "people.parquet"]);
    let told = laptop.fails(8, &["pull", "peple"]);
    assert!(told.contains("did you mean `people`"), "{told}");
    // The walls of the engine stand here too.
    for sql in
        ["copy orders to 'x.csv'", "select * from read_text('/etc/hostname')", "drop view orders", "select 1; select 2"]
    {
        assert_ne!(laptop.run(&["query", sql]).status.code(), Some(0), "{sql}");
    }
    let pivot = laptop.asks("pivot orders on status using count(*) group by id order by id limit 1");
    assert_eq!(pivot[0]["paid"], 1, "{pivot}");
    assert!(laptop.asks("show tables").to_string().contains("people"));
    let columns =
        laptop.asks("select column_name from information_schema.columns where table_name = 'people' order by 1");
    assert_eq!(columns, json!([{"column_name": "id"}, {"column_name": "name"}]));
    let glance = laptop.json(&["explore", "orders"]);
    assert_eq!((&glance["row_count"], glance["sample_rows"].as_array().unwrap().len()), (&json!(4), 4), "{glance}");
    assert_eq!(laptop.json(&["explore", "orders", "--remote"])["row_count"], 4);
}

#[test]
fn snapshots_are_kept_asked_made_again_and_dropped() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let create =
        ["snapshot", "create", "orders", "--select", "id,amount", "--where", "status = 'paid'", "--order-by", "id"];
    let estimate = laptop.json(&[&create[..], &["--estimate"]].concat());
    assert_eq!(estimate["table_id"], "orders", "{estimate}");
    let meta = laptop.json(&[&create[..], &["--as", "paid"]].concat());
    assert_eq!(
        (&meta["name"], &meta["rows"], &meta["where"]),
        (&json!("paid"), &json!(2), &json!("status = 'paid'")),
        "{meta}"
    );
    assert_eq!(laptop.asks("select id::int as id from paid order by id"), json!([{"id": 1}, {"id": 3}]));
    laptop.fails(6, &[&create[..], &["--as", "paid"]].concat());
    laptop.fails(6, &["snapshot", "create", "orders"]);
    laptop.fails(2, &[&create[..], &["--as", "no name"]].concat());
    laptop.fails(8, &["fetch", "people", "--as", "p"]);
    let over = laptop
        .command(&[&create[..], &["--as", "more"]].concat())
        .env("AGNES_SNAPSHOT_QUOTA_GB", "0")
        .output()
        .unwrap();
    assert_eq!(over.status.code(), Some(3), "{}", text(&over.stderr));
    assert_eq!(laptop.json(&["snapshot", "refresh", "paid"])["identical"], true);
    let other = laptop.json(&["snapshot", "refresh", "paid", "--where", "status = 'open'"]);
    assert_eq!((&other["identical"], &other["rows"]), (&json!(false), &json!({"old": 2, "new": 1})), "{other}");
    laptop.ok(&["pull"]);
    assert_eq!(laptop.asks("select id::int as id from paid"), json!([{"id": 2}]), "a pull leaves them");
    assert_eq!(laptop.json(&["disk-info"])["snapshot_count"], 1);
    laptop.fails(2, &["snapshot", "prune"]);
    assert_eq!(laptop.json(&["snapshot", "prune", "--larger-than", "1", "--dry-run"])["would_drop"], json!(["paid"]));
    assert_eq!(laptop.json(&["snapshot", "prune", "--older-than", "1h", "--yes"])["dropped"], json!([]));
    laptop.ok(&["snapshot", "drop", "paid"]);
    assert_eq!(laptop.json(&["snapshot", "list"]), json!([]));
    laptop.fails(8, &["query", "select * from paid"]);
    let database = duckdb::Connection::open(laptop.path("user/duckdb/analytics.duckdb")).unwrap();
    assert!(database.execute_batch("SELECT * FROM paid").is_err(), "its view is gone");
}

/// The view of a snapshot, as other programs see it.
fn rows_of_view(laptop: &Laptop, name: &str) -> Option<i64> {
    let database = duckdb::Connection::open(laptop.path("user/duckdb/analytics.duckdb")).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).ok()
}

#[test]
fn a_snapshot_that_was_cut_says_so_everywhere() {
    let world = World::start();
    let overlay = world.server.folder.path().join("state/instance.yaml");
    std::fs::write(overlay, "api: {scan: {max_result_bytes: 20000}}\n").unwrap();
    world.publish_orders(5000);
    let world = world.restarted(&[]).0;
    let laptop = Laptop::of(&world, "member");
    let few = laptop.json(&["snapshot", "create", "orders", "--limit", "5", "--as", "few"]);
    assert_eq!((&few["rows"], few.get("truncated")), (&json!(5), None), "{few}");
    let output = laptop.run(&["snapshot", "create", "orders", "--as", "part"]);
    assert!(output.status.success() && text(&output.stderr).contains("part is not whole"), "{}", text(&output.stderr));
    let meta = laptop.json(&["fetch", "orders", "--as", "part", "--force"]);
    let rows = meta["rows"].as_u64().unwrap();
    assert!(meta["truncated"] == true && (1..5000).contains(&rows), "{meta}");
    assert_eq!(laptop.asks("select count(*)::int as n from part"), json!([{"n": rows}]));
    let output = laptop.run(&["snapshot", "refresh", "part"]);
    assert!(text(&output.stderr).contains("part is not whole"), "{}", text(&output.stderr));
    assert_eq!(laptop.json(&["snapshot", "refresh", "part"])["snapshot"]["truncated"], true);
    assert_eq!(laptop.json(&["snapshot", "list"])[1]["truncated"], true);
    assert_eq!(laptop.ok(&["snapshot", "list"]).matches("(cut)").count(), 1);
    let mut assistant = laptop.command(&["mcp"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut ask, mut told) =
        (assistant.stdin.take().unwrap(), BufReader::new(assistant.stdout.take().unwrap()).lines());
    let who = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let arguments = json!({"table_id": "orders", "name": "part", "force": true});
    for said in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "snapshot", "arguments": arguments}}),
    ] {
        writeln!(ask, "{said}").unwrap();
    }
    let answers = told.by_ref().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let answer = answers.into_iter().find(|answer| answer["id"] == 2).unwrap();
    drop(ask);
    assert_eq!(answer["result"]["structuredContent"]["truncated"], true, "{answer}");
    assert!(assistant.wait().unwrap().success());
}

#[test]
fn a_snapshot_that_is_killed_anywhere_is_there_or_not() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let create = ["snapshot", "create", "orders", "--no-estimate", "--as", "paid", "--where", "status = 'paid'"];
    let folder = laptop.path("user/snapshots");
    let is_done = |at: u32| {
        let mut command = laptop.command(&create);
        let output = command.env("AGNES_FAULT_AT", format!("{at}:abort")).output().unwrap();
        let files = files_below(&folder);
        let listed = laptop.json(&["snapshot", "list"]);
        assert_eq!(
            files.iter().any(|file| file == "paid.parquet"),
            listed[0]["name"] == "paid",
            "killed at {at}: {files:?} {listed}"
        );
        laptop.ok(&["pull"]);
        let left = files_below(&folder);
        if listed == json!([]) {
            assert_eq!(left, [".lock"], "killed at {at}");
        } else {
            assert_eq!(left, [".lock", "paid.meta.json", "paid.parquet"], "killed at {at}");
            assert_eq!(rows_of_view(&laptop, "paid"), Some(2), "killed at {at}");
            laptop.ok(&["snapshot", "drop", "paid"]);
        }
        output.status.success()
    };
    let kills = (1..100).take_while(|at| !is_done(*at)).count();
    assert!((4..99).contains(&kills), "{kills}");
}

#[test]
fn a_snapshot_whose_replacement_is_killed_anywhere_is_the_old_one_or_the_new_one() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let make = |predicate: &str| {
        let args = ["snapshot", "create", "orders", "--no-estimate", "--force", "--as", "kept", "--where", predicate];
        laptop.command(&args)
    };
    let (old, new) = ("status = 'paid'", "status = 'open'");
    let mut seen = [0, 0];
    let mut is_done = |at: u32| {
        assert!(make(old).output().unwrap().status.success());
        let output = make(new).env("AGNES_FAULT_AT", format!("{at}:abort")).output().unwrap();
        let check = |when: &str| {
            let listed = laptop.json(&["snapshot", "list"]);
            let is_new = listed[0]["where"] == new;
            let rows = if is_new { 1 } else { 2 };
            assert_eq!((&listed[0]["rows"], rows_of_view(&laptop, "kept")), (&json!(rows), Some(rows)), "{at} {when}");
            is_new
        };
        let is_new = check("at once");
        laptop.ok(&["pull"]);
        assert_eq!(check("later"), is_new, "killed at {at}");
        assert_eq!(files_below(&laptop.path("user/snapshots")), [".lock", "kept.meta.json", "kept.parquet"], "{at}");
        seen[usize::from(is_new)] += 1;
        output.status.success()
    };
    let kills = (1..100).take_while(|at| !is_done(*at)).count();
    assert!((4..99).contains(&kills), "{kills}");
    assert!(seen.iter().all(|times| *times > 1), "{seen:?}");
}

#[test]
fn what_the_killed_left_goes_and_what_is_in_use_stays() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    laptop.ok(&["snapshot", "create", "orders", "--as", "kept"]);
    laptop.ok(&["query", "select * from kept"]);
    let id = "0123456789abcdef0123456789abcdef";
    let (snapshot, spill) = (format!("user/snapshots/x.parquet.{id}.tmp"), ".agnes/tmp/spill-x/part".to_owned());
    let copy = format!("user/duckdb/analytics.duckdb.{id}.tmp");
    let own = "user/duckdb/notes.tmp".to_owned();
    std::fs::create_dir_all(laptop.path(".agnes/tmp/spill-x")).unwrap();
    for file in [&snapshot, &spill, &copy, &format!("{copy}.wal"), &own] {
        std::fs::write(laptop.path(file), "half").unwrap();
    }
    // Somebody writes the snapshot, and somebody asks without end.
    let writing = File::open(laptop.path(&snapshot)).unwrap();
    writing.lock().unwrap();
    let endless = ["query", "select i from range(10000000000000) a(i)", "--limit", "0", "-f", "csv"];
    let mut asking = laptop.command(&endless).spawn().unwrap();
    let mut told = BufReader::new(asking.stdout.take().unwrap()).lines();
    told.by_ref().nth(2).unwrap().unwrap();
    let there = || [&snapshot, &spill, &copy, &format!("{copy}.wal"), &own].map(|file| laptop.path(file).exists());
    laptop.ok(&["pull"]);
    assert_eq!(there(), [true, true, false, false, true]);
    asking.kill().unwrap();
    asking.wait().unwrap();
    drop((writing, told));
    let spills =
        || std::fs::read_dir(laptop.path(".agnes/tmp")).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(spills(), 2, "its own was left too");
    laptop.ok(&["pull"]);
    assert_eq!((there(), spills()), ([false, false, false, false, true], 0));
}

#[test]
fn a_snapshot_that_changes_during_a_pull_is_seen_after_the_next() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let lock = File::options().write(true).open(laptop.path(".agnes/lock")).unwrap();
    lock.lock().unwrap();
    laptop.ok(&["snapshot", "create", "orders", "--as", "mine"]);
    lock.unlock().unwrap();
    assert_eq!(rows_of_view(&laptop, "mine"), None);
    assert_eq!(laptop.asks("select count(*)::int as n from mine"), json!([{"n": 4}]), "no view is needed here");
    laptop.ok(&["pull"]);
    assert_eq!(rows_of_view(&laptop, "mine"), Some(4));
    lock.lock().unwrap();
    laptop.ok(&["snapshot", "drop", "mine"]);
    lock.unlock().unwrap();
    laptop.ok(&["pull"]);
    assert!(laptop.fails(8, &["query", "select * from mine"]).contains("mine"));
    assert_eq!(rows_of_view(&laptop, "mine"), None);
}

#[test]
#[cfg(unix)]
fn a_query_offers_to_fetch_what_is_not_here() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("admin"), &["--lazy"]);
    let answering = |answer: &str| {
        let of = laptop.command(&[]);
        let mut python = Command::new("python3");
        python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/offer.py"));
        python.args(["Fetch it, ", answer, BINARY, "query", "select count(*) + 37 as n from orders"]);
        python.current_dir(laptop.folder()).env_clear();
        python.envs(of.get_envs().filter_map(|(name, value)| Some((name, value?))));
        python.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    };
    let output = answering("n");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("is not on this computer"), "{}", text(&output.stdout));
    assert!(laptop.files().is_empty(), "no is no");
    let output = answering("y");
    assert!(output.status.success() && text(&output.stdout).contains("41"), "{}", text(&output.stdout));
    assert_eq!(laptop.files(), ["orders.parquet"], "only what was asked for");
}

#[test]
fn a_workspace_is_found_by_its_variable() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let elsewhere = |named: bool, arguments: &[&str]| {
        let mut command = laptop.command(arguments);
        command.current_dir(laptop.home());
        if named {
            command.env("AGNES_LOCAL_DIR", laptop.folder());
        }
        command.output().unwrap()
    };
    let query = ["query", "select count(*)::int as n from orders", "--json"];
    let (here, nowhere) = (elsewhere(true, &query), elsewhere(false, &query));
    let rows = serde_json::from_slice::<serde_json::Value>(&here.stdout).unwrap_or_default();
    assert_eq!(rows, json!([{"n": 4}]), "{}", text(&here.stderr));
    assert!(!nowhere.status.success(), "{}", text(&nowhere.stdout));
    world.publish_orders(2);
    assert!(elsewhere(true, &["pull"]).status.success());
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 2}]));
}

/// A transcript that a hook told of.
fn session(laptop: &Laptop, id: &str) {
    let path = laptop.path(&format!("{id}.jsonl"));
    std::fs::write(&path, format!("{{\"id\": \"{id}\", \"token\": \"abcdefghijklmn\"}}\n")).unwrap();
    let told = json!({"session_id": id, "transcript_path": path}).to_string();
    assert!(laptop.with_input(&["capture-session"], &told).status.success());
}

#[test]
fn sessions_are_sent_but_for_private_ones() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    ["s1", "s2", "s3"].iter().for_each(|id| session(&laptop, id));
    let told = laptop.with_input(&["capture-session", "--verbose"], "nonsense");
    assert!(told.status.success() && told.stdout.is_empty(), "a hook never fails");
    assert!(text(&told.stderr).contains("capture-session: bad_json"), "{}", text(&told.stderr));
    let told = laptop.with_input(&["capture-session"], "nonsense");
    assert!(told.stdout.is_empty() && told.stderr.is_empty(), "{}", text(&told.stderr));
    laptop.fails(1, &["mark-private"]);
    let marked = laptop.command(&["mark-private"]).env("CLAUDE_CODE_SESSION_ID", "s2").output().unwrap();
    assert!(marked.status.success(), "{}", text(&marked.stderr));
    let line = |id: &str| text(&laptop.with_input(&["statusline"], &json!({"session_id": id}).to_string()).stdout);
    assert_eq!((line("s2").trim(), line("s1").trim()), ("🔒 agnes-private", ""));
    assert_eq!(laptop.json(&["status"])["sessions_pending_upload"], 2);
    let dry = laptop.json(&["push", "--dry-run"]);
    assert_eq!(dry["would_upload"]["sessions"].as_array().unwrap().len(), 2, "{dry}");
    assert_eq!(dry["would_skip_private"][0]["session_id"], "s2", "{dry}");
    let log = laptop.path(".claude/agnes-sessions-uploaded.txt");
    let summary =
        json!({"sessions_count": 2, "private_skipped_count": 1, "local_md_present": true, "uploaded_log": log});
    assert_eq!(dry["summary"], summary);
    // A token that is not good any more loses nothing.
    let refused = laptop.command(&["push", "--json"]).env("AGNES_TOKEN", "nonsense").output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    let report: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "one is enough to know: {report}");
    assert_eq!(laptop.json(&["status"])["sessions_pending_upload"], 2);
    let quiet = laptop.command(&["push", "--quiet"]).env("AGNES_TOKEN", "nonsense").output().unwrap();
    assert_eq!(
        (quiet.status.code(), text(&quiet.stdout), text(&quiet.stderr)),
        (Some(0), String::new(), String::new())
    );
    let report = laptop.json(&["push"]);
    assert_eq!(
        (&report["sessions"], &report["private_skipped"], &report["local_md"]),
        (&json!(2), &json!(1), &json!(true)),
        "{report}"
    );
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 2);
    let sessions = world.server.folder.path().join("user_sessions");
    let sent = super::laptop::files_below(&sessions);
    assert_eq!(sent.iter().map(|path| path.rsplit('/').next().unwrap()).collect::<Vec<_>>(), ["s1.jsonl", "s3.jsonl"]);
    let content = std::fs::read_to_string(sessions.join(&sent[0])).unwrap();
    assert_eq!(content, "{\"id\": \"s1\", \"token\": \"[REDACTED:secret]\"}\n");
    let again = laptop.json(&["push"]);
    assert_eq!((&again["sessions"], &again["local_md"]), (&json!(0), &json!(false)), "{again}");
    // What lies in the assistant's own folder is sent when asked for.
    let spelled: String =
        laptop.folder().to_str().unwrap().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let own = laptop.home().join(".claude/projects").join(spelled);
    std::fs::create_dir_all(&own).unwrap();
    ["s2", "s4", "s5", "s6", "s7"]
        .iter()
        .for_each(|id| std::fs::write(own.join(format!("{id}.jsonl")), "{}\n").unwrap());
    let check = |laptop: &Laptop| laptop.json(&["diagnose", "--component", "capture-session"])["checks"][0].clone();
    assert_eq!(check(&laptop)["status"], "warning", "{}", check(&laptop));
    let report = laptop.json(&["push", "--scan"]);
    assert_eq!((&report["sessions"], &report["private_skipped"]), (&json!(4), &json!(1)), "{report}");
    assert_eq!(check(&laptop)["status"], "ok", "{}", check(&laptop));
    assert_eq!(laptop.json(&["push", "--scan"])["sessions"], 0);
}

/// Servers that are none, or not this one's, lose nothing.
#[test]
fn a_server_that_unpacks_is_sent_packed_sessions() {
    use std::io::{Read as _, Write as _};
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    ["s1", "s2"].iter().for_each(|id| session(&laptop, id));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        while bodies.len() < 2 {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            // To the end of the form.
            while !request.ends_with(b"--\r\n") {
                let mut piece = [0; 4096];
                let read = client.read(&mut piece).unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&piece[..read]);
            }
            let head =
                "HTTP/1.1 200 OK\r\nConnection: close\r\nAccept-Encoding: gzip, br\r\nContent-Length: 2\r\n\r\n{}";
            client.write_all(head.as_bytes()).unwrap();
            bodies.push(request);
        }
        bodies
    });
    laptop.command(&["push", "--server", &address]).env("AGNES_TOKEN", "x.y.z").output().unwrap();
    let seen = seen.join().unwrap();
    let content = |request: &[u8], name: &str| {
        let start = format!("filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        let at = request.windows(start.len()).position(|part| part == start.as_bytes()).unwrap() + start.len();
        request[at..].to_vec()
    };
    assert!(content(&seen[0], "s1.jsonl").starts_with(b"{\"id\": \"s1\""));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(content(&seen[1], "s2.jsonl.gz").as_slice()).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, "{\"id\": \"s2\", \"token\": \"[REDACTED:secret]\"}\n");
}

#[test]
fn what_no_server_took_waits() {
    use std::io::{Read as _, Write as _};
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    session(&laptop, "s1");
    for (answer, told) in [
        ("404 Not Found\r\nContent-Length: 0", "HTTP 404"),
        ("403 Forbidden\r\nContent-Length: 7\r\n\r\nblocked", "HTTP 403"),
        ("501 Not Implemented\r\nX-Request-Id: r1\r\nContent-Length: 0", "HTTP 501"),
        ("200 OK\r\nContent-Length: 7\r\n\r\nwelcome", "is no JSON"),
        ("302 Found\r\nLocation: https://login.example.com\r\nContent-Length: 0", "another address"),
        ("400 Bad Request\r\nX-Request-Id: r1\r\nX-Agnes-Min-Version: 99.0.0\r\nContent-Length: 0", "99.0.0"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answer = if answer.contains("\r\n\r\n") { answer.to_owned() } else { format!("{answer}\r\n\r\n") };
        let answer = format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let mut head = [0; 65536];
                    let _ = client.read(&mut head);
                    let _ = client.write_all(answer.as_bytes());
                    let _ = client.shutdown(std::net::Shutdown::Write);
                    // What it still sends is taken: closing before would take the answer away.
                    let _ = std::io::copy(&mut client, &mut std::io::sink());
                });
            }
        });
        let push = laptop.command(&["push", "--server", &address]).env("AGNES_TOKEN", "x.y.z").output().unwrap();
        let code = if told == "99.0.0" { 2 } else { 1 };
        assert_eq!(push.status.code(), Some(code), "{}", text(&push.stderr));
        assert!(text(&push.stderr).contains(told), "{told}: {}", text(&push.stderr));
        assert_eq!(laptop.json(&["status"])["sessions_pending_upload"], 1, "{told}");
    }
    // Neither does one who nobody signed in at.
    let nobody = laptop.command(&["push", "--quiet", "--server", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(7), "{}", text(&nobody.stderr));
    assert_eq!(laptop.json(&["push"])["sessions"], 1);
}

/// What a hook is told that says nothing: the assistant goes on.
#[test]
fn a_hook_does_not_wait_for_ever() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    for command in ["capture-session", "statusline"] {
        let mut hook = laptop.command(&[command]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        // Never closed, nor written to.
        let stdin = hook.stdin.take();
        assert!(hook.wait().unwrap().success(), "{command}");
        drop(stdin);
    }
    let log = std::fs::read_to_string(laptop.path(".claude/agnes-capture-session.log")).unwrap();
    assert!(log.contains("\tstdin_read_error\t"), "{log}");
}

#[test]
fn the_session_that_sets_a_workspace_up_is_private() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let init = ["init", "--server-url", &laptop.server, "--token", world.token("member")];
    let output = laptop.command(&init).env("CLAUDE_CODE_SESSION_ID", "s0").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    session(&laptop, "s0");
    session(&laptop, "s1");
    let report = laptop.json(&["push"]);
    assert_eq!((&report["sessions"], &report["private_skipped"]), (&json!(1), &json!(0)), "{report}");
    let log = std::fs::read_to_string(laptop.path(".claude/agnes-capture-session.log")).unwrap();
    assert!(log.contains("\tprivate_skip\ts0\n"), "{log}");
}

#[test]
fn a_diagnosis_names_what_is_wrong_and_what_to_do() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let told = laptop.json(&["diagnose"]);
    let status = |told: &serde_json::Value, name: &str| {
        let checks = told["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).map(|check| check["status"].clone())
    };
    for name in ["api", "auth", "manifest", "workspace", "hooks"] {
        assert_eq!(status(&told, name), Some(json!("ok")), "{name}: {told}");
    }
    assert!(status(&told, "service:duckdb_state").is_none(), "not for everybody: {told}");
    assert_eq!(status(&told, "capture-session"), Some(json!("info")), "{told}");
    assert_eq!(laptop.json(&["diagnose", "system"])["status"], "healthy");
    assert!(laptop.ok(&["diagnose", "system"]).starts_with("healthy"));
    std::fs::remove_file(laptop.path("server/parquet/orders.parquet")).unwrap();
    let told = laptop.json(&["diagnose"]);
    assert_eq!((&told["overall"], status(&told, "workspace")), (&json!("degraded"), Some(json!("warning"))), "{told}");
    assert!(told["suggested_actions"].to_string().contains("agnes pull"), "{told}");
    laptop.ok(&["pull"]);
    assert_eq!(laptop.json(&["diagnose", "--component", "workspace"])["checks"].as_array().unwrap().len(), 1);
    let output = laptop.command(&["diagnose", "--json"]).env("AGNES_TOKEN", "nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let away = laptop.json_with(1, &["diagnose", "--server", "http://127.0.0.1:9"]);
    assert_eq!((&away["overall"], status(&away, "api")), (&json!("unhealthy"), Some(json!("error"))), "{away}");
    let mut local = laptop.command(&["diagnose", "system", "--local", "--json"]);
    let local = local.env("AGNES_SERVER", "http://127.0.0.1:9").output().unwrap();
    let local: serde_json::Value = serde_json::from_slice(&local.stdout).unwrap();
    assert_eq!((&local["parquet_tables"], &local["initialized"]), (&json!(1), &json!(true)), "{local}");
}

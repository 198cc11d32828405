//! Tools for assistants, asked by the official client, the MCP Inspector and the official tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::laptop::Laptop;
use super::mailbox::tools;
use super::process::{Answer, BINARY};
use super::running::{ENDLESS, wait_for};
use super::world::World;

/// The folder of the clients, where they are installed.
fn clients() -> Option<PathBuf> {
    Some(tools("mcp/.ready")?.join("mcp"))
}

/// The official client in Python, about to do one thing.
pub(super) fn official(world: &World, what: &str) -> Option<Command> {
    let mut command = Command::new(clients()?.join("python/bin/python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/mcp_client.py"))
        .arg(what)
        .env("AGNES_URL", format!("http://{}", world.server.address))
        .env("AGNES", BINARY)
        .env("AGNES_FOLDER", world.server.folder.path())
        .env("AGNES_TOKEN", world.token("member"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// Runs it to its end; gives what it prints.
pub(super) fn done(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_doors_answer_the_official_client_alike() {
    let world = World::start();
    if let Some(client) = official(&world, "tools") {
        done(client);
        let log = world.get("admin", "/api/admin/activity?client_kind=mcp&limit=200").json();
        let rows = log["rows"].as_array().unwrap();
        for action in ["query.local", "catalog.sample", "catalog.list"] {
            assert!(rows.iter().any(|row| row["action"] == action), "{action}: {log}");
        }
    }
}

#[test]
fn an_assistant_is_told_how_far_a_query_is_and_what_a_policy_takes() {
    let world = World::start();
    let rules = json!({"filter": {"predicate": "status = 'paid'"}, "columns": {"amount": {"mask": "null"}}});
    let groups = world.get("admin", "/api/admin/groups").json();
    let analysts = groups.as_array().unwrap().iter().find(|group| group["name"] == "analysts").unwrap();
    let new = json!({"group_id": analysts["id"], "table": "orders", "rules": rules});
    let made = world.send("admin", "POST", "/api/admin/policies", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    if let Some(client) = official(&world, "progress") {
        done(client);
    }
}

#[test]
fn a_call_that_is_cancelled_stops_its_query() {
    let world = World::start();
    let Some(mut client) = official(&world, "cancel") else { return };
    let mut child = client.env("AGNES_SQL", ENDLESS).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut input = child.stdin.take().unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "asked");
    wait_for(&world, 1, 1);
    writeln!(input, "cancel").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "cancelled");
    wait_for(&world, 0, 0);
    writeln!(input, "go on").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_assistant_in_a_workspace_works_with_its_files_without_the_server() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("member"), &["--no-pull", "--lazy"]);
    let Some(mut client) = official(&world, "laptop") else { return };
    client.env("AGNES_LAPTOP", laptop.home()).env("AGNES_WORKSPACE", laptop.folder());
    let mut child = client.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut input = child.stdin.take().unwrap();
    let first = said.next().map(Result::unwrap);
    if first.as_deref() == Some("pulled") {
        drop(world);
        writeln!(input, "go on").unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A relay between the Inspector and a server, in a process of its own.
struct Relay {
    child: Child,
    port: u16,
}

impl Relay {
    fn to(server: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/mcp_relay.mjs");
        let mut child = Command::new("node").arg(script).arg(server).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { port: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_inspector_lists_and_calls_tools_over_both_doors() {
    // Its command line sends no token: in development mode everybody is an Admin.
    let world = World::start_with(&[], &[("LOCAL_DEV_MODE", "1")]);
    let Some(folder) = clients() else { return };
    let inspect = |door: &[&str], arguments: &[&str]| {
        let mut command = Command::new(folder.join("node_modules/.bin/mcp-inspector"));
        command.arg("--cli").args(door).args(arguments);
        serde_json::from_str::<Value>(&done(command)).unwrap()
    };
    let relay = Relay::to(&format!("http://{}", world.server.address));
    let url = format!("http://127.0.0.1:{}/mcp", relay.port);
    let http = [&url, "--transport", "http"];
    let data = world.server.folder.path().to_str().unwrap();
    let stdio = [BINARY, "mcp", "--data-dir", data];
    let listed = inspect(&http, &["--method", "tools/list"]);
    assert!(listed["tools"].as_array().unwrap().len() >= 9, "{listed}");
    assert_eq!(inspect(&stdio, &["--method", "tools/list"]), listed);
    let call = ["--method", "tools/call", "--tool-name", "query", "--tool-arg", "sql=select sum(amount) s from orders"];
    for door in [&http[..], &stdio[..]] {
        let answer = inspect(door, &call);
        assert_eq!(answer["structuredContent"]["rows"], json!([[60.75]]), "{answer}");
    }
}

#[test]
fn the_official_tests_of_conformance_hold() {
    // Their client brings no token: in development mode everybody is an Admin.
    let world = World::start_with(&[], &[("LOCAL_DEV_MODE", "1")]);
    let Some(folder) = clients() else { return };
    for scenario in
        ["server-initialize", "ping", "tools-list", "server-sse-multiple-streams", "dns-rebinding-protection"]
    {
        let results = tempfile::tempdir().unwrap();
        let mut command = Command::new(folder.join("node_modules/.bin/conformance"));
        command.current_dir(results.path());
        command.args(["server", "--url", &format!("http://{}/api/mcp/http", world.server.address)]);
        done({
            command.args(["--scenario", scenario]);
            command
        });
    }
}

fn message(world: &World, who: &str, method: &str, params: Value, headers: &str) -> Answer {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let headers = format!("Accept: application/json, text/event-stream\r\n{headers}");
    world.send_with(who, "POST", "/api/mcp/http", &body, &headers)
}

/// The message of an answer, which came as one event.
fn answer_of(answer: &Answer) -> Value {
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
    serde_json::from_str(data).unwrap_or_else(|_| panic!("{}: {text}", answer.status))
}

#[test]
fn the_door_asks_for_a_token_and_says_where_to_get_one() {
    let world = World::start();
    for who in ["nobody", "session"] {
        let answer = message(&world, who, "tools/list", json!({}), "");
        let challenge = answer.header("www-authenticate").unwrap();
        assert_eq!(answer.status, 401);
        assert!(challenge.starts_with("Bearer resource_metadata=\"http://"), "{challenge}");
        assert!(challenge.contains("/.well-known/oauth-protected-resource/api/mcp/http\""), "{challenge}");
        assert!(!challenge.contains("error="), "nothing is wrong with what nobody sent: {challenge}");
    }
    let wrong = message(&world, "nobody", "tools/list", json!({}), "Authorization: Bearer nothing\r\n");
    assert_eq!((wrong.status, wrong.json()["code"].as_str().unwrap()), (401, "token_invalid"));
    let challenge = wrong.header("www-authenticate").unwrap();
    assert!(challenge.contains("resource_metadata") && challenge.contains("error=\"invalid_token\""), "{challenge}");
    // A page of somebody else, whatever name of this machine it was loaded from.
    let strange = message(&world, "member", "tools/list", json!({}), "Origin: http://strange.example\r\n");
    assert_eq!((strange.status, strange.json()["code"].as_str().unwrap()), (403, "csrf_failed"));
    assert_eq!(message(&world, "member", "tools/list", json!({}), "Origin: http://localhost:3000\r\n").status, 200);
    // Nobody's session lasts: each message stands for itself.
    assert_eq!(world.get("member", "/api/mcp/http").status, 405);
    let listed = answer_of(&message(&world, "member", "tools/list", json!({}), ""));
    assert_eq!((&listed["id"], listed["result"]["tools"].is_array()), (&json!(7), true), "{listed}");
    // A narrow token lists tools, and is told what it may not call.
    let call = json!({"name": "query", "arguments": {"sql": "select 1"}});
    let refused = answer_of(&message(&world, "narrow", "tools/call", call, ""));
    assert_eq!(refused["result"]["structuredContent"]["code"], "scope_denied", "{refused}");
    assert_eq!(refused["result"]["isError"], true);
}

#[test]
fn one_person_has_so_many_calls_a_minute() {
    let world = World::start();
    let call = || {
        let params = json!({"name": "server_info", "arguments": {}});
        answer_of(&message(&world, "member", "tools/call", params, ""))["result"].clone()
    };
    let refused = (0..70).map(|_| call()).find(|result| result["isError"] == true).unwrap();
    assert_eq!(refused["structuredContent"]["code"], "rate_limited", "{refused}");
    assert!(refused["structuredContent"]["hint"].as_str().unwrap().starts_with("try again in "), "{refused}");
    let params = json!({"name": "server_info", "arguments": {}});
    let other = answer_of(&message(&world, "stranger", "tools/call", params, ""));
    assert_eq!(other["result"]["structuredContent"]["authenticated"], true, "{other}");
}

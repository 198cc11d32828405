//! What works on a data folder works at its server: runs, sources, invitations, looking after it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::laptop::Laptop;
use super::world::World;

/// A site with one file, which can be held back in the middle.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Site {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, gate) = (listener.local_addr().unwrap(), Arc::new((Mutex::new(false), Condvar::new())));
        let site = Self { address, gate: gate.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = gate.clone();
                std::thread::spawn(move || answer(stream, &gate));
            }
        });
        site
    }

    /// Address of a file on it.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("http://{}/{name}.csv", self.address)
    }

    fn hold(&self, held: bool) {
        *self.gate.0.lock().unwrap() = held;
        self.gate.1.notify_all();
    }
}

fn answer(mut stream: TcpStream, gate: &(Mutex<bool>, Condvar)) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let content = "id,name\n1,Ann\n2,Bob\n3,Cyd\n";
    let told = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/csv\r\nETag: \"one\"\r\n\
         Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    let _ = stream.write_all(told.as_bytes());
    if head.starts_with(b"HEAD") {
        return;
    }
    let (first, rest) = content.split_at(12);
    let _ = stream.write_all(first.as_bytes());
    drop(gate.1.wait_while(gate.0.lock().unwrap(), |held| *held).unwrap());
    let _ = stream.write_all(rest.as_bytes());
}

/// Waits until `path` tells what is waited for, for two minutes.
fn until(world: &World, path: &str, told: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..2400 {
        let now = world.get("admin", path).json();
        if told(&now) {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{path}: {}", world.get("admin", path).json());
}

fn begin(world: &World, body: &Value) -> String {
    let begun = world.send("admin", "POST", "/api/sync/trigger", body);
    assert_eq!(begun.status, 200, "{}", begun.text());
    begun.json()["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_tells_how_far_it_is_and_can_be_stopped() {
    let site = Site::open();
    let world = World::start_with(&[], &[("AGNES_REMOTE_ATTACH_HOST_ALLOWLIST", &site.address.to_string())]);
    world.command(&["source", "add", "site", "--set", &format!("path={}", site.file("slow"))]);
    site.hold(true);
    let run = begin(&world, &json!({"sources": ["site"], "full": true}));
    let address = format!("/api/sync/runs/{run}");
    let now = until(&world, &address, |now| now["progress"]["tables"].as_array().is_some_and(|all| !all.is_empty()));
    let table = &now["progress"]["tables"][0];
    assert_eq!((&table["source"], &table["table"], &table["status"]), (&json!("site"), &json!("slow"), &json!(null)));
    assert_eq!((&now["state"], &now["progress"]["stage"]), (&json!("running"), &json!("extract")));

    let laptop = Laptop::of(&world, "admin");
    let listed = laptop.json(&["admin", "run", "list", "--limit", "1"]);
    assert_eq!((&listed[0]["id"], &listed[0]["progress"]["stage"]), (&json!(run), &json!("extract")), "{listed}");
    assert!(laptop.ok(&["admin", "run", "show", &run]).contains("reads"), "a table that is read");
    site.hold(false);
    let ended = until(&world, &address, |now| !now["finished_at"].is_null());
    assert_eq!((&ended["state"], ended.get("progress")), (&json!("succeeded"), None), "{ended}");
    assert_eq!(ended["outcome"]["tables"][0]["rows"], 3);

    site.hold(true);
    let run = begin(&world, &json!({"sources": ["site"], "full": true}));
    let address = format!("/api/sync/runs/{run}");
    until(&world, &address, |now| now["state"] == "running");
    assert_eq!(laptop.json(&["admin", "run", "cancel", &run]), json!({"cancelled": true}));
    site.hold(false);
    assert_eq!(until(&world, &address, |now| !now["finished_at"].is_null())["state"], "cancelled");
    assert_eq!(laptop.json(&["admin", "run", "cancel", &run]), json!({"cancelled": false}));
    laptop.fails(8, &["admin", "run", "cancel", "nothing"]);
    Laptop::of(&world, "member").fails(8, &["admin", "run", "list"]);

    let waited = laptop.json(&["sync", "--source", "site", "--full", "--wait"]);
    assert_eq!((&waited["state"], &waited["request"]["sources"]), (&json!("succeeded"), &json!(["site"])), "{waited}");
    assert!(laptop.ok(&["sync", "--source", "shop", "--wait"]).contains("orders"));
    laptop.fails(8, &["sync", "--source", "nothing", "--wait"]);
    assert_eq!(world.get("admin", "/api/sync/runs?limit=0").status, 422);
}

#[test]
fn sources_are_looked_after_from_a_laptop() {
    let site = Site::open();
    let world = World::start_with(&[], &[("AGNES_REMOTE_ATTACH_HOST_ALLOWLIST", &site.address.to_string())]);
    let laptop = Laptop::of(&world, "admin");
    let listed = laptop.json(&["source", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["published_tables"]), (&json!("shop"), &json!(2)), "{listed}");
    assert!(laptop.ok(&["source", "check", "shop"]).contains("the path can be read"));
    let offered = laptop.json(&["source", "discover", "shop"]);
    assert_eq!(offered[0]["source_table"], "orders.csv", "{offered}");

    let path = format!("path={}", site.file("rates"));
    let added = laptop.json(&["source", "add", "rates", "--set", &path, "--schedule", "every 1h"]);
    assert_eq!((&added["source"]["name"], &added["tables"][0]["name"]), (&json!("rates"), &json!("rates")), "{added}");
    laptop.fails(6, &["source", "add", "rates", "--set", &path]);
    assert!(laptop.ok(&["sync", "--source", "rates", "--wait"]).contains("rates"));
    assert_eq!(world.query("admin", "select count(*) n from rates", "application/json").json()["rows"], json!([[3]]));
    assert_eq!(laptop.json(&["rebuild", "--source", "rates"])["source"], "rates");
    laptop.fails(8, &["rebuild", "--source", "nothing"]);

    // What reaches the server's own files, or sends its secrets where its operator did not say.
    for settings in [
        vec!["--path", "/etc"],
        vec!["--set", "path=https://evil.example/x.csv"],
        vec!["--kind", "sqlite", "--path", "/var/lib/x.db"],
        vec!["--kind", "keboola", "--set", "stack_url=https://connection.keboola.com.evil.example"],
        vec!["--kind", "keboola", "--set", "endpoints={\"s3\":\"https://evil.example\"}"],
        vec!["--kind", "jira", "--set", "domain=evil.example"],
        vec!["--kind", "jira", "--set", "atlassian_url=https://evil.example"],
        vec!["--kind", "jira", "--set", "domain=acme.atlassian.net", "--set", "attachment_hosts=[\"evil.example\"]"],
        vec!["--kind", "bigquery", "--set", "project=acme-data", "--set", "endpoint=https://evil.example"],
        vec!["--kind", "postgres", "--set", "host=evil.example", "--set", "database=d", "--set", "user=u"],
        vec!["--set", "path=s3://bucket/x.csv", "--set", "storage={\"access_key_env\":\"JWT_SECRET_KEY\"}"],
    ] {
        let told = laptop.fails(8, &[&["source", "add", "own"], &settings[..]].concat());
        assert!(told.contains("is not added through a server") && told.contains("hint:"), "{settings:?}: {told}");
    }
    // A region and an account become part of a host.
    for setting in ["storage={\"region\":\"evil.example/x\"}", "storage={\"account\":\"evil.example/x\"}"] {
        let told = laptop.fails(2, &["source", "add", "own", "--set", "path=s3://bucket/x.csv", "--set", setting]);
        assert!(told.contains("use the name of"), "{told}");
    }
    assert_eq!(laptop.json(&["source", "list"]).as_array().map(Vec::len), Some(2), "nothing of it is kept");
    // A source that does not list its tables is a failure of its own, in words.
    let told = laptop
        .fails(5, &["source", "add", "crm", "--kind", "keboola", "--set", "stack_url=https://connection.keboola.com"]);
    assert!(told.contains("source_failed") || told.contains("could not list its tables"), "{told}");

    laptop.ok(&["source", "remove", "rates", "--drop-data", "--yes"]);
    laptop.fails(8, &["source", "check", "rates"]);
    assert_ne!(world.query("admin", "select * from rates", "application/json").status, 200);
    let member = Laptop::of(&world, "member");
    for command in [&["source", "list"][..], &["source", "check", "shop"], &["source", "remove", "shop", "--yes"]] {
        member.fails(8, command);
    }
    // The service syncs; where data comes from is for people.
    assert_eq!(world.send("service", "DELETE", "/api/admin/sources/shop", &Value::Null).status, 403);
}

#[test]
fn a_server_is_looked_after_from_a_laptop() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    let invited = laptop.json(&["admin", "user", "invite", "stranger"]);
    assert!(invited["invite_url"].as_str().unwrap().starts_with(&laptop.server), "{invited}");
    assert_eq!(invited["invite_email_sent"], false);
    assert!(laptop.ok(&["admin", "user", "invite", "stranger@example.com"]).contains("/auth/password/setup?"));
    laptop.fails(8, &["admin", "user", "invite", "nobody@example.com"]);

    let pulse = laptop.json(&["admin", "activity", "health"]);
    assert!(pulse["fields"].as_array().unwrap().iter().any(|field| field["key"] == "sync_24h"), "{pulse}");
    assert!(laptop.ok(&["admin", "activity", "health"]).contains("sync_24h"));
    let past = laptop.json(&["admin", "activity", "sync", "--since", "1h"]);
    assert!(past["rows"].as_array().unwrap().iter().any(|row| row["table_id"] == "orders"), "{past}");
    assert!(laptop.ok(&["admin", "activity", "sync"]).contains("orders"));
    // The same of the data folder.
    assert!(world.command(&["admin", "activity", "sync"]).contains("orders"));
    assert!(world.command(&["admin", "activity", "health"]).contains("sync_24h"));
    let found = laptop.json(&["admin", "activity", "--search", "shop", "--since", "1h"]);
    assert!(found["rows"].is_array(), "{found}");

    let doctor = laptop.run(&["doctor", "--json"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("doctor:catalog"), "{doctor:?}");
    assert_eq!(laptop.json(&["gc", "--dry-run"])["dry_run"], true);
    laptop.ok(&["gc"]);

    let receipt = laptop.path("answer.json");
    let receipt = receipt.to_str().unwrap();
    laptop.ok(&["query", "--remote", "select count(*) from orders", "--receipt", receipt]);
    assert_eq!(laptop.json(&["replay", receipt])["equal"], true);
    assert!(laptop.ok(&["replay", receipt, "--as", "member@example.com"]).contains("equal"));
    // Whoever may not ask the query may not replay it.
    laptop.fails(8, &["replay", receipt, "--as", "stranger@example.com"]);

    let told = laptop.fails(9, &["backup", "copy"]);
    assert!(told.contains("never leave its machine") && told.contains("hint:"), "{told}");
    laptop.fails(2, &["restore", "copy", "--server", &laptop.server, "--yes"]);
    let member = Laptop::of(&world, "member");
    for command in [&["gc"][..], &["admin", "activity", "health"], &["admin", "user", "invite", "stranger"]] {
        member.fails(8, command);
    }
    assert!(member.ok(&["replay", receipt]).contains("equal"));
}

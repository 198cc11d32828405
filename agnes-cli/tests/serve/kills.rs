//! A server that is killed again and again under mixed load: what it acknowledged is there
//! afterwards, its state opens, and nothing of it is left behind.
//!
//! `make kill-http` kills it longer (`AGNES_KILL_ROUNDS`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Answer;
use super::workers::{children, wait_until_gone};

use super::world::{PASSWORD, World};

/// What was acknowledged: by address, whether it has to be there.
type Acknowledged = Mutex<BTreeMap<String, bool>>;

/// What was sent in place of what was there: the number that was acknowledged last, and the one
/// that was sent last. What is there is one of them, or one between them.
type Replaced = Mutex<BTreeMap<String, (Option<usize>, usize)>>;

/// The name of the notes of a person among what is replaced.
const NOTES: &str = "notes";

/// A person at work until the server is gone.
struct Worker<'a> {
    world: &'a World,
    stop: &'a AtomicBool,
    known: &'a Acknowledged,
    replaced: &'a Replaced,
    round: usize,
}

impl Worker<'_> {
    /// Does `step` with growing numbers until told to stop.
    fn repeat(&self, step: impl Fn(usize)) {
        let mut number = 0;
        while !self.stop.load(Relaxed) {
            step(number);
            number += 1;
        }
    }

    /// Keeps what an answer acknowledged. A write that got no answer may be there or not.
    fn note(&self, address: String, answer: Option<u16>, wanted: u16, is_there: bool) {
        let mut known = self.known.lock().unwrap();
        match answer {
            Some(status) if status == wanted => drop(known.insert(address, is_there)),
            Some(0) | None => drop(known.remove(&address)),
            Some(status) => panic!("{address}: {status}"),
        }
    }

    /// Makes groups with grants, and deletes every third.
    fn groups(&self) {
        self.repeat(|number| {
            let name = format!("group {} {number}", self.round);
            let made = self.world.try_send("admin", "POST", "/api/admin/groups", &json!({"name": name}));
            let Some(made) = made.filter(|answer| answer.status == 201 && answer.is_whole) else { return };
            let id = made.json()["id"].as_str().unwrap().to_owned();
            let address = format!("/api/admin/groups/{id}");
            self.note(address.clone(), Some(201), 201, true);
            let grant = json!({"group_id": id, "resource_type": "table", "resource_id": "orders"});
            let granted = self.world.try_send("admin", "POST", "/api/admin/grants", &grant);
            if number % 3 == 0 {
                let gone = self.world.try_send("admin", "DELETE", &address, &Value::Null);
                self.note(address, gone.map(|answer| answer.status), 204, false);
            } else if granted.is_some_and(|answer| answer.status == 201) {
                self.note(format!("grant of {id}"), Some(201), 201, true);
            }
        });
    }

    /// Signs in, makes tokens, and revokes every second.
    fn tokens(&self) {
        let credentials = json!({"email": "member@example.com", "password": PASSWORD});
        let session = self.world.try_send("nobody", "POST", "/auth/token", &credentials);
        let Some(session) = session.filter(|answer| answer.status == 200 && answer.is_whole) else { return };
        let session = session.json()["access_token"].as_str().unwrap().to_owned();
        self.repeat(|number| {
            let name = json!({"name": format!("token {} {number}", self.round)});
            let made = self.world.try_send_as(&session, "POST", "/auth/tokens", &name);
            let Some(made) = made.filter(|answer| answer.status == 201 && answer.is_whole) else { return };
            let address = format!("/auth/tokens/{}", made.json()["id"].as_str().unwrap());
            let mut is_valid = true;
            if number % 2 == 0 {
                let gone = self.world.try_send_as(&session, "DELETE", &address, &Value::Null);
                if gone.is_none_or(|answer| answer.status != 204) {
                    return;
                }
                is_valid = false;
            }
            self.note(address, Some(201), 201, is_valid);
        });
    }

    /// Sends what takes the place of what was there under a name: `number`, which only grows.
    fn replace(&self, name: &str, number: usize, send: impl Fn() -> Option<Answer>) {
        self.replaced.lock().unwrap().entry(name.to_owned()).or_insert((None, 0)).1 = number;
        let Some(answer) = send() else { return };
        match answer.status {
            200 | 201 if answer.is_whole => {
                self.replaced.lock().unwrap().entry(name.to_owned()).and_modify(|sent| sent.0 = Some(number));
            }
            // Cut off, or the source was being synced: what was there may be there.
            // Or there was no turn for it in time.
            0 | 200 | 201 | 408 | 409 | 429 | 503 => {}
            status => panic!("{name}: {status}: {}", answer.text()),
        }
    }

    /// Makes tables of files, new ones and again.
    fn tables(&self) {
        self.repeat(|number| {
            let table = format!("upload_{}_{}", self.round, number % 3);
            // As many rows as the number says.
            let lines = format!("n\n{}", "1\n".repeat(number + 1));
            self.replace(&table, number + 1, || {
                self.world.try_upload("admin", "/api/upload/data", &[("table", &table)], "a.csv", lines.as_bytes())
            });
        });
    }

    /// Keeps notes.
    fn notes(&self) {
        self.repeat(|number| {
            let number = self.round * 1_000_000 + number + 1;
            let notes = json!({"content": format!("# {}\n{number}", "x".repeat(100_000))});
            self.replace(NOTES, number, || self.world.try_send("member", "POST", "/api/upload/local-md", &notes));
        });
    }

    /// Asks, and triggers syncs of files that change.
    fn data(&self, files: &Path) {
        self.repeat(|number| {
            if number % 4 == 0 {
                let line = format!("id,status,amount\n1,paid,10.5\n2,open,{number}\n3,paid,30.25\n4,lost,\n");
                std::fs::write(files.join("orders.csv"), line).unwrap();
                self.world.try_send("admin", "POST", "/api/sync/trigger", &Value::Null);
            }
            let sql = json!({"sql": "select count(*) from orders"});
            if let Some(answer) = self.world.try_send("member", "POST", "/api/query", &sql) {
                assert!([200, 0].contains(&answer.status), "{}", answer.text());
                if answer.status == 200 && answer.is_whole {
                    assert_eq!(answer.json()["rows"], json!([[4]]));
                }
            }
        });
    }
}

/// Everything acknowledged is as it was left.
fn check(world: &World, known: &BTreeMap<String, bool>) {
    let grants = world.get("admin", "/api/admin/grants").json();
    let granted: Vec<&str> = grants.as_array().unwrap().iter().filter_map(|row| row["group_id"].as_str()).collect();
    let tokens = world.get("member", "/auth/tokens").json();
    for (address, is_there) in known {
        if let Some(group) = address.strip_prefix("grant of ") {
            assert!(granted.contains(&group), "an acknowledged grant of {group} is gone");
        } else if let Some(id) = address.strip_prefix("/auth/tokens/") {
            let row = tokens.as_array().unwrap().iter().find(|row| row["id"] == id);
            let is_valid = row.is_some_and(|row| row["revoked_at"].is_null());
            assert!(row.is_some() && is_valid == *is_there, "{address}: {row:?}");
        } else {
            assert_eq!(world.get("admin", address).status == 200, *is_there, "{address}");
        }
    }
    let rows = world.send("member", "POST", "/api/query", &json!({"sql": "select count(*) from orders"}));
    assert_eq!(rows.json()["rows"], json!([[4]]), "{}", rows.text());
}

/// Every file that was sent and acknowledged is there, or the one that was sent in its place.
fn check_replaced(world: &World, replaced: &BTreeMap<String, (Option<usize>, usize)>) {
    for (name, (acknowledged, sent)) in replaced {
        let found = if name == NOTES {
            let folder = world.server.folder.path().join("user_local_md");
            let files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
            assert!(files.len() <= 1, "{files:?}");
            let text = files.first().map(|file| std::fs::read_to_string(file.path()).unwrap());
            text.map(|text| text.rsplit_once("x\n").unwrap_or_else(|| panic!("notes are cut")).1.parse().unwrap())
        } else {
            let rows = world.query("admin", &format!("select count(*) from {name}"), "application/json");
            // Of a table that was never acknowledged there may be nothing.
            (rows.status == 200).then(|| usize::try_from(rows.json()["rows"][0][0].as_u64().unwrap()).unwrap())
        };
        let is_right = match (found, acknowledged) {
            (Some(found), Some(least)) => (*least..=*sent).contains(&found),
            (Some(found), None) => found <= *sent,
            (None, least) => least.is_none(),
        };
        assert!(is_right, "{name}: {found:?} is there, {acknowledged:?} was acknowledged, {sent} was sent");
    }
}

/// A file as it is: another one of its name is another one.
fn as_it_is(folder: &Path, name: &str) -> Option<(u64, std::time::SystemTime)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::symlink_metadata(folder.join(name)).ok()?;
    Some((file.ino(), file.modified().ok()?))
}

/// Files of interrupted work, and of a server that does not run any more.
fn leftovers(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(inside).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_scratch = path.parent() == Some(&folder.join("tmp"));
            if is_scratch || name.ends_with(".sock") || name.contains(".tmp") || name.contains(".broken") {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            } else if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let rounds = std::env::var("AGNES_KILL_ROUNDS").map_or(4, |text| text.parse().unwrap());
    let variables = [("AGNES_AUTH_RATELIMIT_ENABLED", "0"), ("AGNES_LOG", "debug")];
    let mut world = World::start_with(&[], &variables);
    let known = Acknowledged::default();
    let replaced = Replaced::default();
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let files = world.server.folder.path().join("files");
        let server = world.server.id();
        let workers = std::thread::scope(|scope| {
            for job in 0..6 {
                let worker = Worker { world: &world, stop: &stop, known: &known, replaced: &replaced, round };
                let files = &files;
                scope.spawn(move || match job {
                    0 => worker.groups(),
                    1 => worker.tokens(),
                    2 => worker.data(files),
                    3 => worker.tables(),
                    4 => worker.notes(),
                    _ => worker.repeat(|_| {
                        let sql = json!({"sql": "select status, count(*) from orders group by all"});
                        drop(worker.world.try_send("admin", "POST", "/api/query", &sql));
                    }),
                });
            }
            // Every time at another moment of the work, once a file has become a table.
            let first = format!("upload_{round}_");
            let is_there =
                |(name, sent): (&String, &(Option<usize>, usize))| name.starts_with(&first) && sent.0.is_some();
            let patience = Instant::now() + Duration::from_secs(120);
            while !replaced.lock().unwrap().iter().any(is_there) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(100 + (round as u64 * 377) % 1500));
            // Nothing is begun any more, so that these are all of its workers.
            world.server.signal("STOP");
            let workers = children(server);
            world.server.signal("KILL");
            stop.store(true, Relaxed);
            workers
        });
        wait_until_gone(&[server]);
        // A worker sees by itself that nobody is there any more.
        wait_until_gone(&workers);
        let folder = world.server.folder.path();
        let half: Vec<_> = leftovers(folder).into_iter().map(|name| (as_it_is(folder, &name), name)).collect();
        world = world.start_again(&variables);
        check(&world, &known.lock().unwrap());
        check_replaced(&world, &replaced.lock().unwrap());
        let folder = world.server.folder.path();
        let still: Vec<_> = half.iter().filter(|(was, name)| was.is_some() && as_it_is(folder, name) == *was).collect();
        assert!(still.is_empty(), "left behind by the server that was killed: {still:?}");
        eprintln!(
            "round {round}: {} acknowledged writes and {} files are there; {} things and {} workers of the last one are gone",
            known.lock().unwrap().len(),
            replaced.lock().unwrap().values().filter(|sent| sent.0.is_some()).count(),
            half.len(),
            workers.len(),
        );
    }
    assert!(known.lock().unwrap().len() > rounds, "next to nothing was written");
    let sent = replaced.lock().unwrap();
    let there = sent.values().filter(|sent| sent.0.is_some()).count();
    assert!(sent.contains_key(NOTES) && there > rounds, "next to nothing was sent: {sent:?}");
    world.server.signal("TERM");
    let (status, folder) = world.server.ended();
    assert!(status.success(), "{status}");
    assert_eq!(leftovers(folder.path()), [""; 0]);
}

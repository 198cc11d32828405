//! A disk that is full, really: what was there answers, what failed says what to do, and the next run
//! repairs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crooked::{Crooked, Proxy};
use super::laptop::{Laptop, files_below, text};
use super::process::BINARY;
use super::world::World;

const MIB: u64 = 1 << 20;

/// A small disk of its own, in memory.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, said loudly, where this process may not mount anything.
    fn new(mebibytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m,mode=0777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
        assert!(!required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"), "no disk can be mounted");
        eprintln!("SKIPPED: only root may mount a small disk");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn free(&self) -> u64 {
        let told = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output().unwrap();
        text(&told.stdout).lines().last().unwrap().trim().parse().unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Fills it but for so many bytes.
    fn fill(&self, leave: u64) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let block = vec![7; 1 << 16];
        while self.free() >= leave + MIB {
            for _ in 0..(self.free() - leave) / (block.len() as u64) {
                if file.write_all(&block).is_err() {
                    return;
                }
            }
        }
        // Down to the last byte.
        if leave == 0 {
            while file.write_all(&block[..4096]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Writes a table of so many rows, some 50 bytes each however they are packed, as the file's name says.
fn large(file: &Path, rows: u32) {
    let sql = format!(
        "COPY (SELECT range AS id, md5(range || 'a') || md5(range || 'b') || md5(range || 'c') AS status, 1.5 AS amount \
         FROM range({rows})) TO '{}'",
        file.display()
    );
    duckdb::Connection::open_in_memory().unwrap().execute_batch(&sql).unwrap();
}

#[test]
fn a_laptop_that_is_full_keeps_what_it_has_and_goes_on_later() {
    let Some(disk) = Disk::new(256) else { return };
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::inside(disk.path(), &proxy.url());
    laptop.set_up(world.token("member"), &[]);
    let rows = |laptop: &Laptop| laptop.asks("select count(*)::int as n from orders")[0]["n"].clone();
    assert_eq!(rows(&laptop), 4);
    large(&world.server.folder.path().join("files/orders.csv"), 300_000);
    world.command(&["sync", "--source", "shop"]);
    let is_told = |error: &Value| {
        assert_eq!(error["code"], "disk_full", "{error}");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("space") && hint.contains("pull")), "{error}");
        assert!(!error.to_string().contains(disk.path().to_str().unwrap()), "{error}");
    };
    // Known before anything moves.
    disk.fill(40 * MIB);
    let before = proxy.moved();
    let report = laptop.json_with(5, &["pull"]);
    is_told(&report["errors"][0]);
    assert_eq!(report["errors"][0]["stage"], "disk", "{report}");
    assert_eq!((proxy.moved(), rows(&laptop)), (before, json!(4)));
    disk.empty();
    // Full while the bytes come: slowly enough that it is full long before they are all here.
    proxy.set(Crooked::Slow { bytes: 16 << 10, pause: Duration::from_millis(40) });
    let child = laptop.command(&["pull", "--json"]).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while proxy.moved() < before + (1 << 20) {
        assert!(Instant::now() < patience, "it never got that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    disk.fill(0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    is_told(&report["errors"][0]);
    assert_eq!(report["errors"][0]["table"], "orders", "{report}");
    assert_eq!(rows(&laptop), 4, "the old data answers on a disk without a free byte");
    proxy.set(Crooked::Not);
    is_told(&laptop.json_with(5, &["pull"])["errors"][0]);
    disk.empty();
    let report = laptop.json(&["pull"]);
    assert_eq!((&report["updated"], rows(&laptop)), (&json!(["orders"]), json!(300_000)), "{report}");
    assert!(files_below(&laptop.path(".agnes/incoming")).is_empty());
    // Nothing can be taken away either, until there is room for what says so.
    let grants: Value = serde_json::from_str(&world.command(&["admin", "grant", "list", "--json"])).unwrap();
    let grant = grants.as_array().unwrap().iter().find(|grant| grant["resource_id"] == "orders").unwrap();
    world.command(&["admin", "grant", "delete", grant["id"].as_str().unwrap(), "--yes"]);
    disk.fill(0);
    is_told(&laptop.json_with(5, &["pull"])["errors"][0]);
    disk.empty();
    assert_eq!(laptop.json(&["pull"])["removed"], json!(["orders"]));
    assert!(laptop.files().is_empty() && files_below(&laptop.path(".agnes/blobs")).is_empty());
}

#[test]
fn a_server_that_is_full_answers_from_what_it_published() {
    let Some(disk) = Disk::new(384) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("visits.parquet");
    large(&file, 1000);
    let world = World::start_in(tempfile::tempdir_in(disk.path()).unwrap(), 0, &[], &[]);
    world.command(&["source", "add", "more", "--path", elsewhere.path().to_str().unwrap()]);
    world.command(&["sync", "--source", "more"]);
    let count = || {
        let answer = world.send("admin", "POST", "/api/query", &json!({"sql": "select count(*) from visits"}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["rows"][0][0].clone()
    };
    assert_eq!(count(), 1000);
    large(&file, 1_500_000);
    let sync = || -> Output {
        let arguments = ["sync", "--source", "more", "--json", "--data-dir"];
        Command::new(BINARY).args(arguments).arg(world.server.folder.path()).output().unwrap()
    };
    let fails = || {
        let output = sync();
        assert!(!output.status.success(), "{}", text(&output.stdout));
        let run: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        let table = &run["outcome"]["tables"][0];
        assert_eq!((&table["status"], &table["reason"]), (&json!("error"), &json!("disk_full")), "{run}");
        assert!(table["hint"].as_str().is_some_and(|hint| hint.contains("free some space")), "{run}");
        assert!(table["next_try"].is_string(), "{run}");
        assert!(!run.to_string().contains(disk.path().to_str().unwrap()), "{run}");
        assert_eq!(count(), 1000, "the last good data answers");
    };
    // Known before it begins; and in the middle, as there is room for a part of it.
    disk.fill(8 * MIB);
    fails();
    disk.empty();
    disk.fill(40 * MIB);
    fails();
    let folder = world.server.folder.path().join("extracts");
    let left: Vec<String> = files_below(&folder).into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(left, Vec::<String>::new(), "what was begun is not left behind");
    disk.empty();
    // Not one byte: questions are answered all the same.
    disk.fill(0);
    assert_eq!(count(), 1000);
    disk.empty();
    let output = sync();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(count(), 1_500_000);
    let orders = world.send("member", "POST", "/api/query", &json!({"sql": "select count(*) from orders"}));
    assert_eq!(orders.json()["rows"], json!([[4]]), "the others were never touched");
}

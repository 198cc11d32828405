//! Documentation and helpers of a server, as laptops pull them.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::access::told;
use super::crooked::{Crooked, Proxy};
use super::laptop::{Laptop, files_below, sha256, text};
use super::process::BINARY;
use super::world::World;

/// Writes a document at the server.
fn write(world: &World, path: &str, content: &str) {
    let file = world.server.folder.path().join("docs").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

fn documents(laptop: &Laptop) -> Vec<String> {
    files_below(&laptop.path("server/docs"))
}

/// The address of a document.
fn address(path: &str) -> String {
    format!("/api/sync/assets/docs/download?path={path}")
}

#[test]
fn documents_come_along_for_those_who_may_have_them() {
    let world = World::start();
    for (path, content) in [
        ("start.md", "# Start here"),
        ("helpers/revenue.sql", "create macro revenue(x) as x * 2;"),
        ("tables/orders.md", "One row an order."),
        ("tables/people.md", "One row a person."),
        ("tables/people/notes.txt", "Nobody else's business."),
        ("tables/nothing.md", "Of a table that is not there."),
        (".hidden", "no"),
        ("README.md", "Read me."),
        ("readme.md", "The same name, where cases are folded."),
        ("a/b/c/d/e/f/g/deep", "Deeper than laptops take."),
        ("empty", ""),
    ] {
        write(&world, path, content);
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(
        world.server.folder.path().join("state/instance.key"),
        world.server.folder.path().join("docs/link.md"),
    )
    .unwrap();
    let laptop = Laptop::of(&world, "member");
    assert_eq!(documents(&laptop), ["README.md", "empty", "helpers/revenue.sql", "start.md", "tables/orders.md"]);
    assert_eq!(std::fs::read_to_string(laptop.path("server/docs/start.md")).unwrap(), "# Start here");
    let admin = Laptop::of(&world, "admin");
    assert_eq!(
        documents(&admin),
        [
            "README.md",
            "empty",
            "helpers/revenue.sql",
            "start.md",
            "tables/nothing.md",
            "tables/orders.md",
            "tables/people.md",
            "tables/people/notes.txt"
        ]
    );
    let manifest = world.get("member", "/api/sync/manifest").json();
    let docs = &manifest["assets"]["docs"];
    let files = docs["files"].as_array().unwrap();
    assert_eq!(files.iter().map(|file| file["size_bytes"].as_u64().unwrap()).sum::<u64>(), docs["size_bytes"]);
    for file in files {
        let path = laptop.path("server/docs").join(file["path"].as_str().unwrap());
        assert_eq!(json!(sha256(&path)), file["sha256"]);
    }
    // One at a time: as files are sent, and not to those who may not have it.
    let answer = world.get("member", &address("start.md"));
    let tag = answer.header("etag").unwrap().to_owned();
    assert_eq!((answer.status, answer.text().as_str()), (200, "# Start here"));
    let with =
        |more: &str| world.server.get_with(&address("start.md"), &format!("{}{more}", world.authorization("member")));
    assert_eq!(with(&format!("If-None-Match: {tag}\r\n")).status, 304);
    let range = with(&format!("Range: bytes=2-6\r\nIf-Range: {tag}\r\n"));
    assert_eq!((range.status, range.text().as_str()), (206, "Start"));
    assert_eq!(world.get("narrow", &address("start.md")).status, 200, "what sets a laptop up may have them");
    assert_eq!(world.get("nobody", &address("start.md")).status, 401);
    assert_eq!(world.get("admin", &address("tables/people.md")).status, 200);
    for path in [
        "tables/people.md",
        "tables/nothing.md",
        "nothing.md",
        "",
        ".hidden",
        "start.md/",
        "Start.md",
        "start.md/x",
        "a/b/c/d/e/f/g/deep",
        "link.md",
        "../state/instance.key",
        "..%2Fstate%2Finstance.key",
        "helpers/../start.md",
        "./start.md",
        "/etc/passwd",
        "start.md%00",
    ] {
        assert_eq!(told(&world.get("member", &address(path))), (404, "asset_not_found".to_owned()), "{path}");
    }
    for kind in ["nothing", "profiles", "..", "..%2Fstate"] {
        let answer = world.get("admin", &format!("/api/sync/assets/{kind}/download?path=profiles.json"));
        assert_eq!(answer.status, 404, "{kind}");
    }
    let seen = world.get("admin", "/api/admin/activity?action_prefix=data.download").json();
    let is_told = |resource: &str| seen["rows"].as_array().unwrap().iter().any(|row| row["resource"] == resource);
    assert!(is_told("asset:docs/start.md") && is_told("asset:docs/tables/people.md"), "{seen}");
    // A policy that hides a column hides what is written about the table too; one about rows does not.
    let policy = |more: &[&str]| {
        let made = world.command(&[&["admin", "policy", "create", "analysts", "orders", "--json"], more].concat());
        serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let rows = policy(&["--rows", "status = 'paid'"]);
    assert_eq!(world.get("member", &address("tables/orders.md")).status, 200);
    world.command(&["admin", "policy", "remove", &rows, "--yes"]);
    policy(&["--hide", "amount"]);
    assert_eq!(world.get("member", &address("tables/orders.md")).status, 404);
}

#[test]
fn only_what_changed_moves_and_what_is_gone_leaves() {
    let world = World::start();
    write(&world, "start.md", "# Start here");
    write(&world, "same.md", &"x".repeat(10_000));
    write(&world, "tables/orders.md", "One row an order.");
    let laptop = Laptop::of(&world, "member");
    let again = laptop.json(&["pull"]);
    assert_eq!((&again["assets_updated"], &again["bytes_downloaded"]), (&json!(0), &json!(0)), "{again}");
    write(&world, "start.md", "# Start here, now");
    write(&world, "new.md", "new");
    let dry = laptop.json(&["pull", "--dry-run"]);
    let expected = json!([
        {"table": "docs/new.md", "size_bytes": 3, "reason": "new"},
        {"table": "docs/start.md", "size_bytes": 17, "reason": "changed"},
    ]);
    assert_eq!(dry["would_download"], expected, "{dry}");
    let shown = laptop.ok(&["pull", "--dry-run"]);
    assert!(shown.contains("0 tables and 2 other files would come, 20 B"), "{shown}");
    assert!(!documents(&laptop).contains(&"new.md".to_owned()), "a dry run changes nothing");
    let report = laptop.json(&["pull"]);
    assert_eq!(
        (&report["tables_updated"], &report["assets_updated"], &report["bytes_downloaded"]),
        (&json!(0), &json!(2), &json!(20)),
        "{report}"
    );
    assert_eq!(std::fs::read_to_string(laptop.path("server/docs/start.md")).unwrap(), "# Start here, now");
    // Gone at the server, of a table that is not granted any more, or lost here.
    std::fs::remove_file(world.server.folder.path().join("docs/new.md")).unwrap();
    let grants: Value = serde_json::from_str(&world.command(&["admin", "grant", "list", "--json"])).unwrap();
    let grants = grants.as_array().unwrap();
    let grant = grants.iter().find(|grant| grant["resource_id"] == "orders").unwrap()["id"].as_str().unwrap();
    world.command(&["admin", "grant", "delete", grant, "--yes"]);
    std::fs::remove_file(laptop.path("server/docs/same.md")).unwrap();
    let dry = laptop.json(&["pull", "--dry-run"]);
    assert_eq!(dry["would_remove"], json!(["orders", "docs/new.md", "docs/tables/orders.md"]), "{dry}");
    let report = laptop.json(&["pull"]);
    assert_eq!(report["removed"], json!(["docs/new.md", "docs/tables/orders.md", "orders"]), "{report}");
    assert_eq!(documents(&laptop), ["same.md", "start.md"]);
    assert_eq!(files_below(&laptop.path(".agnes/blobs")).len(), 2, "old content is gone");
    // What somebody wrote there is kept, and said.
    std::fs::remove_file(laptop.path("server/docs/start.md")).unwrap();
    std::fs::write(laptop.path("server/docs/start.md"), "mine").unwrap();
    std::fs::write(laptop.path("server/docs/notes.md"), "my notes").unwrap();
    write(&world, "notes.md", "theirs");
    let report = laptop.json(&["pull"]);
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(2), "{report}");
    let kept: Vec<String> = documents(&laptop).into_iter().filter(|path| path.contains(".bak.")).collect();
    let texts: Vec<String> =
        kept.iter().map(|path| std::fs::read_to_string(laptop.path("server/docs").join(path)).unwrap()).collect();
    assert_eq!(texts, ["my notes", "mine"]);
    assert_eq!(std::fs::read_to_string(laptop.path("server/docs/notes.md")).unwrap(), "theirs");
    assert_eq!(laptop.json(&["pull"])["warnings"], Value::Null, "once");
}

#[test]
fn profiles_of_an_older_version_come_along_for_admins() {
    let world = World::start();
    let file = world.server.folder.path().join("src_data/metadata/profiles.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "{}").unwrap();
    let laptop = Laptop::of(&world, "admin");
    assert_eq!(std::fs::read_to_string(laptop.path("server/profiles/profiles.json")).unwrap(), "{}");
    let laptop = Laptop::of(&world, "member");
    assert!(!laptop.path("server/profiles").exists());
    assert_eq!(world.get("member", "/api/sync/assets/profiles/download?path=profiles.json").status, 404);
}

/// Something that does not pack.
fn noise(length: usize) -> String {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn documents_are_whole_whatever_happens_on_their_way() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    write(&world, "start.md", "# Start here");
    write(&world, "large.txt", &noise(20 << 20));
    let empty = || {
        let laptop = Laptop::new(&proxy.url());
        laptop.set_up(world.token("member"), &["--no-pull"]);
        laptop
    };
    let check = |laptop: &Laptop| {
        let manifest = world.get("member", "/api/sync/manifest").json();
        for file in manifest["assets"]["docs"]["files"].as_array().unwrap() {
            let path = laptop.path("server/docs").join(file["path"].as_str().unwrap());
            assert_eq!(json!(sha256(&path)), file["sha256"], "{file}");
        }
        assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]));
    };
    for how in [
        Crooked::Cut { after: 3 << 20, times: 3 },
        Crooked::Flip { times: 1 },
        Crooked::Throttle { times: 1 },
        Crooked::Fail { times: 2 },
        Crooked::NoRanges,
    ] {
        let laptop = empty();
        proxy.set(how.clone());
        let output = laptop.run(&["pull"]);
        assert!(output.status.success(), "{how:?}: {}", text(&output.stderr));
        check(&laptop);
    }
    // What does not come right is said, and nothing is new; the next one is well.
    for how in [Crooked::Flip { times: 99 }, Crooked::Short { by: 10 }, Crooked::Fail { times: 99 }] {
        let laptop = empty();
        proxy.set(how.clone());
        let output = laptop.command(&["pull", "--json"]).env("AGNES_STREAM_RETRIES", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{how:?}: {}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let named = |name: &str| report["errors"].as_array().unwrap().iter().any(|error| error["table"] == name);
        assert!(named("docs/large.txt") && named("orders"), "{how:?}: {report}");
        assert!(documents(&laptop).is_empty() && laptop.files().is_empty(), "{how:?}");
        proxy.set(Crooked::Not);
        laptop.ok(&["pull"]);
        check(&laptop);
    }
    // One that is not given keeps the tables back too, unless one says so.
    let laptop = empty();
    proxy.set(Crooked::Missing("large.txt"));
    let report = laptop.json_with(1, &["pull"]);
    assert_eq!(report["errors"][0]["code"], "asset_not_found", "{report}");
    assert!(laptop.files().is_empty(), "all or none");
    laptop.json_with(1, &["pull", "--partial"]);
    assert_eq!((documents(&laptop), laptop.files()), (vec!["start.md".to_owned()], vec!["orders.parquet".to_owned()]));
    proxy.set(Crooked::Not);
    laptop.ok(&["pull"]);
    check(&laptop);
    // Killed in the middle of a change: all of the old, then all of the new.
    write(&world, "start.md", "# Start anew");
    write(&world, "large.txt", &noise(21 << 20));
    proxy.set(Crooked::Slow { bytes: 64 << 10, pause: Duration::from_millis(2) });
    let before = proxy.moved();
    let mut child = laptop.command(&["pull"]).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while proxy.moved() < before + (12 << 20) {
        assert!(Instant::now() < patience && child.try_wait().unwrap().is_none(), "it never got that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_to_string(laptop.path("server/docs/start.md")).unwrap(), "# Start here");
    assert_eq!(laptop.path("server/docs/large.txt").metadata().unwrap().len(), 20 << 20);
    proxy.set(Crooked::Not);
    let report = laptop.json(&["pull"]);
    assert!(report["bytes_downloaded"].as_u64().unwrap() < 15 << 20, "it went on where it was: {report}");
    check(&laptop);
    assert!(files_below(&laptop.path(".agnes/incoming")).is_empty());
}

#[test]
fn no_manifest_makes_a_laptop_write_elsewhere() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let hash = "0".repeat(64);
    let manifest = |assets: Value| {
        json!({"tables": {}, "assets": assets, "server_time": "2026-01-01T00:00:00Z"}).to_string().into_bytes()
    };
    let of = |path: &str| json!({"docs": {"hash": "1", "files": [{"path": path, "hash": "", "sha256": hash, "size_bytes": 1}]}});
    let named = |kind: &str| {
        let mut assets = of("a.md");
        let docs = assets["docs"].take();
        json!({kind: docs})
    };
    let two = |one: &str, two: &str| {
        let mut assets = of(one);
        let second = of(two)["docs"]["files"][0].clone();
        assets["docs"]["files"].as_array_mut().unwrap().push(second);
        assets
    };
    let long = ["a"; 9].join("/");
    for assets in [
        of("../a.md"),
        of("/etc/passwd"),
        of("a/../../b"),
        of("a//b"),
        of(""),
        of(".."),
        of(".bashrc"),
        of("a\\b"),
        of("C:a"),
        of("a\nb"),
        of(&long),
        named(".."),
        named("../user"),
        named("parquet"),
        named("Parquet"),
        named(""),
        named(".agnes"),
        two("a.md", "A.md"),
        two("a", "a/b"),
    ] {
        let laptop = Laptop::new(&proxy.url());
        laptop.set_up(world.token("member"), &["--no-pull"]);
        let before = files_below(laptop.home());
        proxy.set(Crooked::Manifest(manifest(assets.clone())));
        let report = laptop.json_with(1, &["pull"]);
        assert_eq!(report["errors"][0]["code"], "manifest_bad_name", "{assets}: {report}");
        proxy.set(Crooked::Not);
        let ours = |path: &String| !path.ends_with("/lock");
        let now: Vec<String> = files_below(laptop.home()).into_iter().filter(ours).collect();
        assert_eq!(now, before.into_iter().filter(ours).collect::<Vec<_>>(), "{assets}");
    }
    // What has no hash to check it by is not taken.
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("member"), &["--no-pull"]);
    let mut assets = of("a.md");
    assets["docs"]["files"][0]["sha256"] = json!("");
    proxy.set(Crooked::Manifest(manifest(assets)));
    assert_eq!(laptop.json_with(1, &["pull"])["errors"][0]["code"], "manifest_unreadable");
    // What older servers say is enough.
    proxy.set(Crooked::Manifest(manifest(json!({"docs": {"hash": "1700000000"}, "profiles": {"hash": "x"}}))));
    laptop.ok(&["pull"]);
}

#[test]
fn a_backup_has_the_documents() {
    let world = World::start();
    write(&world, "deep/start.md", "# Start here");
    let place = tempfile::tempdir().unwrap();
    let (copy, back) = (place.path().join("copy"), place.path().join("back"));
    world.command(&["backup", copy.to_str().unwrap()]);
    let arguments = ["restore", copy.to_str().unwrap(), "--data-dir", back.to_str().unwrap(), "--yes"];
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(back.join("docs/deep/start.md")).unwrap(), "# Start here");
}

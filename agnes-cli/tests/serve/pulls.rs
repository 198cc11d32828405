//! What `agnes init` and `agnes pull` leave on a laptop, whatever happens on the way.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::Engine;
use agnes_core::clock::FixedClock;
use agnes_core::context::Client;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::crooked::{Crooked, Proxy};
use super::laptop::{Laptop, files_below, sha256, text};
use super::world::World;

#[test]
fn from_nothing_to_an_answer_and_nothing_moves_twice() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    for file in [
        "CLAUDE.md",
        "AGNES_WORKSPACE.md",
        ".claude/settings.json",
        ".claude/init-complete",
        ".claude/commands/agnes-private.md",
        ".claude/CLAUDE.local.md",
        "user/duckdb/analytics.duckdb",
    ] {
        assert!(laptop.path(file).is_file(), "{file}");
    }
    assert_eq!(laptop.files(), ["orders.parquet"]);
    assert_eq!(laptop.asks("select count(*)::int as n, sum(amount) as s from orders"), json!([{"n": 4, "s": 60.75}]));
    let told = world.get("member", "/api/sync/manifest").json();
    assert_eq!(json!(sha256(&laptop.path("server/parquet/orders.parquet"))), told["tables"]["orders"]["sha256"]);
    let state = laptop.state();
    assert_eq!(state["public_key"], told["public_key"], "the key is kept");
    assert_eq!(state["tables"]["orders"]["hash"], told["tables"]["orders"]["hash"]);
    let again = laptop.json(&["pull"]);
    assert_eq!((&again["tables_updated"], &again["bytes_downloaded"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!(again["errors"], json!([]));
    let log = world.server.logs();
    let requests = log.lines().filter(|line| line.contains("/download")).count();
    assert!(requests > 0, "the log names downloads");
    laptop.ok(&["pull", "--quiet"]);
    let log = world.server.logs();
    assert_eq!(log.lines().filter(|line| line.contains("/download")).count(), requests, "nothing was fetched again");
    let status = laptop.json(&["status"]);
    assert_eq!(
        (&status["parquet_tables"], &status["initialized"], &status["hooks_installed"]),
        (&json!(1), &json!(true), &json!(true))
    );
    // In a folder below it is the same workspace.
    let below = laptop.path("notes/deep");
    std::fs::create_dir_all(&below).unwrap();
    let mut command = laptop.command(&["query", "select count(*)::int as n from orders", "--json"]);
    assert_eq!(
        text(&command.current_dir(below).output().unwrap().stdout).split_whitespace().collect::<String>(),
        "[{\"n\":4}]"
    );
    let told = laptop.fails(1, &["init", "--server-url", &laptop.server]);
    assert!(told.contains("workspace already"), "{told}");
}

#[test]
fn only_what_changed_moves_and_what_was_revoked_goes() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    assert_eq!(laptop.files(), ["orders.parquet", "people.parquet"]);
    let people = sha256(&laptop.path("server/parquet/people.parquet"));
    std::fs::write(world.server.folder.path().join("files/orders.csv"), "id,status,amount\n1,paid,10.5\n").unwrap();
    world.command(&["sync", "--source", "shop"]);
    let dry = laptop.json(&["pull", "--dry-run"]);
    assert_eq!(dry["would_download"].as_array().unwrap().len(), 1, "{dry}");
    assert_eq!(
        (&dry["would_download"][0]["table"], &dry["would_download"][0]["reason"]),
        (&json!("orders"), &json!("changed"))
    );
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]), "a dry run changes nothing");
    let report = laptop.json(&["pull"]);
    assert_eq!((&report["tables_updated"], &report["updated"]), (&json!(1), &json!(["orders"])), "{report}");
    assert_eq!(report["bytes_downloaded"], dry["would_download"][0]["size_bytes"], "only its bytes moved");
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 1}]));
    assert_eq!(sha256(&laptop.path("server/parquet/people.parquet")), people);
    let blobs = |laptop: &Laptop| files_below(&laptop.path(".agnes/blobs")).len();
    assert_eq!(blobs(&laptop), 3, "what was read before is kept");
    world.publish_orders(2);
    laptop.ok(&["pull"]);
    assert_eq!(blobs(&laptop), 3, "for one generation");

    let member = Laptop::of(&world, "member");
    member.ok(&["query", "select * from orders"]);
    let database = duckdb::Connection::open(member.path("user/duckdb/analytics.duckdb")).unwrap();
    database.execute_batch("CREATE TABLE mine AS SELECT 7 AS n; CREATE VIEW of_orders AS SELECT 1 AS n").unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "other tools see the tables as views");
    drop(database);
    world.publish_orders(3);
    member.ok(&["pull"]);
    assert_eq!(blobs(&member), 2);
    world.revoke("orders");
    let report = member.json(&["pull"]);
    assert_eq!(report["removed"], json!(["orders"]), "{report}");
    assert!(member.files().is_empty() && files_below(&member.path(".agnes/blobs")).is_empty());
    member.fails(8, &["query", "select * from orders"]);
    assert_eq!(member.asks("select n from mine"), json!([{"n": 7}]), "what is the owner's own stays");
}

#[test]
fn a_revoked_table_goes_though_it_is_asked_for_by_name() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    world.revoke("orders");
    laptop.fails(8, &["pull", "orders", "--dry-run"]);
    assert_eq!(laptop.files(), ["orders.parquet"], "a dry run changes nothing");
    let told = laptop.fails(8, &["pull", "orders"]);
    assert!(told.contains("no table `orders`"), "{told}");
    assert!(laptop.files().is_empty() && files_below(&laptop.path(".agnes/blobs")).is_empty());
    laptop.fails(8, &["query", "select * from orders"]);
    laptop.ok(&["pull"]);
}

#[test]
fn a_table_in_parts_is_here_part_by_part() {
    let world = World::start();
    let folder = world.server.folder.path().join("visits");
    std::fs::create_dir(&folder).unwrap();
    let publish = |rows: &[(&str, u32)]| {
        let lines: String = rows.iter().map(|(day, n)| format!("{day},{n}\n")).collect();
        std::fs::write(folder.join("visits.csv"), format!("day,n\n{lines}")).unwrap();
        world.command(&["sync", "--source", "web"]);
    };
    world.command(&["source", "add", "web", "--path", folder.to_str().unwrap(), "--set", "partition_by=day"]);
    publish(&[("mon", 1), ("mon", 2), ("tue", 3)]);
    let laptop = Laptop::of(&world, "admin");
    let parts = || -> Vec<String> { laptop.files().into_iter().filter(|file| file.starts_with("visits/")).collect() };
    let sums = |laptop: &Laptop| laptop.asks("select day, sum(n)::int as n from visits group by day order by day");
    assert_eq!(parts().len(), 2, "{:?}", laptop.files());
    assert_eq!(sums(&laptop), json!([{"day": "mon", "n": 3}, {"day": "tue", "n": 3}]));
    let view = |sql: &str| -> i64 {
        let database = duckdb::Connection::open(laptop.path("user/duckdb/analytics.duckdb")).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(view("SELECT count(*) FROM visits"), 3);
    // One part is other, one is new: the third does not move.
    publish(&[("mon", 1), ("mon", 2), ("tue", 4), ("wed", 5)]);
    let manifest = world.get("admin", "/api/sync/manifest").json();
    let told = manifest["tables"]["visits"]["parts"].as_array().unwrap();
    let known: Vec<String> = files_below(&laptop.path(".agnes/blobs"));
    let moves = told.iter().filter(|part| !known.iter().any(|blob| blob.starts_with(part["sha256"].as_str().unwrap())));
    let moves: Vec<u64> = moves.map(|part| part["size_bytes"].as_u64().unwrap()).collect();
    let report = laptop.json(&["pull"]);
    assert_eq!((moves.len(), &report["bytes_downloaded"]), (2, &json!(moves.iter().sum::<u64>())), "{report}");
    assert_eq!(sums(&laptop), json!([{"day": "mon", "n": 3}, {"day": "tue", "n": 4}, {"day": "wed", "n": 5}]));
    // A part that is no more, and one that somebody deleted.
    publish(&[("mon", 1), ("mon", 2), ("wed", 5)]);
    laptop.ok(&["pull"]);
    assert_eq!((parts().len(), sums(&laptop)), (2, json!([{"day": "mon", "n": 3}, {"day": "wed", "n": 5}])));
    std::fs::remove_file(laptop.path("server/parquet").join(&parts()[0])).unwrap();
    laptop.ok(&["pull"]);
    assert_eq!((parts().len(), view("SELECT count(*) FROM visits")), (2, 3));
}

/// A world whose `orders` have enough bytes to come in several pieces, and a proxy before it.
fn large() -> (World, Proxy) {
    let world = World::start();
    // Texts that do not pack well: some 23 MB of Parquet.
    let sql = "SELECT range AS id, md5(range::VARCHAR) || md5((range + 7)::VARCHAR) || md5((range + 13)::VARCHAR) AS status, range * 1.5 AS amount FROM range(1000000)";
    let file = world.server.folder.path().join("files/orders.csv");
    let database = duckdb::Connection::open_in_memory().unwrap();
    database.execute_batch(&format!("COPY ({sql}) TO '{}' (HEADER)", file.display())).unwrap();
    world.command(&["sync", "--source", "shop"]);
    let proxy = Proxy::before(world.server.address);
    (world, proxy)
}

/// A laptop whose workspace is set up behind the proxy, without tables.
fn empty(world: &World, proxy: &Proxy) -> Laptop {
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("member"), &["--no-pull"]);
    laptop
}

/// Every file here is what the manifest says, and the state names exactly those.
fn check_whole(laptop: &Laptop, manifest: &Value) {
    let state = laptop.state();
    for (name, table) in manifest["tables"].as_object().unwrap() {
        let file = laptop.path(&format!("server/parquet/{name}.parquet"));
        assert_eq!(json!(sha256(&file)), table["sha256"], "{name}");
        assert_eq!(state["tables"][name]["hash"], table["hash"], "{name}");
    }
    assert_eq!(state["generation"], manifest["generation"]);
}

/// Environment that makes a small file come as a large one does.
const IN_RANGES: [(&str, &str); 1] = [("AGNES_PULL_CHUNK_THRESHOLD_BYTES", "1")];

#[test]
fn whatever_the_network_does_the_next_pull_repairs() {
    let (world, proxy) = large();
    let manifest = world.get("member", "/api/sync/manifest").json();
    let size = usize::try_from(manifest["tables"]["orders"]["size_bytes"].as_u64().unwrap()).unwrap();
    assert!(size > 17 << 20, "several pieces: {size}");
    // What one pull gets over by itself.
    for (how, ranges) in [
        (Crooked::Cut { after: 3 << 20, times: 3 }, true),
        (Crooked::Cut { after: 3 << 20, times: 3 }, false),
        (Crooked::Flip { times: 1 }, true),
        (Crooked::Flip { times: 1 }, false),
        (Crooked::Throttle { times: 2 }, true),
        (Crooked::Fail { times: 2 }, false),
        (Crooked::NoRanges, true),
    ] {
        let laptop = empty(&world, &proxy);
        proxy.set(how.clone());
        let mut command = laptop.command(&["pull", "--json"]);
        if ranges {
            command.envs(IN_RANGES);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{how:?}: {} {}", text(&output.stdout), text(&output.stderr));
        check_whole(&laptop, &manifest);
        assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 1_000_000}]), "{how:?}");
    }
    // What it cannot get over: it says so, nothing is here, and the next one is well.
    for how in [Crooked::Flip { times: 99 }, Crooked::Short { by: 10 }, Crooked::Fail { times: 99 }] {
        let laptop = empty(&world, &proxy);
        proxy.set(how.clone());
        let output = laptop.command(&["pull", "--json"]).env("AGNES_STREAM_RETRIES", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{how:?}: {}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["errors"][0]["table"], "orders", "{how:?}: {report}");
        assert!(laptop.files().is_empty(), "{how:?}: no bad file under a good name");
        proxy.set(Crooked::Not);
        laptop.ok(&["pull"]);
        check_whole(&laptop, &manifest);
    }
}

/// However often a server publishes while files come: all of one generation is here at the end.
#[test]
fn a_server_that_publishes_meanwhile_leaves_one_generation() {
    let (world, proxy) = large();
    let laptop = empty(&world, &proxy);
    proxy.set(Crooked::Slow { bytes: 64 << 10, pause: Duration::from_millis(2) });
    let mut manifests = vec![world.get("member", "/api/sync/manifest").json()];
    let mut child = laptop.command(&["pull", "--json"]).envs(IN_RANGES).spawn().unwrap();
    for round in 1..=2_u64 {
        let (begun, patience) = (proxy.moved(), Instant::now() + Duration::from_secs(120));
        while proxy.moved() < begun + (2 << 20) && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < patience, "it never got that far");
            std::thread::sleep(Duration::from_millis(5));
        }
        let lines: String = (0..1000 * round).map(|n| format!("{n},x{n},1\n")).collect();
        let file = world.server.folder.path().join("files/orders.csv");
        std::fs::write(file, format!("id,status,amount\n{lines}")).unwrap();
        world.command(&["sync", "--source", "shop"]);
        // The content that is on its way is not there any more.
        world.command(&["gc"]);
        manifests.push(world.get("member", "/api/sync/manifest").json());
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let generation = laptop.state()["generation"].clone();
    let ended_in = manifests.iter().find(|manifest| manifest["generation"] == generation);
    check_whole(&laptop, ended_in.unwrap_or_else(|| panic!("no generation {generation}")));
    proxy.set(Crooked::Not);
    laptop.ok(&["pull"]);
    check_whole(&laptop, &world.get("member", "/api/sync/manifest").json());
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 2000}]));
    assert!(files_below(&laptop.path(".agnes/incoming")).is_empty());
}

#[test]
fn a_pull_that_is_killed_goes_on_where_it_was() {
    let (world, proxy) = large();
    let manifest = world.get("member", "/api/sync/manifest").json();
    let size = usize::try_from(manifest["tables"]["orders"]["size_bytes"].as_u64().unwrap()).unwrap();
    let laptop = empty(&world, &proxy);
    proxy.set(Crooked::Slow { bytes: 64 << 10, pause: Duration::from_millis(2) });
    let mut child = laptop.command(&["pull"]).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while proxy.moved() < 12 << 20 {
        assert!(Instant::now() < patience && child.try_wait().unwrap().is_none(), "it never got that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(laptop.files().is_empty(), "nothing has its name before it is whole");
    proxy.set(Crooked::Not);
    std::thread::sleep(Duration::from_millis(100));
    let before = proxy.moved();
    let report = laptop.json(&["pull"]);
    let again = proxy.moved() - before;
    assert!(again < size - (7 << 20), "the first pieces did not move again: {again} of {size}");
    assert_eq!(report["bytes_downloaded"], json!(again));
    check_whole(&laptop, &manifest);
    // Killed anywhere, many times: the old data answers, and the last pull ends well.
    for round in 0..12_u64 {
        let rows = 1000 + round;
        let lines: String = (0..rows).map(|n| format!("{n},x{n},1\n")).collect();
        std::fs::write(world.server.folder.path().join("files/orders.csv"), format!("id,status,amount\n{lines}"))
            .unwrap();
        world.command(&["sync", "--source", "shop"]);
        let before = laptop.asks("select count(*)::int as n from orders");
        let mut child = laptop.command(&["pull", "--quiet"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + round * 25));
        let _ = child.kill();
        child.wait().unwrap();
        // The generation of before, of now, or of a pull that was killed when all had come.
        let now = laptop.asks("select count(*)::int as n from orders");
        assert!(
            now == before || (1000..=rows).contains(&now[0]["n"].as_u64().unwrap()),
            "round {round}: {before} {now}"
        );
        for file in laptop.files() {
            let sum = sha256(&laptop.path("server/parquet").join(&file));
            let state = laptop.state();
            let pending = std::fs::read_to_string(laptop.path(".agnes/switch.json")).unwrap_or_default();
            assert!(
                state.to_string().contains(&sum) || pending.contains(&sum),
                "round {round}: {file} is of no generation"
            );
        }
        if round % 3 == 2 {
            laptop.ok(&["pull"]);
            check_whole(&laptop, &world.get("member", "/api/sync/manifest").json());
            assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": rows}]));
            assert!(files_below(&laptop.path(".agnes/incoming")).is_empty());
        }
    }
}

#[test]
fn old_foreign_and_changed_manifests_are_refused() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("admin"), &[]);
    let manifest = |who: &str| world.get(who, "/api/sync/manifest").body;
    let old = manifest("admin");
    std::fs::write(world.server.folder.path().join("files/orders.csv"), "id,status,amount\n1,new,1\n").unwrap();
    world.command(&["sync", "--source", "shop"]);
    laptop.ok(&["pull"]);
    let good = manifest("admin");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&good).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    for (sent, code) in [
        (old.clone(), "manifest_rollback"),
        (manifest("member"), "manifest_of_other"),
        (changed(&|m| m["tables"]["people"]["sha256"] = json!("0".repeat(64))), "manifest_of_other"),
        (changed(&|m| drop(m["tables"].as_object_mut().unwrap().remove("people"))), "manifest_of_other"),
        (changed(&|m| m["tables"]["people"]["more"] = json!(1)), "manifest_of_other"),
        (changed(&|m| m["generation"] = json!(9_999)), "manifest_of_other"),
        (changed(&|m| m["expires_at"] = json!("2099-01-01T00:00:00Z")), "manifest_of_other"),
        (changed(&|m| m["public_key"] = json!("ab".repeat(32))), "manifest_other_key"),
        (changed(&|m| drop(m.as_object_mut().unwrap().remove("signature"))), "manifest_of_other"),
        (b"{}".to_vec(), "manifest_unreadable"),
        (b"<html>".to_vec(), "manifest_unreadable"),
    ] {
        // A file that is gone makes the pull ask for the whole manifest.
        std::fs::remove_file(laptop.path("server/parquet/people.parquet")).unwrap();
        proxy.set(Crooked::Manifest(sent));
        let report = laptop.json_with(1, &["pull"]);
        let error = &report["errors"][0];
        assert_eq!((&error["stage"], &error["code"]), (&json!("manifest"), &json!(code)), "{report}");
        assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 1}]), "what is here stays");
        proxy.set(Crooked::Not);
        laptop.ok(&["pull"]);
    }
    // Whoever was told may say so.
    proxy.set(Crooked::Manifest(old));
    std::fs::remove_file(laptop.path("server/parquet/people.parquet")).unwrap();
    let told = laptop.fails(1, &["pull"]);
    assert!(told.contains("--accept-older"), "{told}");
}

/// What was pulled is good for a day, and so is the word that nothing changed since.
#[test]
fn a_manifest_whose_time_is_over_is_refused() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("admin"), &[]);
    let until = || laptop.state()["expires_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    proxy.set(Crooked::Unchanged);
    assert_eq!(laptop.json(&["pull"])["errors"], json!([]), "nothing changed, and the day is not over");
    let mut state = laptop.state();
    state["expires_at"] = json!(Utc::now() - TimeDelta::minutes(1));
    std::fs::write(laptop.path(".agnes/sync_state.json"), state.to_string()).unwrap();
    let output = laptop.run(&["pull", "--json"]);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    proxy.set(Crooked::Not);
    let report = laptop.json(&["pull"]);
    assert_eq!((&report["updated"], &report["bytes_downloaded"]), (&json!([]), &json!(0)), "{report}");
    assert!(until() > Utc::now() + TimeDelta::hours(23), "another day: {}", until());

    // The server's own of two days ago.
    let token = world.token("admin").to_owned();
    world.server.signal("TERM");
    let (_, folder) = world.server.ended();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let old = runtime.block_on(async {
        let now = Engine::builder(folder.path()).for_one_command().open().await.unwrap();
        let ctx = now.sign_in().authenticate(&Client::at(None), &token).await.unwrap();
        now.close().await.unwrap();
        let clock = Arc::new(FixedClock::at(Utc::now() - TimeDelta::days(2)));
        let then = Engine::builder(folder.path()).for_one_command().clock(clock).open().await.unwrap();
        let manifest = then.catalog().manifest(&ctx).await.unwrap();
        then.close().await.unwrap();
        serde_json::to_vec(&manifest).unwrap()
    });
    proxy.set(Crooked::Manifest(old));
    let report = laptop.json_with(1, &["pull"]);
    assert_eq!(report["errors"][0]["code"], "manifest_expired", "{report}");
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]), "what is here stays");
}

#[test]
fn one_table_that_does_not_come_is_named_and_the_rest_comes_if_asked() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("admin"), &["--no-pull"]);
    proxy.set(Crooked::Gone("people"));
    let report = laptop.json_with(1, &["pull"]);
    assert_eq!((&report["errors"][0]["table"], &report["tables_updated"]), (&json!("people"), &json!(0)), "{report}");
    assert!(laptop.files().is_empty(), "all tables or none");
    let report = laptop.json_with(1, &["pull", "--partial"]);
    assert_eq!(report["updated"], json!(["orders"]), "{report}");
    assert_eq!(laptop.files(), ["orders.parquet"]);
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]));
    proxy.set(Crooked::Not);
    assert_eq!(laptop.json(&["pull"])["updated"], json!(["people"]), "the next one has the rest");
}

/// Copies what is in one folder into another, as a backup does.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_server_that_was_restored_from_a_backup_is_taken_if_asked() {
    let world = World::start();
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("member"), &[]);
    let backup = tempfile::tempdir().unwrap();
    let world = world.changed(|folder| copy(folder, backup.path()));
    proxy.turn_to(world.server.address);
    world.publish_orders(2);
    laptop.ok(&["pull"]);
    let world = world.changed(|folder| {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        copy(backup.path(), folder);
    });
    proxy.turn_to(world.server.address);
    let rows = || laptop.asks("select count(*)::int as n from orders");
    assert_eq!(laptop.json_with(1, &["pull"])["errors"][0]["code"], "manifest_rollback");
    assert_eq!(rows(), json!([{"n": 2}]), "what is here stays");
    assert_eq!(laptop.json(&["pull", "--accept-older"])["updated"], json!(["orders"]));
    assert_eq!((rows(), &laptop.json(&["pull"])["errors"]), (json!([{"n": 4}]), &json!([])));
}

#[test]
fn a_server_that_was_set_up_anew_is_taken_if_asked() {
    // With people of its own, who are others than everywhere.
    let (world, anew) = (World::start(), World::start_for(1, &[], &[]));
    let proxy = Proxy::before(world.server.address);
    let laptop = Laptop::new(&proxy.url());
    laptop.set_up(world.token("member"), &[]);
    anew.publish_orders(2);
    proxy.turn_to(anew.server.address);
    let sign_in = |who: &str| {
        let arguments = ["auth", "import-token", "--server", &laptop.server, "--token", "-"];
        let output = laptop.with_input(&arguments, anew.token(who));
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let refused = |arguments: &[&str]| {
        let state = laptop.state();
        let report = laptop.json_with(1, arguments);
        assert_eq!(laptop.state(), state, "what is here stays");
        report["errors"][0]["code"].as_str().unwrap().to_owned()
    };
    sign_in("admin");
    assert_eq!(refused(&["pull", "--accept-new-key"]), "manifest_of_other", "it is not theirs");
    sign_in("member");
    assert_eq!(refused(&["pull"]), "manifest_other_key");
    assert_eq!(laptop.json(&["pull", "--accept-new-key"])["updated"], json!(["orders"]));
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 2}]));
    check_whole(&laptop, &anew.get("member", "/api/sync/manifest").json());
    assert_eq!(laptop.json(&["pull"])["errors"], json!([]), "the new key is kept");
}

/// Whoever was killed in the middle of a switch does not get back what somebody else has now.
#[test]
fn a_switch_of_whose_it_was_is_over_when_somebody_else_begins() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let switch = laptop.path(".agnes/switch.json");
    for more in [&["--force", "--no-pull"][..], &["--force"]] {
        for who in ["admin", "member"] {
            std::fs::copy(laptop.path(".agnes/sync_state.json"), &switch).unwrap();
            laptop.set_up(world.token(who), more);
            assert_eq!(laptop.state()["email"], format!("{who}@example.com"));
            assert!(!switch.exists());
            assert_eq!(laptop.json(&["pull"])["errors"], json!([]), "{who}");
            assert_eq!(laptop.files().len(), if who == "admin" { 2 } else { 1 });
        }
    }
}

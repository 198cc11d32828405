//! The database of a workspace: what its owner keeps beside the views over the tables, and who else
//! has it open.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use duckdb::{AccessMode, Config, Connection};
use serde_json::json;

use super::laptop::{Laptop, files_below, sha256};
use super::world::World;

fn database(laptop: &Laptop, mode: AccessMode) -> Connection {
    let config = Config::default().access_mode(mode).unwrap();
    Connection::open_with_flags(laptop.path("user/duckdb/analytics.duckdb"), config).unwrap()
}

fn make(laptop: &Laptop, sql: &str) {
    database(laptop, AccessMode::ReadWrite).execute_batch(sql).unwrap();
}

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_table_of_the_owners_wins_whatever_else_a_query_names() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("admin"), &["--lazy"]);
    make(&laptop, "CREATE TABLE orders AS SELECT 7 AS n; CREATE TABLE mine AS SELECT 1 AS one");
    laptop.ok(&["pull", "people"]);
    let report = laptop.json(&["pull", "orders"]);
    assert!(report["warnings"].to_string().contains("`orders` in the database is your own"), "{report}");
    for sql in [
        "select n from orders",
        "select n from ORDERS",
        "select n from orders, mine",
        "select n from orders, people limit 1",
    ] {
        assert_eq!(laptop.asks(sql), json!([{"n": 7}]), "{sql}");
    }
    assert_eq!(number(&database(&laptop, AccessMode::ReadOnly), "SELECT n FROM orders"), 7);
    make(&laptop, "DROP TABLE orders");
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]), "the server's is there again");
}

#[test]
fn views_of_the_owners_read_what_was_pulled() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    laptop.ok(&["snapshot", "create", "orders", "--where", "status = 'paid'", "--as", "paid"]);
    make(
        &laptop,
        "CREATE VIEW v AS SELECT * FROM orders; CREATE VIEW both_of AS SELECT v.id FROM v JOIN paid USING (id); \
         CREATE TABLE mine AS SELECT 7 AS n",
    );
    assert_eq!(laptop.asks("select count(*)::int as n from v"), json!([{"n": 4}]));
    assert_eq!(laptop.asks("select id::int as id from both_of order by 1"), json!([{"id": 1}, {"id": 3}]));
    assert_eq!(laptop.asks("select count(*)::int as n from v, orders, mine"), json!([{"n": 16}]));
    world.publish_orders(2);
    laptop.ok(&["pull"]);
    assert_eq!(laptop.asks("select count(*)::int as n from v"), json!([{"n": 2}]), "the view stayed, its rows are new");
    // A view over what is gone is in nobody else's way.
    world.revoke("orders");
    laptop.ok(&["pull"]);
    assert_ne!(laptop.run(&["query", "select * from v"]).status.code(), Some(0));
    assert_eq!(laptop.asks("select n from mine"), json!([{"n": 7}]));
}

#[test]
fn a_database_that_is_open_elsewhere_loses_nothing() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    make(&laptop, "CREATE TABLE mine AS SELECT 7 AS n");
    // Who only reads keeps what they have; who comes after sees the new.
    let reader = database(&laptop, AccessMode::ReadOnly);
    world.publish_orders(1);
    let report = laptop.json(&["pull"]);
    assert_eq!((&report["updated"], report.get("warnings")), (&json!(["orders"]), None), "{report}");
    assert_eq!(number(&reader, "SELECT n FROM mine"), 7);
    assert_eq!(number(&reader, "SELECT count(*) FROM orders"), 4, "its views read on");
    drop(reader);
    let after = database(&laptop, AccessMode::ReadOnly);
    assert_eq!(number(&after, "SELECT n FROM mine") + number(&after, "SELECT count(*) FROM orders"), 8);
    drop(after);
    // What somebody writes is not lost: the views wait.
    let writer = database(&laptop, AccessMode::ReadWrite);
    writer.execute_batch("CREATE TABLE more AS SELECT 8 AS n").unwrap();
    world.publish_orders(2);
    let report = laptop.json(&["pull"]);
    assert!(report["warnings"].to_string().contains("open in another program"), "{report}");
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 2}]), "it needs no database");
    writer.execute_batch("INSERT INTO more VALUES (9)").unwrap();
    drop(writer);
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None);
    let after = database(&laptop, AccessMode::ReadOnly);
    assert_eq!(number(&after, "SELECT count(*) FROM orders"), 2);
    assert_eq!(number(&after, "SELECT sum(n)::BIGINT FROM more") + number(&after, "SELECT n FROM mine"), 24);
}

/// It is no more in the way of a pull than one that is not there.
#[test]
fn a_database_that_does_not_open_is_kept_and_made_anew() {
    let world = World::start();
    world.command(&["admin", "grant", "create", "analysts", "table", "people"]);
    let laptop = Laptop::of(&world, "member");
    let people = sha256(&laptop.path("server/parquet/people.parquet"));
    let noise: Vec<u8> = (0..20_000_u32).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
    let database_file = laptop.path("user/duckdb/analytics.duckdb");
    let spoil = || {
        std::fs::write(&database_file, &noise).unwrap();
        std::fs::write(database_file.with_extension("duckdb.wal"), &noise).unwrap();
    };
    spoil();
    let report = laptop.json(&["pull"]);
    assert!(report["warnings"].to_string().contains("could not be opened"), "though nothing changed: {report}");
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None, "it is well again");
    spoil();
    world.publish_orders(1);
    world.revoke("people");
    let report = laptop.json(&["pull"]);
    assert_eq!((&report["errors"], &report["removed"]), (&json!([]), &json!(["people"])), "{report}");
    let told = report["warnings"][0].as_str().unwrap();
    assert!(told.contains("tables of your own") && told.contains("analytics.duckdb.bak."), "{told}");
    let folder = laptop.path("user/duckdb");
    let kept: Vec<String> = files_below(&folder).into_iter().filter(|name| name.contains(".bak.")).collect();
    assert_eq!(kept.len(), 4, "each with its log: {kept:?}");
    assert!(kept.iter().all(|name| std::fs::read(folder.join(name)).unwrap() == noise), "{kept:?}");
    assert_eq!(laptop.files(), ["orders.parquet"]);
    assert!(files_below(&laptop.path(".agnes/blobs")).iter().all(|blob| !blob.starts_with(&people)));
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 1}]));
    assert_eq!(number(&database(&laptop, AccessMode::ReadOnly), "SELECT count(*) FROM orders"), 1);
}

#[test]
fn a_query_reads_on_whatever_is_pulled_meanwhile() {
    let world = World::start();
    let folder = world.server.folder.path().join("visits");
    std::fs::create_dir(&folder).unwrap();
    let publish = |generation: u32| {
        // More than anybody holds between the files and a reader who does not read.
        let sql =
            format!("SELECT 'd' || range % 30 AS day, md5(range::VARCHAR) AS x, {generation} AS g FROM range(600000)");
        let file = folder.join("visits.csv");
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(&format!("COPY ({sql}) TO '{}' (HEADER)", file.display())).unwrap();
        world.command(&["sync", "--source", "web"]);
    };
    world.command(&["source", "add", "web", "--path", folder.to_str().unwrap(), "--set", "partition_by=day"]);
    publish(0);
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("admin"), &["--lazy"]);
    laptop.ok(&["pull", "visits"]);
    let blobs = || files_below(&laptop.path(".agnes/blobs")).len();
    assert_eq!(blobs(), 30);
    let mut asking = laptop.command(&["query", "select * from visits", "-f", "csv", "--limit", "0"]).spawn().unwrap();
    let mut told = BufReader::new(asking.stdout.take().unwrap());
    told.read_line(&mut String::new()).unwrap();
    for generation in [1, 2] {
        publish(generation);
        assert_eq!(laptop.json(&["pull"])["updated"], json!(["visits"]));
    }
    let rows = told.lines().filter(|line| line.as_ref().unwrap().ends_with(",0")).count();
    assert_eq!((rows, asking.wait().unwrap().code()), (600_000, Some(0)));
    assert_eq!(blobs(), 90, "those that were read, and those of the generation before");
    publish(3);
    laptop.ok(&["pull"]);
    assert_eq!(blobs(), 60, "nobody reads: one generation more");
}

/// Where nothing changed, nor the file, it is not opened: that takes longer than all the rest of a pull.
#[test]
fn a_database_is_opened_when_it_or_its_views_change() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let file = laptop.path("user/duckdb/analytics.duckdb");
    let rows = || number(&database(&laptop, AccessMode::ReadOnly), "SELECT count(*) FROM orders");
    let time = file.metadata().unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[12..].fill(7);
    std::fs::write(&file, &bytes).unwrap();
    File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None);
    assert!(std::fs::read(&file).unwrap() == bytes, "nobody touched it");
    std::fs::write(&file, &bytes).unwrap();
    let report = laptop.json(&["pull"]);
    assert!(report["warnings"].to_string().contains("could not be opened"), "though nothing changed: {report}");
    assert_eq!(rows(), 4);
    // What its owner writes is looked at once.
    make(&laptop, "CREATE TABLE mine AS SELECT range AS n FROM range(100000)");
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None);
    assert_eq!(laptop.state()["database"][0], file.metadata().unwrap().len());
    world.publish_orders(1);
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None);
    assert_eq!(rows(), 1);
    std::fs::write(&file, "").unwrap();
    laptop.ok(&["pull"]);
    assert_eq!(rows(), 1, "an empty file");
}

/// Whose views are in it cannot be told then, and taken for the owner's own they would stay for ever.
#[test]
fn a_workspace_is_not_begun_anew_while_its_database_is_written_to() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    std::fs::remove_file(laptop.path(".agnes/sync_state.json")).unwrap();
    let writer = database(&laptop, AccessMode::ReadWrite);
    let told = laptop.fails(1, &["init", "--force"]);
    assert!(told.contains("is open in another program") && told.contains("close it there"), "{told}");
    assert_eq!(laptop.files(), ["orders.parquet"], "all is as it was");
    drop(writer);
    laptop.ok(&["init", "--force"]);
    world.publish_orders(2);
    assert_eq!(laptop.json(&["pull"]).get("warnings"), None);
    assert_eq!(number(&database(&laptop, AccessMode::ReadOnly), "SELECT count(*) FROM orders"), 2);
}

#[test]
fn a_workspace_whose_state_is_damaged_or_gone_is_begun_anew() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    // The server is that of the workspace, whichever is kept.
    let other = Laptop::new("http://127.0.0.1:9");
    laptop.ok(&["setup", "init", "--server", &other.server]);
    laptop.ok(&["snapshot", "create", "orders", "--as", "mine"]);
    let state = laptop.path(".agnes/sync_state.json");
    make(&laptop, "CREATE VIEW own AS SELECT 5 AS n");
    for (how, rows) in [("damaged", 1), ("gone", 2), ("all gone", 3)] {
        match how {
            "damaged" => std::fs::write(&state, "{").unwrap(),
            "gone" => std::fs::remove_file(&state).unwrap(),
            _ => std::fs::remove_dir_all(laptop.path(".agnes")).unwrap(),
        }
        for arguments in [&["pull"][..], &["query", "select count(*) from orders"], &["status"]] {
            let told = laptop.fails(5, arguments);
            assert!(told.contains("gone, or cannot be read") && told.contains("agnes init --force"), "{how}: {told}");
        }
        let told = laptop.json_with(1, &["diagnose"]);
        assert!(told["suggested_actions"].to_string().contains("agnes init --force"), "{how}: {told}");
        assert!(told["checks"].to_string().contains("signed in as member@example.com"), "{how}: {told}");
        assert!(laptop.ok(&["catalog"]).contains("orders"), "{how}: the server goes on answering");
        let file_of_before = laptop.path("server/parquet/revoked/part.parquet");
        std::fs::create_dir_all(file_of_before.parent().unwrap()).unwrap();
        std::fs::write(&file_of_before, "rows").unwrap();
        laptop.ok(&["init", "--force"]);
        assert!(!file_of_before.exists(), "{how}");
        // No view of before is taken for somebody's own.
        world.publish_orders(rows);
        let report = laptop.json(&["pull"]);
        assert_eq!((&report["errors"], report.get("warnings")), (&json!([]), None), "{how}: {report}");
        let count = |of: &str| laptop.asks(&format!("select count(*)::int as n from {of}"))[0]["n"].clone();
        assert_eq!((count("orders"), count("mine"), count("own")), (json!(rows), json!(4), json!(1)), "{how}");
        let views =
            number(&database(&laptop, AccessMode::ReadOnly), "SELECT count(*) * 10 + (SELECT n FROM own) FROM orders");
        assert_eq!(views, i64::try_from(rows * 10 + 5).unwrap(), "{how}");
        laptop.ok(&["setup", "init", "--server", &other.server]);
    }
}

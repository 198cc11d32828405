//! Snapshots beside what else has a name in a workspace, and what is said of them.

use serde_json::json;

use super::laptop::{Laptop, files_below, text};
use super::world::World;

#[test]
fn a_snapshot_is_known_by_one_spelling() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let none = laptop.run(&["snapshot", "list"]);
    assert!(text(&none.stderr).contains("agnes snapshot create"), "{}", text(&none.stderr));
    assert!(laptop.ok(&["disk-info"]).starts_with("0 snapshots: 0 B of 10.00 GB"), "as `AGNES_SNAPSHOT_QUOTA_GB` says");
    laptop.ok(&["snapshot", "create", "orders", "--as", "Mine"]);
    assert!(laptop.fails(8, &["snapshot", "drop", "mine"]).contains("did you mean `Mine`"));
    for more in [&[][..], &["--force"]] {
        let told = laptop.fails(6, &[&["snapshot", "create", "orders", "--as", "mine", "--limit", "1"], more].concat());
        assert!(told.contains("spelled `Mine`") && told.contains("--as NAME"), "{told}");
    }
    for name in ["Mine", "mine"] {
        assert_eq!(laptop.asks(&format!("select count(*)::int as n from {name}")), json!([{"n": 4}]), "{name}");
    }
    laptop.fails(6, &["snapshot", "create", "orders", "--as", "Mine"]);
    laptop.ok(&["snapshot", "create", "orders", "--as", "Mine", "--limit", "1", "--force"]);
    assert_eq!(laptop.asks("select count(*)::int as n from mine"), json!([{"n": 1}]));
}

#[test]
fn a_table_that_takes_the_name_of_a_snapshot_is_told_of() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    laptop.set_up(world.token("member"), &[]);
    laptop.ok(&["snapshot", "create", "orders", "--as", "people", "--limit", "1"]);
    assert_eq!(laptop.asks("select count(*)::int as n from people"), json!([{"n": 1}]));
    world.command(&["admin", "grant", "create", "analysts", "table", "people"]);
    let report = laptop.json(&["pull"]);
    assert!(report["warnings"].to_string().contains("there is a table `people` now"), "{report}");
    let columns = |of: &str| laptop.asks(&format!("select * from {of} limit 1"))[0].as_object().unwrap().len();
    let told = laptop.ok(&["snapshot", "list"]);
    assert!(told.contains("people"), "it can be dropped: {told}");
    laptop.ok(&["snapshot", "drop", "people"]);
    assert!(columns("people") > 0 && columns("people") != columns("orders"), "it is the table");
}

#[test]
fn what_became_of_the_database_is_told_where_it_happens() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let spoil = || std::fs::write(laptop.path("user/duckdb/analytics.duckdb"), "not a database").unwrap();
    for arguments in [
        &["snapshot", "create", "orders", "--as", "mine"][..],
        &["snapshot", "refresh", "mine"],
        &["snapshot", "drop", "mine"],
    ] {
        spoil();
        let output = laptop.run(arguments);
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains("could not be opened"), "{arguments:?}: {told}");
    }
    let kept = files_below(&laptop.path("user/duckdb"));
    assert_eq!(kept.iter().filter(|name| name.contains(".bak.")).count(), 3, "{kept:?}");
}

#[test]
fn a_snapshot_is_described_from_here() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let paid = ["--select", "id,amount", "--where", "status = 'paid'"];
    laptop.ok(&[&["snapshot", "create", "orders", "--as", "Mine"], &paid[..]].concat());
    // There is nobody to ask.
    let ask =
        |arguments: &[&str]| laptop.command(arguments).env("AGNES_SERVER", "http://127.0.0.1:9").output().unwrap();
    let read = |arguments: &[&str]| {
        let output = ask(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    for name in ["Mine", "mine"] {
        let schema = read(&["schema", name]);
        assert_eq!((&schema["name"], schema["columns"].as_array().unwrap().len()), (&json!("Mine"), 2), "{schema}");
        assert_eq!((&schema["columns"][0]["name"], &schema["columns"][1]["name"]), (&json!("id"), &json!("amount")));
        let sample = read(&["sample", name, "-n", "1"]);
        assert_eq!((&sample["table_id"], sample["rows"].as_array().unwrap().len()), (&json!("Mine"), 1), "{sample}");
        let described = read(&["describe", name]);
        assert_eq!((&described["schema"], described["sample"]["rows"].as_array().unwrap().len()), (&schema, 2));
    }
    let shown = text(&ask(&["describe", "mine"]).stdout);
    assert!(shown.contains("Mine (duckdb SQL)") && shown.contains("amount"), "{shown}");
    let over = ask(&["sample", "mine", "-n", "101"]);
    assert!(over.status.code() == Some(2) && text(&over.stderr).contains("1 to 100"), "{}", text(&over.stderr));
    assert_eq!(ask(&["schema", "orders"]).status.code(), Some(7), "a table is the server's");
    laptop.fails(8, &["schema", "mine", "--server", &laptop.server]);
    // Though a snapshot of its name is here.
    let lazy = Laptop::new(&laptop.server);
    lazy.set_up(world.token("member"), &["--lazy"]);
    lazy.ok(&["snapshot", "create", "orders", "--select", "id"]);
    assert_eq!(lazy.json(&["schema", "orders"])["columns"].as_array().unwrap().len(), 3);
}

//! Governing from a laptop: policies, requests for access, the registry, how syncs went; and what
//! policies leave on other people's laptops.

use serde_json::{Value, json};

use super::laptop::{Laptop, sha256};
use super::world::World;

#[test]
fn policies_are_governed_from_a_laptop() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    let create =
        ["admin", "policy", "create", "analysts", "orders", "--rows", "status = 'paid'", "--mask", "amount=null"];
    let preview = laptop.json(&[&create[..], &["--dry-run"]].concat());
    assert_eq!(preview["changes"][0]["email"], "member@example.com", "{preview}");
    assert_eq!(laptop.json(&["admin", "policy", "list"]), json!([]), "nothing is made by looking");
    let made = laptop.json(&create);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["group_name"], &made["version"]), (&json!("analysts"), &json!(1)), "{made}");
    assert_eq!(laptop.json(&["admin", "policy", "list", "--group", "analysts"])[0]["id"], id);
    assert_eq!(laptop.json(&["admin", "policy", "list", "--table", "people"]), json!([]));
    assert_eq!(laptop.json(&["admin", "policy", "show", &id[..8]])["id"], id, "a unique begin is enough");
    let seen = laptop.json(&["query", "--as", "member@example.com", "select distinct status from orders"]);
    assert_eq!(seen, json!([{"status": "paid"}]));
    assert_eq!(laptop.json(&["admin", "policy", "update", &id[..8], "--all-rows"])["version"], 2);
    assert_eq!(laptop.json(&["admin", "policy", "show", id, "--history"]).as_array().unwrap().len(), 2);
    assert_eq!(laptop.json(&["admin", "policy", "check"])[0]["ok"], true);
    assert_eq!(laptop.json(&["admin", "policy", "check", id]).as_array().unwrap().len(), 1);
    assert!(laptop.ok(&["admin", "policy", "check"]).contains("ok"));
    laptop.fails(6, &create);
    laptop.fails(2, &["admin", "policy", "update", id, "--rows", "nothing = 1"]);
    laptop.fails(8, &["admin", "policy", "show", "0000"]);
    laptop.ok(&["admin", "policy", "remove", id, "--dry-run"]);
    laptop.ok(&["admin", "policy", "remove", &id[..8], "--yes"]);
    assert_eq!(laptop.json(&["admin", "policy", "list"]), json!([]));
    let preview = laptop.json(&["admin", "grant", "create", "analysts", "table", "people", "--dry-run"]);
    assert_eq!(preview["changes"][0]["email"], "member@example.com", "{preview}");
    let member = Laptop::of(&world, "member");
    member.fails(8, &["admin", "policy", "list"]);
}

#[test]
fn requests_for_access_are_answered_from_a_laptop() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    assert_eq!(laptop.json(&["admin", "access-request", "list"])["total"], 0);
    let ask = |resource: &str| {
        let body = json!({"resource_type": "table", "resource_id": resource, "reason": "for the report"});
        let answer = world.send("member", "POST", "/api/access-requests", &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let (people, other) = (ask("people"), ask("other"));
    let waiting = laptop.json(&["admin", "access-requests", "list"]);
    assert_eq!((&waiting["total"], &waiting["items"][1]["user_email"]), (&json!(2), &json!("member@example.com")));
    assert!(laptop.ok(&["admin", "access-request", "list"]).contains("for the report"));
    let approve = ["admin", "access-request", "approve", &people[..12], "--group", "analysts"];
    let preview = laptop.json(&[&approve[..], &["--dry-run"]].concat());
    assert_eq!((&preview["grant_added"], &preview["membership_added"]), (&json!(true), &json!(false)), "{preview}");
    assert_eq!(world.query("member", "select * from people", "application/json").status, 403, "not yet");
    let done = laptop.json(&[&approve[..], &["--note", "welcome"]].concat());
    assert_eq!((&done["status"], &done["grant_added"]), (&json!("approved"), &json!(true)), "{done}");
    assert_eq!(world.query("member", "select * from people", "application/json").status, 200);
    let done = laptop.json(&["admin", "access-request", "deny", &other, "--note", "there is none"]);
    assert_eq!((&done["status"], &done["review_note"]), (&json!("denied"), &json!("there is none")), "{done}");
    laptop.fails(8, &["admin", "access-request", "deny", "0000"]);
}

#[test]
fn tables_are_registered_and_described_from_a_laptop() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    let ids = || {
        let listed = laptop.json(&["admin", "list-tables"]);
        let tables = listed["tables"].as_array().unwrap().iter();
        tables.filter_map(|table| table["id"].as_str().map(ToOwned::to_owned)).collect::<Vec<String>>()
    };
    assert!(ids().contains(&"people".to_owned()) && !ids().contains(&"extra".to_owned()));
    assert!(laptop.ok(&["admin", "table", "list"]).contains("people"));
    std::fs::write(world.server.folder.path().join("files/extra.csv"), "id,word\n1,a\n2,b\n").unwrap();
    let offers = laptop.json(&["admin", "discover", "shop"]);
    let state = |name: &str| {
        let tables = offers["tables"].as_array().unwrap();
        tables.iter().find(|table| table["name"] == name).map(|table| table["registered"].clone())
    };
    assert_ne!(state("extra"), state("orders"), "{offers}");
    assert!(laptop.ok(&["admin", "discover"]).contains("extra"));
    let taken = laptop.json(&["admin", "discover-and-register", "shop", "--dry-run"]);
    assert_eq!(taken["would_register"], 1, "{taken}");
    let register = ["admin", "register-table", "extra", "--source", "shop", "--source-table", "extra.csv"];
    assert_eq!(laptop.json(&[&register[..], &["--dry-run"]].concat())["ok"], true);
    let made = laptop.json(&register);
    assert_eq!((&made["id"], &made["status"]), (&json!("extra"), &json!("registered")), "{made}");
    laptop.fails(6, &register);
    laptop.fails(8, &["admin", "table", "show", "nothing"]);
    let changed = laptop.json(&["admin", "update-table", "extra", "--description", "words"]);
    assert_eq!(changed["updated"], json!(["description"]), "{changed}");
    assert_eq!(laptop.json(&["admin", "table", "show", "extra"])["description"], "words");
    let file = laptop.path("extra.json");
    std::fs::write(
        &file,
        r#"{"table_id": "extra", "columns": [{"column_name": "word", "description": "a word", "confidence": "manual"}]}"#,
    )
    .unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(laptop.json(&["admin", "metadata-apply", file, "--dry-run"])["columns"], 1);
    assert_eq!(laptop.json(&["admin", "metadata-apply", file])["columns"], 1);
    assert_eq!(laptop.json(&["admin", "metadata-show", "extra"])["columns"][0]["description"], "a word");
    // How its syncs went.
    let run = laptop.json(&["sync", "extra", "--wait"]);
    assert_eq!(run["state"], "succeeded", "{run}");
    let past = laptop.json(&["admin", "run", "history", "extra"]);
    assert_eq!((&past[0]["status"], &past[0]["rows"]), (&json!("ok"), &json!(2)), "{past}");
    let states = laptop.json(&["admin", "sync-state"]);
    let extra = states.as_array().unwrap().iter().find(|state| state["table_id"] == "extra").unwrap();
    assert_eq!((&extra["status"], &extra["rows"]), (&json!("ok"), &json!(2)), "{states}");
    assert_eq!(laptop.json(&["rebuild"])["degraded"], false);
    laptop.fails(2, &["admin", "table", "remove", "extra"]);
    laptop.ok(&["admin", "unregister-table", "extra", "--yes"]);
    assert!(!ids().contains(&"extra".to_owned()));
}

/// Each holds the rows of their own, as files, and no byte of others'.
#[test]
fn laptops_hold_their_own_slices() {
    let world = World::start_for(1, &[], &[]);
    world.command(&["admin", "group", "create", "lost"]);
    world.command(&["admin", "user", "add", "eve@example.com", "--group", "lost"]);
    world.command(&["admin", "grant", "create", "lost", "table", "orders"]);
    world.command(&["admin", "group", "add-member", "lost", "stranger@example.com"]);
    let policy = |group: &str, rows: &str| {
        let made = world.command(&["admin", "policy", "create", group, "orders", "--rows", rows, "--json"]);
        serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let paid = policy("analysts", "status = 'paid'");
    policy("lost", "status = 'lost'");
    let (ann, bob) = (Laptop::of(&world, "member"), Laptop::of(&world, "stranger"));
    let rows = |laptop: &Laptop| laptop.asks("select id::int as id, status from orders order by id");
    assert_eq!(rows(&ann), json!([{"id": 1, "status": "paid"}, {"id": 3, "status": "paid"}]));
    assert_eq!(rows(&bob), json!([{"id": 4, "status": "lost"}]));
    // Not a view over more: the bytes are not there.
    let file = |laptop: &Laptop| laptop.path("server/parquet/orders.parquet");
    let count = |laptop: &Laptop| {
        let database = duckdb::Connection::open_in_memory().unwrap();
        let sql = format!("SELECT count(*), count(*) FILTER (status <> 'paid') FROM '{}'", file(laptop).display());
        database.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    assert_eq!((count(&ann), count(&bob)), ((2, 0), (1, 1)));
    assert_ne!(sha256(&file(&ann)), sha256(&file(&bob)));
    assert_eq!(ann.state()["tables"]["orders"]["slice"], true, "{}", ann.state());
    // Answers made here say what they are of, as the server's do.
    let told = |sql: &str| super::laptop::text(&ann.run(&["query", sql]).stderr);
    assert!(told("select count(*) from orders").contains("a policy narrows `orders`"), "{}", told("from orders"));
    assert_eq!(told("select 1"), "");
    ann.ok(&["snapshot", "create", "orders", "--as", "kept", "--no-estimate"]);
    assert!(told("select count(*) from kept").contains("a policy narrows `kept`"), "{}", told("from kept"));
    // Another rule changes what is there at the next pull, and only where it is about.
    let before = sha256(&file(&bob));
    world.command(&["admin", "policy", "update", &paid, "--rows", "status = 'open'"]);
    let report = ann.json(&["pull"]);
    assert_eq!(report["updated"], json!(["orders"]), "{report}");
    assert_eq!(rows(&ann), json!([{"id": 2, "status": "open"}]));
    assert_eq!(super::laptop::files_below(&ann.path(".agnes/blobs")).len(), 1, "what was theirs before is gone");
    assert_eq!(bob.json(&["pull"])["bytes_downloaded"], 0);
    assert_eq!(sha256(&file(&bob)), before);
    // New rows arrive by the rule; a table that is for the server alone leaves.
    std::fs::write(world.server.folder.path().join("files/orders.csv"), "id,status,amount\n7,open,1\n8,lost,2\n")
        .unwrap();
    world.command(&["sync", "--source", "shop"]);
    ann.ok(&["pull"]);
    assert_eq!(rows(&ann), json!([{"id": 7, "status": "open"}]));
    assert_eq!(
        super::laptop::files_below(&ann.path(".agnes/blobs")).len(),
        2,
        "for who reads it, as the rules are the same"
    );
    world.command(&["admin", "policy", "update", &paid, "--server-only"]);
    assert_eq!(ann.json(&["pull"])["removed"], json!(["orders"]));
    assert!(ann.files().is_empty());
    let seen = ann.json(&["query", "--remote", "select id::int as id from orders"]);
    assert_eq!(seen, json!([{"id": 7}]), "it is asked there");
}

/// Whose rows cannot be made has those of before, unless other rules made them.
#[test]
fn a_slice_that_cannot_be_made_leaves_the_one_that_is_here() {
    let world = World::start();
    std::fs::write(world.server.folder.path().join("state/instance.yaml"), "policy: {slice_max_mb: 1}\n").unwrap();
    let world = world.restarted(&[]).0;
    world.command(&["admin", "grant", "create", "analysts", "table", "people"]);
    let made = world.command(&["admin", "policy", "create", "analysts", "orders", "--rows", "id > 1", "--json"]);
    let policy = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    let laptop = Laptop::of(&world, "member");
    let rows = || laptop.asks("select count(*)::int as n from orders");
    assert_eq!(rows(), json!([{"n": 3}]));
    let files = world.server.folder.path().join("files");
    let large = format!(
        "COPY (SELECT range AS id, md5(range::VARCHAR) AS status, 1.5 AS amount FROM range(100000)) TO '{}' (HEADER)",
        files.join("orders.csv").display()
    );
    duckdb::Connection::open_in_memory().unwrap().execute_batch(&large).unwrap();
    std::fs::write(files.join("people.csv"), "id,name\n1,Ann\n").unwrap();
    world.command(&["sync", "--source", "shop"]);
    let told = world.get("member", "/api/sync/manifest").json()["tables"]["orders"].clone();
    assert_eq!((&told["hash"], &told["rows"], told.get("sha256")), (&json!(""), &json!(0), None), "{told}");
    let report = laptop.json_with(1, &["pull"]);
    let error = &report["errors"][0];
    assert_eq!((&error["table"], &error["code"]), (&json!("orders"), &json!("slice_too_large")), "{report}");
    assert_eq!((&report["removed"], &report["updated"]), (&json!([]), &json!(["people"])), "the others come: {report}");
    assert_eq!((rows(), laptop.files().len()), (json!([{"n": 3}]), 2));
    let told = laptop.fails(1, &["pull"]);
    assert!(told.contains("your part of `orders` is larger than 1 MiB") && told.contains("ask an admin"), "{told}");
    // By other rules these rows may not be theirs.
    world.command(&["admin", "policy", "update", &policy, "--rows", "id > 2"]);
    let report = laptop.json_with(1, &["pull"]);
    assert_eq!((&report["removed"], &report["errors"][0]["table"]), (&json!(["orders"]), &json!("orders")), "{report}");
    assert_eq!(laptop.files(), ["people.parquet"]);
    assert_eq!(super::laptop::files_below(&laptop.path(".agnes/blobs")).len(), 2, "people, and people before");
    world.publish_orders(5);
    assert_eq!(laptop.json(&["pull"])["updated"], json!(["orders"]));
    assert_eq!(rows(), json!([{"n": 2}]));
}

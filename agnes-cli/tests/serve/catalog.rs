//! Tables, columns, samples, profiles and syncs over HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::World;

#[test]
fn the_catalog_lists_what_the_caller_may_read() {
    let world = World::start();
    let names = |who: &str, path: &str| {
        let answer = world.get(who, path).json();
        let tables = answer["tables"].as_array().unwrap().clone();
        let names = tables.iter().map(|table| table["name"].as_str().unwrap().to_owned());
        names.filter(|name| !name.starts_with("agnes_")).collect::<Vec<_>>()
    };
    for path in ["/api/catalog/tables", "/api/v2/catalog", "/api/v2/catalog?refresh=1"] {
        assert_eq!(names("admin", path), ["orders", "people"]);
        assert_eq!(names("member", path), ["orders"]);
        assert_eq!(names("stranger", path), Vec::<String>::new());
    }
    let listed = world.get("member", "/api/catalog/tables").json();
    assert_eq!(listed["count"], listed["tables"].as_array().unwrap().len());
    let row = world.get("admin", "/api/v2/catalog").json()["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|table| table["name"] == "orders")
        .unwrap()
        .clone();
    assert_eq!(
        (&row["rows"], &row["sql_flavor"], &row["rough_size_hint"]),
        (&json!(4), &json!("duckdb"), &json!("small"))
    );
}

#[test]
fn columns_samples_and_profiles_follow_the_grant() {
    let world = World::start();
    let schema = world.get("member", "/api/v2/schema/orders").json();
    let columns: Vec<&str> =
        schema["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["id", "status", "amount"]);
    let sample = world.get("member", "/api/v2/sample/orders?n=2").json();
    assert_eq!((sample["rows"].as_array().unwrap().len(), &sample["table_id"]), (2, &schema["table_id"]));
    assert_eq!(world.get("member", "/api/v2/sample/orders").json()["rows"].as_array().unwrap().len(), 4);
    for n in ["0", "101", "x", "-1"] {
        assert_eq!(world.get("member", &format!("/api/v2/sample/orders?n={n}")).status, 422, "{n}");
    }
    let profile = world.get("member", "/api/catalog/profile/orders");
    assert_eq!(profile.status, 200, "{}", profile.text());
    assert_eq!(world.send("member", "POST", "/api/catalog/profile/orders/refresh", &Value::Null).status, 403);
    let made = world.send("admin", "POST", "/api/catalog/profile/orders/refresh", &Value::Null).json();
    assert_eq!(made, json!({"status": "ok", "table": "orders", "columns": 3}));
    for path in ["/api/v2/schema", "/api/v2/sample", "/api/catalog/profile"] {
        for (who, table, status) in [
            ("nobody", "orders", 401),
            ("stranger", "orders", 403),
            ("stranger", "nothing", 403),
            ("admin", "nothing", 404),
        ] {
            assert_eq!(world.get(who, &format!("{path}/{table}")).status, status, "{who} {path}/{table}");
        }
    }
}

#[test]
fn a_sync_is_triggered_followed_and_seen() {
    let world = World::start();
    let trigger = |who: &str, body: &Value| world.send(who, "POST", "/api/sync/trigger", body);
    assert_eq!(world.server.get("/api/sync/status").json(), json!({"locked": false}));
    assert_eq!(trigger("nobody", &Value::Null).status, 401);
    assert_eq!(trigger("member", &Value::Null).status, 403);
    assert_eq!(trigger("admin", &json!([])).status, 422);
    assert_eq!(trigger("admin", &json!({"tables": [1]})).status, 422);
    assert_eq!(trigger("admin", &json!(["nothing"])).status, 404);
    let orders = world.server.folder.path().join("files/orders.csv");
    std::fs::write(&orders, "id,status,amount\n1,paid,10.5\n7,new,1\n").unwrap();
    let accepted = trigger("admin", &json!({"tables": ["orders"]}));
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    let accepted = accepted.json();
    assert_eq!((&accepted["status"], &accepted["tables"]), (&json!("triggered"), &json!(["orders"])));
    assert_eq!(world.server.get("/api/sync/status").json(), json!({"locked": true}));
    let run = format!("/api/sync/runs/{}", accepted["run_id"].as_str().unwrap());
    let patience = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        let run = world.get("admin", &run).json();
        if !run["finished_at"].is_null() {
            break run;
        }
        assert!(Instant::now() < patience, "{run}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(ended["outcome"]["tables"][0]["table"], "orders", "{ended}");
    assert_eq!(world.get("member", &run).status, 403);
    assert_eq!(world.get("admin", "/api/sync/runs/nothing").status, 404);
    let rows = world.send("member", "POST", "/api/query", &json!({"sql": "select id from orders order by id"})).json();
    assert_eq!(rows["rows"], json!([[1], [7]]));
    let audit = world.command(&["admin", "audit", "list", "--json"]);
    for action in ["sync.trigger", "query.local", "catalog.list"] {
        assert!(audit.contains(action) || action == "catalog.list", "{action}");
    }
}

/// Of those who ask at the same moment one gets the run; the rest are told in the words that clients
/// of the contract compare.
#[test]
fn one_of_two_triggers_at_once_is_taken() {
    let world = World::start();
    let orders = world.server.folder.path().join("files/orders.csv");
    let rows: String = (0..300_000).map(|n| format!("{n},paid,{n}.5\n")).collect();
    std::fs::write(&orders, format!("id,status,amount\n{rows}")).unwrap();
    let start = std::sync::Barrier::new(2);
    let mut answers = std::thread::scope(|scope| {
        let ask = || {
            start.wait();
            world.send("admin", "POST", "/api/sync/trigger", &json!(["orders"]))
        };
        let asked = [scope.spawn(ask), scope.spawn(ask)];
        asked.map(|one| one.join().unwrap())
    });
    answers.sort_by_key(|answer| answer.status);
    let [taken, refused] = answers;
    assert_eq!((taken.status, &taken.json()["status"]), (200, &json!("triggered")), "{}", taken.text());
    assert_eq!(refused.status, 409, "{}", refused.text());
    let told = refused.json();
    let wanted = json!("sync_already_in_progress");
    assert_eq!((&told["detail"], &told["code"], &told["status"]), (&wanted, &wanted, &json!(409)), "{told}");
    let log = world.get("admin", "/api/admin/activity?action_prefix=sync.trigger&client_kind=api").json();
    let mut results: Vec<&str> =
        log["rows"].as_array().unwrap().iter().map(|row| row["result"].as_str().unwrap()).collect();
    results.sort_unstable();
    assert_eq!(results, ["error.sync_already_in_progress", "success"], "{log}");
    let run = format!("/api/sync/runs/{}", taken.json()["run_id"].as_str().unwrap());
    let patience = Instant::now() + Duration::from_secs(60);
    while world.get("admin", &run).json()["finished_at"].is_null() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.get("admin", &run).json()["outcome"]["tables"][0]["rows"], 300_000);
    let figures = world.get("nobody", "/metrics").text();
    assert!(figures.contains("agnes_sync_tables{status=\"ok\"} 1\n"), "{figures}");
    assert!(figures.contains("agnes_sync_tables{status=\"error\"} 0\n"), "{figures}");
}

#[test]
fn what_a_person_wants_is_theirs() {
    let world = World::start();
    let mode = json!({"table_mode": "explicit", "tables": {"orders": true}});
    let set = world.send("member", "POST", "/api/sync/table-subscriptions", &mode).json();
    assert_eq!(set, json!({"table_mode": "explicit", "updated": {"orders": {"enabled": true}}}));
    let kept = world.get("member", "/api/sync/table-subscriptions").json();
    assert_eq!((&kept["table_mode"], &kept["subscriptions"][0]["dataset"]), (&json!("explicit"), &json!("orders")));
    assert_eq!(world.get("admin", "/api/sync/table-subscriptions").json()["table_mode"], "all");
    assert_eq!(
        world.send("member", "POST", "/api/sync/table-subscriptions", &json!({"table_mode": "some"})).status,
        422
    );
    let many: serde_json::Map<String, Value> = (0..501).map(|n| (format!("t{n}"), json!(true))).collect();
    assert_eq!(world.send("member", "POST", "/api/sync/table-subscriptions", &json!({"tables": many})).status, 422);
    let put = |who: &str, dataset: &str, enabled: bool| {
        world.send(who, "PUT", "/api/settings/dataset", &json!({"dataset": dataset, "enabled": enabled})).status
    };
    assert_eq!(
        (put("member", "orders", false), put("member", "people", true), put("nobody", "orders", true)),
        (200, 403, 401)
    );
    assert_eq!(world.get("member", "/api/settings").json()["sync_settings"][0]["enabled"], false);
}

//! `agnes admin policy`: from the look before to what people see.

use serde_json::json;

use crate::{Folder, text};

#[test]
fn a_policy_is_looked_at_made_changed_and_removed() {
    let folder = Folder::governed();
    let create = [
        "admin",
        "policy",
        "create",
        "analysts",
        "orders",
        "--rows",
        "status = 'paid'",
        "--mask",
        "amount=null",
        "--hide",
        "id",
    ];
    let preview = folder.json(&[&create[..], &["--dry-run"]].concat());
    assert_eq!(preview["changes"][0]["email"], "ann@example.com");
    assert_eq!(preview["changes"][0]["lost_columns"], json!(["id"]));
    assert!(folder.ok(&[&create[..], &["--dry-run"]].concat()).contains("of 4 rows"));
    assert_eq!(folder.json(&["admin", "policy", "list"]), json!([]));
    let made = folder.json(&create);
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["granted"], true);

    let seen =
        folder.json(&["query", "select * from orders where status <> 'paid' or amount is not null", "--as", "ann"]);
    assert_eq!(seen, json!([]));
    let told = folder.run(&["query", "select count(*) from orders", "--as", "ann"]);
    let told = text(&told.stderr);
    assert!(told.contains("a policy narrows `orders`") && told.contains("amount"), "{told}");
    assert!(!text(&folder.run(&["query", "select count(*) from orders"]).stderr).contains("policy"));
    folder.fails(2, &["query", "select id from orders", "--as", "ann"]);
    let schema = folder.json(&["schema", "orders", "--as", "ann"]);
    assert_eq!(schema["columns"].as_array().unwrap().len(), 2);

    folder.ok(&["admin", "policy", "update", &id[..8], "--all-rows", "--show", "ID"]);
    let seen = folder.json(&["query", "select count(*) as n, count(id) as ids from orders", "--as", "ann"]);
    assert_eq!(seen, json!([{"n": 4, "ids": 4}]));
    assert_eq!(folder.json(&["admin", "policy", "show", id])["version"], 2);
    assert_eq!(folder.json(&["admin", "policy", "show", id, "--history"]).as_array().unwrap().len(), 2);
    assert!(folder.ok(&["admin", "policy", "check"]).contains("ok"));
    folder.fails(2, &["admin", "policy", "update", id, "--rows", "nothing = 1"]);
    folder.fails(2, &["admin", "policy", "update", id, "--show", "status"]);
    folder.fails(6, &create);
    folder.fails(2, &["admin", "policy", "create", "analysts", "orders", "--mask", "amount=nonsense"]);
    folder.fails(2, &["admin", "policy", "remove", id]);
    folder.ok(&["admin", "policy", "remove", id, "--dry-run"]);
    folder.ok(&["admin", "policy", "remove", id, "--yes"]);
    assert_eq!(folder.json(&["admin", "policy", "list", "--table", "orders"]), json!([]));
    let log = folder.json(&["admin", "audit", "list", "--action", "policy."]);
    let actions: Vec<_> = log.as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert!(["policy.created", "policy.updated", "policy.removed"].iter().all(|a| actions.contains(a)), "{actions:?}");
}

#[test]
fn rules_can_come_from_a_file_and_grants_be_looked_at() {
    let folder = Folder::governed();
    let file = folder.path("rules.json");
    std::fs::write(&file, r#"{"filter": {"predicate": "false"}, "distribution": "server_only"}"#).unwrap();
    folder.ok(&["admin", "policy", "create", "analysts", "orders", "--file", file.to_str().unwrap()]);
    assert_eq!(folder.json(&["query", "select count(*) as n from orders", "--as", "ann"]), json!([{"n": 0}]));
    assert!(folder.json(&["manifest", "--as", "ann"])["tables"].get("orders").is_none());
    let preview = folder.json(&["admin", "grant", "create", "analysts", "table", "people", "--dry-run"]);
    assert_eq!(preview["changes"][0]["email"], "ann@example.com");
    folder.fails(8, &["query", "select * from people", "--as", "ann"]);
    std::fs::write(&file, "{\"rows\": 1}").unwrap();
    folder.fails(2, &["admin", "policy", "create", "analysts", "people", "--file", file.to_str().unwrap()]);
}

#[test]
fn an_answer_is_asked_again() {
    let folder = Folder::governed();
    let file = folder.path("answer.json");
    let file = file.to_str().unwrap();
    let sql = "select status, sum(amount) as total from orders where amount > $least group by status";
    folder.ok(&["query", sql, "--param", "least=0.5", "--as", "ann", "--receipt", file]);
    assert!(folder.ok(&["replay", file, "--as", "ann"]).starts_with("equal: 2 rows"));
    std::fs::write(folder.files().join("orders.csv"), "id,status,amount\n9,paid,1\n").unwrap();
    folder.ok(&["sync"]);
    let replay = folder.json(&["replay", file, "--as", "ann"]);
    assert_eq!((&replay["equal"], &replay["data"]), (&json!(true), &json!("receipt")));
    assert!(replay["changes"][0].as_str().unwrap().contains("other data"), "{replay}");
    folder.fails(8, &["replay", file, "--as", "bob"]);
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("\"rows\": 2", "\"rows\": 3")).unwrap();
    folder.fails(2, &["replay", file, "--as", "ann"]);
    std::fs::write(file, "{}").unwrap();
    folder.fails(2, &["replay", file]);
}

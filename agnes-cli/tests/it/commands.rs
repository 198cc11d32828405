//! What each command does and how it ends.

use serde_json::json;

use crate::{Folder, text};

#[test]
fn a_source_is_added_synced_asked_and_removed() {
    let folder = Folder::synced();
    let sources = folder.json(&["source", "list"]);
    assert_eq!(sources[0]["name"], "shop");
    assert_eq!(sources[0]["published_tables"], 2);
    assert_eq!(folder.json(&["query", "select count(*) as n from orders"]), json!([{"n": 4}]));
    let run = folder.json(&["sync"]);
    let statuses: Vec<_> = run["outcome"]["tables"].as_array().unwrap().iter().map(|t| t["status"].clone()).collect();
    assert_eq!(statuses, ["unchanged", "unchanged"]);
    std::fs::write(folder.files().join("orders.csv"), "id,status,amount\n9,paid,1\n").unwrap();
    folder.ok(&["sync", "orders", "--wait"]);
    assert_eq!(folder.json(&["query", "select id from orders"]), json!([{"id": 9}]));
    assert_eq!(folder.json(&["admin", "run", "list"]).as_array().unwrap().len(), 3);
    assert!(folder.ok(&["source", "check", "shop"]).contains("ok"));
    folder.ok(&["source", "remove", "shop", "--drop-data", "--yes"]);
    folder.fails(8, &["query", "select * from orders"]);
}

#[test]
fn grants_decide_what_is_seen() {
    let folder = Folder::governed();
    let names = |user: &str| -> Vec<String> {
        let tables = folder.json(&["catalog", "--as", user]);
        let tables = tables.as_array().unwrap_or_else(|| panic!("{tables}")).clone();
        let shared = tables.iter().filter(|t| t["query_mode"] != "internal");
        shared.map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("ann@example.com"), ["orders"]);
    assert!(names("bob@example.com").is_empty());
    assert_eq!(folder.json(&["query", "select count(*) as n from orders", "--as", "ann"]), json!([{"n": 4}]));
    folder.fails(8, &["query", "select * from people", "--as", "ann@example.com"]);
    folder.fails(8, &["query", "select * from orders", "--as", "bob@example.com"]);
    folder.fails(8, &["describe", "orders", "--as", "bob@example.com"]);
    let grants = folder.json(&["admin", "grant", "list", "--group", "analysts"]);
    let id = grants[0]["id"].as_str().unwrap();
    folder.ok(&["admin", "grant", "delete", &id[..8], "--yes"]);
    folder.fails(8, &["query", "select * from orders", "--as", "ann@example.com"]);
    let denied = folder.json(&["admin", "audit", "list", "--action", "query"]);
    assert!(denied.as_array().unwrap().iter().any(|e| e["result"] != "success"), "{denied}");
}

#[test]
fn exit_codes_tell_what_happened() {
    let folder = Folder::governed();
    // Usage and validation.
    folder.fails(2, &["query"]);
    folder.fails(2, &["no-such-command"]);
    folder.fails(2, &["query", "select 1", "--sql", "select 2"]);
    folder.fails(2, &["query", "select 1", "--format", "nonsense"]);
    folder.fails(2, &["query", "select 1", "--json", "-f", "csv"]);
    folder.fails(2, &["query", "select from where"]);
    folder.fails(2, &["admin", "user", "add", "not an address"]);
    folder.fails(2, &["source", "add", "1-bad-name", "--path", "."]);
    folder.fails(2, &["source", "add", "shop2", "--kind", "nonsense"]);
    folder.fails(2, &["admin", "audit", "list", "--since", "yesterday"]);
    folder.fails(2, &["admin", "grant", "create", "analysts", "nonsense", "orders"]);
    // Nothing is destroyed without a word.
    folder.fails(2, &["source", "remove", "shop"]);
    folder.fails(2, &["admin", "user", "remove", "bob@example.com"]);
    folder.fails(2, &["admin", "group", "delete", "analysts"]);
    assert_eq!(folder.json(&["admin", "user", "list"]).as_array().unwrap().len(), 2);
    // Refused or failed.
    folder.fails(1, &["query", "create table t (i int)"]);
    folder.fails(1, &["query", "select * from read_csv('/etc/passwd')"]);
    // It exists already.
    folder.fails(6, &["admin", "user", "add", "ANN@example.com"]);
    folder.fails(6, &["admin", "group", "create", "Analysts"]);
    folder.fails(6, &["admin", "group", "add-member", "analysts", "ann@example.com"]);
    folder.fails(6, &["admin", "grant", "create", "analysts", "table", "orders"]);
    folder.fails(6, &["source", "add", "shop", "--path", folder.files().to_str().unwrap()]);
    // Not there.
    folder.fails(8, &["schema", "nothing"]);
    folder.fails(8, &["sync", "nothing"]);
    folder.fails(8, &["admin", "group", "members", "nothing"]);
    folder.fails(8, &["query", "select 1", "--as", "nobody@example.com"]);
}

#[test]
fn references_are_ids_names_or_unique_prefixes() {
    let folder = Folder::governed();
    folder.ok(&["admin", "user", "add", "anna@example.com"]);
    let told = folder.fails(2, &["admin", "user", "access", "an"]);
    assert!(told.contains("ann@example.com") && told.contains("anna@example.com"), "{told}");
    assert!(folder.ok(&["admin", "user", "access", "ann@example.com"]).contains("orders"));
    let users = folder.json(&["admin", "user", "list"]);
    let bob = users.as_array().unwrap().iter().find(|u| u["email"] == "bob@example.com").unwrap();
    folder.ok(&["admin", "user", "deactivate", bob["id"].as_str().unwrap(), "--yes"]);
    folder.fails(7, &["query", "select 1", "--as", "bob@example.com"]);
    folder.ok(&["admin", "user", "activate", "bob"]);
    folder.ok(&["admin", "user", "remove", "bob", "--yes"]);
    assert_eq!(folder.json(&["admin", "list-users"]).as_array().unwrap().len(), 2);
}

#[test]
fn older_names_still_work() {
    let folder = Folder::governed();
    folder.ok(&["admin", "add-user", "old@example.com"]);
    folder.ok(&["admin", "deactivate", "old@example.com", "--yes"]);
    folder.ok(&["admin", "activate", "old@example.com"]);
    folder.ok(&["admin", "remove-user", "old@example.com", "--yes"]);
    assert_eq!(folder.json(&["admin", "list-tables"]), folder.json(&["admin", "table", "list"]));
    assert!(!folder.json(&["admin", "activity", "--since", "1h"]).as_array().unwrap().is_empty());
    folder.ok(&["diagnose"]);
    folder.ok(&["admin", "unregister-table", "people", "--yes"]);
}

#[test]
fn the_owner_of_the_files_makes_an_admin_when_nobody_else_can() {
    let folder = Folder::governed();
    folder.fails(2, &["admin", "break-glass", "new@example.com"]);
    folder.fails(2, &["admin", "break-glass", "new@example.com", "more@example.com", "--yes"]);
    let done = folder.json(&["admin", "break-glass", "new@example.com", "--yes"]);
    assert_eq!((&done["created"], &done["already_admin"]), (&true.into(), &false.into()));
    assert!(done["link"].as_str().unwrap().starts_with("/auth/password/setup?email=new%40example.com&token="));
    let again = folder.json(&["admin", "break-glass", "grant-admin", "NEW@example.com", "--yes"]);
    assert_eq!(again["already_admin"], true);
    folder.fails(2, &["admin", "break-glass", "no address", "--yes"]);
}

#[test]
fn every_reading_command_prints_one_json_document() {
    let folder = Folder::governed();
    for args in [
        &["catalog"][..],
        &["schema", "orders"],
        &["describe", "orders", "-n", "2"],
        &["sample", "orders"],
        &["profile", "orders"],
        &["manifest"],
        &["source", "list"],
        &["source", "check", "shop"],
        &["source", "discover", "shop"],
        &["rebuild"],
        &["rebuild", "--source", "shop"],
        &["sync"],
        &["query", "select 1 as a"],
        &["query", "select * from orders where false"],
        &["admin", "user", "list"],
        &["admin", "user", "access", "ann"],
        &["admin", "group", "list"],
        &["admin", "group", "members", "analysts"],
        &["admin", "grant", "list"],
        &["admin", "grant", "resource-types"],
        &["admin", "table", "list"],
        &["admin", "table", "show", "orders"],
        &["admin", "run", "list"],
        &["admin", "run", "history", "orders"],
        &["admin", "sync-state"],
        &["admin", "audit", "list"],
        &["doctor"],
        &["gc", "--dry-run"],
        &["admin", "user", "add", "new@example.com"],
        &["admin", "group", "create", "more"],
        &["admin", "group", "remove-member", "analysts", "ann"],
    ] {
        folder.json(args);
        // And something for people, without `--json`.
        if !args.contains(&"add") && !args.contains(&"create") && !args.contains(&"remove-member") {
            let out = folder.ok(args);
            assert!(!out.trim().is_empty(), "{args:?} shows nothing");
        }
    }
    let described = folder.json(&["describe", "orders", "-n", "2"]);
    assert!(
        described["schema"].is_object() && described["sample"].is_object() || described["sample"].is_array(),
        "{described}"
    );
    let run = folder.json(&["admin", "run", "list", "--limit", "1"]);
    let id = run[0]["id"].as_str().unwrap();
    assert_eq!(folder.json(&["admin", "run", "show", id])["id"], id);
}

#[test]
fn a_table_is_described_and_scheduled() {
    let folder = Folder::synced();
    folder.ok(&[
        "admin",
        "table",
        "update",
        "orders",
        "--description",
        "one row an order",
        "--schedule",
        "daily 05:00",
        "--primary-key",
        "id",
    ]);
    let table = folder.json(&["admin", "table", "show", "orders"]);
    assert_eq!((&table["description"], &table["sync_schedule"]), (&json!("one row an order"), &json!("daily 05:00")));
    assert!(folder.ok(&["catalog"]).contains("one row an order"));
    folder.ok(&["admin", "update-table", "orders", "--schedule", ""]);
    let table = folder.json(&["admin", "table", "show", "orders"]);
    assert_eq!((&table["description"], &table["sync_schedule"]), (&json!("one row an order"), &json!(null)));
    folder.fails(2, &["admin", "table", "update", "orders"]);
    folder.fails(2, &["admin", "table", "update", "orders", "--schedule", "sometimes"]);
}

#[test]
fn a_table_of_a_data_folder_is_explored() {
    let folder = Folder::synced();
    let glance = folder.json(&["explore", "orders"]);
    assert_eq!((&glance["table"], &glance["row_count"]), (&json!("orders"), &json!(4)), "{glance}");
    assert_eq!(glance["columns"][0], json!({"name": "id", "type": "BIGINT"}), "{glance}");
    assert_eq!(glance["sample_rows"].as_array().unwrap().len(), 4, "{glance}");
    assert!(folder.ok(&["explore", "orders"]).starts_with("orders, 4 rows\n"));
    assert_eq!(folder.run(&["explore", "nothing"]).status.code(), Some(8));
}

#[test]
fn errors_in_json_mode_leave_standard_output_empty() {
    let folder = Folder::synced();
    let output = folder.run(&["schema", "ordres", "--json"]);
    assert_eq!(output.status.code(), Some(8));
    assert!(output.stdout.is_empty());
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["error"]["code"], "table_not_found");
    assert!(told["error"]["hint"].as_str().unwrap().contains("orders"), "{told}");
}

#[test]
fn a_backup_is_restored_and_answers_the_same() {
    let folder = Folder::governed();
    let (backup, other) = (folder.path("backup"), folder.path("other"));
    folder.ok(&["backup", "backup"]);
    assert!(backup.is_dir());
    folder.fails(2, &["restore", "backup", "--data-dir", "other"]);
    folder.ok(&["restore", "backup", "--data-dir", "other", "--yes"]);
    let asked = |dir: &std::path::Path| {
        let args =
            ["query", "select * from orders order by id", "--as", "ann", "--json", "--data-dir", dir.to_str().unwrap()];
        folder.ok(&args)
    };
    assert_eq!(asked(&other), asked(&folder.data()));
    // A folder that is in use is not written over.
    let told = folder.run(&["restore", "backup", "--yes"]);
    assert!(!told.status.success(), "{}", text(&told.stdout));
}

//! Registering, discovering and describing tables by command.

use serde_json::json;

use crate::Folder;

#[test]
fn tables_are_registered_by_hand_or_as_they_are_found() {
    let folder = Folder::synced();
    std::fs::write(folder.files().join("more.csv"), "id,note\n1,a\n").unwrap();
    let register = ["admin", "register-table", "More Notes", "--source-type", "files", "--source-table", "more.csv"];
    let checked = folder.json(&[&register[..], &["--dry-run"]].concat());
    assert_eq!((&checked["table"]["id"], &checked["warnings"]), (&json!("more_notes"), &json!([])));
    folder.fails(8, &["admin", "table", "show", "more_notes"]);
    let made = folder.json(&[&register[..], &["--sync-schedule", "every 1h", "--primary-key", "id,note"]].concat());
    assert_eq!((&made["table"]["source"], &made["table"]["primary_key"]), (&json!("shop"), &json!(["id", "note"])));
    folder.fails(6, &register);
    folder.ok(&["sync", "more_notes"]);
    assert_eq!(folder.json(&["query", "select note from more_notes"]), json!([{"note": "a"}]));
    folder.ok(&["admin", "update-table", "more_notes", "--schedule", "", "--description", "Notes"]);
    let shown = folder.json(&["admin", "table", "show", "more_notes"]);
    assert_eq!((&shown["sync_schedule"], &shown["description"]), (&json!(null), &json!("Notes")));

    for (arguments, code) in [
        (&["register-table", "x", "--source-type", "oracle"][..], 2),
        (&["register-table", "x", "--source-type", "keboola", "--bucket", "in.c-main", "--source-table", "t"], 2),
        (
            &[
                "register-table",
                "x",
                "--source-type",
                "bigquery",
                "--query-mode",
                "materialized",
                "--query",
                "select 1",
            ],
            2,
        ),
        (&["register-table", "x", "--source-type", "files", "--query-mode", "materialized"], 2),
        (&["register-table", "x", "--source", "nothing", "--source-type", "files"], 8),
        (&["register-table", "x", "--source-type", "files", "--where-filters-json", "{"], 2),
        (&["table", "update", "more_notes", "--sync-strategy", "weekly"], 2),
        (&["discover", "nothing"], 8),
        (&["metadata-apply", "nothing.json"], 1),
    ] {
        folder.fails(code, &[&["admin"], arguments].concat());
    }

    std::fs::write(folder.files().join("late.csv"), "a\n1\n").unwrap();
    let found = folder.json(&["admin", "discover", "shop"]);
    let late = found["tables"].as_array().unwrap().iter().find(|table| table["name"] == "late").unwrap().clone();
    assert_eq!((&late["registered"], &late["source_table"]), (&json!("new"), &json!("late.csv")));
    assert!(folder.ok(&["admin", "discover"]).contains("late.csv"));
    let dry = folder.json(&["admin", "discover-and-register", "--dry-run"]);
    let done = folder.json(&["admin", "discover-and-register", "shop"]);
    assert_eq!((&dry["dry_run"], &done["dry_run"]), (&json!(true), &json!(false)));
    assert!(done["tables"].as_array().unwrap().contains(&json!("late")), "{done}");
    assert_eq!(dry["tables"], done["tables"]);
    assert_eq!(folder.json(&["admin", "discover-and-register"])["tables"], json!([]));
}

#[test]
fn columns_are_described_from_a_file() {
    let folder = Folder::governed();
    let file = folder.path("columns.json");
    let one = json!({"table_id": "orders", "columns": [{"column_name": "amount", "description": "net"}]});
    std::fs::write(&file, one.to_string()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let dry = folder.json(&["admin", "metadata-apply", &file, "--dry-run"]);
    assert_eq!(dry, json!({"tables": 1, "columns": 1, "dry_run": true}));
    assert_eq!(folder.json(&["admin", "metadata-show", "orders"])["columns"], json!([]));
    folder.ok(&["admin", "metadata-apply", &file]);
    assert!(folder.ok(&["admin", "metadata-show", "orders"]).contains("net"));
    let schema = folder.json(&["schema", "orders", "--as", "ann@example.com"]);
    assert_eq!(schema["columns"][2]["description"], "net");
    // Files take nothing of it; it is written all the same.
    folder.fails(2, &["admin", "metadata-apply", &file, "--push-to-source"]);
    std::fs::write(&file, "[1]").unwrap();
    folder.fails(2, &["admin", "metadata-apply", &file]);
}

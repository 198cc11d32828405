//! Registering, discovering and describing tables over HTTP.

use serde_json::{Value, json};

use super::process::Answer;
use super::world::World;

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn row(world: &World, id: &str) -> Value {
    let rows = world.get("admin", "/api/admin/registry").json();
    assert_eq!(rows["count"], json!(rows["tables"].as_array().unwrap().len()));
    rows["tables"].as_array().unwrap().iter().find(|row| row["id"] == id).cloned().unwrap_or(Value::Null)
}

fn register(world: &World, body: Value) -> Answer {
    world.send("admin", "POST", "/api/admin/register-table", &body)
}

/// Waits for the end of a run.
fn synced(world: &World, table: &str) {
    let started = world.send("admin", "POST", "/api/sync/trigger", &json!([table]));
    assert_eq!(started.status, 200, "{}", started.text());
    let run = format!("/api/sync/runs/{}", started.json()["run_id"].as_str().unwrap());
    for _ in 0..600 {
        let told = world.get("admin", &run).json();
        match told["state"].as_str().unwrap() {
            "queued" | "running" => std::thread::sleep(std::time::Duration::from_millis(50)),
            "succeeded" => return,
            other => panic!("{other}: {told}"),
        }
    }
    panic!("the run did not end");
}

#[test]
fn a_table_is_registered_synced_changed_and_taken_out_again() {
    let world = World::start();
    std::fs::write(world.server.folder.path().join("files/more.csv"), "id,note\n1,a\n2,b\n").unwrap();
    let orders = row(&world, "orders");
    for field in ["last_sync", "last_sync_status", "rows", "file_size_bytes", "registered_at", "source"] {
        assert!(!orders[field].is_null(), "{field}: {orders}");
    }
    assert_eq!((&orders["rows"], &orders["last_sync_error"]), (&json!(4), &Value::Null));

    let new = json!({"name": " More Notes ", "source_type": "files", "source_table": "more.csv", "primary_key": "id",
        "description": "what\\nelse", "sync_schedule": "every 1h", "profile_after_sync": true});
    let checked = world.send("admin", "POST", "/api/admin/register-table/precheck", &new).json();
    assert_eq!((&checked["ok"], &checked["table"]["name"]), (&json!(true), &json!("more_notes")));
    assert_eq!((&checked["table"]["rows"], &checked["warnings"]), (&Value::Null, &json!([])));
    assert!(row(&world, "more_notes").is_null(), "a precheck writes nothing");

    let made = register(&world, new.clone());
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(
        (&made["id"], &made["name"], &made["status"]),
        (&json!("more_notes"), &json!("more_notes"), &json!("registered"))
    );
    assert_eq!(told(&register(&world, new.clone())), (409, "table_exists".to_owned()));
    let again = world.send("admin", "POST", "/api/admin/register-table/precheck", &new).json();
    assert_eq!(again["warnings"].as_array().map(Vec::len), Some(1), "{again}");
    let twin = register(&world, json!({"name": "twin", "source": "shop", "source_table": "MORE.csv"})).json();
    assert_eq!(twin["warnings"], json!(["`more_notes` is the same table at the source"]));
    let kept = row(&world, "more_notes");
    assert_eq!((&kept["source"], &kept["primary_key"]), (&json!("shop"), &json!(["id"])));
    assert_eq!((&kept["description"], &kept["rows"]), (&json!("what\nelse"), &Value::Null));

    synced(&world, "more_notes");
    assert_eq!(
        world.query("admin", "select count(*) n from more_notes", "application/json").json()["rows"],
        json!([[2]])
    );
    assert_eq!(row(&world, "more_notes")["rows"], 2);

    let path = "/api/admin/registry/more_notes";
    let changed = world.send("admin", "PUT", path, &json!({"description": "notes", "sync_schedule": null})).json();
    assert_eq!(changed, json!({"id": "more_notes", "updated": ["description", "sync_schedule"]}));
    let after = row(&world, "more_notes");
    assert_eq!((&after["description"], &after["sync_schedule"]), (&json!("notes"), &Value::Null));
    assert_eq!((&after["registered_at"], &after["primary_key"]), (&kept["registered_at"], &kept["primary_key"]));

    // Whoever could read it cannot once it is gone, also when another table takes its name.
    world.command(&["admin", "grant", "create", "analysts", "table", "more_notes"]);
    world.command(&["admin", "grant", "create", "analysts", "table", "more_note"]);
    assert_eq!(world.get("member", "/api/v2/schema/more_notes").status, 200);
    assert_eq!(world.send("admin", "DELETE", path, &Value::Null).status, 204);
    assert_eq!(told(&world.send("admin", "DELETE", path, &Value::Null)), (404, "table_not_found".to_owned()));
    assert_eq!(world.get("member", "/api/v2/schema/more_notes").status, 403);
    assert_eq!(world.get("admin", "/api/v2/schema/more_notes").status, 404, "its data is in no generation");
    let grants = world.get("admin", "/api/admin/grants").json();
    let left: Vec<_> = grants.as_array().unwrap().iter().map(|grant| grant["resource_id"].clone()).collect();
    assert!(left.contains(&json!("more_note")) && !left.contains(&json!("more_notes")), "{left:?}");
    assert!(!world.server.folder.path().join("extracts/shop/data/more_notes.parquet").exists());
    register(&world, new);
    synced(&world, "more_notes");
    assert_eq!(world.get("member", "/api/v2/schema/more_notes").status, 403);

    let log = world.get("admin", "/api/admin/activity?limit=200").text();
    for action in ["table.register", "table.update", "table.unregister"] {
        assert!(log.contains(action), "{action} is not in the log");
    }
}

#[test]
fn what_cannot_be_registered_is_refused_by_field() {
    let world = World::start();
    for (body, status, code, field) in [
        (json!({}), 422, "invalid_field", "name"),
        (json!({"name": " "}), 422, "invalid_field", "name"),
        (json!({"name": "1st"}), 422, "invalid_field", "name"),
        (json!({"name": 1}), 422, "invalid_field", "name"),
        (json!({"name": "agnes_audit", "source_type": "local"}), 422, "invalid_field", "name"),
        (json!({"name": "x", "sort": 1}), 422, "invalid_field", ""),
        (json!({"name": "x", "source_type": "oracle"}), 422, "invalid_field", "source_type"),
        (json!({"name": "x", "source_type": "keboola", "source": "shop"}), 422, "invalid_field", "source_type"),
        (json!({"name": "x", "source": "nothing", "source_type": "files"}), 404, "source_not_found", ""),
        (json!({"name": "x", "source_type": "files", "query_mode": "remote"}), 422, "invalid_field", "query_mode"),
        (
            json!({"name": "x", "source_type": "files", "query_mode": "materialized"}),
            422,
            "invalid_field",
            "source_query",
        ),
        (
            json!({"name": "x", "source_type": "files", "source_query": "select 1"}),
            422,
            "invalid_field",
            "source_query",
        ),
        (
            json!({"name": "x", "source_type": "files", "sync_schedule": "hourly"}),
            422,
            "invalid_field",
            "sync_schedule",
        ),
        (
            json!({"name": "x", "source_type": "files", "sync_strategy": "partitioned"}),
            422,
            "invalid_field",
            "partition_by",
        ),
        (json!({"name": "x", "source_type": "files", "bq_fqn": "a.b.c"}), 422, "invalid_field", "bq_fqn"),
        // What no connector of this server reads is checked all the same, then refused.
        (
            json!({"name": "x", "source_type": "keboola", "query_mode": "materialized", "source_query": "select 1"}),
            422,
            "invalid_field",
            "source_query",
        ),
        (json!({"name": " x", "source_type": "bigquery", "bucket": "d", "source_table": "t"}), 400, "invalid_name", ""),
        (json!({"name": "x", "source_type": "bigquery", "bucket": "d"}), 422, "invalid_field", "source_table"),
        (
            json!({"name": "x", "source_type": "bigquery", "bucket": "d", "source_table": "t_*"}),
            400,
            "invalid_source_field",
            "",
        ),
        (
            json!({"name": "x", "source_type": "bigquery", "bucket": "d", "source_table": "t"}),
            422,
            "source_not_configured",
            "",
        ),
        (json!([1]), 422, "validation_failed", ""),
    ] {
        for path in ["/api/admin/register-table", "/api/admin/register-table/precheck"] {
            let answer = world.send("admin", "POST", path, &body);
            assert_eq!(told(&answer), (status, code.to_owned()), "{path} {body}: {}", answer.text());
            if code == "invalid_field" {
                let place = if field.is_empty() { json!(["body"]) } else { json!(["body", field]) };
                assert_eq!(answer.json()["detail"][0]["loc"], place, "{body}");
            }
        }
    }
    let put = |body: Value| told(&world.send("admin", "PUT", "/api/admin/registry/orders", &body));
    for (body, status) in [
        (json!({"name": "sales"}), 422),
        (json!({"name": "ORDERS"}), 200),
        (json!({"source_query": "select 1"}), 422),
        (json!({"query_mode": "materialized", "source_query": " "}), 422),
        (json!({"sync_schedule": "sometimes"}), 422),
        (json!({"registered_by": "me"}), 422),
        (json!({}), 200),
    ] {
        assert_eq!(put(body.clone()).0, status, "{body}");
    }
    let gone = world.send("admin", "PUT", "/api/admin/registry/nothing", &json!({"description": "x"}));
    assert_eq!(told(&gone), (404, "table_not_found".to_owned()));
    // An extract that somebody else writes needs no connector.
    let local = register(&world, json!({"name": "theirs", "source_type": "local", "source": "crm"}));
    assert_eq!(local.status, 201, "{}", local.text());
    assert_eq!(world.send("admin", "DELETE", "/api/admin/registry/theirs", &Value::Null).status, 204);
}

#[test]
fn one_of_many_who_register_a_name_wins() {
    let world = World::start();
    let body = json!({"name": "crowd", "source": "shop", "source_table": "orders.csv"});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| register(&world, body.clone()).status)).collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
}

#[test]
fn what_sources_offer_is_listed_and_registered() {
    let world = World::start();
    let files = world.server.folder.path().join("files");
    std::fs::write(files.join("new.csv"), "a\n1\n").unwrap();
    std::fs::create_dir(files.join("north")).unwrap();
    std::fs::write(files.join("north/a.csv"), "a\n1\n").unwrap();
    let offers = world.get("admin", "/api/admin/discover-tables").json();
    assert_eq!((&offers["source"], &offers["count"]), (&json!("files"), &json!(4)), "{offers}");
    let states: Vec<_> =
        offers["tables"].as_array().unwrap().iter().map(|t| (t["name"].clone(), t["registered"].clone())).collect();
    for expected in [("new", "new"), ("north", "new"), ("orders", "match"), ("people", "match")] {
        assert!(states.contains(&(json!(expected.0), json!(expected.1))), "{states:?}");
    }
    for field in ["bucket_name", "last_change", "last_import"] {
        assert_eq!(offers["tables"][0].get(field), Some(&Value::Null), "{field}: files have none");
    }
    let inside = world.get("admin", "/api/admin/discover-tables?dataset=north&source=shop").json();
    assert_eq!((&inside["count"], &inside["tables"][0]["name"]), (&json!(1), &json!("north")));
    let unknown = world.get("admin", "/api/admin/discover-tables?source=nothing");
    assert_eq!(told(&unknown), (404, "source_not_found".to_owned()));

    let taken = register(&world, json!({"name": "new", "source": "shop", "source_table": "orders.csv"}));
    assert_eq!(taken.status, 201);
    let take = |query: &str| {
        world.send("admin", "POST", &format!("/api/admin/discover-and-register{query}"), &Value::Null).json()
    };
    let dry = take("?dry_run=true");
    assert_eq!(
        (&dry["would_register"], &dry["registered"], &dry["drifted"]),
        (&json!(1), &json!(0), &json!(1)),
        "{dry}"
    );
    assert_eq!((&dry["skipped"], &dry["tables"], &dry["source"]), (&json!(2), &json!(["north"]), &json!("files")));
    assert_eq!(dry["drift"][0]["registry"]["source_table"], "orders.csv");
    assert!(row(&world, "north").is_null());
    let done = take("");
    assert_eq!(
        (&done["registered"], &done["tables"], &done["errors"]),
        (&json!(1), &json!(["north"]), &json!(0)),
        "{done}"
    );
    assert_eq!(row(&world, "new")["source_table"], "orders.csv", "what is registered stays as it is");
    assert_eq!(take("")["registered"], 0);

    std::fs::remove_dir_all(&files).unwrap();
    let failed = world.get("admin", "/api/admin/discover-tables?source=shop");
    assert_eq!(told(&failed), (502, "source_failed".to_owned()), "{}", failed.text());
    assert!(!failed.text().contains(world.server.folder.path().to_str().unwrap()), "{}", failed.text());
}

#[test]
fn descriptions_of_columns_are_for_those_who_see_the_column() {
    let world = World::start();
    let path = "/api/admin/metadata/orders";
    let columns = json!({"columns": [
        {"column_name": "AMOUNT", "description": "net, in euro", "basetype": "NUMERIC"},
        {"column_name": "status", "description": "where it is", "confidence": "high"},
    ]});
    let written = world.send("admin", "POST", path, &columns);
    assert_eq!((written.status, written.json()), (200, json!({"status": "ok", "count": 2})));
    let read = world.get("member", path).json();
    assert_eq!((&read["table_id"], read["columns"].as_array().map(Vec::len)), (&json!("orders"), Some(2)));
    let amount = &read["columns"][0];
    assert_eq!((&amount["column_name"], &amount["basetype"]), (&json!("amount"), &json!("NUMERIC")));
    assert_eq!((&amount["confidence"], &read["columns"][1]["confidence"]), (&json!("manual"), &json!("high")));
    assert!(!amount["updated_at"].is_null());
    let described = |who: &str, address: &str| -> Value {
        let answer = world.get(who, address).json();
        let columns = answer["columns"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        let amount = columns.iter().find(|column| column["name"] == "amount");
        amount.map_or(Value::Null, |column| column["description"].clone())
    };
    for address in ["/api/v2/schema/orders", "/api/catalog/profile/orders"] {
        assert_eq!(described("member", address), "net, in euro", "{address}");
    }
    for (body, status) in [
        (json!({"columns": [{"column_name": " "}]}), 422),
        (json!({"columns": [{"column_name": "a"}, {"column_name": "a"}]}), 422),
        (json!({"columns": [{"description": "x"}]}), 422),
        (json!({"columns": [{"column_name": "a", "basetype": "x".repeat(300)}]}), 422),
        (json!({}), 422),
    ] {
        assert_eq!(world.send("admin", "POST", path, &body).status, status, "{body}");
    }
    assert_eq!(world.send("member", "POST", path, &columns).status, 403);
    assert_eq!(world.get("stranger", path).status, 403);
    assert_eq!(world.get("admin", "/api/admin/metadata/nothing").status, 404);

    // A column that is hidden is nowhere.
    world.command(&["admin", "policy", "create", "analysts", "orders", "--hide", "amount"]);
    let left = world.get("member", path).json();
    assert_eq!(
        (left["columns"].as_array().map(Vec::len), &left["columns"][0]["column_name"]),
        (Some(1), &json!("status"))
    );
    for address in ["/api/v2/schema/orders", "/api/catalog/profile/orders", path] {
        assert!(!world.get("member", address).text().contains("in euro"), "{address}");
    }
    assert_eq!(world.get("admin", path).json()["columns"].as_array().map(Vec::len), Some(2));
}

#[test]
fn whoever_registered_a_table_may_have_its_profile_made() {
    let world = World::start();
    let refresh = |who: &str| world.send(who, "POST", "/api/catalog/profile/orders/refresh", &Value::Null);
    assert_eq!(told(&refresh("member")), (403, "admin_required".to_owned()));
    assert_eq!(told(&refresh("stranger")), (403, "access_denied".to_owned()));
    let made = refresh("admin");
    assert_eq!((made.status, made.json()), (200, json!({"status": "ok", "table": "orders", "columns": 3})));
    let none = world.get("admin", "/api/catalog/profile/agnes_audit");
    assert_eq!(told(&none), (404, "no_profile".to_owned()));
    // The admin registers a table and is an admin no more: it is still theirs.
    register(&world, json!({"name": "mine", "source": "shop", "source_table": "people.csv"}));
    synced(&world, "mine");
    world.command(&["admin", "group", "add-member", "Admin", "stranger@example.com"]);
    world.command(&["admin", "group", "remove-member", "Admin", "admin@example.com"]);
    let mine = |who: &str| world.send(who, "POST", "/api/catalog/profile/mine/refresh", &Value::Null);
    assert_eq!(told(&mine("admin")).0, 403, "who may not read it may not have it made");
    world.command(&["admin", "group", "add-member", "analysts", "admin@example.com"]);
    world.command(&["admin", "grant", "create", "analysts", "table", "mine"]);
    assert_eq!(mine("admin").status, 200);
    assert_eq!(told(&mine("member")), (403, "admin_required".to_owned()));
    // So much of it takes the server's time.
    let asked: Vec<u16> = (0..12).map(|_| mine("admin").status).collect();
    assert_eq!(asked.last(), Some(&429));
}

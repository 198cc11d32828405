//! A Keboola project, from the first steps of an installation to rows that people ask.

use serde_json::{Value, json};

use super::process::is_secret;
use super::world::World;
use crate::fake::{Fake, SIGNATURE, TOKEN};

fn ended(world: &World, body: &Value) {
    let started = world.send("admin", "POST", "/api/sync/trigger", body);
    assert_eq!(started.status, 200, "{}", started.text());
    let run = format!("/api/sync/runs/{}", started.json()["run_id"].as_str().unwrap());
    for _ in 0..1200 {
        let told = world.get("admin", &run).json();
        match told["state"].as_str().unwrap() {
            "queued" | "running" => std::thread::sleep(std::time::Duration::from_millis(50)),
            "succeeded" => return,
            other => panic!("{other}: {told}"),
        }
    }
    panic!("the run did not end");
}

fn row(world: &World, id: &str) -> Value {
    let rows = world.get("admin", "/api/admin/registry").json();
    rows["tables"].as_array().unwrap().iter().find(|row| row["id"] == id).cloned().unwrap_or(Value::Null)
}

#[test]
fn a_project_is_configured_registered_synced_and_asked() {
    let fake = Fake::start();
    fake.table("orders", &["id:INTEGER", "city", "amount:NUMERIC(12,2)"], &[&["1", "Brno", "2.50"], &["2", "", ""]]);
    fake.table("visits", &["id:INTEGER", "day:DATE"], &[&["7", "2024-02-29"]]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.yaml");
    let config = "config_version: 1\ninstance: {name: Acme}\nauth: {allowed_domain: acme.example}\n\
                  server: {host: h, hostname: h}\nsecurity: {allowed_private_hosts: [127.0.0.1]}\n";
    std::fs::write(&file, config).unwrap();
    let quick = [("AGNES_KEBOOLA_POLL_INTERVAL_SEC", "0.05")];
    let world = World::start_with(&["--config", file.to_str().unwrap()], &quick);
    is_secret(TOKEN);
    is_secret(SIGNATURE);

    let register = |name: &str, more: Value| {
        let mut body = json!({"name": name, "source_type": "keboola", "bucket": "in.c-shop", "source_table": "orders"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.send("admin", "POST", "/api/admin/register-table", &body)
    };
    assert_eq!(register("kb_orders", json!({})).json()["code"], "source_not_configured");
    let configure = |token: &str| {
        let body = json!({"data_source": "keboola", "keboola_token": token, "keboola_url": fake.url});
        world.send("admin", "POST", "/api/admin/configure", &body)
    };
    let refused = configure("no-such-token-of-theirs");
    assert_eq!(refused.json()["code"], "connection_failed", "{}", refused.text());
    assert!(!refused.text().contains("no-such-token-of-theirs"), "{}", refused.text());
    let done = configure(TOKEN);
    assert_eq!(done.status, 200, "{}", done.text());
    let done = done.json();
    assert_eq!((&done["data_source"], &done["connection"]), (&json!("keboola"), &json!("verified")), "{done}");

    // What the project has, and one of its tables, without a restart.
    let offers = world.get("admin", "/api/admin/discover-tables?source=keboola").json();
    assert_eq!((&offers["source"], &offers["count"]), (&json!("keboola"), &json!(2)), "{offers}");
    let offer = &offers["tables"][0];
    let named =
        ["id", "name", "bucket_id", "bucket_name", "row_count", "primary_key"].map(|field| offer[field].clone());
    let expected =
        [json!("in.c-shop.orders"), json!("in_c_shop_orders"), json!("in.c-shop"), json!("c-shop"), json!(2)];
    assert_eq!(named[..5], expected, "{offer}");
    assert_eq!(named[5], json!(["id"]));
    let incremental = json!({"sync_strategy": "incremental", "primary_key": ["id"]});
    assert_eq!(register("kb_orders", incremental).status, 201);
    let modes = |id: &str| [row(&world, id)["query_mode"].clone(), row(&world, id)["source"].clone()];
    assert_eq!(modes("kb_orders"), [json!("local"), json!("keboola")]);
    ended(&world, &json!(["kb_orders"]));
    let ask = |sql: &str| world.query("admin", sql, "application/json").json()["rows"].clone();
    assert_eq!(ask("select id, city, amount from kb_orders order by id"), json!([[1, "Brno", "2.50"], [2, "", null]]));

    // A run takes no table that nobody asked for; discovery takes them all, as materialized.
    ended(&world, &Value::Null);
    assert!(row(&world, "in_c_shop_visits").is_null());
    let path = "/api/admin/discover-and-register?source=keboola";
    let taken = world.send("admin", "POST", path, &Value::Null).json();
    assert_eq!(taken["tables"], json!(["in_c_shop_orders", "in_c_shop_visits"]), "{taken}");
    assert_eq!(modes("in_c_shop_visits"), [json!("materialized"), json!("keboola")]);
    assert!(row(&world, "in_c_shop_visits")["description"].as_str().unwrap().contains("discovery"));
    ended(&world, &json!(["in_c_shop_visits"]));
    assert_eq!(ask("select id, day from in_c_shop_visits"), json!([[7, "2024-02-29"]]));
    let manifest = world.get("admin", "/api/sync/manifest").json();
    assert_eq!(manifest["tables"]["in_c_shop_visits"]["query_mode"], "materialized", "{manifest}");

    // Changes of a table without a key could only be appended: its rows would be there twice.
    fake.state().tables.get_mut("in.c-shop.visits").unwrap().primary_key.clear();
    let keyless = register("kb_visits", json!({"source_table": "visits", "sync_strategy": "incremental"}));
    assert_eq!((keyless.status, &keyless.json()["detail"][0]["loc"]), (422, &json!(["body", "primary_key"])));
    let keyed = json!({"source_table": "visits", "sync_strategy": "incremental", "primary_key": ["id"]});
    assert_eq!(register("kb_visits", keyed).status, 201);

    // The engine's own extension for Keboola is not there: no table can stay at the source.
    let remote = register("kb_remote", json!({"query_mode": "remote"}));
    assert_eq!((remote.status, &remote.json()["detail"][0]["loc"]), (422, &json!(["body", "query_mode"])));
    assert!(remote.text().contains("`keboola` is not installed"), "{}", remote.text());

    // What people wrote of columns goes there, by Keboola's own keys.
    let columns = json!({"columns": [{"column_name": "amount", "basetype": "numeric", "description": "net, in euro"},
        {"column_name": "city", "description": "where to"}, {"column_name": "gone", "description": "not there"}]});
    assert_eq!(world.send("admin", "POST", "/api/admin/metadata/kb_orders", &columns).status, 200);
    fake.forget_requests();
    let pushed = world.send("admin", "POST", "/api/admin/metadata/kb_orders/push", &Value::Null).json();
    assert_eq!((&pushed["status"], &pushed["pushed"]), (&json!("ok"), &json!(2)), "{pushed}");
    assert!(pushed["errors"][0].as_str().unwrap().starts_with("`gone`: Keboola answered 404"), "{pushed}");
    let sent = fake.state().requests.iter().find(|one| one.target.contains("/columns/amount/")).cloned().unwrap();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str(), sent.header("Content-Type"), sent.header("X-StorageApi-Token")),
        ("POST", "/v2/storage/tables/in.c-shop.orders/columns/amount/metadata", Some("application/json"), Some(TOKEN))
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&sent.body).unwrap(),
        json!({"provider": "ai-metadata-enrichment", "metadata": [
            {"key": "KBC.datatype.basetype", "value": "NUMERIC"}, {"key": "KBC.description", "value": "net, in euro"}]})
    );
    let none = world.send("admin", "POST", "/api/admin/metadata/orders/push", &Value::Null);
    assert_eq!((none.status, &none.json()["code"]), (400, &json!("metadata_push_unsupported")));

    // What goes wrong is said of its row, and the rows stay.
    fake.fault("POST /v2/storage/tables/in.c-shop.orders/", 403, &[], "no", u32::MAX);
    fake.upsert("in.c-shop.orders", chrono::Utc::now().timestamp(), &[&["3", "Oslo", "1"]]);
    let started = world.send("admin", "POST", "/api/sync/trigger", &json!(["kb_orders"]));
    assert_eq!(started.status, 200);
    let failed = (0..600).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        row(&world, "kb_orders")["last_sync_error"].as_str().map(str::to_owned)
    });
    assert!(failed.as_deref().is_some_and(|words| words.contains("answered 403")), "{failed:?}");
    assert_eq!(ask("select count(*) from kb_orders"), json!([[2]]));
}

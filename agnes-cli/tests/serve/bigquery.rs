//! Tables that stay in BigQuery, as the server tells of them: what is kept of them between the times
//! they are asked about, and what is wrong with where they are.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use super::google::{Google, TOKEN};
use super::process::is_secret;
use super::world::World;

const TABLES: &str = "GET /bigquery/v2/projects/acme-data/datasets/mart/tables";

/// A server with a source `warehouse` on a BigQuery that says what it is told to.
struct Site {
    world: World,
    google: Google,
    folder: tempfile::TempDir,
}

/// The configuration of a server, with more of it.
fn config(folder: &tempfile::TempDir, more: &str) -> String {
    let text = format!(
        "config_version: 1\ninstance: {{name: Acme}}\nauth: {{allowed_domain: acme.example}}\n\
         server: {{host: h, hostname: h}}\nsecurity: {{allowed_private_hosts: [127.0.0.1]}}\n{more}"
    );
    std::fs::write(folder.path().join("instance.yaml"), text).unwrap();
    folder.path().to_str().unwrap().to_owned()
}

/// A BigQuery without datasets, and a folder with the key for it.
fn google() -> (Google, tempfile::TempDir) {
    let (google, folder) = (Google::start(), tempfile::tempdir().unwrap());
    is_secret(TOKEN);
    std::fs::write(folder.path().join("key.json"), google.key()).unwrap();
    for project in ["acme-data", "acme-bi", "acme-dwh-prod"] {
        google.answer(&format!("GET /bigquery/v2/projects/{project}/datasets?"), 200, json!({}));
    }
    (google, folder)
}

impl Site {
    /// With these tables, by name, as BigQuery tells of them.
    fn start(tables: &[(&str, u16, Value)]) -> Self {
        let (google, folder) = google();
        let (key, config) = (folder.path().join("key.json"), config(&folder, ""));
        for (name, status, told) in tables {
            google.answer(&format!("{TABLES}/{name}"), *status, told.clone());
        }
        let variables = [("CONFIG_DIR", config.as_str()), ("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())];
        let world = World::start_with(&[], &variables);
        let endpoint = format!("endpoint={}", google.url);
        let settings = ["--set", "project=acme-data", "--set", "location=EU", "--set", &endpoint];
        world.command(&[&["source", "add", "warehouse", "--kind", "bigquery"], &settings[..]].concat());
        Self { world, google, folder }
    }

    fn register(&self, name: &str) {
        let body = json!({"name": name, "source_type": "bigquery", "bucket": "mart", "source_table": name,
            "query_mode": "remote"});
        let made = self.world.send("admin", "POST", "/api/admin/register-table", &body);
        assert_eq!(made.status, 201, "{}", made.text());
    }

    fn refresh(&self, who: &str, table: &str) -> (u16, Value) {
        let path = format!("/api/v2/metadata-cache/refresh?table={table}");
        let answer = self.world.send(who, "POST", &path, &Value::Null);
        (answer.status, answer.json())
    }

    /// What is kept of a table, as somebody sees it.
    fn known(&self, who: &str, table: &str) -> Value {
        let all = self.world.get(who, "/api/v2/metadata-cache/status").json();
        let tables = all["tables"].as_array().unwrap();
        tables.iter().find(|row| row["table_id"] == table).cloned().unwrap_or(Value::Null)
    }

    fn listed(&self, table: &str) -> Value {
        let all = self.world.get("admin", "/api/v2/catalog").json();
        all["tables"].as_array().unwrap().iter().find(|row| row["id"] == table).cloned().unwrap()
    }
}

/// A table as BigQuery tells of it.
fn told(name: &str, more: Value) -> Value {
    let mut told = json!({
        "tableReference": {"projectId": "acme-data", "datasetId": "mart", "tableId": name},
        "type": "TABLE", "numRows": "1200", "numBytes": "5368709120",
        "schema": {"fields": [{"name": "event_date", "type": "DATE"}, {"name": "country_code", "type": "STRING"},
            {"name": "platform", "type": "STRING"}]},
    });
    told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    told
}

/// Answers who asks about the table `slow`.
fn tell_of_slow(mut asked: TcpStream) {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = asked.read(&mut piece).unwrap();
        head.extend_from_slice(&piece[..read]);
    }
    let body = told("slow", json!({})).to_string();
    asked.write_all(format!("HTTP/1.0 200 X\r\n\r\n{body}").as_bytes()).unwrap();
}

fn web() -> Value {
    told(
        "web",
        json!({"timePartitioning": {"type": "DAY", "field": "event_date"},
        "clustering": {"fields": ["country_code", "platform"]}}),
    )
}

const REFRESH_ALL: &str = "/api/admin/run-bq-metadata-refresh";

#[test]
fn what_bigquery_knows_of_tables_is_asked_now_and_then_and_kept() {
    let view = told("paid", json!({"type": "VIEW", "numRows": "0", "numBytes": "0"}));
    let site = Site::start(&[("web", 200, web()), ("paid", 200, view), ("gone", 404, json!({}))]);
    for name in ["web", "paid", "gone"] {
        site.register(name);
    }
    assert_eq!(site.known("admin", "web")["freshness"], "never_fetched");
    let row = site.listed("web");
    assert_eq!((&row["metadata_freshness"], &row["rows"]), (&json!("never_fetched"), &Value::Null), "{row}");

    let run = site.world.send("service", "POST", REFRESH_ALL, &Value::Null);
    assert_eq!(run.status, 200, "{}", run.text());
    let run = run.json();
    let counts = ["total", "succeeded", "no_data", "failed"].map(|field| run[field].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 0, 1], "{run}");
    assert!(run["run_id"].is_string() && run["started_at"].is_string() && run["duration_ms"].is_u64(), "{run}");

    let all = site.world.get("admin", "/api/v2/metadata-cache/status").json();
    let seconds = (&all["scheduler_interval_seconds"], &all["fresh_threshold_seconds"]);
    assert_eq!(seconds, (&json!(14_400), &json!(28_800)), "{all}");
    let mut known = site.known("admin", "web");
    assert!(known.as_object_mut().unwrap().remove("refreshed_at").unwrap().is_string());
    assert_eq!(
        known,
        json!({"table_id": "web", "rows": 1200, "size_bytes": 5_368_709_120_u64, "partition_by": "event_date",
            "clustered_by": ["country_code", "platform"], "entity_type": "BASE TABLE",
            "known_columns": ["event_date", "country_code", "platform"], "error_at": null, "error_msg": null,
            "freshness": "fresh"})
    );
    let view = site.known("admin", "paid");
    assert_eq!(
        (&view["rows"], &view["size_bytes"], &view["entity_type"]),
        (&Value::Null, &Value::Null, &json!("VIEW"))
    );
    let gone = site.known("admin", "gone");
    assert_eq!((&gone["freshness"], &gone["refreshed_at"]), (&json!("error"), &Value::Null), "{gone}");
    assert!(gone["error_at"].is_string() && gone["error_msg"].as_str().unwrap().contains("404"), "{gone}");

    // The catalog tells it without asking there.
    let asked = site.google.requests().len();
    let row = site.listed("web");
    assert_eq!((&row["rows"], &row["size_bytes"]), (&json!(1200), &json!(5_368_709_120_u64)));
    assert_eq!((&row["rough_size_hint"], &row["entity_type"]), (&json!("large"), &json!("BASE TABLE")));
    assert_eq!((&row["partition_by"], &row["metadata_freshness"]), (&json!("event_date"), &json!("fresh")));
    assert_eq!(row["clustered_by"], json!(["country_code", "platform"]));
    assert_eq!(row["where_examples"].as_array().unwrap().len(), 2, "{row}");
    assert_eq!(site.listed("paid")["where_examples"].as_array().unwrap().len(), 2);
    assert_eq!(site.listed("gone")["metadata_freshness"], "error");
    assert_eq!(site.listed("orders")["metadata_freshness"], "not_applicable");
    assert_eq!(site.google.requests().len(), asked);

    // Who may not read a table hears nothing of it, and only admins have BigQuery asked.
    assert!(site.known("member", "web").is_null());
    assert_eq!(site.refresh("member", "web").0, 403);
    assert_eq!(site.world.send("member", "POST", REFRESH_ALL, &Value::Null).status, 403);
    site.world.command(&["admin", "grant", "create", "analysts", "table", "web"]);
    assert_eq!(site.known("member", "web")["rows"], 1200);
    for (table, status, code) in
        [("orders", 400, "not_in_a_warehouse"), ("no_such", 404, "table_not_found"), ("a%20b", 404, "table_not_found")]
    {
        let (answered, body) = site.refresh("admin", table);
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{body}");
    }

    // What cannot be asked about keeps what it told before.
    let refused = json!({"error": {"message": format!("no, {TOKEN}"), "errors": [{"reason": "accessDenied"}]}});
    site.google.answer(&format!("{TABLES}/web"), 403, refused);
    let (status, done) = site.refresh("admin", "web");
    assert_eq!((status, &done["table_id"], &done["status"]), (200, &json!("web"), &json!("error")), "{done}");
    let known = site.known("member", "web");
    assert_eq!((&known["rows"], &known["freshness"]), (&json!(1200), &json!("fresh")), "{known}");
    assert!(known["error_at"].is_string() && known["error_msg"].is_null(), "{known}");
    let known = site.known("admin", "web");
    assert!(known["error_msg"].as_str().unwrap().contains("403") && !known.to_string().contains(TOKEN), "{known}");
    site.google.answer(&format!("{TABLES}/web"), 200, told("web", json!({"numRows": "7"})));
    assert_eq!(site.refresh("admin", "web"), (200, json!({"table_id": "web", "status": "ok"})));
    let known = site.known("member", "web");
    assert_eq!((&known["rows"], &known["error_at"], &known["partition_by"]), (&json!(7), &Value::Null, &Value::Null));

    // It outlives the process, and ends with the table.
    let key = site.folder.path().join("key.json");
    let config = config(&site.folder, "");
    // Nothing is asked at the start: the answer could come after the table is there again.
    let variables = [
        ("CONFIG_DIR", config.as_str()),
        ("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap()),
        ("AGNES_SKIP_CACHE_WARMUP", "1"),
    ];
    let (world, _) = site.world.restarted(&variables);
    let site = Site { world, ..site };
    assert_eq!(site.known("admin", "web")["rows"], 7);
    assert_eq!(site.world.send("admin", "DELETE", "/api/admin/registry/web", &Value::Null).status, 204);
    site.register("web");
    assert_eq!(site.known("admin", "web")["freshness"], "never_fetched");
}

#[test]
fn one_look_at_all_tables_runs_at_a_time() {
    let site = Site::start(&[]);
    site.register("slow");
    // BigQuery answers when this does.
    let behind = TcpListener::bind("127.0.0.1:0").unwrap();
    site.google.forward_to(&format!("http://{}", behind.local_addr().unwrap()));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| site.world.send("admin", "POST", REFRESH_ALL, &Value::Null));
        let (asked, _) = behind.accept().unwrap();
        let second = site.world.send("service", "POST", REFRESH_ALL, &Value::Null);
        assert_eq!((second.status, &second.json()["code"]), (409, &json!("metadata_refresh_running")));
        let running = second.json()["detail"].clone();
        assert_eq!(running["reason"], "already_running", "{running}");
        assert!(running["started_at"].is_string() && running["hint"].is_string(), "{running}");
        tell_of_slow(asked);
        let first = first.join().unwrap();
        assert_eq!((first.status, &first.json()["succeeded"]), (200, &json!(1)), "{}", first.text());
        assert_eq!(first.json()["run_id"], running["run_id"]);
    });
    // Its end is the next one's beginning.
    site.google.answer(&format!("{TABLES}/slow"), 200, told("slow", json!({})));
    assert_eq!(site.world.send("admin", "POST", REFRESH_ALL, &Value::Null).status, 200);
}

/// The events of a stream, by name.
fn events(text: &str) -> Vec<(String, Value)> {
    let each = text.split("\n\n").filter(|event| !event.is_empty()).map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
        (field("event").to_owned(), serde_json::from_str(field("data")).unwrap())
    });
    each.collect()
}

const WARMUP: &str = "/api/admin/cache-warmup";

/// Looks on until an event was there: the connection, and what came.
fn watch(world: &World, until: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(world.server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let (path, who) = (format!("{WARMUP}/stream"), world.authorization("admin"));
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{who}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(&format!("event: {until}")) {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    (stream, seen)
}

#[test]
fn tables_that_stay_are_warmed_up_and_who_looks_on_sees_it() {
    let site = Site::start(&[("web", 200, web()), ("gone", 404, json!({}))]);
    for name in ["web", "gone", "slow"] {
        site.register(name);
    }
    let status = |site: &Site| site.world.get("admin", &format!("{WARMUP}/status")).json();
    // The one of the start knew no table yet.
    let first = status(&site);
    assert_eq!((&first["trigger"], &first["total"]), (&json!("startup"), &json!(0)), "{first}");
    assert!(first["completed_at"].is_string(), "{first}");
    // BigQuery answers for one of them when this does.
    let behind = TcpListener::bind("127.0.0.1:0").unwrap();
    site.google.forward_to(&format!("http://{}", behind.local_addr().unwrap()));
    let begin = || site.world.send("service", "POST", &format!("{WARMUP}/run"), &Value::Null).json();
    let begun = begin();
    assert_eq!(begun["status"], "started", "{begun}");
    let seen = std::thread::scope(|scope| {
        let (asked, _) = behind.accept().unwrap();
        assert_eq!(begin(), json!({"run_id": begun["run_id"], "status": "already_running"}));
        let running = status(&site);
        assert_eq!((&running["run_id"], &running["completed_at"]), (&begun["run_id"], &Value::Null), "{running}");
        assert_eq!(
            (&running["total"], &running["rows"]["slow"]["status"]),
            (&json!(3), &json!("warming")),
            "{running}"
        );
        // Whoever looks on has seen the beginning before it goes on.
        let (mut stream, mut seen) = watch(&site.world, "snapshot");
        let rest = scope.spawn(move || {
            stream.read_to_end(&mut seen).unwrap();
            String::from_utf8(seen).unwrap()
        });
        tell_of_slow(asked);
        rest.join().unwrap()
    });
    assert!(seen.contains("content-type: text/event-stream") && seen.contains("event: complete"), "{seen}");
    let ended = status(&site);
    let counts = ["total", "completed", "failed"].map(|field| ended[field].as_u64().unwrap());
    assert_eq!((counts, &ended["trigger"]), ([3, 2, 1], &json!("manual")), "{ended}");
    let (web, gone) = (&ended["rows"]["web"], &ended["rows"]["gone"]);
    assert_eq!((&web["status"], &web["error"], &web["table_id"]), (&json!("fresh"), &Value::Null, &json!("web")));
    assert!(web["started_at"].is_string() && web["duration_ms"].is_u64(), "{web}");
    assert_eq!(web["last_warmed_at"], web["completed_at"]);
    assert_eq!((&gone["status"], &gone["last_warmed_at"]), (&json!("error"), &Value::Null), "{gone}");
    assert!(gone["error"].as_str().unwrap().contains("404"), "{gone}");
    assert_eq!(site.known("admin", "slow")["freshness"], "fresh");
    // One that is over is told as a whole.
    let over = events(&site.world.get("admin", &format!("{WARMUP}/stream")).text());
    assert_eq!(over.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["snapshot", "complete"]);
    assert_eq!((&over[0].1, &over[1].1["failed"]), (&ended, &json!(1)));
    for path in ["status", "stream"] {
        assert_eq!(site.world.get("member", &format!("{WARMUP}/{path}")).status, 403, "{path}");
    }
    // The next start asks by itself, unless it is told not to.
    let key = site.folder.path().join("key.json");
    let config = config(&site.folder, "");
    let variables = [("CONFIG_DIR", config.as_str()), ("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())];
    let skipped = [&variables[..], &[("AGNES_SKIP_CACHE_WARMUP", "1")]].concat();
    let (world, _) = site.world.restarted(&skipped);
    let site = Site { world, ..site };
    assert_eq!(status(&site), json!({"state": "never_run"}));
    // Whoever looks on there keeps it from nothing: the stream ends with the server, as a whole.
    let mut idle = watch(&site.world, "idle");
    site.google.answer(&format!("{TABLES}/slow"), 200, told("slow", json!({})));
    let (world, _) = site.world.restarted(&variables);
    let mut rest = Vec::new();
    idle.0.read_to_end(&mut rest).unwrap();
    idle.1.extend(rest);
    assert!(idle.1.ends_with(b"\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&idle.1));
    let site = Site { world, ..site };
    let all = events(&site.world.get("admin", &format!("{WARMUP}/stream")).text());
    assert_eq!(all.last().unwrap().0, "complete", "{all:?}");
    let ended = status(&site);
    assert_eq!((&ended["trigger"], &ended["completed"]), (&json!("startup"), &json!(2)), "{ended}");
}

#[test]
fn datasets_are_offered_before_their_tables() {
    let reference = json!({"projectId": "acme-data", "datasetId": "mart", "tableId": "sales"});
    let site = Site::start(&[("sales", 200, json!({"tableReference": reference, "type": "TABLE"}))]);
    let listed = |ids: &[&str]| -> Vec<Value> {
        ids.iter().map(|id| json!({"datasetReference": {"projectId": "acme-data", "datasetId": id}})).collect()
    };
    let datasets = "GET /bigquery/v2/projects/acme-data/datasets";
    site.google.answer(&format!("{datasets}?"), 200, json!({"datasets": listed(&["raw", "mart"])}));
    site.google.answer(&format!("{TABLES}?"), 200, json!({"tables": [{"tableReference": reference}]}));
    site.google.answer(&format!("{datasets}/raw/tables?"), 200, json!({}));
    let offers = |more: &str| site.world.get("admin", &format!("/api/admin/discover-tables{more}")).json();
    let both =
        json!([{"dataset_id": "mart", "full_id": "acme-data.mart"}, {"dataset_id": "raw", "full_id": "acme-data.raw"}]);
    assert_eq!(offers("?source=warehouse"), json!({"datasets": both, "count": 2, "source": "bigquery"}));
    let inside = offers("?source=warehouse&dataset=mart");
    assert_eq!((&inside["count"], &inside["dataset"], inside.get("datasets")), (&json!(1), &json!("mart"), None));
    assert_eq!(inside["tables"][0]["id"], "mart.sales", "{inside}");
    // Who wants all tables says so; beside sources without datasets they are all that is told.
    for more in ["?source=warehouse&tables=true", ""] {
        let all = offers(more);
        let ids: Vec<&Value> = all["tables"].as_array().unwrap().iter().map(|table| &table["id"]).collect();
        assert!(ids.contains(&&json!("mart.sales")) && all.get("datasets").is_none(), "{all}");
    }
}

/// What a server says at its start of a source whose settings these are; `more` is in its
/// configuration.
fn said_at_start(settings: &[&str], more: &str) -> Vec<String> {
    let (google, folder) = google();
    let (key, config) = (folder.path().join("key.json"), config(&folder, more));
    let variables = [("CONFIG_DIR", config.as_str()), ("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())];
    let world = World::start_with(&[], &variables);
    let endpoint = format!("endpoint={}", google.url);
    let settings: Vec<&str> =
        settings.iter().chain(&[endpoint.as_str()]).flat_map(|setting| ["--set", *setting]).collect();
    world.command(&[&["source", "add", "warehouse", "--kind", "bigquery"], &settings[..]].concat());
    let (world, _) = world.restarted(&variables);
    let said = format!("{}{}", world.server.said, world.server.logs());
    let warns =
        said.lines().filter(|line| line.contains("\"lvl\":\"warn\"") && line.contains("\"source\":\"warehouse\""));
    warns.map(str::to_owned).collect()
}

#[test]
fn a_server_warns_at_its_start_of_projects_that_will_cost_time() {
    let elsewhere = said_at_start(&["project=acme-bi", "billing_project=acme-jobs"], "");
    assert_eq!(elsewhere.len(), 1, "{elsewhere:?}");
    assert!(elsewhere[0].contains("set `location`"), "{elsewhere:?}");
    let unpaid = said_at_start(&["project=acme-dwh-prod"], "");
    assert_eq!(unpaid.len(), 1, "{unpaid:?}");
    assert!(unpaid[0].contains("set `billing_project`"), "{unpaid:?}");
    // What the configuration says for all sources counts, too.
    let both = "data_source: {bigquery: {billing_project: acme-jobs, location: EU}}\n";
    assert_eq!(said_at_start(&["project=acme-dwh-prod"], both), Vec::<String>::new());
    let place = "data_source: {bigquery: {billing_project: acme-jobs}}\n";
    let said = said_at_start(&["project=acme-dwh-prod"], place);
    assert!(said.len() == 1 && said[0].contains("set `location`"), "{said:?}");
}

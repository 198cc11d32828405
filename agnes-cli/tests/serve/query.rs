//! Queries over HTTP.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::running::{ENDLESS, leave_running, wait_for};
use super::world::World;

const JSON: &str = "application/json";

#[test]
fn rows_as_json_with_limits_and_parameters() {
    let world = World::start();
    let ask = |body: Value| world.send("member", "POST", "/api/query", &body);
    let all = ask(json!({"sql": "select id, status, amount, {'a': id} as s from orders order by id"}));
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(
        all.json(),
        json!({
            "columns": ["id", "status", "amount", "s"],
            "rows": [
                [1, "paid", 10.5, "{a: 1}"], [2, "open", 20.0, "{a: 2}"],
                [3, "paid", 30.25, "{a: 3}"], [4, "lost", null, "{a: 4}"],
            ],
            "row_count": 4, "truncated": false, "bytes_scanned": null,
        })
    );
    let two = ask(json!({"sql": "from orders", "limit": 2})).json();
    assert_eq!((&two["row_count"], &two["truncated"]), (&json!(2), &json!(true)));
    for limit in [json!(null), json!(0), json!(-1)] {
        let many = ask(json!({"sql": "from range(1500)", "limit": limit})).json();
        assert_eq!((&many["row_count"], &many["truncated"]), (&json!(1000), &json!(true)));
    }
    assert_eq!(ask(json!({"sql": "from range(1500)", "limit": 1500})).json()["truncated"], false);
    let by_place = ask(json!({"sql": "select id from orders where id > ? and status = ?", "params": [1, "paid"]}));
    assert_eq!(by_place.json()["rows"], json!([[3]]));
    let by_name = ask(json!({"sql": "select id from orders where status = $s order by id", "params": {"s": "paid"}}));
    assert_eq!(by_name.json()["rows"], json!([[1], [3]]));
    let kinds = ask(json!({"sql": "select 'b'::enum('a', 'b') as e, ['a'::enum('a', 'b')] as l"})).json();
    assert_eq!(kinds["rows"], json!([["b", "[a]"]]));
    let exact = ask(json!({"sql": "select 9007199254740993 as i, 1.10::decimal(9,2) as d, 'nan'::double as n"})).json();
    assert_eq!(exact["rows"], json!([["9007199254740993", "1.10", null]]));
}

#[test]
fn rows_in_every_other_format() {
    let world = World::start();
    let sql = "select id, status from orders order by id";
    let csv = world.query("member", sql, "text/csv");
    assert_eq!(
        (csv.text().as_str(), csv.header("content-type")),
        ("id,status\n1,paid\n2,open\n3,paid\n4,lost\n", Some("text/csv"))
    );
    assert_eq!(csv.header("x-agnes-truncated"), Some("false"));
    let lines = world.query("member", sql, "application/x-ndjson").text();
    assert_eq!(lines.lines().next(), Some(r#"{"id":1,"status":"paid"}"#));
    assert_eq!(lines.lines().count(), 4);
    let stream = world.query("member", sql, "application/vnd.apache.arrow.stream").body;
    let reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    let file = world.server.folder.path().join("all.parquet");
    std::fs::write(&file, world.query("member", sql, "application/vnd.apache.parquet").body).unwrap();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap());
    assert_eq!(reader.unwrap().build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    let none = world.query("member", sql, "image/png");
    assert_eq!((none.status, none.json()["code"].as_str()), (406, Some("not_acceptable")));
}

#[test]
fn large_answers_are_streamed_and_told_of_at_their_end() {
    let world = World::start();
    let sql = "select i, 'some text of row ' || i as t from range(300000) r(i)";
    let csv = world.query("member", sql, "text/csv");
    assert_eq!(csv.header("transfer-encoding"), Some("chunked"));
    assert_eq!(csv.text().lines().count(), 300_001);
    assert_eq!(csv.trailers.get("x-agnes-truncated").map(String::as_str), Some("false"));
    let body = json!({"sql": sql, "limit": 250_000});
    let cut = world.send_with("member", "POST", "/api/query", &body, "Accept: text/csv\r\nTE: trailers\r\n");
    assert_eq!(cut.text().lines().count(), 250_001);
    assert_eq!(cut.trailers.get("x-agnes-truncated").map(String::as_str), Some("true"));
    let json = world.send("member", "POST", "/api/query", &json!({"sql": sql, "limit": 300_000})).json();
    assert_eq!(json["rows"].as_array().map(Vec::len), Some(300_000));
    // What fails half way is no whole answer.
    let broken = world.query(
        "member",
        "select i, error(case when i = 290000 then 'no' end) from range(300000) r(i)",
        "text/csv",
    );
    assert!(broken.status != 200 || !broken.is_whole, "{} bytes", broken.body.len());
}

#[test]
fn refusals_have_their_status_and_code() {
    let world = World::start();
    let told = |who: &str, sql: &str| {
        let answer = world.send(who, "POST", "/api/query", &json!({ "sql": sql }));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{sql}");
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    for (who, sql, status, code) in [
        ("nobody", "select 1", 401, "auth_required"),
        ("member", "selec 1", 400, "sql_syntax"),
        ("member", "select 1; select 2", 400, "several_statements"),
        ("member", "create table t as select 1", 400, "not_a_query"),
        ("member", "from read_csv('/etc/passwd')", 400, "table_function_denied"),
        ("member", "from people", 403, "relation_denied"),
        ("member", "from nothing", 403, "relation_denied"),
        ("stranger", "from orders", 403, "relation_denied"),
        ("admin", "from nothing", 400, "relation_unknown"),
        ("member", "select nothing from orders", 400, "query_binder"),
        ("member", "select ?", 400, "wrong_parameters"),
        ("member", "select 'x'::int", 400, "query_conversion"),
    ] {
        assert_eq!(told(who, sql), (status, code.to_owned()), "{who}: {sql}");
    }
    let bad = |body: Value| {
        let answer = world.send("member", "POST", "/api/query", &body);
        (answer.status, answer.json()["detail"].is_array())
    };
    for body in [
        json!({}),
        json!({"sql": 1}),
        json!({"sql": "select 1", "limit": "x"}),
        json!({"sql": "select 1", "x": 1}),
        json!([]),
        json!(["select 1"]),
    ] {
        assert_eq!(bad(body.clone()), (422, true), "{body}");
    }
    assert_eq!(told("member", &"x".repeat(70_000)).1, "sql_too_long");
    assert_eq!(told("member", &"x".repeat(2 << 20)).1, "sql_too_long");
    let plain = world.authorization("member");
    let text =
        format!("POST /api/query HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{plain}Content-Length: 2\r\n\r\n{{}}");
    assert_eq!(world.server.send(&text).status, 415);
    for forged in ["x", "Bearer", "Bearer x.y.z", "Basic YTpi"] {
        let answer = world.server.get_with("/api/catalog/tables", &format!("Authorization: {forged}\r\n"));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("token_invalid")), "{forged}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn a_grant_holds_from_the_next_query_on_and_is_gone_from_the_next_one() {
    let world = World::start();
    let status = |who: &str| world.send(who, "POST", "/api/query", &json!({"sql": "from people"})).status;
    assert_eq!(status("member"), 403);
    let grant = world.command(&["admin", "grant", "create", "analysts", "table", "people", "--json"]);
    assert_eq!(status("member"), 200);
    let grant: Value = serde_json::from_str(&grant).unwrap();
    world.command(&["admin", "grant", "delete", grant["id"].as_str().unwrap(), "--yes"]);
    assert_eq!(status("member"), 403);
}

#[test]
fn policies_narrow_and_are_told_of() {
    let world = World::start();
    world.command(&["admin", "policy", "create", "analysts", "orders", "--rows", "status = 'paid'"]);
    let rows = world.send("member", "POST", "/api/query", &json!({"sql": "select id from orders order by id"})).json();
    assert_eq!(rows["rows"], json!([[1], [3]]));
    assert_eq!(rows["row_scope"][0]["table"], "orders");
    let csv = world.query("member", "select id from orders order by id", "text/csv");
    assert_eq!(csv.text(), "id\n1\n3\n");
    let scope: Value = serde_json::from_str(csv.header("x-agnes-row-scope").unwrap()).unwrap();
    assert_eq!(scope[0]["rows_filtered"], true);
    let receipt = world.send("member", "POST", "/api/query", &json!({"sql": "from orders", "receipt": true})).json();
    assert_eq!(receipt["receipt"]["rows"], 2);
}

#[test]
fn a_client_that_goes_away_ends_its_query() {
    let world = World::start();
    let running: Vec<TcpStream> = (0..4).map(|_| leave_running(&world, "member", JSON, ENDLESS)).collect();
    wait_for(&world, 4, 4);
    assert_eq!(world.send("member", "POST", "/api/query", &json!({"sql": "select 1"})).status, 429);
    drop(running);
    let patience = Instant::now() + Duration::from_secs(30);
    while world.send("member", "POST", "/api/query", &json!({"sql": "select 1"})).status != 200 {
        assert!(Instant::now() < patience, "the queries go on although nobody waits for them");
    }
}

#[test]
fn a_stop_cuts_off_what_does_not_end() {
    let world = World::start_with(&["--farewell", "1"], &[]);
    let mut running: Vec<TcpStream> = (0..4).map(|_| leave_running(&world, "member", JSON, ENDLESS)).collect();
    wait_for(&world, 4, 4);
    world.server.signal("TERM");
    let (status, _folder) = world.server.ended();
    assert!(status.success(), "{status}");
    let mut told = String::new();
    let _ = running[0].read_to_string(&mut told);
    assert!(!told.contains(" 200 "), "{told}");
}

#[test]
fn a_stop_lets_short_ones_end() {
    let world = World::start();
    // Some seconds of work that does not spill.
    let mut running =
        leave_running(&world, "member", JSON, "select count(*) as n from range(300000000) r(i) where i % 7 = 3");
    wait_for(&world, 1, 1);
    world.server.signal("TERM");
    let mut told = String::new();
    running.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("42857143"), "{told}");
    assert!(world.server.ended().0.success());
}

#[test]
fn frames_come_along_to_one_query() {
    let world = World::start();
    let batch = arrow::array::RecordBatch::try_from_iter([
        ("status", Arc::new(arrow::array::StringArray::from(vec!["paid", "open"])) as arrow::array::ArrayRef),
        ("word", Arc::new(arrow::array::StringArray::from(vec!["good", "soon"])) as _),
    ])
    .unwrap();
    let frame = agnes_core::query::Frame::new("words", &batch.schema(), vec![batch]).unwrap();
    let frame = |name: &str| json!({"name": name, "arrow": frame.encoded().unwrap()});
    let ask =
        |sql: &str, frames: Value| world.send("member", "POST", "/api/query", &json!({"sql": sql, "frames": frames}));
    let joined = "select id, word from orders join words using (status) order by id";
    let answer = ask(joined, json!([frame("words")])).json();
    assert_eq!(answer["rows"], json!([[1, "good"], [2, "soon"], [3, "good"]]));
    let gone = ask(joined, json!([]));
    assert_eq!((gone.status, gone.json()["code"].as_str()), (403, Some("relation_denied")));
    for (frames, status, code) in [
        (json!([frame("orders")]), 400, "frame_name_taken"),
        (json!([frame("two words")]), 400, "bad_frame"),
        (json!([{"name": "words", "arrow": "AAAA"}]), 400, "bad_frame"),
        (json!([{"name": "words"}]), 422, "validation_failed"),
    ] {
        let answer = ask("select 1", frames.clone());
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{frames}");
    }
    // Beyond what other bodies may be, and within it.
    let large = json!([{"name": "words", "arrow": "A".repeat(2 << 20)}]);
    assert_eq!(ask("select 1", large).status, 400);
    let larger = json!([{"name": "words", "arrow": "A".repeat(33 << 20)}]);
    assert_eq!(ask("select 1", larger).status, 413);
}

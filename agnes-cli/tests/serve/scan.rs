//! Scans over HTTP: rows of one table as an Arrow stream, what is refused, quotas.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::process::Answer;
use super::world::World;

fn scan(world: &World, who: &str, body: &Value) -> Answer {
    world.send_with(who, "POST", "/api/v2/scan", body, "TE: trailers\r\n")
}

fn rows(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/vnd.apache.arrow.stream"));
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(answer.body.as_slice(), None).unwrap().collect::<Result<_, _>>().unwrap();
    batches.iter().flat_map(agnes_core::query::json_rows).map(Value::Object).collect()
}

#[test]
fn columns_rows_and_order_are_as_asked() {
    let world = World::start();
    let all = scan(&world, "member", &json!({"table_id": "orders"}));
    assert_eq!(rows(&all).len(), 4);
    assert_eq!(all.header("x-agnes-truncated"), Some("false"));
    let body = json!({
        "table_id": "ORDERS", "select": ["ID", "amount"], "where": "orders.status IN ('paid', 'open') -- some",
        "order_by": ["amount desc"], "limit": 2, "as": "best"
    });
    assert_eq!(
        rows(&scan(&world, "member", &body)),
        [json!({"id": 3, "amount": 30.25}), json!({"id": 2, "amount": 20.0})]
    );
    let audit = world.get("admin", "/api/admin/activity?action_prefix=snapshot.scan").json();
    let newest = &audit["rows"][0];
    assert_eq!((&newest["resource"], &newest["params"]["snapshot_name"]), (&json!("table:orders"), &json!("best")));
    assert_eq!(newest["params"]["rows_returned"], 2);
    // Every function of the contract that takes the columns at hand is one that the engine has.
    for predicate in [
        "CURRENT_DATE() >= DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY)",
        "DATE_ADD(CURRENT_DATE, INTERVAL 1 MONTH) > CURRENT_DATE",
        "DATE_DIFF(CURRENT_DATE, DATE('2020-01-01'), DAY) > 1",
        "DATE_TRUNC(CURRENT_TIMESTAMP, MONTH) <= CURRENT_TIMESTAMP AND CURRENT_TIME IS NOT NULL",
        "EXTRACT(YEAR FROM DATE '2026-01-01') = 2026 AND TIME('10:00:00') IS NOT NULL",
        "FORMAT_DATE('%Y', DATE '2026-01-01') = '2026' AND FORMAT_TIMESTAMP('%Y', TIMESTAMP('2026-01-01')) = '2026'",
        "PARSE_DATE('%Y-%m', '2026-01') = DATE '2026-01-01' AND PARSE_TIMESTAMP('%Y', '2026') IS NOT NULL",
        "UNIX_SECONDS(DATETIME('1970-01-02')) = 86400 AND UNIX_MILLIS(TIMESTAMP '1970-01-01 00:00:01') = 1000",
        "CONCAT(status, 'x') = status || 'x' AND LENGTH(status) > 0 AND LOWER(UPPER(status)) = status",
        "SUBSTR(status, 1, 1) = SUBSTRING(status, 1, 1) AND TRIM(LTRIM(RTRIM(status))) = status",
        "REPLACE(status, 'a', 'b') IS NOT NULL AND (STARTS_WITH(status, 'p') OR NOT ENDS_WITH(status, 'p'))",
        "CONTAINS_SUBSTR(status, 'D') OR REGEXP_CONTAINS(status, '.') OR REGEXP_LIKE(status, '.')",
        "REGEXP_EXTRACT(status, '^.') IS NOT NULL AND SAFE_CAST(status AS INT64) IS NULL AND CAST(id AS VARCHAR) <> ''",
        "ABS(-id) = id AND CEIL(1.5) = 2 AND FLOOR(1.5) = 1 AND ROUND(1.4) = 1 AND MOD(id, 100) = id",
        "POWER(2, 2) = 4 AND SQRT(4) = 2 AND LOG(10) > 0 AND LN(EXP(1)) > 0.9 AND SIGN(id) = 1",
        "GREATEST(id, 0) = LEAST(id, 9) AND IF(id > 0, TRUE, FALSE) AND IFNULL(amount, 0) >= 0",
        "COALESCE(NULLIF(id, 0), 1) = id AND CASE WHEN id > 0 THEN TRUE ELSE FALSE END",
        "status ILIKE 'P%' OR DATE_PART('year', DATE '2026-01-01') = 2026 OR STRFTIME(DATE '2026-01-01', '%Y') = ''",
        "STRPTIME('2026', '%Y') IS NOT NULL AND TRY_CAST(status AS INTEGER) IS NULL AND id NOT IN (99)",
    ] {
        let answer = scan(&world, "member", &json!({"table_id": "orders", "where": predicate}));
        assert_eq!(rows(&answer).len(), 4, "{predicate}");
    }
}

#[test]
fn what_is_refused_says_why() {
    let world = World::start();
    let told = |who: &str, path: &str, body: Value| {
        let answer = world.send(who, "POST", path, &body);
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    for path in ["/api/v2/scan", "/api/v2/scan/estimate"] {
        for (who, body, status, code) in [
            ("nobody", json!({"table_id": "orders"}), 401, "auth_required"),
            ("narrow", json!({"table_id": "orders"}), 403, "scope_denied"),
            ("stranger", json!({"table_id": "orders"}), 403, "access_denied"),
            ("member", json!({"table_id": "people"}), 403, "access_denied"),
            ("admin", json!({"table_id": "nothing"}), 404, "table_not_found"),
            ("member", json!({"table_id": "orders", "select": ["nothing"]}), 400, "unknown_column"),
            ("member", json!({"table_id": "orders", "order_by": ["nothing"]}), 400, "unknown_column"),
            ("member", json!({"table_id": "orders", "order_by": ["id; drop table x"]}), 400, "unknown_column"),
            ("member", json!({"table_id": "orders", "order_by": ["DESC"]}), 400, "bad_order"),
            ("member", json!({"table_id": "orders", "where": ""}), 400, "validator_rejected"),
            ("member", json!({"table_id": "orders", "where": "id = 1; drop table x"}), 400, "validator_rejected"),
            ("member", json!({"table_id": "orders", "limit": 0}), 422, "validation_failed"),
            ("member", json!({"table_id": "orders", "limit": -1}), 422, "validation_failed"),
            ("member", json!({"table_id": "orders", "where": 1}), 422, "validation_failed"),
            ("member", json!({"table_id": "orders", "columns": []}), 422, "validation_failed"),
            ("member", json!({}), 422, "validation_failed"),
        ] {
            assert_eq!(told(who, path, body.clone()), (status, code.to_owned()), "{who} {path} {body}");
        }
    }
    let refused = scan(&world, "member", &json!({"table_id": "orders", "where": "id IN (SELECT 1)"})).json();
    let detail = &refused["detail"];
    assert_eq!((&detail["error"], &detail["kind"]), (&json!("validator_rejected"), &json!("nested_select")));
    assert_eq!(told("member", "/api/v2/scan", json!({"table_id": "orders", "limit": 10_000_001})).1, "scan_limit");
}

#[test]
fn policies_hold_for_scans_and_estimates() {
    let world = World::start();
    let estimate = |who: &str| world.send(who, "POST", "/api/v2/scan/estimate", &json!({"table_id": "orders"})).json();
    let whole = estimate("member");
    assert_eq!(whole["estimated_result_rows"], 4);
    assert!(
        whole["estimated_scan_bytes"].as_u64().unwrap() > 0 && whole["estimated_result_bytes"].as_u64().unwrap() > 0
    );
    assert_eq!(whole["bq_cost_estimate_usd"], 0.0);
    world.command(&["admin", "policy", "create", "analysts", "orders", "--rows", "status = 'paid'"]);
    assert_eq!(estimate("member")["estimated_result_rows"], 2);
    assert_eq!(estimate("admin")["estimated_result_rows"], 4);
    let seen = scan(&world, "member", &json!({"table_id": "orders", "select": ["id"], "order_by": ["id"]}));
    assert_eq!(rows(&seen), [json!({"id": 1}), json!({"id": 3})]);
    assert!(seen.header("x-agnes-row-scope").is_some());
    // A predicate sees what its caller sees.
    let guess = scan(&world, "member", &json!({"table_id": "orders", "where": "status = 'lost'"}));
    assert_eq!(rows(&guess).len(), 0);
}

/// A world whose configuration says this of scans, and a table `big` of 100,000 rows of 400 bytes:
/// more than what fits into the buffers of a connection.
fn narrow(lines: &str) -> World {
    let world = World::start();
    let overlay = world.server.folder.path().join("state").join("instance.yaml");
    std::fs::write(overlay, format!("api: {{scan: {{{lines}}}}}\n")).unwrap();
    let file = world.server.folder.path().join("files").join("big.csv");
    let mut text = String::from("id,words\n");
    for id in 0..100_000 {
        text += &format!("{id},{id:0400}x\n");
    }
    std::fs::write(file, text).unwrap();
    world.command(&["sync"]);
    world.restarted(&[]).0
}

#[test]
fn answers_are_cut_at_their_limit_and_say_so() {
    let world = narrow("max_result_bytes: 1000000, max_limit: 200000");
    let cut = scan(&world, "admin", &json!({"table_id": "big"}));
    let truncated = |answer: &Answer| {
        answer.header("x-agnes-truncated").map(str::to_owned).or(answer.trailers.get("x-agnes-truncated").cloned())
    };
    let returned = rows(&cut).len();
    assert_eq!(truncated(&cut).as_deref(), Some("true"));
    assert!((1_500..2_500).contains(&returned), "{returned}");
    let few = scan(&world, "admin", &json!({"table_id": "big", "limit": 5, "order_by": ["id"]}));
    assert_eq!((rows(&few).len(), truncated(&few).as_deref()), (5, Some("false")));
}

#[test]
fn quotas_hold_per_person() {
    let world = narrow("max_daily_bytes_per_user: 100, max_concurrent_per_user: 1");
    assert_eq!(rows(&scan(&world, "admin", &json!({"table_id": "big", "limit": 100}))).len(), 100);
    let refused = scan(&world, "admin", &json!({"table_id": "big", "limit": 1}));
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("quota_exceeded")));
    let detail = &refused.json()["detail"];
    assert_eq!((&detail["kind"], &detail["limit"]), (&json!("daily_bytes"), &json!(100)));
    assert_eq!(refused.header("retry-after").map(str::to_owned), Some(detail["retry_after_seconds"].to_string()));
    // Somebody else has a quota of their own.
    assert_eq!(scan(&world, "member", &json!({"table_id": "orders"})).status, 200);
}

#[test]
fn a_scan_that_goes_on_takes_a_turn_and_gives_it_back() {
    let world = narrow("max_concurrent_per_user: 1");
    let body = json!({"table_id": "big"}).to_string();
    let mut slow = TcpStream::connect(world.server.address).unwrap();
    let head = format!(
        "POST /api/v2/scan HTTP/1.1\r\nHost: t\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        world.authorization("admin"),
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    // It has the turn once its answer begins, and keeps it while nobody reads the rest.
    let mut began = [0; 12];
    slow.read_exact(&mut began).unwrap();
    assert_eq!(&began, b"HTTP/1.1 200");
    let one = || scan(&world, "admin", &json!({"table_id": "big", "limit": 1}));
    let refused = one();
    assert_eq!(refused.status, 429, "two scans of one person run");
    assert_eq!(refused.json()["detail"]["kind"], "concurrent_scans");
    drop(slow);
    let patience = Instant::now() + Duration::from_secs(60);
    while one().status != 200 {
        assert!(Instant::now() < patience, "the turn was never given back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

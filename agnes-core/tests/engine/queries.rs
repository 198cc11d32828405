//! Grants, the audit log, internal tables, limits of results, time and turns.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::audit::{AuditEvent, AuditFilter};
use agnes_core::ident::{SourceName, TableName};
use agnes_core::query::{Params, Query, QueryLimits, RowFormat, Value};
use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};
use agnes_core::registry::RegisteredTable;
use agnes_core::store::Store as _;
use agnes_core::store::memory::MemoryStore;
use agnes_core::{CallContext, EngineBuilder, ErrorKind};

use crate::support::{ORDERS, Shop, in_each_runtime, owner, publish};

in_each_runtime!(
    grants_decide_and_a_revoked_one_is_gone_at_once,
    internal_tables_show_the_callers_rows_alone,
    a_cut_result_says_so,
    every_query_leaves_a_row,
);

/// How many rows, or which code.
async fn outcome(shop: &Shop, ctx: &CallContext, sql: &str) -> String {
    match shop.try_ask(ctx, sql).await {
        Ok(rows) => format!("{} rows", rows.len()),
        Err(e) => e.code().to_owned(),
    }
}

fn nobody() -> CallContext {
    CallContext::new(Principal::user("nobody", AuthMethod::Pat, ClientKind::Api))
}

async fn grants_decide_and_a_revoked_one_is_gone_at_once(shop: Shop) {
    shop.engine.identity().add_user(&owner(), "eve@acme.example", None).await.unwrap();
    let (bob, dan, eve) = (shop.ctx("bob").await, shop.ctx("dan").await, shop.ctx("eve").await);
    let nobody = nobody();
    for (who, sql, expected) in [
        (&bob, "SELECT * FROM orders WHERE id < 3", "2 rows"),
        (&bob, "SELECT * FROM Teams", "relation_denied"),
        (&bob, "SELECT * FROM nothing", "relation_denied"),
        (&eve, "SELECT * FROM orders", "relation_denied"),
        (&eve, "SELECT 1", "1 rows"),
        (&dan, "SELECT * FROM teams, orders", "15 rows"),
        (&dan, "SELECT * FROM nothing", "relation_unknown"),
        (&nobody, "SELECT 1", "inactive_user"),
        (&nobody, "SELEC", "inactive_user"),
        (&bob, "SHOW TABLES", "1 rows"),
        (&dan, "SHOW TABLES", "2 rows"),
        (&bob, "FROM information_schema.columns", "6 rows"),
        (&bob, "PIVOT orders ON region USING sum(amount)", "5 rows"),
        (&bob, "PIVOT teams ON who USING count(*)", "relation_denied"),
        (&bob, "EXPLAIN SELECT * FROM orders", "1 rows"),
    ] {
        assert_eq!(outcome(&shop, who, sql).await, expected, "{sql}");
    }
    let grants = shop.engine.identity().grants(&owner(), Some("us")).await.unwrap();
    shop.engine.identity().revoke(&owner(), &grants[0].grant.id).await.unwrap();
    let refused = shop.try_ask(&bob, "SELECT * FROM orders").await.unwrap_err();
    assert_eq!((refused.code(), refused.kind()), ("relation_denied", ErrorKind::Forbidden));
    let refused = shop.try_ask(&bob, "SELECT * FROM team").await.unwrap_err();
    assert!(!refused.hint().unwrap().contains("teams"), "nothing is suggested that bob may not know");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_name_the_id_of_a_registered_table() {
    let store = MemoryStore::new();
    let registered = |id: &str, name: &str| {
        let name = TableName::parse(name).unwrap();
        RegisteredTable {
            id: id.to_owned(),
            ..RegisteredTable::new(&name, "files", &SourceName::parse("shop").unwrap())
        }
    };
    store.tables().insert(&registered("id-of-teams", "teams")).await.unwrap();
    store.tables().insert(&registered("waiting", "waiting")).await.unwrap();
    let shop = Shop::with(|builder| builder.store(Arc::new(store.clone()))).await;
    let (ann, dan) = (shop.ctx("ann").await, shop.ctx("dan").await);
    assert_eq!(outcome(&shop, &ann, "FROM teams").await, "relation_denied");
    shop.engine.identity().grant(&owner(), "eu", ResourceType::Table, "id-of-teams").await.unwrap();
    assert_eq!(outcome(&shop, &ann, "FROM teams").await, "3 rows");
    assert_eq!(outcome(&shop, &dan, "FROM waiting").await, "not_published_yet");
    assert_eq!(outcome(&shop, &ann, "FROM waiting").await, "relation_denied");
}

async fn internal_tables_show_the_callers_rows_alone(shop: Shop) {
    let (bob, dan) = (shop.ctx("bob").await, shop.ctx("dan").await);
    for who in [&bob, &dan] {
        assert_eq!(outcome(&shop, who, "SELECT 1").await, "1 rows");
    }
    // Rows of queries are written some moments later; whoever lists them sees all.
    let _ = log(&shop).await;
    let whose = "SELECT DISTINCT user_id FROM agnes_audit WHERE action LIKE 'query.%' ORDER BY 1";
    let bobs = shop.try_ask(&bob, whose).await.unwrap();
    assert_eq!(bobs, [[serde_json::Value::from(bob.principal().user_id())]]);
    assert_eq!(outcome(&shop, &dan, whose).await, "2 rows");
    assert_eq!(outcome(&shop, &bob, "FROM agnes_sessions JOIN agnes_audit USING (user_id)").await, "0 rows");
    for with in ["orders", "users", "information_schema.tables"] {
        let mixed = format!("SELECT * FROM agnes_sessions, {with}");
        assert_eq!(outcome(&shop, &bob, &mixed).await, "internal_tables_mixed", "{with}");
    }
}

async fn a_cut_result_says_so(shop: Shop) {
    let many = "SELECT i AS id, 'c' || (i % 3) AS customer, i * 2 AS amount FROM range(5000) t(i)";
    publish(&shop.engine, shop.folder.path(), &[("orders", ORDERS), ("many", many)]).await;
    shop.engine.identity().grant(&owner(), "us", ResourceType::Table, "many").await.unwrap();
    let bob = shop.ctx("bob").await;
    let ask = async |query: Query| {
        let mut result = shop.engine.query(&bob, query).await.unwrap();
        let rows: usize = result.collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum();
        (rows, result.truncated(), result.stats().rows)
    };
    let all = "SELECT * FROM many";
    assert_eq!(ask(Query::new(all)).await, (5000, false, 5000));
    for (limit, truncated) in [(5000, false), (4999, true), (2048, true), (1, true)] {
        assert_eq!(ask(Query::new(all).limit(limit)).await, (limit, truncated, limit as u64), "{limit}");
    }
    assert_eq!(ask(Query::new("SELECT 1 WHERE false").limit(1)).await, (0, false, 0));
    let (rows, truncated, _) = ask(Query::new(all).max_bytes(1000)).await;
    assert!(truncated && (1..1000).contains(&rows), "{rows}");
    // The bytes of a JSON answer are those of its text.
    for (most, whole) in [(20_000, false), (10 << 20, true)] {
        let result = shop.engine.query(&bob, Query::new(all)).await.unwrap();
        let (mut rows, mut text) = (result.encoded(RowFormat::JsonTable).unwrap().at_most(most), Vec::new());
        while let Some(piece) = rows.next().await {
            text.extend(piece.unwrap());
        }
        let answer: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((answer["row_count"] == 5000, &answer["truncated"]), (whole, &serde_json::Value::from(!whole)));
        // One slice of rows more, at most.
        assert!(whole || (most..most * 2).contains(&text.len()), "{}", text.len());
    }
    let params = Params::Positional(vec![Value::Int(3)]);
    assert_eq!(ask(Query::new("SELECT * FROM many WHERE id < ?").params(params)).await, (3, false, 3));
    let missing = shop.engine.query(&bob, Query::new("SELECT ?")).await.unwrap_err();
    assert_eq!(missing.code(), "wrong_parameters");
}

/// Rows of queries, oldest first.
async fn log(shop: &Shop) -> Vec<AuditEvent> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let mut rows = shop.engine.audit().list(&owner(), &filter).await.unwrap();
    rows.retain(|row| row.action.starts_with("query."));
    rows.reverse();
    rows
}

async fn every_query_leaves_a_row(shop: Shop) {
    let bob = shop.ctx("bob").await.with_request_id("req-1");
    let nobody = nobody();
    for (who, sql) in [
        (&bob, "SELECT * FROM orders LIMIT 3"),
        (&bob, "SELECT * FROM teams"),
        (&bob, "DROP VIEW orders"),
        (&bob, "SELECT 1"),
        (&bob, "SELECT * FROM agnes_audit"),
        (&nobody, "SELECT 1"),
    ] {
        drop(shop.try_ask(who, sql).await);
    }
    drop(shop.engine.query(&bob, Query::new("SELECT * FROM range(1000000000)")).await.unwrap());
    let rows = log(&shop).await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let who = if row.user_id.as_deref() == Some(bob.principal().user_id()) { "bob" } else { "nobody" };
            let (resource, result) = (row.resource.as_deref().unwrap(), row.result.as_deref().unwrap());
            (who, row.action.as_str(), resource, result)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("bob", "query.local", "table:orders", "success"),
            ("bob", "query.local", "table:teams", "denied"),
            ("bob", "query.local", "adhoc", "error.not_a_query"),
            ("bob", "query.local", "adhoc", "success"),
            ("bob", "query.internal", "table:agnes_audit", "success"),
            ("nobody", "query.local", "adhoc", "denied"),
            ("bob", "query.local", "adhoc", "success"),
        ]
    );
    let params = rows[0].params.as_ref().unwrap();
    assert_eq!(params["rows_returned"], 3);
    assert!(params["generation"].as_u64().unwrap() > 0);
    assert_eq!(params["sql"], "SELECT * FROM orders LIMIT 3");
    assert_eq!(rows[0].correlation_id.as_deref(), Some("req-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_turns_in_this_process() {
    deadlines_and_turns(|builder| builder).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_turns_in_cells() {
    deadlines_and_turns(crate::support::cells).await;
}

async fn deadlines_and_turns(change: impl FnOnce(EngineBuilder) -> EngineBuilder) {
    let limits = QueryLimits {
        timeout: Duration::from_secs(2),
        per_user: 1,
        wait: Duration::from_millis(50),
        ..QueryLimits::default()
    };
    let shop = Shop::with(|builder| change(builder).query_limits(limits)).await;
    let (bob, ann) = (shop.ctx("bob").await, shop.ctx("ann").await);
    // Row 73 of the specification's table: accepted, then stopped.
    let slow = "SELECT count(*) FROM range(1e12::BIGINT)";
    assert_eq!(outcome(&shop, &bob, slow).await, "query_timeout");
    let early = shop.ctx("bob").await.with_timeout(Duration::from_millis(100));
    assert_eq!(outcome(&shop, &early, slow).await, "query_timeout");
    let first = shop.engine.query(&bob, Query::new("SELECT * FROM range(100000000)")).await.unwrap();
    assert_eq!(outcome(&shop, &bob, "SELECT 1").await, "too_many_queries");
    assert_eq!(outcome(&shop, &ann, "SELECT 1").await, "1 rows");
    drop(first);
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while outcome(&shop, &bob, "SELECT 1").await != "1 rows" {
        assert!(std::time::Instant::now() < patience, "the turn did not come back");
    }
}

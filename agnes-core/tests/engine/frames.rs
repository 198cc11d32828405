//! Rows that come along to a query: joined with what the caller may read, never in its place.

use std::sync::Arc;

use agnes_core::query::{Frame, Query};
use agnes_core::{CallContext, Result};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::support::{Shop, in_each_runtime, owner, rows};

in_each_runtime!(frames_are_joined_and_never_in_the_place_of_a_table,);

fn targets(name: &str) -> Frame {
    let regions: ArrayRef = Arc::new(StringArray::from(vec!["EU", "US", "secret"]));
    let targets: ArrayRef = Arc::new(Int64Array::from(vec![Some(100), Some(200), None]));
    let batch = RecordBatch::try_from_iter([("region", regions), ("target", targets)]).unwrap();
    Frame::new(name, &batch.schema(), vec![batch]).unwrap()
}

async fn asked(shop: &Shop, ctx: &CallContext, sql: &str, frames: Vec<Frame>) -> Result<usize> {
    let query = frames.into_iter().fold(Query::new(sql), Query::frame);
    let mut result = shop.engine.query(ctx, query).await?;
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        rows += batch?.num_rows();
    }
    Ok(rows)
}

async fn frames_are_joined_and_never_in_the_place_of_a_table(shop: Shop) {
    let (bob, dan) = (shop.ctx("bob").await, shop.ctx("dan").await);
    let outcome = async |ctx: &CallContext, sql: &str, frames: Vec<Frame>| match asked(&shop, ctx, sql, frames).await {
        Ok(rows) => format!("{rows} rows"),
        Err(error) => error.code().to_owned(),
    };
    let all = asked(&shop, &bob, "FROM orders", Vec::new()).await.unwrap();
    for (sql, expected) in [
        ("FROM targets", "3 rows".to_owned()),
        ("FROM Targets WHERE target IS NULL", "1 rows".to_owned()),
        ("SELECT * FROM orders o LEFT JOIN targets t USING (region)", format!("{all} rows")),
        ("WITH targets AS (SELECT 1) FROM targets", "1 rows".to_owned()),
        ("PIVOT targets ON region USING sum(target)", "1 rows".to_owned()),
        // What is not named does not come along; what was not granted stays so beside a frame.
        ("FROM orders", format!("{all} rows")),
        ("FROM targets, teams", "relation_denied".to_owned()),
        ("FROM targets, read_csv('/etc/passwd')", "table_function_denied".to_owned()),
        ("INSERT INTO targets VALUES ('x', 1)", "not_a_query".to_owned()),
        ("FROM nothing", "relation_denied".to_owned()),
    ] {
        assert_eq!(outcome(&bob, sql, vec![targets("targets")]).await, expected, "{sql}");
    }
    // It ended with its query.
    assert_eq!(outcome(&bob, "FROM targets", Vec::new()).await, "relation_denied");
    for (name, expected) in [
        ("orders", "frame_name_taken"),
        ("ORDERS", "frame_name_taken"),
        ("agnes_audit", "frame_name_taken"),
        ("information_schema", "bad_frame"),
        ("duckdb_tables", "bad_frame"),
    ] {
        assert_eq!(outcome(&bob, "SELECT 1", vec![targets(name)]).await, expected, "{name}");
    }
    // That a table exists which bob may not read is not told: the name is free to him, and means his rows.
    assert_eq!(outcome(&bob, "FROM teams", vec![targets("teams")]).await, "3 rows");
    assert_eq!(outcome(&dan, "FROM teams", vec![targets("teams")]).await, "frame_name_taken");
    assert_eq!(outcome(&bob, "FROM targets", vec![targets("targets"), targets("TARGETS")]).await, "bad_frame");
    let many = (0..21).map(|n| targets(&format!("t{n}"))).collect();
    assert_eq!(outcome(&bob, "FROM t1", many).await, "frames_too_large");
    let receipt = Query::new("FROM targets").frame(targets("targets")).receipt();
    assert_eq!(shop.engine.query(&bob, receipt).await.unwrap_err().code(), "receipt_unsupported");

    // A policy holds beside a frame: no row that it hides, and no words about one.
    let groups = shop.engine.identity().grants(&owner(), Some("us")).await.unwrap();
    assert!(!groups.is_empty());
    shop.policy("us", rows("id < 3")).await;
    let seen = "SELECT o.id FROM orders o LEFT JOIN targets t USING (region)";
    assert_eq!(outcome(&bob, seen, vec![targets("targets")]).await, "2 rows");
}

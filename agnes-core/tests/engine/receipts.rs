//! Receipts: the same answer again, or what changed.

use agnes_core::query::{Query, Receipt, ReplayedOn};
use agnes_core::rbac::ResourceType;

use super::support::{ORDERS, Shop, owner, publish, rows};

async fn receipt(shop: &Shop, who: &str, sql: &str) -> Receipt {
    let mut result = shop.engine.query(&shop.ctx(who).await, Query::new(sql).receipt()).await.unwrap();
    assert!(result.receipt().is_none(), "not before the last row");
    while let Some(batch) = result.next().await {
        batch.unwrap();
    }
    // As it goes through a file.
    let text = serde_json::to_string_pretty(result.receipt().unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

const SUM: &str = "SELECT region, sum(amount), avg(amount) FROM orders GROUP BY region";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_data_gives_the_same_answer() {
    let shop = Shop::open().await;
    let (ann, bob) = (shop.ctx("ann").await, shop.ctx("bob").await);
    let mine = receipt(&shop, "ann", SUM).await;
    assert_eq!((mine.body.rows, mine.body.tables[0].name.as_str()), (2, "orders"));
    let replay = shop.engine.replay(&ann, &mine).await.unwrap();
    assert!(replay.equal && replay.changes.is_empty(), "{replay:?}");
    assert!(shop.engine.replay(&bob, &mine).await.unwrap().equal, "who reads the same may");
    let again =
        receipt(&shop, "bob", "select REGION as region, sum(amount), avg(amount) from orders group by region -- x")
            .await;
    assert_eq!(again.body.result_hash, mine.body.result_hash);
    let spaced = receipt(&shop, "bob", &SUM.replace(' ', "\n")).await;
    assert_eq!(spaced.body.sql_hash, mine.body.sql_hash);

    // Other data: the receipt's is kept, also through a collection.
    let more = format!("{ORDERS} UNION ALL SELECT 6, 'EU', NULL, 1, '1', NULL");
    for _ in 0..5 {
        publish(&shop.engine, shop.folder.path(), &[("orders", more.as_str()), ("teams", super::support::TEAMS)]).await;
    }
    shop.engine.maintenance().gc(&owner(), false).await.unwrap();
    let replay = shop.engine.replay(&ann, &mine).await.unwrap();
    assert!(replay.equal && replay.data == ReplayedOn::Receipt, "{replay:?}");
    assert!(replay.changes[0].contains("other data"), "{replay:?}");
    // Without its lease it is asked of what there is.
    std::fs::remove_dir_all(shop.engine.folder().leases()).unwrap();
    let replay = shop.engine.replay(&ann, &mine).await.unwrap();
    assert_eq!((replay.equal, replay.data, replay.changes.len()), (false, ReplayedOn::Current, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_replays_what_they_may_not_read_now() {
    let shop = Shop::open().await;
    let (ann, dan) = (shop.ctx("ann").await, shop.ctx("dan").await);
    let whole = receipt(&shop, "ann", "SELECT id, code FROM orders").await;
    let id = shop.policy("eu", rows("region = 'EU'")).await;
    let replay = shop.engine.replay(&ann, &whole).await.unwrap();
    assert_eq!((replay.equal, replay.rows, replay.data), (false, 3, ReplayedOn::Current));
    assert!(replay.changes[0].contains("policies"), "{replay:?}");
    let part = receipt(&shop, "ann", "SELECT id, code FROM orders").await;
    assert_ne!(part.body.policy_fingerprint, whole.body.policy_fingerprint);
    assert!(shop.engine.replay(&ann, &part).await.unwrap().equal);
    assert!(!shop.engine.replay(&dan, &part).await.unwrap().equal, "an Admin reads more");
    assert!(shop.engine.replay(&dan, &whole).await.unwrap().equal);
    shop.engine.policies().remove(&owner(), &id).await.unwrap();
    shop.engine.maintenance().gc(&owner(), false).await.unwrap();
    assert_eq!(shop.engine.replay(&ann, &part).await.unwrap().data, ReplayedOn::Current);
    let grants = shop.engine.identity().grants(&owner(), Some("eu")).await.unwrap();
    shop.engine.identity().revoke(&owner(), &grants[0].grant.id).await.unwrap();
    assert_eq!(shop.engine.replay(&ann, &part).await.unwrap_err().code(), "relation_denied");
    shop.engine.identity().grant(&owner(), "eu", ResourceType::Table, "orders").await.unwrap();
    assert!(shop.engine.replay(&ann, &whole).await.unwrap().equal);
}

/// A receipt is of what the caller sees: it does not tell that something else changed, nor lets
/// them try out what their policy may say.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_not_in_a_receipt() {
    let shop = Shop::open().await;
    shop.policy("eu", rows("region = 'EU'")).await;
    let ann = shop.ctx("ann").await;
    let sql = "SELECT id, code FROM orders";
    let before = receipt(&shop, "ann", sql).await;
    let other = ORDERS.replace("hidden-secret", "other-secret");
    publish(&shop.engine, shop.folder.path(), &[("orders", other.as_str()), ("teams", super::support::TEAMS)]).await;
    let after = receipt(&shop, "ann", sql).await;
    assert_eq!(after.body.tables, before.body.tables);
    assert_ne!(receipt(&shop, "bob", sql).await.body.tables, before.body.tables);
    let replay = shop.engine.replay(&ann, &before).await.unwrap();
    assert!(replay.equal && replay.changes.is_empty(), "{replay:?}");
    // Another installation with the same rules has another mark of them.
    let second = Shop::open().await;
    second.policy("eu", rows("region = 'EU'")).await;
    let elsewhere = receipt(&second, "ann", sql).await;
    assert_ne!(elsewhere.body.tables[0].policy, before.body.tables[0].policy);
    assert_eq!(elsewhere.body.tables[0].content_hash, before.body.tables[0].content_hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_cannot_be_made_up() {
    let shop = Shop::open().await;
    let ann = shop.ctx("ann").await;
    let mine = receipt(&shop, "ann", "SELECT count(*), 0.1 FROM orders").await;
    let change = |edit: fn(&mut Receipt)| {
        let mut other = mine.clone();
        edit(&mut other);
        other
    };
    for forged in [
        change(|r| r.body.rows += 1),
        change(|r| r.body.sql = "SELECT * FROM teams".into()),
        change(|r| r.body.id = "../../state/instance".into()),
        change(|r| r.body.tables.clear()),
        change(|r| r.mark = "0".repeat(64)),
        change(|r| r.mark.clear()),
        change(|r| r.body.version = 2),
    ] {
        assert_eq!(shop.engine.replay(&ann, &forged).await.unwrap_err().code(), "receipt_forged");
    }
    let audit = Query::new("SELECT count(*) FROM agnes_audit").receipt();
    assert_eq!(shop.engine.query(&ann, audit).await.unwrap_err().code(), "receipt_unsupported");
    // Left before its end it is none.
    let mut result = shop.engine.query(&ann, Query::new("FROM range(1000000)").receipt()).await.unwrap();
    result.next().await.unwrap().unwrap();
    assert!(result.receipt().is_none());
    let limited = shop.engine.query(&ann, Query::new("FROM orders ORDER BY id").limit(2).receipt()).await;
    let mut limited = limited.unwrap();
    limited.collect().await.unwrap();
    let limited = limited.receipt().unwrap().clone();
    assert!(limited.body.truncated && limited.body.rows == 2);
    assert!(shop.engine.replay(&ann, &limited).await.unwrap().equal);
}

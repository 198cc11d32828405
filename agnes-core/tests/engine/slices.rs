//! Slices: made once, shared by equals, collected when nobody can ask for them.

use agnes_core::policy::ColumnRule;

use super::support::{ORDERS, Shop, columns, in_each_runtime, owner, publish, rows};

in_each_runtime!(a_query_keeps_its_slice,);

fn records(shop: &Shop) -> usize {
    std::fs::read_dir(shop.engine.folder().slices())
        .map_or(0, |entries| entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")).count())
}

/// Collects garbage until no slice is left: the engine lets go of one a moment after its
/// last row was read.
async fn collect(shop: &Shop) {
    for _ in 0..200 {
        shop.engine.maintenance().gc(&owner(), false).await.unwrap();
        if records(shop) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} slices are left", records(shop));
}

async fn sha(shop: &Shop, who: &str) -> String {
    let manifest = shop.engine.catalog().manifest(&shop.ctx(who).await).await.unwrap();
    manifest.tables["orders"].sha256.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn equals_share_one() {
    let shop = Shop::open().await;
    let eu = shop.policy("eu", rows("region = 'EU'")).await;
    shop.policy("us", rows("region = 'EU'")).await;
    assert_eq!((shop.ids("ann").await, shop.ids("bob").await, shop.ids("cy").await), {
        let same = "1,2,3".to_owned();
        (same.clone(), same.clone(), same)
    });
    assert_eq!(records(&shop), 1, "equal rules make one slice");
    assert_eq!(sha(&shop, "ann").await, sha(&shop, "bob").await);
    // A value of the caller makes a slice of their own, also where its rows are the same.
    shop.engine.policies().update(&owner(), &eu, rows("$user_email = email OR id = 1"), None).await.unwrap();
    assert_eq!(shop.ids("ann").await, "1");
    assert_eq!(records(&shop), 2);
    shop.engine.identity().add_user(&owner(), "eve@acme.example", None).await.unwrap();
    shop.engine.identity().add_member(&owner(), "eu", "eve@acme.example").await.unwrap();
    assert_eq!(shop.ids("eve").await, "1");
    assert_eq!(records(&shop), 3);
    assert_eq!(sha(&shop, "ann").await, sha(&shop, "eve").await, "the same bytes are one blob");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_make_one() {
    let shop = std::sync::Arc::new(Shop::open().await);
    shop.policy("eu", rows("region = 'EU'")).await;
    let asked = (0..8).map(|n| {
        let shop = shop.clone();
        tokio::spawn(async move {
            let who = ["ann", "dan"][n % 2];
            shop.ids(who).await
        })
    });
    for (n, ids) in futures::future::join_all(asked).await.into_iter().enumerate() {
        assert_eq!(ids.unwrap(), ["1,2,3", "1,2,3,4,5"][n % 2]);
    }
    assert_eq!(records(&shop), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_data_is_a_new_slice_and_old_ones_go() {
    let shop = Shop::open().await;
    let id = shop.policy("eu", rows("region = 'EU'")).await;
    assert_eq!(shop.ids("ann").await, "1,2,3");
    let first = shop.engine.folder().blob(&sha(&shop, "ann").await);
    let more = format!("{ORDERS} UNION ALL SELECT 6, 'EU', NULL, 1, '1', NULL");
    publish(&shop.engine, shop.folder.path(), &[("orders", more.as_str())]).await;
    assert_eq!(shop.ids("ann").await, "1,2,3,6");
    assert_eq!(records(&shop), 2);
    // Both contents are in generations that are kept.
    let maintenance = shop.engine.maintenance();
    maintenance.gc(&owner(), false).await.unwrap();
    assert_eq!(records(&shop), 2);
    assert_eq!(shop.ids("ann").await, "1,2,3,6");
    // Under another version of the policy nobody can ask for them.
    shop.engine.policies().update(&owner(), &id, rows("region = 'EU' AND true"), None).await.unwrap();
    let dry = maintenance.gc(&owner(), true).await.unwrap();
    assert!(dry.blobs >= 1 && first.exists(), "{dry:?}");
    collect(&shop).await;
    assert!(!first.exists());
    assert_eq!(shop.ids("ann").await, "1,2,3,6", "made anew");
    // A damaged folder makes them anew as well.
    let blob = shop.engine.folder().blob(&sha(&shop, "ann").await);
    let root = shop.folder.path().to_owned();
    shop.engine.close().await.unwrap();
    drop(shop.engine);
    std::fs::remove_file(&blob).unwrap();
    let engine = agnes_core::Engine::builder(&root).open().await.unwrap();
    let shop = Shop { engine, folder: shop.folder };
    assert_eq!(shop.ids("ann").await, "1,2,3,6");
    assert!(blob.exists());
}

async fn a_query_keeps_its_slice(shop: Shop) {
    let id = shop.policy("eu", rows("region = 'EU'")).await;
    let sql = "SELECT a.id FROM orders a, range(200000)";
    let mut result = shop.engine.query(&shop.ctx("ann").await, agnes_core::query::Query::new(sql)).await.unwrap();
    shop.engine.policies().remove(&owner(), &id).await.unwrap();
    shop.engine.maintenance().gc(&owner(), false).await.unwrap();
    assert_eq!(records(&shop), 1, "it is being read");
    let mut count = 0;
    while let Some(batch) = result.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 600_000);
    drop(result);
    collect(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_need_the_key() {
    let shop = Shop::open().await;
    shop.policy("eu", columns(&[("email", ColumnRule::Hash)])).await;
    let hash = shop.ask("ann", "SELECT email FROM orders WHERE id = 1").await;
    let key = std::fs::read_to_string(shop.engine.folder().instance_key()).unwrap();
    assert!(key.trim().len() >= 64);
    let log = shop.engine.audit().list(&owner(), &agnes_core::audit::AuditFilter::default()).await.unwrap();
    assert!(!format!("{log:?}").contains(key.trim()));
    let backup = tempfile::tempdir().unwrap();
    shop.engine.maintenance().backup(&owner(), &backup.path().join("b")).await.unwrap();
    let kept = backup.path().join("b/state/instance.key");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), key);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let root = shop.folder.path().to_owned();
    shop.engine.close().await.unwrap();
    drop(shop.engine);
    std::fs::write(agnes_core::layout::DataFolder::new(&root).instance_key(), "x".repeat(64)).unwrap();
    let engine = agnes_core::Engine::builder(&root).open().await.unwrap();
    let shop = Shop { engine, folder: shop.folder };
    assert_ne!(shop.ask("ann", "SELECT email FROM orders WHERE id = 1").await, hash, "another key, another slice");
    assert_eq!(shop.ask("ann", "SELECT email FROM orders WHERE id = 1").await[0].len(), 64);
}

//! A backup restores to the same answers, and a damaged one is refused.

use agnes_core::maintenance::restore;

use crate::support::{Site, cell, open, owner, reader, sync};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_backed_up_comes_back() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    reader(&engine, "ann", &["orders"]).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup");
    let index = engine.maintenance().backup(&owner(), &backup).await.unwrap();
    assert!(index.files.iter().any(|f| f.path.starts_with("analytics/blobs/")));
    // What happens after the backup is not in it.
    site.write("orders.csv", "id\n1\n2\n3\n");
    sync(&engine).await;
    let full = engine.maintenance().backup(&owner(), &backup).await.unwrap_err();
    assert_eq!(full.code(), "target_not_empty");
    let inside = engine.maintenance().backup(&owner(), &site.root().join("b")).await;
    assert!(inside.is_err() || !site.root().join("b/b").exists());
    engine.close().await.unwrap();
    drop(engine);

    let restored = elsewhere.path().join("restored");
    restore(&backup, &restored).unwrap();
    let engine = open(&restored).await.unwrap();
    assert_eq!(cell(&engine, &owner(), "SELECT count(*) FROM orders").await.unwrap(), "2");
    let ann = engine
        .identity()
        .principal_of(&owner(), "ann@acme.example", agnes_core::rbac::ClientKind::Api)
        .await
        .map(agnes_core::CallContext::new)
        .unwrap();
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM orders").await.unwrap(), "2");
    assert_eq!(sync(&engine).await.tables.len(), 1, "the source is known after the restore");
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM orders").await.unwrap(), "3");
    engine.close().await.unwrap();
    drop(engine);

    let blob = index.files.iter().find(|f| f.path.starts_with("analytics/blobs/")).unwrap();
    let path = backup.join(&blob.path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let damaged = restore(&backup, &elsewhere.path().join("again")).unwrap_err();
    assert_eq!(damaged.code(), "backup_damaged");
    assert!(!elsewhere.path().join("again").exists());
    let none = restore(elsewhere.path(), &elsewhere.path().join("again")).unwrap_err();
    assert_eq!(none.code(), "not_a_backup");
}

//! Who sees what: one grant more or less, asked through every door.

use std::sync::Arc;

use agnes_core::clock::FixedClock;
use agnes_core::rbac::ResourceType;
use agnes_core::registry::RegisteredTable;
use agnes_core::store::Store;
use agnes_core::store::memory::MemoryStore;
use agnes_core::sync::TableMode;
use agnes_core::{CallContext, Engine, ErrorKind};

use crate::support::{Site, add_files, cell, owner, reader, rows, sync};

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_opens_and_its_end_closes_every_door() {
    let site = Site::new();
    site.write("orders.csv", "id,amount\n1,5\n");
    site.write("salaries.csv", "id,amount\n1,5\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let ann = reader(&engine, "ann", &["orders"]).await;

    assert_eq!(cell(&engine, &ann, "SELECT sum(amount) FROM orders").await.unwrap(), "5");
    let refused = rows(&engine, &ann, "SELECT * FROM salaries").await.unwrap_err();
    let unknown = rows(&engine, &ann, "SELECT * FROM no_such_table").await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Forbidden, unknown.code()));
    assert_eq!(
        refused.to_string().replace("salaries", "X"),
        unknown.to_string().replace("no_such_table", "X"),
        "what is hidden and what does not exist look alike"
    );
    let catalog = engine.catalog();
    let names: Vec<String> = catalog.tables(&ann).await.unwrap().into_iter().map(|t| t.name).collect();
    assert!(names.contains(&"orders".to_owned()) && !names.contains(&"salaries".to_owned()), "{names:?}");
    assert!(catalog.schema(&ann, "orders").await.is_ok());
    assert!(catalog.sample(&ann, "orders", 5).await.is_ok());
    assert!(catalog.profile(&ann, "orders").await.is_ok());
    assert!(catalog.schema(&ann, "salaries").await.is_err());
    assert!(catalog.sample(&ann, "salaries", 5).await.is_err());
    assert!(catalog.profile(&ann, "salaries").await.is_err());
    let manifest = catalog.manifest(&ann).await.unwrap();
    assert_eq!(manifest.tables.keys().map(String::as_str).collect::<Vec<_>>(), ["orders"]);

    let grant = engine.identity().grants(&owner(), Some("ann")).await.unwrap().remove(0);
    engine.identity().revoke(&owner(), &grant.grant.id).await.unwrap();
    assert!(rows(&engine, &ann, "SELECT * FROM orders").await.is_err());
    assert!(catalog.schema(&ann, "orders").await.is_err());
    assert!(catalog.sample(&ann, "orders", 5).await.is_err());
    assert!(catalog.profile(&ann, "orders").await.is_err());
    assert!(catalog.manifest(&ann).await.unwrap().tables.is_empty());

    engine.identity().grant(&owner(), "Everyone", ResourceType::Table, "salaries").await.unwrap();
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM salaries").await.unwrap(), "1");
    engine.identity().set_active(&owner(), "ann@acme.example", false).await.unwrap();
    let gone = rows(&engine, &ann, "SELECT * FROM salaries").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_administer() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let bob = reader(&engine, "bob", &["orders"]).await;
    let code = |error: agnes_core::Error| error.code().to_owned();
    assert_eq!(code(engine.identity().users(&bob).await.unwrap_err()), "admin_required");
    assert_eq!(
        code(engine.identity().grant(&bob, "bob", ResourceType::Table, "x").await.unwrap_err()),
        "admin_required"
    );
    assert_eq!(code(engine.registry().list(&bob).await.unwrap_err()), "admin_required");
    assert_eq!(code(engine.sources().list(&bob).await.unwrap_err()), "admin_required");
    assert_eq!(code(engine.sync().runs(&bob, 5).await.unwrap_err()), "admin_required");
    assert_eq!(code(engine.orchestrator().rebuild(&bob).await.unwrap_err()), "admin_required");
    assert_eq!(code(engine.maintenance().doctor(&bob).await.unwrap_err()), "admin_required");
    assert_eq!(code(engine.audit().list(&bob, &Default::default()).await.unwrap_err()), "admin_required");

    engine.identity().add_member(&owner(), "Admin", "bob@acme.example").await.unwrap();
    assert!(engine.identity().users(&bob).await.is_ok());
    let last = engine.identity().remove_member(&owner(), "Admin", "bob@acme.example").await.unwrap_err();
    assert_eq!(last.code(), "last_admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matters_is_audited() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let ann = reader(&engine, "ann", &["orders"]).await;
    rows(&engine, &ann, "SELECT * FROM orders").await.unwrap();
    rows(&engine, &ann, "SELECT * FROM secrets_of_others").await.unwrap_err();
    let filter = agnes_core::audit::AuditFilter { limit: 100, ..Default::default() };
    let events = engine.audit().list(&owner(), &filter).await.unwrap();
    let count = |action: &str, result: &str| {
        events.iter().filter(|e| e.action == action && e.result.as_deref() == Some(result)).count()
    };
    assert_eq!(count("query.local", "success"), 1, "{events:#?}");
    assert_eq!(count("query.local", "denied"), 1, "{events:#?}");
    for action in ["source.add", "sync.trigger", "user.create", "user_group.created", "resource_grant.created"] {
        assert!(count(action, "success") >= 1, "{action}");
    }
    let mine = rows(&engine, &ann, "SELECT action FROM agnes_audit ORDER BY action").await.unwrap();
    assert!(!mine.is_empty() && mine.iter().all(|row| row[0].starts_with("query.")), "{mine:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_id_is_not_its_name_works_for_a_member() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    site.write("other.csv", "id\n1\n");
    let store = Arc::new(MemoryStore::new());
    let engine =
        Engine::builder(site.root()).connectors(agnes_connectors::builtin()).store(store.clone()).open().await.unwrap();
    add_files(&engine, "shop", &site.files()).await;
    let row: RegisteredTable = store.tables().find("orders").await.unwrap().unwrap();
    store.tables().delete("orders").await.unwrap();
    store.tables().upsert(&RegisteredTable { id: "in.c-main.orders".into(), ..row }).await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let engine =
        Engine::builder(site.root()).connectors(agnes_connectors::builtin()).store(store).open().await.unwrap();
    sync(&engine).await;
    let ann = reader(&engine, "ann", &["in.c-main.orders"]).await;
    assert_eq!(cell(&engine, &ann, "SELECT count(*) FROM orders").await.unwrap(), "1");
    assert!(engine.catalog().schema(&ann, "in.c-main.orders").await.is_ok());
    assert!(engine.catalog().schema(&ann, "orders").await.is_ok());
    assert_eq!(engine.catalog().manifest(&ann).await.unwrap().tables["orders"].id, "in.c-main.orders");
    let bob = reader(&engine, "bob", &["other"]).await;
    assert!(rows(&engine, &bob, "SELECT * FROM orders").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_narrow_the_manifest_and_nothing_else() {
    let site = Site::new();
    for name in ["orders", "customers", "salaries"] {
        site.write(&format!("{name}.csv"), "id\n1\n");
    }
    let engine = site.open_with_source().await;
    sync(&engine).await;
    let ann = reader(&engine, "ann", &["orders", "customers"]).await;
    let bob = reader(&engine, "bob", &["orders", "customers"]).await;
    let pulls = async |who: &CallContext| {
        let manifest = engine.catalog().manifest(who).await.unwrap();
        (manifest.tables.into_keys().collect::<Vec<_>>(), manifest.etag)
    };
    let before = pulls(&ann).await;
    assert_eq!(before.0, ["customers", "orders"]);

    let wanted = [("customers", false), ("salaries", true), ("nothing", false)];
    let wanted = wanted.map(|(table, enabled)| (table.to_owned(), enabled)).into();
    let kept = engine.catalog().set_preferences(&ann, &wanted, None).await.unwrap();
    assert_eq!(
        Vec::from_iter(kept),
        [("customers".to_owned(), true), ("nothing".to_owned(), true), ("salaries".to_owned(), false)]
    );
    let after = pulls(&ann).await;
    assert_eq!(after.0, ["orders"]);
    assert_ne!(after.1, before.1);
    assert_eq!(pulls(&bob).await, before, "another's preferences are no business of mine");
    assert!(cell(&engine, &ann, "SELECT count(*) FROM customers").await.is_ok(), "what may be read stays readable");

    engine.catalog().set_preferences(&ann, &Default::default(), Some(TableMode::Explicit)).await.unwrap();
    assert!(pulls(&ann).await.0.is_empty());
    let on = [("CUSTOMERS".to_owned(), true)].into();
    engine.catalog().set_preferences(&ann, &on, None).await.unwrap();
    assert_eq!(pulls(&ann).await.0, ["customers"]);
    let many = (0..501).map(|n| (format!("t{n}"), true)).collect();
    assert_eq!(engine.catalog().set_preferences(&ann, &many, None).await.unwrap_err().code(), "too_many_entries");

    // Documents come along.
    assert!(engine.catalog().manifest(&ann).await.unwrap().assets.is_empty());
    std::fs::create_dir_all(site.root().join("docs/deep")).unwrap();
    assert_eq!(engine.catalog().manifest(&ann).await.unwrap().assets["docs"].hash, "0");
    std::fs::write(site.root().join("docs/deep/read.md"), "# Read").unwrap();
    assert_ne!(engine.catalog().manifest(&ann).await.unwrap().assets["docs"].hash, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_says_who_made_it_for_whom_and_until_when() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n");
    let start: chrono::DateTime<chrono::Utc> = "2026-03-01T10:00:00Z".parse().unwrap();
    let clock = Arc::new(FixedClock::at(start));
    let engine =
        Engine::builder(site.root()).connectors(agnes_connectors::builtin()).clock(clock.clone()).open().await.unwrap();
    add_files(&engine, "shop", &site.files()).await;
    sync(&engine).await;
    let (ann, bob) = (reader(&engine, "ann", &["orders"]).await, reader(&engine, "bob", &["orders"]).await);
    let catalog = engine.catalog();
    let manifest = catalog.manifest(&ann).await.unwrap();
    assert_eq!(manifest.expires_at, start + chrono::Duration::days(1));
    // As a program gets it, and sends it back.
    let kept: agnes_core::catalog::Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
    catalog.verify_manifest(&ann, &kept).await.unwrap();
    let refused = async |who: &CallContext, manifest: &agnes_core::catalog::Manifest| {
        catalog.verify_manifest(who, manifest).await.unwrap_err().code().to_owned()
    };
    assert_eq!(refused(&bob, &kept).await, "manifest_not_ours");
    for change in [
        |m: &mut agnes_core::catalog::Manifest| m.tables.get_mut("orders").unwrap().sha256 = Some("0".repeat(64)),
        |m: &mut agnes_core::catalog::Manifest| m.tables.clear(),
        |m: &mut agnes_core::catalog::Manifest| m.expires_at += chrono::Duration::days(1),
        |m: &mut agnes_core::catalog::Manifest| m.generation += 1,
        |m: &mut agnes_core::catalog::Manifest| m.etag = "0".repeat(64),
        |m: &mut agnes_core::catalog::Manifest| m.signature = "0".repeat(64),
    ] {
        let mut changed = kept.clone();
        change(&mut changed);
        assert_eq!(refused(&ann, &changed).await, "manifest_not_ours", "{changed:?}");
    }
    clock.set(start + chrono::Duration::hours(20));
    let later = catalog.manifest(&ann).await.unwrap();
    assert_eq!(later.etag, manifest.etag, "nothing changed, so nothing has to be fetched");
    clock.set(start + chrono::Duration::hours(25));
    assert_eq!(refused(&ann, &kept).await, "manifest_expired");
    catalog.verify_manifest(&ann, &later).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_collection_takes_audit_rows_that_are_kept_no_longer() {
    let site = Site::new();
    let start: chrono::DateTime<chrono::Utc> = "2026-03-01T10:00:00Z".parse().unwrap();
    let clock = Arc::new(FixedClock::at(start));
    for (days, left) in [(0, true), (30, true), (31, false)] {
        clock.set(start);
        let mut config = agnes_core::config::Config::default();
        config.audit_retention_days = days;
        let engine = Engine::builder(site.root()).config(config).clock(clock.clone()).open().await.unwrap();
        engine.identity().create_group(&owner(), &format!("group {days}"), None).await.unwrap();
        clock.set(start + chrono::Duration::days(if days == 31 { 32 } else { 30 }));
        engine.maintenance().gc(&owner(), true).await.unwrap();
        engine.maintenance().gc(&owner(), false).await.unwrap();
        let all = agnes_core::audit::AuditFilter { limit: 1000, ..Default::default() };
        let rows = engine.audit().list(&owner(), &all).await.unwrap();
        assert_eq!(rows.iter().any(|row| row.action.contains("group.created")), left, "{days}");
        assert_eq!(rows.iter().any(|row| row.action == "audit.pruned"), !left, "{days}");
        engine.close().await.unwrap();
    }
}

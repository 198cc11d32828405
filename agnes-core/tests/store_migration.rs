//! State files of every older version come up to date; newer ones are left alone.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};
use agnes_core::store::duckdb::DuckStore;
use agnes_core::store::{STATE_SCHEMA_VERSION, Store};
use chrono::{DateTime, TimeZone, Utc};
use duckdb::Connection;

fn now() -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000, 0).unwrap()
}

/// The state file that version `version` wrote, in a folder of its own.
fn fixture(version: i32) -> (tempfile::TempDir, PathBuf) {
    let name = format!("../tests/fixtures/state/system-v{version}.duckdb.gz");
    let packed = std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("system.duckdb");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn expected(version: i32) -> BTreeMap<String, i64> {
    let name = format!("../tests/fixtures/state/system-v{version}.expected.json");
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(value["counts"].clone()).unwrap()
}

fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn has(conn: &Connection, table: &str, column: &str) -> bool {
    let sql =
        format!("SELECT count(*) FROM duckdb_columns() WHERE table_name = '{table}' AND column_name = '{column}'");
    number(conn, &sql) > 0
}

/// Who may read what by the rules of the old file, read from its tables.
fn old_access(path: &Path) -> BTreeSet<(String, String)> {
    let conn = Connection::open(path).unwrap();
    let mut ways = Vec::new();
    if has(&conn, "users", "role") {
        ways.push("SELECT u.id, t.id FROM users u, table_registry t WHERE u.role = 'admin'");
    }
    if has(&conn, "dataset_permissions", "dataset") {
        ways.push("SELECT p.user_id, t.id FROM dataset_permissions p JOIN table_registry t ON t.id = p.dataset WHERE p.access = 'read'");
    }
    if has(&conn, "dataset_permissions", "dataset") && has(&conn, "table_registry", "bucket") {
        ways.push(
            "SELECT p.user_id, t.id FROM dataset_permissions p JOIN table_registry t ON p.dataset = t.bucket || '.*' \
             WHERE p.access = 'read'",
        );
    }
    if has(&conn, "table_registry", "is_public") {
        ways.push("SELECT u.id, t.id FROM users u, table_registry t WHERE t.is_public");
    }
    if has(&conn, "resource_grants", "group_id") {
        ways.push(
            "SELECT m.user_id, g.resource_id FROM user_group_members m JOIN resource_grants g USING (group_id) \
             WHERE g.resource_type = 'table'",
        );
        ways.push(
            "SELECT m.user_id, t.id FROM user_group_members m JOIN user_groups g ON g.id = m.group_id, table_registry t \
             WHERE g.name = 'Admin'",
        );
    }
    let active = if has(&conn, "users", "active") { "active" } else { "true" };
    let sql = format!(
        "SELECT DISTINCT a.id, t FROM ({}) AS a(id, t) JOIN users u ON u.id = a.id WHERE {active}",
        ways.join(" UNION ALL ")
    );
    let mut statement = conn.prepare(&sql).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// The same as the migrated store decides it.
async fn new_access(store: &DuckStore) -> BTreeSet<(String, String)> {
    let snapshot = store.access().snapshot().await.unwrap();
    let mut found = BTreeSet::new();
    for user in store.users().list().await.unwrap() {
        let principal = Principal::user(&user.id, AuthMethod::Session, ClientKind::Web);
        for table in store.tables().list().await.unwrap() {
            let internal = table.id.starts_with("agnes_");
            if !internal && snapshot.decide(&principal, ResourceType::Table, &table.id).allowed {
                found.insert((user.id.clone(), table.id));
            }
        }
    }
    found
}

/// Migrates the file and holds the result to what was there before.
async fn holds(path: &Path, counts: &BTreeMap<String, i64>, label: &str) {
    let before = old_access(path);
    assert!(!before.is_empty(), "{label}");
    let store = DuckStore::open(path, now()).unwrap();
    assert_eq!(store.schema().await.unwrap().version, STATE_SCHEMA_VERSION, "{label}");
    store.access().seed_system_groups(now()).await.unwrap();
    assert_eq!(new_access(&store).await, before, "{label}");
    let cyd = store.users().by_email("cyd@example.com").await.unwrap().unwrap();
    assert_eq!((cyd.id.as_str(), cyd.email.as_str()), ("u2", "cyd@example.com"), "{label}");
    assert_eq!(store.sync().get("orders").await.unwrap().unwrap().rows, Some(1000), "{label}");
    assert_eq!(store.sync().history("orders", 9).await.unwrap().len(), 1, "{label}");
    // What foreign keys of older versions would refuse.
    store.access().update_group(&store.access().groups().await.unwrap()[0].id, "Admin", Some("new")).await.unwrap();
    store.close().await.unwrap();
    let conn = Connection::open(path).unwrap();
    for (table, rows) in counts {
        let found = number(&conn, &format!("SELECT count(*) FROM {table}"));
        let grown = ["user_groups", "user_group_members", "resource_grants", "schema_version", "instance_templates"];
        let more = match table.as_str() {
            "audit_log" => 1,
            "table_registry" => 3,
            table if grown.contains(&table) => found - rows,
            _ => 0,
        };
        assert!(more >= 0 && found == rows + more, "{label}: {table} has {found} rows, had {rows}");
    }
    assert_eq!(
        number(&conn, "SELECT count(*) FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY'"),
        0,
        "{label}"
    );
    drop(conn);
    // A second start changes nothing more.
    DuckStore::open(path, now()).unwrap().close().await.unwrap();
    assert_eq!(
        number(&Connection::open(path).unwrap(), "SELECT count(*) FROM audit_log"),
        counts["audit_log"] + 1,
        "{label}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fixture_migrates() {
    for version in [1, 14, 19, 51] {
        let (folder, path) = fixture(version);
        holds(&path, &expected(version), &format!("version {version}")).await;
        let report =
            std::fs::read(folder.path().join(format!("migration-report-{version}-to-{STATE_SCHEMA_VERSION}.json")))
                .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["addresses"]["folded"][0]["to"], "cyd@example.com");
        let groups = report["dataset_permissions"]["groups"].as_array().unwrap().len();
        // Version 14 has the same rules twice: they are not doubled.
        assert_eq!(groups, if version == 1 { 2 } else { 0 });
        assert_eq!(report["dataset_permissions"]["already_granted"], if version == 14 { 2 } else { 0 });
        assert!(folder.path().join("system.duckdb.pre-migrate").exists());
    }
}

/// Files of the versions in between: the nearest fixture with some columns and tables more
/// or less, as a step of a ladder would leave it.
#[tokio::test(flavor = "multi_thread")]
async fn every_version_between_migrates() {
    for version in 1..=51 {
        let base = [51, 19, 14, 1].into_iter().find(|base| *base <= version).unwrap();
        let (_folder, path) = fixture(base);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("UPDATE schema_version SET version = {version}")).unwrap();
        let mut steps = Vec::new();
        if base == 1 && version > 3 {
            steps.push("ALTER TABLE table_registry ADD COLUMN source_type VARCHAR");
        }
        if base == 1 && version > 6 {
            steps.push("ALTER TABLE users ADD COLUMN active BOOLEAN DEFAULT true");
        }
        if base == 1 && version > 9 {
            steps.push("CREATE TABLE view_ownership (view_name VARCHAR PRIMARY KEY, source_name VARCHAR)");
            steps.push(
                "CREATE TABLE retired_feature (id INTEGER, note VARCHAR); INSERT INTO retired_feature VALUES (1, 'x')",
            );
        }
        if base == 14 && version > 15 {
            steps.push("ALTER TABLE users DROP COLUMN role");
        }
        if base == 14 && version > 16 {
            steps.push("DROP TABLE dataset_permissions");
        }
        if base == 19 && version > 25 {
            steps.push("ALTER TABLE users ADD COLUMN onboarded BOOLEAN DEFAULT false");
        }
        if base == 19 && version > 35 {
            steps.push("ALTER TABLE audit_log ADD COLUMN client_kind VARCHAR");
            steps.push("ALTER TABLE table_registry ADD COLUMN where_filters VARCHAR");
        }
        for step in steps {
            conn.execute_batch(step).unwrap();
        }
        conn.close().unwrap();
        let mut counts = expected(base);
        if base == 14 && version > 16 {
            counts.remove("dataset_permissions");
        }
        if base == 1 && version > 9 {
            counts.insert("retired_feature".into(), 1);
        }
        holds(&path, &counts, &format!("version {version}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_rows_lose_and_gain_nothing() {
    let (folder, path) = fixture(1);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "INSERT INTO users (id, email, role) VALUES ('u8', 'ANA@example.com', 'viewer'), ('u9', 'dora@example.com', NULL); \
         INSERT INTO dataset_permissions VALUES ('u9', 'orders', 'none'), ('u9', 'no_such_table', 'read'), ('ghost', 'orders', 'read')",
    )
    .unwrap();
    conn.close().unwrap();
    let before = old_access(&path);
    let store = DuckStore::open(&path, now()).unwrap();
    store.access().seed_system_groups(now()).await.unwrap();
    assert_eq!(new_access(&store).await, before);
    let users = store.users().list().await.unwrap();
    assert_eq!(users.len(), 5);
    assert!(users.iter().any(|user| user.id == "u8" && user.email == "ANA@example.com"));
    assert!(users.iter().any(|user| user.id == "u0" && user.email == "ana@example.com"));
    let report =
        std::fs::read(folder.path().join(format!("migration-report-1-to-{STATE_SCHEMA_VERSION}.json"))).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["addresses"]["shared_by_several_users"][0]["user_id"], "u8");
    assert_eq!(report["dataset_permissions"]["not_turned_into_grants"].as_array().unwrap().len(), 3);
    assert_eq!(report["admins_from_roles"], serde_json::json!(["u0"]));
}

/// Version 14 knows tables that everybody may read, and permissions on a whole bucket.
#[tokio::test(flavor = "multi_thread")]
async fn public_tables_and_buckets_stay_open_to_the_same_people() {
    let (folder, path) = fixture(14);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "UPDATE table_registry SET is_public = (id = 'web_sessions'), bucket = 'in.c-' || id; \
         UPDATE table_registry SET bucket = 'in.c-orders' WHERE id = 'tickets'; \
         INSERT INTO users (id, email, role) VALUES ('u7', 'eve@example.com', 'viewer'), ('u8', 'fay@example.com', 'viewer'); \
         INSERT INTO users (id, email, role, active) VALUES ('u9', 'gus@example.com', 'viewer', false); \
         INSERT INTO table_registry (id, name, is_public) VALUES ('hidden', 'hidden', NULL); \
         INSERT INTO dataset_permissions VALUES ('u7', 'in.c-orders.*', 'read'), ('u8', 'in.c-none.*', 'read')",
    )
    .unwrap();
    conn.close().unwrap();
    let before = old_access(&path);
    let may = |user: &str, table: &str| before.contains(&(user.to_owned(), table.to_owned()));
    assert!(may("u8", "web_sessions") && may("u7", "tickets") && !may("u8", "tickets") && !may("u9", "web_sessions"));
    let store = DuckStore::open(&path, now()).unwrap();
    assert_eq!(new_access(&store).await, before);
    store.access().seed_system_groups(now()).await.unwrap();
    assert_eq!(new_access(&store).await, before);
    let report =
        std::fs::read(folder.path().join(format!("migration-report-14-to-{STATE_SCHEMA_VERSION}.json"))).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["public_tables_granted_to_everyone"], serde_json::json!(["web_sessions"]));
    assert_eq!(report["dataset_permissions"]["not_turned_into_grants"].as_array().unwrap().len(), 1);
    assert_eq!(report["dataset_permissions"]["groups"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_must_be_unique_now_are_made_so() {
    let (_folder, path) = fixture(51);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("DROP INDEX idx_store_entities_synthetic_name").unwrap();
    for id in ["e1", "e2", "e3"] {
        let name = if id == "e3" { "other" } else { "same" };
        conn.execute_batch(&format!(
            "INSERT INTO store_entities (id, owner_user_id, owner_username, type, name, version, title, synthetic_name) \
             VALUES ('{id}', 'u1', 'bob', 'skill', '{id}', '1', 't', '{name}')"
        ))
        .unwrap();
    }
    conn.close().unwrap();
    DuckStore::open(&path, now()).unwrap().close().await.unwrap();
    let conn = Connection::open(&path).unwrap();
    assert_eq!(
        number(&conn, "SELECT count(*) FROM store_entities WHERE synthetic_name IN ('same', 'other', 'same-e2')"),
        3
    );
}

#[test]
fn a_newer_file_is_refused_and_not_touched() {
    let (folder, path) = fixture(51);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(&format!("UPDATE schema_version SET version = {}", STATE_SCHEMA_VERSION + 1)).unwrap();
    conn.close().unwrap();
    let (bytes, changed) = (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
    let error = DuckStore::open(&path, now()).unwrap_err();
    assert_eq!(error.code(), "state_too_new");
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), changed);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("system.duckdb");
    std::fs::write(&path, b"not a database, but somebody's file").unwrap();
    assert_eq!(DuckStore::open(&path, now()).unwrap_err().code(), "state_unreadable");
    assert_eq!(std::fs::read(&path).unwrap(), b"not a database, but somebody's file");
}

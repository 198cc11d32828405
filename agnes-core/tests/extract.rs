//! The extract contract: what is published is complete, carried forward, and readable;
//! what others wrote is never executed.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::Path;

use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::extract::{self, TableChange, TableWriter};
use agnes_core::ident::TableName;
use chrono::Utc;

fn scratch(folder: &Path) -> ScratchDb {
    ScratchDb::open(&folder.join("scratch"), &ScratchLimits::default()).unwrap()
}

fn name(text: &str) -> TableName {
    TableName::parse(text).unwrap()
}

fn change(writer: TableWriter) -> TableChange {
    TableChange { name: writer.table().clone(), description: None, data: writer.into() }
}

fn publish_one(extract: &Path, db: &ScratchDb, table: &str, select: &str) -> extract::PublishedExtract {
    let mut writer = TableWriter::new(extract, name(table));
    writer.write_query(db, select, None).unwrap();
    extract::publish(extract, vec![change(writer)], &|_| true, Utc::now()).unwrap().remove(0)
}

fn tables(extract: &Path) -> Vec<String> {
    extract::read_extract(extract).unwrap().meta.into_iter().map(|m| m.table_name).collect()
}

fn leftovers(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".tmp") || name.ends_with(".wal") {
            out.push(name);
        } else if entry.path().is_dir() && name != "scratch" {
            out.extend(leftovers(&entry.path()));
        }
    }
    out
}

#[test]
fn other_tables_are_carried_forward_and_unregistered_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let (extract, db) = (folder.path().join("shop"), scratch(folder.path()));
    publish_one(&extract, &db, "orders", "SELECT 1 AS id");
    publish_one(&extract, &db, "customers", "SELECT 1 AS id UNION ALL SELECT 2");
    assert_eq!(tables(&extract), ["customers", "orders"]);
    let mut writer = TableWriter::new(&extract, name("orders"));
    writer.write_query(&db, "SELECT 7 AS id", None).unwrap();
    extract::publish(&extract, vec![change(writer)], &|t| t.as_str() == "orders", Utc::now()).unwrap();
    assert_eq!(tables(&extract), ["orders"]);
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
    let conn = duckdb::Connection::open(extract.join("extract.duckdb")).unwrap();
    assert_eq!(conn.query_row("SELECT id FROM orders", [], |r| r.get::<_, i64>(0)).unwrap(), 7);
}

#[test]
fn a_table_has_one_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (extract, db) = (folder.path().join("shop"), scratch(folder.path()));
    publish_one(&extract, &db, "orders", "SELECT 1 AS id, DATE '2024-01-01' AS day");
    let mut writer = TableWriter::new(&extract, name("orders"));
    let select = "SELECT i AS id, DATE '2024-01-01' + i::INTEGER AS day FROM range(3) AS r(i) \
                  UNION ALL SELECT 9, NULL";
    let parts = writer.write_partitioned(&db, select, "day").unwrap();
    let keys: Vec<_> = parts.iter().filter_map(|p| p.key.clone()).collect();
    assert_eq!(keys, ["null", "2024-01-01", "2024-01-02", "2024-01-03"]);
    let done = extract::publish(&extract, vec![change(writer)], &|_| true, Utc::now()).unwrap().remove(0);
    assert_eq!((done.rows, done.error.is_none()), (4, true));
    assert!(!extract.join("data/orders.parquet").exists());
    // The partition column stays in the files, and no helper column does.
    let files = extract::table_files(&extract, &name("orders")).unwrap().unwrap();
    assert!(files.partitioned && files.files.len() == 4);
    let file = files.files[0].display();
    assert_eq!(db.rows(&format!("SELECT id, day FROM '{file}'")).unwrap().len(), 1);
    let columns = db.rows(&format!("SELECT column_name FROM (DESCRIBE FROM '{file}')")).unwrap();
    assert_eq!(columns.len(), 2, "{columns:?}");

    let mut writer = TableWriter::new(&extract, name("orders"));
    for key in ["2024-01-02", "2024-01-03"] {
        writer.keep_part(key).unwrap();
    }
    writer.write_query(&db, "SELECT 5::BIGINT AS id, DATE '2024-02-01' AS day", Some("2024-02-01")).unwrap();
    extract::publish(&extract, vec![change(writer)], &|_| true, Utc::now()).unwrap();
    assert_eq!(
        TableWriter::new(&extract, name("orders")).published_parts().unwrap(),
        ["2024-01-02", "2024-01-03", "2024-02-01"]
    );
    publish_one(&extract, &db, "orders", "SELECT 1::BIGINT AS id, DATE '2024-01-01' AS day");
    assert!(!extract.join("data/orders").exists());
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn rejected_rows_come_and_go_with_their_table() {
    let folder = tempfile::tempdir().unwrap();
    let (extract, db) = (folder.path().join("shop"), scratch(folder.path()));
    let reject = |select: &str| {
        let mut writer = TableWriter::new(&extract, name("orders"));
        writer.write_query(&db, "SELECT 1 AS id", None).unwrap();
        writer.write_rejected(&db, select).unwrap();
        extract::publish(&extract, vec![change(writer)], &|_| true, Utc::now()).unwrap();
        tables(&extract)
    };
    assert_eq!(
        reject("SELECT 'a.csv' AS file, 3 AS line, 'id' AS column, 'bad' AS reason, 'x' AS raw"),
        ["orders", "orders_rejected"]
    );
    assert_eq!(reject("SELECT 'a.csv' AS file WHERE false"), ["orders"]);
}

#[test]
fn incompatible_values_keep_the_last_good_data() {
    let folder = tempfile::tempdir().unwrap();
    let (extract, db) = (folder.path().join("shop"), scratch(folder.path()));
    publish_one(&extract, &db, "orders", "SELECT 1::INTEGER AS id, DATE '2024-01-01' AS day");
    let wider = publish_one(&extract, &db, "orders", "SELECT 1::BIGINT AS id, 'text' AS day, 2 AS extra");
    let drift = wider.drift.unwrap();
    assert_eq!((drift.added, drift.changed.len()), (vec!["extra".to_owned()], 2));
    let wrong = publish_one(&extract, &db, "orders", "SELECT DATE '2024-01-01' AS id, 'text' AS day, 2 AS extra");
    assert_eq!(wrong.error.unwrap().code(), "schema_drift");
    let file = extract.join("data/orders.parquet");
    assert_eq!(db.rows(&format!("SELECT id FROM '{}'", file.display())).unwrap(), vec![vec![Some("1".to_owned())]]);
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn a_part_that_does_not_go_with_the_others_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (extract, db) = (folder.path().join("shop"), scratch(folder.path()));
    let part = |key: &str, select: &str| {
        let mut writer = TableWriter::new(&extract, name("orders"));
        for kept in writer.published_parts().unwrap() {
            writer.keep_part(&kept).unwrap();
        }
        writer.write_query(&db, select, Some(key)).unwrap();
        extract::publish(&extract, vec![change(writer)], &|_| true, Utc::now()).unwrap().remove(0)
    };
    assert!(part("2024-01", "SELECT 1::INTEGER AS n").error.is_none());
    assert!(part("2024-02", "SELECT 1::BIGINT AS n").error.is_none());
    assert_eq!(part("2024-03", "SELECT DATE '2024-01-01' AS n").error.unwrap().code(), "schema_drift");
    assert_eq!(TableWriter::new(&extract, name("orders")).published_parts().unwrap(), ["2024-01", "2024-02"]);
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn nothing_in_a_foreign_extract_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.txt");
    std::fs::write(&secret, "hunter2").unwrap();
    let make = |sql: &str| {
        let extract = folder.path().join(uuid_like());
        std::fs::create_dir_all(&extract).unwrap();
        let conn = duckdb::Connection::open(extract.join("extract.duckdb")).unwrap();
        conn.execute_batch(sql).unwrap();
        conn.close().unwrap();
        extract
    };
    let view = make(&format!(
        "CREATE VIEW _meta AS SELECT content AS table_name, 'local' AS query_mode FROM read_text('{}')",
        secret.display()
    ));
    assert_eq!(extract::read_extract(&view).unwrap_err().code(), "extract_meta");
    let odd = make(
        "CREATE TABLE _meta(table_name INTEGER, query_mode STRUCT(a INTEGER)); INSERT INTO _meta VALUES (1, {'a': 1})",
    );
    assert_eq!(extract::read_extract(&odd).unwrap().meta[0].table_name, "1");
    let none = make("CREATE TABLE other(a INTEGER)");
    assert_eq!(extract::read_extract(&none).unwrap_err().code(), "extract_meta");
    let twice = make(
        "CREATE TABLE _meta(table_name VARCHAR, rows BIGINT, query_mode VARCHAR); \
         INSERT INTO _meta VALUES ('a', 1, 'local'), ('a', 2, 'local')",
    );
    let meta = extract::read_extract(&twice).unwrap().meta;
    assert_eq!(meta.iter().map(|m| m.rows).collect::<Vec<_>>(), [2]);
    for bytes in [b"".as_slice(), b"not a database", &[0; 4096]] {
        let extract = folder.path().join(uuid_like());
        std::fs::create_dir_all(&extract).unwrap();
        std::fs::write(extract.join("extract.duckdb"), bytes).unwrap();
        assert!(extract::read_extract(&extract).is_err());
    }
}

fn uuid_like() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("e{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

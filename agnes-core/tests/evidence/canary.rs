//! What the walls take from DuckDB. A test here fails when an upgrade changes it, and names
//! the wall: look at that wall first, then write the lists anew with `AGNES_BLESS=1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{data, lines, maker_with, texts};

/// Compares with `canary/<file>`, line by line.
fn same(file: &str, wall: &str, now: &BTreeSet<String>) {
    let path = data("canary").join(file);
    if std::env::var("AGNES_BLESS").is_ok() {
        std::fs::create_dir_all(data("canary")).unwrap();
        std::fs::write(&path, now.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let known: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let new: Vec<_> = now.difference(&known).collect();
    let gone: Vec<_> = known.difference(now).collect();
    assert!(new.is_empty() && gone.is_empty(), "{wall}\nnew: {new:#?}\ngone: {gone:#?}");
}

fn set(sql: &str) -> BTreeSet<String> {
    texts(&maker_with(None).unwrap(), sql).into_iter().collect()
}

#[test]
fn functions_are_those_that_were_looked_at() {
    same(
        "functions.txt",
        "the parser wall allows every scalar, aggregate and macro of the pristine engine but those that \
         `sandbox/functions.rs` denies: read what is new there",
        &set("SELECT DISTINCT function_type || ' ' || function_name FROM duckdb_functions() \
              WHERE function_type NOT IN ('table', 'table_macro', 'pragma')"),
    );
}

#[test]
fn table_functions_are_those_that_were_looked_at() {
    same(
        "table_functions.txt",
        "the parser wall allows six table functions by name; the attack corpus should know what is new",
        &set("SELECT DISTINCT function_type || ' ' || function_name FROM duckdb_functions() \
              WHERE function_type IN ('table', 'table_macro', 'pragma')"),
    );
}

#[test]
fn settings_are_those_that_were_looked_at() {
    same(
        "settings.txt",
        "the engine wall sets some of these before it locks them (`query/instance.rs`): is there a new one that \
         opens files, the network or extensions?",
        &set("SELECT name FROM duckdb_settings()"),
    );
}

#[test]
fn catalog_views_are_those_that_were_looked_at() {
    same(
        "views.txt",
        "the parser wall refuses the engine's own relations by prefix and schema (`sandbox/walk.rs`)",
        &set("SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE internal"),
    );
}

#[test]
fn extensions_inside_are_those_that_were_looked_at() {
    same(
        "extensions.txt",
        "what is linked in is there whatever the engine wall says about loading",
        &set("SELECT extension_name FROM duckdb_extensions() WHERE loaded"),
    );
}

fn tree(conn: &duckdb::Connection, sql: &str) -> Value {
    let json: String = conn.query_row("SELECT json_serialize_sql(?::VARCHAR)", [sql], |row| row.get(0)).unwrap();
    // Deeper than the default limit of the reader is not needed here.
    serde_json::from_str(&json).unwrap_or(Value::Null)
}

/// Kinds of nodes and their fields that the corpus of honest SQL has.
#[test]
fn the_syntax_tree_has_the_shape_that_is_walked() {
    let conn = maker_with(None).unwrap();
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in std::fs::read_dir(data("honest")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|end| end != "sql") {
            continue;
        }
        for sql in lines(&std::fs::read_to_string(file).unwrap()) {
            let mut work = vec![tree(&conn, sql)["statements"].take()];
            while let Some(value) = work.pop() {
                match value {
                    Value::Object(map) => {
                        let of = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
                        let kind = of("class").map(|class| format!("expression {class}")).or_else(|| of("type"));
                        // A logical type has an `id`; what is in it is data.
                        if map.contains_key("id") {
                            continue;
                        }
                        let kind = kind.unwrap_or_else(|| "plain".to_owned());
                        kinds.entry(kind).or_default().extend(map.keys().cloned());
                        work.extend(map.into_iter().map(|(_, value)| value));
                    }
                    Value::Array(items) => work.extend(items),
                    _ => {}
                }
            }
        }
    }
    let now =
        kinds.into_iter().map(|(kind, fields)| format!("{kind}: {}", fields.into_iter().collect::<Vec<_>>().join(" ")));
    same(
        "tree.txt",
        "the parser wall walks these nodes and refuses what `sandbox/grammar.rs` does not list: a new kind refuses \
         honest SQL, a new meaning of a known one may let something through",
        &now.collect(),
    );
}

#[test]
fn only_queries_are_serialised() {
    let conn = maker_with(None).unwrap();
    for sql in [
        "COPY (SELECT 1) TO 'x.csv'",
        "INSERT INTO t VALUES (1)",
        "ATTACH 'x' AS y",
        "SET threads=1",
        "PRAGMA database_list",
        "CALL duckdb_settings()",
        "EXPLAIN SELECT 1",
        "CREATE TABLE t AS SELECT 1",
        "PREPARE p AS SELECT 1",
        "SELECT 1; DROP TABLE t",
    ] {
        let tree = tree(&conn, sql);
        assert_eq!(tree["error"], true, "the parser wall takes what is serialised for a query: {sql}");
    }
    for sql in ["WITH x AS (COPY (SELECT 1) TO 'x.csv') SELECT 1", "WITH x AS (INSERT INTO t VALUES (1)) SELECT 1"] {
        assert_eq!(
            tree(&conn, sql)["error"],
            true,
            "the parser wall: CTEs may write from DuckDB 2.0 on; the walk must refuse them: {sql}"
        );
    }
    assert_eq!(tree(&conn, "SELECT 1; SELECT 2")["statements"].as_array().unwrap().len(), 2, "it counts statements");
}

/// A database as the engine wall leaves it, its folder, a granted and another file.
fn sealed() -> (duckdb::Connection, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let maker = maker_with(None).unwrap();
    for name in ["granted", "other"] {
        let file = folder.path().join(format!("{name}.parquet"));
        maker.execute_batch(&format!("COPY (SELECT '{name}' AS a) TO '{}' (FORMAT parquet)", file.display())).unwrap();
    }
    let conn = duckdb::Connection::open_in_memory().unwrap();
    conn.execute_batch(&format!(
        "SET GLOBAL TimeZone='UTC'; SET temp_directory='{0}/spill'; SET allowed_paths=['{0}/granted.parquet']; \
         SET enable_external_access=false; SET lock_configuration=true",
        folder.path().display()
    ))
    .unwrap();
    (conn, folder)
}

#[test]
fn allowed_paths_open_those_files_and_no_other() {
    let (conn, folder) = sealed();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let runs = |sql: &str| conn.execute_batch(sql).is_ok();
    let wall = "the engine wall";
    assert!(runs(&format!("FROM read_parquet('{}')", at("granted.parquet"))), "{wall}: blobs cannot be read");
    for sql in [
        format!("FROM read_parquet('{}')", at("other.parquet")),
        format!("FROM read_parquet('{}')", at("*.parquet")),
        format!("FROM read_parquet('{}')", at("granted.parquet/../other.parquet")),
        format!("FROM glob('{}')", at("*")),
        format!("FROM read_text('{}')", at("other.parquet")),
        format!("COPY (SELECT 1) TO '{}'", at("new.csv")),
        format!("ATTACH '{}' AS x", at("new.duckdb")),
        format!("ATTACH '{}' AS x (READ_ONLY)", at("other.parquet")),
        format!("EXPORT DATABASE '{}'", at("dump")),
        "INSTALL httpfs".to_owned(),
        "LOAD httpfs".to_owned(),
    ] {
        assert!(!runs(&sql), "{wall}: {sql}");
    }
    // Known, and why a granted file is read-only on disk and only queries reach the engine.
    let write = format!("COPY (SELECT 2 AS a) TO '{}' (FORMAT parquet, USE_TMP_FILE false)", at("granted.parquet"));
    assert!(runs(&write), "{wall}: `allowed_paths` are no longer written to; say so in docs/security");
    let spill = format!("COPY (SELECT 2 AS a) TO '{}' (FORMAT parquet)", at("spill/x.parquet"));
    std::fs::create_dir_all(folder.path().join("spill")).unwrap();
    assert!(runs(&spill), "{wall}: the spill folder is no longer open; say so in docs/security");
}

#[test]
fn a_locked_configuration_stays() {
    let (conn, _folder) = sealed();
    let mut taken = BTreeSet::new();
    for name in texts(&conn, "SELECT name FROM duckdb_settings() ORDER BY 1") {
        let value = texts(&conn, &format!("SELECT coalesce(current_setting('{name}')::VARCHAR, '')")).remove(0);
        for sql in [format!("SET {name}='{value}'"), format!("SET GLOBAL {name}='1'"), format!("RESET {name}")] {
            if conn.execute_batch(&sql).is_ok() {
                taken.insert(sql);
            }
        }
    }
    // Which schema a name without one is looked for in; there is only one.
    let known = ["RESET schema", "RESET search_path", "SET schema='main'", "SET search_path=''"].map(str::to_owned);
    assert_eq!(taken, BTreeSet::from(known), "the engine wall: what a locked instance takes");
}

#[test]
fn settings_reach_every_connection() {
    let (conn, _folder) = sealed();
    let other = conn.try_clone().unwrap();
    for setting in ["TimeZone", "enable_external_access", "lock_configuration", "allowed_paths"] {
        let ask = format!("SELECT current_setting('{setting}')::VARCHAR");
        assert_eq!(texts(&conn, &ask), texts(&other, &ask), "the engine wall: {setting} differs between connections");
    }
}

#[test]
fn a_database_opened_read_only_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.duckdb");
    let conn = duckdb::Connection::open(&file).unwrap();
    conn.execute_batch("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    conn.close().unwrap();
    let conn = maker_with(None).unwrap();
    conn.execute_batch(&format!("ATTACH '{}' AS x (READ_ONLY)", file.display())).unwrap();
    for sql in ["INSERT INTO x.t VALUES (2)", "DROP TABLE x.t", "CREATE TABLE x.u AS SELECT 1", "DELETE FROM x.t"] {
        assert!(conn.execute_batch(sql).is_err(), "reading a third party's extract: {sql}");
    }
    // And why no extract is ever attached where callers ask.
    assert_eq!(texts(&conn, "SELECT a::VARCHAR FROM x.t"), ["1"]);
}

#[test]
fn the_version_is_the_one_that_was_measured() {
    assert_eq!(
        texts(&maker_with(None).unwrap(), "SELECT version()"),
        ["v1.5.5"],
        "read all of these, then change this"
    );
}

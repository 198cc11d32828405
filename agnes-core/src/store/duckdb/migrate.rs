//! Bringing an older state file to the newest schema.
//!
//! The old file is never changed: a new file is made beside it, every table copied into
//! the newest schema, old access rules turned into groups and grants, and the new file
//! renamed over the old one. A kill leaves the old or the new state.

use std::path::Path;

use ::duckdb::{Connection, params};
use chrono::{DateTime, Utc};

use super::copies::{self, beside, read_only};
use super::recover::{self, Recovered};
use super::{StateError, rules, schema, transaction, wal_of};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio::{self, Staged};
use crate::ident::{quote_ident, quote_literal};
use crate::store::STATE_SCHEMA_VERSION;

const ACTION: &str = "migrate the state";

/// The verified copy made before a migration.
pub(super) fn snapshot_of(path: &Path) -> std::path::PathBuf {
    beside(path, ".pre-migrate")
}

/// What has to be done before the file at `path` may be opened for writing: puts a broken
/// write-ahead log aside, refuses a newer file without touching it, migrates an older one.
pub(super) fn prepare(path: &Path, now: DateTime<Utc>) -> Result<Option<Recovered>> {
    fsio::sweep(copies::folder_of(path), 0);
    let interrupted = recover::finish(path, now)?;
    if !path.exists() {
        return Ok(interrupted);
    }
    let cut_short = recover::keep_cut_log(path, now)?;
    let (conn, recovered) = match read_only(path) {
        Ok(conn) if !recover::ignores_its_log(path)? => (conn, cut_short),
        opened => {
            let words = opened.err().map(|error| error.to_string());
            if words.as_deref().is_some_and(|words| !recover::is_replay_failure(words)) {
                return Err(super::open_error(&words.unwrap_or_default()));
            }
            let recovered = recover::recover(path, words.as_deref(), now)?;
            (read_only(path).map_err(|e| super::open_error(&e.to_string()))?, Some(recovered))
        }
    };
    let found = schema::version(&conn).map_err(|e| engine_error("read the state's version", &e))?;
    let empty =
        copies::tables(&conn, "main", None).map_err(|e| engine_error("read the state's tables", &e))?.is_empty();
    drop(conn);
    if found > STATE_SCHEMA_VERSION {
        return Err(StateError::TooNew { found }.into());
    }
    if found < STATE_SCHEMA_VERSION && !empty {
        migrate(path, found, now)?;
    }
    Ok(recovered.or(interrupted))
}

/// Where tests stop a migration between two statements of the engine.
fn step() -> Result<()> {
    fsio::fault_point().map_err(|e| Error::io(ACTION, e))
}

fn migrate(path: &Path, from: i32, now: DateTime<Utc>) -> Result<()> {
    tracing::info!(from, to = STATE_SCHEMA_VERSION, "migrating the state");
    let old = super::open_file(path)?;
    super::checkpoint(&old)?;
    let held = copies::Contents::of(&old)?;
    old.close().map_err(|(_, e)| engine_error(ACTION, &e))?;
    if wal_of(path).exists() {
        return Err(Error::internal(ACTION, "the write-ahead log is still there after a checkpoint"));
    }
    let snapshot = snapshot_of(path);
    let copy = Staged::beside(&snapshot)?;
    copies::copy(path, copy.path())?;
    copies::verify(copy.path(), Some(&held))?;
    copy.publish(&snapshot)?;
    fsio::sync_folder(copies::folder_of(path))?;

    let fresh = Staged::beside(path)?;
    let conn = super::open_file(fresh.path())?;
    let attach = format!("ATTACH {} AS old (READ_ONLY)", quote_literal(&snapshot.to_string_lossy()));
    conn.execute_batch(&attach).map_err(|e| engine_error(ACTION, &e))?;
    transaction(&conn, |conn| fill(conn, now).map_err(|e| engine_error(ACTION, &e)))?;
    step()?;
    // A transaction of its own: DuckDB refuses to change a key written in the same one.
    let report = transaction(&conn, |conn| rules::turn(conn, from, now).map_err(|e| engine_error(ACTION, &e)))?;
    step()?;
    conn.execute_batch("DETACH old").map_err(|e| engine_error(ACTION, &e))?;
    super::checkpoint(&conn)?;
    conn.close().map_err(|(_, e)| engine_error(ACTION, &e))?;
    fresh.sync()?;

    // The report first, so that a migrated state is never without it.
    let report_file = path.with_file_name(format!("migration-report-{from}-to-{STATE_SCHEMA_VERSION}.json"));
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal("write the migration report", e))?;
    fsio::write_atomically(&report_file, &text)?;
    fresh.publish(path)?;
    fsio::sync_folder(copies::folder_of(path))
}

/// Makes the newest schema and copies every table into it.
fn fill(conn: &Connection, now: DateTime<Utc>) -> ::duckdb::Result<()> {
    schema::create(conn, now)?;
    for (table, rows) in copies::rows(conn, Some("old"))? {
        if table == "schema_version" {
            continue;
        }
        copy_table(conn, &table)?;
        let now_there: i64 =
            conn.query_row(&format!("SELECT count(*) FROM main.{}", quote_ident(&table)), [], |row| row.get(0))?;
        if now_there != rows {
            return Err(::duckdb::Error::InvalidParameterName(format!(
                "a copy of {table} has {now_there} rows, not {rows}"
            )));
        }
    }
    Ok(())
}

pub(super) struct Column {
    pub(super) name: String,
    data_type: String,
    nullable: bool,
    default: Option<String>,
}

/// Columns of a table, of the named database or the current one.
pub(super) fn columns(conn: &Connection, table: &str, database: Option<&str>) -> ::duckdb::Result<Vec<Column>> {
    conn.prepare(
        "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns() WHERE table_name = ? \
         AND schema_name = 'main' AND database_name = coalesce(?, current_database()) ORDER BY column_index",
    )?
    .query_map(params![table, database], |row| {
        Ok(Column { name: row.get(0)?, data_type: row.get(1)?, nullable: row.get(2)?, default: row.get(3)? })
    })?
    .collect()
}

fn copy_table(conn: &Connection, table: &str) -> ::duckdb::Result<()> {
    let quoted = quote_ident(table);
    let target = columns(conn, table, None)?;
    if target.is_empty() {
        // Not a table of ours any more, or never: its rows stay.
        return conn.execute_batch(&format!("CREATE TABLE main.{quoted} AS SELECT * FROM old.main.{quoted}"));
    }
    let source = columns(conn, table, Some("old"))?;
    let known = |list: &[Column], name: &str| list.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for column in &source {
        let name = quote_ident(&column.name);
        if !known(&target, &column.name) {
            conn.execute_batch(&format!("ALTER TABLE main.{quoted} ADD COLUMN {name} {}", column.data_type))?;
            names.push(name.clone());
            values.push(name);
        }
    }
    for column in &target {
        let name = quote_ident(&column.name);
        let filler = column.default.clone().or_else(|| (!column.nullable).then(|| filler(table, column)));
        let value = match (known(&source, &column.name), &filler) {
            (true, _) if (table, column.name.as_str()) == ("store_entities", "synthetic_name") => format!(
                // Unique now: of rows that share one, all but the first get their id behind it.
                "{name} || CASE WHEN row_number() OVER (PARTITION BY {name} ORDER BY created_at, id) > 1 THEN '-' || id ELSE '' END"
            ),
            (true, Some(filler)) if !column.nullable => format!("coalesce({name}::{}, {filler})", column.data_type),
            (true, _) => format!("{name}::{}", column.data_type),
            (false, Some(filler)) => filler.clone(),
            (false, None) => continue,
        };
        names.push(name);
        values.push(value);
    }
    conn.execute_batch(&format!(
        "INSERT INTO main.{quoted} ({}) SELECT {} FROM old.main.{quoted}",
        names.join(", "),
        values.join(", ")
    ))
}

/// What a column that may not be NULL holds in rows of a time before it.
fn filler(table: &str, column: &Column) -> String {
    match (table, column.name.as_str(), column.data_type.as_str()) {
        ("store_entities", "title", _) => "name",
        ("store_entities", "synthetic_name", _) => "id",
        (_, _, "TIMESTAMP") => "current_timestamp::TIMESTAMP",
        (_, _, "DATE") => "current_date",
        (_, _, "VARCHAR") => "''",
        (_, _, "BOOLEAN") => "false",
        (_, _, "JSON") => "'null'",
        _ => "0",
    }
    .to_owned()
}

//! Bringing an older state file to the newest schema.
//!
//! The old file is never changed: a new file is made beside it, every table copied into
//! the newest schema, old access rules turned into groups and grants, and the new file
//! renamed over the old one. A kill leaves the old or the new state.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ::duckdb::{Connection, params};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::copies::{self, read_only};
use super::values::stamp;
use super::{StateError, schema, transaction, wal_of};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio;
use crate::ident::{quote_ident, quote_literal};
use crate::store::STATE_SCHEMA_VERSION;

const ACTION: &str = "migrate the state";

/// `path` with `suffix` at its end.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The verified copy made before a migration.
pub(super) fn snapshot_of(path: &Path) -> PathBuf {
    beside(path, ".pre-migrate")
}

/// Whether the engine could open the file but not replay its write-ahead log.
fn replay_failed(error: &::duckdb::Error) -> bool {
    let text = error.to_string();
    text.contains("replay") || text.contains("WAL file")
}

/// What has to be done before the file at `path` may be opened for writing: restores the
/// last snapshot when the write-ahead log is broken, refuses a newer file without touching
/// it, migrates an older one.
pub(super) fn prepare(path: &Path, now: DateTime<Utc>) -> Result<()> {
    let restoring = beside(path, ".restoring");
    if !path.exists() && restoring.exists() {
        // A kill came between moving the broken file away and putting the snapshot there.
        rename(&restoring, path)?;
    }
    if !path.exists() {
        return Ok(());
    }
    let conn = match read_only(path) {
        Ok(conn) => conn,
        Err(error) if replay_failed(&error) && snapshot_of(path).exists() => {
            tracing::error!("the write-ahead log of the state cannot be replayed: {error}");
            restore_snapshot(path, now)?;
            read_only(path).map_err(|e| super::open_error(&e))?
        }
        Err(error) => return Err(super::open_error(&error)),
    };
    let found = schema::version(&conn).map_err(|e| engine_error("read the state's version", &e))?;
    let empty = copies::tables(&conn, "main", None).map_err(|e| engine_error("read the state's tables", &e))?.is_empty();
    drop(conn);
    if found > STATE_SCHEMA_VERSION {
        return Err(StateError::TooNew { found }.into());
    }
    if found == STATE_SCHEMA_VERSION || empty {
        return Ok(());
    }
    migrate(path, found, now)
}

fn restore_snapshot(path: &Path, now: DateTime<Utc>) -> Result<()> {
    let restoring = beside(path, ".restoring");
    fsio::copy_file("restore the state", &snapshot_of(path), &restoring)?;
    let broken = beside(path, &format!(".broken.{}", now.timestamp()));
    // The log first: without its file it can harm nobody, the other way round it would be
    // replayed into the snapshot.
    let wal = wal_of(path);
    if wal.exists() {
        rename(&wal, &wal_of(&broken))?;
    }
    rename(path, &broken)?;
    rename(&restoring, path)?;
    tracing::error!("the state was restored from the copy made before the last migration; the broken file was kept");
    Ok(())
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
    let temporary = beside(path, ".copying");
    copies::copy(path, &temporary)?;
    copies::verify(&temporary, Some(&held))?;
    rename(&temporary, &snapshot)?;

    let fresh = beside(path, ".migrating");
    for stale in [&fresh, &wal_of(&fresh)] {
        if stale.exists() {
            std::fs::remove_file(stale).map_err(|e| Error::io("remove an unfinished migration", e))?;
        }
    }
    let conn = super::open_file(&fresh)?;
    let attach = format!("ATTACH {} AS old (READ_ONLY)", quote_literal(&snapshot.to_string_lossy()));
    conn.execute_batch(&attach).map_err(|e| engine_error(ACTION, &e))?;
    transaction(&conn, |conn| fill(conn, now).map_err(|e| engine_error(ACTION, &e)))?;
    // A transaction of its own: DuckDB refuses to change a key written in the same one.
    let report = transaction(&conn, |conn| turn_rules(conn, from, now).map_err(|e| engine_error(ACTION, &e)))?;
    conn.execute_batch("DETACH old").map_err(|e| engine_error(ACTION, &e))?;
    super::checkpoint(&conn)?;
    conn.close().map_err(|(_, e)| engine_error(ACTION, &e))?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(|e| Error::io("flush the migrated state", e))?;

    // The report first, so that a migrated state is never without it.
    let report_file = path.with_file_name(format!("migration-report-{from}-to-{STATE_SCHEMA_VERSION}.json"));
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal("write the migration report", e))?;
    let unfinished = beside(&report_file, ".tmp");
    std::fs::write(&unfinished, text)
        .and_then(|()| File::open(&unfinished)?.sync_all())
        .map_err(|e| Error::io("write the migration report", e))?;
    rename(&unfinished, &report_file)?;
    rename(&fresh, path)
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

/// Turns old rules into new ones; what it made is the report.
fn turn_rules(conn: &Connection, from: i32, now: DateTime<Utc>) -> ::duckdb::Result<serde_json::Value> {
    let addresses = fold_addresses(conn)?;
    let admins = admins_of_roles(conn, now)?;
    let permissions = grants_of_permissions(conn, from, now)?;
    let public = public_tables(conn)?;
    let report = json!({
        "from": from,
        "to": STATE_SCHEMA_VERSION,
        "at": now,
        "addresses": addresses,
        "admins_from_roles": admins,
        "dataset_permissions": permissions,
        "tables_marked_public_without_a_grant": public,
    });
    conn.execute(
        "INSERT INTO audit_log (id, timestamp, user_id, action, resource, params, result) \
         VALUES (?, ?::TIMESTAMP, 'system:migration', 'state.migrated', 'state', ?, 'success')",
        params![new_id(), stamp(now), report.to_string()],
    )?;
    Ok(report)
}

struct Column {
    name: String,
    data_type: String,
    nullable: bool,
    default: Option<String>,
}

fn columns(conn: &Connection, table: &str, database: Option<&str>) -> ::duckdb::Result<Vec<Column>> {
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

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn has_column(conn: &Connection, table: &str, column: &str) -> ::duckdb::Result<bool> {
    Ok(columns(conn, table, None)?.iter().any(|c| c.name.eq_ignore_ascii_case(column)))
}

/// Stores addresses trimmed and folded. Of users who then share one, the first keeps it and
/// the others keep theirs as written, so that nobody is lost.
fn fold_addresses(conn: &Connection) -> ::duckdb::Result<serde_json::Value> {
    let rows: Vec<(String, String)> = conn
        .prepare("SELECT id, email FROM users ORDER BY email <> lower(trim(email)), id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<::duckdb::Result<_>>()?;
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let (mut folded, mut shared) = (Vec::new(), Vec::new());
    for (id, email) in rows {
        let normal = email.trim().to_lowercase();
        if let Some(owner) = owners.get(&normal) {
            shared.push(json!({"user_id": id, "email": email, "same_as_user_id": owner}));
            continue;
        }
        if normal != email {
            conn.execute("UPDATE users SET email = ? WHERE id = ?", params![normal, id])?;
            folded.push(json!({"user_id": id, "from": email, "to": normal}));
        }
        owners.insert(normal, id);
    }
    Ok(json!({"folded": folded, "shared_by_several_users": shared}))
}

/// The role `admin` becomes a membership of Admin.
fn admins_of_roles(conn: &Connection, now: DateTime<Utc>) -> ::duckdb::Result<Vec<String>> {
    if !has_column(conn, "users", "role")? {
        return Ok(Vec::new());
    }
    let users: Vec<String> = conn
        .prepare("SELECT id FROM users WHERE lower(trim(role)) = 'admin' ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<::duckdb::Result<_>>()?;
    if users.is_empty() {
        return Ok(users);
    }
    let find = "SELECT coalesce(min(id), '') FROM user_groups WHERE name = 'Admin'";
    let mut group: String = conn.query_row(find, [], |row| row.get(0))?;
    if group.is_empty() {
        group = new_id();
        conn.execute(
            "INSERT INTO user_groups (id, name, description, is_system, created_at, created_by) \
             VALUES (?, 'Admin', 'May do everything', true, ?::TIMESTAMP, 'system:migration')",
            params![group, stamp(now)],
        )?;
    }
    let mut made = Vec::new();
    for user in users {
        if add_member(conn, &user, &group, now)? {
            made.push(user);
        }
    }
    Ok(made)
}

fn add_member(conn: &Connection, user: &str, group: &str, now: DateTime<Utc>) -> ::duckdb::Result<bool> {
    let added = conn.execute(
        "INSERT INTO user_group_members (user_id, group_id, source, added_at, added_by) \
         VALUES (?, ?, 'admin', ?::TIMESTAMP, 'system:migration') ON CONFLICT DO NOTHING",
        params![user, group, stamp(now)],
    )?;
    Ok(added > 0)
}

/// Each permission that no grant gives already becomes a membership of a group made for
/// its table.
fn grants_of_permissions(conn: &Connection, from: i32, now: DateTime<Utc>) -> ::duckdb::Result<serde_json::Value> {
    if !has_column(conn, "dataset_permissions", "dataset")? {
        return Ok(json!({"groups": [], "already_granted": 0, "not_turned_into_grants": []}));
    }
    let access =
        if has_column(conn, "dataset_permissions", "access")? { "lower(trim(coalesce(access, '')))" } else { "'read'" };
    // User and dataset as they were written, access, then the user and table they mean.
    type Row = (String, String, String, Option<String>, Option<String>);
    let rows: Vec<Row> = conn
        .prepare(&format!(
            "SELECT p.user_id, p.dataset, {access}, \
               (SELECT min(u.id) FROM users u WHERE u.id = p.user_id OR u.email = lower(trim(p.user_id))), \
               (SELECT t.id FROM table_registry t WHERE lower(t.id) = lower(p.dataset) OR lower(t.name) = lower(p.dataset) \
                ORDER BY lower(t.id) = lower(p.dataset) DESC, t.id LIMIT 1) \
             FROM dataset_permissions p ORDER BY p.dataset, p.user_id"
        ))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<::duckdb::Result<_>>()?;
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut already, mut left) = (0, Vec::new());
    for (user, dataset, access, user_id, table) in rows {
        let reason = match (&user_id, &table) {
            (None, _) => "there is no such user",
            (_, None) => "no table has this id or name",
            _ if !matches!(access.as_str(), "read" | "write" | "admin" | "owner") => "it gives no access",
            (Some(user_id), Some(table)) => {
                let granted: i64 = conn.query_row(
                    "SELECT count(*) FROM resource_grants g JOIN user_group_members m ON m.group_id = g.group_id \
                     WHERE m.user_id = ? AND g.resource_type = 'table' AND lower(g.resource_id) = lower(?)",
                    [user_id, table],
                    |row| row.get(0),
                )?;
                if granted > 0 {
                    already += 1;
                } else {
                    wanted.entry(table.clone()).or_default().push(user_id.clone());
                }
                continue;
            }
        };
        left.push(json!({"user_id": user, "dataset": dataset, "access": access, "reason": reason}));
    }
    let mut groups = Vec::new();
    for (table, users) in wanted {
        let (group, name) = (new_id(), free_group_name(conn, &format!("Readers of {table}"))?);
        conn.execute(
            "INSERT INTO user_groups (id, name, description, is_system, created_at, created_by) VALUES (?, ?, ?, false, ?::TIMESTAMP, ?)",
            params![group, name, format!("Made from the dataset permissions of version {from}"), stamp(now), "system:migration"],
        )?;
        conn.execute(
            "INSERT INTO resource_grants (id, group_id, resource_type, resource_id, assigned_at, assigned_by) \
             VALUES (?, ?, 'table', ?, ?::TIMESTAMP, 'system:migration')",
            params![new_id(), group, table, stamp(now)],
        )?;
        for user in &users {
            add_member(conn, user, &group, now)?;
        }
        groups.push(json!({"group_id": group, "name": name, "table": table, "members": users}));
    }
    Ok(json!({"groups": groups, "already_granted": already, "not_turned_into_grants": left}))
}

fn free_group_name(conn: &Connection, wanted: &str) -> ::duckdb::Result<String> {
    let mut name = wanted.to_owned();
    for n in 2.. {
        let taken: i64 =
            conn.query_row("SELECT count(*) FROM user_groups WHERE lower(trim(name)) = lower(?)", [&name], |row| {
                row.get(0)
            })?;
        if taken == 0 {
            break;
        }
        name = format!("{wanted} ({n})");
    }
    Ok(name)
}

/// Tables that carry the `is_public` mark of older versions: nothing is open without a
/// grant, so an admin has to decide.
fn public_tables(conn: &Connection) -> ::duckdb::Result<Vec<String>> {
    if !has_column(conn, "table_registry", "is_public")? {
        return Ok(Vec::new());
    }
    conn.prepare("SELECT id FROM table_registry WHERE is_public ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Renames and makes the new name durable.
fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
        .and_then(|()| match to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        })
        .map_err(|e| Error::io("put the state in place", e))
}

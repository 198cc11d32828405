//! Rules of older versions, said anew: roles, permissions of people and public tables become
//! groups, members and grants. Who could read a table before can read it afterwards, and
//! nobody else.

use std::collections::{BTreeMap, BTreeSet};

use ::duckdb::{Connection, params};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::audit;
use super::migrate::columns;
use super::values::stamp;
use crate::rbac::{ADMIN_GROUP, EVERYONE_GROUP};
use crate::store::STATE_SCHEMA_VERSION;

/// Turns old rules into new ones; what it made is the report.
pub(super) fn turn(conn: &Connection, from: i32, now: DateTime<Utc>) -> ::duckdb::Result<serde_json::Value> {
    let addresses = fold_addresses(conn)?;
    let admins = admins_of_roles(conn, now)?;
    let permissions = grants_of_permissions(conn, from, now)?;
    let public = grants_of_public_tables(conn, now)?;
    let report = json!({
        "from": from,
        "to": STATE_SCHEMA_VERSION,
        "at": now,
        "addresses": addresses,
        "admins_from_roles": admins,
        "dataset_permissions": permissions,
        "public_tables_granted_to_everyone": public,
    });
    audit::tell(conn, "system:migration", "state.migrated", &report, now)?;
    Ok(report)
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
    let group = system_group(conn, ADMIN_GROUP, "May do everything", now)?;
    let mut made = Vec::new();
    for user in users {
        if add_member(conn, &user, &group, now)? {
            made.push(user);
        }
    }
    Ok(made)
}

/// The id of a system group, which is made when missing.
fn system_group(conn: &Connection, name: &str, description: &str, now: DateTime<Utc>) -> ::duckdb::Result<String> {
    let find = "SELECT coalesce(min(id), '') FROM user_groups WHERE name = ?";
    let found: String = conn.query_row(find, [name], |row| row.get(0))?;
    if found.is_empty() { add_group(conn, name, description, true, now) } else { Ok(found) }
}

fn add_group(
    conn: &Connection,
    name: &str,
    description: &str,
    system: bool,
    now: DateTime<Utc>,
) -> ::duckdb::Result<String> {
    let id = new_id();
    conn.execute(
        "INSERT INTO user_groups (id, name, description, is_system, created_at, created_by) \
         VALUES (?, ?, ?, ?, ?::TIMESTAMP, 'system:migration')",
        params![id, name, description, system, stamp(now)],
    )?;
    Ok(id)
}

fn add_grant(conn: &Connection, group: &str, table: &str, now: DateTime<Utc>) -> ::duckdb::Result<()> {
    conn.execute(
        "INSERT INTO resource_grants (id, group_id, resource_type, resource_id, assigned_at, assigned_by) \
         VALUES (?, ?, 'table', ?, ?::TIMESTAMP, 'system:migration')",
        params![new_id(), group, table, stamp(now)],
    )?;
    Ok(())
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
/// its table. `<bucket>.*` means every table of that bucket.
fn grants_of_permissions(conn: &Connection, from: i32, now: DateTime<Utc>) -> ::duckdb::Result<serde_json::Value> {
    if !has_column(conn, "dataset_permissions", "dataset")? {
        return Ok(json!({"groups": [], "already_granted": 0, "not_turned_into_grants": []}));
    }
    let access =
        if has_column(conn, "dataset_permissions", "access")? { "lower(trim(coalesce(access, '')))" } else { "'read'" };
    // User and dataset as they were written, access, then the user it means.
    type Row = (String, String, String, Option<String>);
    let rows: Vec<Row> = conn
        .prepare(&format!(
            "SELECT p.user_id, p.dataset, {access}, \
               (SELECT min(u.id) FROM users u WHERE u.id = p.user_id OR u.email = lower(trim(p.user_id))) \
             FROM dataset_permissions p ORDER BY p.dataset, p.user_id"
        ))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<::duckdb::Result<_>>()?;
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut already, mut left) = (0, Vec::new());
    for (user, dataset, access, user_id) in rows {
        let tables = tables_of(conn, &dataset)?;
        let reason = match &user_id {
            None => "there is no such user",
            Some(_) if tables.is_empty() => "no table has this id or name",
            Some(_) if !matches!(access.as_str(), "read" | "write" | "admin" | "owner") => "it gives no access",
            Some(user_id) => {
                for table in tables {
                    if is_granted(conn, user_id, &table)? {
                        already += 1;
                    } else {
                        wanted.entry(table).or_default().insert(user_id.clone());
                    }
                }
                continue;
            }
        };
        left.push(json!({"user_id": user, "dataset": dataset, "access": access, "reason": reason}));
    }
    let mut groups = Vec::new();
    for (table, users) in wanted {
        let name = free_group_name(conn, &format!("Readers of {table}"))?;
        let description = format!("Made from the dataset permissions of version {from}");
        let group = add_group(conn, &name, &description, false, now)?;
        add_grant(conn, &group, &table, now)?;
        for user in &users {
            add_member(conn, user, &group, now)?;
        }
        groups.push(json!({"group_id": group, "name": name, "table": table, "members": users}));
    }
    Ok(json!({"groups": groups, "already_granted": already, "not_turned_into_grants": left}))
}

/// The tables that a dataset of a permission means: the one with this id, else this name, or
/// all of a bucket.
fn tables_of(conn: &Connection, dataset: &str) -> ::duckdb::Result<Vec<String>> {
    let (filter, value) = match dataset.strip_suffix(".*") {
        Some(bucket) => ("t.bucket = $1 ORDER BY t.id", bucket),
        None => (
            "lower(t.id) = lower($1) OR lower(t.name) = lower($1) ORDER BY lower(t.id) = lower($1) DESC, t.id LIMIT 1",
            dataset,
        ),
    };
    conn.prepare(&format!("SELECT t.id FROM table_registry t WHERE {filter}"))?
        .query_map([value], |row| row.get(0))?
        .collect()
}

fn is_granted(conn: &Connection, user: &str, table: &str) -> ::duckdb::Result<bool> {
    let granted: i64 = conn.query_row(
        "SELECT count(*) FROM resource_grants g JOIN user_group_members m ON m.group_id = g.group_id \
         WHERE m.user_id = ? AND g.resource_type = 'table' AND lower(g.resource_id) = lower(?)",
        [user, table],
        |row| row.get(0),
    )?;
    Ok(granted > 0)
}

/// The mark `is_public` of older versions let every active user read a table, whatever the
/// permissions said. There is no such mark any more: the table is granted to Everyone, and
/// an admin sees that and may revoke it.
fn grants_of_public_tables(conn: &Connection, now: DateTime<Utc>) -> ::duckdb::Result<Vec<String>> {
    if !has_column(conn, "table_registry", "is_public")? {
        return Ok(Vec::new());
    }
    let public: Vec<String> = conn
        .prepare("SELECT id FROM table_registry WHERE is_public ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<::duckdb::Result<_>>()?;
    if public.is_empty() {
        return Ok(public);
    }
    let everyone = system_group(conn, EVERYONE_GROUP, "Every active user", now)?;
    for table in &public {
        let sql = "SELECT count(*) FROM resource_grants WHERE group_id = ? AND resource_type = 'table' AND lower(resource_id) = lower(?)";
        let there: i64 = conn.query_row(sql, [&everyone, table], |row| row.get(0))?;
        if there == 0 {
            add_grant(conn, &everyone, table, now)?;
        }
    }
    conn.execute(
        "INSERT INTO user_group_members (user_id, group_id, source, added_at, added_by) \
         SELECT id, ?, 'system_seed', ?::TIMESTAMP, 'system:migration' FROM users WHERE active ON CONFLICT DO NOTHING",
        params![everyone, stamp(now)],
    )?;
    Ok(public)
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

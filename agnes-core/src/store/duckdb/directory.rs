//! Memberships that come from the company's directory.

use std::collections::BTreeMap;

use ::duckdb::{Connection, OptionalExt, params};
use chrono::{DateTime, Utc};

use super::values::stamp;
use super::{Fail, access, refuse, users};
use crate::ident::printable;
use crate::identity::UserError;
use crate::rbac::{ADMIN_GROUP, AccessError, DIRECTORY_SYNC, DirectoryChange, DirectoryGroup};

/// Replaces the memberships of source `google_sync` of a user.
pub(super) fn replace(
    conn: &Connection,
    user_id: &str,
    groups: &[DirectoryGroup],
    now: DateTime<Utc>,
) -> Result<DirectoryChange, Fail> {
    if users::get(conn, user_id)?.is_none() {
        return refuse(UserError::NotFound { user: printable(user_id, 80) });
    }
    let mut change = DirectoryChange::default();
    let mut wanted = BTreeMap::new();
    for group in groups {
        match group_id(conn, group, now)? {
            Some(id) => drop(wanted.insert(id, group.name().to_owned())),
            None => change.ignored.push(group.name().to_owned()),
        }
    }
    let mine: Vec<(String, Option<String>)> = conn
        .prepare(
            "SELECT m.group_id, g.name FROM user_group_members m LEFT JOIN user_groups g ON g.id = m.group_id \
             WHERE m.user_id = ? AND m.source = 'google_sync'",
        )?
        .query_map([user_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<::duckdb::Result<_>>()?;
    // Only what differs is written: a row that goes and comes within one transaction is, to
    // DuckDB, there twice.
    for (id, name) in mine {
        if wanted.contains_key(&id) {
            continue;
        }
        if name.as_deref() == Some(ADMIN_GROUP) && access::only_admin(conn, user_id)? {
            return refuse(AccessError::LastAdmin);
        }
        conn.execute("DELETE FROM user_group_members WHERE user_id = ? AND group_id = ?", [user_id, &id])?;
        change.removed.push(name.unwrap_or(id));
    }
    for (id, name) in wanted {
        let added = conn.execute(
            "INSERT INTO user_group_members (user_id, group_id, source, added_at, added_by) \
             VALUES (?, ?, 'google_sync', ?::TIMESTAMP, ?) ON CONFLICT DO NOTHING",
            params![user_id, id, stamp(now), DIRECTORY_SYNC],
        )?;
        if added > 0 {
            change.added.push(name);
        }
    }
    change.added.sort();
    change.removed.sort();
    Ok(change)
}

/// The id of a group of the directory, made where it is missing; none for a name that an
/// admin gave to a group of their own.
fn group_id(conn: &Connection, group: &DirectoryGroup, now: DateTime<Utc>) -> Result<Option<String>, Fail> {
    let DirectoryGroup::Named(address) = group else {
        let sql = "SELECT id FROM user_groups WHERE is_system AND name = ?";
        return Ok(conn.query_row(sql, [group.name()], |row| row.get(0)).optional()?);
    };
    if let Some(known) = access::named_group(conn, address)? {
        return Ok(known.is_from_directory().then_some(known.id));
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    conn.execute(
        "INSERT INTO user_groups (id, name, is_system, created_at, created_by) VALUES (?, ?, false, ?::TIMESTAMP, ?)",
        params![id, address, stamp(now), DIRECTORY_SYNC],
    )?;
    Ok(Some(id))
}

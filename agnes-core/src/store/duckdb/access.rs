//! Groups, members and grants.

use std::sync::atomic::Ordering;

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::values::{stamp, stamp_opt, time};
use super::{Db, Fail, refuse, users};
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{UserError, is_service_account};
use crate::rbac::{
    ADMIN_GROUP, AccessError, AccessRepository, AccessSnapshot, DirectoryChange, DirectoryGroup, EVERYONE_GROUP, Grant,
    Group, Member, MemberSource, ResourceType, fold_resource_id,
};

pub(super) struct Access(pub(super) Db);

const GROUP: &str = "id, name, description, is_system, epoch_us(created_at), created_by";
const MEMBER: &str = "m.group_id, m.user_id, m.source, epoch_us(m.added_at), m.added_by";
const GRANT: &str = "g.id, g.group_id, g.resource_type, g.resource_id, epoch_us(g.assigned_at), g.assigned_by";

fn group(row: &Row<'_>) -> ::duckdb::Result<Group> {
    Ok(Group {
        id: row.get(0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        is_system: row.get::<_, Option<bool>>(3)?.unwrap_or(false),
        created_at: time(row.get(4)?),
        created_by: row.get(5)?,
    })
}

fn member(row: &Row<'_>) -> ::duckdb::Result<Member> {
    Ok(Member {
        group_id: row.get(0)?,
        user_id: row.get(1)?,
        source: MemberSource::from_stored(&row.get::<_, String>(2)?),
        added_at: time(row.get(3)?),
        added_by: row.get(4)?,
    })
}

/// A grant, or `None` for a type that this build does not know.
fn grant(row: &Row<'_>) -> ::duckdb::Result<Option<Grant>> {
    let Ok(resource_type) = ResourceType::parse(&row.get::<_, String>(2)?) else { return Ok(None) };
    Ok(Some(Grant {
        id: row.get(0)?,
        group_id: row.get(1)?,
        resource_type,
        resource_id: row.get(3)?,
        assigned_at: time(row.get(4)?),
        assigned_by: row.get(5)?,
    }))
}

pub(super) fn find_group(conn: &Connection, id: &str) -> ::duckdb::Result<Option<Group>> {
    conn.query_row(&format!("SELECT {GROUP} FROM user_groups WHERE id = ?"), [id], group).optional()
}

pub(super) fn named_group(conn: &Connection, name: &str) -> ::duckdb::Result<Option<Group>> {
    let sql = format!(
        "SELECT {GROUP} FROM user_groups WHERE lower(trim(name)) = lower(trim(?)) ORDER BY is_system DESC, id LIMIT 1"
    );
    conn.query_row(&sql, [name], group).optional()
}

fn no_group(id: &str) -> AccessError {
    AccessError::GroupNotFound { group: printable(id, 80) }
}

/// Makes a user a member of Everyone.
pub(super) fn seed_member(conn: &Connection, user_id: &str, now: Option<DateTime<Utc>>) -> ::duckdb::Result<()> {
    conn.execute(
        "INSERT INTO user_group_members (user_id, group_id, source, added_at) \
         SELECT ?, id, 'system_seed', ?::TIMESTAMP FROM user_groups WHERE name = ? ON CONFLICT DO NOTHING",
        params![user_id, stamp_opt(now), EVERYONE_GROUP],
    )?;
    Ok(())
}

/// Whether the pair is there.
pub(super) fn is_member(conn: &Connection, member: &Member) -> ::duckdb::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM user_group_members WHERE group_id = ? AND user_id = ?";
    conn.query_row(sql, [&member.group_id, &member.user_id], |row| row.get(0))
}

/// Adds a member; `false` when the pair is there.
pub(super) fn add_member(conn: &Connection, member: &Member) -> Result<bool, Fail> {
    if find_group(conn, &member.group_id)?.is_none() {
        return refuse(no_group(&member.group_id));
    }
    if users::get(conn, &member.user_id)?.is_none() {
        return refuse(UserError::NotFound { user: printable(&member.user_id, 80) });
    }
    let added = conn.execute(
        "INSERT INTO user_group_members (user_id, group_id, source, added_at, added_by) \
         VALUES (?, ?, ?, ?::TIMESTAMP, ?) ON CONFLICT DO NOTHING",
        params![member.user_id, member.group_id, member.source.as_str(), stamp_opt(member.added_at), member.added_by],
    )?;
    Ok(added > 0)
}

/// Inserts a grant, unless the group has it.
pub(super) fn insert_grant(conn: &Connection, grant: &Grant) -> Result<(), Fail> {
    let Some(group) = find_group(conn, &grant.group_id)? else { return refuse(no_group(&grant.group_id)) };
    let folded = fold_resource_id(grant.resource_type, &grant.resource_id);
    let same = match grant.resource_type {
        ResourceType::Table => "lower(resource_id)",
        _ => "resource_id",
    };
    let sql = format!("SELECT count(*) FROM resource_grants WHERE group_id = ? AND resource_type = ? AND {same} = ?");
    let taken: i64 =
        conn.query_row(&sql, params![grant.group_id, grant.resource_type.as_str(), folded], |row| row.get(0))?;
    if taken > 0 {
        return refuse(AccessError::GrantExists { group: group.name });
    }
    conn.execute(
        "INSERT INTO resource_grants (id, group_id, resource_type, resource_id, assigned_at, assigned_by) \
         VALUES (?, ?, ?, ?, ?::TIMESTAMP, ?)",
        params![
            grant.id,
            grant.group_id,
            grant.resource_type.as_str(),
            grant.resource_id,
            stamp_opt(grant.assigned_at),
            grant.assigned_by
        ],
    )?;
    Ok(())
}

/// Whether `user_id` is an active Admin and no other active person is.
pub(super) fn only_admin(conn: &Connection, user_id: &str) -> ::duckdb::Result<bool> {
    // Service accounts are no people.
    let sql = "SELECT count(*) FILTER (u.id = ?), count(*) FILTER (u.id <> ? AND NOT u.email ILIKE '%@system.local') \
               FROM user_group_members m JOIN user_groups g ON g.id = m.group_id JOIN users u ON u.id = m.user_id \
               WHERE g.name = ? AND u.active";
    let (mine, others): (i64, i64) =
        conn.query_row(sql, params![user_id, user_id, ADMIN_GROUP], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(mine > 0 && others == 0)
}

#[async_trait]
impl AccessRepository for Access {
    async fn seed_system_groups(&self, now: DateTime<Utc>) -> Result<()> {
        self.0
            .write_access("seed the system groups", move |conn| {
                for (name, description) in [(ADMIN_GROUP, "May do everything"), (EVERYONE_GROUP, "Every active user")] {
                    // Exactly this name: a group `admin` that somebody made must not become the Admins.
                    let promoted = conn.execute("UPDATE user_groups SET is_system = true WHERE name = ?", [name])?;
                    match promoted {
                        1.. => {}
                        0 => {
                            let id = uuid::Uuid::new_v4().simple().to_string();
                            conn.execute(
                                "INSERT INTO user_groups (id, name, description, is_system, created_at) VALUES (?, ?, ?, true, ?::TIMESTAMP)",
                                params![id, name, description, stamp(now)],
                            )?;
                        }
                    }
                }
                conn.execute(
                    "INSERT INTO user_group_members (user_id, group_id, source, added_at) \
                     SELECT u.id, g.id, 'system_seed', ?::TIMESTAMP FROM users u, user_groups g WHERE u.active AND g.name = ? \
                     ON CONFLICT DO NOTHING",
                    params![stamp(now), EVERYONE_GROUP],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.0
            .read("list the groups", |conn| {
                let sql = format!("SELECT {GROUP} FROM user_groups ORDER BY coalesce(is_system, false) DESC, name");
                conn.prepare(&sql)?.query_map([], group)?.collect()
            })
            .await
    }

    async fn group(&self, id: &str) -> Result<Option<Group>> {
        let id = id.to_owned();
        self.0.read("read a group", move |conn| find_group(conn, &id)).await
    }

    async fn group_by_name(&self, name: &str) -> Result<Option<Group>> {
        let name = name.to_owned();
        self.0.read("read a group", move |conn| named_group(conn, &name)).await
    }

    async fn insert_group(&self, group: &Group) -> Result<()> {
        let group = group.clone();
        self.0
            .write_access("add a group", move |conn| {
                if named_group(conn, &group.name)?.is_some() {
                    return refuse(AccessError::GroupExists { name: group.name });
                }
                conn.execute(
                    "INSERT INTO user_groups (id, name, description, is_system, created_at, created_by) \
                     VALUES (?, ?, ?, ?, ?::TIMESTAMP, ?)",
                    params![
                        group.id,
                        group.name,
                        group.description,
                        group.is_system,
                        stamp_opt(group.created_at),
                        group.created_by
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn update_group(&self, id: &str, name: &str, description: Option<&str>) -> Result<Group> {
        let (id, name, description) = (id.to_owned(), name.trim().to_owned(), description.map(str::to_owned));
        self.0
            .write_access("change a group", move |conn| {
                let Some(before) = find_group(conn, &id)? else { return refuse(no_group(&id)) };
                if before.is_system && before.name != name {
                    return refuse(AccessError::SystemGroupRename { name: before.name });
                }
                if named_group(conn, &name)?.is_some_and(|other| other.id != id) {
                    return refuse(AccessError::GroupExists { name });
                }
                // A unique column that stays the same must not be written: DuckDB would see it twice.
                if before.name != name {
                    conn.execute("UPDATE user_groups SET name = ? WHERE id = ?", params![name, id])?;
                }
                conn.execute("UPDATE user_groups SET description = ? WHERE id = ?", params![description, id])?;
                find_group(conn, &id)?.map_or_else(|| refuse(no_group(&id)), Ok)
            })
            .await
    }

    async fn delete_group(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0
            .write_access("delete a group", move |conn| {
                let Some(group) = find_group(conn, &id)? else { return refuse(no_group(&id)) };
                if group.is_system {
                    return refuse(AccessError::SystemGroupDelete { name: group.name });
                }
                conn.execute("DELETE FROM user_group_members WHERE group_id = ?", [&id])?;
                conn.execute("DELETE FROM resource_grants WHERE group_id = ?", [&id])?;
                super::policies::delete_of_group(conn, &id)?;
                conn.execute("DELETE FROM user_groups WHERE id = ?", [&id])?;
                Ok(())
            })
            .await
    }

    async fn members(&self, group_id: &str) -> Result<Vec<Member>> {
        let id = group_id.to_owned();
        self.0
            .read("list the members of a group", move |conn| {
                let sql = format!(
                    "SELECT {MEMBER} FROM user_group_members m LEFT JOIN users u ON u.id = m.user_id \
                     WHERE m.group_id = ? ORDER BY u.email NULLS LAST, m.user_id"
                );
                conn.prepare(&sql)?.query_map([id], member)?.collect()
            })
            .await
    }

    async fn memberships(&self, user_id: &str) -> Result<Vec<Member>> {
        let id = user_id.to_owned();
        self.0
            .read("list the groups of a user", move |conn| {
                let sql = format!(
                    "SELECT {MEMBER} FROM user_group_members m JOIN user_groups g ON g.id = m.group_id \
                     WHERE m.user_id = ? ORDER BY g.name, g.id"
                );
                conn.prepare(&sql)?.query_map([id], member)?.collect()
            })
            .await
    }

    async fn add_member(&self, member: &Member) -> Result<bool> {
        let member = member.clone();
        self.0.write_access("add a member", move |conn| add_member(conn, &member)).await
    }

    async fn remove_member(&self, group_id: &str, user_id: &str) -> Result<()> {
        let (group_id, user_id) = (group_id.to_owned(), user_id.to_owned());
        self.0
            .write_access("remove a member", move |conn| {
                let source: Option<String> = conn
                    .query_row(
                        "SELECT source FROM user_group_members WHERE group_id = ? AND user_id = ?",
                        [&group_id, &user_id],
                        |row| row.get(0),
                    )
                    .optional()?;
                match source.as_deref().map(MemberSource::from_stored) {
                    None | Some(MemberSource::GoogleSync) => return refuse(AccessError::NoRemovableMembership),
                    Some(_) => {}
                }
                let admins = find_group(conn, &group_id)?.is_some_and(|group| group.name == ADMIN_GROUP);
                if admins && users::get(conn, &user_id)?.is_some_and(|user| is_service_account(&user.email)) {
                    return refuse(UserError::ServiceAccount);
                }
                if admins && only_admin(conn, &user_id)? {
                    return refuse(AccessError::LastAdmin);
                }
                conn.execute(
                    "DELETE FROM user_group_members WHERE group_id = ? AND user_id = ?",
                    [&group_id, &user_id],
                )?;
                Ok(())
            })
            .await
    }

    async fn replace_directory_groups(
        &self,
        user_id: &str,
        groups: &[DirectoryGroup],
        now: DateTime<Utc>,
    ) -> Result<DirectoryChange> {
        let (user_id, groups) = (user_id.to_owned(), groups.to_vec());
        let moved = |inner: &super::Inner, done: &Result<DirectoryChange>| {
            if !done.as_ref().is_ok_and(DirectoryChange::is_empty) {
                inner.revision.fetch_add(1, Ordering::SeqCst);
            }
        };
        let replace = move |conn: &Connection| super::directory::replace(conn, &user_id, &groups, now);
        self.0.write_then("set the directory groups of a user", replace, moved).await
    }

    async fn settle_seeded_admin(&self, user_id: &str) -> Result<()> {
        let user_id = user_id.to_owned();
        // No decision depends on the source.
        self.0
            .write("settle a seeded Admin", move |conn| {
                conn.execute(
                    "UPDATE user_group_members SET source = 'admin' WHERE user_id = ? AND source = 'system_seed' \
                     AND group_id IN (SELECT id FROM user_groups WHERE is_system AND name = ?)",
                    params![user_id, ADMIN_GROUP],
                )?;
                Ok(())
            })
            .await
    }

    async fn grants(&self, group_id: Option<&str>) -> Result<Vec<Grant>> {
        let group_id = group_id.map(str::to_owned);
        self.0
            .read("list the grants", move |conn| {
                let sql = format!(
                    "SELECT {GRANT} FROM resource_grants g LEFT JOIN user_groups u ON u.id = g.group_id \
                     WHERE ? IS NULL OR g.group_id = ? ORDER BY u.name, g.resource_type, g.resource_id"
                );
                let rows: Vec<Option<Grant>> = conn
                    .prepare(&sql)?
                    .query_map(params![group_id, group_id], grant)?
                    .collect::<::duckdb::Result<_>>()?;
                Ok(rows.into_iter().flatten().collect())
            })
            .await
    }

    async fn insert_grant(&self, grant: &Grant) -> Result<()> {
        let grant = grant.clone();
        self.0.write_access("add a grant", move |conn| insert_grant(conn, &grant)).await
    }

    async fn delete_grant(&self, id: &str) -> Result<Grant> {
        let id = id.to_owned();
        self.0
            .write_access("delete a grant", move |conn| {
                let sql = format!("SELECT {GRANT} FROM resource_grants g WHERE g.id = ?");
                let Some(Some(found)) = conn.query_row(&sql, [&id], grant).optional()? else {
                    return refuse(AccessError::GrantNotFound { grant: printable(&id, 80) });
                };
                conn.execute("DELETE FROM resource_grants WHERE id = ?", [&id])?;
                Ok(found)
            })
            .await
    }

    async fn delete_grants_of(&self, resource_type: ResourceType, resource_id: &str) -> Result<usize> {
        let folded = fold_resource_id(resource_type, resource_id);
        self.0
            .write_access("delete the grants of a resource", move |conn| {
                let same = if resource_type == ResourceType::Table { "lower(resource_id)" } else { "resource_id" };
                let sql = format!("DELETE FROM resource_grants WHERE resource_type = ? AND {same} = ?");
                Ok(conn.execute(&sql, params![resource_type.as_str(), folded])?)
            })
            .await
    }

    async fn snapshot(&self) -> Result<AccessSnapshot> {
        // Read before the rows: a change in between makes the next call read again.
        let revision = self.0.inner.revision.load(Ordering::SeqCst);
        let (mut snapshot, policies) = self
            .0
            .read("read who may what", move |conn| {
                let mut snapshot = AccessSnapshot { revision, ..AccessSnapshot::default() };
                let mut statement = conn.prepare("SELECT id, email FROM users WHERE active")?;
                for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
                    let (id, email): (String, String) = row?;
                    snapshot.active_users.insert(id, email);
                }
                let mut statement = conn.prepare(&format!("SELECT {GROUP} FROM user_groups"))?;
                for row in statement.query_map([], group)? {
                    let group = row?;
                    if group.is_system && group.name == ADMIN_GROUP {
                        snapshot.admin_group = Some(group.id.clone());
                    }
                    snapshot.groups.insert(group.id.clone(), group);
                }
                let mut statement = conn.prepare("SELECT user_id, group_id, source FROM user_group_members")?;
                for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
                    let (user, group, source): (String, String, String) = row?;
                    if MemberSource::from_stored(&source) == MemberSource::GoogleSync {
                        snapshot.from_directory.insert(user.clone());
                    }
                    snapshot.groups_of.entry(user).or_default().insert(group);
                }
                let mut statement = conn.prepare(&format!("SELECT {GRANT} FROM resource_grants g ORDER BY g.id"))?;
                for row in statement.query_map([], grant)? {
                    let Some(grant) = row? else { continue };
                    let id = fold_resource_id(grant.resource_type, &grant.resource_id);
                    snapshot
                        .granted_to
                        .entry((grant.group_id.clone(), grant.resource_type))
                        .or_default()
                        .insert(id.clone());
                    snapshot.grants.entry((grant.resource_type, id)).or_default().push((grant.group_id, grant.id));
                }
                Ok((snapshot, super::policies::all(conn)?))
            })
            .await?;
        for policy in policies {
            // One that cannot be read stops every decision: without it too much would be open.
            let policy = policy?;
            snapshot.policies.entry(policy.table_id.clone()).or_default().push(policy);
        }
        Ok(snapshot)
    }
}

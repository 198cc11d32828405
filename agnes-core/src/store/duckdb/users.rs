//! Users.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::access::{add_member, only_admin, seed_member};
use super::values::{stamp, stamp_opt, time};
use super::{Db, Fail, refuse};
use crate::error::Result;
use crate::identity::{User, UserChange, UserError, UserRepository, is_service_account};
use crate::rbac::{AccessError, Member};

pub(super) struct Users(pub(super) Db);

const COLUMNS: &str = "id, email, name, active, epoch_us(deactivated_at), deactivated_by, epoch_us(created_at), \
                       epoch_us(updated_at), onboarded, epoch_us(last_pull_at)";

fn user(row: &Row<'_>) -> ::duckdb::Result<User> {
    Ok(User {
        id: row.get(0)?,
        email: row.get(1)?,
        name: row.get(2)?,
        active: row.get::<_, Option<bool>>(3)?.unwrap_or(false),
        deactivated_at: time(row.get(4)?),
        deactivated_by: row.get(5)?,
        created_at: time(row.get(6)?),
        updated_at: time(row.get(7)?),
        onboarded: row.get::<_, Option<bool>>(8)?.unwrap_or(false),
        last_pull_at: time(row.get(9)?),
    })
}

pub(super) fn get(conn: &Connection, id: &str) -> ::duckdb::Result<Option<User>> {
    conn.query_row(&format!("SELECT {COLUMNS} FROM users WHERE id = ?"), [id], user).optional()
}

/// The row alone: no check, no membership.
pub(super) fn insert(conn: &Connection, user: &User) -> ::duckdb::Result<()> {
    conn.execute(
        "INSERT INTO users (id, email, name, active, deactivated_at, deactivated_by, created_at, updated_at, onboarded, \
         last_pull_at) VALUES (?, ?, ?, ?, ?::TIMESTAMP, ?, ?::TIMESTAMP, ?::TIMESTAMP, ?, ?::TIMESTAMP)",
        params![
            user.id,
            user.email,
            user.name,
            user.active,
            stamp_opt(user.deactivated_at),
            user.deactivated_by,
            stamp_opt(user.created_at),
            stamp_opt(user.updated_at),
            user.onboarded,
            stamp_opt(user.last_pull_at),
        ],
    )
    .map(drop)
}

fn missing(id: &str) -> UserError {
    UserError::NotFound { user: crate::ident::printable(id, 80) }
}

#[async_trait]
impl UserRepository for Users {
    async fn insert_with(&self, user: &User, members: &[Member]) -> Result<()> {
        let (user, members) = (user.clone(), members.to_vec());
        self.0
            .write_access("add a user", move |conn| {
                let sql = "SELECT coalesce(bool_or(active), false) FROM users WHERE lower(trim(email)) = lower(trim(?)) HAVING count(*) > 0";
                let taken: Option<bool> = conn.query_row(sql, [&user.email], |row| row.get(0)).optional()?;
                if let Some(active) = taken {
                    return refuse(UserError::Exists { email: user.email, active });
                }
                insert(conn, &user)?;
                if user.active {
                    seed_member(conn, &user.id, user.created_at)?;
                }
                for member in &members {
                    add_member(conn, member)?;
                }
                Ok(())
            })
            .await
    }

    async fn get(&self, id: &str) -> Result<Option<User>> {
        let id = id.to_owned();
        self.0.read("read a user", move |conn| get(conn, &id)).await
    }

    async fn by_email(&self, email: &str) -> Result<Option<User>> {
        let email = email.to_owned();
        self.0
            .read("read a user", move |conn| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM users WHERE lower(trim(email)) = lower(trim(?)) ORDER BY id LIMIT 1"
                );
                conn.query_row(&sql, [email], user).optional()
            })
            .await
    }

    async fn list(&self) -> Result<Vec<User>> {
        self.0
            .read("list the users", |conn| {
                conn.prepare(&format!("SELECT {COLUMNS} FROM users ORDER BY email, id"))?.query_map([], user)?.collect()
            })
            .await
    }

    async fn update(&self, id: &str, change: &UserChange, now: DateTime<Utc>) -> Result<User> {
        let (id, change) = (id.to_owned(), change.clone());
        self.0
            .write_access("change a user", move |conn| {
                conn.execute(
                    "UPDATE users SET name = coalesce(?, name), onboarded = coalesce(?, onboarded), updated_at = ?::TIMESTAMP \
                     WHERE id = ?",
                    params![change.name, change.onboarded, stamp(now), id],
                )?;
                get(conn, &id)?.map_or_else(|| refuse(missing(&id)), Ok)
            })
            .await
    }

    async fn set_active(&self, id: &str, active: bool, by: &str, now: DateTime<Utc>) -> Result<User> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.0
            .write_access("change a user", move |conn| {
                let Some(before) = get(conn, &id)? else { return refuse(missing(&id)) };
                if !active && is_service_account(&before.email) {
                    return refuse(UserError::ServiceAccount);
                }
                if before.active && !active && only_admin(conn, &id)? {
                    return refuse(AccessError::LastAdmin);
                }
                let (at, who) = if active { (None, None) } else { (Some(stamp(now)), Some(by)) };
                conn.execute(
                    "UPDATE users SET active = ?, deactivated_at = ?::TIMESTAMP, deactivated_by = ?, updated_at = ?::TIMESTAMP \
                     WHERE id = ?",
                    params![active, at, who, stamp(now), id],
                )?;
                if active {
                    seed_member(conn, &id, Some(now))?;
                }
                get(conn, &id)?.map_or_else(|| refuse(missing(&id)), Ok)
            })
            .await
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0
            .write_access("delete a user", move |conn| {
                let Some(user) = get(conn, &id)? else { return refuse(missing(&id)) };
                if is_service_account(&user.email) {
                    return refuse(UserError::ServiceAccount);
                }
                if only_admin(conn, &id)? {
                    return refuse(AccessError::LastAdmin);
                }
                for table in [
                    "user_group_members",
                    "personal_access_tokens",
                    "desktop_tokens",
                    "one_shot_codes",
                    "oauth_codes",
                    "access_requests",
                    "user_sync_settings",
                    "user_plugin_optouts",
                    "user_store_installs",
                    "user_observability_views",
                    "telegram_links",
                ] {
                    conn.execute(&format!("DELETE FROM {table} WHERE user_id = ?"), [&id])?;
                }
                conn.execute("DELETE FROM users WHERE id = ?", [&id])?;
                Ok(())
            })
            .await
    }

    async fn touch_last_pull(&self, id: &str, now: DateTime<Utc>) -> Result<()> {
        let id = id.to_owned();
        self.0
            .write("record a pull", move |conn| {
                conn.execute("UPDATE users SET last_pull_at = ?::TIMESTAMP WHERE id = ?", params![stamp(now), id])?;
                Ok::<_, Fail>(())
            })
            .await
    }
}

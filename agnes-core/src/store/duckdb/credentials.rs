//! Passwords, one-shot tokens and codes, ended sessions.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::access::seed_member;
use super::values::{stamp, stamp_opt, time};
use super::{Db, Fail, refuse, tokens, users};
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{
    Account, CodePurpose, CredentialRepository, CredentialSnapshot, OneShotCode, PasswordChange, User, UserError,
    UserToken,
};
use crate::rbac::ADMIN_GROUP;
use crate::secret::Secret;

pub(super) struct Credentials(pub(super) Db);

/// An active person with a password, or an active Admin whom nobody but Agnes made one.
const OPEN: &str = "SELECT count(*) = 0 FROM users u WHERE NOT u.email ILIKE '%@system.local' AND (\
                    coalesce(u.password_hash, '') <> '' OR u.active AND EXISTS (SELECT 1 FROM user_group_members m \
                    JOIN user_groups g ON g.id = m.group_id WHERE m.user_id = u.id AND g.name = ? AND m.source <> 'system_seed'))";

/// The column of a one-shot token; its time is in `<column>_created`.
fn column(kind: UserToken) -> &'static str {
    match kind {
        UserToken::Setup => "setup_token",
        UserToken::Reset => "reset_token",
        UserToken::Login => "login_token",
    }
}

fn account(row: &Row<'_>) -> ::duckdb::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        email: row.get::<_, String>(1)?,
        name: row.get(2)?,
        active: row.get::<_, Option<bool>>(3)?.unwrap_or(false),
        onboarded: row.get::<_, Option<bool>>(4)?.unwrap_or(false),
        last_pull_at: time(row.get(5)?),
        password_hash: row.get::<_, Option<String>>(6)?.map(Secret::new),
        must_change_password: row.get::<_, Option<bool>>(7)?.unwrap_or(false),
        sessions_valid_after: time(row.get(8)?),
        kept_session: row.get(9)?,
    })
}

fn code(row: &Row<'_>, purpose: CodePurpose) -> ::duckdb::Result<OneShotCode> {
    Ok(OneShotCode {
        code_hash: row.get(0)?,
        purpose,
        user_id: row.get(1)?,
        created_at: time(row.get(2)?).unwrap_or(DateTime::UNIX_EPOCH),
        expires_at: time(row.get(3)?).unwrap_or(DateTime::UNIX_EPOCH),
    })
}

fn missing(id: &str) -> UserError {
    UserError::NotFound { user: printable(id, 80) }
}

/// Assignments of a password change: five values, `name` and sessions as they are where
/// nothing is said of them.
const CHANGE: &str = "password_hash = ?, must_change_password = ?, name = coalesce(?, name), \
                      sessions_valid_after = coalesce(?::TIMESTAMP, sessions_valid_after), kept_session = ?, \
                      setup_token = NULL, setup_token_created = NULL, reset_token = NULL, reset_token_created = NULL, \
                      login_token = NULL, login_token_created = NULL, updated_at = ?::TIMESTAMP";

#[async_trait]
impl CredentialRepository for Credentials {
    async fn snapshot(&self) -> Result<CredentialSnapshot> {
        // Read before the rows: a change in between makes the next call read again.
        let revision = self.0.inner.credential_revision();
        self.0
            .read("read who may sign in", move |conn| {
                let mut statement = conn.prepare(
                    "SELECT id, email, name, active, onboarded, epoch_us(last_pull_at), nullif(password_hash, ''), \
                     must_change_password, epoch_us(sessions_valid_after), kept_session FROM users",
                )?;
                let accounts = statement.query_map([], account)?.map(|row| row.map(|row| (row.id.clone(), row)));
                let mut snapshot = CredentialSnapshot::of(revision, accounts.collect::<::duckdb::Result<_>>()?);
                for (kind, token) in tokens::all(conn)? {
                    snapshot.tokens.insert((kind, token.id.clone()), token);
                }
                let mut statement = conn.prepare("SELECT jti FROM revoked_sessions")?;
                for row in statement.query_map([], |row| row.get(0))? {
                    snapshot.ended.insert(row?);
                }
                Ok(snapshot)
            })
            .await
    }

    async fn rehash(&self, user_id: &str, old: &str, new: &str) -> Result<()> {
        let (id, old, new) = (user_id.to_owned(), old.to_owned(), new.to_owned());
        self.0
            .write_credentials("strengthen a password's hash", move |conn| {
                conn.execute("UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?", [new, id, old])?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn set_password(&self, user_id: &str, change: &PasswordChange, now: DateTime<Utc>) -> Result<()> {
        let (id, c) = (user_id.to_owned(), change.clone());
        self.0
            .write_credentials("set a password", move |conn| {
                let values =
                    params![c.hash, c.must_change, c.name, stamp_opt(c.end_sessions), c.keep_session, stamp(now), id];
                match conn.execute(&format!("UPDATE users SET {CHANGE} WHERE id = ?"), values)? {
                    0 => refuse(missing(&id)),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn set_user_token(&self, user_id: &str, kind: UserToken, hash: &str, now: DateTime<Utc>) -> Result<()> {
        let (id, hash, column) = (user_id.to_owned(), hash.to_owned(), column(kind));
        self.0
            .write("keep a one-shot token", move |conn| {
                let sql = format!("UPDATE users SET {column} = ?, {column}_created = ?::TIMESTAMP WHERE id = ?");
                match conn.execute(&sql, params![hash, stamp(now), id])? {
                    0 => refuse(missing(&id)),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn owner_of_user_token(
        &self,
        email: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
    ) -> Result<Option<String>> {
        let (email, hash, column) = (email.to_owned(), hash.to_owned(), column(kind));
        self.0
            .read("look a one-shot token up", move |conn| {
                let sql = format!(
                    "SELECT id FROM users WHERE lower(trim(email)) = lower(trim(?)) AND {column} = ? \
                     AND {column}_created > ?::TIMESTAMP"
                );
                conn.query_row(&sql, params![email, hash, stamp(made_after)], |row| row.get(0)).optional()
            })
            .await
    }

    async fn consume_user_token(
        &self,
        user_id: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
        change: Option<&PasswordChange>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let (id, hash, column) = (user_id.to_owned(), hash.to_owned(), column(kind));
        let change = change.cloned();
        self.0
            .write_credentials("take a one-shot token", move |conn| {
                let matches = format!("id = ? AND {column} = ? AND {column}_created > ?::TIMESTAMP AND active");
                let made_after = stamp(made_after);
                let taken = match change {
                    Some(c) => conn.execute(
                        &format!("UPDATE users SET {CHANGE} WHERE {matches}"),
                        params![
                            c.hash,
                            c.must_change,
                            c.name,
                            stamp_opt(c.end_sessions),
                            c.keep_session,
                            stamp(now),
                            id,
                            hash,
                            made_after
                        ],
                    )?,
                    None => conn.execute(
                        &format!("UPDATE users SET {column} = NULL, {column}_created = NULL WHERE {matches}"),
                        params![id, hash, made_after],
                    )?,
                };
                Ok(taken == 1)
            })
            .await
    }

    async fn end_session(&self, session: &str, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<()> {
        let session = session.to_owned();
        self.0
            .write_credentials("end a session", move |conn| {
                conn.execute("DELETE FROM revoked_sessions WHERE exp < ?::TIMESTAMP", [stamp(now)])?;
                conn.execute(
                    "INSERT INTO revoked_sessions (jti, exp) VALUES (?, ?::TIMESTAMP) ON CONFLICT DO NOTHING",
                    [session, stamp(expires_at)],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn end_sessions(&self, user_id: &str, keep: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let (id, keep) = (user_id.to_owned(), keep.map(str::to_owned));
        self.0
            .write_credentials("end the sessions of a user", move |conn| {
                let sql = "UPDATE users SET sessions_valid_after = ?::TIMESTAMP, kept_session = ? WHERE id = ?";
                match conn.execute(sql, params![stamp(now), keep, id])? {
                    0 => refuse(missing(&id)),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn insert_code(&self, code: &OneShotCode) -> Result<()> {
        let code = code.clone();
        self.0
            .write("keep a one-shot code", move |conn| {
                conn.execute("DELETE FROM one_shot_codes WHERE expires_at < ?::TIMESTAMP", [stamp(code.created_at)])?;
                if code.purpose == CodePurpose::Bootstrap {
                    conn.execute("DELETE FROM one_shot_codes WHERE purpose = ?", [code.purpose.as_str()])?;
                }
                conn.execute(
                    "INSERT INTO one_shot_codes (code_hash, purpose, user_id, created_at, expires_at) \
                     VALUES (?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP)",
                    params![
                        code.code_hash,
                        code.purpose.as_str(),
                        code.user_id,
                        stamp(code.created_at),
                        stamp(code.expires_at)
                    ],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn consume_code(&self, hash: &str, purpose: CodePurpose, now: DateTime<Utc>) -> Result<Option<OneShotCode>> {
        let hash = hash.to_owned();
        self.0
            .write("take a one-shot code", move |conn| {
                let sql = "DELETE FROM one_shot_codes WHERE code_hash = ? AND purpose = ? AND expires_at > ?::TIMESTAMP \
                           RETURNING code_hash, user_id, epoch_us(created_at), epoch_us(expires_at)";
                let taken = conn
                    .query_row(sql, params![hash, purpose.as_str(), stamp(now)], |row| code(row, purpose))
                    .optional()?;
                Ok::<_, Fail>(taken)
            })
            .await
    }

    async fn bootstrap_open(&self) -> Result<bool> {
        self.0.read("see whether there is an Admin", |conn| conn.query_row(OPEN, [ADMIN_GROUP], |row| row.get(0))).await
    }

    async fn bootstrap(&self, user: &User, password_hash: Option<&str>, now: DateTime<Utc>) -> Result<Option<User>> {
        let (user, hash) = (user.clone(), password_hash.map(str::to_owned));
        self.0
            .write_access("make the first Admin", move |conn| {
                if !conn.query_row(OPEN, [ADMIN_GROUP], |row| row.get::<_, bool>(0))? {
                    return Ok(None);
                }
                let id = first_admin(conn, &user, now)?;
                if let Some(hash) = hash {
                    conn.execute("UPDATE users SET password_hash = ? WHERE id = ?", [&hash, &id])?;
                }
                conn.execute(
                    "INSERT INTO user_group_members (user_id, group_id, source, added_at, added_by) \
                     SELECT ?, id, 'admin', ?::TIMESTAMP, 'bootstrap' FROM user_groups WHERE name = ? \
                     ON CONFLICT DO UPDATE SET source = 'admin', added_by = 'bootstrap'",
                    params![id, stamp(now), ADMIN_GROUP],
                )?;
                Ok(users::get(conn, &id)?)
            })
            .await
    }
}

/// Inserts `user`, or activates who has that address; their id.
fn first_admin(conn: &Connection, user: &User, now: DateTime<Utc>) -> Result<String, Fail> {
    let known: Option<String> = conn
        .query_row(
            "SELECT id FROM users WHERE lower(trim(email)) = lower(trim(?)) ORDER BY id LIMIT 1",
            [&user.email],
            |row| row.get(0),
        )
        .optional()?;
    let id = match known {
        Some(id) => {
            conn.execute(
                "UPDATE users SET active = true, deactivated_at = NULL, deactivated_by = NULL, updated_at = ?::TIMESTAMP WHERE id = ?",
                params![stamp(now), id],
            )?;
            id
        }
        None => {
            users::insert(conn, user)?;
            user.id.clone()
        }
    };
    seed_member(conn, &id, Some(now))?;
    Ok(id)
}

//! Personal access tokens and tokens of desktop applications.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::values::{stamp, stamp_opt, time};
use super::{Db, Fail, refuse, users};
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{StoredToken, TokenKind, TokenRepository, UserError};
use crate::rbac::Scope;

pub(super) struct Tokens(pub(super) Db);

const COLUMNS: &str = "id, user_id, name, prefix, token_hash, scopes, epoch_us(created_at), epoch_us(expires_at), \
                       epoch_us(last_used_at), last_used_ip, epoch_us(revoked_at), revoked_by";

fn table(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Personal => "personal_access_tokens",
        TokenKind::Desktop => "desktop_tokens",
    }
}

fn token(row: &Row<'_>) -> ::duckdb::Result<StoredToken> {
    Ok(StoredToken {
        id: row.get(0)?,
        user_id: row.get(1)?,
        name: row.get(2)?,
        prefix: row.get(3)?,
        token_hash: row.get(4)?,
        // Tokens from before scopes may do what their user may.
        scope: row.get::<_, Option<String>>(5)?.unwrap_or_else(|| Scope::General.as_str().to_owned()),
        created_at: time(row.get(6)?),
        expires_at: time(row.get(7)?),
        last_used_at: time(row.get(8)?),
        last_used_ip: row.get(9)?,
        revoked_at: time(row.get(10)?),
        revoked_by: row.get(11)?,
    })
}

/// Every token of every kind.
pub(super) fn all(conn: &Connection) -> ::duckdb::Result<Vec<(TokenKind, StoredToken)>> {
    let mut found = Vec::new();
    for kind in [TokenKind::Personal, TokenKind::Desktop] {
        let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM {}", table(kind)))?;
        for row in statement.query_map([], token)? {
            found.push((kind, row?));
        }
    }
    Ok(found)
}

#[async_trait]
impl TokenRepository for Tokens {
    async fn insert(&self, kind: TokenKind, token: &StoredToken) -> Result<()> {
        let t = token.clone();
        self.0
            .write_credentials("keep a token", move |conn| {
                if users::get(conn, &t.user_id)?.is_none() {
                    return refuse(UserError::NotFound { user: printable(&t.user_id, 80) });
                }
                conn.execute(
                    &format!(
                        "INSERT INTO {} (id, user_id, name, prefix, token_hash, scopes, created_at, expires_at) \
                         VALUES (?, ?, ?, ?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP)",
                        table(kind)
                    ),
                    params![
                        t.id,
                        t.user_id,
                        t.name,
                        t.prefix,
                        t.token_hash,
                        t.scope,
                        stamp_opt(t.created_at),
                        stamp_opt(t.expires_at)
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn list(&self, kind: TokenKind, user_id: Option<&str>) -> Result<Vec<StoredToken>> {
        let user_id = user_id.map(str::to_owned);
        self.0
            .read("list tokens", move |conn| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM {} WHERE ? IS NULL OR user_id = ? ORDER BY created_at DESC, id",
                    table(kind)
                );
                conn.prepare(&sql)?.query_map(params![user_id, user_id], token)?.collect()
            })
            .await
    }

    async fn revoke(&self, kind: TokenKind, id: &str, by: &str, now: DateTime<Utc>) -> Result<bool> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.0
            .write_credentials("revoke a token", move |conn| {
                let table = table(kind);
                conn.execute(
                    &format!("UPDATE {table} SET revoked_at = ?::TIMESTAMP, revoked_by = ? WHERE id = ? AND revoked_at IS NULL"),
                    params![stamp(now), by, id],
                )?;
                let there: i64 =
                    conn.query_row(&format!("SELECT count(*) FROM {table} WHERE id = ?"), [id], |row| row.get(0))?;
                Ok::<_, Fail>(there > 0)
            })
            .await
    }

    async fn touch(
        &self,
        kind: TokenKind,
        id: &str,
        ip: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Option<Option<String>>> {
        let (id, ip) = (id.to_owned(), ip.map(str::to_owned));
        self.0
            .write("note the use of a token", move |conn| {
                let table = table(kind);
                let before: Option<(bool, Option<String>)> = conn
                    .query_row(
                        &format!("SELECT last_used_at IS NOT NULL, last_used_ip FROM {table} WHERE id = ?"),
                        [&id],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?;
                conn.execute(
                    &format!("UPDATE {table} SET last_used_at = ?::TIMESTAMP, last_used_ip = coalesce(?, last_used_ip) WHERE id = ?"),
                    params![stamp(now), ip, id],
                )?;
                Ok::<_, Fail>(before.filter(|(used, _)| *used).map(|(_, ip)| ip))
            })
            .await
    }
}

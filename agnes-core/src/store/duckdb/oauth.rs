//! Clients of assistants, their codes, and what renews their tokens.

use ::duckdb::{OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::values::{stamp, stamp_opt, time};
use super::{Db, Fail};
use crate::error::Result;
use crate::identity::{OAuthClient, OAuthCode, OAuthRepository, RefreshToken, Renewal, TakenCode};

pub(super) struct OAuth(pub(super) Db);

fn moment(us: Option<i64>) -> DateTime<Utc> {
    time(us).unwrap_or(DateTime::UNIX_EPOCH)
}

fn client(row: &Row<'_>) -> ::duckdb::Result<OAuthClient> {
    Ok(OAuthClient {
        id: row.get(0)?,
        name: row.get(1)?,
        redirect_uris: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        created_at: moment(row.get(3)?),
        last_used_at: time(row.get(4)?),
    })
}

fn code(row: &Row<'_>) -> ::duckdb::Result<OAuthCode> {
    Ok(OAuthCode {
        code_hash: row.get(0)?,
        client_id: row.get(1)?,
        user_id: row.get(2)?,
        redirect_uri: row.get(3)?,
        challenge: row.get(4)?,
        created_at: moment(row.get(5)?),
        expires_at: moment(row.get(6)?),
    })
}

fn refresh(row: &Row<'_>) -> ::duckdb::Result<RefreshToken> {
    Ok(RefreshToken {
        hash: row.get(0)?,
        token_id: row.get(1)?,
        client_id: row.get(2)?,
        created_at: moment(row.get(3)?),
        expires_at: moment(row.get(4)?),
    })
}

const CODE: &str = "code_hash, client_id, user_id, redirect_uri, challenge, epoch_us(created_at), epoch_us(expires_at)";

const INSERT_REFRESH: &str = "INSERT INTO oauth_tokens (refresh_hash, token_id, client_id, created_at, expires_at) \
                              VALUES (?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP)";

const USED: &str = "UPDATE oauth_clients SET last_used_at = ?::TIMESTAMP WHERE id = ?";

#[async_trait]
impl OAuthRepository for OAuth {
    async fn insert_client(&self, client: &OAuthClient, unused_since: DateTime<Utc>) -> Result<()> {
        let c = client.clone();
        let uris = serde_json::to_string(&c.redirect_uris).unwrap_or_default();
        self.0
            .write("keep a client", move |conn| {
                conn.execute(
                    "DELETE FROM oauth_clients WHERE coalesce(last_used_at, created_at) < ?::TIMESTAMP",
                    [stamp(unused_since)],
                )?;
                conn.execute(
                    "INSERT INTO oauth_clients (id, name, redirect_uris, created_at, last_used_at) \
                     VALUES (?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP)",
                    params![c.id, c.name, uris, stamp(c.created_at), stamp_opt(c.last_used_at)],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn client(&self, id: &str) -> Result<Option<OAuthClient>> {
        let id = id.to_owned();
        self.0
            .read("look a client up", move |conn| {
                let sql = "SELECT id, name, redirect_uris, epoch_us(created_at), epoch_us(last_used_at) \
                           FROM oauth_clients WHERE id = ?";
                conn.query_row(sql, [id], client).optional()
            })
            .await
    }

    async fn insert_code(&self, code: &OAuthCode) -> Result<()> {
        let c = code.clone();
        self.0
            .write("keep a code", move |conn| {
                conn.execute("DELETE FROM oauth_codes WHERE expires_at < ?::TIMESTAMP", [stamp(c.created_at)])?;
                conn.execute(USED, params![stamp(c.created_at), c.client_id])?;
                conn.execute(
                    "INSERT INTO oauth_codes (code_hash, client_id, user_id, redirect_uri, challenge, created_at, expires_at) \
                     VALUES (?, ?, ?, ?, ?, ?::TIMESTAMP, ?::TIMESTAMP)",
                    params![
                        c.code_hash,
                        c.client_id,
                        c.user_id,
                        c.redirect_uri,
                        c.challenge,
                        stamp(c.created_at),
                        stamp(c.expires_at)
                    ],
                )?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn take_code(&self, hash: &str, token_id: &str, now: DateTime<Utc>) -> Result<TakenCode> {
        let (hash, token_id) = (hash.to_owned(), token_id.to_owned());
        self.0
            .write("take a code", move |conn| {
                let sql = format!(
                    "UPDATE oauth_codes SET token_id = ? WHERE code_hash = ? AND token_id IS NULL \
                     AND expires_at > ?::TIMESTAMP RETURNING {CODE}"
                );
                let taken = conn.query_row(&sql, params![token_id, hash, stamp(now)], code).optional()?;
                if let Some(code) = taken {
                    return Ok::<_, Fail>(TakenCode::Fresh(code));
                }
                let sql = "SELECT token_id FROM oauth_codes WHERE code_hash = ? AND token_id IS NOT NULL";
                let used: Option<String> = conn.query_row(sql, [hash], |row| row.get(0)).optional()?;
                Ok(used.map_or(TakenCode::Unknown, TakenCode::Used))
            })
            .await
    }

    async fn insert_refresh(&self, refresh: &RefreshToken) -> Result<()> {
        let r = refresh.clone();
        self.0
            .write("keep what renews a token", move |conn| {
                conn.execute("DELETE FROM oauth_tokens WHERE expires_at < ?::TIMESTAMP", [stamp(r.created_at)])?;
                let values = params![r.hash, r.token_id, r.client_id, stamp(r.created_at), stamp(r.expires_at)];
                conn.execute(INSERT_REFRESH, values)?;
                Ok::<_, Fail>(())
            })
            .await
    }

    async fn refresh(&self, hash: &str) -> Result<Option<RefreshToken>> {
        let hash = hash.to_owned();
        self.0
            .read("look up what renews a token", move |conn| {
                let sql = "SELECT refresh_hash, token_id, client_id, epoch_us(created_at), epoch_us(expires_at) \
                           FROM oauth_tokens WHERE refresh_hash = ?";
                conn.query_row(sql, [hash], refresh).optional()
            })
            .await
    }

    async fn renew(&self, old: &str, new: &RefreshToken, token_hash: &str) -> Result<Renewal> {
        let (old, new, token_hash) = (old.to_owned(), new.clone(), token_hash.to_owned());
        self.0
            .write_credentials("renew a token", move |conn| {
                let now = stamp(new.created_at);
                let sql = "SELECT replaced_at IS NOT NULL FROM oauth_tokens \
                           WHERE refresh_hash = ? AND token_id = ? AND client_id = ? AND expires_at > ?::TIMESTAMP";
                let used: Option<bool> =
                    conn.query_row(sql, params![old, new.token_id, new.client_id, now], |row| row.get(0)).optional()?;
                match used {
                    None => return Ok::<_, Fail>(Renewal::Unknown),
                    Some(true) => return Ok(Renewal::Reused),
                    Some(false) => {}
                }
                let sql = "UPDATE personal_access_tokens SET token_hash = ?, expires_at = ?::TIMESTAMP \
                           WHERE id = ? AND revoked_at IS NULL";
                if conn.execute(sql, params![token_hash, stamp(new.expires_at), new.token_id])? == 0 {
                    return Ok(Renewal::Unknown);
                }
                conn.execute(
                    "UPDATE oauth_tokens SET replaced_at = ?::TIMESTAMP WHERE refresh_hash = ?",
                    [&now, &old],
                )?;
                conn.execute(USED, params![now, new.client_id])?;
                conn.execute(
                    INSERT_REFRESH,
                    params![new.hash, new.token_id, new.client_id, now, stamp(new.expires_at)],
                )?;
                Ok(Renewal::Done)
            })
            .await
    }
}

//! Policies and what they said before.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::values::{stamp_opt, time};
use super::{Db, Fail, refuse};
use crate::error::{Error, Result};
use crate::ident::printable;
use crate::policy::{Policy, PolicyError, PolicyRepository, PolicyRules, PolicyVersion};
use crate::rbac::AccessError;

pub(super) struct Policies(pub(super) Db);

const COLUMNS: &str = "id, group_id, table_id, rules::VARCHAR, version, epoch_us(created_at), created_by, \
                       epoch_us(updated_at), updated_by";

/// A policy, or the reason why it cannot be read: it must not be left out.
type Read = Result<Policy, PolicyError>;

fn rules(text: &str) -> Result<PolicyRules, PolicyError> {
    serde_json::from_str(text).map_err(|error| {
        tracing::error!("the rules of a policy cannot be read: {error}");
        PolicyError::Unreadable
    })
}

fn policy(row: &Row<'_>) -> ::duckdb::Result<Read> {
    let text: String = row.get(3)?;
    let (id, group_id, table_id) = (row.get(0)?, row.get(1)?, row.get::<_, String>(2)?);
    let (version, created_by, updated_by) = (row.get(4)?, row.get(6)?, row.get(8)?);
    let (created_at, updated_at) = (time(row.get(5)?), time(row.get(7)?));
    Ok(rules(&text).map(|rules| Policy {
        id,
        group_id,
        table_id: table_id.to_lowercase(),
        rules,
        version,
        created_at,
        created_by,
        updated_at,
        updated_by,
    }))
}

/// Every policy, by table and group.
pub(super) fn all(conn: &Connection) -> ::duckdb::Result<Vec<Read>> {
    let sql = format!("SELECT {COLUMNS} FROM table_policies ORDER BY table_id, group_id, id");
    conn.prepare(&sql)?.query_map([], policy)?.collect()
}

/// Removes the policies of a group that goes.
pub(super) fn delete_of_group(conn: &Connection, group_id: &str) -> ::duckdb::Result<()> {
    conn.execute("DELETE FROM table_policies WHERE group_id = ?", [group_id]).map(drop)
}

fn get(conn: &Connection, id: &str) -> ::duckdb::Result<Option<Read>> {
    conn.query_row(&format!("SELECT {COLUMNS} FROM table_policies WHERE id = ?"), [id], policy).optional()
}

/// The policy, or why not.
fn found(conn: &Connection, id: &str) -> Result<Policy, Fail> {
    match get(conn, id)? {
        Some(Ok(policy)) => Ok(policy),
        Some(Err(error)) => refuse(error),
        None => refuse(PolicyError::NotFound { policy: printable(id, 80) }),
    }
}

fn text(rules: &PolicyRules) -> Result<String> {
    serde_json::to_string(rules).map_err(|e| Error::internal("write a policy", e))
}

fn keep_version(
    conn: &Connection,
    id: &str,
    version: u32,
    rules: Option<&str>,
    at: Option<DateTime<Utc>>,
    by: Option<&str>,
) -> ::duckdb::Result<()> {
    conn.execute(
        "INSERT INTO table_policy_versions (policy_id, version, rules, changed_at, changed_by) VALUES (?, ?, ?, ?::TIMESTAMP, ?)",
        params![id, version, rules, stamp_opt(at), by],
    )
    .map(drop)
}

#[async_trait]
impl PolicyRepository for Policies {
    async fn list(&self) -> Result<Vec<Policy>> {
        let read = self.0.read("list the policies", all).await?;
        Ok(read.into_iter().collect::<Result<_, _>>()?)
    }

    async fn get(&self, id: &str) -> Result<Option<Policy>> {
        let id = id.to_owned();
        Ok(self.0.read("read a policy", move |conn| get(conn, &id)).await?.transpose()?)
    }

    async fn insert(&self, policy: &Policy) -> Result<()> {
        let (p, rules) = (policy.clone(), text(&policy.rules)?);
        self.0
            .write_access("add a policy", move |conn| {
                let group: Option<String> = conn
                    .query_row("SELECT name FROM user_groups WHERE id = ?", [&p.group_id], |row| row.get(0))
                    .optional()?;
                let Some(group) = group else {
                    return refuse(AccessError::GroupNotFound { group: printable(&p.group_id, 80) });
                };
                let sql = "SELECT count(*) FROM table_policies WHERE group_id = ? AND lower(table_id) = lower(?)";
                let taken: i64 = conn.query_row(sql, params![p.group_id, p.table_id], |row| row.get(0))?;
                if taken > 0 {
                    return refuse(PolicyError::Exists { group });
                }
                conn.execute(
                    "INSERT INTO table_policies (id, group_id, table_id, rules, version, created_at, created_by, updated_at, updated_by) \
                     VALUES (?, ?, lower(?), ?, ?, ?::TIMESTAMP, ?, ?::TIMESTAMP, ?)",
                    params![
                        p.id,
                        p.group_id,
                        p.table_id,
                        rules,
                        p.version,
                        stamp_opt(p.created_at),
                        p.created_by,
                        stamp_opt(p.updated_at),
                        p.updated_by
                    ],
                )?;
                keep_version(conn, &p.id, p.version, Some(&rules), p.created_at, p.created_by.as_deref())?;
                Ok(())
            })
            .await
    }

    async fn update(&self, policy: &Policy) -> Result<()> {
        let (p, rules) = (policy.clone(), text(&policy.rules)?);
        self.0
            .write_access("change a policy", move |conn| {
                if found(conn, &p.id)?.version.checked_add(1) != Some(p.version) {
                    return refuse(PolicyError::Changed);
                }
                conn.execute(
                    "UPDATE table_policies SET rules = ?, version = ?, updated_at = ?::TIMESTAMP, updated_by = ? WHERE id = ?",
                    params![rules, p.version, stamp_opt(p.updated_at), p.updated_by, p.id],
                )?;
                keep_version(conn, &p.id, p.version, Some(&rules), p.updated_at, p.updated_by.as_deref())?;
                Ok(())
            })
            .await
    }

    async fn delete(&self, id: &str, now: DateTime<Utc>, by: &str) -> Result<Policy> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.0
            .write_access("remove a policy", move |conn| {
                let policy = found(conn, &id)?;
                conn.execute("DELETE FROM table_policies WHERE id = ?", [&id])?;
                keep_version(conn, &id, policy.version.saturating_add(1), None, Some(now), Some(&by))?;
                Ok(policy)
            })
            .await
    }

    async fn history(&self, id: &str) -> Result<Vec<PolicyVersion>> {
        let id = id.to_owned();
        let rows: Vec<(PolicyVersion, Option<String>)> = self
            .0
            .read("read what a policy said", move |conn| {
                conn.prepare(
                    "SELECT policy_id, version, epoch_us(changed_at), changed_by, rules::VARCHAR FROM table_policy_versions \
                     WHERE policy_id = ? ORDER BY version DESC",
                )?
                .query_map([id], |row| {
                    let version = PolicyVersion {
                        policy_id: row.get(0)?,
                        version: row.get(1)?,
                        rules: None,
                        changed_at: time(row.get(2)?),
                        changed_by: row.get(3)?,
                    };
                    Ok((version, row.get(4)?))
                })?
                .collect()
            })
            .await?;
        let rows = rows.into_iter().map(|(version, text)| {
            let rules = text.as_deref().map(rules).transpose()?;
            Ok(PolicyVersion { rules, ..version })
        });
        rows.collect()
    }
}

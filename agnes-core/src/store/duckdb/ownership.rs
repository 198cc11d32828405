//! Who published a view's name first.

use ::duckdb::params;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Db;
use super::values::stamp;
use crate::error::Result;
use crate::registry::OwnershipRepository;

pub(super) struct Ownership(pub(super) Db);

#[async_trait]
impl OwnershipRepository for Ownership {
    async fn all(&self) -> Result<Vec<(String, String)>> {
        self.0
            .read("read view ownership", |conn| {
                conn.prepare("SELECT view_name, source_name FROM view_ownership ORDER BY view_name")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await
    }

    async fn apply(
        &self,
        claims: &[(String, String)],
        releases: &[(String, String)],
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (claims, releases) = (claims.to_vec(), releases.to_vec());
        self.0
            .write("write view ownership", move |conn| {
                // A name that changes hands is updated: DuckDB refuses to delete and insert one
                // key in one transaction.
                for (name, source) in &releases {
                    match claims.iter().find(|(claimed, _)| claimed.eq_ignore_ascii_case(name)) {
                        Some((_, next)) => conn.execute(
                            "UPDATE view_ownership SET source_name = ?, registered_at = ?::TIMESTAMP \
                             WHERE view_name = ? AND source_name = ?",
                            params![next, stamp(now), name, source],
                        )?,
                        None => conn.execute(
                            "DELETE FROM view_ownership WHERE view_name = ? AND source_name = ?",
                            [name, source],
                        )?,
                    };
                }
                let fresh =
                    claims.iter().filter(|(name, _)| !releases.iter().any(|(old, _)| old.eq_ignore_ascii_case(name)));
                for chunk in fresh.collect::<Vec<_>>().chunks(500) {
                    let rows = vec!["(?, ?, ?::TIMESTAMP)"; chunk.len()].join(", ");
                    let sql = format!("INSERT INTO view_ownership VALUES {rows} ON CONFLICT DO NOTHING");
                    let at = stamp(now);
                    let values = chunk.iter().flat_map(|(name, source)| [name.as_str(), source.as_str(), at.as_str()]);
                    conn.execute(&sql, ::duckdb::params_from_iter(values))?;
                }
                Ok(())
            })
            .await
    }
}

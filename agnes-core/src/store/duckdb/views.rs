//! Saved filters of the audit log.

use ::duckdb::params;
use async_trait::async_trait;

use super::values::{json, stamp_opt, time};
use super::{Db, refuse};
use crate::audit::{SavedView, ViewError, ViewRepository};
use crate::error::Result;
use crate::ident::printable;

pub(super) struct Views(pub(super) Db);

#[async_trait]
impl ViewRepository for Views {
    async fn list(&self, user_id: &str) -> Result<Vec<SavedView>> {
        let user = user_id.to_owned();
        self.0
            .read("list the saved views", move |conn| {
                let sql = "SELECT id, name, query_json::VARCHAR, epoch_us(created_at) FROM user_observability_views \
                           WHERE user_id = ? ORDER BY created_at DESC, id DESC";
                let view = |row: &::duckdb::Row<'_>| {
                    Ok(SavedView {
                        id: row.get(0)?,
                        name: row.get(1)?,
                        query: json(row.get(2)?).unwrap_or_default(),
                        created_at: time(row.get(3)?),
                    })
                };
                conn.prepare(sql)?.query_map([user], view)?.collect()
            })
            .await
    }

    async fn insert(&self, user_id: &str, view: &SavedView, limit: usize) -> Result<()> {
        let (user, view) = (user_id.to_owned(), view.clone());
        self.0
            .write("keep a view", move |conn| {
                let sql = "SELECT count(*), count(*) FILTER (name = ?) FROM user_observability_views WHERE user_id = ?";
                let (all, same): (usize, usize) =
                    conn.query_row(sql, params![view.name, user], |row| Ok((row.get(0)?, row.get(1)?)))?;
                if same > 0 {
                    return refuse(ViewError::Exists { name: printable(&view.name, 80) });
                }
                if all >= limit {
                    return refuse(ViewError::TooMany { limit });
                }
                conn.execute(
                    "INSERT INTO user_observability_views (id, user_id, name, query_json, created_at) \
                     VALUES (?, ?, ?, ?::JSON, ?::TIMESTAMP)",
                    params![view.id, user, view.name, view.query.to_string(), stamp_opt(view.created_at)],
                )?;
                Ok(())
            })
            .await
    }

    async fn delete(&self, user_id: &str, id: &str) -> Result<bool> {
        let (user, id) = (user_id.to_owned(), id.to_owned());
        self.0
            .write("remove a view", move |conn| {
                let sql = "DELETE FROM user_observability_views WHERE user_id = ? AND id = ?";
                Ok::<_, super::Fail>(conn.execute(sql, [user, id])? > 0)
            })
            .await
    }
}

//! Texts that admins edit.

use ::duckdb::{OptionalExt as _, params};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Db;
use super::values::{stamp, time};
use crate::error::Result;
use crate::templates::{StoredTemplate, TemplateRepository};

pub(super) struct Templates(pub(super) Db);

#[async_trait]
impl TemplateRepository for Templates {
    async fn find(&self, key: &str) -> Result<StoredTemplate> {
        let key = key.to_owned();
        self.0
            .read("read a template", move |conn| {
                let sql = "SELECT content, epoch_us(updated_at), updated_by FROM instance_templates WHERE key = ?";
                let row = |row: &::duckdb::Row<'_>| {
                    Ok(StoredTemplate { content: row.get(0)?, updated_at: time(row.get(1)?), updated_by: row.get(2)? })
                };
                Ok(conn.query_row(sql, [key], row).optional()?.unwrap_or_default())
            })
            .await
    }

    async fn put(&self, key: &str, content: Option<&str>, by: &str, at: DateTime<Utc>) -> Result<()> {
        let (key, content, by) = (key.to_owned(), content.map(ToOwned::to_owned), by.to_owned());
        self.0
            .write("keep a template", move |conn| {
                conn.execute("INSERT INTO instance_templates (key) VALUES (?) ON CONFLICT DO NOTHING", [&key])?;
                conn.execute(
                    "UPDATE instance_templates SET previous_content = content, content = ?, \
                     updated_at = ?::TIMESTAMP, updated_by = ? WHERE key = ?",
                    params![content, stamp(at), by, key],
                )?;
                Ok::<_, super::Fail>(())
            })
            .await
    }
}

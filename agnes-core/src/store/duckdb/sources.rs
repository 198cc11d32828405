//! Configured sources.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;

use super::values::{stamp_opt, time};
use super::{Db, refuse};
use crate::error::Result;
use crate::ident::{SourceName, printable};
use crate::registry::{RegisteredSource, RegistryError, SourceRepository};

pub(super) struct Sources(pub(super) Db);

const COLUMNS: &str = "name, kind, config::VARCHAR, schedule, epoch_us(created_at), created_by";

/// A source, or `None` for a row whose name is none.
fn source(row: &Row<'_>) -> ::duckdb::Result<Option<RegisteredSource>> {
    let Ok(name) = SourceName::parse(&row.get::<_, String>(0)?) else { return Ok(None) };
    Ok(Some(RegisteredSource {
        name,
        kind: row.get(1)?,
        config: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        schedule: row.get(3)?,
        created_at: time(row.get(4)?),
        created_by: row.get(5)?,
    }))
}

fn get(conn: &Connection, name: &str) -> ::duckdb::Result<Option<RegisteredSource>> {
    let sql = format!("SELECT {COLUMNS} FROM sources WHERE lower(name) = lower(?)");
    Ok(conn.query_row(&sql, [name], source).optional()?.flatten())
}

#[async_trait]
impl SourceRepository for Sources {
    async fn insert(&self, source: &RegisteredSource) -> Result<()> {
        let s = source.clone();
        self.0
            .write("add a source", move |conn| {
                if get(conn, s.name.as_str())?.is_some() {
                    return refuse(RegistryError::SourceExists { source_name: s.name.to_string() });
                }
                conn.execute(
                    "INSERT INTO sources (name, kind, config, schedule, created_at, created_by) VALUES (?, ?, ?, ?, ?::TIMESTAMP, ?)",
                    params![s.name.as_str(), s.kind, s.config.to_string(), s.schedule, stamp_opt(s.created_at), s.created_by],
                )?;
                Ok(())
            })
            .await
    }

    async fn update(&self, source: &RegisteredSource) -> Result<()> {
        let s = source.clone();
        self.0
            .write("change a source", move |conn| {
                let changed = conn.execute(
                    "UPDATE sources SET config = ?, schedule = ? WHERE lower(name) = lower(?)",
                    params![s.config.to_string(), s.schedule, s.name.as_str()],
                )?;
                if changed == 0 {
                    let source_name = printable(s.name.as_str(), 64);
                    return refuse(RegistryError::SourceNotFound { source_name, suggestion: None });
                }
                Ok(())
            })
            .await
    }

    async fn get(&self, name: &str) -> Result<Option<RegisteredSource>> {
        let name = name.to_owned();
        self.0.read("read a source", move |conn| get(conn, &name)).await
    }

    async fn list(&self) -> Result<Vec<RegisteredSource>> {
        self.0
            .read("list the sources", |conn| {
                let rows: Vec<Option<RegisteredSource>> = conn
                    .prepare(&format!("SELECT {COLUMNS} FROM sources ORDER BY name"))?
                    .query_map([], source)?
                    .collect::<::duckdb::Result<_>>()?;
                Ok(rows.into_iter().flatten().collect())
            })
            .await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.0
            .write("remove a source", move |conn| {
                Ok(conn.execute("DELETE FROM sources WHERE lower(name) = lower(?)", [name])? > 0)
            })
            .await
    }
}

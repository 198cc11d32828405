//! What an instance holds that is made for one query alone: rows that come along, and sources
//! that are attached before the lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::QueryError;
use crate::duck::{EngineFailure, MemoryConn, MemoryDb};
use crate::error::Result;
use crate::ident::quote_ident;
use crate::orchestrator::{AttachPolicy, RemoteAttach, RemoteTable, attach, compares_texts_its_way};
use crate::secret::SecretSource;

/// What an instance holds that is made for one query alone.
#[derive(Debug, Default)]
pub struct Alone {
    /// Tables and their rows.
    pub(crate) tables: Vec<Loaded>,
    /// Sources, and views of them.
    pub(crate) remote: Option<Attached>,
}

/// A table that comes along.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    /// Its `CREATE TABLE`.
    pub(crate) create: String,
    pub(crate) rows: Vec<RecordBatch>,
}

/// A remote relation of a query: its name, definition and attachment.
pub(crate) type Asked = (String, RemoteTable, RemoteAttach);

/// Sources to attach.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) policy: AttachPolicy,
    pub(crate) secrets: Arc<dyn SecretSource>,
    pub(crate) asked: Vec<Asked>,
}

impl Alone {
    /// Attached sources, without the decision who may ask them.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn attached(
        policy: AttachPolicy,
        secrets: Arc<dyn SecretSource>,
        asked: Vec<(String, RemoteTable, RemoteAttach)>,
    ) -> Self {
        Self { tables: Vec::new(), remote: Some(Attached { policy, secrets, asked }) }
    }

    /// Fills an instance that is not locked yet; what it attached, which the engine keeps open
    /// by itself.
    pub(crate) fn fill(&self, conn: &MemoryConn, db: &Arc<MemoryDb>) -> Result<Vec<String>> {
        for Loaded { name, create, rows } in &self.tables {
            db.load(create, name, rows)?;
        }
        let Some(remote) = &self.remote else { return Ok(Vec::new()) };
        let mut attached: BTreeMap<&str, String> = BTreeMap::new();
        for (_, _, row) in &remote.asked {
            if !attached.contains_key(row.alias.as_str()) {
                db.with_connection(|conn| attach(conn, row, &remote.policy, &*remote.secrets))??;
                attached.insert(&row.alias, row.url.clone());
            }
        }
        for (name, table, row) in &remote.asked {
            let select = match compares_texts_its_way(row) {
                true => own_texts(conn, &table.select),
                false => Ok(table.select.clone()),
            };
            let made =
                select.and_then(|select| conn.execute(&format!("CREATE VIEW {} AS {select}", quote_ident(name))));
            made.map_err(|failure| {
                tracing::warn!(table = name, alias = row.alias, cause = %super::scrub(failure.words()), "a remote table cannot be asked");
                QueryError::Remote { table: name.clone() }
            })?;
        }
        Ok(attached.into_values().collect())
    }
}

/// The rows of `select` with texts that no filter on them reaches through: the engine compares
/// them itself, filters on other columns still run at the source.
fn own_texts(conn: &MemoryConn, select: &str) -> Result<String, EngineFailure> {
    let texts = conn.rows(&format!("SELECT column_name FROM (DESCRIBE {select}) WHERE column_type = 'VARCHAR'"))?;
    let texts = super::rows::text(&texts, 0).into_iter().flatten();
    let texts: Vec<String> =
        texts.map(|name| quote_ident(&name)).map(|name| format!("{name} || '' AS {name}")).collect();
    match texts.is_empty() {
        true => Ok(select.to_owned()),
        false => Ok(format!("SELECT * REPLACE ({}) FROM ({select})", texts.join(", "))),
    }
}

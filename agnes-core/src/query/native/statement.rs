//! Statements in the warehouse's own language: an admin's, and the one that tells whether it
//! answers at all.

use super::calls::{CancelOnDrop, ask};
use super::fetch::collect;
use super::{Native, asker, most_bytes};
use crate::connector::{Cancel, Progress, WarehousePath, WarehouseQuery};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::query::Loaded;
use crate::registry::context;
use crate::warehouse::WarehouseError;

/// An admin's own statement, whose rows stand under an alias.
pub(in crate::query) struct Statement<'a> {
    pub(in crate::query) alias: &'a str,
    pub(in crate::query) sql: &'a str,
    pub(in crate::query) max_rows: u64,
}

impl Statement<'_> {
    /// Its rows, and how many bytes were read for them. `left`: bytes that may still be moved.
    pub(in crate::query) async fn run(
        &self,
        engine: &Engine,
        ctx: &CallContext,
        left: &mut u64,
    ) -> Result<(Loaded, u64)> {
        let cancel = Cancel::default();
        let _stop = CancelOnDrop::new(&cancel);
        let native = any(engine, cancel).await?;
        let warehouse = native.warehouse()?;
        let told = warehouse.estimate(&native.source, self.sql).await?;
        if !told.only_reads {
            let what = "a statement of the warehouse that is not one query".to_owned();
            return Err(crate::sandbox::SandboxError::Unsupported { what }.into());
        }
        let (bytes, max_bytes) = (told.bytes, most_bytes(engine));
        if let Some(limit) = max_bytes.filter(|limit| bytes > *limit) {
            return Err(WarehouseError::TooLarge { bytes, limit, tables: Vec::new(), view_targets: Vec::new() }.into());
        }
        let query = WarehouseQuery { sql: self.sql.to_owned(), max_bytes, ordered: false, asker: asker(ctx) };
        let mut incoming = ask(&native, query).await?;
        let rows = collect(&mut incoming, self.max_rows, left).await?;
        let name = self.alias.to_ascii_lowercase();
        Ok((Loaded { create: crate::query::remote::create(&name, &incoming.schema), name, rows }, bytes))
    }
}

/// The warehouse of a server that has one.
async fn any(engine: &Engine, cancel: Cancel) -> Result<Native> {
    for source in engine.store().sources().list().await? {
        let Some(connector) = engine.connectors().get(&source.kind) else { continue };
        if connector.warehouse().is_some() {
            let source = context(engine, &source, cancel, Progress::default());
            let path = WarehousePath { project: String::new(), dataset: String::new(), table: String::new() };
            return Ok(Native { path, columns: Vec::new(), source, connector });
        }
    }
    Err(WarehouseError::NotConfigured.into())
}

/// Whether a query runs: the project that pays, and that of the data.
pub(in crate::query) async fn check(engine: &Engine, ctx: &CallContext) -> Result<(String, String)> {
    let cancel = Cancel::default();
    let _stop = CancelOnDrop::new(&cancel);
    let native = any(engine, cancel).await?;
    let warehouse = native.warehouse()?;
    let projects = (warehouse.billing(&native.source)?, warehouse.home(&native.source)?);
    let sql = "SELECT 1 AS one".to_owned();
    let query = WarehouseQuery { sql, max_bytes: most_bytes(engine), ordered: false, asker: asker(ctx) };
    let mut left = 1 << 20;
    collect(&mut ask(&native, query).await?, 10, &mut left).await?;
    Ok(projects)
}

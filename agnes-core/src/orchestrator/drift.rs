//! What an extract says of a warehouse may be older than its settings: where the project of the
//! data moved, remote tables are written down anew before they are published.

use crate::connector::{Cancel, ExtractRequest, Progress};
use crate::engine::Engine;
use crate::error::Result;
use crate::extract::{TableChange, TableData, TableWriter, publish, read_extract};
use crate::ident::TableName;
use crate::registry::{self, QueryMode, RegisteredSource};

/// Follows what moved. The extract stays as it is where that cannot be done.
pub(super) async fn follow(engine: &Engine, sources: &[RegisteredSource]) {
    for source in sources {
        if let Err(error) = one(engine, source).await {
            let (source, code) = (source.name.as_str(), error.code());
            tracing::warn!(source, code, "the extract of a project that moved is not made anew: {error}");
        }
    }
}

async fn one(engine: &Engine, source: &RegisteredSource) -> Result<()> {
    let Some(connector) = engine.connectors().get(&source.kind) else { return Ok(()) };
    let context = registry::context(engine, source, Cancel::default(), Progress::default());
    let Some(home) = connector.warehouse().and_then(|warehouse| warehouse.home(&context).ok()) else { return Ok(()) };
    let folder = engine.folder().extract(&source.name);
    let looked = folder.clone();
    let written = crate::duck::blocking(move || Ok(read_extract(&looked).ok())).await?;
    let wanted = format!("project={home}");
    let moved = |attach: &crate::extract::ExtractAttach| attach.alias == "bq" && attach.url != wanted;
    if !written.is_some_and(|written| written.attaches.iter().any(moved)) {
        return Ok(());
    }
    tracing::info!(source = source.name.as_str(), "the project of the data moved: its remote tables are written anew");
    let index = engine.table_index().await?;
    let mut changes = Vec::new();
    for row in index.iter() {
        let mine = row.query_mode == QueryMode::Remote && row.source_name() == Some(source.name.as_str());
        let Some(name) = TableName::parse(&row.name).ok().filter(|_| mine) else { continue };
        let writer = TableWriter::new(&folder, name.clone());
        let table = row.as_ref().clone();
        let request = ExtractRequest { table, name: name.clone(), cursor: None, last_sync: None, full: false };
        let (_, report) = match connector.extract(&context, &request, writer).await {
            Ok(done) => done,
            // Nothing could be said of the others either.
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                let (source, table, code) = (source.name.as_str(), row.name.as_str(), error.code());
                tracing::warn!(source, table, code, "a remote table did not move with its project: {error}");
                continue;
            }
        };
        let Some(remote) = report.remote else { continue };
        changes.push(TableChange { name, description: row.description.clone(), data: TableData::Remote(remote) });
    }
    if changes.is_empty() {
        return Ok(());
    }
    let now = engine.clock().now();
    let keep = move |table: &TableName| index.by_name(table.as_str()).is_some();
    crate::duck::blocking(move || publish(&folder, changes, &keep, now).map(drop)).await
}

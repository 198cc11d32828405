//! `analytics/server.duckdb`: one view for each table, for operators and other tools. Made
//! by copying the last one, patching the views that changed, and renaming.
//!
//! A table that stays at its source is a view too. Its rows come when whoever opened the
//! file attaches the source under the alias that `_remote_attach` names.

use std::collections::HashMap;
use std::path::Path;

use super::{Column, Generation, PublishedTable, RemoteAttach, remote_view};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio::{self, Staged, fault_point};
use crate::ident::{SourceName, quote_ident, quote_literal};
use crate::layout::DataFolder;

/// A master that is ready but not yet in place.
#[derive(Debug)]
pub(super) struct NewMaster {
    staged: Staged,
    number: u64,
    /// Columns of the local tables that were patched, by name.
    pub(super) columns: HashMap<String, Vec<Column>>,
    /// Tables whose view could not be made.
    pub(super) failed: HashMap<String, Failed>,
}

/// A table whose view could not be made.
#[derive(Debug)]
pub(super) struct Failed {
    /// In plain words.
    pub(super) reason: String,
    /// The last good table, whose view is there instead.
    pub(super) kept: Option<PublishedTable>,
}

/// The scan of a table's blobs.
pub(crate) fn scan(folder: &DataFolder, table: &PublishedTable) -> String {
    let blobs: Vec<String> =
        table.parts.iter().map(|part| quote_literal(&folder.blob(&part.sha256).to_string_lossy())).collect();
    let union = if table.partitioned { ", union_by_name=true" } else { "" };
    format!("read_parquet([{}]{union}, hive_partitioning=false)", blobs.join(", "))
}

/// Which master file is in place.
fn generation_file(folder: &DataFolder) -> std::path::PathBuf {
    folder.analytics().join("server.generation")
}

fn in_place(folder: &DataFolder) -> Option<u64> {
    std::fs::read_to_string(generation_file(folder)).ok()?.trim().parse().ok()
}

/// Prepares the master of generation `number`: views of `changed` made anew, views in
/// `gone` dropped. Starts from nothing, with all of `tables`, when the one in place is not
/// that of `last`.
pub(super) fn prepare<'a>(
    folder: &DataFolder,
    last: &Generation,
    number: u64,
    changed: &[&'a PublishedTable],
    unchanged: &[&'a PublishedTable],
    gone: &[String],
    attaches: &[(&SourceName, &RemoteAttach)],
) -> Result<NewMaster> {
    let staged = Staged::beside(&folder.master())?;
    let continues = last.number > 0 && in_place(folder) == Some(last.number) && folder.master().is_file();
    let made = match continues {
        true => {
            fault_point()
                .and_then(|()| std::fs::copy(folder.master(), staged.path()).map(drop))
                .map_err(|e| Error::io("copy the master", e))?;
            write(staged.path(), folder, last, changed, &[], gone, attaches)
        }
        false => write(staged.path(), folder, last, changed, unchanged, &[], attaches),
    };
    let mut wal = staged.path().as_os_str().to_owned();
    wal.push(".wal");
    drop(std::fs::remove_file(wal));
    let (columns, failed) = made.map_err(|e| engine_error("write the master", &e))?;
    staged.sync()?;
    Ok(NewMaster { staged, number, columns, failed })
}

type Made = (HashMap<String, Vec<Column>>, HashMap<String, Failed>);

fn write(
    path: &Path,
    folder: &DataFolder,
    last: &Generation,
    changed: &[&PublishedTable],
    also: &[&PublishedTable],
    gone: &[String],
    attaches: &[(&SourceName, &RemoteAttach)],
) -> ::duckdb::Result<Made> {
    let config = ::duckdb::Config::default()
        .with("autoinstall_known_extensions", "false")?
        .with("autoload_known_extensions", "false")?
        .threads(1)?;
    let conn = ::duckdb::Connection::open_with_flags(path, config)?;
    let mut failed = HashMap::new();
    conn.execute_batch("BEGIN")?;
    for name in gone {
        conn.execute_batch(&format!("DROP VIEW IF EXISTS {}", crate::ident::quote_ident(name)))?;
    }
    conn.execute_batch("COMMIT")?;
    for table in changed.iter().chain(also).filter(|table| table.remote.is_none()) {
        // Each its own transaction: a view that fails must not take the others with it.
        let make = |table: &PublishedTable| {
            let view =
                format!("CREATE OR REPLACE VIEW {} AS SELECT * FROM {}", table.name.quoted(), scan(folder, table));
            conn.execute_batch(&view)
        };
        if let Err(error) = make(table) {
            tracing::warn!(table = %table.name, "a view cannot be made: {error}");
            drop(conn.execute_batch(&format!("DROP VIEW IF EXISTS {}", table.name.quoted())));
            let kept = last.tables().find(|t| t.name == table.name && t.source == table.source);
            let kept = kept.filter(|kept| make(kept).is_ok()).cloned();
            let and = if kept.is_some() { "; its last good data is kept" } else { "" };
            failed.insert(
                table.name.to_string(),
                Failed { reason: format!("its Parquet files cannot be read together{and}"), kept },
            );
        }
    }
    let remote: Vec<&PublishedTable> =
        changed.iter().chain(also).filter(|table| table.remote.is_some()).copied().collect();
    write_remote(&conn, &remote, attaches)?;
    let mut columns: HashMap<String, Vec<Column>> = HashMap::new();
    {
        let mut statement = conn.prepare(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() \
             WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal ORDER BY table_name, column_index",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            columns.entry(name).or_default().push(Column {
                name: row.get(1)?,
                data_type: row.get(2)?,
                nullable: row.get::<_, Option<bool>>(3)?.unwrap_or(true),
            });
        }
    }
    conn.execute_batch("CHECKPOINT")?;
    conn.close().map_err(|(_, e)| e)?;
    Ok((columns, failed))
}

/// Views of remote tables and what they need to be attached. The sources are not asked:
/// each view is bound to an empty table of the same shape under its alias.
fn write_remote(
    conn: &::duckdb::Connection,
    tables: &[&PublishedTable],
    attaches: &[(&SourceName, &RemoteAttach)],
) -> ::duckdb::Result<()> {
    conn.execute_batch("DROP TABLE IF EXISTS _remote_attach")?;
    if !attaches.is_empty() {
        let rows: Vec<String> = attaches
            .iter()
            .map(|(source, attach)| {
                let texts = [source.as_str(), &attach.alias, &attach.extension, &attach.url, &attach.token_env];
                format!("({})", texts.map(quote_literal).join(", "))
            })
            .collect();
        conn.execute_batch(&format!(
            "CREATE TABLE _remote_attach AS FROM (VALUES {}) AS a(source_name, alias, extension, url, token_env)",
            rows.join(", ")
        ))?;
    }
    for table in tables {
        let Some(remote) = &table.remote else { continue };
        let alias = quote_ident(&remote.alias);
        let made = match remote_view::shape(&remote.select, &table.columns) {
            Some(shape) => conn.execute_batch(&format!(
                "ATTACH ':memory:' AS {alias}; {shape}; CREATE OR REPLACE VIEW {} AS {};",
                table.name.quoted(),
                remote.select
            )),
            None => Ok(()),
        };
        if let Err(error) = made {
            tracing::warn!(table = %table.name, "the master has no view of a remote table: {error}");
            drop(conn.execute_batch(&format!("DROP VIEW IF EXISTS {}", table.name.quoted())));
        }
        drop(conn.execute_batch(&format!("DETACH DATABASE IF EXISTS {alias}")));
    }
    Ok(())
}

impl NewMaster {
    /// Puts it in place. Readers of the last one keep what they have open.
    pub(super) fn publish(self, folder: &DataFolder) -> Result<()> {
        drop(std::fs::remove_file(folder.analytics().join("server.duckdb.wal")));
        // Until the number is written, nobody continues from this file.
        drop(std::fs::remove_file(generation_file(folder)));
        self.staged.publish(&folder.master())?;
        fsio::write_atomically(&generation_file(folder), self.number.to_string().as_bytes())
    }
}

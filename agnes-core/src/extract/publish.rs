//! The one extract publisher: Parquet into place, then `extract.duckdb`, each in one step.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::fsio::{self, Staged, exchange_folders, fault_point, sync_folder};
use super::writer::{Rejected, TableWriter, layout_files, rejected_table};
use super::{ExtractAttach, ExtractError, SchemaDrift, drift, parquet};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::ident::{TableName, quote_ident, quote_literal};
use crate::layout;
use crate::registry::QueryMode;

/// A table whose new data goes into the extract.
#[derive(Debug)]
pub struct TableChange {
    /// The table.
    pub name: TableName,
    /// For `_meta`.
    pub description: Option<String>,
    /// Its data, or where it is.
    pub data: TableData,
}

/// What a table of an extract is made of.
#[derive(Debug)]
pub enum TableData {
    /// Rows of the source.
    Local(TableWriter),
    /// The result of a stored query.
    Materialized(TableWriter),
    /// A relation that stays at its source.
    Remote(RemoteRelation),
}

impl From<TableWriter> for TableData {
    fn from(writer: TableWriter) -> Self {
        Self::Local(writer)
    }
}

/// A relation at a source that an engine extension speaks to: one row of `_remote_attach` and
/// the relation behind one remote view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRelation {
    /// How the source is attached; its alias is an identifier.
    pub attach: ExtractAttach,
    /// Schema at the source.
    pub schema: String,
    /// Table at the source.
    pub table: String,
    /// Names and DuckDB types of its columns.
    pub columns: Vec<(String, String)>,
}

/// How one table fared.
#[derive(Debug)]
pub struct PublishedExtract {
    /// The table.
    pub name: TableName,
    /// Rows now.
    pub rows: u64,
    /// Bytes of Parquet now.
    pub size_bytes: u64,
    /// What changed in its columns.
    pub drift: Option<SchemaDrift>,
    /// Why its data was not taken; the last good data stays.
    pub error: Option<Error>,
}

/// The Parquet files of one table, in the layout that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFiles {
    /// Whether it is `data/<table>/` rather than `data/<table>.parquet`.
    pub partitioned: bool,
    /// The files, by name.
    pub files: Vec<PathBuf>,
}

/// Resolves a table's files: the one place that knows both layouts. `None` when it has no
/// data. A publication that was cut off between the layouts leaves both: the newer counts.
///
/// # Errors
/// I/O errors.
pub fn table_files(extract: &Path, table: &TableName) -> Result<Option<TableFiles>> {
    let (single, folder) = (layout::single_file(extract, table), layout::parts_folder(extract, table));
    let parts = layout_files(&folder)?;
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let single_counts = single.is_file() && (parts.is_empty() || modified(&single) >= modified(&folder));
    Ok(if single_counts {
        Some(TableFiles { partitioned: false, files: vec![single] })
    } else if parts.is_empty() {
        None
    } else {
        Some(TableFiles { partitioned: true, files: parts })
    })
}

/// Publishes new data of some tables of one source. Every other table whose name `keep`
/// accepts, and whose data is on disk, is carried forward. A table that cannot be taken
/// fails alone. Blocks.
///
/// # Errors
/// I/O errors with the whole extract, `disk_full` among them: nothing of `_meta` changed.
pub fn publish(
    extract: &Path,
    changes: Vec<TableChange>,
    keep: &dyn Fn(&TableName) -> bool,
    now: DateTime<Utc>,
) -> Result<Vec<PublishedExtract>> {
    std::fs::create_dir_all(extract.join("data")).map_err(|e| Error::io("make the extract's folder", e))?;
    let mut published = Vec::new();
    let mut rows = Vec::new();
    let mut gone = Vec::new();
    for change in changes {
        let rejected = rejected_table(&change.name);
        let TableChange { name, description, data } = change;
        let (mode, mut writer) = match data {
            TableData::Local(writer) => (QueryMode::Local, writer),
            TableData::Materialized(writer) => (QueryMode::Materialized, writer),
            TableData::Remote(remote) => {
                for table in [&name, &rejected] {
                    remove_data(extract, table);
                }
                gone.push(rejected);
                rows.push(MetaRow {
                    name: name.clone(),
                    description,
                    rows: 0,
                    size_bytes: 0,
                    place: Place::Remote(remote),
                });
                published.push(PublishedExtract { name, rows: 0, size_bytes: 0, drift: None, error: None });
                continue;
            }
        };
        let set_aside = std::mem::take(&mut writer.rejected);
        match place(extract, &name, writer) {
            Ok((files, drift)) => {
                let (count, size) = measure(&files)?;
                let place = Place::Files(mode, files);
                rows.push(MetaRow { name: name.clone(), description, rows: count, size_bytes: size, place });
                published.push(PublishedExtract {
                    name: name.clone(),
                    rows: count,
                    size_bytes: size,
                    drift,
                    error: None,
                });
            }
            Err(error) => {
                published.push(PublishedExtract { name, rows: 0, size_bytes: 0, drift: None, error: Some(error) });
                continue;
            }
        }
        match set_aside {
            Rejected::Unknown => {}
            Rejected::None => {
                remove_data(extract, &rejected);
                gone.push(rejected);
            }
            Rejected::Some(staged) => {
                let target = layout::single_file(extract, &rejected);
                staged.publish(&target)?;
                let files = TableFiles { partitioned: false, files: vec![target] };
                let (count, size_bytes) = measure(&files)?;
                let description = Some(format!("rows of `{name}` that do not fit its columns"));
                rows.push(MetaRow {
                    name: rejected,
                    description,
                    rows: count,
                    size_bytes,
                    place: Place::Files(QueryMode::Local, files),
                });
            }
        }
    }
    sync_folder(&extract.join("data"))?;
    write_meta(extract, &rows, &gone, keep, now)?;
    Ok(published)
}

/// Takes tables out of an extract, data and all. Blocks.
///
/// # Errors
/// I/O errors.
pub fn remove_tables(extract: &Path, tables: &[TableName], now: DateTime<Utc>) -> Result<()> {
    let mut gone = Vec::new();
    for table in tables {
        for table in [table.clone(), rejected_table(table)] {
            remove_data(extract, &table);
            drop(std::fs::remove_file(layout::lock_file(extract, &table)));
            gone.push(table);
        }
    }
    write_meta(extract, &[], &gone, &|table| !gone.contains(table), now)
}

struct MetaRow {
    name: TableName,
    description: Option<String>,
    rows: u64,
    size_bytes: u64,
    place: Place,
}

enum Place {
    Files(QueryMode, TableFiles),
    Remote(RemoteRelation),
}

fn measure(files: &TableFiles) -> Result<(u64, u64)> {
    let (mut rows, mut size) = (0, 0);
    for file in &files.files {
        rows += parquet::footer(file)?.rows;
        size += file.metadata().map_err(|e| Error::io("read a Parquet file", e))?.len();
    }
    Ok((rows, size))
}

fn remove_data(extract: &Path, table: &TableName) {
    drop(std::fs::remove_file(layout::single_file(extract, table)));
    drop(std::fs::remove_dir_all(layout::parts_folder(extract, table)));
}

/// The columns of files that are one table.
///
/// # Errors
/// `schema_drift` when no query could read them together.
pub(crate) fn columns_of(files: &[PathBuf]) -> Result<arrow::datatypes::Schema> {
    Ok(drift::union(files.iter().map(|file| drift::schema(file)).collect::<Result<_>>()?)?)
}

/// Moves what the writer holds into place, in the one layout the table then has.
fn place(extract: &Path, table: &TableName, mut writer: TableWriter) -> Result<(TableFiles, Option<SchemaDrift>)> {
    let before = table_files(extract, table)?;
    let (single, folder) = (layout::single_file(extract, table), layout::parts_folder(extract, table));
    let check = |after: &[PathBuf]| -> Result<Option<SchemaDrift>> {
        match &before {
            // Data that cannot be read any more is no measure.
            Some(before) => match columns_of(&before.files) {
                Ok(before) => Ok(drift::compare(&before, &columns_of(after)?)?),
                Err(_) => columns_of(after).map(|_| None),
            },
            None => columns_of(after).map(|_| None),
        }
    };
    if let Some(staged) = writer.single.take() {
        let drift = check(&[staged.path().to_owned()])?;
        readable_by_all(staged.path())?;
        staged.publish(&single)?;
        drop(std::fs::remove_dir_all(&folder));
        return Ok((TableFiles { partitioned: false, files: vec![single] }, drift));
    }
    let Some(parts) = writer.parts.take() else { return Err(ExtractError::NothingWritten.into()) };
    for key in &parts.kept {
        let name = format!("{key}.parquet");
        fault_point()
            .and_then(|()| std::fs::hard_link(folder.join(&name), parts.folder.join(&name)))
            .map_err(|e| Error::io("keep a part", e))?;
    }
    let staged = layout_files(&parts.folder)?;
    if staged.is_empty() {
        return Err(ExtractError::NothingWritten.into());
    }
    let drift = check(&staged)?;
    for key in parts.written.keys() {
        readable_by_all(&parts.folder.join(format!("{key}.parquet")))?;
    }
    sync_folder(&parts.folder)?;
    exchange_folders(&parts.folder, &folder)?;
    drop(std::fs::remove_file(&single));
    Ok((TableFiles { partitioned: true, files: layout_files(&folder)? }, drift))
}

/// Mode 0644, as readers of other accounts need it.
fn readable_by_all(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
            .map_err(|e| Error::io("set the mode of a Parquet file", e))?;
    }
    Ok(())
}

/// Writes `extract.duckdb` anew from the last one: `rows` replaced, `gone` dropped, the
/// rest kept as `keep` says.
fn write_meta(
    extract: &Path,
    rows: &[MetaRow],
    gone: &[TableName],
    keep: &dyn Fn(&TableName) -> bool,
    now: DateTime<Utc>,
) -> Result<()> {
    let target = extract.join("extract.duckdb");
    let staged = Staged::beside(&target)?;
    // Only a file that reads as an extract is worth continuing.
    let previous = match target.is_file() {
        true => super::read_extract(extract).ok(),
        false => None,
    };
    if previous.is_some() {
        fault_point()
            .and_then(|()| std::fs::copy(&target, staged.path()).map(drop))
            .map_err(|e| Error::io("copy the extract", e))?;
    }
    let mut dropped: Vec<String> = gone.iter().map(ToString::to_string).collect();
    for row in previous.iter().flat_map(|p| &p.meta) {
        let kept = TableName::parse(&row.table_name).is_ok_and(|name| {
            keep(&name)
                && (row.query_mode == "remote" || table_files(extract, &name).is_ok_and(|files| files.is_some()))
        });
        if !kept {
            dropped.push(row.table_name.clone());
        }
    }
    let remotes: Vec<&RemoteRelation> = rows
        .iter()
        .filter_map(|row| match &row.place {
            Place::Remote(remote) => Some(remote),
            Place::Files(..) => None,
        })
        .collect();
    let write = || -> ::duckdb::Result<()> {
        let conn = ::duckdb::Connection::open(staged.path())?;
        shape_remotes(&conn, &remotes)?;
        conn.execute_batch(
            "BEGIN; CREATE TABLE IF NOT EXISTS _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, \
             size_bytes BIGINT, extracted_at TIMESTAMP, query_mode VARCHAR);",
        )?;
        for name in &dropped {
            conn.execute("DELETE FROM _meta WHERE table_name = ?", [name])?;
            conn.execute_batch(&format!("DROP VIEW IF EXISTS {}", quote_ident(name)))?;
        }
        for row in rows {
            conn.execute("DELETE FROM _meta WHERE table_name = ?", [row.name.as_str()])?;
            conn.execute(
                "INSERT INTO _meta VALUES (?, ?, ?, ?, ?, ?)",
                ::duckdb::params![
                    row.name.as_str(),
                    row.description,
                    i64::try_from(row.rows).unwrap_or(i64::MAX),
                    i64::try_from(row.size_bytes).unwrap_or(i64::MAX),
                    now.naive_utc().format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
                    match &row.place {
                        Place::Files(mode, _) => mode.as_str(),
                        Place::Remote(_) => QueryMode::Remote.as_str(),
                    },
                ],
            )?;
            let files = match &row.place {
                Place::Files(_, files) => files,
                Place::Remote(remote) => {
                    write_remote(&conn, &row.name, remote)?;
                    continue;
                }
            };
            let scan = if files.partitioned {
                let glob = layout::parts_folder(extract, &row.name).join("*.parquet");
                format!(
                    "read_parquet({}, union_by_name=true, hive_partitioning=false)",
                    quote_literal(&glob.to_string_lossy())
                )
            } else {
                format!("read_parquet({})", quote_literal(&layout::single_file(extract, &row.name).to_string_lossy()))
            };
            conn.execute_batch(&format!("CREATE OR REPLACE VIEW {} AS SELECT * FROM {scan}", row.name.quoted()))?;
        }
        if !remotes.is_empty() || previous.as_ref().is_some_and(|p| !p.attaches.is_empty()) {
            let used = "SELECT 1 FROM _meta WHERE query_mode = 'remote'";
            conn.execute_batch(&format!("DELETE FROM _remote_attach WHERE NOT EXISTS ({used})"))?;
        }
        conn.execute_batch("COMMIT; CHECKPOINT;")?;
        conn.close().map_err(|(_, e)| e)
    };
    let written = fault_point()
        .map_err(|e| Error::io("write the extract", e))
        .and_then(|()| write().map_err(|e| engine_error("write the extract", &e)));
    let mut wal = staged.path().as_os_str().to_owned();
    wal.push(".wal");
    drop(std::fs::remove_file(&wal));
    written?;
    readable_by_all(staged.path())?;
    staged.sync()?;
    drop(std::fs::remove_file(extract.join("extract.duckdb.wal")));
    staged.publish(&target)?;
    sync_folder(extract)
}

/// Makes empty relations of the shape of those that are elsewhere: a view is bound when it is
/// made. A transaction writes to one database, so this comes before it.
fn shape_remotes(conn: &::duckdb::Connection, remotes: &[&RemoteRelation]) -> ::duckdb::Result<()> {
    for remote in remotes {
        let alias = quote_ident(&remote.attach.alias);
        let columns: Vec<_> =
            remote.columns.iter().map(|(name, kind)| format!("{} {kind}", quote_ident(name))).collect();
        conn.execute_batch(&format!(
            "ATTACH IF NOT EXISTS ':memory:' AS {alias}; CREATE SCHEMA IF NOT EXISTS {alias}.{schema}; \
             CREATE TABLE IF NOT EXISTS {alias}.{schema}.{table} ({})",
            columns.join(", "),
            schema = quote_ident(&remote.schema),
            table = quote_ident(&remote.table),
        ))?;
    }
    if !remotes.is_empty() {
        conn.execute_batch(
            "CREATE TABLE IF NOT EXISTS _remote_attach(alias VARCHAR, extension VARCHAR, url VARCHAR, token_env VARCHAR)",
        )?;
    }
    Ok(())
}

/// Writes the row of `_remote_attach` and the view of a relation that is elsewhere.
fn write_remote(conn: &::duckdb::Connection, name: &TableName, remote: &RemoteRelation) -> ::duckdb::Result<()> {
    let attach = &remote.attach;
    conn.execute("DELETE FROM _remote_attach WHERE alias = ?", [&attach.alias])?;
    conn.execute(
        "INSERT INTO _remote_attach VALUES (?, ?, ?, ?)",
        [&attach.alias, &attach.extension, &attach.url, &attach.token_env],
    )?;
    let relation = [&attach.alias, &remote.schema, &remote.table].map(|part| quote_ident(part)).join(".");
    conn.execute_batch(&format!("CREATE OR REPLACE VIEW {} AS SELECT * FROM {relation}", name.quoted()))
}

/// Deletes what interrupted writers left in the folder of one source.
pub(crate) fn sweep(extract: &Path) {
    fsio::sweep(extract, 2);
}

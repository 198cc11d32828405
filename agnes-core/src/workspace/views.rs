//! `user/duckdb/analytics.duckdb`: a view for each table and snapshot, beside what its owner keeps
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::assets::backup_of;
use super::plan::stamp;
use super::{SyncState, Workspace, WorkspaceError};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio::temporary;
use crate::ident::{quote_ident, quote_literal};

/// What is done when it fails.
const OPEN: &str = "open the database of the workspace";

/// `(name, type, nullable)`.
pub(super) type Columns = Vec<(String, String, bool)>;

/// What was made.
#[derive(Debug, Default)]
pub(super) struct MadeViews {
    /// Views of Agnes in the database now.
    pub(super) views: BTreeSet<String>,
    /// Columns of them.
    pub(super) columns: BTreeMap<String, Columns>,
    /// Tables and snapshots without a view, and why.
    pub(super) warnings: Vec<String>,
    /// The views are still those of before.
    pub(super) is_late: bool,
    /// Size and time of the database with them.
    pub(super) database: Option<(u64, i64)>,
}

/// A relation of the database that is its owner's.
#[derive(Debug, Clone)]
pub(super) struct OwnRelation {
    pub(super) name: String,
    pub(super) is_view: bool,
    pub(super) columns: Columns,
}

fn open(path: &Path, mode: ::duckdb::AccessMode) -> ::duckdb::Result<::duckdb::Connection> {
    let config = ::duckdb::Config::default()
        .access_mode(mode)?
        .with("autoinstall_known_extensions", "false")?
        .with("autoload_known_extensions", "false")?
        .threads(2)?;
    ::duckdb::Connection::open_with_flags(path, config)
}

fn scan(files: &[PathBuf], partitioned: bool) -> String {
    let files: Vec<String> = files.iter().map(|path| quote_literal(&path.to_string_lossy())).collect();
    let union = if partitioned { ", union_by_name=true" } else { "" };
    format!("read_parquet([{}]{union}, hive_partitioning=false)", files.join(", "))
}

impl Workspace {
    /// Snapshots that are kept here, by name.
    pub(super) fn snapshot_files(&self) -> BTreeMap<String, PathBuf> {
        let entries = std::fs::read_dir(self.snapshots()).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "parquet"));
        files.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path.clone()))).collect()
    }

    /// Makes all views of Agnes anew, in one transaction; `ours` are those that may be there.
    pub(super) fn publish_views(&self, state: &SyncState, ours: &BTreeSet<String>) -> Result<MadeViews> {
        let path = self.database();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make the folder of the database", e))?;
        }
        let (hidden, snapshots): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.snapshot_files().into_iter().partition(|(name, _)| state.table(name).is_some());
        let mut wanted: BTreeMap<String, String> =
            snapshots.into_iter().map(|(name, file)| (name, scan(&[file], false))).collect();
        for (name, table) in &state.tables {
            let files: Vec<PathBuf> = table.files.iter().map(|file| self.blob(&file.blob)).collect();
            wanted.insert(name.clone(), scan(&files, table.partitioned));
        }
        let mut made = match open(&path, ::duckdb::AccessMode::ReadWrite) {
            Ok(conn) => make(&conn, &wanted, ours).map_err(|e| engine_error("make the views of the workspace", &e)),
            Err(error) if is_lock(&error) => self.beside(&path, &wanted, ours),
            Err(error) => self.anew(&path, &wanted, ours, &error),
        }?;
        let tell =
            |name: String| format!("there is a table `{name}` now: queries mean it, not the snapshot of that name");
        made.warnings.extend(hidden.into_keys().map(tell));
        made.database = self.database_stamp().filter(|_| !made.is_late);
        Ok(made)
    }

    /// The database does not open: it is kept under another name, and a new one takes its place.
    fn anew(
        &self,
        path: &Path,
        wanted: &BTreeMap<String, String>,
        ours: &BTreeSet<String>,
        error: &::duckdb::Error,
    ) -> Result<MadeViews> {
        if let Some(failure) = of_this_moment(error) {
            return Err(failure);
        }
        tracing::warn!("the database of the workspace cannot be opened: {error}");
        let aside = backup_of(path)?;
        // The log first: a new database must not find that of an old one.
        for (from, to) in [(log_of(path), log_of(&aside)), (path.to_owned(), aside.clone())] {
            match std::fs::rename(from, to) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("keep the old database of the workspace", e));
                }
                _ => {}
            }
        }
        let conn = open(path, ::duckdb::AccessMode::ReadWrite).map_err(|e| engine_error(OPEN, &e))?;
        let mut made = make(&conn, wanted, ours).map_err(|e| engine_error("make the views of the workspace", &e))?;
        let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        made.warnings.push(format!(
            "`user/duckdb/analytics.duckdb` could not be opened: a new one has the views; the old one, with the tables of \
             your own that were in it, is kept as `user/duckdb/{name}`"
        ));
        Ok(made)
    }

    /// Size and time of the database, where it is there and opens. It is only opened where it changed since
    /// that was last known: that takes longer than all else that a pull does where nothing changed.
    pub(super) fn good_database(&self, state: &SyncState) -> Option<(u64, i64)> {
        let found = self.database_stamp().filter(|(size, _)| *size > 0)?;
        let opens = || match open(&self.database(), ::duckdb::AccessMode::ReadOnly) {
            Ok(_) => true,
            // Somebody could open it.
            Err(error) => is_lock(&error),
        };
        (state.database == Some(found) || opens()).then_some(found)
    }

    fn database_stamp(&self) -> Option<(u64, i64)> {
        stamp(&std::fs::canonicalize(self.database()).ok()?)
    }

    /// Somebody has the database open. Those who only read keep the file they have; who writes
    /// would lose what they write, so then the views stay as they are.
    fn beside(&self, path: &Path, wanted: &BTreeMap<String, String>, ours: &BTreeSet<String>) -> Result<MadeViews> {
        if open(path, ::duckdb::AccessMode::ReadOnly).is_err() {
            let warning = "`user/duckdb/analytics.duckdb` is open in another program that writes: its views are made anew \
                           by the first `agnes pull` after it is closed";
            return Ok(MadeViews {
                views: ours.clone(),
                warnings: vec![warning.to_owned()],
                is_late: true,
                ..MadeViews::default()
            });
        }
        let copy = temporary(path);
        std::fs::copy(path, &copy).map_err(|e| Error::io("copy the database of the workspace", e))?;
        let made = open(&copy, ::duckdb::AccessMode::ReadWrite).and_then(|conn| make(&conn, wanted, ours));
        let _ = std::fs::remove_file(log_of(&copy));
        let made = made.map_err(|e| engine_error("make the views of the workspace", &e));
        let swapped = made.and_then(|made| {
            std::fs::rename(&copy, path).map_err(|e| Error::io("publish the database of the workspace", e))?;
            Ok(made)
        });
        let _ = std::fs::remove_file(&copy);
        swapped
    }

    /// Views in the database that look as those of Agnes do, for a workspace whose state is lost: taken for
    /// the owner's own they would show what was pulled then for ever. None of a database that is damaged:
    /// a new one takes its place.
    ///
    /// # Errors
    /// `workspace_database_in_use` where another process writes to it, `disk_full`.
    pub(super) fn views_like_ours(&self) -> Result<BTreeSet<String>> {
        let sql = r"SELECT view_name FROM duckdb_views()
                    WHERE schema_name = 'main' AND NOT internal AND database_name = current_database()
                    AND regexp_matches(sql, ' AS SELECT \* FROM read_parquet\(.*/(\.agnes/blobs|user/snapshots)/.*hive_partitioning')";
        let read = || -> ::duckdb::Result<BTreeSet<String>> {
            open(&self.database(), ::duckdb::AccessMode::ReadOnly)?
                .prepare(sql)?
                .query_map([], |row| row.get(0))?
                .collect()
        };
        if !self.database().is_file() {
            return Ok(BTreeSet::new());
        }
        read().or_else(|error| match of_this_moment(&error) {
            _ if is_lock(&error) => Err(WorkspaceError::DatabaseInUse.into()),
            Some(failure) => Err(failure),
            None => Ok(BTreeSet::new()),
        })
    }

    /// Tables and views of the owner's own in the database; nothing where it cannot be opened now.
    pub(super) fn own_relations(&self, state: &SyncState) -> Vec<OwnRelation> {
        let read = || -> ::duckdb::Result<Vec<OwnRelation>> {
            let conn = open(&self.database(), ::duckdb::AccessMode::ReadOnly)?;
            let mut columns = columns(&conn)?;
            let own = existing(&conn)?.into_iter().filter(|(name, _)| !state.views.contains(name));
            let own = own.map(|(name, is_view)| {
                let columns = columns.remove(&name).unwrap_or_default();
                OwnRelation { name, is_view, columns }
            });
            Ok(own.collect())
        };
        if !self.database().is_file() {
            return Vec::new();
        }
        read().unwrap_or_else(|error| {
            tracing::warn!("the database of the workspace cannot be read: {error}");
            Vec::new()
        })
    }
}

/// Where the engine keeps what is not in a database file yet.
fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push(".wal");
    log.into()
}

/// Why a database does not open now, where that says nothing about the database.
fn of_this_moment(error: &::duckdb::Error) -> Option<Error> {
    let failure = engine_error(OPEN, error);
    (failure.code() == "disk_full" || error.to_string().contains("Too many open files")).then_some(failure)
}

/// Whether another process has the file.
fn is_lock(error: &::duckdb::Error) -> bool {
    let text = error.to_string();
    text.contains("lock on file") || text.contains("Could not set lock")
}

fn existing(conn: &::duckdb::Connection) -> ::duckdb::Result<BTreeMap<String, bool>> {
    let sql = "SELECT table_name, false FROM duckdb_tables() WHERE schema_name = 'main' AND database_name = current_database() \
               UNION ALL SELECT view_name, true FROM duckdb_views() \
               WHERE schema_name = 'main' AND NOT internal AND database_name = current_database()";
    conn.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Columns of everything in the database.
fn columns(conn: &::duckdb::Connection) -> ::duckdb::Result<BTreeMap<String, Columns>> {
    let sql = "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() \
               WHERE schema_name = 'main' AND NOT internal AND database_name = current_database() \
               ORDER BY table_name, column_index";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, (row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, bool>(3)?)))
    })?;
    let mut all: BTreeMap<String, Columns> = BTreeMap::new();
    for row in rows {
        let (table, column) = row?;
        all.entry(table).or_default().push(column);
    }
    Ok(all)
}

fn make(
    conn: &::duckdb::Connection,
    wanted: &BTreeMap<String, String>,
    ours: &BTreeSet<String>,
) -> ::duckdb::Result<MadeViews> {
    let there = existing(conn)?;
    let mut made = MadeViews::default();
    let mut bad: BTreeSet<&str> = BTreeSet::new();
    'again: loop {
        conn.execute_batch("BEGIN")?;
        let drops = there.iter().filter(|(name, is_view)| **is_view && ours.contains(*name));
        let drops: String = drops.map(|(name, _)| format!("DROP VIEW {};", quote_ident(name))).collect();
        conn.execute_batch(&drops)?;
        for (name, scan) in wanted.iter().filter(|(name, _)| !bad.contains(name.as_str())) {
            let taken = there.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            if taken.is_some_and(|(other, is_view)| !is_view || !ours.contains(other)) {
                let what = format!("`{name}` in the database is your own: the table of that name has no view");
                if !made.warnings.contains(&what) {
                    made.warnings.push(what);
                }
                continue;
            }
            if let Err(error) =
                conn.execute_batch(&format!("CREATE VIEW {} AS SELECT * FROM {scan}", quote_ident(name)))
            {
                tracing::warn!(table = name, "a view cannot be made: {error}");
                made.warnings.push(format!("the file of `{name}` cannot be read: it has no view"));
                bad.insert(name);
                made.views.clear();
                conn.execute_batch("ROLLBACK")?;
                continue 'again;
            }
            made.views.insert(name.clone());
        }
        conn.execute_batch("COMMIT")?;
        break;
    }
    made.columns = columns(conn)?;
    Ok(made)
}

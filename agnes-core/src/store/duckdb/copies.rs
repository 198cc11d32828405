//! Copies of a state file, and the proof that they hold what the file holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::duckdb::{AccessMode, Config, Connection, params};

use super::{StateError, has_bytes, schema, wal_of};
use crate::duck::engine_error;
use crate::error::{Error, Result};
use crate::extract::fsio;
use crate::ident::quote_ident;

/// What a state file holds: its version, and the rows of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) version: i32,
    pub(super) rows: BTreeMap<String, i64>,
}

impl Contents {
    /// Of the file that `conn` has open.
    pub(super) fn of(conn: &Connection) -> Result<Self> {
        let read = || Ok(Self { version: schema::version(conn)?, rows: rows(conn, None)? });
        read().map_err(|e| engine_error("count the rows of the state", &e))
    }
}

/// Opens a state file for reading. What its write-ahead log holds is there too.
pub(super) fn read_only(path: &Path) -> ::duckdb::Result<Connection> {
    let config = Config::default()
        .access_mode(AccessMode::ReadOnly)?
        .with("autoinstall_known_extensions", "false")?
        .with("autoload_known_extensions", "false")?
        .threads(1)?;
    Connection::open_with_flags(path, config)
}

/// Copies the file at `from`, complete after a checkpoint, to `to`; the caller keeps
/// everybody from writing. Verify it afterwards.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fsio::copy_file("copy the state", from, to)?;
    let wal = wal_of(from);
    if has_bytes(&wal) {
        fsio::copy_file("copy the state", &wal, &wal_of(to))?;
    }
    Ok(())
}

/// Opens the copy at `path` and reads every value in it, so that each block's checksum is
/// tried; `expected` is what must be in it, when that is known.
///
/// # Errors
/// `state_copy_broken`.
pub(super) fn verify(path: &Path, expected: Option<&Contents>) -> Result<Contents> {
    let read = || -> ::duckdb::Result<Contents> {
        let conn = read_only(path)?;
        let found = Contents { version: schema::version(&conn)?, rows: rows(&conn, None)? };
        for table in found.rows.keys() {
            let sql = format!("SELECT bit_xor(hash(t)) FROM main.{} t", quote_ident(table));
            conn.query_row(&sql, [], |_| Ok(()))?;
        }
        Ok(found)
    };
    let found = read().map_err(|error| {
        tracing::error!("a copy of the state cannot be read: {error}");
        StateError::CopyBroken
    })?;
    if expected.is_some_and(|expected| *expected != found) {
        tracing::error!(?expected, ?found, "a copy of the state does not hold what the state holds");
        return Err(StateError::CopyBroken.into());
    }
    Ok(found)
}

/// `path` with `suffix` at its end.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder a state file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames and makes the new name durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fsio::fault_point().and_then(|()| std::fs::rename(from, to)).map_err(|e| Error::io("put the state in place", e))?;
    fsio::sync_folder(folder_of(to))
}

/// Tables in `schema`, of the named database or the current one.
pub(super) fn tables(conn: &Connection, schema: &str, database: Option<&str>) -> ::duckdb::Result<Vec<String>> {
    conn.prepare(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = ? AND database_name = coalesce(?, current_database()) \
         AND NOT internal ORDER BY table_name",
    )?
    .query_map(params![schema, database], |row| row.get(0))?
    .collect()
}

/// Rows of each table, of the named database or the current one.
pub(super) fn rows(conn: &Connection, database: Option<&str>) -> ::duckdb::Result<BTreeMap<String, i64>> {
    let place = database.map_or("main".to_owned(), |db| format!("{db}.main"));
    let count = |table: String| {
        let sql = format!("SELECT count(*) FROM {place}.{}", quote_ident(&table));
        let rows = conn.query_row(&sql, [], |row| row.get(0))?;
        Ok((table, rows))
    };
    tables(conn, "main", database)?.into_iter().map(count).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_copy_is_read_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("system.duckdb"), folder.path().join("copy.duckdb"));
        drop(super::super::DuckStore::open(&path, chrono::Utc::now()).unwrap());
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "INSERT INTO sync_history SELECT uuid()::VARCHAR, md5(i::VARCHAR), now()::TIMESTAMP, i, 1, 'ok', uuid()::VARCHAR \
             FROM range(3000) r(i); CHECKPOINT",
        )
        .unwrap();
        let held = Contents::of(&conn).unwrap();
        conn.close().unwrap();
        copy(&path, &to).unwrap();
        assert_eq!(verify(&to, Some(&held)).unwrap(), held);
        // A row more or less.
        let mut other = held.clone();
        other.rows.insert("sync_history".to_owned(), 2_999);
        assert_eq!(verify(&to, Some(&other)).unwrap_err().code(), "state_copy_broken");
        // A flipped bit in the middle, which neither the size nor the row count shows.
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&to).unwrap();
        let mut found = 0;
        let blocks = file.metadata().unwrap().len() / 4096;
        for at in (16..blocks).step_by(usize::try_from(blocks / 20).unwrap()).map(|block| block * 4096) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            found += i32::from(verify(&to, Some(&held)).is_err_and(|e| e.code() == "state_copy_broken"));
            file.write_all_at(&byte, at).unwrap();
        }
        assert!(found > 3, "only {found} damaged copies were noticed");
        assert_eq!(verify(&to, Some(&held)).unwrap(), held);
    }
}

//! Files of engine extensions: which one speaks to a kind of source, and loading it, its signature
//! checked once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::FileSignature;
use super::attach::{AttachError, AttachPolicy};
use super::blobs::signature;
use crate::ident::{quote_ident, quote_literal};

/// How a database extension is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    MySql,
    Sqlite,
    Other,
}

impl Engine {
    pub(super) fn of(extension: &str) -> Self {
        match extension.to_ascii_lowercase().as_str() {
            "postgres" | "postgres_scanner" => Self::Postgres,
            "mysql" | "mysql_scanner" => Self::MySql,
            "sqlite" | "sqlite_scanner" => Self::Sqlite,
            _ => Self::Other,
        }
    }
}

/// Extension files whose signature the engine has checked in this process, as they looked then.
/// It would check 40 MB at every load: a fifth of a second.
static CHECKED: Mutex<BTreeMap<PathBuf, FileSignature>> = Mutex::new(BTreeMap::new());

fn checked(file: &Path) -> Option<FileSignature> {
    CHECKED.lock().unwrap_or_else(PoisonError::into_inner).get(file).copied()
}

/// A file whose signature was checked, and how it looked then.
pub(crate) type CheckedFile = (PathBuf, FileSignature);

/// Files of these extensions whose signatures were checked in this process, and which are as they
/// were. `None` where one of them still has to be checked.
pub(crate) fn checked_files(extensions: &[String], policy: &AttachPolicy) -> Option<Vec<CheckedFile>> {
    let one = |extension: &String| {
        let file = file_of(extension, policy)?;
        let then = checked(&file).filter(|then| signature(&file).ok() == Some(*then))?;
        Some((file, then))
    };
    extensions.iter().map(one).collect()
}

/// Takes over what another process of this program has checked: a server from its workers before
/// they read any query, a worker from its server.
pub(crate) fn take_over_checked(files: impl IntoIterator<Item = CheckedFile>) {
    CHECKED.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
}

/// The file of an extension in the operator's folder.
fn file_of(extension: &str, policy: &AttachPolicy) -> Option<PathBuf> {
    let name = name_of(extension);
    let file = policy.extension_folder.as_ref().map(|folder| folder.join(format!("{name}.duckdb_extension")));
    file.filter(|file| file.is_file())
}

fn name_of(extension: &str) -> &str {
    match Engine::of(extension) {
        Engine::Postgres => "postgres_scanner",
        Engine::MySql => "mysql_scanner",
        Engine::Sqlite => "sqlite_scanner",
        Engine::Other => extension,
    }
}

/// Loads the file of an extension. Blocks.
///
/// # Errors
/// [`AttachError::ExtensionMissing`].
pub(crate) fn load(conn: &::duckdb::Connection, extension: &str, policy: &AttachPolicy) -> Result<(), AttachError> {
    let missing = || AttachError::ExtensionMissing { extension: extension.to_owned() };
    let loaded = match file_of(extension, policy) {
        Some(file) => load_file(conn, &file),
        None => {
            let name = quote_ident(name_of(extension));
            if policy.allow_install {
                drop(conn.execute_batch(&format!("INSTALL {name}")));
            }
            conn.execute_batch(&format!("LOAD {name}")).map_err(|error| error.to_string())
        }
    };
    // What 1.5.5 pushes to MySQL fails for views, and is sorted by MySQL's collation.
    let loaded = loaded.and_then(|()| match Engine::of(extension) {
        Engine::MySql => conn
            .execute_batch(
                "SET GLOBAL mysql_aggregate_pushdown_enabled=false; SET GLOBAL mysql_order_pushdown_enabled=false",
            )
            .map_err(|error| error.to_string()),
        _ => Ok(()),
    });
    loaded.map_err(|error| {
        tracing::debug!(extension, "an extension cannot be loaded: {error}");
        missing()
    })
}

/// Loads one file, whose signature the engine checks now or has checked before.
fn load_file(conn: &::duckdb::Connection, file: &Path) -> Result<(), String> {
    let unsigned = "SELECT current_setting('allow_unsigned_extensions')";
    let unsigned: bool = conn.query_row(unsigned, [], |row| row.get(0)).map_err(|error| error.to_string())?;
    let before = signature(file).map_err(|error| error.to_string())?;
    if unsigned && checked(file) != Some(before) {
        return Err("it changed since it was checked".to_owned());
    }
    let load = format!("LOAD {}", quote_literal(&file.to_string_lossy()));
    conn.execute_batch(&load).map_err(|error| error.to_string())?;
    if signature(file).map_err(|error| error.to_string())? != before {
        return Err("it changed while it was loaded".to_owned());
    }
    if !unsigned {
        CHECKED.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), before);
    }
    Ok(())
}

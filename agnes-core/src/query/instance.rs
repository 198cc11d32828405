//! A locked engine instance for one grant set: the catalog wall and the engine wall.
//!
//! It holds views over the granted blobs and nothing else: what was not granted is not
//! there to be named. External access is closed but for those files, extensions cannot be
//! loaded, and the configuration is locked and then read back: an instance that does not
//! look as it should serves nobody. What this does not close (a granted file is writable to
//! SQL that writes, `memory_limit` is no ceiling for one function call) is refused by the
//! parser wall and, for files, by their mode.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use super::runtime::{GrantSet, QueryLimits, Relation};
use super::{QueryError, rows};
use crate::duck::{EngineFailure, MemoryConn, MemoryDb};
use crate::error::{Error, Result};
use crate::ident::{quote_ident, quote_literal};
use crate::sandbox::{Checked, SystemRelation};

/// The thread that reads a result: the engine counts it among its own, yet what it does most
/// is to hand rows over.
const READS: usize = 1;

/// A locked instance.
#[derive(Debug)]
pub(crate) struct Instance {
    db: Arc<MemoryDb>,
    set: Arc<GrantSet>,
    /// Makes views when they are first referenced; with the names that exist.
    maker: Mutex<(MemoryConn, HashSet<String>)>,
    /// Whether rows may wait in memory that no limit counts: a worker process has none to spare.
    pub(super) ahead: bool,
    /// Private spill folder, deleted with the instance.
    _spill: Option<TempDir>,
}

fn fault(failure: EngineFailure) -> Error {
    Error::from(failure)
}

/// Whether the engine's own settings keep it from files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wall {
    /// They do, and were read back.
    Closed,
    /// They do not: to show in tests what the walls behind this one hold.
    Open,
}

/// An engine with nothing in it, before any lock. One thread, so that whoever opened it can
/// still confine the whole process. With `checked`, extensions are loaded without looking at their
/// signatures until [`Instance::seal`]: they were checked before.
pub(crate) fn open_engine(checked: bool) -> Result<Arc<MemoryDb>> {
    MemoryDb::open(&[
        ("threads", "1"),
        ("allow_unsigned_extensions", if checked { "true" } else { "false" }),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_persistent_secrets", "false"),
    ])
    .map_err(fault)
}

impl Instance {
    /// Opens and locks one.
    pub(super) fn open(
        set: Arc<GrantSet>,
        limits: &QueryLimits,
        scratch: &Path,
        before_lock: impl FnOnce(&MemoryConn, &Arc<MemoryDb>) -> Result<Vec<String>>,
    ) -> Result<Self> {
        Self::lock(open_engine(false)?, set, limits, scratch, before_lock)
    }

    /// Locks an engine of [`open_engine`]. `before_lock` runs while everything is still open; it
    /// returns the addresses it attached, which the engine keeps open by itself.
    pub(super) fn lock(
        db: Arc<MemoryDb>,
        set: Arc<GrantSet>,
        limits: &QueryLimits,
        scratch: &Path,
        before_lock: impl FnOnce(&MemoryConn, &Arc<MemoryDb>) -> Result<Vec<String>>,
    ) -> Result<Self> {
        std::fs::create_dir_all(scratch).map_err(|e| Error::io("make the scratch folder", e))?;
        let spill = tempfile::Builder::new()
            .prefix("spill-")
            .tempdir_in(scratch)
            .map_err(|e| Error::io("make a spill folder", e))?;
        let limits = QueryLimits { threads: limits.threads + READS, ..*limits };
        let instance = Self::seal(db, set, &limits, spill.path(), Wall::Closed, before_lock)?;
        Ok(Self { _spill: Some(spill), ahead: true, ..instance })
    }

    /// Locks an engine of [`open_engine`]; its spill files go into `spill`.
    pub(crate) fn seal(
        db: Arc<MemoryDb>,
        set: Arc<GrantSet>,
        limits: &QueryLimits,
        spill: &Path,
        wall: Wall,
        before_lock: impl FnOnce(&MemoryConn, &Arc<MemoryDb>) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let conn = db.connect().map_err(fault)?;
        let attached = before_lock(&conn, &db)?;
        let blobs: Vec<String> = set
            .relations
            .values()
            .flat_map(|relation| &relation.blobs)
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let paths: Vec<String> = blobs.iter().map(|path| quote_literal(path)).collect();
        let spill_dir = quote_literal(&spill.to_string_lossy());
        let (utc, threads, memory, quota) =
            (crate::duck::utc(), limits.threads, limits.memory_bytes, limits.spill_bytes);
        let close = match wall {
            Wall::Closed => format!(
                "SET allowed_paths=[{}]; SET enable_external_access=false; \
                 SET allowed_configs=['streaming_buffer_size']; SET lock_configuration=true",
                paths.join(", ")
            ),
            Wall::Open => String::new(),
        };
        conn.execute(&format!(
            "{utc} SET allow_unsigned_extensions=false; SET threads={threads}; SET memory_limit='{memory}B'; SET temp_directory={spill_dir}; \
             SET max_temp_directory_size='{quota}B'; SET enable_external_file_cache=false; \
             SET parquet_metadata_cache=true; {close}",
        ))
        .map_err(fault)?;
        let open = blobs.into_iter().chain(
            attached
                .iter()
                .flat_map(|url| ["", ".wal", ".wal.checkpoint", ".wal.recovery"].map(|end| format!("{url}{end}"))),
        );
        if wall == Wall::Closed {
            check_sealed(&conn, &open.map(|path| as_listed(&path)).collect())?;
        }
        Ok(Self { db, set, maker: Mutex::new((conn, HashSet::new())), ahead: false, _spill: None })
    }

    /// A connection on which `query` finds all it names.
    pub(super) fn connect(&self, query: &Checked) -> Result<MemoryConn> {
        {
            let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
            let (conn, made) = &mut *maker;
            for system in query.system() {
                if made.insert(system.relation().to_owned()) {
                    self.make_system(conn, *system)?;
                }
            }
            for (name, _) in query.relations() {
                if made.contains(name) {
                    continue;
                }
                // Made before the lock (loaded rows), or not of this instance.
                let Some(relation) = self.set.relations.get(name).filter(|r| !r.blobs.is_empty()) else { continue };
                conn.execute(&view(relation)).map_err(|failure| {
                    tracing::error!(table = name, cause = failure.words(), "a view could not be made");
                    Error::from(QueryError::DataMissing)
                })?;
                made.insert(name.clone());
            }
        }
        self.db.connect().map_err(fault)
    }

    /// Every statement of `sql`, unread; the rows of the last one.
    #[cfg(feature = "testing")]
    pub(super) fn unguarded(
        &self,
        sql: &str,
    ) -> std::result::Result<(arrow::datatypes::SchemaRef, Vec<arrow::record_batch::RecordBatch>), String> {
        self.db.run_any(sql).map_err(|failure| failure.words().to_owned())
    }

    /// Tables that answer questions about the catalog from the grant set alone.
    fn make_system(&self, conn: &MemoryConn, system: SystemRelation) -> Result<()> {
        let relations = self.set.relations.values();
        let name = quote_ident(system.relation());
        let (columns, rows): (&str, Vec<String>) = match system {
            SystemRelation::ShowTables => {
                ("name VARCHAR", relations.map(|r| format!("({})", quote_literal(&r.name))).collect())
            }
            SystemRelation::Tables => (
                "table_catalog VARCHAR, table_schema VARCHAR, table_name VARCHAR, table_type VARCHAR, \
                 self_referencing_column_name VARCHAR, reference_generation VARCHAR, user_defined_type_catalog VARCHAR, \
                 user_defined_type_schema VARCHAR, user_defined_type_name VARCHAR, is_insertable_into VARCHAR, \
                 is_typed VARCHAR, commit_action VARCHAR, \"TABLE_COMMENT\" VARCHAR",
                relations
                    .map(|r| {
                        let comment = r.description.as_deref().map_or_else(|| "NULL".to_owned(), quote_literal);
                        let table = quote_literal(&r.name);
                        format!("('agnes', 'main', {table}, 'VIEW', NULL, NULL, NULL, NULL, NULL, 'NO', 'NO', NULL, {comment})")
                    })
                    .collect(),
            ),
            SystemRelation::Columns => (
                "table_catalog VARCHAR, table_schema VARCHAR, table_name VARCHAR, column_name VARCHAR, \
                 ordinal_position INTEGER, column_default VARCHAR, is_nullable VARCHAR, data_type VARCHAR",
                relations
                    .flat_map(|r| {
                        r.columns.iter().enumerate().map(|(n, (column, kind, nullable))| {
                            format!(
                                "('agnes', 'main', {}, {}, {}, NULL, '{}', {})",
                                quote_literal(&r.name),
                                quote_literal(column),
                                n + 1,
                                if *nullable { "YES" } else { "NO" },
                                quote_literal(kind)
                            )
                        })
                    })
                    .collect(),
            ),
        };
        let mut sql = format!("CREATE TABLE {name} ({columns});");
        for chunk in rows.chunks(1000) {
            sql.push_str(&format!("INSERT INTO {name} VALUES {};", chunk.join(", ")));
        }
        conn.execute(&sql).map_err(fault)
    }
}

fn view(relation: &Relation) -> String {
    let files: Vec<String> = relation.blobs.iter().map(|path| quote_literal(&path.to_string_lossy())).collect();
    let columns: Vec<String> = relation.columns.iter().map(|(name, _, _)| quote_ident(name)).collect();
    let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
    let union = if relation.partitioned { ", union_by_name=true" } else { "" };
    format!(
        "CREATE VIEW {} AS SELECT {columns} FROM read_parquet([{}], hive_partitioning=false{union})",
        quote_ident(&relation.name),
        files.join(", ")
    )
}

/// A path as the engine lists it: absolute, without `.` and `..`.
fn as_listed(path: &str) -> String {
    let mut listed = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.into()).components() {
        match part {
            std::path::Component::ParentDir => drop(listed.pop()),
            std::path::Component::CurDir => {}
            part => listed.push(part),
        }
    }
    listed.to_string_lossy().into_owned()
}

/// Reads the settings back. `open`: what may be open to it, besides its spill folder.
fn check_sealed(conn: &MemoryConn, open: &HashSet<String>) -> Result<()> {
    let expected = [
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_unsigned_extensions", "false"),
        ("allow_persistent_secrets", "false"),
        ("TimeZone", "UTC"),
        ("allowed_directories", "0"),
        ("allowed_configs", "[streaming_buffer_size]"),
    ];
    let expected: Vec<_> =
        expected.into_iter().filter(|(name, _)| *name != "TimeZone" || !crate::duck::utc().is_empty()).collect();
    let columns: Vec<String> = expected
        .iter()
        .map(|(name, _)| match *name {
            // The engine adds the spill folder by itself.
            "allowed_directories" => {
                "CAST(greatest(len(current_setting('allowed_directories')) - 1, 0) AS VARCHAR)".to_owned()
            }
            name => format!("CAST(current_setting('{name}') AS VARCHAR)"),
        })
        .collect();
    let batches = conn.rows(&format!("SELECT {}", columns.join(", "))).map_err(fault)?;
    for (n, (name, value)) in expected.iter().enumerate() {
        if rows::text(&batches, n).first().map(Option::as_deref) != Some(Some(*value)) {
            return Err(QueryError::NotSealed { setting: (*name).to_owned() }.into());
        }
    }
    let paths = conn.rows("SELECT unnest(current_setting('allowed_paths'))").map_err(fault)?;
    if rows::text(&paths, 0).iter().flatten().any(|path| !open.contains(path)) {
        return Err(QueryError::NotSealed { setting: "allowed_paths".to_owned() }.into());
    }
    // The lock holds, and no other file opens.
    for (statement, what) in [
        ("SET memory_limit='1GB'", "lock_configuration"),
        ("SELECT * FROM read_text('/etc/hostname')", "file access"),
        ("INSTALL httpfs", "extensions"),
    ] {
        if conn.execute(statement).is_ok() {
            return Err(QueryError::NotSealed { setting: what.to_owned() }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The engine wall by itself, as if the parser wall let everything through.
    #[test]
    fn a_sealed_instance_reads_its_blobs_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let maker = MemoryDb::open(&[]).unwrap().connect().unwrap();
        for (name, value) in [("granted", "mine"), ("hidden", "secret-value")] {
            let file = quote_literal(&at(&format!("{name}.parquet")));
            maker.execute(&format!("COPY (SELECT '{value}' AS a) TO {file} (FORMAT parquet)")).unwrap();
        }
        std::fs::write(at("other.csv"), "a\nsecret-value\n").unwrap();
        let relation = Relation {
            name: "granted".to_owned(),
            description: None,
            columns: vec![("a".to_owned(), "VARCHAR".to_owned(), true)],
            blobs: vec![at("granted.parquet").into()],
            partitioned: false,
        };
        let set =
            GrantSet { fingerprint: String::new(), relations: BTreeMap::from([("granted".to_owned(), relation)]) };
        let instance =
            Instance::open(Arc::new(set), &QueryLimits::default(), &folder.path().join("tmp"), |_, _| Ok(Vec::new()))
                .unwrap();
        let conn = instance.db.connect().unwrap();
        conn.execute(&view(&instance.set.relations["granted"])).unwrap();
        assert_eq!(rows::text(&conn.rows("SELECT a FROM granted").unwrap(), 0), [Some("mine".to_owned())]);
        let [hidden, csv, new, dir] =
            ["hidden.parquet", "other.csv", "new.csv", ""].map(|name| quote_literal(&at(name)));
        for sql in [
            format!("SELECT * FROM {hidden}"),
            format!("SELECT * FROM read_parquet({hidden})"),
            format!("SELECT * FROM read_parquet([{hidden}])"),
            format!("SELECT * FROM parquet_metadata({hidden})"),
            format!("SELECT * FROM parquet_schema({hidden})"),
            format!("SELECT * FROM read_csv({csv})"),
            format!("SELECT * FROM {csv}"),
            format!("SELECT * FROM read_text({csv})"),
            format!("SELECT * FROM read_blob({csv})"),
            format!("SELECT * FROM read_json({csv})"),
            format!("SELECT * FROM sniff_csv({csv})"),
            format!("SELECT * FROM glob({})", quote_literal(&at("*"))),
            "SELECT * FROM read_text('/etc/passwd')".to_owned(),
            "SELECT * FROM read_text('/proc/self/environ')".to_owned(),
            "SELECT * FROM read_csv('/dev/stdin')".to_owned(),
            "SELECT * FROM read_text('https://127.0.0.1/x')".to_owned(),
            format!("SELECT * FROM read_parquet({})", quote_literal(&at("../*/hidden.parquet"))),
            format!("COPY (SELECT 1) TO {new}"),
            format!("COPY granted TO {hidden} (FORMAT parquet)"),
            format!("EXPORT DATABASE {dir}"),
            format!("ATTACH {} AS x", quote_literal(&at("x.duckdb"))),
            format!("ATTACH {hidden} AS x"),
            "INSTALL httpfs".to_owned(),
            "LOAD httpfs".to_owned(),
            format!("LOAD {csv}"),
            "SET enable_external_access=true".to_owned(),
            "SET lock_configuration=false".to_owned(),
            "SET allowed_paths=['/']".to_owned(),
            "SET allowed_directories=['/']".to_owned(),
            "SET memory_limit='100GB'".to_owned(),
            "SET temp_directory='/tmp'".to_owned(),
            "RESET enable_external_access".to_owned(),
            "SET SESSION TimeZone='Europe/Prague'".to_owned(),
            "CREATE PERSISTENT SECRET s (TYPE http)".to_owned(),
        ] {
            assert!(conn.execute(&sql).is_err(), "{sql}");
        }
        assert!(!std::fs::exists(at("new.csv")).unwrap());
        let text = std::fs::read(at("hidden.parquet")).unwrap();
        assert!(text.windows(12).any(|bytes| bytes == b"secret-value"));
    }

    #[test]
    fn an_instance_that_is_open_is_found_out() {
        let conn = MemoryDb::open(&[]).unwrap().connect().unwrap();
        assert_eq!(check_sealed(&conn, &HashSet::new()).unwrap_err().code(), "instance_not_sealed");
        let settings = "SET TimeZone='UTC'; SET autoinstall_known_extensions=false; SET autoload_known_extensions=false; \
                        SET allow_community_extensions=false; SET allow_persistent_secrets=false; \
                        SET allowed_configs=['streaming_buffer_size'];";
        conn.execute(&format!("{settings} SET allowed_paths=['/etc/hostname', '/etc/passwd']; SET enable_external_access=false; SET lock_configuration=true")).unwrap();
        assert_eq!(
            check_sealed(&conn, &HashSet::from(["/etc/hostname".to_owned()])).unwrap_err().to_string(),
            "an engine instance could not be sealed: `allowed_paths`"
        );
    }
}

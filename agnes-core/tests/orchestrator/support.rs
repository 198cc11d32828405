//! A data folder with extracts that somebody else writes.

use std::path::{Path, PathBuf};

use agnes_core::orchestrator::{Generation, RebuildOutcome, SourceOutcome};
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::{CallContext, Engine, Result};
use arrow::util::display::{ArrayFormatter, FormatOptions};

pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(site.root().join("extracts")).unwrap();
        site
    }

    pub(crate) fn outside(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn extract(&self, source: &str) -> PathBuf {
        self.root().join("extracts").join(source)
    }

    pub(crate) async fn open(&self) -> Engine {
        Engine::builder(self.root()).open().await.unwrap()
    }

    /// Writes a whole extract as a third party does: Parquet, then `extract.duckdb`.
    pub(crate) fn write(&self, source: &str, tables: &[(&str, &str)]) {
        let extract = self.extract(source);
        for (table, select) in tables {
            self.data(source, table, select);
        }
        let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
        write_meta(&extract, &names);
    }

    /// Writes `data/<table>.parquet` beside and renames.
    pub(crate) fn data(&self, source: &str, table: &str, select: &str) {
        let target = self.extract(source).join("data").join(format!("{table}.parquet"));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let staged = target.with_extension("half");
        sql(None, &format!("COPY ({select}) TO '{}' (FORMAT parquet)", staged.display()));
        std::fs::rename(staged, target).unwrap();
    }

    /// A whole `extract.duckdb` made by `statements`.
    pub(crate) fn made_by(&self, source: &str, statements: &str) {
        let extract = self.extract(source);
        std::fs::create_dir_all(extract.join("data")).unwrap();
        let staged = extract.join("extract.duckdb.half");
        drop(std::fs::remove_file(&staged));
        sql(Some(&staged), statements);
        std::fs::rename(staged, extract.join("extract.duckdb")).unwrap();
    }

    pub(crate) fn generation(&self) -> Generation {
        let current = std::fs::read_to_string(self.root().join("analytics/current")).unwrap();
        let number: u64 = current.trim().parse().unwrap();
        let file = self.root().join(format!("analytics/generations/{number:010}.json"));
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }
}

pub(crate) fn sql(file: Option<&Path>, statements: &str) {
    let conn = match file {
        Some(file) => duckdb::Connection::open(file).unwrap(),
        None => duckdb::Connection::open_in_memory().unwrap(),
    };
    conn.execute_batch(statements).unwrap();
    conn.close().unwrap();
}

pub(crate) const META: &str = "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, \
     size_bytes BIGINT, extracted_at TIMESTAMP, query_mode VARCHAR);";

/// `extract.duckdb` with a row and a view for each table whose data is there.
pub(crate) fn write_meta(extract: &Path, tables: &[&str]) {
    std::fs::create_dir_all(extract).unwrap();
    let staged = extract.join("extract.duckdb.half");
    let mut statements = META.to_owned();
    for table in tables {
        let file = extract.join("data").join(format!("{table}.parquet"));
        statements += &format!(
            "INSERT INTO _meta VALUES ('{table}', NULL, 1, 1, TIMESTAMP '2024-01-01', 'local'); \
             CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{}');",
            file.display()
        );
    }
    drop(std::fs::remove_file(&staged));
    sql(Some(&staged), &statements);
    std::fs::rename(staged, extract.join("extract.duckdb")).unwrap();
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

pub(crate) async fn rebuild(engine: &Engine) -> RebuildOutcome {
    engine.orchestrator().rebuild(&owner()).await.unwrap()
}

pub(crate) fn source<'a>(outcome: &'a RebuildOutcome, name: &str) -> &'a SourceOutcome {
    outcome.sources.iter().find(|s| s.source == name).unwrap_or_else(|| panic!("no outcome of {name}: {outcome:?}"))
}

/// `(table, reason)` of what a source has that is not published as it says.
pub(crate) fn skipped(outcome: &RebuildOutcome, name: &str) -> Vec<(String, String)> {
    source(outcome, name).skipped.iter().map(|row| (row.table.clone(), row.reason.clone())).collect()
}

pub(crate) fn pair(table: &str, reason: &str) -> (String, String) {
    (table.to_owned(), reason.to_owned())
}

/// The rows of an answer as text, cells joined by `|`.
pub(crate) async fn ask(engine: &Engine, sql: &str) -> Result<Vec<String>> {
    let mut result = engine.query(&owner(), Query::new(sql)).await?;
    let mut out = Vec::new();
    while let Some(batch) = result.next().await {
        let batch = batch?;
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            out.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    Ok(out)
}

pub(crate) async fn code(engine: &Engine, sql: &str) -> String {
    ask(engine, sql).await.map_or_else(|e| e.code().to_owned(), |rows| format!("answered {rows:?}"))
}

/// Names below `folder` that say that somebody did not finish.
pub(crate) fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".tmp") || name.ends_with(".wal") || name.starts_with("scratch-") {
            found.push(entry.path());
        } else if entry.path().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

/// Every blob of the generation is there, says what its name says, and cannot be written.
pub(crate) fn check_blobs(site: &Site) {
    use sha2::Digest;
    use std::os::unix::fs::PermissionsExt;
    for part in site.generation().tables().flat_map(|t| &t.parts) {
        let blob = site.root().join(format!("analytics/blobs/{}/{}.parquet", &part.sha256[..2], part.sha256));
        let bytes = std::fs::read(&blob).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&sha2::Sha256::digest(&bytes)), part.sha256);
        assert_eq!(hex(&md5::Md5::digest(&bytes)), part.md5);
        assert_eq!(bytes.len() as u64, part.size_bytes);
        assert_eq!(blob.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    }
}

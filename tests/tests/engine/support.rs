//! What the tests share.

use std::path::{Path, PathBuf};

use agnes_core::connector::Progress;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal, ResourceType};
use agnes_core::registry::NewSource;
use agnes_core::sync::{SyncOutcome, SyncRequest, TableOutcome};
use agnes_core::{CallContext, Engine, Result};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// A data folder and a folder of source files, both gone afterwards.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Writes a source file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.files().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) async fn open(&self) -> Engine {
        open(&self.root()).await.unwrap()
    }

    /// Opens the engine and adds the files as source `shop`.
    pub(crate) async fn open_with_source(&self) -> Engine {
        let engine = self.open().await;
        add_files(&engine, "shop", &self.files()).await;
        engine
    }
}

pub(crate) async fn open(root: &Path) -> Result<Engine> {
    Engine::builder(root).connectors(agnes_connectors::builtin()).open().await
}

pub(crate) async fn add_files(engine: &Engine, name: &str, files: &Path) {
    let source = NewSource {
        name: name.to_owned(),
        kind: "files".to_owned(),
        config: serde_json::json!({"path": files}),
        schedule: None,
    };
    engine.sources().add(&owner(), source).await.unwrap();
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

/// A new user in a new group of the same name that may read `tables`.
pub(crate) async fn reader(engine: &Engine, name: &str, tables: &[&str]) -> CallContext {
    let email = format!("{name}@acme.example");
    engine.identity().add_user(&owner(), &email, None).await.unwrap();
    engine.identity().create_group(&owner(), name, None).await.unwrap();
    engine.identity().add_member(&owner(), name, &email).await.unwrap();
    for table in tables {
        engine.identity().grant(&owner(), name, ResourceType::Table, table).await.unwrap();
    }
    CallContext::new(engine.identity().principal_of(&owner(), &email, ClientKind::Api).await.unwrap())
}

pub(crate) async fn sync(engine: &Engine) -> SyncOutcome {
    sync_with(engine, SyncRequest::default()).await
}

pub(crate) async fn sync_with(engine: &Engine, request: SyncRequest) -> SyncOutcome {
    engine.sync().run(&owner(), request, Progress::default()).await.unwrap().outcome.unwrap()
}

pub(crate) fn outcome<'a>(run: &'a SyncOutcome, table: &str) -> &'a TableOutcome {
    run.tables.iter().find(|t| t.table == table).unwrap_or_else(|| panic!("no outcome of {table}: {run:?}"))
}

/// All rows as text, `NULL` for null.
pub(crate) async fn rows(engine: &Engine, ctx: &CallContext, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut result = engine.query(ctx, Query::new(sql)).await?;
    let mut out = Vec::new();
    while let Some(batch) = result.next().await {
        let batch = batch?;
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            out.push(columns.iter().map(|c| c.value(row).to_string()).collect());
        }
    }
    Ok(out)
}

/// The only cell of the only row.
pub(crate) async fn cell(engine: &Engine, ctx: &CallContext, sql: &str) -> Result<String> {
    let rows = rows(engine, ctx, sql).await?;
    assert_eq!((rows.len(), rows.first().map(Vec::len)), (1, Some(1)), "{sql}: {rows:?}");
    Ok(rows[0][0].clone())
}

/// Files below `folder` whose names say that somebody did not finish.
pub(crate) fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(".tmp") || name.starts_with("scratch-") || name.starts_with("spill-") {
                found.push(entry.path());
            } else if entry.path().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found
}

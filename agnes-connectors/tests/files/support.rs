//! A folder of files, and an extract to read it into.

use std::path::PathBuf;
use std::sync::Arc;

use agnes_core::connector::{
    Cancel, Connector, DiscoveredTable, ExtractReport, ExtractRequest, Progress, SourceContext,
};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::extract::{TableChange, TableWriter, publish, table_files};
use agnes_core::ident::{SourceName, TableName, quote_literal};
use agnes_core::registry::{RegisteredTable, SyncStrategy};
use agnes_core::secret::EnvSecrets;
use chrono::Utc;
use serde_json::{Value, json};

pub(crate) struct Bench {
    pub(crate) root: tempfile::TempDir,
    pub(crate) strategy: SyncStrategy,
    pub(crate) cancel: Cancel,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("in")).unwrap();
        Self { root, strategy: SyncStrategy::Incremental, cancel: Cancel::default() }
    }

    /// With one file in it.
    pub(crate) fn with(name: &str, content: impl AsRef<[u8]>) -> Self {
        let bench = Self::new();
        bench.put(name, content);
        bench
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.root.path().join("in")
    }

    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.input().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn extract_folder(&self) -> PathBuf {
        self.root.path().join("extracts/shop")
    }

    pub(crate) fn source(&self, settings: &Value) -> SourceContext {
        let mut config = settings.clone();
        if config.get("path").is_none() {
            config["path"] = json!(self.input());
        }
        let connector = agnes_connectors::files::FilesConnector::new();
        SourceContext {
            name: SourceName::parse("shop").unwrap(),
            config: connector.normalise_config(&config).unwrap(),
            secrets: Arc::new(EnvSecrets),
            attach: Arc::default(),
            timeout: std::time::Duration::from_secs(600),
            scratch: self.root.path().join("tmp"),
            cancel: self.cancel.clone(),
            progress: Progress::default(),
        }
    }

    pub(crate) fn request(&self, files: &str) -> ExtractRequest {
        let name = TableName::parse("t").unwrap();
        let mut table = RegisteredTable::new(&name, "files", &SourceName::parse("shop").unwrap());
        table.source_table = Some(files.to_owned());
        table.sync_strategy = self.strategy;
        ExtractRequest { table, name, cursor: None, last_sync: None, full: false }
    }

    pub(crate) async fn run(&self, request: &ExtractRequest, settings: &Value) -> Result<ExtractReport> {
        self.run_told(request, settings, Progress::default()).await
    }

    pub(crate) async fn run_told(
        &self,
        request: &ExtractRequest,
        settings: &Value,
        progress: Progress,
    ) -> Result<ExtractReport> {
        let connector = agnes_connectors::builtin().get("files").unwrap();
        let source = SourceContext { progress, ..self.source(settings) };
        let writer = TableWriter::new(&self.extract_folder(), request.name.clone());
        let (writer, report) = connector.extract(&source, request, writer).await?;
        if !report.unchanged {
            let change = TableChange { name: request.name.clone(), description: None, data: writer.into() };
            let published = publish(&self.extract_folder(), vec![change], &|_| true, Utc::now())?;
            if let Some(error) = published.into_iter().find_map(|table| table.error) {
                return Err(error);
            }
        }
        assert_eq!(
            std::fs::read_dir(self.root.path().join("tmp")).map_or(0, Iterator::count),
            0,
            "scratch is left behind"
        );
        Ok(report)
    }

    /// Reads `files` as the table `t`.
    pub(crate) async fn read(&self, files: &str, settings: Value) -> Result<ExtractReport> {
        self.run(&self.request(files), &settings).await
    }

    pub(crate) async fn discover(&self, settings: Value) -> Result<Vec<DiscoveredTable>> {
        agnes_connectors::builtin().get("files").unwrap().discover(&self.source(&settings)).await
    }

    fn relation(&self, table: &str) -> Option<String> {
        let files = table_files(&self.extract_folder(), &TableName::parse(table).unwrap()).unwrap()?.files;
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        Some(format!("read_parquet([{}], union_by_name=true, hive_partitioning=false)", files.join(", ")))
    }

    /// Rows of `SELECT {what}` over a published table, cells joined by `|`, null as `-`.
    pub(crate) fn query(&self, table: &str, what: &str) -> Vec<String> {
        let Some(relation) = self.relation(table) else { return vec!["no table".to_owned()] };
        let scratch = self.root.path().join("look");
        let db = ScratchDb::open(&scratch, &ScratchLimits::default()).unwrap();
        let sql = what.replacen("{t}", &relation, 1);
        let sql = if sql == what { format!("SELECT {what} FROM {relation} ORDER BY ALL") } else { sql };
        let rows = db.rows(&sql).unwrap_or_else(|e| panic!("{}", e.words()));
        rows.into_iter()
            .map(|row| row.into_iter().map(|c| c.unwrap_or_else(|| "-".to_owned())).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// Rows of the table `t`.
    pub(crate) fn rows(&self) -> Vec<String> {
        self.query("t", "*")
    }

    /// Names and types of the table `t`.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.query("t", "SELECT column_name || ' ' || column_type FROM (DESCRIBE SELECT * FROM {t})")
    }

    /// Line and column of the rejected rows of the table `t`.
    pub(crate) fn rejected(&self) -> Vec<String> {
        if self.relation("t_rejected").is_none() {
            return Vec::new();
        }
        self.query("t_rejected", "file, line, \"column\"")
    }
}

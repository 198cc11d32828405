//! A source on the fake Storage API, and an extract to read it into.

use std::path::PathBuf;
use std::sync::Arc;

use agnes_connectors::keboola::KeboolaConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::connector::{Cancel, Connector, ExtractReport, ExtractRequest, Progress, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::extract::{TableChange, TableData, TableWriter, publish, table_files};
use agnes_core::ident::{SourceName, TableName, quote_literal};
use agnes_core::registry::{RegisteredTable, SyncStrategy};
use agnes_core::secret::FixedSecrets;
use chrono::Utc;
use serde_json::{Value, json};

use crate::fake::{Fake, TOKEN};

/// A connector that may call this machine.
pub(crate) fn connector() -> KeboolaConnector {
    KeboolaConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])))
}

pub(crate) struct Site {
    pub(crate) fake: Fake,
    pub(crate) root: tempfile::TempDir,
    pub(crate) connector: KeboolaConnector,
    pub(crate) settings: Value,
    pub(crate) token: String,
    pub(crate) cancel: Cancel,
}

impl Site {
    pub(crate) fn new() -> Self {
        let fake = Fake::start();
        let settings = json!({"stack_url": fake.url, "poll_interval_seconds": 0.01, "endpoints": {"gcs": fake.url, "azure": fake.url}});
        let (root, token) = (tempfile::tempdir().unwrap(), TOKEN.to_owned());
        Self { fake, root, connector: connector(), settings, token, cancel: Cancel::default() }
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.path().join("tmp")
    }

    pub(crate) fn source(&self) -> SourceContext {
        SourceContext {
            name: SourceName::parse("shop").unwrap(),
            config: self.connector.normalise_config(&self.settings).unwrap(),
            secrets: Arc::new(FixedSecrets::new([("KEBOOLA_STORAGE_TOKEN", self.token.as_str())])),
            attach: Arc::default(),
            timeout: std::time::Duration::from_secs(600),
            scratch: self.scratch(),
            cancel: self.cancel.clone(),
            progress: Progress::default(),
        }
    }

    pub(crate) fn request(&self, id: &str) -> ExtractRequest {
        let name = TableName::parse("t").unwrap();
        let mut table = RegisteredTable::new(&name, "keboola", &SourceName::parse("shop").unwrap());
        let (bucket, source_table) = id.rsplit_once('.').unwrap();
        (table.bucket, table.source_table) = (Some(bucket.to_owned()), Some(source_table.to_owned()));
        ExtractRequest { table, name, cursor: None, last_sync: None, full: false }
    }

    pub(crate) fn incremental(&self, id: &str) -> ExtractRequest {
        let mut request = self.request(id);
        request.table.sync_strategy = SyncStrategy::Incremental;
        request
    }

    pub(crate) fn partitioned(&self, id: &str, column: &str) -> ExtractRequest {
        let mut request = self.request(id);
        request.table.sync_strategy = SyncStrategy::Partitioned;
        request.table.partition_by = Some(column.to_owned());
        request
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("extracts/shop")
    }

    /// Reads a table, publishes it, and keeps its cursor for the next time.
    pub(crate) async fn run(&self, request: &mut ExtractRequest) -> Result<ExtractReport> {
        let writer = TableWriter::new(&self.folder(), request.name.clone());
        let (writer, report) = self.connector.extract(&self.source(), request, writer).await?;
        if !report.unchanged {
            let data = report.remote.clone().map_or_else(|| TableData::from(writer), TableData::Remote);
            let change = TableChange { name: request.name.clone(), description: None, data };
            let published = publish(&self.folder(), vec![change], &|_| true, Utc::now())?;
            if let Some(error) = published.into_iter().find_map(|table| table.error) {
                return Err(error);
            }
        }
        request.cursor.clone_from(&report.cursor);
        Ok(report)
    }

    /// A request for the published table: `{t}` stands for it. Values are joined by `|`.
    pub(crate) fn ask(&self, what: &str) -> Vec<String> {
        let table = TableName::parse("t").unwrap();
        let files = table_files(&self.folder(), &table).unwrap().map(|found| found.files).unwrap_or_default();
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        let db = ScratchDb::open(&self.root.path().join("look"), &ScratchLimits::default()).unwrap();
        let sql = what.replace("{t}", &format!("read_parquet([{}], union_by_name=true)", files.join(", ")));
        let rows = db.rows(&sql).unwrap();
        let text = |row: Vec<Option<String>>| {
            row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join("|")
        };
        rows.into_iter().map(text).collect()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.ask("SELECT * FROM {t} ORDER BY ALL")
    }

    pub(crate) fn types(&self) -> Vec<String> {
        self.ask("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {t})")
    }

    /// Names of the parts.
    pub(crate) fn parts(&self) -> Vec<String> {
        TableWriter::new(&self.folder(), TableName::parse("t").unwrap()).published_parts().unwrap()
    }

    /// What is in the scratch folder.
    pub(crate) fn left(&self) -> usize {
        std::fs::read_dir(self.scratch()).map_or(0, Iterator::count)
    }
}

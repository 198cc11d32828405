//! What every connector has to do, run for each by [`connector_suite!`](crate::connector_suite).

use std::path::PathBuf;
use std::sync::Arc;

use chrono::Utc;

use crate::connector::{Cancel, Connector, DiscoveredTable, ExtractReport, ExtractRequest, Progress, SourceContext};
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::Result;
use crate::extract::{TableChange, TableWriter, publish, table_files};
use crate::ident::{SourceName, TableName, quote_literal};
use crate::registry::{QueryMode, RegisteredTable};
use crate::secret::EnvSecrets;

/// A small source with one table, made anew for each test.
pub trait ConnectorFixture: Send + Sync {
    /// The connector.
    fn connector(&self) -> Arc<dyn Connector>;
    /// Settings of the source.
    fn config(&self) -> serde_json::Value;
    /// Rows of its table now: at least two.
    fn rows(&self) -> u64;
    /// Adds rows to the table; how many it has then.
    fn grow(&self) -> u64;
    /// Takes all rows out of the table; its columns stay.
    fn empty(&self);
    /// Names and DuckDB types of its columns.
    fn columns(&self) -> Vec<(String, String)>;
}

/// A source under test, and the extract it is read into.
#[derive(Debug)]
pub struct ConnectorRun {
    connector: Arc<dyn Connector>,
    source: SourceContext,
    root: tempfile::TempDir,
}

impl ConnectorRun {
    /// For the source of `fixture`.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(fixture: &dyn ConnectorFixture) -> Result<Self> {
        let root = tempfile::tempdir().map_err(|e| crate::Error::io("make a folder", e))?;
        let connector = fixture.connector();
        let source = SourceContext {
            name: SourceName::parse("suite")?,
            config: connector.normalise_config(&fixture.config())?,
            secrets: Arc::new(EnvSecrets),
            scratch: root.path().join("tmp"),
            cancel: Cancel::default(),
            progress: Progress::default(),
        };
        Ok(Self { connector, source, root })
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &SourceContext {
        &self.source
    }

    /// The tables the connector finds.
    ///
    /// # Errors
    /// Those of the connector.
    pub async fn discover(&self) -> Result<Vec<DiscoveredTable>> {
        self.connector.discover(&self.source).await
    }

    /// A request for a discovered table, registered as core does it.
    ///
    /// # Errors
    /// When there is no table.
    pub async fn request(&self) -> Result<ExtractRequest> {
        let found = self.discover().await?.into_iter().next();
        let found = found.ok_or_else(|| crate::Error::internal("discover a table", "there is none"))?;
        let mut table = RegisteredTable::new(&found.name, self.connector.kind(), &self.source.name);
        table.source_table = Some(found.source_table);
        table.sync_strategy = found.sync_strategy;
        table.partition_by = found.partition_by;
        table.options = found.options;
        Ok(ExtractRequest { name: TableName::parse(&table.name)?, table, cursor: None, last_sync: None, full: false })
    }

    fn extract_folder(&self) -> PathBuf {
        self.root.path().join("extracts").join(self.source.name.as_str())
    }

    /// Reads a table and publishes it.
    ///
    /// # Errors
    /// Those of the connector and of the publication.
    pub async fn run(&self, request: &ExtractRequest) -> Result<ExtractReport> {
        let writer = TableWriter::new(&self.extract_folder(), request.name.clone());
        let (writer, report) = self.connector.extract(&self.source, request, writer).await?;
        if !report.unchanged {
            let change = TableChange { name: request.name.clone(), description: None, mode: QueryMode::Local, writer };
            let published = publish(&self.extract_folder(), vec![change], &|_| true, Utc::now())?;
            if let Some(error) = published.into_iter().find_map(|table| table.error) {
                return Err(error);
            }
        }
        Ok(report)
    }

    fn ask(&self, table: &TableName, what: &str) -> Result<Vec<Vec<Option<String>>>> {
        let files = table_files(&self.extract_folder(), table)?.map(|found| found.files).unwrap_or_default();
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        let db = ScratchDb::open(&self.root.path().join("look"), &ScratchLimits::default())?;
        Ok(db.rows(&what.replace("{t}", &format!("read_parquet([{}], union_by_name=true)", files.join(", "))))?)
    }

    /// Published rows of a table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn count(&self, table: &TableName) -> Result<u64> {
        let rows = self.ask(table, "SELECT count(*) FROM {t}")?;
        Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(u64::MAX))
    }

    /// Published columns of a table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn columns(&self, table: &TableName) -> Result<Vec<(String, String)>> {
        let rows = self.ask(table, "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {t})")?;
        let pair = |row: Vec<Option<String>>| {
            let mut cells = row.into_iter().flatten();
            Some((cells.next()?, cells.next()?))
        };
        Ok(rows.into_iter().filter_map(pair).collect())
    }

    /// Whether nothing is left in the scratch folder.
    #[must_use]
    pub fn scratch_is_clean(&self) -> bool {
        std::fs::read_dir(&self.source.scratch).map_or(0, Iterator::count) == 0
    }
}

/// Makes a module of tests that hold a connector to its contract: `$make` is an expression
/// for a fresh [`ConnectorFixture`].
#[macro_export]
macro_rules! connector_suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use $crate::testing::connector_suite::{ConnectorFixture as _, ConnectorRun};

            #[tokio::test]
            async fn settings_are_stable_and_unknown_ones_refused() {
                let fixture = $make;
                let connector = fixture.connector();
                let once = connector.normalise_config(&fixture.config()).unwrap();
                assert_eq!(connector.normalise_config(&once).unwrap(), once);
                let mut odd = fixture.config();
                odd["no_such_setting"] = true.into();
                assert_eq!(connector.normalise_config(&odd).unwrap_err().code(), "invalid_config");
            }

            #[tokio::test]
            async fn a_good_source_passes_its_check() {
                let fixture = $make;
                let run = ConnectorRun::new(&fixture).unwrap();
                let items = fixture.connector().check(run.source()).await.unwrap();
                assert!(!items.is_empty() && items.iter().all(|item| item.ok), "{items:?}");
            }

            #[tokio::test]
            async fn discovery_is_repeatable() {
                let fixture = $make;
                if !fixture.connector().capability().discover {
                    return;
                }
                let run = ConnectorRun::new(&fixture).unwrap();
                let found = run.discover().await.unwrap();
                assert!(!found.is_empty());
                assert_eq!(run.discover().await.unwrap(), found);
            }

            #[tokio::test]
            async fn a_full_run_brings_all_rows_and_types() {
                let fixture = $make;
                let run = ConnectorRun::new(&fixture).unwrap();
                let mut request = run.request().await.unwrap();
                for full in [false, true] {
                    request.full = full;
                    let report = run.run(&request).await.unwrap();
                    assert!(!report.unchanged);
                    request.cursor = report.cursor;
                    assert_eq!(run.count(&request.name).unwrap(), fixture.rows());
                    assert_eq!(run.columns(&request.name).unwrap(), fixture.columns());
                }
                assert!(run.scratch_is_clean());
            }

            #[tokio::test]
            async fn an_incremental_run_brings_what_changed() {
                let fixture = $make;
                if !fixture.connector().capability().incremental {
                    return;
                }
                let run = ConnectorRun::new(&fixture).unwrap();
                let mut request = run.request().await.unwrap();
                request.cursor = run.run(&request).await.unwrap().cursor;
                assert!(run.run(&request).await.unwrap().unchanged);
                let rows = fixture.grow();
                assert!(!run.run(&request).await.unwrap().unchanged);
                assert_eq!(run.count(&request.name).unwrap(), rows);
            }

            #[tokio::test]
            async fn an_empty_table_keeps_its_columns() {
                let fixture = $make;
                let run = ConnectorRun::new(&fixture).unwrap();
                let mut request = run.request().await.unwrap();
                request.cursor = run.run(&request).await.unwrap().cursor;
                fixture.empty();
                run.run(&request).await.unwrap();
                assert_eq!(run.count(&request.name).unwrap(), 0);
                let names =
                    |columns: Vec<(String, String)>| columns.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
                assert_eq!(names(run.columns(&request.name).unwrap()), names(fixture.columns()));
            }

            #[tokio::test]
            async fn a_cancelled_run_ends_and_leaves_the_data() {
                let fixture = $make;
                let run = ConnectorRun::new(&fixture).unwrap();
                let request = run.request().await.unwrap();
                run.run(&request).await.unwrap();
                fixture.grow();
                let before = run.count(&request.name).unwrap();
                run.source().cancel.cancel();
                assert_eq!(run.run(&request).await.unwrap_err().code(), "cancelled");
                assert_eq!(run.count(&request.name).unwrap(), before);
                assert!(run.scratch_is_clean());
            }
        }
    };
}

//! What every connector has to do, run for each by [`connector_suite!`](crate::connector_suite).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::connector::{Cancel, Connector, DiscoveredTable, ExtractReport, ExtractRequest, Progress, SourceContext};
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::Result;
use crate::extract::{TableChange, TableWriter, publish, table_files};
use crate::ident::{SourceName, TableName, quote_literal};
use crate::orchestrator::AttachPolicy;
use crate::registry::{QueryMode, RegisteredTable};
use crate::secret::FixedSecrets;

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
    /// Adds a column to the table and names it; none where the source's columns are fixed.
    fn widen(&self) -> Option<String> {
        None
    }
    /// Makes the source unreachable; `false` where that cannot be.
    fn take_down(&self) -> bool {
        false
    }
    /// Brings it back.
    fn bring_up(&self) {}
    /// Makes the source keep the next read of the table waiting half-way, and tells when it does; none
    /// where that cannot be.
    fn hold(&self) -> Option<oneshot::Receiver<()>> {
        None
    }
    /// Variables with the source's secrets, and their values.
    fn secrets(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// What the operator allows.
    fn attach(&self) -> AttachPolicy {
        AttachPolicy::default()
    }
}

/// A source under test, and the extract it is read into.
#[derive(Debug)]
pub struct ConnectorRun {
    connector: Arc<dyn Connector>,
    source: SourceContext,
    root: PathBuf,
    /// Deletes the root at last, where it is this run's.
    _owned: Option<tempfile::TempDir>,
}

/// What the process that is killed needs to know.
#[derive(Debug, Serialize, Deserialize)]
struct Child {
    root: PathBuf,
    config: serde_json::Value,
    secrets: Vec<(String, String)>,
    attach: AttachPolicy,
}

/// Holds a [`Child`] as JSON in the process that is to be killed.
const CHILD: &str = "AGNES_CONNECTOR_SUITE_CHILD";

impl ConnectorRun {
    /// For the source of `fixture`.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(fixture: &dyn ConnectorFixture) -> Result<Self> {
        Self::with_secrets(fixture, fixture.secrets())
    }

    /// The same with other secrets.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn with_secrets(fixture: &dyn ConnectorFixture, secrets: Vec<(String, String)>) -> Result<Self> {
        let root = tempfile::tempdir().map_err(|e| crate::Error::io("make a folder", e))?;
        let config = fixture.config();
        let child = Child { root: root.path().to_owned(), config, secrets, attach: fixture.attach() };
        Ok(Self { _owned: Some(root), ..Self::of(fixture.connector(), child)? })
    }

    fn of(connector: Arc<dyn Connector>, child: Child) -> Result<Self> {
        let source = SourceContext {
            name: SourceName::parse("suite")?,
            config: connector.normalise_config(&child.config)?,
            secrets: Arc::new(FixedSecrets::new(child.secrets)),
            attach: Arc::new(child.attach),
            timeout: Duration::from_secs(600),
            scratch: child.root.join("tmp"),
            cancel: Cancel::default(),
            progress: Progress::default(),
        };
        Ok(Self { connector, source, root: child.root, _owned: None })
    }

    /// In the process that is to be killed: reads and publishes the table again and again.
    /// Elsewhere does nothing.
    ///
    /// # Errors
    /// Those of the connector and of the publication.
    pub async fn until_killed(connector: Arc<dyn Connector>) -> Result<()> {
        let Ok(child) = std::env::var(CHILD) else { return Ok(()) };
        let child = serde_json::from_str(&child).map_err(|e| crate::Error::internal("read what to do", e))?;
        let run = Self::of(connector, child)?;
        let mut request = run.request().await?;
        request.full = true;
        loop {
            run.run(&request).await?;
        }
    }

    /// Starts this test binary again to read the table, in the test `test`, and kills it after
    /// `life`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn kill_after(&self, fixture: &dyn ConnectorFixture, test: &str, life: Duration) -> Result<()> {
        let child = Child {
            root: self.root.clone(),
            config: fixture.config(),
            secrets: fixture.secrets(),
            attach: fixture.attach(),
        };
        let child = serde_json::to_string(&child).map_err(|e| crate::Error::internal("write what to do", e))?;
        let start = || -> std::io::Result<()> {
            let mut command = std::process::Command::new(std::env::current_exe()?);
            let (out, err) = (std::process::Stdio::null(), std::process::Stdio::null());
            let mut process =
                command.args([test, "--exact", "--nocapture"]).env(CHILD, child).stdout(out).stderr(err).spawn()?;
            std::thread::sleep(life);
            let ended = process.try_wait()?;
            process.kill()?;
            process.wait()?;
            match ended {
                // It reads for ever unless something is wrong.
                Some(status) => Err(std::io::Error::other(format!("it ended by itself: {status}"))),
                None => Ok(()),
            }
        };
        start().map_err(|e| crate::Error::io("run a process to kill", e))
    }

    /// Every file that was left, and whether `text` is in it.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read(&path)
                    .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
                {
                    return true;
                }
            }
        }
        false
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
        table.bucket = found.bucket;
        table.source_table = Some(found.source_table);
        table.sync_strategy = found.sync_strategy;
        table.partition_by = found.partition_by;
        table.primary_key = found.primary_key;
        table.options = found.options;
        table.query_mode = match found.query_mode {
            // Its rows are what the contract is about.
            QueryMode::Remote => QueryMode::Materialized,
            mode => mode,
        };
        table.source_query = found.source_query;
        Ok(ExtractRequest { name: TableName::parse(&table.name)?, table, cursor: None, last_sync: None, full: false })
    }

    fn extract_folder(&self) -> PathBuf {
        self.root.join("extracts").join(self.source.name.as_str())
    }

    /// Reads a table and publishes it.
    ///
    /// # Errors
    /// Those of the connector and of the publication.
    pub async fn run(&self, request: &ExtractRequest) -> Result<ExtractReport> {
        let writer = TableWriter::new(&self.extract_folder(), request.name.clone());
        let (writer, report) = self.connector.extract(&self.source, request, writer).await?;
        if !report.unchanged {
            let change = TableChange { name: request.name.clone(), description: None, data: writer.into() };
            let published = publish(&self.extract_folder(), vec![change], &|_| true, Utc::now())?;
            if let Some(error) = published.into_iter().find_map(|table| table.error) {
                return Err(error);
            }
        }
        Ok(report)
    }

    /// Reads a table and cancels that once the source keeps it waiting: how it ended; none where it did
    /// not within `patience`.
    pub async fn cancel_held(
        &self,
        request: &ExtractRequest,
        held: oneshot::Receiver<()>,
        patience: Duration,
    ) -> Option<Result<ExtractReport>> {
        let mut run = std::pin::pin!(self.run(request));
        tokio::select! {
            ended = &mut run => return Some(ended),
            _ = held => self.source.cancel.cancel(),
        }
        tokio::time::timeout(patience, run).await.ok()
    }

    fn ask(&self, table: &TableName, what: &str) -> Result<Vec<Vec<Option<String>>>> {
        let files = table_files(&self.extract_folder(), table)?.map(|found| found.files).unwrap_or_default();
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        let db = ScratchDb::open(&self.root.join("look"), &ScratchLimits::default())?;
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

/// Makes a module of tests that hold a connector to its contract: `$make` is an expression for
/// `Some` fresh [`ConnectorFixture`], or for `None` where a component is missing; `$connector` one for
/// the connector alone (an `Arc<dyn Connector>`), for the process that is killed.
#[macro_export]
macro_rules! connector_suite {
    ($name:ident, $make:expr, $connector:expr) => {
        mod $name {
            use $crate::testing::connector_suite::{ConnectorFixture as _, ConnectorRun};

            #[tokio::test]
            async fn settings_are_stable_and_unknown_ones_refused() {
                let Some(fixture) = $make else { return };
                let connector = fixture.connector();
                let once = connector.normalise_config(&fixture.config()).unwrap();
                assert_eq!(connector.normalise_config(&once).unwrap(), once);
                let mut odd = fixture.config();
                odd["no_such_setting"] = true.into();
                assert_eq!(connector.normalise_config(&odd).unwrap_err().code(), "invalid_config");
            }

            #[tokio::test]
            async fn a_good_source_passes_its_check() {
                let Some(fixture) = $make else { return };
                let run = ConnectorRun::new(&fixture).unwrap();
                let items = fixture.connector().check(run.source()).await.unwrap();
                assert!(!items.is_empty() && items.iter().all(|item| item.ok), "{items:?}");
            }

            #[tokio::test]
            async fn discovery_is_repeatable() {
                let Some(fixture) = $make else { return };
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
                let Some(fixture) = $make else { return };
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
                let Some(fixture) = $make else { return };
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
                let Some(fixture) = $make else { return };
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
                let Some(fixture) = $make else { return };
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

            #[tokio::test]
            async fn a_run_that_is_cancelled_half_way_ends_soon() {
                let Some(fixture) = $make else { return };
                let run = ConnectorRun::new(&fixture).unwrap();
                let request = run.request().await.unwrap();
                run.run(&request).await.unwrap();
                fixture.grow();
                let before = run.count(&request.name).unwrap();
                let Some(held) = fixture.hold() else { return };
                let ended = run.cancel_held(&request, held, std::time::Duration::from_secs(30)).await;
                let ended = ended.expect("it goes on though it was cancelled");
                assert_eq!(ended.unwrap_err().code(), "cancelled");
                assert_eq!(run.count(&request.name).unwrap(), before);
            }

            #[tokio::test]
            async fn a_new_column_is_taken_and_old_rows_stay() {
                let Some(fixture) = $make else { return };
                let run = ConnectorRun::new(&fixture).unwrap();
                let mut request = run.request().await.unwrap();
                request.cursor = run.run(&request).await.unwrap().cursor;
                let Some(column) = fixture.widen() else { return };
                assert!(!run.run(&request).await.unwrap().unchanged);
                assert_eq!(run.count(&request.name).unwrap(), fixture.rows());
                let columns = run.columns(&request.name).unwrap();
                assert_eq!(columns.last().map(|(name, _)| name.as_str()), Some(column.as_str()), "{columns:?}");
                assert_eq!(columns.len(), fixture.columns().len() + 1);
            }

            #[tokio::test]
            async fn a_source_that_is_down_costs_nothing_and_comes_back() {
                let Some(fixture) = $make else { return };
                let run = ConnectorRun::new(&fixture).unwrap();
                let request = run.request().await.unwrap();
                run.run(&request).await.unwrap();
                let before = run.count(&request.name).unwrap();
                if !fixture.take_down() {
                    return;
                }
                let error = run.run(&request).await.unwrap_err();
                assert!(error.hint().is_some(), "whose move it is: {error}");
                let items = fixture.connector().check(run.source()).await.unwrap();
                assert!(items.iter().any(|item| !item.ok), "{items:?}");
                assert_eq!(run.count(&request.name).unwrap(), before);
                assert!(run.scratch_is_clean());
                fixture.bring_up();
                run.run(&request).await.unwrap();
                assert_eq!(run.count(&request.name).unwrap(), fixture.rows());
            }

            #[tokio::test]
            async fn secrets_are_in_no_file_and_no_word() {
                let Some(fixture) = $make else { return };
                let secrets = fixture.secrets();
                let run = ConnectorRun::new(&fixture).unwrap();
                let request = run.request().await.unwrap();
                let report = run.run(&request).await.unwrap();
                let words = format!("{report:?} {:?}", run.discover().await.unwrap());
                let wrong: Vec<_> = secrets.iter().map(|(name, _)| (name.clone(), "wrong-secret".to_owned())).collect();
                let refused = ConnectorRun::with_secrets(&fixture, wrong.clone()).unwrap();
                let none = ConnectorRun::with_secrets(&fixture, Vec::new()).unwrap();
                let mut told = Vec::new();
                for other in [&refused, &none].into_iter().filter(|_| !secrets.is_empty()) {
                    let errors = [other.run(&request).await.unwrap_err(), other.discover().await.unwrap_err()];
                    told.extend(errors.iter().map(|error| format!("{error} {:?} {:?}", error.hint(), error.facts())));
                    told.push(format!("{:?}", fixture.connector().check(other.source()).await.unwrap()));
                }
                for (_, secret) in secrets.iter().chain(&wrong) {
                    assert!(!words.contains(secret), "{words}");
                    assert!(!told.iter().any(|words| words.contains(secret)), "{told:?}");
                    assert!(!run.holds(secret) && !refused.holds(secret), "a secret is in a file");
                }
            }

            #[tokio::test]
            async fn a_killed_run_leaves_the_last_good_data() {
                let Some(fixture) = $make else { return };
                let run = ConnectorRun::new(&fixture).unwrap();
                let mut request = run.request().await.unwrap();
                run.run(&request).await.unwrap();
                let test = format!("{}::read_until_killed", module_path!());
                let test = test.split_once("::").map(|(_, test)| test.to_owned()).unwrap();
                for life in [150_u64, 230, 310, 420] {
                    run.kill_after(&fixture, &test, std::time::Duration::from_millis(life)).unwrap();
                    assert_eq!(run.count(&request.name).unwrap(), fixture.rows());
                    assert_eq!(run.columns(&request.name).unwrap(), fixture.columns());
                }
                request.full = true;
                run.run(&request).await.unwrap();
                assert_eq!(run.count(&request.name).unwrap(), fixture.rows());
            }

            /// The process that the test above kills.
            #[tokio::test]
            async fn read_until_killed() {
                ConnectorRun::until_killed($connector).await.unwrap();
            }
        }
    };
}

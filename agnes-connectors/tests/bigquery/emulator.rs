//! The emulator, one for each test, with Google's sign-in beside it; and a source on them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use agnes_connectors::bigquery::BigQueryConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::connector::{Cancel, Connector, ExtractReport, ExtractRequest, Progress, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::extract::{TableChange, TableData, TableWriter, publish, table_files};
use agnes_core::ident::{SourceName, TableName, quote_literal};
use agnes_core::registry::{QueryMode, RegisteredTable};
use agnes_core::secret::FixedSecrets;
use serde_json::{Value, json};

use crate::google::Google;

pub(crate) const PROJECT: &str = "agnes-test";

/// Where the emulator is; `None` when it is not there, which is told loudly.
pub(crate) fn tools() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let given = std::env::var_os("AGNES_TEST_TOOLS").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| root.join(".duckdb/tools")).join("bigquery");
    if folder.join(".ready").is_file() {
        return Some(folder);
    }
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    assert!(!required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"), "the BigQuery emulator is missing");
    eprintln!("SKIPPED: the BigQuery emulator is missing; scripts/fetch-bigquery-emulator.sh gets it");
    None
}

/// A server that speaks BigQuery's REST and Storage Read API, over a folder of its own.
pub(crate) struct Emulator {
    process: Mutex<Child>,
    folder: PathBuf,
    ports: (u16, u16),
    data: tempfile::TempDir,
}

impl Emulator {
    /// One with what these statements make.
    pub(crate) fn start(statements: &[&str]) -> Option<Self> {
        let folder = tools()?;
        let (ports, data) =
            ((agnes_core::testing::free_port(), agnes_core::testing::free_port()), tempfile::tempdir().unwrap());
        let process = Mutex::new(Self::spawn(&folder, ports, data.path()));
        let emulator = Self { process, folder, ports, data };
        for sql in statements {
            emulator.run(sql);
        }
        Some(emulator)
    }

    fn spawn(folder: &Path, (rest, grpc): (u16, u16), data: &Path) -> Child {
        let mut command = Command::new(folder.join("python/bin/local-bigquery"));
        command.env("HOME", folder.join("home")).args(["--host", "127.0.0.1", "--project", PROJECT]);
        command.args(["--port", &rest.to_string(), "--grpc-port", &grpc.to_string(), "--data-dir"]);
        command.arg(data.join("warehouse")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        for port in [rest, grpc] {
            let mut looks = 0;
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                looks += 1;
                assert!(looks < 1200, "the emulator does not start");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        process
    }

    /// Ends it; its tables stay.
    pub(crate) fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        drop((process.kill(), process.wait()));
    }

    /// Starts it again after [`Emulator::stop`].
    pub(crate) fn start_again(&self) {
        *self.process.lock().unwrap() = Self::spawn(&self.folder, self.ports, self.data.path());
    }

    /// Addresses of the REST and of the Storage API.
    pub(crate) fn addresses(&self) -> (String, String) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        (url(self.ports.0), url(self.ports.1))
    }

    /// Runs a statement; the answer.
    pub(crate) fn run(&self, sql: &str) -> Value {
        let body = json!({"query": sql, "useLegacySql": false}).to_string();
        let head = format!(
            "POST /bigquery/v2/projects/{PROJECT}/queries HTTP/1.0\r\nHost: 127.0.0.1\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.0)).unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let said = head.contains(" 200 ") && !body.contains("\"errorResult\"");
        assert!(said, "{sql}: {answer}");
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A source, and the folder it is read into.
pub(crate) struct Site {
    emulator: Option<Emulator>,
    pub(crate) google: Google,
    pub(crate) root: tempfile::TempDir,
    pub(crate) connector: BigQueryConnector,
    pub(crate) settings: Value,
    /// `GOOGLE_APPLICATION_CREDENTIALS`.
    pub(crate) key: String,
    /// Further variables.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) cancel: Cancel,
}

impl Site {
    /// On the emulator, with what these statements make.
    pub(crate) async fn new(statements: &[&str]) -> Option<Self> {
        let emulator = Emulator::start(statements)?;
        let (rest, grpc) = emulator.addresses();
        Some(Self { emulator: Some(emulator), ..Self::on(&rest, &grpc) })
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().unwrap()
    }

    /// On servers that run already.
    pub(crate) fn on(rest: &str, grpc: &str) -> Self {
        let google = Google::start();
        let settings = json!({"project": PROJECT, "endpoint": rest, "storage_endpoint": grpc});
        let connector = BigQueryConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])));
        let (root, key) = (tempfile::tempdir().unwrap(), google.key());
        let (variables, cancel) = (Vec::new(), Cancel::default());
        Self { emulator: None, google, root, connector, settings, key, variables, cancel }
    }

    pub(crate) fn source(&self) -> SourceContext {
        SourceContext {
            name: SourceName::parse("warehouse").unwrap(),
            config: self.connector.normalise_config(&self.settings).unwrap(),
            secrets: Arc::new(FixedSecrets::new(
                self.variables.iter().cloned().chain([("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), self.key.clone())]),
            )),
            attach: Arc::default(),
            timeout: std::time::Duration::from_secs(600),
            scratch: self.root.path().join("tmp"),
            cancel: self.cancel.clone(),
            progress: Progress::default(),
        }
    }

    /// A table that is copied here: the answer to `sql`, or all of `dataset.table`.
    pub(crate) fn request(&self, table: &str, sql: Option<&str>) -> ExtractRequest {
        let name = TableName::parse("t").unwrap();
        let mut row = RegisteredTable::new(&name, "bigquery", &SourceName::parse("warehouse").unwrap());
        row.query_mode = QueryMode::Materialized;
        let (dataset, table) = table.split_once('.').unwrap();
        (row.bucket, row.source_table) = (Some(dataset.to_owned()), Some(table.to_owned()));
        row.source_query = sql.map(str::to_owned);
        ExtractRequest { table: row, name, cursor: None, last_sync: None, full: false }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("extracts/warehouse")
    }

    pub(crate) async fn run(&self, request: &ExtractRequest) -> Result<ExtractReport> {
        let writer = TableWriter::new(&self.folder(), request.name.clone());
        let (writer, report) = self.connector.extract(&self.source(), request, writer).await?;
        let data = match report.remote.clone() {
            Some(remote) => TableData::Remote(remote),
            None => writer.into(),
        };
        let change = TableChange { name: request.name.clone(), description: None, data };
        publish(&self.folder(), vec![change], &|_| true, chrono::Utc::now())?;
        Ok(report)
    }

    /// Rows of a query over what was published, `{t}`, cells joined by `|`.
    pub(crate) fn ask(&self, sql: &str) -> Vec<String> {
        let name = TableName::parse("t").unwrap();
        let files = table_files(&self.folder(), &name).unwrap().unwrap().files;
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        let db = ScratchDb::open(&self.root.path().join("look"), &ScratchLimits::default()).unwrap();
        let rows = db.rows(&sql.replace("{t}", &format!("read_parquet([{}])", files.join(", ")))).unwrap();
        let cells = |row: Vec<Option<String>>| row.into_iter().map(|cell| cell.unwrap_or("NULL".to_owned()));
        rows.into_iter().map(|row| cells(row).collect::<Vec<_>>().join("|")).collect()
    }
}

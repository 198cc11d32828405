//! Real databases, each started for one test binary's needs and stopped when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agnes_connectors::sql::SqlConnector;
use agnes_core::connector::{Cancel, Connector, ExtractReport, ExtractRequest, Progress, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::extract::{TableChange, TableData, TableWriter, publish, table_files};
use agnes_core::ident::{SourceName, TableName, quote_literal};
use agnes_core::orchestrator::AttachPolicy;
use agnes_core::registry::{QueryMode, RegisteredTable, SyncStrategy};
use agnes_core::secret::FixedSecrets;
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "hunter2-of-the-source";
/// Many servers at a time would use up what a system has of it.
const NO_AIO: &str = "--innodb-use-native-aio=0";

/// Skips a test loudly; fails where components are required.
fn missing(what: &str) {
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    assert!(!required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"), "{what} is missing");
    eprintln!("SKIPPED: {what} is missing; `make components` gets it");
}

/// The folder of DuckDB's extensions, when it has this one.
pub(crate) fn extensions(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("AGNES_TEST_EXTENSIONS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/extensions"), PathBuf::from);
    if folder.join(format!("{name}.duckdb_extension")).is_file() {
        return Some(folder);
    }
    missing(&format!("the extension {name}"));
    None
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A server does not run as root.
fn as_user(user: &str, program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]).arg(program);
    command
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn program(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&own)
        .chain(folders.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A database with its own SQL at hand.
pub(crate) struct Source {
    pub(crate) connector: SqlConnector,
    pub(crate) config: Value,
    pub(crate) policy: AttachPolicy,
    server: Option<Server>,
    folder: tempfile::TempDir,
}

struct Server {
    child: Child,
    port: u16,
    bin: PathBuf,
    postgres: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Source {
    pub(crate) fn postgres() -> Option<Self> {
        let extension_folder = extensions("postgres_scanner")?;
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(bin) = bin else {
            missing("PostgreSQL");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("pw");
        std::fs::write(&password, PASSWORD).unwrap();
        if root() {
            for path in [folder.path(), &password] {
                assert!(Command::new("chown").arg("postgres").arg(path).status().unwrap().success());
            }
        }
        let made = quiet(as_user("postgres", &bin.join("initdb")).args([
            "-U",
            "agnes",
            "--auth=scram-sha-256",
            "--no-sync",
            "--no-instructions",
            "-E",
            "UTF8",
            "--locale=C",
        ]))
        .arg(format!("--pwfile={}", password.display()))
        .arg("-D")
        .arg(folder.path().join("data"))
        .status()
        .unwrap();
        assert!(made.success(), "initdb");
        let port = agnes_core::testing::free_port();
        let mut source = Self::server(SqlConnector::postgres(), extension_folder, port, "postgres", folder);
        source.start(bin, true, port);
        Some(source)
    }

    pub(crate) fn mariadb() -> Option<Self> {
        let extension_folder = extensions("mysql_scanner")?;
        let (Some(bin), Some(_)) = (program("mariadbd", &["/usr/sbin"]), program("mariadb", &["/usr/bin"])) else {
            missing("MariaDB");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if root() {
            assert!(Command::new("chown").arg("mysql").arg(folder.path()).status().unwrap().success());
        }
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", NO_AIO]);
        if root() {
            install.arg("--user=mysql");
        }
        // At its start it deletes the temporary tables it finds, those of others too.
        install.env("TMPDIR", folder.path());
        let install = install.arg(format!("--datadir={}", folder.path().join("data").display()));
        let made = install.stdin(Stdio::null()).output().unwrap();
        let words = [made.stdout, made.stderr].map(|words| String::from_utf8_lossy(&words).into_owned());
        assert!(made.status.success(), "mariadb-install-db: {words:?}");
        let port = agnes_core::testing::free_port();
        let mut source = Self::server(SqlConnector::mysql(), extension_folder, port, "shop", folder);
        source.start(bin, false, port);
        source.sql(&format!(
            "CREATE DATABASE shop; CREATE USER agnes@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; \
             CREATE USER agnes@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON shop.* TO agnes@'127.0.0.1'; \
             GRANT ALL ON shop.* TO agnes@localhost"
        ));
        Some(source)
    }

    pub(crate) fn sqlite() -> Option<Self> {
        let extension_folder = extensions("sqlite_scanner")?;
        let folder = tempfile::tempdir().unwrap();
        let policy = AttachPolicy {
            sqlite_folders: vec![folder.path().to_owned()],
            extension_folder: Some(extension_folder),
            ..AttachPolicy::default()
        };
        let config = json!({"path": folder.path().join("shop.db")});
        Some(Self { connector: SqlConnector::sqlite(), config, policy, server: None, folder })
    }

    fn server(
        connector: SqlConnector,
        extension_folder: PathBuf,
        port: u16,
        database: &str,
        folder: tempfile::TempDir,
    ) -> Self {
        let policy = AttachPolicy {
            database_hosts: vec![format!("127.0.0.1:{port}")],
            extension_folder: Some(extension_folder),
            ..AttachPolicy::default()
        };
        let config = json!({"host": "127.0.0.1", "port": port, "database": database, "user": "agnes",
            "password_env": "SHOP_PASSWORD"});
        Self { connector, config, policy, server: None, folder }
    }

    fn start(&mut self, bin: PathBuf, postgres: bool, port: u16) {
        let data = self.folder.path().join("data");
        let mut command = if postgres {
            let mut command = as_user("postgres", &bin.join("postgres"));
            command.arg("-D").arg(data).args(["-h", "127.0.0.1", "-F", "-k", "", "-p", &port.to_string()]);
            command
        } else {
            let mut command = as_user("mysql", &bin);
            command.args([
                "--no-defaults".to_owned(),
                format!("--datadir={}", data.display()),
                format!("--socket={}", self.folder.path().join("s").display()),
                // At its start a server deletes the temporary tables it finds: those of others too.
                format!("--tmpdir={}", self.folder.path().display()),
                format!("--port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--skip-name-resolve".to_owned(),
                "--default-time-zone=+00:00".to_owned(),
                NO_AIO.to_owned(),
            ]);
            command
        };
        self.server = Some(Server { child: quiet(&mut command).spawn().unwrap(), port, bin, postgres });
        for _ in 0..600 {
            if self.try_sql("SELECT 1") {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server did not start");
    }

    /// Stops the server, or takes the file away.
    pub(crate) fn down(&mut self) {
        match &mut self.server {
            Some(server) => {
                server.child.kill().unwrap();
                server.child.wait().unwrap();
            }
            None => std::fs::rename(self.file(), self.folder.path().join("away")).unwrap(),
        }
    }

    pub(crate) fn up(&mut self) {
        match self.server.take() {
            Some(server) => {
                let (bin, postgres, port) = (server.bin.clone(), server.postgres, server.port);
                drop(server);
                self.start(bin, postgres, port);
            }
            None => std::fs::rename(self.folder.path().join("away"), self.file()).unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shop.db")
    }

    /// Runs SQL of the source itself, as its owner.
    pub(crate) fn sql(&self, sql: &str) {
        assert!(self.try_sql(sql), "{sql}");
    }

    fn try_sql(&self, sql: &str) -> bool {
        let Some(server) = &self.server else {
            let write = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c: c.execute(sys.argv[2])";
            let mut python = Command::new("python3");
            return quiet(python.args(["-c", write]).arg(self.file()).arg(sql)).status().unwrap().success();
        };
        if server.postgres {
            quiet(self.psql(server).args(["-c", sql])).status().unwrap().success()
        } else {
            let mut client = self.mariadb_client();
            // The database is made by the first statement of all.
            let sql = if sql.contains("CREATE DATABASE") || sql == "SELECT 1" {
                sql.to_owned()
            } else {
                format!("USE shop; {sql}")
            };
            quiet(client.args(["-e", &sql])).status().unwrap().success()
        }
    }

    fn mariadb_client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-uroot", "-S"]).arg(self.folder.path().join("s"));
        client
    }

    fn psql(&self, server: &Server) -> Command {
        let mut psql = Command::new(server.bin.join("psql"));
        psql.env("PGPASSWORD", PASSWORD).args(["-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p"]);
        psql.arg(server.port.to_string()).args(["-U", "agnes", "-d", "postgres"]);
        psql
    }

    /// Statements that the server runs now and that hold these words.
    pub(crate) fn running(&self, words: &str) -> usize {
        let sql = if self.server.as_ref().unwrap().postgres {
            "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        } else {
            "SELECT info FROM information_schema.processlist WHERE id <> connection_id()"
        };
        self.told(sql).matches(words).count()
    }

    /// What the server answers to a query, as its own client shows it.
    pub(crate) fn told(&self, sql: &str) -> String {
        let server = self.server.as_ref().unwrap();
        let mut client = if server.postgres { self.psql(server) } else { self.mariadb_client() };
        client.args(if server.postgres { &["-A", "-t", "-c"][..] } else { &["-N", "-e"][..] });
        let told = client.arg(sql).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }
}

/// A source and the extract that it is read into.
pub(crate) struct Bench {
    pub(crate) source: Source,
    pub(crate) password: String,
    pub(crate) cancel: Cancel,
    root: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(source: Source) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { source, password: PASSWORD.to_owned(), cancel: Cancel::default(), root }
    }

    pub(crate) fn context(&self) -> SourceContext {
        SourceContext {
            name: SourceName::parse("shop").unwrap(),
            config: self.source.connector.normalise_config(&self.source.config).unwrap(),
            secrets: Arc::new(FixedSecrets::new([("SHOP_PASSWORD", self.password.clone())])),
            attach: Arc::new(self.source.policy.clone()),
            timeout: Duration::from_secs(600),
            scratch: self.root.path().join("tmp"),
            cancel: self.cancel.clone(),
            progress: Progress::default(),
        }
    }

    /// A request for `schema.table`, registered by hand.
    pub(crate) fn request(&self, table: &str) -> ExtractRequest {
        let name = TableName::parse("t").unwrap();
        let mut row = RegisteredTable::new(&name, self.source.connector.kind(), &SourceName::parse("shop").unwrap());
        row.source_table = Some(table.to_owned());
        ExtractRequest { name, table: row, cursor: None, last_sync: None, full: false }
    }

    pub(crate) fn incremental(&self, table: &str, cursor: &str, key: &[&str]) -> ExtractRequest {
        let mut request = self.request(table);
        request.table.sync_strategy = SyncStrategy::Incremental;
        request.table.incremental_column = Some(cursor.to_owned());
        request.table.primary_key = Some(key.iter().map(ToString::to_string).collect()).filter(|_| !key.is_empty());
        request
    }

    pub(crate) fn query(&self, sql: &str) -> ExtractRequest {
        let mut request = self.request("x");
        request.table.query_mode = QueryMode::Materialized;
        request.table.source_query = Some(sql.to_owned());
        request
    }

    pub(crate) fn extract_folder(&self) -> PathBuf {
        self.root.path().join("extracts/shop")
    }

    /// What is in the scratch folder.
    pub(crate) fn scratch(&self) -> usize {
        std::fs::read_dir(self.root.path().join("tmp")).map_or(0, Iterator::count)
    }

    /// Reads and publishes; the request's cursor moves on.
    pub(crate) async fn run(&self, request: &mut ExtractRequest) -> Result<ExtractReport> {
        let writer = TableWriter::new(&self.extract_folder(), request.name.clone());
        let (writer, report) = self.source.connector.extract(&self.context(), request, writer).await?;
        if !report.unchanged {
            let data = match &report.remote {
                Some(remote) => TableData::Remote(remote.clone()),
                None => writer.into(),
            };
            let change = TableChange { name: request.name.clone(), description: None, data };
            let published = publish(&self.extract_folder(), vec![change], &|_| true, chrono::Utc::now())?;
            if let Some(error) = published.into_iter().find_map(|table| table.error) {
                return Err(error);
            }
        }
        assert_eq!(self.scratch(), 0, "scratch is left behind");
        request.cursor.clone_from(&report.cursor);
        Ok(report)
    }

    /// All that is published, in order, as one text.
    pub(crate) fn rows(&self, select: &str) -> String {
        let files = table_files(&self.extract_folder(), &TableName::parse("t").unwrap()).unwrap().unwrap().files;
        let files: Vec<_> = files.iter().map(|file| quote_literal(&file.to_string_lossy())).collect();
        let db = ScratchDb::open(&self.root.path().join("look"), &ScratchLimits::default()).unwrap();
        let scan = format!("read_parquet([{}], union_by_name=true)", files.join(", "));
        let rows = db.rows(&select.replace("{t}", &scan)).unwrap();
        let line = |row: Vec<Option<String>>| {
            row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join(",")
        };
        rows.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

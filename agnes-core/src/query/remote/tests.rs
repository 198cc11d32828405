//! Remote tables against real databases. Skipped, loudly, where a component is missing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::ident::{SourceName, TableName};
use crate::orchestrator::{PublishedTable, RemoteAttach, RemoteTable, SourceGeneration};
use crate::query::{InProcess, QueryLimits};
use crate::registry::QueryMode;
use crate::sandbox::Readable;
use crate::secret::FixedSecrets;

/// Folder with extension files, if there is one.
fn extensions(name: &str) -> Option<PathBuf> {
    let file = format!("{name}.duckdb_extension");
    let places = [
        std::env::var_os("AGNES_TEST_EXTENSIONS").map(PathBuf::from),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/extensions")),
    ];
    let found = places.into_iter().flatten().find(|folder| folder.join(&file).is_file());
    if found.is_none() {
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "{file} is missing");
        eprintln!("SKIPPED: {file} is missing; `make components` gets it");
    }
    found
}

fn table(name: &str, alias: &str, select: &str) -> PublishedTable {
    PublishedTable {
        name: TableName::parse(name).unwrap(),
        source: SourceName::parse("shop").unwrap(),
        mode: QueryMode::Remote,
        description: None,
        columns: Vec::new(),
        rows: 0,
        size_bytes: 0,
        parts: Vec::new(),
        partitioned: false,
        remote: Some(RemoteTable { alias: alias.to_owned(), select: select.to_owned() }),
        extracted_at: None,
        content_hash: String::new(),
        manifest_hash: String::new(),
    }
}

struct Bench {
    folder: tempfile::TempDir,
    generation: Generation,
    caller: CallerSet,
    sources: Sources,
    gate: Gate,
}

impl Bench {
    async fn new(
        attach: RemoteAttach,
        policy: AttachPolicy,
        tables: Vec<PublishedTable>,
        secrets: FixedSecrets,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("local.parquet");
        let raw = ::duckdb::Connection::open_in_memory().unwrap();
        raw.execute_batch(&format!("COPY (SELECT 1 AS id, 'one' AS word) TO '{}' (FORMAT parquet)", file.display()))
            .unwrap();
        let local = Relation {
            name: "local".to_owned(),
            description: None,
            columns: [("id", "INTEGER"), ("word", "VARCHAR")].map(|(n, t)| (n.to_owned(), t.to_owned(), true)).to_vec(),
            blobs: vec![file],
            partitioned: false,
        };
        let mut relations = BTreeMap::from([("local".to_owned(), local)]);
        let mut remote = BTreeMap::new();
        for table in &tables {
            let name = table.name.as_str().to_owned();
            remote.insert(name.clone(), "shop".to_owned());
            let relation = Relation {
                name: name.clone(),
                description: None,
                columns: Vec::new(),
                blobs: Vec::new(),
                partitioned: false,
            };
            relations.insert(name, relation);
        }
        let source = SourceGeneration { signature: String::new(), degraded: false, attaches: vec![attach], tables };
        let mut generation = Generation::empty();
        generation.sources.insert(SourceName::parse("shop").unwrap(), source);
        let caller = CallerSet {
            generation: std::sync::Weak::new(),
            access: Arc::default(),
            index: Arc::default(),
            set: Arc::new(GrantSet { fingerprint: "x".to_owned(), relations }),
            remote: Arc::new(remote),
            admin: false,
            narrowed: Arc::default(),
            slices: Arc::default(),
        };
        let sources = Sources {
            policy,
            secrets: Arc::new(secrets),
            caps: RemoteQueryConfig { max_rows: 1000, ..RemoteQueryConfig::default() },
            gate: Gate::start().await.unwrap(),
            runtime: Arc::new(InProcess::new(QueryLimits::default(), folder.path().join("tmp"))),
        };
        Self { folder, generation, caller, gate: sources.gate.clone(), sources }
    }

    async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let query = self.gate.parse(sql).await?.resolve(&self.caller as &dyn Readable)?;
        let job = QueryJob {
            grant_set: self.caller.set.clone(),
            query,
            params: Params::None,
            deadline: Instant::now() + Duration::from_secs(30),
            alone: None,
            guard: Box::new(()),
        };
        let mut running = start(self.sources.clone(), &self.generation, &self.caller, job, None, Vec::new()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = running.batches.recv().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    async fn text(&self, sql: &str) -> Vec<Option<String>> {
        crate::query::rows::text(&self.ask(sql).await.unwrap(), 0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_asked_and_joined() {
    let Some(extension_folder) = extensions("sqlite_scanner") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.sqlite");
    let config = ::duckdb::Config::default();
    let raw = ::duckdb::Connection::open_in_memory_with_flags(config).unwrap();
    raw.execute_batch(&format!(
        "LOAD '{}'; ATTACH '{}' AS s (TYPE sqlite); CREATE TABLE s.items AS SELECT i AS id, 'item ' || i AS name FROM range(5) t(i); \
         CREATE TABLE s.wages AS SELECT 'hidden-wage' AS v; CREATE TABLE s.many AS SELECT i AS id FROM range(5000) t(i); DETACH s",
        extension_folder.join("sqlite_scanner.duckdb_extension").display(),
        file.display()
    ))
    .unwrap();
    let attach = RemoteAttach {
        alias: "src".to_owned(),
        extension: "sqlite".to_owned(),
        url: file.to_string_lossy().into_owned(),
        token_env: String::new(),
    };
    let policy = AttachPolicy { extension_folder: Some(extension_folder), ..AttachPolicy::default() };
    let tables = vec![
        table("items", "src", "SELECT * FROM \"src\".\"items\""),
        table("many", "src", "SELECT * FROM \"src\".\"many\""),
    ];
    let bench = Bench::new(attach, policy, tables, FixedSecrets::new([("a", "b")])).await;
    assert_eq!(bench.text("SELECT name FROM items WHERE id = 3").await, [Some("item 3".to_owned())]);
    assert_eq!(
        bench.text("SELECT name || word FROM items JOIN local USING (id)").await,
        [Some("item 1one".to_owned())]
    );
    assert_eq!(bench.text("SELECT count(*)::VARCHAR FROM many").await, [Some("5000".to_owned())]);
    let error = bench.ask("SELECT count(*) FROM many, local").await.unwrap_err();
    assert_eq!(error.code(), "remote_too_large");
    for sql in [
        "SELECT * FROM src.wages",
        "SELECT * FROM src.main.wages",
        "SELECT * FROM wages",
        "SELECT * FROM sqlite_scan('x', 'wages')",
        "SELECT * FROM sqlite_query('src', 'SELECT * FROM wages')",
        "SELECT * FROM items, sqlite_master",
    ] {
        let error = bench.ask(sql).await.unwrap_err();
        assert!(
            ["relation_denied", "table_function_denied", "engine_relation"].contains(&error.code()),
            "{sql}: {error}"
        );
    }
    std::fs::rename(&file, folder.path().join("away")).unwrap();
    let error = bench.ask("SELECT * FROM items").await.unwrap_err();
    assert!(!error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
    assert!(std::fs::read_dir(bench.folder.path().join("tmp")).unwrap().next().is_none(), "spill folders are gone");
}

/// A PostgreSQL server of its own, stopped when dropped.
struct Postgres {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// PostgreSQL does not run as root.
fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Postgres {
    fn start(password: &str) -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(bin) = bin else {
            assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "PostgreSQL is missing");
            eprintln!("SKIPPED: PostgreSQL is missing; `make components` gets it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = crate::testing::free_port();
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(folder.path()).status().unwrap().success());
        }
        let (data, pw) = (folder.path().join("data"), folder.path().join("pw"));
        std::fs::write(&pw, password).unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&pw).status().unwrap().success());
        }
        let made = as_postgres(&bin.join("initdb"))
            .args(["-U", "agnes", "--auth=scram-sha-256", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", pw.display()))
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let server = as_postgres(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-F", "-k", "", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let postgres = Self { server, port, _folder: folder };
        for _ in 0..200 {
            let ready =
                Command::new(bin.join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
            if ready.is_ok_and(|status| status.success()) {
                return Some(postgres);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not start");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_asked_and_its_words_stay_here() {
    let Some(extension_folder) = extensions("postgres_scanner") else { return };
    let password = "hunter2-remote";
    let Some(postgres) = Postgres::start(password) else { return };
    let url = format!("host=127.0.0.1 port={} dbname=postgres user=agnes", postgres.port);
    let raw = ::duckdb::Connection::open_in_memory().unwrap();
    raw.execute_batch(&format!(
        "LOAD '{}'; ATTACH '{url} password={password}' AS p (TYPE postgres); \
         CREATE TABLE p.public.items AS SELECT i::INTEGER AS id, 'item ' || i AS name, (i / 4.0)::DECIMAL(10,2) AS price, \
         TIMESTAMPTZ '2024-01-01 00:00:00+00' AS at, [1, 2] AS tags FROM range(5) t(i); \
         CREATE TABLE p.public.wages AS SELECT 'hidden-wage' AS v; DETACH p",
        extension_folder.join("postgres_scanner.duckdb_extension").display()
    ))
    .unwrap();
    let attach = |token_env: &str| RemoteAttach {
        alias: "pg".to_owned(),
        extension: "postgres".to_owned(),
        url: url.clone(),
        token_env: token_env.to_owned(),
    };
    let policy = AttachPolicy { extension_folder: Some(extension_folder), ..AttachPolicy::default() };
    let tables = || {
        vec![
            table("items", "pg", "SELECT * FROM \"pg\".\"public\".\"items\""),
            table("gone", "pg", "SELECT * FROM \"pg\".\"public\".\"gone\""),
        ]
    };
    let secrets = FixedSecrets::new([("PG_PASSWORD", password)]);
    let bench = Bench::new(attach("PG_PASSWORD"), policy.clone(), tables(), secrets).await;
    assert_eq!(bench.text("SELECT name FROM items WHERE price > 0.9").await, [Some("item 4".to_owned())]);
    let sql = "SELECT concat_ws(' ', i.name, l.word, i.price, i.tags, i.at) FROM items i JOIN local l USING (id)";
    assert_eq!(bench.text(sql).await, [Some("item 1 one 0.25 [1, 2] 2024-01-01 00:00:00+00".to_owned())]);
    for sql in [
        "SELECT * FROM pg.public.wages",
        "SELECT * FROM postgres_query('pg', 'SELECT * FROM wages')",
        "SELECT * FROM wages",
    ] {
        assert!(bench.ask(sql).await.is_err(), "{sql}");
    }
    let told = |error: crate::Error| format!("{error} {:?} {:?}", error.hint(), error.facts());
    let missing = told(bench.ask("SELECT * FROM gone").await.unwrap_err());
    let wrong = FixedSecrets::new([("PG_PASSWORD", "wrong-password")]);
    let refused = Bench::new(attach("PG_PASSWORD"), policy, tables(), wrong).await;
    let refused = told(refused.ask("SELECT * FROM items").await.unwrap_err());
    let failing = told(bench.ask("SELECT name::INTEGER FROM items").await.unwrap_err());
    for words in [missing, refused, failing] {
        for secret in [password, "wrong-password", "127.0.0.1", "dbname", &postgres.port.to_string()] {
            assert!(!words.contains(secret), "{words}");
        }
    }
}

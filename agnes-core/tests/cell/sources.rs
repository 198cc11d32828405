//! Workers that ask sources: they reach what they were sent to, and nothing else.

use agnes_core::orchestrator::{AttachPolicy, RemoteAttach, RemoteTable};
use agnes_core::query::Alone;
use agnes_core::secret::FixedSecrets;

use super::*;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_asked_by_a_worker_that_has_nothing_else() {
    let Some(folder) = extensions("sqlite_scanner") else { return };
    let bench = Bench::new().await;
    let file = bench.folder.path().join("shop.sqlite");
    let raw = duckdb::Connection::open_in_memory().unwrap();
    raw.execute_batch(&format!(
        "LOAD '{}'; ATTACH '{}' AS s (TYPE sqlite); CREATE TABLE s.items AS SELECT i AS id FROM range(5000) t(i); DETACH s",
        folder.join("sqlite_scanner.duckdb_extension").display(),
        file.display()
    ))
    .unwrap();
    let policy = AttachPolicy { extension_folder: Some(folder), ..AttachPolicy::default() };
    let attach = RemoteAttach {
        alias: "src".to_owned(),
        extension: "sqlite".to_owned(),
        url: file.to_string_lossy().into_owned(),
        token_env: String::new(),
    };
    let table = RemoteTable { alias: "src".to_owned(), select: "SELECT * FROM \"src\".\"items\"".to_owned() };
    let secrets = Arc::new(FixedSecrets::new([("a", "b")]));
    let job = |query: Checked, attach: &RemoteAttach| {
        let asked = vec![("granted".to_owned(), table.clone(), attach.clone())];
        let nothing = Arc::new(GrantSet { fingerprint: String::new(), relations: BTreeMap::new() });
        let alone = Some(Alone::attached(policy.clone(), secrets.clone(), asked));
        QueryJob { grant_set: nothing, alone, ..bench.job(query, "") }
    };
    let count = bench.checked("SELECT count(*) FROM granted").await;
    let running = bench.cells.start(job(count.clone(), &attach)).await.unwrap();
    assert_eq!(rows(running).await.unwrap(), (1, Some(5000)));
    // Neither local data nor other files are there, whatever the statement.
    let local = blob(bench.folder.path(), "granted");
    for sql in [
        format!("SELECT * FROM read_parquet('{}')", local.display()),
        "SELECT * FROM read_text('/etc/passwd')".to_owned(),
        "ATTACH '/tmp/agnes-cell-other.sqlite' AS other (TYPE sqlite); CREATE TABLE other.t AS SELECT 1".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", file.display()),
    ] {
        let started = bench.cells.start(job(Checked::unguarded(&sql, &[]), &attach)).await;
        let outcome = match started {
            Ok(running) => rows(running).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(outcome.is_err(), "{sql}");
    }
    let gone = RemoteAttach { url: "/nowhere/shop.sqlite".to_owned(), ..attach.clone() };
    let error = bench.cells.start(job(count, &gone)).await.unwrap_err();
    assert!(["attach_failed", "remote_unavailable"].contains(&error.code()), "{error}");
    // Workers of sources are for one query.
    assert_eq!(bench.cells.processes().0, Vec::<u32>::new());
}

/// A PostgreSQL server of its own that trusts everybody here, stopped when dropped.
struct Postgres {
    server: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Postgres {
    fn start() -> Option<Self> {
        use std::process::{Command, Stdio};
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(bin) = bin else {
            assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "PostgreSQL is missing");
            eprintln!("SKIPPED: PostgreSQL is missing; `make components` gets it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let root = rustix::process::geteuid().is_root();
        // PostgreSQL does not run as root.
        let run = |program: &str| {
            let mut command = Command::new(if root { "setpriv".into() } else { bin.join(program) });
            if root {
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(bin.join(program));
            }
            command.stdout(Stdio::null()).stderr(Stdio::null()).arg("-D").arg(folder.path().join("data"));
            command
        };
        if root {
            assert!(Command::new("chown").arg("postgres").arg(folder.path()).status().unwrap().success());
        }
        let made = run("initdb").args(["-U", "agnes", "--auth=trust", "--no-sync", "--locale=C"]).status().unwrap();
        assert!(made.success(), "initdb");
        let port = agnes_core::testing::free_port();
        let port_text = port.to_string();
        let server = run("postgres").args(["-h", "127.0.0.1", "-F", "-k", "", "-p", &port_text]).spawn().unwrap();
        let postgres = Self { server, port, _folder: folder };
        for _ in 0..200 {
            let ready = Command::new(bin.join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port_text]).status();
            if ready.is_ok_and(|status| status.success()) {
                return Some(postgres);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not start");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_reached_at_its_own_port_alone() {
    let Some(folder) = extensions("postgres_scanner") else { return };
    let Some(postgres) = Postgres::start() else { return };
    let bench = Bench::new().await;
    let policy = AttachPolicy { extension_folder: Some(folder), ..AttachPolicy::default() };
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("host=127.0.0.1 port={} dbname=postgres user=agnes", other.local_addr().unwrap().port());
    let ask = async |query: Checked, select: &str| {
        let attach = RemoteAttach {
            alias: "pg".to_owned(),
            extension: "postgres".to_owned(),
            url: format!("host=127.0.0.1 port={} dbname=postgres user=agnes", postgres.port),
            token_env: String::new(),
        };
        let table = RemoteTable { alias: "pg".to_owned(), select: select.to_owned() };
        let secrets = Arc::new(FixedSecrets::new([("a", "b")]));
        let alone = Some(Alone::attached(policy.clone(), secrets, vec![("granted".to_owned(), table, attach)]));
        let nothing = Arc::new(GrantSet { fingerprint: String::new(), relations: BTreeMap::new() });
        let running = bench.cells.start(QueryJob { grant_set: nothing, alone, ..bench.job(query, "") }).await?;
        rows(running).await
    };
    let select = "SELECT * FROM \"pg\".\"pg_catalog\".\"pg_class\"";
    let (count, first) = ask(bench.checked("SELECT count(*) FROM granted").await, select).await.unwrap();
    assert!(count == 1 && first.unwrap() > 100, "{first:?}");
    for sql in [
        format!("ATTACH '{elsewhere} connect_timeout=5' AS other (TYPE postgres)"),
        format!("SELECT * FROM postgres_scan('{elsewhere} connect_timeout=5', 'public', 't')"),
        "SELECT * FROM read_text('/etc/passwd')".to_owned(),
    ] {
        assert!(ask(Checked::unguarded(&sql, &[]), select).await.is_err(), "{sql}");
    }
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "nobody came to the other port");
}

//! The process wall: what a worker cannot do even where the walls before it are gone, and
//! what happens when it ends. Real processes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::cell::{CellOptions, Cells, Hooks};
use agnes_core::orchestrator::{AttachPolicy, RemoteAttach, RemoteTable};
use agnes_core::query::{
    Alone, GrantSet, Isolation, Params, QueryJob, QueryLimits, Relation, RunningQuery, Runtime, Value,
};
use agnes_core::sandbox::{Checked, Gate, Readable, RelationKind};
use agnes_core::secret::FixedSecrets;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

/// More work than anybody waits for.
const ENDLESS: &str = "SELECT count(*) FROM range(10000000000) a(i), range(1000) b(j) WHERE (i * j) % 7 = 3";
/// Rows without end.
const MANY_ROWS: &str = "SELECT i, repeat('x', 100) AS t FROM range(1000000000) a(i)";

struct Granted;

impl Readable for Granted {
    fn find(&self, name: &str) -> Option<RelationKind> {
        (name == "granted").then_some(RelationKind::Local)
    }
    fn names(&self) -> Vec<&str> {
        vec!["granted"]
    }
    fn sees_everything(&self) -> bool {
        false
    }
}

struct Bench {
    cells: Cells,
    gate: Gate,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut CellOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("blobs")).unwrap();
        let raw = duckdb::Connection::open_in_memory().unwrap();
        for (table, value) in [("granted", "mine"), ("hidden", "secret-value")] {
            let file = blob(folder.path(), table);
            raw.execute_batch(&format!("COPY (SELECT '{value}' AS a) TO '{}' (FORMAT parquet)", file.display()))
                .unwrap();
        }
        let limits = QueryLimits { memory_bytes: 512 << 20, spill_bytes: 64 << 20, ..QueryLimits::default() };
        let worker = env!("CARGO_BIN_EXE_agnes-cell").into();
        let mut options =
            CellOptions::new(worker, limits, folder.path().join("tmp"), vec![folder.path().join("blobs")]);
        change(&mut options);
        Self { cells: Cells::start(options).unwrap(), gate: Gate::start().await.unwrap(), folder }
    }

    fn set(&self, fingerprint: &str) -> Arc<GrantSet> {
        let relation = Relation {
            name: "granted".to_owned(),
            description: None,
            columns: vec![("a".to_owned(), "VARCHAR".to_owned(), true)],
            blobs: vec![blob(self.folder.path(), "granted")],
            partitioned: false,
        };
        let relations = BTreeMap::from([("granted".to_owned(), relation)]);
        Arc::new(GrantSet { fingerprint: fingerprint.to_owned(), relations })
    }

    fn job(&self, query: Checked, set: &str) -> QueryJob {
        let deadline = Instant::now() + Duration::from_secs(60);
        QueryJob { grant_set: self.set(set), query, params: Params::None, deadline, alone: None, guard: Box::new(()) }
    }

    async fn checked(&self, sql: &str) -> Checked {
        self.gate.parse(sql).await.unwrap().resolve(&Granted).unwrap()
    }

    async fn start(&self, sql: &str, set: &str) -> agnes_core::Result<RunningQuery> {
        let job = self.job(self.checked(sql).await, set);
        self.cells.start(job).await
    }

    /// The rows of a query, and its first value where that is a number.
    async fn ask(&self, sql: &str, set: &str) -> agnes_core::Result<(usize, Option<i64>)> {
        rows(self.start(sql, set).await?).await
    }

    /// Runs statements that no wall has read.
    async fn attack(&self, sql: &str) -> agnes_core::Result<()> {
        let running = self.cells.start(self.job(Checked::unguarded(sql, &["granted"]), "attacked")).await?;
        rows(running).await.map(drop)
    }

    /// Waits until as many workers hold a grant set.
    async fn workers(&self, count: usize) -> Vec<u32> {
        eventually(|| Some(self.cells.processes().0).filter(|workers| workers.len() == count)).await
    }
}

fn blob(folder: &Path, table: &str) -> PathBuf {
    folder.join("blobs").join(format!("{table}.parquet"))
}

async fn rows(mut running: RunningQuery) -> agnes_core::Result<(usize, Option<i64>)> {
    let (mut count, mut first) = (0, None);
    while let Some(batch) = running.batches.recv().await {
        let batch = batch?;
        count += batch.num_rows();
        let number = batch.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
        first = first.or(number.filter(|column| !column.values().is_empty()).map(|column| column.value(0)));
    }
    Ok((count, first))
}

/// Waits for something that happens by itself.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never happened");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tells a copy of this test binary that it runs one test alone.
const ALONE: &str = "AGNES_TEST_ALONE";

/// Whether this process runs the test `name` alone; if not, one that does is started, and has
/// to succeed. For tests that count processes and descriptors.
fn alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let copy = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    false
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Direct children of this process, zombies included.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    stats
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name in brackets: state, parent.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
            (parent == own).then_some(pid)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_worker_serves_and_says_so() {
    let bench = Bench::new().await;
    assert_eq!(bench.cells.isolation().await.unwrap(), Isolation::Process { missing: Vec::new() });
    assert_eq!(bench.ask("SELECT * FROM granted", "a").await.unwrap().0, 1);
    assert_eq!(bench.ask("SELECT count(*) FROM granted", "a").await.unwrap(), (1, Some(1)));
    assert_eq!(bench.ask("SELECT nothing FROM granted", "a").await.unwrap_err().code(), "query_binder");
    let pid = bench.workers(1).await[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    // Nothing of this process is inherited: its folder, its terminal.
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let names = environment.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    for name in names {
        assert!(name.starts_with(b"LD_LIBRARY_PATH="), "{}", String::from_utf8_lossy(name));
    }
    bench.cells.close().await;
    assert!(!is_there(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_is_confined() {
    let bench = Bench::new().await;
    bench.ask("SELECT sum(i) FROM range(50000000) t(i)", "a").await.unwrap();
    let pid = bench.workers(1).await[0];
    let tasks: Vec<_> =
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path()).collect();
    assert!(tasks.len() > 1, "{tasks:?}");
    for task in tasks {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_confined_refuses_to_serve() {
    for (hooks, what) in [
        (Hooks { no_landlock: true, ..Hooks::default() }, "files"),
        (Hooks { no_narrowing: true, ..Hooks::default() }, "files"),
        (Hooks { no_seccomp: true, ..Hooks::default() }, "system calls"),
    ] {
        let bench = Bench::with(|options| options.hooks = hooks.clone()).await;
        let error = bench.ask("SELECT 1", "a").await.unwrap_err();
        assert_eq!(error.code(), "worker_not_confined", "{hooks:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_parser_and_the_engine_wall_gone_no_file_is_open() {
    let bench = Bench::with(|options| options.hooks.no_engine_wall = true).await;
    let at = |path: &Path| path.to_string_lossy().into_owned();
    let (granted, hidden) = (at(&blob(bench.folder.path(), "granted")), at(&blob(bench.folder.path(), "hidden")));
    let (folder, secret) = (at(bench.folder.path()), at(&bench.folder.path().join("secret.csv")));
    std::fs::write(&secret, "a\nsecret-value\n").unwrap();
    let before = std::fs::read(&granted).unwrap();
    // Statements do run here: what is refused below is refused by the process.
    bench.attack("SET memory_limit='300MB'; CREATE TABLE vandal AS SELECT 1").await.unwrap();
    bench.attack(&format!("SELECT * FROM read_parquet('{granted}')")).await.unwrap();
    for sql in [
        "SELECT * FROM read_text('/etc/passwd')".to_owned(),
        "SELECT * FROM read_text('/proc/self/environ')".to_owned(),
        "SELECT * FROM read_text('/proc/self/maps')".to_owned(),
        format!("SELECT * FROM read_parquet('{hidden}')"),
        format!("SELECT * FROM read_csv('{secret}')"),
        format!("COPY (SELECT 1 AS a) TO '{granted}' (FORMAT parquet, USE_TMP_FILE false)"),
        format!("COPY (SELECT 1 AS a) TO '{granted}' (FORMAT parquet, USE_TMP_FILE true)"),
        format!("COPY (SELECT 1) TO '{folder}/new.csv'"),
        "COPY (SELECT 1) TO '/tmp/agnes-cell-attack.csv'".to_owned(),
        format!("ATTACH '{folder}/new.duckdb' AS x; CREATE TABLE x.t AS SELECT 1"),
        format!("EXPORT DATABASE '{folder}/export'"),
        format!("COPY (SELECT 1) TO '{folder}/blobs' (FORMAT parquet, PARTITION_BY (\"1\"))"),
        "INSTALL httpfs".to_owned(),
        "LOAD httpfs".to_owned(),
        "SELECT * FROM read_text('https://127.0.0.1/x')".to_owned(),
        "COPY (SELECT 1) TO '/dev/stdout'".to_owned(),
    ] {
        assert!(bench.attack(&sql).await.is_err(), "{sql}");
    }
    assert_eq!(std::fs::read(&granted).unwrap(), before);
    assert!(!Path::new("/tmp/agnes-cell-attack.csv").exists());
    let files = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!((files(&bench.folder.path().join("blobs")), files(bench.folder.path())), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_a_retryable_error_and_the_next_query_works() {
    let bench = Bench::new().await;
    // After the first row.
    let mut running = bench.start(MANY_ROWS, "a").await.unwrap();
    assert!(running.batches.recv().await.unwrap().is_ok());
    let mut other = bench.start(MANY_ROWS, "b").await.unwrap();
    let pids = bench.workers(2).await;
    let mine = bench.cells.processes().0;
    assert_eq!(mine.len(), 2);
    // The one of `a` came first.
    kill(*pids.iter().min().unwrap());
    let error = loop {
        match running.batches.recv().await.unwrap() {
            Ok(_) => {}
            Err(error) => break agnes_core::Error::from(error),
        }
    };
    assert_eq!(error.code(), "query_worker_lost");
    assert!(error.is_retryable());
    // Who asks elsewhere does not notice.
    for _ in 0..50 {
        assert!(other.batches.recv().await.unwrap().is_ok());
    }
    assert_eq!(bench.ask("SELECT 42", "a").await.unwrap().0, 1);
    // Before the first row.
    drop((running, other));
    let bench = Bench::new().await;
    bench.ask("SELECT 1", "a").await.unwrap();
    let pid = bench.workers(1).await[0];
    let (asked, ()) = tokio::join!(bench.ask(ENDLESS, "a"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        kill(pid);
    });
    assert_eq!(asked.unwrap_err().code(), "query_worker_lost");
    assert_eq!(bench.ask("SELECT 42", "a").await.unwrap().0, 1);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_a_worker_to_somebody_else_is_asked_again() {
    let bench = Bench::new().await;
    bench.ask("SELECT 1", "a").await.unwrap();
    let pid = bench.workers(1).await[0];
    let slow = "SELECT count(*) FROM range(300000000) t(i) WHERE i % 7 = 3";
    let (first, second, ()) = tokio::join!(bench.ask(slow, "a"), bench.ask(slow, "a"), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        kill(pid);
    });
    let expected = (1, Some(42_857_143));
    assert_eq!((first.unwrap(), second.unwrap()), (expected, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_ten_gigabytes_ends_at_most_the_worker() {
    let bench = Bench::new().await;
    let calm = bench.start(MANY_ROWS, "calm").await.unwrap();
    for sql in [
        "SELECT length(repeat('x', 4000000000) || i::VARCHAR) FROM range(3) t(i)",
        "SELECT list(repeat('x', 1000000) || i::VARCHAR) FROM range(10000) t(i)",
    ] {
        let error = bench.ask(sql, "greedy").await.unwrap_err();
        let codes = ["query_memory", "query_spill", "query_worker_lost", "query_failed", "query_out_of_range"];
        assert!(codes.contains(&error.code()), "{} {error}", error.code());
        assert_eq!(bench.ask("SELECT 42", "greedy").await.unwrap().0, 1);
    }
    let mut calm = calm;
    assert!(calm.batches.recv().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_stop_is_ended_after_the_grace() {
    let bench = Bench::with(|options| options.grace = Duration::from_millis(300)).await;
    // One call of a function: the engine looks at an interrupt only when it returns.
    let stubborn = "SELECT sum(length(regexp_replace(repeat('a', 30000000), 'a', 'bb', 'g'))) FROM range(1000) t(i)";
    let mut job = bench.job(bench.checked(stubborn).await, "a");
    job.deadline = Instant::now() + Duration::from_millis(300);
    let (guard_in, guard_out) = std::sync::mpsc::channel::<()>();
    job.guard = Box::new(Tell(guard_in));
    let error = match bench.cells.start(job).await {
        Ok(running) => rows(running).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), "query_timeout");
    guard_out.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(bench.ask("SELECT 42", "a").await.unwrap().0, 1);
}

struct Tell(std::sync::mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_no_memory_and_blocks_nobody() {
    let bench = Bench::new().await;
    let mut slow = bench.start(MANY_ROWS, "a").await.unwrap();
    let resident = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let pid = bench.workers(1).await[0];
    let before = (resident(pid), resident(std::process::id()));
    for _ in 0..20 {
        assert_eq!(bench.ask("SELECT count(*) FROM range(1000000)", "a").await.unwrap(), (1, Some(1_000_000)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = (resident(pid), resident(std::process::id()));
    // The endless result would be 100 GB; a window of it waits on each side.
    assert!(after.0 < before.0 + 100 && after.1 < before.1 + 100, "{before:?} {after:?} MiB");
    for _ in 0..200 {
        assert!(slow.batches.recv().await.unwrap().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queries_share_a_worker() {
    let bench = Arc::new(Bench::new().await);
    let asked = (0..16_i64).map(|n| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let query = bench.checked("SELECT count(*) + $n FROM range(200000)").await;
            let params = Params::Named([("n".to_owned(), Value::Int(n))].into());
            let running = bench.cells.start(QueryJob { params, ..bench.job(query, "a") }).await.unwrap();
            assert_eq!(rows(running).await.unwrap(), (1, Some(200_000 + n)));
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert_eq!(bench.workers(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_cross_as_they_are() {
    let bench = Bench::new().await;
    let query =
        bench.checked("SELECT isnan($a) AND $b = 'infinity'::DOUBLE AND $c = '\\x00\\xFF'::BLOB AND $d IS NULL").await;
    let params = [
        ("a".to_owned(), Value::Float(f64::NAN)),
        ("b".to_owned(), Value::Float(f64::INFINITY)),
        ("c".to_owned(), Value::Blob(vec![0, 255])),
        ("d".to_owned(), Value::Null),
    ];
    let job = QueryJob { params: Params::Named(params.into()), ..bench.job(query, "a") };
    let mut running = bench.cells.start(job).await.unwrap();
    let batch = running.batches.recv().await.unwrap().unwrap();
    assert!(batch.column(0).as_boolean().value(0));
    // Text longer than a message's window, and types that nest.
    let sql = "SELECT repeat('é', 5000000) AS long, [{'k': [1, NULL]}] AS nested, MAP {'a': 1.5::DECIMAL(9,2)} AS m, \
               TIMESTAMPTZ '2024-01-01 00:00:00+00' AS t, NULL AS n FROM range(3)";
    assert_eq!(bench.ask(sql, "a").await.unwrap().0, 3);
    assert_eq!(bench.ask("SELECT 1 WHERE false", "a").await.unwrap().0, 0);
}

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
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_few_and_do_not_grow_old() {
    if !alone("workers_are_few_and_do_not_grow_old") {
        return;
    }
    let bench = Bench::with(|options| {
        options.limits.instances = 2;
        options.recycle_after = 3;
    })
    .await;
    for set in ["a", "b", "c", "d"] {
        bench.ask("SELECT 1", set).await.unwrap();
    }
    let first = bench.workers(2).await;
    for _ in 0..3 {
        bench.ask("SELECT 1", "d").await.unwrap();
    }
    let second = bench.workers(2).await;
    assert_ne!(first, second, "after three queries another takes its place");
    eventually(|| (children().len() == 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_queries_leave_nothing_behind() {
    if !alone("a_hundred_queries_leave_nothing_behind") {
        return;
    }
    let bench = Bench::with(|options| options.recycle_after = 10).await;
    bench.ask("SELECT 1", "a").await.unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    eventually(|| (children().len() == 2).then_some(())).await;
    let before = open();
    for n in 0..100 {
        if n % 10 == 0 {
            drop(bench.start(MANY_ROWS, "a").await.unwrap());
        } else {
            bench.ask("SELECT * FROM granted", "a").await.unwrap();
        }
    }
    // One serves, one is idle.
    eventually(|| (children().len() == 2).then_some(())).await;
    eventually(|| (open() <= before).then_some(())).await;
    let scratch = bench.folder.path().join("tmp");
    eventually(|| (std::fs::read_dir(&scratch).unwrap().count() <= 3).then_some(())).await;
    bench.cells.close().await;
    assert_eq!(children(), Vec::<u32>::new());
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_their_parent() {
    use std::io::{BufRead, BufReader, Write};
    if std::env::var_os(ALONE).is_some() {
        let bench = Bench::new().await;
        let running = bench.start(MANY_ROWS, "a").await.unwrap();
        let (assigned, idle) = eventually(|| {
            let processes = bench.cells.processes();
            Some(processes).filter(|(assigned, idle)| assigned.len() == 1 && idle.len() == 1)
        })
        .await;
        let mut out = std::io::stdout();
        writeln!(out, "\nworkers {} {}", assigned[0], idle[0]).unwrap();
        out.flush().unwrap();
        let _ = bench.ask(ENDLESS, "a").await;
        drop(running);
        return;
    }
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "workers_end_with_their_parent", "--nocapture"])
        .env(ALONE, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("workers ")).unwrap();
    let pids: Vec<u32> = line.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_there(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    for pid in pids {
        eventually(|| (!is_there(pid)).then_some(())).await;
    }
}

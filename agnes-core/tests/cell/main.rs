//! The process wall: what a worker cannot do even where the walls before it are gone, and
//! what happens when it ends. Real processes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod limits;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::cell::{CellOptions, Cells, Hooks};
use agnes_core::query::{GrantSet, Isolation, Params, QueryJob, QueryLimits, Relation, RunningQuery, Runtime, Value};
use agnes_core::sandbox::{Checked, Gate, Readable, RelationKind};
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
/// to succeed. For tests that count processes, descriptors and memory.
fn alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let copy = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&copy.stdout);
    assert!(copy.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&copy.stderr));
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
    // One that ended meanwhile has none any more.
    let running: Vec<_> = tasks.iter().filter_map(|task| std::fs::read_to_string(task.join("status")).ok()).collect();
    assert!(running.len() > 1, "{tasks:?}");
    for status in running {
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
        at_work(pid).await;
        kill(pid);
    });
    assert_eq!(asked.unwrap_err().code(), "query_worker_lost");
    assert_eq!(bench.ask("SELECT 42", "a").await.unwrap().0, 1);
}

/// Waits until a process has worked for a tenth of a second.
async fn at_work(pid: u32) {
    // Its ticks, hundredths of a second, in user mode: proc_pid_stat(5).
    let ticks = || -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap().parse().unwrap()
    };
    let before = ticks();
    eventually(|| (ticks() >= before + 10).then_some(())).await;
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
        at_work(pid).await;
        kill(pid);
    });
    let expected = (1, Some(42_857_143));
    assert_eq!((first.unwrap(), second.unwrap()), (expected, expected));
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

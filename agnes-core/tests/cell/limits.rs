//! What a worker may use, how long, and what is not guaranteed where the kernel is old.

use agnes_core::config::Config;
use agnes_core::maintenance::CheckStatus;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::{CallContext, Engine, ErrorKind};

use super::*;

/// What an older kernel lacks, as people are told.
const LACKS: &str = "truncation of files (Landlock ABI 3, Linux 6.2 or newer)";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_lacks_is_told_and_strict_refuses() {
    let bench = Bench::with(|options| options.hooks.older_kernel = true).await;
    let missing = vec![LACKS.to_owned()];
    assert_eq!(bench.cells.isolation().await.unwrap(), Isolation::Process { missing });
    assert_eq!(bench.ask("SELECT count(*) FROM granted", "a").await.unwrap(), (1, Some(1)));
    let bench = Bench::with(|options| {
        options.hooks.older_kernel = true;
        options.strict = true;
    })
    .await;
    for error in [bench.ask("SELECT 1", "a").await.unwrap_err(), bench.cells.isolation().await.unwrap_err()] {
        assert_eq!((error.code(), error.kind()), ("isolation_missing", ErrorKind::ConfigInvalid));
        assert!(error.to_string().ends_with(LACKS), "{error}");
        assert!(error.hint().unwrap().contains("`query.strict`"));
    }
    // No worker took a grant set.
    assert_eq!(bench.cells.processes().0, Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_engine_does_not_start_without_a_guarantee() {
    let open = async |strict: bool, older: bool| {
        let bench = Bench::with(|options| {
            options.hooks.older_kernel = older;
            options.strict = strict;
        })
        .await;
        let mut config = Config::default();
        config.query.strict = strict;
        let root = bench.folder.path().join("engine");
        let opened = Engine::builder(root).config(config).query_runtime(Arc::new(bench.cells)).open().await;
        opened.map(|engine| (engine, bench.folder))
    };
    let error = open(true, true).await.unwrap_err();
    assert_eq!(error.code(), "isolation_missing");
    assert!(error.to_string().contains(LACKS), "{error}");
    for (strict, older, status, words) in
        [(true, false, CheckStatus::Ok, "each was tried from inside"), (false, true, CheckStatus::Warning, LACKS)]
    {
        let (engine, _folder) = open(strict, older).await.unwrap();
        let owner = CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api));
        let report = engine.maintenance().doctor(&owner).await.unwrap();
        let check = report.checks.into_iter().find(|check| check.name == "query_runtime").unwrap();
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.detail.ends_with(words), "{check:?}");
        engine.close().await.unwrap();
    }
    // Nor where there is no worker at all.
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.query.strict = true;
    let error = Engine::builder(folder.path()).config(config).open().await.unwrap_err();
    assert_eq!(error.code(), "isolation_missing");
    assert!(error.to_string().contains("processes of their own"), "{error}");
}

/// Niceness of every thread of a process; empty where it has ended.
fn niceness(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    // After the name in brackets: the third field to the nineteenth.
    stats.map(|stat| stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_runs_long_yields_to_all_others() {
    let bench = Arc::new(Bench::new().await);
    let own = niceness(std::process::id())[0];
    bench.ask("SELECT 1", "calm").await.unwrap();
    let calm = bench.workers(1).await[0];
    let asking = bench.clone();
    let running = tokio::spawn(async move { asking.ask(ENDLESS, "a").await });
    let both = bench.workers(2).await;
    let long = *both.iter().find(|pid| **pid != calm).unwrap();
    eventually(|| {
        let now = niceness(long);
        (now.len() > 1 && now.iter().all(|nice| *nice > own)).then_some(())
    })
    .await;
    assert!(niceness(calm).iter().all(|nice| *nice == own), "a neighbour does not");
    // Whoever asks for the same grant set now gets a worker that need not yield.
    assert_eq!(bench.ask("SELECT count(*) FROM granted", "a").await.unwrap(), (1, Some(1)));
    let (assigned, _) = bench.cells.processes();
    let short = *assigned.iter().find(|pid| ![calm, long].contains(pid)).unwrap();
    assert!(niceness(short).iter().all(|nice| *nice == own));
    // It was not ended for being long; it ends with its query.
    assert!(is_there(long) && !running.is_finished());
    running.abort();
    eventually(|| (!is_there(long)).then_some(())).await;
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_below(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn spilling_ends_at_the_quota_and_leaves_nothing() {
    const QUOTA: u64 = 48 << 20;
    let bench = Bench::with(|options| {
        options.limits.memory_bytes = 100 << 20;
        options.limits.spill_bytes = QUOTA;
        options.limits.threads = 2;
    })
    .await;
    let sorted = |rows: u32| {
        format!("SELECT t FROM (SELECT repeat('x', 60) || hash(i) AS t FROM range({rows}) r(i)) ORDER BY t DESC")
    };
    let scratch = bench.folder.path().join("tmp");
    let none = bytes_below(&scratch);
    let most = std::sync::atomic::AtomicU64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let watch = async {
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            most.fetch_max(bytes_below(&scratch), std::sync::atomic::Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ask = async {
        let error = bench.ask(&sorted(20_000_000), "a").await.unwrap_err();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        error
    };
    let (error, ()) = tokio::join!(ask, watch);
    assert_eq!((error.code(), error.kind()), ("query_spill", ErrorKind::LimitExceeded), "{error}");
    assert!(!error.is_retryable() && error.hint().is_some());
    let folder = bench.folder.path().to_string_lossy().into_owned();
    assert!(!format!("{error} {:?}", error.hint()).contains(&folder), "{error}");
    let most = most.load(std::sync::atomic::Ordering::SeqCst);
    assert!(most > none && most <= QUOTA + none, "{most} bytes");
    eventually(|| (bytes_below(&scratch) == none).then_some(())).await;
    // The same cell goes on, and may spill again.
    assert_eq!(bench.ask("SELECT count(*) FROM granted", "a").await.unwrap(), (1, Some(1)));
}

/// What no setting of the engine holds back, the keeper sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_spill_folder_that_fills_ends_its_worker() {
    let bench = Bench::with(|options| {
        options.hooks.no_engine_wall = true;
        options.limits.spill_bytes = 8 << 20;
        // No other worker has a folder.
        options.warm = 0;
    })
    .await;
    bench.attack("SELECT 1").await.unwrap();
    let scratch = bench.folder.path().join("tmp");
    let mut folders = std::fs::read_dir(&scratch).unwrap().flatten().map(|entry| entry.path());
    let is_cell = |folder: &PathBuf| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cell-"));
    let own = folders.find(is_cell).unwrap();
    // Each file is within the limit of one file: 3 GB in all.
    let write = |n: u32| format!("COPY (SELECT repeat('x', 6000000)) TO '{}/{n}.csv';", own.display());
    let error = bench.attack(&(0..500).map(write).collect::<String>()).await.unwrap_err();
    assert_eq!(error.code(), "query_worker_lost", "{error}");
    eventually(|| (bytes_below(&scratch) < 8 << 20).then_some(())).await;
    bench.attack("SELECT 1").await.unwrap();
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
    if !alone("limits::a_slow_reader_costs_no_memory_and_blocks_nobody") {
        return;
    }
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

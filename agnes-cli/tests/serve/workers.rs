//! Queries run in worker processes, and end with the server.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{BINARY, Server};

/// What runs below a process.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let parent = |entry: &std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| parent(entry) == Some(of))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Waits until none of these processes is there.
pub(crate) fn wait_until_gone(workers: &[u32]) {
    let still = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty());
    let patience = Instant::now() + Duration::from_secs(20);
    while workers.iter().any(still) {
        assert!(Instant::now() < patience, "a worker outlives the server");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn queries_run_in_workers_of_their_own() {
    let server = Server::start();
    assert!(!children(server.id()).is_empty(), "the probe that made it ready ran in a worker");
}

#[test]
fn a_query_without_end_does_not_keep_it_from_ending() {
    let server = Server::start_with(tempfile::tempdir().unwrap(), &["--farewell", "1"], &[]);
    let mut query = Command::new(BINARY)
        .args(["query", "select count(*) from range(10000000000000) a(i) where i % 7 = 3", "--data-dir"])
        .arg(server.folder.path())
        .current_dir(server.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A worker computes it now.
    let busy = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let user_time =
            text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(11)?.parse::<u64>().ok());
        user_time.is_some_and(|ticks| ticks > 50)
    };
    let patience = Instant::now() + Duration::from_secs(60);
    while !children(server.id()).iter().any(busy) {
        assert!(Instant::now() < patience && query.try_wait().unwrap().is_none(), "the query does not run");
        std::thread::sleep(Duration::from_millis(50));
    }
    let workers = children(server.id());
    server.signal("TERM");
    let (status, _folder) = server.ended();
    assert!(status.success(), "{status}");
    assert!(!query.wait().unwrap().success(), "a query that was cut off is told so");
    wait_until_gone(&workers);
}

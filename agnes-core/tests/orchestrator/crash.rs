//! Every file operation of a run fails once, and ends the process once: a run that writes
//! Parquet in both layouts, publishes the extract and rebuilds.

use std::path::{Path, PathBuf};
use std::process::Command;

use agnes_core::Engine;
use agnes_core::connector::{ConnectorRegistry, Progress};
use agnes_core::registry::NewSource;
use agnes_core::sync::SyncRequest;
use agnes_core::testing::{Behaviour, TestConnector};

use crate::support::{Site, ask, leftovers, owner};

/// Set in the child: the data folder.
const ROOT: &str = "AGNES_TEST_FAULT_ROOT";
/// Set in the child: which round of data it syncs.
const ROUND: &str = "AGNES_TEST_FAULT_ROUND";

/// Tables of a round: `one` is a file, `parts` a folder.
fn rounds(round: u32) -> TestConnector {
    let select = format!("SELECT {round} AS round, i % 3 AS p FROM range(300) r(i)");
    let tables = [("one", Behaviour::Rows(select.clone())), ("parts", Behaviour::Parts(select, "p".into()))];
    TestConnector::new("rounds", tables)
}

async fn open(root: &Path, round: u32) -> Engine {
    let mut config = agnes_core::config::Config::default();
    config.sync.attempts = 1;
    Engine::builder(root).config(config).connectors(ConnectorRegistry::new().with(rounds(round))).open().await.unwrap()
}

async fn sync(engine: &Engine) -> agnes_core::sync::SyncRun {
    engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await.unwrap()
}

/// The round each table answers with; each is whole.
async fn answers(engine: &Engine) -> Vec<String> {
    let mut rounds = Vec::new();
    for table in ["one", "parts"] {
        let rows = ask(engine, &format!("SELECT round, count(*) FROM {table} GROUP BY round")).await.unwrap();
        let [row] = rows.as_slice() else { panic!("a mixture in `{table}`: {rows:?}") };
        let (round, count) = row.split_once('|').unwrap();
        assert_eq!(count, "300", "half of `{table}`");
        rounds.push(round.to_owned());
    }
    rounds
}

/// Not a test of its own: the process whose file operations fail runs only this.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let (Some(root), Ok(round)) = (std::env::var_os(ROOT).map(PathBuf::from), std::env::var(ROUND)) else { return };
    let engine = open(&root, round.parse().unwrap()).await;
    // One operation may fail in the first run; then nothing may be half-done, and the next run works.
    let first = sync(&engine).await;
    assert!(answers(&engine).await.iter().all(|r| *r == "1" || *r == round), "after {first:?}");
    let second = sync(&engine).await;
    assert!(second.outcome.as_ref().is_some_and(|o| !o.partial), "{second:?}");
    assert_eq!(answers(&engine).await, [round.clone(), round], "{first:?} {second:?}");
    engine.close().await.unwrap();
}

fn run_child(root: &Path, fault: &str) -> (bool, String) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--nocapture"])
        .env(ROOT, root)
        .env(ROUND, "2")
        .env("AGNES_FAULT_AT", fault)
        .output()
        .unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success());
}

/// A data folder that has synced round 1.
async fn prepared(site: &Site) {
    let engine = open(&site.root(), 1).await;
    let source =
        NewSource { name: "shop".into(), kind: "rounds".into(), config: serde_json::json!({}), schedule: None };
    engine.sources().add(&owner(), source).await.unwrap();
    sync(&engine).await;
    assert_eq!(answers(&engine).await, ["1", "1"]);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_at_any_file_operation_leaves_old_or_new() {
    let site = Site::new();
    prepared(&site).await;
    let mut ended = 0;
    for n in 1.. {
        let other = Site::new();
        copy(&site.root(), &other.root());
        let (finished, said) = run_child(&other.root(), &format!("{n}:abort"));
        assert!(!said.contains("panicked"), "at operation {n}: {said}");
        let engine = open(&other.root(), 3).await;
        assert_eq!(leftovers(&other.root().join("analytics")), Vec::<PathBuf>::new(), "at operation {n}");
        assert_eq!(leftovers(&other.root().join("extracts")), Vec::<PathBuf>::new(), "at operation {n}");
        let rounds = answers(&engine).await;
        assert!(rounds.iter().all(|r| r == "1" || r == "2"), "at operation {n}: {rounds:?}");
        let run = sync(&engine).await;
        assert_eq!(answers(&engine).await, ["3", "3"], "at operation {n}: {run:?}");
        engine.close().await.unwrap();
        if finished {
            break;
        }
        ended += 1;
    }
    assert!(ended >= 20, "only {ended} operations were reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_file_operation_may_fail_once() {
    let site = Site::new();
    prepared(&site).await;
    for n in 1..=40 {
        let other = Site::new();
        copy(&site.root(), &other.root());
        let (finished, said) = run_child(&other.root(), &n.to_string());
        assert!(finished, "when operation {n} fails: {said}");
    }
}

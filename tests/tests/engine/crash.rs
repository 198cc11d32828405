//! `kill -9` while files become generations: the old or the new data answers, nothing
//! half-done is left, no acknowledged run is lost.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agnes_core::sync::JobState;

use crate::support::{Site, add_files, cell, open, owner, rows, sync, temporaries};

/// Set in the process that is killed: the site's folder.
const CHILD: &str = "AGNES_TEST_CRASH_CHILD";

/// Not a test of its own: the process that is killed runs only this.
#[tokio::test(flavor = "multi_thread")]
async fn child_syncs_for_ever() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let folder = Path::new(&folder);
    let engine = open(&folder.join("data")).await.unwrap();
    let start: u64 = cell(&engine, &owner(), "SELECT max(round) FROM a").await.unwrap().parse().unwrap();
    println!("open");
    for round in start + 1.. {
        for table in ["a", "b"] {
            std::fs::write(folder.join("files").join(format!("{table}.csv")), content(round)).unwrap();
        }
        let run = engine
            .sync()
            .run(&owner(), agnes_core::sync::SyncRequest::default(), agnes_core::connector::Progress::default())
            .await
            .unwrap();
        assert_eq!(run.state, JobState::Succeeded, "{run:?}");
        println!("done {round}");
    }
}

fn content(round: u64) -> String {
    let rows: String = (0..2_000).map(|n| format!("{round},{n}\n")).collect();
    format!("round,n\n{rows}")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_old_or_the_new_generation_answers() {
    let site = Site::new();
    site.write("a.csv", &content(0));
    site.write("b.csv", &content(0));
    let folder = site.root().parent().unwrap().to_owned();
    let engine = site.open().await;
    add_files(&engine, "shop", &site.files()).await;
    sync(&engine).await;
    engine.close().await.unwrap();
    drop(engine);

    for kill in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child_syncs_for_ever", "--exact", "--nocapture"])
            .env(CHILD, &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = None;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Libtest prints the test's name before what the test prints, on the same line.
        while let Some(Ok(line)) = lines.next() {
            if line.ends_with("open") {
                break;
            }
        }
        // A different moment each time: anywhere in a run of some hundred milliseconds.
        std::thread::sleep(Duration::from_millis(37 * kill + kill * kill % 29));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = line.strip_prefix("done ").and_then(|n| n.parse::<u64>().ok()).or(acknowledged);
        }

        let engine = open(&site.root()).await.unwrap();
        assert_eq!(temporaries(&site.root()), Vec::<std::path::PathBuf>::new(), "after kill {kill}");
        for table in ["a", "b"] {
            let got = rows(&engine, &owner(), &format!("SELECT min(round), max(round), count(*) FROM {table}"))
                .await
                .unwrap();
            assert_eq!(got[0][0], got[0][1], "one round, not a mixture, in {table} after kill {kill}");
            assert_eq!(got[0][2], "2000", "{table} after kill {kill}");
            if let Some(round) = acknowledged {
                assert!(got[0][0].parse::<u64>().unwrap() >= round, "acknowledged round {round} is lost in {table}");
            }
        }
        // A run that was cut off is finished by the next one, and nothing stays running.
        sync(&engine).await;
        let runs = engine.sync().runs(&owner(), 100).await.unwrap();
        assert!(runs.iter().all(|run| run.state.is_final()), "after kill {kill}: {runs:?}");
        engine.close().await.unwrap();
        drop(engine);
    }
}

//! `kill -9` while files become generations, and right after a change was acknowledged: the
//! old or the new data answers, nothing half-done is left, no acknowledged run, person,
//! grant or table is lost.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use agnes_core::rbac::ResourceType;
use agnes_core::sync::{JobState, SyncRequest};

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

/// This binary again, running only the test `name` in the site's `folder`.
fn spawn(name: &str, folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
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
        let (mut child, mut lines) = spawn("crash::child_syncs_for_ever", &folder);
        let mut acknowledged = None;
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

/// Not a test of its own: the process that is killed after one of these was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child_changes_who_and_what_for_ever() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let folder = Path::new(&folder);
    let engine = open(&folder.join("data")).await.unwrap();
    let (identity, owner) = (engine.identity(), owner());
    let start = identity.users(&owner).await.unwrap().len();
    for n in start.. {
        let (user, group, table) = (format!("u{n}@acme.example"), format!("g{n}"), format!("t{n}"));
        identity.add_user(&owner, &user, None).await.unwrap();
        println!("\nack user {n}");
        identity.create_group(&owner, &group, None).await.unwrap();
        println!("\nack group {n}");
        identity.add_member(&owner, &group, &user).await.unwrap();
        println!("\nack member {n}");
        let files = folder.join(&table);
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join(format!("{table}.csv")), "id\n1\n").unwrap();
        add_files(&engine, &format!("s{n}"), &files).await;
        println!("\nack source {n}");
        engine.sync().run(&owner, SyncRequest::default(), agnes_core::connector::Progress::default()).await.unwrap();
        println!("\nack table {n}");
        identity.grant(&owner, &group, ResourceType::Table, &table).await.unwrap();
        println!("\nack grant {n}");
        if n % 2 == 1 {
            let grants = identity.grants(&owner, Some(&group)).await.unwrap();
            identity.revoke(&owner, &grants[0].grant.id).await.unwrap();
            println!("\nack revoke {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_right_after() {
    let site = Site::new();
    let folder = site.root().parent().unwrap().to_owned();
    site.open().await.close().await.unwrap();
    let mut acknowledged: Vec<(String, usize)> = Vec::new();
    for (round, after) in [1, 2, 3, 4, 5, 6, 13].into_iter().enumerate() {
        let (mut child, mut lines) = spawn("crash::child_changes_who_and_what_for_ever", &folder);
        let parse = |line: &str| {
            let (what, n) = line.strip_prefix("ack ")?.split_once(' ')?;
            Some((what.to_owned(), n.parse().ok()?))
        };
        let mut seen = 0;
        while seen < after {
            let Some(Ok(line)) = lines.next() else { panic!("the child ended by itself in round {round}") };
            if let Some(ack) = parse(&line) {
                acknowledged.push(ack);
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));

        let engine = open(&site.root()).await.unwrap();
        let (identity, owner) = (engine.identity(), owner());
        for (what, n) in &acknowledged {
            let (user, group, table) = (format!("u{n}@acme.example"), format!("g{n}"), format!("t{n}"));
            let there = match what.as_str() {
                "user" => identity.user(&owner, &user).await.is_ok(),
                "group" => identity.members(&owner, &group).await.is_ok(),
                "member" => identity.members(&owner, &group).await.unwrap().len() == 1,
                "source" => engine.sources().list(&owner).await.unwrap().iter().any(|s| s.name == format!("s{n}")),
                "table" => engine.registry().get(&owner, &table).await.is_ok(),
                "revoke" => identity.grants(&owner, Some(&group)).await.unwrap().is_empty(),
                _ => n % 2 == 1 || identity.grants(&owner, Some(&group)).await.unwrap().len() == 1,
            };
            assert!(there, "{what} {n} is lost after kill {round}");
            // Every change that was acknowledged is in the audit.
            let action = match what.as_str() {
                "grant" => "resource_grant.created",
                "revoke" => "resource_grant.deleted",
                _ => continue,
            };
            let filter = agnes_core::audit::AuditFilter {
                action_prefix: Some(action.into()),
                limit: 1000,
                ..Default::default()
            };
            let told = engine.audit().list(&owner, &filter).await.unwrap();
            assert!(!told.is_empty(), "{action} is not in the audit after kill {round}");
        }
        engine.close().await.unwrap();
        drop(engine);
    }
    assert!(
        acknowledged.iter().any(|(what, _)| what == "grant") && acknowledged.iter().any(|(what, _)| what == "revoke")
    );
}

/// Not a test of its own: the process that is killed after it gave out the id of a run.
#[tokio::test(flavor = "multi_thread")]
async fn child_triggers_a_run() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let engine = open(&Path::new(&folder).join("data")).await.unwrap();
    let run = engine.sync().trigger(&owner(), SyncRequest::default()).await.unwrap();
    println!("\nack {}", run.id);
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_id_was_given_out_is_not_lost() {
    let site = Site::new();
    site.write("a.csv", &content(0));
    let folder = site.root().parent().unwrap().to_owned();
    site.open_with_source().await.close().await.unwrap();
    let mut unfinished = 0;
    for round in 1..=6 {
        site.write("a.csv", &content(round));
        let (mut child, lines) = spawn("crash::child_triggers_a_run", &folder);
        let id = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ack ").map(str::to_owned)).unwrap();
        std::thread::sleep(Duration::from_millis((round - 1) * 15));
        child.kill().unwrap();
        child.wait().unwrap();

        let engine = open(&site.root()).await.unwrap();
        let run = engine.sync().get(&owner(), &id).await.unwrap_or_else(|error| panic!("in round {round}: {error}"));
        unfinished += i32::from(!run.state.is_final());
        // The next sync finishes it first.
        sync(&engine).await;
        let run = engine.sync().get(&owner(), &id).await.unwrap();
        assert_eq!(run.state, JobState::Succeeded, "in round {round}: {run:?}");
        assert_eq!(cell(&engine, &owner(), "SELECT max(round) FROM a").await.unwrap(), round.to_string());
        engine.close().await.unwrap();
        drop(engine);
    }
    assert!(unfinished > 0, "no kill came before the end of a run");
}

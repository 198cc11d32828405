//! What the log holds at its most talkative: whatever happens, no secret.

use std::process::Command;

use agnes_core::connector::Connector;

use crate::fake::{S3_KEY, S3_SECRET, SIGNATURE, TOKEN};
use crate::support::Site;
use crate::trouble::misfortunes;

const CHILD: &str = "AGNES_TEST_KEBOOLA_LOGS";
const LARGE: &str = "AGNES_TEST_KEBOOLA_LARGE";

/// Runs a test of this binary in a process of its own; all that it wrote.
fn log_of(test: &str, variable: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args([test, "--exact", "--nocapture"]).env(variable, "1").output().unwrap();
    let log = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(log.contains("all of it happened"), "{log}");
    log
}

/// Not a test of its own: the process whose log is looked at.
#[tokio::test]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .init();
    for misfortune in misfortunes() {
        let mut site = Site::new();
        let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "x"]]);
        site.settings["export_timeout_seconds"] = serde_json::json!(0.2);
        site.run(&mut site.request(&id)).await.unwrap();
        (misfortune.happens)(&site);
        let error = site.run(&mut site.request(&id)).await.unwrap_err();
        tracing::error!("told: {error} {error:?}");
    }
    eprintln!("all of it happened");
}

#[test]
fn no_secret_is_logged() {
    let log = log_of("logs::child", CHILD);
    assert!(log.contains("a slice could not be read, trying again"), "the log is talkative");
    for secret in [TOKEN, SIGNATURE, S3_KEY, S3_SECRET] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
}

/// Not a test of its own: the process whose log is looked at.
#[tokio::test]
async fn large() {
    if std::env::var_os(LARGE).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let site = Site::new();
    for n in 0..203 {
        site.fake.table(&format!("t{n}"), &["id:INTEGER"], &[]);
    }
    for described in [200, 203] {
        let found = site.connector.discover(&site.source()).await.unwrap();
        assert_eq!(found.len(), 203);
        assert_eq!(found.iter().filter(|table| !table.columns.is_empty()).count(), described);
    }
    eprintln!("all of it happened");
}

#[test]
fn a_listing_says_how_many_tables_it_does_not_describe() {
    let log = log_of("logs::large", LARGE);
    let said = log.lines().filter(|line| line.contains("without the types of their columns")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains("3 tables"), "{said:?}");
}

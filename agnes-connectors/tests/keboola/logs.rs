//! What the log holds at its most talkative: whatever happens, no secret.

use std::process::Command;

use crate::fake::{S3_KEY, S3_SECRET, SIGNATURE, TOKEN};
use crate::support::Site;
use crate::trouble::misfortunes;

const CHILD: &str = "AGNES_TEST_KEBOOLA_LOGS";

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
    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args(["logs::child", "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let log = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(log.contains("all of it happened"), "{log}");
    assert!(log.contains("a slice could not be read, trying again"), "the log is talkative");
    for secret in [TOKEN, SIGNATURE, S3_KEY, S3_SECRET] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
}

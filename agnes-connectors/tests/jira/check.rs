//! What nobody tells: service levels whose clocks run, and deliveries that never came.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::fake::stamp;
use crate::support::{Site, owner};

/// Makes issues that are young, and old enough not to be on their way.
fn young(site: &Site, count: usize) -> Vec<String> {
    let (now, at) = (Utc::now(), (Utc::now() - TimeDelta::hours(1)).timestamp_millis());
    site.fake.state().clock = now.timestamp_millis();
    (0..count)
        .map(|n| {
            let key = site.fake.create("HELP", &format!("young {n}"));
            site.fake.change(&key, |issue| drop(issue.fields.insert("created".to_owned(), stamp(at).into())));
            key
        })
        .collect()
}

async fn check(site: &Site) -> Value {
    site.engine.pushes().check(&owner(), "jira", 30).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_and_repairs_what_is_missing_stale_or_gone() {
    let site = Site::new().await;
    let keys = young(&site, 5);
    site.synced().await;
    let report = check(&site).await;
    assert_eq!(report["counts"], json!({"jira_api": 5, "raw_json": 5, "parquet": 5}));
    assert_eq!((&report["status"], &report["alert_level"]), (&json!("success"), &json!("INFO")));
    // Nobody told of any of this.
    let new = young(&site, 2);
    site.fake.comment(&keys[0], "unheard");
    site.fake.delete(&keys[1]);
    let report = check(&site).await;
    assert_eq!(report["discrepancies"]["missing_in_json"], json!(new));
    assert_eq!(report["discrepancies"]["stale_in_json"], json!([keys[0]]));
    assert_eq!(report["discrepancies"]["deleted_in_jira"], 1);
    assert_eq!(report["actions"]["auto_backfilled"].as_array().unwrap().len(), 3);
    site.is_same().await;
    let kept = site.root.path().join("extracts/jira/raw/_consistency_report.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept, report);
    // Rows that are not there though the issue is kept.
    for entry in std::fs::read_dir(site.root.path().join("extracts/jira/data/jira_issues")).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
    let report = check(&site).await;
    assert_eq!(report["discrepancies"]["missing_in_parquet"].as_array().unwrap().len(), 6);
    site.is_same().await;
    // More than can be a few lost deliveries is told, and left to a sync.
    young(&site, 25);
    let report = check(&site).await;
    assert_eq!((&report["alert_level"], &report["actions"]["auto_backfilled"]), (&json!("ERROR"), &json!([])));
    assert_eq!(report["discrepancies"]["missing_in_json"].as_array().unwrap().len(), 25);
    site.synced().await;
    site.is_same().await;
    // A check that cannot look says so: nothing is missing because of it.
    site.fake.fault("search/jql", 500, &[], "", u32::MAX);
    let error = site.engine.pushes().check(&owner(), "jira", 30).await.unwrap_err();
    assert_eq!(error.code(), "jira_unavailable");
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_whose_rows_could_not_be_taken() {
    let site = Site::new().await;
    let keys = young(&site, 2);
    site.fake.comment(&keys[0], "a comment");
    site.synced().await;
    // A month that cannot be read is left as it is, and so is everything that belongs to it.
    for entry in std::fs::read_dir(site.root.path().join("extracts/jira/data/jira_comments")).unwrap().flatten() {
        std::fs::write(entry.path(), "no parquet").unwrap();
    }
    let new = young(&site, 1);
    let report = check(&site).await;
    assert_eq!(report["actions"]["auto_backfilled"], json!(new));
    assert_eq!(report["actions"]["transform_failed"], json!(new));
    assert_eq!((&report["status"], &report["alert_level"]), (&json!("partial_success"), &json!("WARNING")));
    let kept = site.root.path().join("extracts/jira/raw/_consistency_report.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept, report);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn service_levels_that_cannot_be_had_stay() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    site.fake.change(&key, |issue| drop(issue.levels.insert("customfield_10328".to_owned(), level(5, false))));
    site.synced().await;
    let sql = "SELECT summary, first_response_elapsed_millis FROM jira_issues";
    assert_eq!(site.ask(sql).await, ["one|5"]);
    site.fake.fault("/ex/jira/", 500, &[], "", u32::MAX);
    site.fake.set(&key, "summary", json!("two"));
    site.synced().await;
    assert_eq!(site.ask(sql).await, ["two|5"]);
    site.fake.set(&key, "summary", json!("three"));
    site.tell("jira:issue_updated", &key).await;
    site.comes_to(sql, "three|5").await;
    // As soon as they can be had, they are.
    site.fake.change(&key, |issue| issue.levels["customfield_10328"] = level(7, false));
    site.fake.state().faults.clear();
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    assert_eq!(site.ask(sql).await, ["three|7"]);
    // Who may not see them is no reason to ask again and again.
    site.fake.fault("/ex/jira/", 403, &[], "{}", u32::MAX);
    site.fake.set(&key, "summary", json!("four"));
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    assert_eq!(site.ask(sql).await, ["four|7"]);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn service_levels_come_from_fields_that_are_named() {
    let site = Site::with(|config| config["fields"] = json!({"first_response": "Time to first response"})).await;
    let named = json!({"id": "customfield_20003", "name": "Time to first response", "custom": true});
    site.fake.state().fields.push(named);
    let at = (Utc::now() - TimeDelta::hours(1)).timestamp_millis();
    site.fake.state().clock = Utc::now().timestamp_millis();
    let key = site.fake.create("HELP", "one");
    site.fake.change(&key, |issue| {
        issue.fields.insert("created".to_owned(), stamp(at).into());
        issue.levels.insert("customfield_20003".to_owned(), level(5, false));
    });
    site.synced().await;
    let sql = "SELECT summary, first_response_elapsed_millis FROM jira_issues";
    assert_eq!(site.ask(sql).await, ["one|5"]);
    site.fake.set(&key, "summary", json!("two"));
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    assert_eq!(site.ask(sql).await, ["two|5"]);
    site.fake.set(&key, "summary", json!("three"));
    assert_eq!(check(&site).await["actions"]["auto_backfilled"], json!([key]));
    assert_eq!(site.ask(sql).await, ["three|5"]);
    site.engine.close().await.unwrap();
}

fn level(millis: i64, breached: bool) -> Value {
    json!({"id": "1", "name": "Time to first response", "completedCycles": [], "ongoingCycle":
        {"breached": breached, "goalDuration": {"millis": 3_600_000}, "elapsedTime": {"millis": millis}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn service_levels_are_polled() {
    let site = Site::new().await;
    let (open, done, none) =
        (site.fake.create("HELP", "open"), site.fake.create("HELP", "done"), site.fake.create("HELP", "none"));
    for key in [&open, &done] {
        site.fake.change(key, |issue| drop(issue.levels.insert("customfield_10328".to_owned(), level(5, false))));
    }
    site.synced().await;
    let sql = "SELECT issue_key, status_category, first_response_elapsed_millis, first_response_breached FROM jira_issues ORDER BY issue_key";
    let row = |key: &str, rest: &str| format!("{key}|{rest}");
    assert_eq!(
        site.ask(sql).await,
        [row(&open, "To Do|5|False"), row(&done, "To Do|5|False"), row(&none, "To Do|NULL|NULL")]
    );
    // The clock runs, and somebody finished the other one, unheard.
    site.fake.state().issues.get_mut(&open).unwrap().levels["customfield_10328"] = level(4_000_000, true);
    site.fake.change(&done, |issue| {
        issue.fields.insert("status".to_owned(), json!({"name": "Closed", "statusCategory": {"name": "Done"}}));
        issue.levels.clear();
    });
    let report = site.engine.pushes().poll(&owner(), "jira").await.unwrap();
    assert_eq!(report, json!({"updated": 1, "healed": 1, "skipped": 0, "failed": 0, "failed_issues": []}));
    assert_eq!(
        site.ask(sql).await,
        [row(&open, "To Do|4000000|True"), row(&done, "Done|5|False"), row(&none, "To Do|NULL|NULL")]
    );
    // What was done is not asked for again; what fails is told.
    site.fake.fault("/ex/jira/", 403, &[], "{}", u32::MAX);
    let report = site.engine.pushes().poll(&owner(), "jira").await.unwrap();
    assert_eq!(report, json!({"updated": 0, "healed": 0, "skipped": 0, "failed": 1, "failed_issues": [open]}));
    let without = Site::with(|config| config["cloud_id"] = Value::Null).await;
    let error = without.engine.pushes().poll(&owner(), "jira").await.unwrap_err();
    assert_eq!(error.code(), "push_not_configured");
    for site in [site, without] {
        site.engine.close().await.unwrap();
    }
}

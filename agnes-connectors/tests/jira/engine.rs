//! A source that is synced: the backfill, what changed, fields by name, what cannot be had.

use agnes_core::ErrorKind;
use agnes_core::sync::TableStatus;
use serde_json::json;

use crate::fake::{TOKEN, paragraph};
use crate::support::{Site, owner};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_everything_and_the_next_what_changed() {
    let site = Site::new().await;
    for n in 0..7 {
        site.fake.create("HELP", &format!("issue {n}"));
    }
    site.fake.state().page = 3;
    site.fake.comment("HELP-1", "first");
    site.fake.remote_link("HELP-1", "https://wiki.example/a");
    site.fake.link("HELP-1", "HELP-2");
    site.fake.set("HELP-2", "summary", json!("renamed"));
    site.synced().await;
    site.is_same().await;
    let links = site.ask("SELECT direction, linked_issue_key, link_type FROM jira_issuelinks ORDER BY ALL").await;
    assert_eq!(links, ["inward|HELP-1|Blocks", "outward|HELP-2|Blocks"]);
    let change = site.ask("SELECT field_name, from_value, to_value FROM jira_changelog").await;
    assert_eq!(change, ["summary|issue 1|renamed"]);
    let raw = site.raw("HELP-1").unwrap();
    assert_eq!(raw["_remote_links"][0]["object"]["url"], "https://wiki.example/a");
    // Nothing new: nothing is fetched, nothing is published.
    let generation = site.ask("SELECT count(*) FROM jira_issues").await;
    let before = site.fake.state().requests.len();
    let run = site.sync(false).await;
    assert!(run.outcome.unwrap().tables.iter().all(|table| table.status == TableStatus::Unchanged));
    let requests = site.fake.state().requests[before..].to_vec();
    assert!(requests.iter().all(|request| !request.contains("/issue/")), "{requests:?}");
    assert_eq!(generation, ["7"]);
    // Two hours later one changed, one came, one is called otherwise: these alone are listed.
    site.fake.state().clock += 7_200_000;
    site.fake.comment("HELP-3", "more");
    let new = site.fake.create("HELP", "new");
    site.fake.rename("HELP-5", "OPS-5");
    site.fake.change("OPS-5", |_| {});
    let before = site.fake.state().requests.len();
    site.synced().await;
    site.is_same().await;
    let search = site.fake.state().searches.last().cloned().unwrap();
    assert!(search.starts_with("updated >= \"-6") && search.contains("m\" ORDER BY updated"), "{search}");
    let requests = site.fake.state().requests[before..].to_vec();
    let mut fetched: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.split_once("/issue/")?.1.split_once("?expand").map(|(key, _)| key))
        .collect();
    fetched.sort_unstable();
    // The one that is gone is asked for by both its names.
    assert_eq!(fetched, [&new, "HELP-3", "HELP-5", "OPS-5"]);
    // What is gone shows where the site counts other issues than are kept.
    site.fake.delete("HELP-6");
    site.synced().await;
    site.is_same().await;
    // Where it does not count them, it shows once a day.
    site.fake.fault("approximate-count", 404, &[], "{}", u32::MAX);
    site.fake.delete("HELP-4");
    site.synced().await;
    assert!(site.raw("HELP-4").unwrap().get("_deleted_at").is_none());
    site.a_day_later();
    site.synced().await;
    site.is_same().await;
    assert!(site.raw("HELP-4").unwrap()["_deleted_at"].is_string());
    // All anew, from nothing but the site.
    site.sync(true).await;
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_late_in_a_backfill_is_told_and_costs_no_place() {
    let site = Site::new().await;
    site.fake.state().next = 1000;
    for n in 0..1000 {
        site.fake.create("HELP", &format!("issue {n}"));
    }
    // From HELP-1600 on.
    for rest in ["16", "17", "18", "19"] {
        site.fake.fault(&format!("/issue/HELP-{rest}"), 500, &[], "", u32::MAX);
    }
    let outcome = site.sync(true).await.outcome.unwrap();
    assert_eq!(outcome.tables.len(), 6);
    for table in &outcome.tables {
        assert_eq!(
            (table.status, table.reason.as_deref()),
            (TableStatus::Error, Some("jira_unavailable")),
            "{table:?}"
        );
    }
    let note = std::fs::read(site.root.path().join("extracts/jira/raw/_backfill.json")).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    assert_eq!((&note["done"], &note["of"]), (&json!(600), &json!(1000)));
    site.fake.state().faults.clear();
    let before = site.fake.state().requests.len();
    let outcome = site.sync(true).await.outcome.unwrap();
    assert!(outcome.tables.iter().all(|table| table.status != TableStatus::Error), "{outcome:?}");
    let requests = site.fake.state().requests[before..].to_vec();
    assert_eq!(requests.iter().filter(|request| request.contains("expand=")).count(), 400);
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_fails_is_had_by_the_next_sync_and_stops_no_other() {
    let site = Site::new().await;
    for n in 0..20 {
        site.fake.create("HELP", &format!("issue {n}"));
    }
    site.synced().await;
    // What is kept is not what the site has, and nothing at the site says so: all is fetched anew, but for two.
    let fields = |key: &str| site.fake.state().issues[key].fields.clone();
    for key in ["HELP-3", "HELP-12"] {
        let mut summary = fields(key);
        summary.insert("summary".to_owned(), json!("otherwise"));
        site.fake.state().issues.get_mut(key).unwrap().fields = summary;
        site.fake.fault(&format!("/issue/{key}?"), 500, &[], "", u32::MAX);
    }
    let outcome = site.sync(true).await.outcome.unwrap();
    let told = |table: &agnes_core::sync::TableOutcome| format!("{:?} {:?}", table.status, table.notes);
    for table in &outcome.tables {
        assert_ne!(table.status, TableStatus::Error, "{}", told(table));
        assert!(told(table).contains("2 issues could not be fetched"), "{}", told(table));
    }
    // They fail again: nothing else does.
    let new = site.fake.create("HELP", "new");
    site.synced().await;
    assert_eq!(site.ask(&format!("SELECT summary FROM jira_issues WHERE issue_key = '{new}'")).await, ["new"]);
    let before = site.fake.state().requests.len();
    site.fake.state().faults.clear();
    site.synced().await;
    site.is_same().await;
    let fetches = |from: usize| {
        let requests = site.fake.state().requests[from..].to_vec();
        requests.iter().filter(|request| request.contains("expand=")).count()
    };
    assert_eq!(fetches(before), 2);
    let before = site.fake.state().requests.len();
    site.synced().await;
    assert_eq!(fetches(before), 0);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_read_to_their_end() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "long");
    for n in 0..250 {
        site.fake.comment(&key, &format!("comment {n}"));
        site.fake.set(&key, "summary", json!(format!("name {n}")));
    }
    site.synced().await;
    site.is_same().await;
    assert_eq!(site.ask("SELECT count(*), count(DISTINCT body) FROM jira_comments").await, ["250|250"]);
    // A page that fails leaves what is known, and the next sync brings the rest.
    site.fake.comment(&key, "one more");
    site.fake.fault("/comment?startAt=100", 404, &[], "{}", 1);
    site.synced().await;
    assert_eq!(site.ask("SELECT count(*) FROM jira_comments").await, ["250"]);
    site.fake.comment(&key, "and another");
    site.synced().await;
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_found_by_name() {
    let site =
        Site::with(|config| config["fields"] = json!({"severity": "Severity", "team": "Team", "spam": null})).await;
    let key = site.fake.create("HELP", "x");
    site.fake.change(&key, |issue| {
        issue.fields.insert("customfield_10004".to_owned(), json!({"value": "High"}));
        issue.fields.insert("customfield_10365".to_owned(), json!("yes"));
        issue.fields.insert("customfield_20001".to_owned(), json!([{"value": "red"}, {"value": "blue"}]));
        issue.fields.insert("customfield_10330".to_owned(), paragraph("some context"));
    });
    site.synced().await;
    let sql = "SELECT severity, spam, team, context FROM jira_issues";
    assert_eq!(site.ask(sql).await, [r#"High|NULL|["red","blue"]|some context"#]);
    // The site gives the name to another field.
    site.fake.state().fields[1]["name"] = json!("Was severity");
    site.fake.state().fields.push(json!({"id": "customfield_20002", "name": "severity"}));
    site.fake.change(&key, |issue| drop(issue.fields.insert("customfield_20002".to_owned(), json!({"value": "Low"}))));
    site.synced().await;
    assert_eq!(site.ask(sql).await, [r#"Low|NULL|["red","blue"]|some context"#]);
    site.fake.state().fields.clear();
    let items = site.engine.sources().check(&owner(), "jira").await.unwrap();
    let item = items.iter().find(|item| item.name == "fields").unwrap();
    assert!(!item.ok && item.detail.contains("`Team`"), "{item:?}");
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jira_refuses_is_told_and_costs_nothing() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    site.fake.remote_link(&key, "https://a.example");
    site.synced().await;
    // The account may not see links: those that are known stay.
    site.fake.set(&key, "summary", json!("two"));
    site.fake.fault("remotelink", 401, &[], "{}", u32::MAX);
    site.synced().await;
    assert_eq!(site.ask("SELECT summary FROM jira_issues").await, ["two"]);
    assert_eq!(site.ask("SELECT url FROM jira_remote_links").await, ["https://a.example"]);
    // None where the site knows of none.
    site.fake.state().faults.clear();
    site.fake.fault("remotelink", 404, &[], "{}", u32::MAX);
    site.fake.set(&key, "summary", json!("three"));
    site.synced().await;
    assert_eq!(site.ask("SELECT count(*) FROM jira_remote_links").await, ["0"]);
    for (status, headers, code, kind) in [
        (401, vec![], "jira_token_refused", ErrorKind::ConfigInvalid),
        (403, vec![], "jira_forbidden", ErrorKind::ConfigInvalid),
        (429, vec![("Retry-After", "0")], "jira_rate_limited", ErrorKind::RateLimited),
        (500, vec![], "jira_unavailable", ErrorKind::Unavailable),
        (200, vec![], "jira_answer_invalid", ErrorKind::DataInvalid),
    ] {
        site.fake.state().faults.clear();
        site.fake.fault("search/jql", status, &headers, &format!("{{\"message\": \"no {TOKEN}\""), u32::MAX);
        let outcome = site.sync(false).await.outcome.unwrap();
        for table in &outcome.tables {
            assert_eq!((table.status, table.reason.as_deref()), (TableStatus::Error, Some(code)), "{table:?}");
            assert_eq!(table.kind, Some(kind));
            let words = format!("{:?}{:?}", table.error, table.hint);
            assert!(table.hint.is_some() && !words.contains(TOKEN), "{words}");
        }
        assert_eq!(site.ask("SELECT summary FROM jira_issues").await, ["three"]);
    }
    site.fake.state().faults.clear();
    site.synced().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_takes_nothing_away() {
    let mut site = Site::new().await;
    for n in 0..3 {
        site.fake.create("HELP", &format!("issue {n}"));
    }
    site.synced().await;
    for silent in [false, true] {
        site.fake.state().silent = silent;
        site = site.again("an expired token").await;
        // All issues are listed.
        site.a_day_later();
        let outcome = site.sync(false).await.outcome.unwrap();
        assert_eq!(outcome.tables.len(), 6);
        for table in &outcome.tables {
            assert_eq!(table.reason.as_deref(), Some("jira_token_refused"), "{table:?}");
        }
        let checked = site.engine.pushes().check(&owner(), "jira", 3650).await;
        assert_eq!(checked.unwrap_err().code(), "jira_token_refused");
        // What is told of an issue is taken as it is told: nothing more can be had.
        let summary = format!("told {silent}");
        site.fake.set("HELP-1", "summary", json!(summary));
        site.tell("jira:issue_updated", "HELP-1").await;
        site.comes_to("SELECT summary FROM jira_issues WHERE issue_key = 'HELP-1'", &summary).await;
        assert_eq!(site.ask("SELECT count(*) FROM jira_issues").await, ["3"]);
        site = site.again(TOKEN).await;
        site.synced().await;
        site.is_same().await;
    }
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_of_another_site_are_other_issues() {
    let mut site = Site::new().await;
    let other = crate::fake::Fake::start();
    for n in 0..3 {
        other.create("HELP", &format!("real {n}"));
        site.fake.create("HELP", &format!("tried out {n}"));
    }
    other.comment("HELP-1", "a real one");
    // They are played with later than the real ones are worked on.
    site.fake.state().clock += 86_400_000;
    for key in ["HELP-1", "HELP-2"] {
        site.fake.comment(key, "tried out");
    }
    site.synced().await;
    site.engine.sources().remove(&owner(), "jira", false).await.unwrap();
    site.fake = other;
    site.add(|_| {}).await;
    site.synced().await;
    site.is_same().await;
    // From now on they are kept like any others.
    let before = site.fake.state().requests.len();
    site.synced().await;
    let requests = site.fake.state().requests[before..].to_vec();
    assert!(requests.iter().all(|request| !request.contains("/issue/")), "{requests:?}");
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_day() {
    let site = Site::new().await;
    site.fake.create("HELP", "one");
    site.fake.fault("search/jql", 429, &[("Retry-After", "86400")], "", u32::MAX);
    let run = tokio::time::timeout(std::time::Duration::from_secs(120), site.sync(false)).await.unwrap();
    let outcome = run.outcome.unwrap();
    assert!(outcome.tables.iter().all(|table| table.status == TableStatus::Error), "{outcome:?}");
    assert_eq!(site.fake.state().searches.len(), 0);
    site.fake.state().faults.clear();
    site.synced().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_was_cut_off_goes_on() {
    let site = Site::new().await;
    for n in 0..40 {
        site.fake.create("HELP", &format!("issue {n}"));
    }
    // Half way the site is overloaded, and every try after that fails, too.
    site.fake.fault("/issue/HELP-2", 500, &[], "", u32::MAX);
    let outcome = site.sync(false).await.outcome.unwrap();
    assert!(outcome.tables.iter().all(|table| table.status == TableStatus::Error), "{outcome:?}");
    let kept = site.root.path().join("extracts/jira/raw/issues");
    let there = std::fs::read_dir(&kept).unwrap().count();
    assert!(there > 20, "{there}");
    site.fake.state().faults.clear();
    let before = site.fake.state().requests.len();
    site.synced().await;
    let requests = site.fake.state().requests[before..].to_vec();
    let fetched = requests.iter().filter(|request| request.contains("expand=")).count();
    assert_eq!(fetched, 40 - there, "what is kept is not fetched again");
    site.is_same().await;
    site.engine.close().await.unwrap();
}

//! What BigQuery refuses, what costs too much, what never ends.

use agnes_core::connector::Connector;
use serde_json::json;

use crate::emulator::{PROJECT, Site};
use crate::google::{Google, TOKEN};
use crate::rpc::Rpc;

/// A source whose BigQuery answers as it is told to.
fn site() -> Site {
    let mut site = Site::on("http://127.0.0.1:1", "http://127.0.0.1:1");
    site.settings["endpoint"] = json!(site.google.url);
    site
}

const JOBS: &str = "POST /bigquery/v2/projects/agnes-test/jobs";

fn running(google: &Google) {
    let job = json!({"jobReference": {"jobId": "j", "location": "EU"}, "status": {"state": "RUNNING"},
        "statistics": {"totalBytesProcessed": "5", "query": {"statementType": "SELECT"}}});
    google.answer(&format!("{JOBS}/"), 200, json!({}));
    google.answer(JOBS, 200, job.clone());
    google.answer("GET /bigquery/v2/projects/agnes-test/jobs/j?location=EU", 200, job);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_its_budget_is_not_run() {
    let mut site = site();
    site.settings["max_bytes_per_materialize"] = json!(1000);
    site.google.answer(JOBS, 200, json!({"statistics": {"totalBytesProcessed": "1001"}}));
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_over_budget");
    assert_eq!(error.facts().unwrap(), json!({"current": 1001, "limit": 1000}));
    let jobs: Vec<_> = site.google.requests().into_iter().filter(|(what, _)| what == JOBS).collect();
    let [(_, body)] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert!(body.contains("\"dryRun\":true"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_over_its_budget_is_not_read() {
    let rpc = Rpc::start(1, 3, &[]).await;
    let mut site = site();
    site.settings["storage_endpoint"] = json!(rpc.url);
    site.settings["max_bytes_per_materialize"] = json!(1000);
    let table = |bytes: serde_json::Value| {
        json!({"tableReference": {"projectId": PROJECT, "datasetId": "shop", "tableId": "x"}, "type": "TABLE",
            "numBytes": bytes, "schema": {"fields": [{"name": "n", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]}})
    };
    let path = "GET /bigquery/v2/projects/agnes-test/datasets/shop/tables/x";
    site.google.answer(path, 200, table(json!("1001")));
    let error = site.run(&site.request("shop.x", None)).await.unwrap_err();
    assert_eq!(error.facts().unwrap(), json!({"current": 1001, "limit": 1000}));
    // Where its size is not told, what reading it would cost is.
    site.google.answer(path, 200, table(json!(null)));
    site.google.answer(JOBS, 200, json!({"statistics": {"totalBytesProcessed": "1002"}}));
    let error = site.run(&site.request("shop.x", None)).await.unwrap_err();
    assert_eq!(error.facts().unwrap(), json!({"current": 1002, "limit": 1000}));
    assert!(rpc.asked().reads.is_empty());
    for (bytes, limit) in [("1000", 1000), ("1001", 0)] {
        site.google.answer(path, 200, table(json!(bytes)));
        site.settings["max_bytes_per_materialize"] = json!(limit);
        site.run(&site.request("shop.x", None)).await.unwrap();
        assert_eq!(site.ask("SELECT count(*) FROM {t}"), ["3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_estimated_runs_only_as_one_query() {
    let site = site();
    let body = json!({"error": {"message": "Syntax error", "errors": [{"reason": "invalidQuery"}]}});
    site.google.answer(JOBS, 400, body);
    for (sql, asked) in [("INSERT INTO shop.x VALUES (1); SELECT bad syntax", 1), ("SELECT 1 FROM shop.x", 2)] {
        let before = site.google.asked(JOBS);
        let error = site.run(&site.request("shop.x", Some(sql))).await.unwrap_err();
        assert_eq!(error.code(), "bigquery_query_invalid", "{error}");
        assert_eq!(site.google.asked(JOBS) - before, asked, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_without_bytes_is_none() {
    let site = site();
    site.google.answer(JOBS, 200, json!({"statistics": {"query": {"statementType": "SELECT"}}}));
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_answer_invalid", "{error}");
    assert_eq!(site.google.asked(JOBS), 1, "the estimate alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_while_a_job_runs_is_replaced() {
    let rpc = Rpc::start(1, 3, &[]).await;
    let mut site = site();
    site.settings["storage_endpoint"] = json!(rpc.url);
    rpc.open_to(&site.google);
    running(&site.google);
    let done = json!({"jobReference": {"jobId": "j", "location": "EU"}, "status": {"state": "DONE"},
        "configuration": {"query": {"destinationTable":
        {"projectId": PROJECT, "datasetId": "_anon", "tableId": "result"}}}});
    site.google.answer("GET /bigquery/v2/projects/agnes-test/jobs/j?location=EU", 200, done);
    // After the estimate, after the start.
    site.google.end_token_after(&[JOBS, JOBS]);
    site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap();
    assert_eq!(site.ask("SELECT count(*) FROM {t}"), ["3"]);
    assert_eq!(site.google.asked("POST /token"), 3);
    // What is refused although it is new is not asked for again and again.
    site.google.answer(JOBS, 401, json!({"error": {"message": "no"}}));
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_token_refused");
    assert_eq!(site.google.asked("POST /token"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_says_whose_move_it_is() {
    for (reason, code, retryable) in [
        ("backendError", "bigquery_unavailable", true),
        ("jobInternalError", "bigquery_unavailable", true),
        ("jobRateLimitExceeded", "bigquery_quota", true),
        ("quotaExceeded", "bigquery_quota", true),
        ("accessDenied", "bigquery_forbidden", false),
        ("resourcesExceeded", "bigquery_job_failed", false),
    ] {
        let site = site();
        running(&site.google);
        let failed = json!({"jobReference": {"jobId": "j", "location": "EU"},
            "status": {"state": "DONE", "errorResult": {"reason": reason, "message": "it broke"}}});
        site.google.answer("GET /bigquery/v2/projects/agnes-test/jobs/j?location=EU", 200, failed);
        let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{reason} {error}");
        assert!(error.to_string().contains("it broke") && error.hint().is_some(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_again_ends_the_run() {
    let site = site();
    running(&site.google);
    let done = json!({"jobReference": {"jobId": "j", "location": "EU"}, "status": {"state": "DONE"}});
    site.google.answer("GET /bigquery/v2/projects/agnes-test/jobs/j?location=EU", 200, done);
    let page = json!({"schema": {"fields": [{"name": "n", "type": "INTEGER"}]}, "rows": [{"f": [{"v": "1"}]}],
        "pageToken": "again"});
    site.google.answer("GET /bigquery/v2/projects/agnes-test/queries/j", 200, page);
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_answer_invalid", "{error}");
    assert_eq!(site.google.asked("GET /bigquery/v2/projects/agnes-test/queries/j"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_described_hides_no_others() {
    let mut site = site();
    site.settings["datasets"] = json!(["shop"]);
    let reference = |id: &str| json!({"projectId": PROJECT, "datasetId": "shop", "tableId": id});
    let listed = ["a", "b", "c"].map(|id| json!({"tableReference": reference(id)}));
    let path = "GET /bigquery/v2/projects/agnes-test/datasets/shop/tables";
    for (id, status) in [("a", 200), ("b", 403), ("c", 200)] {
        site.google.answer(&format!("{path}/{id}"), status, json!({"tableReference": reference(id), "type": "TABLE"}));
    }
    site.google.answer(path, 200, json!({"tables": listed}));
    let found = site.connector.discover(&site.source()).await.unwrap();
    assert_eq!(found.iter().map(|table| table.source_table.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    // Where none can be, it is told why.
    for id in ["a", "c"] {
        site.google.answer(&format!("{path}/{id}"), 403, json!({}));
    }
    assert_eq!(site.connector.discover(&site.source()).await.unwrap_err().code(), "bigquery_forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_estimated_is_not_run() {
    for (status, reason, code, word) in [
        (403, "accessDenied", "bigquery_forbidden", "bq_forbidden"),
        (403, "quotaExceeded", "bigquery_quota", "bq_upstream_error"),
        (404, "notFound", "bigquery_not_found", "bq_upstream_error"),
        (401, "authError", "bigquery_token_refused", "auth_failed"),
        (400, "responseTooLarge", "bigquery_response_too_large", "bq_response_too_large"),
        (400, "invalid", "bigquery_refused", "bq_upstream_error"),
    ] {
        let site = site();
        let body = json!({"error": {"message": format!("no, {TOKEN}"), "errors": [{"reason": reason}]}});
        site.google.answer(JOBS, status, body);
        let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some() && !error.to_string().contains(TOKEN), "{error}");
        assert_eq!(error.facts().unwrap()["error"], word, "{error}");
    }
    // Who may not use the project that pays hears which one that is.
    let mut site = site();
    site.settings["project"] = json!("acme-bi");
    site.settings["billing_project"] = json!("agnes-test");
    let words = "Caller does not have required permission to use project. Grant the caller serviceusage.services.use";
    site.google.answer(JOBS, 403, json!({"error": {"message": words, "errors": [{"reason": "forbidden"}]}}));
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    let facts = error.facts().unwrap();
    assert_eq!((error.code(), &facts["error"]), ("bigquery_project_forbidden", &json!("cross_project_forbidden")));
    let projects = ["billing_project", "data_project"].map(|name| facts["details"][name].clone());
    assert_eq!(projects, [json!("agnes-test"), json!("acme-bi")]);
    assert_eq!(facts["details"]["hint"], json!(error.hint()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_end_is_cancelled() {
    let mut site = site();
    site.settings["query_timeout_seconds"] = json!(1);
    running(&site.google);
    let error = site.run(&site.request("shop.x", Some("SELECT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_job_timeout");
    let asked = site.google.requests();
    assert!(asked.iter().any(|(what, _)| what.ends_with("/jobs/j/cancel?location=EU")), "{asked:?}");
    let started = asked.iter().find(|(what, body)| what == JOBS && !body.contains("dryRun")).unwrap();
    assert!(started.1.contains("\"maximumBytesBilled\":\"10737418240\"") && started.1.contains("workload_type"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_cancels_its_job() {
    let site = site();
    running(&site.google);
    let cancel = site.cancel.clone();
    let stop = async {
        while !site.google.requests().iter().any(|(what, _)| what.starts_with("GET ") && what.contains("/jobs/j")) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let request = site.request("shop.x", Some("SELECT 1"));
    let (done, ()) = tokio::join!(site.run(&request), stop);
    assert_eq!(done.unwrap_err().code(), "cancelled");
    assert!(site.google.requests().iter().any(|(what, _)| what.contains("/jobs/j/cancel")));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_none_are_told_without_their_words() {
    let mut site = site();
    let other = Google::start().key();
    let other = other.replace(
        other.split("\"token_uri\":\"").nth(1).unwrap().trim_end_matches("\"}"),
        &format!("{}/token", site.google.url),
    );
    for (key, words) in [
        ("{\"type\": \"service_account\", \"private_key\": \"hunter2\"}".to_owned(), "neither"),
        ("/no/such/hunter2.json".to_owned(), "cannot be read"),
        (other, "invalid_grant"),
    ] {
        site.key = key;
        let items = site.connector.check(&site.source()).await.unwrap();
        assert!(!items[0].ok && items[0].detail.contains(words), "{items:?}");
        assert!(!items[0].detail.contains("hunter2"), "{items:?}");
    }
    site.settings["key_env"] = json!("SOMEBODY_ELSES_SECRET");
    let error = site.connector.discover(&site.source()).await.unwrap_err();
    assert_eq!(error.code(), "attach_token_env_not_allowed");
}

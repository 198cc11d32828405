//! Rows by the Storage Read API and page by page: streams that break off, sessions that are
//! refused, and who pays for it.

use agnes_connectors::bigquery::BigQueryConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use serde_json::json;

use crate::emulator::{PROJECT, Site};
use crate::google::{Google, TOKEN};
use crate::rpc::{Cut, MESSAGE, Rpc, door};

/// A table of `rpc`'s rows, described by an API that answers as told.
fn site(rpc: &Rpc) -> Site {
    let mut site = Site::on("http://127.0.0.1:1", &rpc.url);
    site.settings["endpoint"] = json!(site.google.url);
    site.google.answer("GET /bigquery/v2/projects/agnes-test/datasets/shop/tables/many", 200, table(PROJECT));
    site
}

fn table(project: &str) -> serde_json::Value {
    json!({"tableReference": {"projectId": project, "datasetId": "shop", "tableId": "many"}, "type": "TABLE", "numBytes": "7000",
        "schema": {"fields": [{"name": "n", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]}})
}

const LOOK: &str =
    "SELECT count(*), count(DISTINCT n), min(n), max(n), count(*) FILTER (WHERE text <> 'row ' || n) FROM {t}";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_is_read_from_there() {
    for cut in [Cut::Status, Cut::Reset, Cut::Connection] {
        // Five streams, four at a time; the first break after three messages, others before the first.
        let cuts = [(3, cut), (0, cut), (2, cut), (1, cut), (0, cut)];
        let rpc = Rpc::start(5, 10 * MESSAGE + 7, &cuts).await;
        let site = site(&rpc);
        let report = site.run(&site.request("shop.many", None)).await.unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        let rows = 5 * (10 * MESSAGE + 7);
        assert_eq!(site.ask(LOOK), [format!("{rows}|{rows}|0|{}|0", rows - 1)], "{cut:?}");
        let asked = rpc.asked();
        assert_eq!(asked.sessions.len(), 1, "{cut:?}: one snapshot of the table");
        assert!(asked.reads.len() > 5, "{cut:?}: {:?}", asked.reads);
        let later: Vec<i64> = asked.reads.iter().map(|read| read.offset).filter(|offset| *offset > 0).collect();
        assert!(later.iter().all(|offset| offset % MESSAGE == 0), "{cut:?}: {later:?}");
        // A reset and a lost connection may take with them what had arrived.
        assert!(cut != Cut::Status || later.len() >= 3, "{later:?}");
        let Some(tokens) = asked.headers.get("authorization") else { panic!("{:?}", asked.headers) };
        assert!(tokens.iter().all(|token| *token == format!("Bearer {TOKEN}")));
        assert!(asked.headers["x-goog-request-params"].iter().any(|route| route == "read_stream=stream%2F4"));
    }
}

/// Its rows come once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_what_it_sent_is_read_from_the_first_row() {
    let cuts = [(3, Cut::Forgotten), (0, Cut::Forgotten), (5, Cut::Forgotten)];
    let rpc = Rpc::start(2, 10 * MESSAGE + 7, &cuts).await;
    let site = site(&rpc);
    site.run(&site.request("shop.many", None)).await.unwrap();
    let rows = 2 * (10 * MESSAGE + 7);
    assert_eq!(site.ask(LOOK), [format!("{rows}|{rows}|0|{}|0", rows - 1)]);
    assert!(rpc.asked().reads.iter().any(|read| read.offset > 0), "{:?}", rpc.asked().reads);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_goes_on_fails_and_the_last_good_data_stays() {
    let good = Rpc::start(1, 3, &[]).await;
    let mut site = site(&good);
    site.run(&site.request("shop.many", None)).await.unwrap();
    let bad = Rpc::start(1, 2 * MESSAGE, &[(0, Cut::Status); 5]).await;
    site.settings["storage_endpoint"] = json!(bad.url);
    let error = site.run(&site.request("shop.many", None)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("restarted"), "{error}");
    assert_eq!(bad.asked().reads.len(), 5);
    assert_eq!(site.ask("SELECT count(*) FROM {t}"), ["3"]);
}

/// While rows are on their way, before the next stream is opened and before the session is.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_between_streams_is_replaced() {
    let rpc = Rpc::start(5, 10 * MESSAGE + 7, &[(3, Cut::Token)]).await;
    let site = site(&rpc);
    rpc.open_to(&site.google);
    site.google.end_token_after(&["GET /bigquery/v2/projects/agnes-test/datasets/shop/tables/many"]);
    let report = site.run(&site.request("shop.many", None)).await.unwrap();
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    let rows = 5 * (10 * MESSAGE + 7);
    assert_eq!(site.ask(LOOK), [format!("{rows}|{rows}|0|{}|0", rows - 1)]);
    let asked = rpc.asked();
    assert!(asked.reads.iter().any(|read| read.offset == 3 * MESSAGE), "{:?}", asked.reads);
    assert_eq!(asked.sessions.len(), 1, "the first request for one was refused");
    assert_eq!(site.google.asked("POST /token"), 3, "one for all streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_again_ends_the_run() {
    let rpc = Rpc::start(1, MESSAGE, &[]).await;
    let site = site(&rpc);
    // It takes the tokens of somebody else alone.
    let other = Google::start();
    other.end_token();
    rpc.open_to(&other);
    let error = site.run(&site.request("shop.many", None)).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_token_refused");
    assert_eq!(site.google.asked("POST /token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_falls_silent_is_opened_once_more() {
    let rpc = Rpc::start(2, 10 * MESSAGE + 7, &[(3, Cut::Silence)]).await;
    let mut site = site(&rpc);
    site.settings["fetch_timeout_seconds"] = json!(1);
    site.run(&site.request("shop.many", None)).await.unwrap();
    let rows = 2 * (10 * MESSAGE + 7);
    assert_eq!(site.ask(LOOK), [format!("{rows}|{rows}|0|{}|0", rows - 1)]);
    assert!(rpc.asked().reads.iter().any(|read| read.offset == 3 * MESSAGE), "{:?}", rpc.asked().reads);
    let dumb = Rpc::start(1, MESSAGE, &[(0, Cut::Silence); 9]).await;
    site.settings["storage_endpoint"] = json!(dumb.url);
    let error = site.run(&site.request("shop.many", None)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("nothing came for 1 s"), "{error}");
    assert_eq!(dumb.asked().reads.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_emulator_that_is_cut_costs_no_row() {
    let sql = "CREATE TABLE shop.many AS SELECT n, CONCAT('row ', CAST(n AS STRING)) AS text \
               FROM UNNEST(GENERATE_ARRAY(0, 349999)) AS n";
    let Some(mut site) = Site::new(&["CREATE SCHEMA shop", sql]).await else { return };
    let (url, connections) = door(&site.emulator().addresses().1, 3_000_000).await;
    site.settings["storage_endpoint"] = json!(url);
    site.run(&site.request("shop.many", None)).await.unwrap();
    assert_eq!(site.ask(LOOK), ["350000|350000|0|349999|0"]);
    assert!(*connections.lock().unwrap() > 1, "it was not cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_sessions_are_not_permitted_rows_come_by_pages() {
    let Some(mut site) = Site::new(&[
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.many AS SELECT n, CONCAT('row ', CAST(n AS STRING)) AS text, CAST(n AS NUMERIC) / 4 AS price, \
         DATE_ADD(DATE '2020-01-01', INTERVAL CAST(MOD(n, 900) AS INT64) DAY) AS day, \
         TIMESTAMP_ADD(TIMESTAMP '2024-01-01 00:00:00+00', INTERVAL n SECOND) AS at, IF(MOD(n, 3) = 0, NULL, n / 8) AS ratio, \
         MOD(n, 2) = 0 AS even, [n, n + 1] AS both, STRUCT(n AS a, 'x' AS b) AS pair FROM UNNEST(GENERATE_ARRAY(0, 100001)) AS n",
    ])
    .await
    else {
        return;
    };
    // What the emulator's own sessions give.
    site.run(&site.request("shop.many", None)).await.unwrap();
    let digest = "SELECT count(*), sum(hash(t)) FROM {t} AS t";
    let wanted = (site.ask(LOOK), site.ask(digest));
    site.google.forward_to(&site.emulator().addresses().0);
    site.settings["endpoint"] = json!(site.google.url);
    for (code, words) in [(7, "no permission bigquery.readsessions.create"), (12, "not here")] {
        let rpc = Rpc::refusing(code, words).await;
        site.settings["storage_endpoint"] = json!(rpc.url);
        site.google.requests.lock().unwrap().clear();
        for sql in [None, Some("SELECT * FROM shop.many")] {
            let report = site.run(&site.request("shop.many", sql)).await.unwrap();
            assert!(
                report.notes.iter().any(|note| note.contains("page by page") && note.contains(words)),
                "{report:?}"
            );
            assert_eq!((site.ask(LOOK), site.ask(digest)), wanted, "{sql:?}");
        }
        // 100,002 rows are three pages, for each of the two.
        assert_eq!(site.google.asked("GET /bigquery/v2/projects/agnes-test/queries/"), 6);
        assert!(site.google.requests().iter().any(|(what, _)| what.contains("pageToken=")));
        assert_eq!(rpc.asked().sessions.len(), 3, "the table, then the answer to each query");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_project_than_that_of_the_data_pays() {
    let rpc = Rpc::start(2, MESSAGE, &[]).await;
    let mut site = Site::on("http://127.0.0.1:1", &rpc.url);
    site.settings["endpoint"] = json!(site.google.url);
    site.settings["billing_project"] = json!("acme-jobs");
    site.settings["location"] = json!("EU");
    // A table of the data's project, and one whose path names a third.
    for project in [PROJECT, "acme-other"] {
        let path = format!("GET /bigquery/v2/projects/{project}/datasets/shop/tables/many");
        site.google.answer(&path, 200, table(project));
    }
    let job = json!({"jobReference": {"projectId": "acme-jobs", "jobId": "j", "location": "EU"}, "status": {"state": "DONE"},
        "statistics": {"totalBytesProcessed": "5", "query": {"statementType": "SELECT"}}, "configuration": {"query": {"destinationTable":
        {"projectId": "acme-jobs", "datasetId": "_anon", "tableId": "result"}}}});
    site.google.answer("POST /bigquery/v2/projects/acme-jobs/jobs", 200, job);
    site.run(&site.request("shop.many", None)).await.unwrap();
    let mut other = site.request("shop.many", None);
    other.table.bq_fqn = Some("acme-other.shop.many".to_owned());
    site.run(&other).await.unwrap();
    site.run(&site.request("shop.many", Some("SELECT * FROM shop.many"))).await.unwrap();
    let asked = rpc.asked();
    let tables: Vec<&str> = asked.sessions.iter().map(|asked| asked.session.as_ref().unwrap().table.as_str()).collect();
    assert_eq!(
        tables,
        [
            "projects/agnes-test/datasets/shop/tables/many",
            "projects/acme-other/datasets/shop/tables/many",
            "projects/acme-jobs/datasets/_anon/tables/result"
        ]
    );
    assert!(asked.sessions.iter().all(|asked| asked.parent == "projects/acme-jobs"), "{asked:?}");
    assert!(asked.sessions.iter().all(|asked| asked.session.as_ref().unwrap().data_format == 2), "{asked:?}");
    assert!(asked.headers["x-goog-user-project"].iter().all(|payer| payer == "acme-jobs"));
    assert_eq!(asked.headers["x-goog-user-project"].len(), 9, "three sessions, six streams");
    assert_eq!(site.google.payers(), ["acme-jobs"]);
    assert_eq!(site.google.asked("POST /bigquery/v2/projects/acme-jobs/jobs"), 2, "the estimate and the job");
    assert_eq!(site.google.asked("POST /bigquery/v2/projects/agnes-test/"), 0);
    let job = site.google.requests().into_iter().rfind(|(what, _)| what.ends_with("/acme-jobs/jobs")).unwrap().1;
    assert!(job.contains("\"projectId\":\"acme-jobs\"") && job.contains("\"location\":\"EU\""), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_may_not_be_called_is_not() {
    let rpc = Rpc::start(1, 1, &[]).await;
    let mut site = site(&rpc);
    site.settings["storage_endpoint"] = json!(rpc.url.replace("127.0.0.1", "127.0.0.2"));
    site.connector = BigQueryConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])));
    let error = site.run(&site.request("shop.many", None)).await.unwrap_err();
    assert_eq!(error.code(), "private_url", "{error}");
    assert!(rpc.asked().sessions.is_empty());
}

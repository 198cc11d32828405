//! Whose token is used: the key that is configured, else the machine's, else what `gcloud` left.

use agnes_connectors::bigquery::BigQueryConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::connector::Connector as _;
use serde_json::json;

use crate::emulator::Site;
use crate::google::{Google, MACHINE_TOKEN};

const DATASETS: &str = "GET /bigquery/v2/projects/agnes-test/datasets";

/// A project without tables, whose source has no key.
fn site() -> Site {
    let mut site = Site::on("http://127.0.0.1:1", "http://127.0.0.1:1");
    site.settings["endpoint"] = json!(site.google.url);
    site.google.answer(DATASETS, 200, json!({}));
    site.key = String::new();
    site
}

/// Where `gcloud` would keep this user's credentials, with what it wrote there.
fn gcloud(site: &mut Site, google: &Google) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("application_default_credentials.json"), google.person()).unwrap();
    site.variables.push(("CLOUDSDK_CONFIG".to_owned(), folder.path().to_string_lossy().into_owned()));
    folder
}

/// A machine that is not there: nobody listens at its port.
fn nowhere() -> (String, String) {
    let port = agnes_core::testing::free_port();
    ("GCE_METADATA_HOST".to_owned(), format!("127.0.0.1:{port}"))
}

async fn looks(site: &Site) -> agnes_core::Result<usize> {
    site.connector.discover(&site.source()).await.map(|tables| tables.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_own_credentials_are_exchanged() {
    let mut site = site();
    site.key = site.google.person();
    looks(&site).await.unwrap();
    looks(&site).await.unwrap();
    let asked = site.google.requests();
    let tokens: Vec<_> = asked.iter().filter(|(what, _)| what == "POST /token").collect();
    let [(_, form)] = tokens.as_slice() else { panic!("{asked:?}") };
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=1%2F%2Frefresh"), "{form}");
    assert_eq!(site.google.asked(DATASETS), 2, "with the token it got");
    // One that was taken back.
    site.key = site.google.person().replace("1//refresh", "1//revoked");
    let error = looks(&site).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_auth_failed");
    assert!(error.to_string().contains("invalid_grant") && !error.to_string().contains("revoked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_machine_is_asked() {
    let mut site = site();
    site.variables.push(site.google.machine());
    let _left = gcloud(&mut site, &Google::start());
    looks(&site).await.unwrap();
    looks(&site).await.unwrap();
    assert_eq!((site.google.asked(MACHINE_TOKEN), site.google.asked("POST /token")), (1, 0));
    assert_eq!(site.google.asked(DATASETS), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_machine_may_do_is_shown_to_google_alone() {
    let mut site = site();
    site.variables.push(site.google.machine());
    for setting in ["endpoint", "storage_endpoint"] {
        let usual = site.settings[setting].take();
        site.settings[setting] = json!("https://googleapis.com.elsewhere.example");
        let error = looks(&site).await.unwrap_err();
        assert_eq!(error.code(), "bigquery_auth_failed");
        assert!(error.to_string().contains("is not Google's"), "{error}");
        site.settings[setting] = usual;
    }
    assert_eq!(site.google.asked(MACHINE_TOKEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_configured_comes_first() {
    let mut site = site();
    site.variables.push(site.google.machine());
    site.key = site.google.key();
    looks(&site).await.unwrap();
    assert_eq!((site.google.asked(MACHINE_TOKEN), site.google.asked("POST /token")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_machine_answers_gclouds_credentials_are_taken() {
    let mut site = site();
    let google = site.google.clone();
    let _left = gcloud(&mut site, &google);
    site.variables.push(nowhere());
    looks(&site).await.unwrap();
    assert_eq!((google.asked(MACHINE_TOKEN), google.asked("POST /token"), google.asked(DATASETS)), (0, 1, 1));
    // A machine that has no account.
    site.variables.pop();
    site.variables.push(google.machine());
    google.answer(MACHINE_TOKEN, 404, json!({}));
    // One that knows of no token and no machine yet.
    site.connector = BigQueryConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])));
    looks(&site).await.unwrap();
    assert_eq!((google.asked(MACHINE_TOKEN), google.asked("POST /token")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_none_all_that_was_tried_is_told() {
    let mut site = site();
    site.variables.push(nowhere());
    site.variables.push(("CLOUDSDK_CONFIG".to_owned(), site.root.path().to_string_lossy().into_owned()));
    let error = looks(&site).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_auth_failed");
    for words in ["GOOGLE_APPLICATION_CREDENTIALS", "no machine of Google's cloud", "gcloud"] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_soon_is_not_kept() {
    let site = {
        let mut site = site();
        site.key = site.google.key();
        site
    };
    site.google.tokens_last(60);
    looks(&site).await.unwrap();
    looks(&site).await.unwrap();
    assert_eq!(site.google.asked("POST /token"), 2);
    site.google.tokens_last(61);
    looks(&site).await.unwrap();
    assert_eq!(site.google.asked("POST /token"), 3);
}

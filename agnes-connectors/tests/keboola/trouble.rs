//! Bad luck: every failure says what happened and whose move it is, and leaves the last good data.

use agnes_core::error::ErrorKind;

use crate::fake::{Damage, SIGNATURE, TOKEN};
use crate::support::Site;

fn site() -> (Site, String) {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "b"], &["3", "c"]]);
    (site, id)
}

/// Something that goes wrong at the source of a table `in.c-shop.t`, and what is said of it.
pub(crate) struct Misfortune {
    pub(crate) code: &'static str,
    pub(crate) kind: ErrorKind,
    pub(crate) happens: fn(&Site),
}

/// Every kind of bad luck.
pub(crate) fn misfortunes() -> Vec<Misfortune> {
    const SAID: &str = r#"{"error": "no: see https://s3/x?sig=sig%2Bsecret", "code": "x"}"#;
    fn at(site: &Site, begins: &str, status: u16) {
        site.fake.fault(begins, status, &[], SAID, u32::MAX);
    }
    fn damaged(site: &Site, damage: Damage) {
        let mut state = site.fake.state();
        (state.damage, state.damaged_times) = (damage, u32::MAX);
    }
    use ErrorKind::{ConfigInvalid, DataInvalid, InvalidInput, LimitExceeded, NotFound, RateLimited, Unavailable};
    type Told = (&'static str, ErrorKind, fn(&Site));
    let all: [Told; 16] = [
        ("keboola_token_refused", ConfigInvalid, |site| at(site, "GET /v2/storage/tokens/", 401)),
        ("keboola_forbidden", ConfigInvalid, |site| at(site, "GET /v2/storage/tables/", 403)),
        ("keboola_not_found", NotFound, |site| site.fake.state().tables.clear()),
        ("keboola_conflict", Unavailable, |site| at(site, "POST ", 409)),
        ("keboola_too_large", LimitExceeded, |site| at(site, "POST ", 413)),
        ("keboola_refused", InvalidInput, |site| at(site, "POST ", 400)),
        ("keboola_rate_limited", RateLimited, |site| {
            site.fake.fault("POST ", 429, &[("Retry-After", "7200")], SAID, u32::MAX);
        }),
        ("keboola_unavailable", Unavailable, |site| at(site, "POST ", 500)),
        ("keboola_answer_invalid", DataInvalid, |site| {
            site.fake.fault("GET /v2/storage/jobs/", 200, &[], "{\"id\": ", u32::MAX);
        }),
        ("keboola_job_failed", DataInvalid, |site| site.fake.state().job_fails = Some("out of space".to_owned())),
        ("keboola_job_timeout", Unavailable, |site| site.fake.state().polls = u32::MAX),
        ("keboola_slice_unavailable", Unavailable, |site| damaged(site, Damage::CutBody)),
        ("keboola_slice_invalid", Unavailable, |site| damaged(site, Damage::WrongMd5)),
        ("keboola_rows_missing", Unavailable, |site| damaged(site, Damage::Missing)),
        ("keboola_file_invalid", Unavailable, |site| {
            for file in (2..200).step_by(2) {
                site.fake.fault(&format!("GET /blob/{file}/manifest"), 200, &[], "{\"entr", u32::MAX);
            }
        }),
        ("keboola_schema_changed", Unavailable, |site| {
            site.fake.state().at_export = Some(|table| table.columns.swap(0, 1));
        }),
    ];
    all.into_iter().map(|(code, kind, happens)| Misfortune { code, kind, happens }).collect()
}

/// What an error says to anybody, all in one.
fn told(error: &agnes_core::Error) -> String {
    let mut told = format!("{error} {error:?} {:?} {:?}", error.hint(), error.facts());
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        told.push_str(&format!(" {inner} {inner:?}"));
        cause = inner.source();
    }
    told
}

#[tokio::test]
async fn every_status_says_whose_move_it_is() {
    for (status, code, kind) in [
        (401, "keboola_token_refused", ErrorKind::ConfigInvalid),
        (403, "keboola_forbidden", ErrorKind::ConfigInvalid),
        (404, "keboola_not_found", ErrorKind::NotFound),
        (409, "keboola_conflict", ErrorKind::Unavailable),
        (413, "keboola_too_large", ErrorKind::LimitExceeded),
        (422, "keboola_refused", ErrorKind::InvalidInput),
        (429, "keboola_rate_limited", ErrorKind::RateLimited),
        (500, "keboola_unavailable", ErrorKind::Unavailable),
        (503, "keboola_unavailable", ErrorKind::Unavailable),
    ] {
        let (site, id) = site();
        let mut request = site.request(&id);
        site.run(&mut request).await.unwrap();
        let body = format!(r#"{{"error": "no, {TOKEN}: see https://s3/x?sig={SIGNATURE}", "code": "x"}}"#);
        site.fake.fault("POST ", status, &[("Retry-After", "77")], &body, u32::MAX);
        let error = site.run(&mut request).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, kind), "{status}");
        let told = told(&error);
        assert!(!told.contains(TOKEN) && !told.contains(SIGNATURE), "{told}");
        assert!(error.to_string().contains(&format!("answered {status}")), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(error.facts().unwrap()["retry_after_seconds"], 77);
        assert_eq!(site.all().len(), 3, "the last good data stays");
        assert_eq!(site.left(), 0);
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let (site, id) = site();
    site.fake.fault("GET /v2/storage/jobs/1", 503, &[("Retry-After", "0")], "", 4);
    site.fake.fault("POST ", 429, &[("Retry-After", "1")], "", 1);
    site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(site.all().len(), 3);
}

#[tokio::test]
async fn a_job_fails_or_never_ends() {
    let (mut site, id) = site();
    site.fake.state().job_fails = Some("Column \"x\" not found".to_owned());
    let mut request = site.request(&id);
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!(error.code(), "keboola_job_failed");
    assert!(error.to_string().contains("Column \"x\" not found"), "{error}");
    assert_eq!(site.left(), 0);
    {
        let mut state = site.fake.state();
        (state.job_fails, state.polls) = (None, u32::MAX);
    }
    site.settings["export_timeout_seconds"] = serde_json::json!(0.05);
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_job_timeout", true));
    let exports = site.fake.exports().len();
    // The next runs wait for the same job.
    for _ in 0..2 {
        assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_job_timeout");
        assert_eq!(site.fake.exports().len(), exports);
    }
    let tables = site.fake.state().tables.clone();
    site.fake.mend(tables);
    site.settings["export_timeout_seconds"] = serde_json::json!(60);
    site.run(&mut request).await.unwrap();
    assert_eq!((site.fake.exports().len(), site.all().len(), site.left()), (exports, 3, 0));
}

#[tokio::test]
async fn to_wait_longer_than_clocks_go_is_no_more_than_a_timeout() {
    let (site, id) = site();
    let mut request = site.request(&id);
    for asked in ["18446744073709551615", "9000000000000000"] {
        site.fake.fault("GET /v2/storage/jobs/", 503, &[("Retry-After", asked)], "", 1);
        assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_job_timeout");
    }
    for begins in ["GET /blob/2/manifest", "GET /blob/2/in.c-shop.t"] {
        site.fake.fault(begins, 503, &[("Retry-After", "18446744073709551615")], "", 1);
        assert!(site.run(&mut request).await.unwrap_err().is_retryable());
    }
    site.run(&mut request).await.unwrap();
    assert_eq!((site.fake.exports().len(), site.all().len()), (1, 3));
}

#[tokio::test]
async fn signatures_that_expired_are_renewed() {
    let (site, id) = site();
    site.fake.fault("GET /blob/2/in.c-shop.t", 403, &[], "<Error>Request has expired</Error>", 2);
    site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(site.all().len(), 3);
    let details = site.fake.asked().iter().filter(|line| line.starts_with("GET /v2/storage/files/")).count();
    assert!(details >= 2, "{details}");
}

#[tokio::test]
async fn slices_that_stay_damaged_are_refused() {
    for (damage, code) in [
        (Damage::CutObject, "keboola_slice_invalid"),
        (Damage::Flipped, "keboola_slice_invalid"),
        (Damage::WrongMd5, "keboola_slice_invalid"),
        (Damage::Wide, "keboola_slice_invalid"),
        (Damage::Missing, "keboola_rows_missing"),
    ] {
        let (site, id) = site();
        let mut request = site.request(&id);
        site.run(&mut request).await.unwrap();
        {
            let mut state = site.fake.state();
            (state.damage, state.damaged_times) = (damage, u32::MAX);
        }
        let error = site.run(&mut request).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (code, true), "{damage:?}: {error}");
        let told = told(&error);
        assert!(!told.contains(SIGNATURE) && !told.contains("/blob/"), "{told}");
        assert_eq!(site.all().len(), 3, "the last good data stays");
        assert_eq!(site.left(), 0, "{damage:?}");
        // The next attempt begins anew.
        site.fake.state().damage = Damage::None;
        site.run(&mut request).await.unwrap();
    }
}

#[tokio::test]
async fn connections_that_break_off_are_gone_on_with() {
    let (site, id) = site();
    {
        let mut state = site.fake.state();
        (state.damage, state.damaged_times) = (Damage::CutBody, u32::MAX);
    }
    let mut request = site.request(&id);
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_slice_unavailable", true), "{error}");
    assert!(!told(&error).contains(SIGNATURE), "{}", told(&error));
    site.fake.state().damage = Damage::None;
    site.run(&mut request).await.unwrap();
    assert_eq!(site.fake.exports().len(), 1);
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn lists_of_slices_are_checked() {
    for manifest in [r#"{"entries": []}"#, r#"{"entries": [{}]}"#, r#"{"entr"#, "[]"] {
        let (site, id) = site();
        site.fake.fault("GET /blob/2/manifest", 200, &[], manifest, 9);
        let error = site.run(&mut site.request(&id)).await.unwrap_err();
        assert_eq!(error.code(), "keboola_file_invalid", "{manifest}");
    }
}

#[tokio::test]
async fn columns_that_change_meanwhile_are_noticed() {
    let (site, id) = site();
    let mut request = site.request(&id);
    // As many columns as before: only the names tell.
    site.fake.state().at_export = Some(|table| table.columns.swap(0, 1));
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_schema_changed", true));
    site.run(&mut request).await.unwrap();
    assert_eq!(site.types(), ["n|VARCHAR", "id|VARCHAR"]);
}

#[tokio::test]
async fn a_table_that_is_dropped_at_the_source_stays_here() {
    let (site, id) = site();
    let mut request = site.request(&id);
    site.run(&mut request).await.unwrap();
    site.fake.state().tables.clear();
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_not_found", false));
    assert_eq!(site.all().len(), 3);
}

#[tokio::test]
async fn no_token_and_no_stack_are_told() {
    let (mut site, id) = site();
    site.token = String::new();
    let error = site.run(&mut site.request(&id)).await.unwrap_err();
    assert_eq!(error.code(), "keboola_not_configured");
    assert!(error.to_string().contains("`KEBOOLA_STORAGE_TOKEN`"), "{error}");
    site.settings["stack_url"] = "https://169.254.169.254".into();
    site.token = TOKEN.to_owned();
    assert_eq!(site.run(&mut site.request(&id)).await.unwrap_err().code(), "private_url");
    // What listens there is no stack.
    let (site, id) = self::site();
    site.fake.fault("GET /v2/storage/tokens/verify", 200, &[], "<html>", 1);
    assert_eq!(site.run(&mut site.request(&id)).await.unwrap_err().code(), "keboola_answer_invalid");
}

//! First come, first served.

use agnes_core::orchestrator::SourceStatus;

use crate::support::{Site, ask, code, pair, rebuild, skipped, source};

fn two(site: &Site) {
    site.write("a", &[("orders", "SELECT 'a' AS who"), ("mine", "SELECT 1 AS n")]);
    site.write("b", &[("Orders", "SELECT 'b' AS who"), ("other", "SELECT 2 AS n")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_keeps_the_name_and_the_other_is_told() {
    let site = Site::new();
    two(&site);
    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["a"]);
    assert_eq!(ask(&engine, "SELECT n FROM other").await.unwrap(), ["2"]);
    assert_eq!(skipped(&outcome, "b"), [pair("Orders", "collision")]);
    assert!(outcome.degraded);

    let again = rebuild(&engine).await;
    assert!(!again.published, "{again:?}");
    assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_given_up_goes_to_the_other_in_the_same_rebuild() {
    for alone in [false, true] {
        let site = Site::new();
        two(&site);
        let engine = site.open().await;
        rebuild(&engine).await;
        site.write("a", &[("mine", "SELECT 1 AS n")]);
        if alone {
            engine.orchestrator().rebuild_source(&crate::support::owner(), "a").await.unwrap();
        } else {
            rebuild(&engine).await;
        }
        assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["b"], "rebuild of `a` alone: {alone}");
        // It is the owner now.
        two(&site);
        let outcome = rebuild(&engine).await;
        assert_eq!(skipped(&outcome, "a"), [pair("orders", "collision")]);
        assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_cannot_be_read_keeps_its_name_and_its_last_data() {
    let site = Site::new();
    site.write("a", &[("orders", "SELECT 'a' AS who")]);
    let engine = site.open().await;
    rebuild(&engine).await;
    std::fs::write(site.extract("a").join("extract.duckdb"), b"no database").unwrap();
    site.write("b", &[("orders", "SELECT 'b' AS who"), ("other", "SELECT 2 AS n")]);
    let outcome = rebuild(&engine).await;
    assert_eq!(source(&outcome, "a").status, SourceStatus::Unreadable);
    assert_eq!(skipped(&outcome, "b"), [pair("orders", "collision")]);
    assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["a"]);
    assert_eq!(ask(&engine, "SELECT n FROM other").await.unwrap(), ["2"]);
    // An operator ends it by removing the source.
    std::fs::remove_dir_all(site.extract("a")).unwrap();
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT who FROM orders").await.unwrap(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_never_readable_stays_in_the_outcome_and_stops_nobody() {
    let site = Site::new();
    site.write("good", &[("orders", "SELECT 1 AS n")]);
    std::fs::create_dir_all(site.extract("bad")).unwrap();
    std::fs::write(site.extract("bad").join("extract.duckdb"), [0; 4096]).unwrap();
    let engine = site.open().await;
    for alone in [false, true] {
        site.write("good", &[("orders", &format!("SELECT {} AS n", u8::from(alone)))]);
        let outcome = if alone {
            engine.orchestrator().rebuild_source(&crate::support::owner(), "good").await.unwrap();
            engine.orchestrator().outcome(&crate::support::owner()).await.unwrap()
        } else {
            rebuild(&engine).await
        };
        assert_eq!(source(&outcome, "bad").status, SourceStatus::Unreadable);
        assert!(outcome.degraded);
        assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), [u8::from(alone).to_string()]);
    }
    assert_eq!(code(&engine, "SELECT 1 FROM nothing").await, "relation_unknown");
}

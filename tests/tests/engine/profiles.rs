//! Profiles are made in the background: no run waits for them, no kill loses them, and what
//! did not change is not looked at again.

use agnes_core::Engine;
use agnes_core::config::Config;
use agnes_core::connector::Progress;

use crate::support::{Site, open, outcome, owner, sync};

const TABLES: usize = 12;

/// What the state says, as text, while nobody has it open.
fn state(site: &Site, sql: &str) -> String {
    let conn = duckdb::Connection::open(site.root().join("state/system.duckdb")).unwrap();
    conn.query_row(&format!("SELECT ({sql})::VARCHAR"), [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap()
}

fn write_tables(site: &Site, rows: usize) {
    for table in 0..TABLES {
        let mut text = "id,city,amount\n".to_owned();
        for row in 0..rows {
            text.push_str(&format!("{row},c{},{}.5\n", row % 97, row * 7 % 1000));
        }
        site.write(&format!("t{table:02}.csv"), &text);
    }
}

async fn finish(engine: &Engine) {
    engine.catalog().finish_profiles(&owner(), &Progress::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_does_not_wait_for_profiles_and_a_stop_loses_none() {
    let site = Site::new();
    write_tables(&site, 40_000);
    let engine = site.open_with_source().await;
    sync(&engine).await;
    engine.close().await.unwrap();
    let made: usize = state(&site, "SELECT count(*) FROM table_profiles").parse().unwrap();
    assert!(made < TABLES, "the run waited for {made} profiles");
    assert_eq!(
        state(&site, "SELECT string_agg(kind || ' ' || state, ', ') FROM jobs WHERE state <> 'succeeded'"),
        "profile running"
    );

    let engine = open(&site.root()).await.unwrap();
    // Whoever asks for one first waits for it.
    let profile = engine.catalog().profile(&owner(), "t11").await.unwrap();
    assert_eq!((&profile["row_count"], &profile["stale"]), (&40_000.into(), &false.into()));
    finish(&engine).await;
    engine.close().await.unwrap();
    assert_eq!(state(&site, "SELECT count(*) FROM table_profiles"), TABLES.to_string());
    assert_eq!(state(&site, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_profiled_again() {
    let site = Site::new();
    site.write("orders.csv", "id\n1\n2\n");
    site.write("customers.csv", "id\n1\n");
    let engine = site.open_with_source().await;
    sync(&engine).await;
    finish(&engine).await;
    assert_eq!(outcome(&sync(&engine).await, "orders").rows, 2);
    site.write("orders.csv", "id\n1\n2\n3\n");
    sync(&engine).await;
    let profile = engine.catalog().profile(&owner(), "orders").await.unwrap();
    assert_eq!(profile["row_count"], 3);
    engine.close().await.unwrap();
    assert_eq!(
        state(&site, "SELECT string_agg(outcome::JSON->>'made', ',' ORDER BY seq) FROM jobs WHERE kind = 'profile'"),
        "2,1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_fails_is_recorded_and_stops_no_other() {
    let site = Site::new();
    site.write("small.csv", "id\n1\n2\n");
    site.write("a_large.csv", &(0..200_000).fold("id,text\n".to_owned(), |text, n| text + &format!("{n},{n:0>200}\n")));
    let mut config = Config::default();
    config.profiler.memory_bytes = 8 << 20;
    let builder = Engine::builder(site.root()).connectors(agnes_connectors::builtin()).config(config);
    let engine = builder.open().await.unwrap();
    crate::support::add_files(&engine, "shop", &site.files()).await;
    sync(&engine).await;
    finish(&engine).await;
    let small = engine.catalog().profile(&owner(), "small").await.unwrap();
    assert_eq!(small["row_count"], 2);
    let missing = engine.catalog().profile(&owner(), "a_large").await.unwrap_err();
    assert_eq!(missing.code(), "no_profile");
    engine.close().await.unwrap();
    let outcome = state(&site, "SELECT outcome FROM jobs WHERE kind = 'profile'");
    assert!(outcome.contains("a_large") && outcome.contains("\"made\":1"), "{outcome}");
}

//! Extracts whose producer wants something else.

use std::os::unix::fs::symlink;

use agnes_core::orchestrator::SourceStatus;

use crate::support::{META, Site, ask, check_blobs, code, pair, rebuild, skipped, source, sql, write_meta};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_producer_is_executed() {
    let site = Site::new();
    let canary = site.outside().join("canary.csv");
    std::fs::write(&canary, "secret\nhunter2\n").unwrap();
    let read = format!("read_csv('{}')", canary.display());
    site.made_by(
        "meta_view",
        &format!("CREATE VIEW _meta AS SELECT secret AS table_name, 'local' AS query_mode FROM {read}"),
    );
    site.made_by("meta_computed", "CREATE TABLE _meta(a VARCHAR, table_name VARCHAR GENERATED ALWAYS AS (a || 'x'), query_mode VARCHAR); INSERT INTO _meta VALUES ('t', 'local')");
    site.made_by(
        "computed",
        &format!(
            "{META} INSERT INTO _meta(table_name, query_mode) VALUES ('calc', 'local'); \
                  CREATE TABLE calc(a VARCHAR, b VARCHAR GENERATED ALWAYS AS (current_setting('temp_directory')))"
        ),
    );
    // A view without Parquet of its own: its text is never run.
    site.made_by("view", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('leak', 'local'); CREATE VIEW leak AS SELECT * FROM {read}"));
    site.made_by("remote", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('far', 'remote'); CREATE VIEW far AS SELECT * FROM {read}"));
    site.made_by(
        "macros",
        &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('t', 'local'); CREATE TABLE t AS SELECT 1 AS n; \
                  CREATE MACRO \"left\"(a, b) AS 'stolen'; CREATE MACRO lower(a) AS 'stolen'; CREATE MACRO epoch_us(a) AS error('ran')"),
    );
    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    for name in ["meta_view", "meta_computed"] {
        assert_eq!(source(&outcome, name).status, SourceStatus::Unreadable, "{name}");
    }
    assert_eq!(skipped(&outcome, "view"), [pair("leak", "missing_data")]);
    assert_eq!(skipped(&outcome, "computed"), [pair("calc", "no_object")]);
    assert_eq!(skipped(&outcome, "remote"), [pair("far", "bad_remote_view")]);
    assert_eq!(source(&outcome, "macros").views, ["t"]);
    for table in ["leak", "far", "calc"] {
        assert_eq!(code(&engine, &format!("SELECT * FROM {table}")).await, "relation_unknown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_and_sizes_are_data() {
    let site = Site::new();
    site.made_by("types", "CREATE TABLE _meta(table_name STRUCT(a INTEGER), rows VARCHAR, query_mode BLOB, extracted_at BOOLEAN); INSERT INTO _meta VALUES ({'a': 1}, 'many', 'local'::BLOB, true)");
    site.made_by(
        "long",
        &format!("{META} INSERT INTO _meta(table_name, query_mode) SELECT repeat('x', 100000), repeat('y', 100000)"),
    );
    site.made_by(
        "many",
        &format!("{META} INSERT INTO _meta(table_name, query_mode) SELECT 't' || i, 'local' FROM range(50000) r(i)"),
    );
    site.made_by("modes", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('a', 'internal'), ('b', 'nonsense'); CREATE TABLE a AS SELECT 1 AS n; CREATE TABLE b AS SELECT 1 AS n"));
    site.made_by(
        "odd_name",
        &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('a\"; DROP TABLE x; --', 'local')"),
    );
    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    assert_eq!(source(&outcome, "many").status, SourceStatus::Unreadable);
    for (name, count) in [("types", 1), ("long", 1), ("modes", 2), ("odd_name", 1)] {
        assert_eq!((source(&outcome, name).views.len(), skipped(&outcome, name).len()), (0, count), "{name}");
    }
    let longest = outcome.sources.iter().flat_map(|s| &s.skipped).map(|row| row.table.len() + row.detail.len()).max();
    assert!(longest.unwrap() < 400, "what is shown is bounded");
}

/// A producer that may write only its own folder must not have Agnes publish what others
/// put elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn links_to_other_places_are_not_followed() {
    let site = Site::new();
    site.write("hr", &[("salaries", "SELECT 90000 AS pay")]);
    let salaries = site.extract("hr").join("data/salaries.parquet");
    let data = |source: &str| {
        let data = site.extract(source).join("data");
        std::fs::create_dir_all(&data).unwrap();
        data
    };
    symlink(&salaries, data("by_file").join("pay1.parquet")).unwrap();
    write_meta(&site.extract("by_file"), &["pay1"]);
    symlink("../../hr/data/salaries.parquet", data("by_relative").join("pay2.parquet")).unwrap();
    write_meta(&site.extract("by_relative"), &["pay2"]);
    symlink(site.extract("hr").join("data"), data("by_folder").join("salaries")).unwrap();
    write_meta(&site.extract("hr"), &["salaries"]);
    site.made_by("by_folder", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('salaries', 'local'); CREATE VIEW salaries AS SELECT 1"));
    std::fs::create_dir_all(site.extract("by_database")).unwrap();
    site.made_by("theirs", &format!("{META} INSERT INTO _meta(table_name, query_mode) VALUES ('inside', 'local'); CREATE TABLE inside AS SELECT 1 AS n"));
    symlink(site.extract("theirs").join("extract.duckdb"), site.extract("by_database").join("extract.duckdb")).unwrap();
    // Inside its own folder a producer may lay links as it likes.
    sql(None, &format!("COPY (SELECT 3 AS n) TO '{}' (FORMAT parquet)", data("tidy").join("v2.bin").display()));
    symlink("v2.bin", data("tidy").join("linked.parquet")).unwrap();
    write_meta(&site.extract("tidy"), &["linked"]);

    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "by_file"), [pair("pay1", "unreadable_data")]);
    assert_eq!(skipped(&outcome, "by_relative"), [pair("pay2", "unreadable_data")]);
    assert_eq!(skipped(&outcome, "by_folder"), [pair("salaries", "unreadable_data")]);
    assert_eq!(source(&outcome, "by_database").status, SourceStatus::Unreadable);
    assert_eq!(source(&outcome, "hr").views, ["salaries"]);
    assert_eq!(ask(&engine, "SELECT n FROM linked").await.unwrap(), ["3"]);
    check_blobs(&site);
    for row in outcome.sources.iter().flat_map(|s| s.skipped.iter().map(|r| r.detail.clone()).chain(s.error.clone())) {
        assert!(!row.contains('/'), "no path is shown: {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_that_no_list_allows_are_refused_and_said() {
    let site = Site::new();
    let attach = "CREATE TABLE _remote_attach(alias VARCHAR, extension VARCHAR, url VARCHAR, token_env VARCHAR);";
    site.made_by(
        "shop",
        &format!("{META} {attach} INSERT INTO _remote_attach VALUES \
                  ('kbc', 'keboola', 'https://evil.example', 'KBC_TOKEN'), ('pg', 'postgres', 'host=10.0.0.1 password=x', ''), \
                  ('f', 'httpfs', 'https://evil.example', ''), ('s', 'sqlite', '/etc/passwd', 'HOME')"),
    );
    let engine = site.open().await;
    let outcome = rebuild(&engine).await;
    let mut refused = skipped(&outcome, "shop");
    refused.sort();
    assert_eq!(
        refused,
        [
            pair("f", "attach_extension_not_allowed"),
            pair("kbc", "attach_host_not_allowed"),
            pair("pg", "attach_extension_not_allowed"),
            pair("s", "attach_extension_not_allowed")
        ]
    );
}

//! Extracts whose producer wants something else.

use agnes_core::orchestrator::SourceStatus;

use crate::support::{META, Site, code, pair, rebuild, skipped, source};

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

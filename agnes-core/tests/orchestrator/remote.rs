//! Tables that stay at their source, in the master that other tools open.

use std::path::{Path, PathBuf};

use agnes_core::Engine;
use agnes_core::config::Config;

use crate::support::{META, Site, ask, pair, rebuild, skipped, source, sql};

/// The extension's file, if it is there.
fn sqlite_extension() -> Option<PathBuf> {
    let places = [
        std::env::var_os("AGNES_TEST_EXTENSIONS").map(PathBuf::from),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/extensions")),
    ];
    let files = places.into_iter().flatten().map(|folder| folder.join("sqlite_scanner.duckdb_extension"));
    let found = files.into_iter().find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "the extension sqlite_scanner is missing");
        eprintln!("SKIPPED: the extension sqlite_scanner is missing; `make components` gets it");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tools_find_remote_tables_once_they_attach_the_source() {
    let Some(extension) = sqlite_extension() else { return };
    let site = Site::new();
    let shop = site.outside().join("shop.sqlite");
    let (load, file) = (format!("LOAD '{}'", extension.display()), shop.display());
    sql(
        None,
        &format!(
            "{load}; ATTACH '{file}' AS s (TYPE sqlite); CREATE TABLE s.items AS \
             SELECT i AS id, 'item ' || i AS \"full name\" FROM range(5) t(i);"
        ),
    );
    site.made_by(
        "shop",
        &format!(
            "{META} CREATE TABLE _remote_attach(alias VARCHAR, extension VARCHAR, url VARCHAR, token_env VARCHAR); \
             INSERT INTO _remote_attach VALUES ('src', 'sqlite', '{file}', ''); \
             INSERT INTO _meta(table_name, query_mode) VALUES ('items', 'remote'), ('names', 'remote'); \
             {load}; ATTACH '{file}' AS src (TYPE sqlite); CREATE VIEW items AS SELECT * FROM src.items; \
             CREATE VIEW names AS SELECT \"full name\" AS who, id FROM src.main.items; DETACH src;"
        ),
    );
    site.write("local", &[("orders", "SELECT 1 AS n")]);
    let mut config = Config::default();
    config.attach.extensions = Some(vec!["sqlite".to_owned()]);
    config.attach.sqlite_folders = vec![site.outside().to_owned()];
    config.attach.extension_folder = extension.parent().map(Path::to_owned);
    let engine = Engine::builder(site.root()).config(config).open().await.unwrap();
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "shop"), []);
    assert_eq!(source(&outcome, "shop").views, ["items", "names"]);
    assert_eq!(ask(&engine, "SELECT who FROM names WHERE id = 3").await.unwrap(), ["item 3"]);
    let pivot = "PIVOT (SELECT \"full name\" AS n, id FROM items WHERE id < 2) ON n USING sum(id)";
    assert_eq!(ask(&engine, &format!("SELECT \"item 1\" FROM ({pivot})")).await.unwrap(), ["1"]);

    let look = |master: &Path, ask: &str| -> String {
        let conn = duckdb::Connection::open_with_flags(
            master,
            duckdb::Config::default().access_mode(duckdb::AccessMode::ReadOnly).unwrap(),
        )
        .unwrap();
        let text = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        let (alias, url) = (text("SELECT alias FROM _remote_attach"), text("SELECT url FROM _remote_attach"));
        conn.execute_batch(&format!("{load}; ATTACH '{url}' AS {alias} (TYPE sqlite, READ_ONLY)")).unwrap();
        text(ask)
    };
    let master = site.root().join("analytics/server.duckdb");
    let both = "SELECT string_agg(i.\"full name\" || n.who, ',') FROM items i JOIN names n USING (id) WHERE id < 2";
    assert_eq!(look(&master, both), "item 0item 0,item 1item 1");

    // A patched copy keeps them, and drops them with their source.
    site.write("local", &[("orders", "SELECT 1 AS n"), ("costs", "SELECT 2 AS n")]);
    rebuild(&engine).await;
    assert_eq!(look(&master, "SELECT count(*)::VARCHAR FROM items, costs"), "5");
    std::fs::remove_dir_all(site.extract("shop")).unwrap();
    rebuild(&engine).await;
    let conn = duckdb::Connection::open(&master).unwrap();
    let left: String =
        conn.query_row("SELECT string_agg(name, ',' ORDER BY name) FROM (SHOW TABLES)", [], |row| row.get(0)).unwrap();
    assert_eq!(left, "costs,orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_extension_is_not_there_is_left_out_and_said() {
    let site = Site::new();
    let elsewhere = site.outside().join("elsewhere.duckdb");
    sql(Some(&elsewhere), "CREATE SCHEMA mart; CREATE TABLE mart.web_sessions AS SELECT 1 AS id, 'CZ' AS country;");
    // As a producer leaves it that has the community's extension.
    site.made_by(
        "warehouse",
        &format!(
            "{META} CREATE TABLE _remote_attach(alias VARCHAR, extension VARCHAR, url VARCHAR, token_env VARCHAR); \
             INSERT INTO _remote_attach VALUES ('bq', 'bigquery', 'project=acme-data', ''); \
             INSERT INTO _meta(table_name, query_mode) VALUES ('web', 'remote'); \
             ATTACH '{}' AS bq; CREATE VIEW web AS SELECT * FROM bq.mart.web_sessions; DETACH bq;",
            elsewhere.display()
        ),
    );
    site.write("local", &[("orders", "SELECT 1 AS n")]);
    let mut config = Config::default();
    config.attach.extension_folder = Some(site.outside().to_owned());
    let engine = Engine::builder(site.root()).config(config.clone()).open().await.unwrap();
    let outcome = rebuild(&engine).await;
    assert_eq!(skipped(&outcome, "warehouse"), [pair("web", "attach_extension_missing")]);
    let said = &source(&outcome, "warehouse").skipped[0].detail;
    assert!(said.contains("`bigquery` is not installed"), "{said}");
    assert_eq!(source(&outcome, "local").views, ["orders"]);
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["1"]);
    assert!(ask(&engine, "SELECT * FROM web").await.is_err());
    engine.close().await.unwrap();

    // What was missing is looked for at every rebuild: here it is something else that is missing.
    config.attach.extensions = Some(vec!["keboola".to_owned()]);
    let engine = Engine::builder(site.root()).config(config).open().await.unwrap();
    let outcome = rebuild(&engine).await;
    let reasons: Vec<String> = skipped(&outcome, "warehouse").into_iter().map(|(_, reason)| reason).collect();
    assert!(reasons.contains(&"attach_extension_not_allowed".to_owned()), "{reasons:?}");
}

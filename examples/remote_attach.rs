//! A table that stays at its source: a third party leaves an extract that points at a SQLite
//! file, the operator allows it, and Agnes asks the source at query time, under grants.
//!
//! Needs DuckDB's `sqlite_scanner` extension file: `scripts/fetch-extensions.sh`.
//!
//! `cargo run -p agnes-examples --example remote_attach`

use std::path::{Path, PathBuf};

use agnes_core::config::Config;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::{CallContext, Engine};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let extensions = extension_folder();
    let extension = extensions.join("sqlite_scanner.duckdb_extension");
    if !extension.is_file() {
        if std::env::var("CI").is_ok_and(|v| v == "true")
            || std::env::var("AGNES_REQUIRE_COMPONENTS").is_ok_and(|v| v == "1")
        {
            return Err("the extension `sqlite_scanner` is missing: run `scripts/fetch-extensions.sh`".into());
        }
        println!("SKIPPED: the extension `sqlite_scanner` is missing: run `scripts/fetch-extensions.sh`");
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let databases = place.path().join("databases");
    let data = place.path().join("data");
    third_party(&extension, &databases, &data)?;

    // Nothing may be attached unless the operator lists it.
    let mut config = Config::default();
    config.attach.extensions = Some(vec!["sqlite".to_owned()]);
    config.attach.sqlite_folders = vec![databases];
    config.attach.extension_folder = Some(extensions);
    let engine = Engine::builder(&data).config(config).open().await?;
    let ctx = CallContext::new(Principal::trusted_owner_of_the_data_folder("an example", ClientKind::Api));

    // What a third party left in the extracts folder is found by publishing.
    engine.orchestrator().rebuild(&ctx).await?;
    let sql = "SELECT customer, sum(revenue) AS revenue FROM crm_orders GROUP BY customer ORDER BY customer";
    let shown = agnes_examples::table(engine.query(&ctx, Query::new(sql)).await?).await?;
    println!("{shown}");
    assert!(shown.contains("Ada") && shown.contains("15.75"), "Ada bought for 15.75");

    engine.close().await?;
    Ok(())
}

fn extension_folder() -> PathBuf {
    std::env::var_os("AGNES_TEST_EXTENSIONS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/extensions"), PathBuf::from)
}

/// What a program that knows nothing of Agnes does: it has a database, and writes an
/// `extract.duckdb` by the documented layout that says where.
fn third_party(extension: &Path, databases: &Path, data: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(databases)?;
    let extract = data.join("extracts").join("crm");
    std::fs::create_dir_all(&extract)?;
    let sqlite = databases.join("shop.sqlite");
    let conn = duckdb::Connection::open(extract.join("extract.duckdb"))?;
    conn.execute_batch(&format!(
        "LOAD '{extension}';
         ATTACH '{sqlite}' AS crm (TYPE sqlite);
         CREATE TABLE crm.orders (customer VARCHAR, revenue DOUBLE);
         INSERT INTO crm.orders VALUES ('Ada', 10.5), ('Bob', 20), ('Ada', 5.25);
         CREATE TABLE _meta (table_name VARCHAR, description VARCHAR, rows BIGINT, size_bytes BIGINT,
                             extracted_at TIMESTAMP, query_mode VARCHAR);
         INSERT INTO _meta VALUES ('crm_orders', 'orders of the CRM', 0, 0, now()::TIMESTAMP, 'remote');
         CREATE TABLE _remote_attach (alias VARCHAR, extension VARCHAR, url VARCHAR, token_env VARCHAR);
         INSERT INTO _remote_attach VALUES ('crm', 'sqlite', '{sqlite}', '');
         CREATE VIEW crm_orders AS SELECT customer, revenue FROM crm.main.orders;
         CHECKPOINT;",
        extension = extension.display(),
        sqlite = sqlite.display(),
    ))?;
    Ok(())
}

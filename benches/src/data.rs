//! The tables that benchmarks work on, and engines that hold them.

use std::path::Path;
use std::time::Instant;

use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::Progress;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::NewSource;
use agnes_core::sync::SyncRequest;
use agnes_core::{CallContext, Engine};
use duckdb::Connection;
use serde_json::Value;

/// The 11 columns: bigint, decimal, date, two short strings, a 39-character string,
/// double, boolean, timestamp, integer, and an integer with nulls.
pub(crate) const ELEVEN: &str = "SELECT i AS id, ((i * 7919) % 1000000 / 100.0)::DECIMAL(18,2) AS amount, \
    DATE '2020-01-01' + ((i * 31) % 2000)::INTEGER AS day, 'c' || (i % 200) AS city, \
    ['new', 'paid', 'sent', 'done'][1 + i % 4] AS state, \
    md5(i::VARCHAR) || '-' || lpad((i % 1000000)::VARCHAR, 6, '0') AS reference, \
    sin(i) * 1000 AS score, i % 3 = 0 AS active, \
    TIMESTAMP '2020-01-01' + to_seconds((i * 37) % 100000000) AS at, (i % 5000)::INTEGER AS customer_id, \
    CASE WHEN i % 10 = 0 THEN NULL ELSE (i % 77)::INTEGER END AS score_band \
    FROM range({rows}) AS r(i)";

/// [`ELEVEN`] with this many rows.
pub(crate) fn eleven(rows: u64) -> String {
    ELEVEN.replace("{rows}", &rows.to_string())
}

/// A raw DuckDB with the engine's own settings for queries: 2 threads, 2 GiB.
pub(crate) fn raw() -> duckdb::Result<Connection> {
    let conn = Connection::open_in_memory()?;
    conn.execute_batch(
        "SET threads=2; SET memory_limit='2GiB'; SET preserve_insertion_order=false; SET TimeZone='UTC';",
    )?;
    Ok(conn)
}

/// The owner of the data folder.
pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("benchmark", ClientKind::Api))
}

/// An engine on `root` with the built-in connectors.
pub(crate) async fn engine(root: &Path) -> agnes_core::Result<Engine> {
    let mut config = Config::default();
    // Beside raw DuckDB stands the engine alone; what cells add is measured in `cell`.
    config.query.isolation = IsolationMode::InProcess;
    Engine::builder(root).connectors(agnes_connectors::builtin()).config(config).open().await
}

/// An engine on `root` with everything published and profiled: nothing works in the
/// background while others are measured.
pub(crate) async fn settled(root: &Path) -> agnes_core::Result<Engine> {
    let engine = engine(root).await?;
    engine.orchestrator().rebuild(&owner()).await?;
    engine.catalog().finish_profiles(&owner(), &Progress::default()).await?;
    Ok(engine)
}

/// Adds a source to an engine on `root` and brings its tables here: when that began, and when
/// they were published. It has to be `rows` rows; the engine and its folder are gone then.
pub(crate) async fn first_sync(
    engine: Engine,
    root: &Path,
    kind: &str,
    config: Value,
    rows: u64,
) -> Result<(Instant, Instant), Box<dyn std::error::Error>> {
    let source = NewSource { name: "shop".to_owned(), kind: kind.to_owned(), config, schedule: None };
    engine.sources().add(&owner(), source).await?;
    let started = Instant::now();
    let outcome = engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await?;
    let ended = Instant::now();
    let found: u64 = outcome.outcome.map(|o| o.tables.iter().map(|t| t.rows).sum()).unwrap_or_default();
    if found != rows {
        return Err(format!("{found} rows were published instead of {rows}").into());
    }
    engine.close().await?;
    std::fs::remove_dir_all(root)?;
    Ok((started, ended))
}

/// Writes the extract of a foreign producer: `tables` tables `<source>_t<n>` made by `select`.
pub(crate) fn foreign_extract(
    root: &Path,
    source: &str,
    tables: usize,
    select: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let folder = root.join("extracts").join(source);
    std::fs::create_dir_all(folder.join("data"))?;
    drop(std::fs::remove_file(folder.join("extract.duckdb")));
    let conn = Connection::open(folder.join("extract.duckdb"))?;
    conn.execute_batch(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR)",
    )?;
    for n in 0..tables {
        let name = format!("{source}_t{n}");
        let file = folder.join("data").join(format!("{name}.parquet"));
        let file = file.to_string_lossy().replace('\'', "''");
        conn.execute_batch(&format!(
            "COPY (SELECT {n} AS n, * FROM ({select})) TO '{file}' (FORMAT parquet, COMPRESSION zstd); \
             INSERT INTO _meta SELECT '{name}', NULL, count(*), 0, now()::TIMESTAMP, 'local' FROM '{file}'; CREATE VIEW {name} AS SELECT * FROM read_parquet('{file}');"
        ))?;
    }
    conn.execute_batch("CHECKPOINT")?;
    Ok(())
}

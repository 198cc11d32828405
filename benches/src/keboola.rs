//! A Keboola export of 1 M rows in 20 gzipped slices, from the job's success to the published
//! generation over loopback, against raw DuckDB that has the slices on its disk already.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use agnes_connectors::keboola::KeboolaConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::Engine;
use agnes_core::config::{Config, IsolationMode};
use agnes_core::secret::FixedSecrets;
use agnes_core::testing::Request;
use serde_json::{Value, json};

use crate::data::{eleven, first_sync, raw};
use crate::measure::{median, ratio, show, time};
use crate::{Outcome, Scale};

/// Slices of the export.
const SLICES: u64 = 20;
const TABLE: &str = "in.c-shop.events";
/// The columns of the benchmarks' table, with their types in Keboola, and in DuckDB.
const COLUMNS: [(&str, &str, &str, &str); 11] = [
    ("id", "BIGINT", "", "BIGINT"),
    ("amount", "NUMERIC", "18,2", "DECIMAL(18,2)"),
    ("day", "DATE", "", "DATE"),
    ("city", "STRING", "", "VARCHAR"),
    ("state", "STRING", "", "VARCHAR"),
    ("reference", "STRING", "", "VARCHAR"),
    ("score", "DOUBLE", "", "DOUBLE"),
    ("active", "BOOLEAN", "", "BOOLEAN"),
    ("at", "TIMESTAMP", "", "TIMESTAMP"),
    ("customer_id", "INTEGER", "", "INTEGER"),
    ("score_band", "INTEGER", "", "INTEGER"),
];

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    let rows = scale.rows / 5;
    let slice = |n: u64| folder.path().join(format!("events.csv_{n}_0_0.csv.gz"));
    let quoted = |path: &std::path::Path| format!("'{}'", path.to_string_lossy().replace('\'', "''"));
    let per = rows / SLICES;
    for n in 0..SLICES {
        raw()?.execute_batch(&format!(
            "COPY (FROM ({}) WHERE id >= {} AND id < {}) TO {} (FORMAT csv, HEADER false, FORCE_QUOTE *, COMPRESSION gzip)",
            eleven(rows),
            n * per,
            if n + 1 == SLICES { rows } else { (n + 1) * per },
            quoted(&slice(n))
        ))?;
    }
    let bodies: Vec<Vec<u8>> = (0..SLICES).map(|n| std::fs::read(slice(n))).collect::<Result<_, _>>()?;
    let (url, succeeded) = serve(bodies, rows)?;
    let files = (0..SLICES).map(|n| quoted(&slice(n))).collect::<Vec<_>>().join(", ");
    let columns = COLUMNS.map(|(name, _, _, kind)| format!("'{name}': '{kind}'")).join(", ");
    let read = format!("read_csv([{files}], columns={{{columns}}}, header=false, delim=',', quote='\"', escape='\"')");

    let (mut ours, mut waited, mut parse, mut write) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..scale.runs.min(3) {
        let root = folder.path().join(format!("agnes{run}"));
        let mut config = Config::default();
        config.query.isolation = IsolationMode::InProcess;
        let keboola = KeboolaConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])));
        let engine = Engine::builder(&root)
            .connectors(agnes_connectors::builtin().with(keboola))
            .secrets(Arc::new(FixedSecrets::new([("KEBOOLA_STORAGE_TOKEN", "benchmark")])))
            .config(config)
            .open()
            .await?;
        let config = json!({ "stack_url": url, "poll_interval_seconds": 0.05, "file_type": "csv" });
        let (started, ended) = first_sync(engine, &root, "keboola", config, rows).await?;
        let success = succeeded.lock().map_err(|e| e.to_string())?.ok_or("the job was not asked for")?;
        ours.push(ended - success);
        waited.push(success - started);

        let conn = raw()?;
        parse.push(time(|| conn.execute_batch(&format!("CREATE OR REPLACE TEMP TABLE t AS FROM {read}")))?);
        let target = quoted(&folder.path().join("raw.parquet"));
        write.push(time(|| {
            conn.execute_batch(&format!("COPY (FROM {read}) TO {target} (FORMAT parquet, COMPRESSION zstd)"))
        })?);
    }
    eprintln!("keboola: {} until the job's success, not counted", show(median(waited)));
    let ours = median(ours);
    Ok(vec![
        ratio("Keboola export to published generation, by unzip and parse", ours, median(parse), "1.25 x", 1.25),
        ratio("the same, by unzip, parse and Parquet", ours, median(write), "1.25 x", 1.25),
    ])
}

/// When the job was told to have succeeded.
type Success = Arc<Mutex<Option<Instant>>>;

/// Serves one table whose export is ready, and its slices.
fn serve(slices: Vec<Vec<u8>>, rows: u64) -> std::io::Result<(String, Success)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let (slices, success) = (Arc::new(slices), Success::default());
    let (base, told) = (url.clone(), success.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (base, slices, told) = (base.clone(), slices.clone(), told.clone());
            std::thread::spawn(move || while one(&stream, &base, &slices, rows, &told).is_some() {});
        }
    });
    Ok((url, success))
}

/// Answers one request.
fn one(mut stream: &TcpStream, base: &str, slices: &[Vec<u8>], rows: u64, success: &Success) -> Option<()> {
    let Request { target, .. } = Request::read(&mut BufReader::new(stream))?;
    let names = COLUMNS.map(|(name, ..)| name);
    let mut metadata = serde_json::Map::new();
    for (name, kind, length, _) in COLUMNS {
        let said = |key: &str, value: &str| json!({"provider": "storage", "key": key, "value": value});
        let said = [said("KBC.datatype.basetype", kind), said("KBC.datatype.length", length)];
        metadata.insert(name.to_owned(), json!(said));
    }
    let table = json!({"id": TABLE, "name": "events", "columns": names, "columnMetadata": metadata, "rowsCount": rows});
    let path = target.strip_prefix("/v2/storage/").unwrap_or(&target);
    let body = match path {
        "tokens/verify" => json!({"owner": {"id": 1, "name": "benchmark"}}),
        "tables?include=columns,buckets" => json!([table]),
        "jobs/1" => {
            *success.lock().ok()? = Some(Instant::now());
            json!({"id": 1, "status": "success", "results": {"file": {"id": 2}, "totalRowsCount": rows}})
        }
        "files/2?federationToken=1" => {
            json!({"url": format!("{base}/manifest"), "isSliced": true, "name": "events.csv"})
        }
        "/manifest" => {
            let url = |n: usize| json!({"url": format!("{base}/slice/events.csv_{n}_0_0.csv.gz")});
            json!({"entries": (0..slices.len()).map(url).collect::<Vec<_>>()})
        }
        _ if path.ends_with("/export-async") => json!({"id": 1, "status": "waiting"}),
        _ if path.starts_with("tables/") => table,
        _ => Value::Null,
    };
    let body =
        match path.strip_prefix("/slice/events.csv_").and_then(|rest| rest.split('_').next()?.parse::<usize>().ok()) {
            Some(n) => slices.get(n)?.clone(),
            None => body.to_string().into_bytes(),
        };
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).ok()?;
    stream.write_all(&body).ok()
}

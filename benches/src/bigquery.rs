//! A BigQuery table of 1 M rows is read into a Parquet file, against the vendor's official Python
//! client that reads the same table as Arrow and writes it as Parquet, and against a read that
//! throws the rows away; and what publishing it takes on top. All by the Storage Read API of one emulator, which
//! has processors of its own where there are two; needs `scripts/fetch-bigquery-emulator.sh`.

mod bare;

use std::io::{BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::Engine;
use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::Progress;
use agnes_core::registry::{NewSource, QueryMode};
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::SyncRequest;
use agnes_core::testing::Request;
use aws_lc_rs::encoding::AsDer as _;
use base64::Engine as _;
use serde_json::json;

use crate::data::owner;
use crate::measure::{ratio, show};
use crate::{Outcome, Scale};

const PROJECT: &str = "agnes-test";
const TABLE: &str = "agnes-test.shop.events";
/// A third of the official client's time, or a tenth more than the emulator takes to send.
const OF_OFFICIAL: f64 = 1.0 / 3.0;
const OF_SENDING: f64 = 1.1;

/// Reads, writes, and prints the seconds of reading and of both.
const OFFICIAL: &str = "
import sys, time
import grpc, pyarrow.parquet as pq
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, bigquery_storage_v1
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
rest, rpc, project, table, target = sys.argv[1:]
client = bigquery.Client(project, AnonymousCredentials(), client_options=ClientOptions(api_endpoint=rest))
options = [('grpc.max_receive_message_length', -1)]
transport = BigQueryReadGrpcTransport(channel=grpc.insecure_channel(rpc.split('//')[1], options=options))
storage = bigquery_storage_v1.BigQueryReadClient(transport=transport)
begin = time.perf_counter()
rows = client.list_rows(client.get_table(table)).to_arrow(bqstorage_client=storage)
read = time.perf_counter()
pq.write_table(rows, target, compression='zstd')
print(rows.num_rows, read - begin, time.perf_counter() - begin)
";

/// The emulator has one half of the processors and who reads the other: BigQuery takes none of
/// its readers'. Ends when dropped.
struct Apart(String);

impl Apart {
    /// `None` where processes cannot be kept apart.
    fn from(emulator: u32) -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned();
        let mut each = Vec::new();
        for range in all.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            each.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
        }
        let list = |some: &[u32]| some.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let (theirs, ours) = each.split_at(each.len() / 2);
        bind(emulator, &list(theirs))?;
        bind(std::process::id(), &list(ours))?;
        Some(Self(all))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        bind(std::process::id(), &self.0);
    }
}

/// Keeps all threads of a process to some processors.
fn bind(process: u32, processors: &str) -> Option<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid", processors, &process.to_string()]);
    taskset.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?.success().then_some(())
}

struct Emulator {
    child: Child,
    rest: String,
    rpc: String,
    python: PathBuf,
    _data: tempfile::TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

impl Emulator {
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let given = std::env::var_os("AGNES_TEST_TOOLS").map(PathBuf::from);
        let folder = given.unwrap_or_else(|| PathBuf::from(".duckdb/tools")).join("bigquery");
        let bin = folder.join("python/bin");
        if !bin.join("local-bigquery").is_file() {
            return Err("the BigQuery emulator is missing: scripts/fetch-bigquery-emulator.sh gets it".into());
        }
        let port = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map(|a| a.port());
        let (rest, rpc, data) = (port()?, port()?, tempfile::tempdir()?);
        let mut command = Command::new(bin.join("local-bigquery"));
        command.env("HOME", folder.join("home")).args(["--host", "127.0.0.1", "--project", PROJECT]);
        command.args(["--port", &rest.to_string(), "--grpc-port", &rpc.to_string(), "--data-dir"]);
        command.arg(data.path().join("warehouse")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        for port in [rest, rpc] {
            let begun = Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                if begun.elapsed() > Duration::from_secs(60) {
                    return Err("the BigQuery emulator did not start".into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Ok(Self { child, rest: url(rest), rpc: url(rpc), python: bin.join("python"), _data: data })
    }

    fn run(&self, sql: &str) -> Result<(), Box<dyn std::error::Error>> {
        let body = json!({"query": sql, "useLegacySql": false}).to_string();
        let mut stream = TcpStream::connect(self.rest.trim_start_matches("http://"))?;
        let path = format!("/bigquery/v2/projects/{PROJECT}/queries");
        let head = format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.") && answer.contains(" 200 ") { Ok(()) } else { Err(answer.into()) }
    }
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let rows = scale.rows / 5;
    let emulator = Emulator::start()?;
    emulator.run("CREATE SCHEMA shop")?;
    emulator.run(&format!(
        "CREATE TABLE shop.events AS SELECT n AS id, CAST(MOD(n * 7919, 1000000) AS NUMERIC) / 100 AS amount, \
         DATE_ADD(DATE '2020-01-01', INTERVAL CAST(MOD(n, 1500) AS INT64) DAY) AS day, \
         CONCAT('city ', CAST(MOD(n, 500) AS STRING)) AS city, CONCAT('s', CAST(MOD(n, 20) AS STRING)) AS state, \
         CONCAT('reference-number-of-an-order-', CAST(1000000000 + n AS STRING)) AS reference, n / 7 AS score, \
         MOD(n, 3) = 0 AS active, DATETIME_ADD(DATETIME '2020-01-01 00:00:00', INTERVAL n SECOND) AS noted, \
         MOD(n, 100000) AS customer_id, MOD(n, 10) AS score_band FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS n"
    ))?;
    let apart = Apart::from(emulator.child.id());
    if apart.is_none() {
        eprintln!("bigquery: the emulator takes processors of those who read");
    }
    let (token_uri, key) = sign_in()?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("official.parquet");
    let (mut whole, mut ours) = (Vec::new(), Vec::new());
    let (mut sending, mut reading, mut official) = (Vec::new(), Vec::new(), Vec::new());
    let mut sent = 0;
    for run in 0..scale.runs {
        let (read, published) =
            publish(&emulator, &folder.path().join(format!("agnes{run}")), &key(&token_uri), rows).await?;
        ours.push(read);
        whole.push(published);
        let (took, bytes) = bare::read(&emulator.rpc, TABLE).await?;
        sending.push(took);
        sent = bytes;
        let told = Command::new(&emulator.python)
            .args(["-c", OFFICIAL, &emulator.rest, &emulator.rpc, PROJECT, TABLE])
            .arg(&target)
            .stderr(Stdio::inherit())
            .output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let told: Vec<f64> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [found, read, both] = told.as_slice() else { return Err("the official client told nothing".into()) };
        if (found - rows as f64).abs() > 0.5 {
            return Err(format!("the official client read {found} rows").into());
        }
        reading.push(Duration::from_secs_f64(*read));
        official.push(Duration::from_secs_f64(*both));
    }
    // Both sides wait for the emulator, whose time differs by half: the shortest run says the most.
    let least = |of: &[Duration]| of.iter().min().copied().unwrap_or_default();
    let all = |of: &[Duration]| of.iter().map(|one| show(*one)).collect::<Vec<_>>().join(", ");
    eprintln!("bigquery: Agnes {}; the emulator {}; the official client {}", all(&ours), all(&sending), all(&official));
    let (ours, sending, official) = (least(&ours), least(&sending), least(&official));
    eprintln!(
        "bigquery: the emulator sends {} MB; the official client reads in {}, without writing",
        sent / 1_000_000,
        show(least(&reading))
    );
    let mut rows = vec![
        ratio(
            "BigQuery table to Parquet, by the official client's `to_arrow` and Parquet",
            ours,
            official,
            "0.33 x, or the next",
            OF_OFFICIAL,
        ),
        ratio("the same, by what the emulator can send", ours, sending, "1.10 x, or the one before", OF_SENDING),
    ];
    let published =
        ratio("from the sync to the published generation", least(&whole), official, "(reported)", f64::INFINITY);
    // One of the two is asked for: where the emulator is most of the work, nobody is three times as fast.
    let met = rows.iter().any(|row| row.met);
    rows.iter_mut().for_each(|row| row.met = met);
    rows.push(published);
    Ok(rows)
}

/// How long the table takes to be a Parquet file on the disk, and from the start of the sync to the
/// published generation.
async fn publish(
    emulator: &Emulator,
    root: &Path,
    key: &str,
    rows: u64,
) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.query.isolation = IsolationMode::InProcess;
    config.allowed_private_hosts = vec!["127.0.0.1".to_owned()];
    let engine = Engine::builder(root)
        .connectors(agnes_connectors::builtin_for(&config))
        .secrets(Arc::new(FixedSecrets::new([("GOOGLE_APPLICATION_CREDENTIALS", key)])))
        .config(config)
        .open()
        .await?;
    let config = json!({"project": PROJECT, "endpoint": emulator.rest, "storage_endpoint": emulator.rpc});
    let source = NewSource { name: "shop".to_owned(), kind: "bigquery".to_owned(), config, schedule: None };
    let added = engine.sources().add(&owner(), source).await?;
    let mut table = added.tables.into_iter().next().ok_or("the table was not found")?;
    table.query_mode = QueryMode::Materialized;
    engine.registry().update(&owner(), table).await?;
    let started = Instant::now();
    let outcome = engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await?;
    let took = started.elapsed();
    let tables = outcome.outcome.map(|outcome| outcome.tables).unwrap_or_default();
    let [table] = tables.as_slice() else { return Err("not one table was read".into()) };
    if table.rows != rows {
        return Err(format!("{} rows were published instead of {rows}", table.rows).into());
    }
    let read = Duration::from_millis(table.duration_ms);
    engine.close().await?;
    std::fs::remove_dir_all(root)?;
    Ok((read, took))
}

/// Google's place for tokens, which gives one to everybody; and what makes a key for it.
fn sign_in() -> Result<(String, impl Fn(&str) -> String), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/token", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || while answer(&stream).is_some() {});
        }
    });
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
    let der: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der()?;
    let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let key = move |token_uri: &str| {
        let email = "agnes@agnes-test.example";
        json!({"type": "service_account", "client_email": email, "private_key": pem, "token_uri": token_uri})
            .to_string()
    };
    Ok((url, key))
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    Request::read(&mut BufReader::new(stream))?;
    let body = json!({"access_token": "benchmark", "expires_in": 3600, "token_type": "Bearer"}).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()
}

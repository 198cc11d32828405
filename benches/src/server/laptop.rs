//! A laptop beside the server: what a pull costs when nothing, something, or everything is new,
//! and how soon the command itself answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agnes_core::rbac::ResourceType;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::process::{Server, binary};
use super::{Fallible, open, row, token};
use crate::data::{foreign_extract, owner};
use crate::measure::{Row, absolute, median, show};
use crate::{Outcome, Scale};

const ANALYST: &str = "ann@acme.example";
/// Files that a pull fetches at once.
const FILES: usize = 4;

/// A published data folder, one person who may read all of it, and their token.
struct Office {
    folder: tempfile::TempDir,
    token: String,
}

impl Office {
    async fn of(folder: tempfile::TempDir) -> Fallible<Self> {
        let engine = open(folder.path()).await?;
        engine.orchestrator().rebuild(&owner()).await?;
        let identity = engine.identity();
        identity.add_user(&owner(), ANALYST, None).await?;
        identity.create_group(&owner(), "analysts", None).await?;
        identity.add_member(&owner(), "analysts", ANALYST).await?;
        for table in engine.catalog().tables(&owner()).await? {
            identity.grant(&owner(), "analysts", ResourceType::Table, &table.id).await?;
        }
        let token = token(&engine, ANALYST).await?;
        engine.close().await?;
        Ok(Self { folder, token })
    }

    async fn serve(&self) -> Fallible<Server> {
        Server::start(self.folder.path())?.ready().await
    }
}

/// A home folder with a workspace in it.
struct Laptop {
    home: tempfile::TempDir,
}

impl Laptop {
    /// With a workspace of the server at `address`, and no table yet.
    fn new(address: &str, token: &str) -> Fallible<Self> {
        use std::io::Write as _;
        let laptop = Self { home: tempfile::tempdir()? };
        std::fs::create_dir(laptop.workspace())?;
        let mut init = laptop.command(&["init", "--no-pull", "--server-url", address, "--token", "-"])?;
        let mut child = init.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or("no input")?.write_all(token.as_bytes())?;
        succeeded(child.wait_with_output()?)?;
        Ok(laptop)
    }

    fn workspace(&self) -> PathBuf {
        self.home.path().join("work")
    }

    fn command(&self, arguments: &[&str]) -> Fallible<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments).current_dir(self.workspace()).env("HOME", self.home.path());
        for foreign in ["XDG_CONFIG_HOME", "AGNES_SERVER", "AGNES_TOKEN", "AGNES_DATA_DIR"] {
            command.env_remove(foreign);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// `agnes pull --json`, from the start of the process to its end.
    fn pull(&self) -> Fallible<(Duration, Value)> {
        let mut command = self.command(&["pull", "--json"])?;
        let started = Instant::now();
        let output = succeeded(command.output()?)?;
        Ok((started.elapsed(), serde_json::from_slice(&output.stdout)?))
    }

    /// How long a command takes, from the start of the process to its end.
    fn times(&self, arguments: &[&str], runs: usize) -> Fallible<Duration> {
        let mut times = Vec::new();
        for run in 0..runs + 2 {
            let mut command = self.command(arguments)?;
            let started = Instant::now();
            succeeded(command.output()?)?;
            if run >= 2 {
                times.push(started.elapsed());
            }
        }
        Ok(median(times))
    }
}

fn succeeded(output: Output) -> Fallible<Output> {
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("a command failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let mut rows = many_tables(scale).await?;
    rows.extend(much_data(scale).await?);
    rows.push(one_part(scale).await?);
    Ok(rows)
}

/// 1,000 small tables: all fresh, then nothing changed; and what a command costs in that workspace.
async fn many_tables(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    for source in 0..20 {
        let small = "SELECT i, 'x' || i AS label FROM range(100) AS r(i)";
        foreign_extract(folder.path(), &format!("s{source}"), 50, small)?;
    }
    let office = Office::of(folder).await?;
    let server = office.serve().await?;
    let (proxy, seen) = counting(server.address).await?;
    let (mut fresh, mut held) = (Vec::new(), Vec::new());
    let direct = format!("http://{}", server.address);
    let mut laptop = None;
    for _ in 0..scale.runs {
        let one = Laptop::new(&direct, &office.token)?;
        let (took, report) = one.pull()?;
        if report["tables_updated"] != 1000 {
            return Err(format!("not all tables came: {report}").into());
        }
        fresh.push(took);
        laptop = Some(one);
    }
    let laptop = laptop.ok_or("no laptop")?;
    for _ in 0..scale.runs * 4 {
        held.push(laptop.pull()?.0);
    }
    // Once more through what counts.
    let counted = Laptop::new(&proxy, &office.token)?;
    counted.pull()?;
    seen.requests.store(0, Relaxed);
    counted.pull()?;
    let (requests, held) = (seen.requests.load(Relaxed), median(held));
    // It is at its own work by now, which is not that of a laptop.
    drop(server);
    let sum = ["query", "SELECT label, count(*) AS n FROM s0_t0 GROUP BY label ORDER BY n DESC LIMIT 5"];
    Ok(vec![
        absolute("1,000 tables of 2 kB, all fresh", median(fresh), "1 s", Duration::from_secs(1)),
        row(
            "pull of 1,000 tables when nothing changed",
            show(held),
            format!("{requests} requests"),
            show(held),
            "150 ms, 1 request",
            held <= Duration::from_millis(150) && requests == 1,
        ),
        absolute(
            "local `agnes query` of a small aggregate",
            laptop.times(&sum, scale.runs * 4)?,
            "60 ms",
            Duration::from_millis(60),
        ),
        absolute("`agnes --help`", laptop.times(&["--help"], scale.runs * 4)?, "30 ms", Duration::from_millis(30)),
    ])
}

/// 50 tables of 40 MB that do not pack, against `curl` and `sha256sum` on as many connections.
async fn much_data(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    foreign_extract(folder.path(), "big", 50, &format!("SELECT hash(i) AS h FROM range({}) AS r(i)", scale.rows))?;
    let office = Office::of(folder).await?;
    let server = office.serve().await?;
    let address = format!("http://{}", server.address);
    let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..scale.runs.min(3) {
        let laptop = Laptop::new(&address, &office.token)?;
        let (took, report) = laptop.pull()?;
        bytes = report["bytes_downloaded"].as_u64().ok_or("no bytes")?;
        ours.push(took);
        drop(laptop);
        theirs.push(curl(&address, &office.token)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let rate = |time: Duration| format!("{:.2} GB/s", bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9));
    let share = theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9);
    let told = format!("{:.0} %", share * 100.0);
    Ok(vec![row(
        "pull of 50 tables, 2 GB, against `curl` and `sha256sum`",
        rate(ours),
        rate(theirs),
        told,
        "80 % or more",
        share >= 0.8,
    )])
}

/// The same files by `curl`, as many at once as a pull takes, each hashed when it is there.
fn curl(address: &str, token: &str) -> Fallible<Duration> {
    let folder = tempfile::tempdir()?;
    let names: String = (0..50).map(|n| format!("big_t{n}\n")).collect();
    std::fs::write(folder.path().join("names"), names)?;
    std::fs::write(folder.path().join("header"), format!("Authorization: Bearer {token}\n"))?;
    let script = format!(
        "xargs -P {FILES} -I N sh -c 'curl -sSf -H @header -o N.parquet {address}/api/data/N/download && sha256sum N.parquet' < names"
    );
    let started = Instant::now();
    succeeded(Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output()?)?;
    Ok(started.elapsed())
}

/// One of 60 parts is written anew: what moves then.
async fn one_part(scale: Scale) -> Fallible<Row> {
    let folder = tempfile::tempdir()?;
    let part = |n: usize, salt: usize| {
        (n, format!("SELECT {n} AS n, hash(i + {salt}) AS h FROM range({}) AS r(i)", scale.rows / 50))
    };
    let all: BTreeMap<usize, String> = (0..60).map(|n| part(n, n)).collect();
    parts(folder.path(), &all)?;
    let office = Office::of(folder).await?;
    let server = office.serve().await?;
    let (proxy, seen) = counting(server.address).await?;
    let laptop = Laptop::new(&proxy, &office.token)?;
    laptop.pull()?;
    drop(server);
    let changed = parts(office.folder.path(), &BTreeMap::from([part(7, 1_000_000_007)]))?;
    let engine = open(office.folder.path()).await?;
    engine.orchestrator().rebuild(&owner()).await?;
    engine.close().await?;
    let server = office.serve().await?;
    *seen.target.lock().map_err(|_| "poisoned")? = server.address;
    seen.bytes.store(0, Relaxed);
    let (took, report) = laptop.pull()?;
    let moved = seen.bytes.load(Relaxed);
    // Beside it: the manifest, and headers.
    let met = report["bytes_downloaded"] == changed && moved < changed + 200_000;
    Ok(row(
        "one part of 60 changed: bytes that move, all told",
        format!("{moved}"),
        format!("the part: {changed}"),
        show(took),
        "that part, 200 kB beside it",
        met,
    ))
}

/// Writes parts of the table `months` of a foreign extract; gives the size of the last.
fn parts(root: &Path, parts: &BTreeMap<usize, String>) -> Fallible<u64> {
    let folder = root.join("extracts").join("parts");
    let data = folder.join("data").join("months");
    std::fs::create_dir_all(&data)?;
    let conn = duckdb::Connection::open_in_memory()?;
    let mut size = 0;
    for (n, select) in parts {
        let (file, next) = (data.join(format!("m{n:02}.parquet")), data.join("next"));
        conn.execute_batch(&format!("COPY ({select}) TO '{}' (FORMAT parquet, COMPRESSION zstd)", next.display()))?;
        std::fs::rename(next, &file)?;
        size = file.metadata()?.len();
    }
    let next = folder.join("next");
    let conn = duckdb::Connection::open(&next)?;
    conn.execute_batch(&format!(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR); \
         INSERT INTO _meta VALUES ('months', NULL, 0, 0, now()::TIMESTAMP, 'local'); \
         CREATE VIEW months AS SELECT * FROM read_parquet('{}/*.parquet'); CHECKPOINT",
        data.display()
    ))?;
    drop(conn);
    std::fs::rename(next, folder.join("extract.duckdb"))?;
    Ok(size)
}

/// What went through a proxy.
struct Seen {
    target: std::sync::Mutex<std::net::SocketAddr>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// A proxy before `target`: its address, and what it sees.
async fn counting(target: std::net::SocketAddr) -> Fallible<(String, Arc<Seen>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let seen = Arc::new(Seen { target: target.into(), requests: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(target) = counts.target.lock().map(|target| *target) else { return };
            tokio::spawn(forward(client, target, Arc::clone(&counts)));
        }
    });
    Ok((address, seen))
}

async fn forward(client: TcpStream, target: std::net::SocketAddr, seen: Arc<Seen>) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            // Each request of HTTP/1.1 says so once, in its first line.
            let asked = buffer[..read].windows(11).filter(|bytes| *bytes == b" HTTP/1.1\r\n").count();
            seen.requests.fetch_add(asked as u64, Relaxed);
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let answering = async {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            seen.bytes.fetch_add(read as u64, Relaxed);
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::try_join!(asking, answering).map(drop)
}

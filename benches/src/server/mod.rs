//! `agnes serve` as a second process over loopback: what clients wait for.

pub(crate) mod laptop;
mod load;
mod process;
mod sign_in;
mod transfer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::Progress;
use agnes_core::context::Client as Caller;
use agnes_core::identity::TokenLife;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, ResourceType};
use agnes_core::secret::Secret;
use agnes_core::{CallContext, Engine};
use serde_json::json;

use self::load::{Asked, Client, Latencies, at_rate, flat_out};
use self::process::Server;
use crate::data::{eleven, foreign_extract, owner};
use crate::measure::{Row, median, show};
use crate::{Outcome, Scale};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// People of the group that may read ten tables.
const PEOPLE: usize = 32;
const PASSWORD: &str = "a password of the benchmark";
/// Of 100,000 rows.
const SMALL: &str = "SELECT city, count(*) AS n FROM some_t0 WHERE active GROUP BY city ORDER BY n DESC LIMIT 10";

/// A data folder with people, their tokens, `shop_t0` and the smaller `some_t0`.
struct World {
    folder: tempfile::TempDir,
    tokens: Vec<String>,
}

fn person(number: usize) -> String {
    format!("p{number}@acme.example")
}

impl World {
    /// `tables` tables, the large one with this many rows.
    async fn new(tables: usize, rows: u64) -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        foreign_extract(folder.path(), "shop", 1, &eleven(rows))?;
        foreign_extract(folder.path(), "some", 1, &eleven(100_000))?;
        let mut left = tables - 2;
        for source in 0.. {
            let some = left.min(50);
            if some == 0 {
                break;
            }
            let small = "SELECT i, 'x' || i AS label FROM range(100) AS r(i)";
            foreign_extract(folder.path(), &format!("s{source}"), some, small)?;
            left -= some;
        }
        let engine = open(folder.path()).await?;
        engine.orchestrator().rebuild(&owner()).await?;
        engine.catalog().finish_profiles(&owner(), &Progress::default()).await?;
        let identity = engine.identity();
        identity.create_group(&owner(), "analysts", None).await?;
        for table in (0..8).map(|n| format!("s0_t{n}")).chain(["shop_t0", "some_t0"].map(str::to_owned)) {
            identity.grant(&owner(), "analysts", ResourceType::Table, &table).await?;
        }
        let mut tokens = Vec::new();
        for number in 0..PEOPLE {
            identity.add_user(&owner(), &person(number), None).await?;
            identity.add_member(&owner(), "analysts", &person(number)).await?;
            tokens.push(token(&engine, &person(number)).await?);
        }
        engine.close().await?;
        Ok(Self { folder, tokens })
    }

    async fn serve(&self) -> Fallible<Server> {
        Server::start(self.folder.path())?.ready().await
    }

    fn query(&self, who: usize, sql: &str) -> Asked {
        Asked::post("/api/query", self.tokens.get(who).map(String::as_str), &json!({ "sql": sql }))
    }
}

/// An engine whose queries run where those of the server run.
async fn open(folder: &Path) -> Fallible<Engine> {
    let mut config = Config::default();
    config.query.isolation = IsolationMode::Process;
    Ok(Engine::builder(folder).config(config).open().await?)
}

/// A token as its owner would make it.
async fn token(engine: &Engine, email: &str) -> Fallible<String> {
    let (client, password) = (Caller::at(None), Secret::new(PASSWORD));
    let sign_in = engine.sign_in();
    let letter = sign_in.ask_for_setup(email).await?.ok_or("nobody to set up")?;
    let session = sign_in.set_up_password(&client, email, letter.token.expose(), &password, None).await?;
    let ctx = sign_in.authenticate(&client, session.token.expose()).await?;
    let made = engine.tokens().create(&ctx, "benchmark", TokenLife::Days(1), "general").await?;
    Ok(made.token.expose().to_owned())
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let is_quick = scale.runs < 5;
    let time = Duration::from_secs(if is_quick { 2 } else { 10 });
    let few = World::new(15, scale.rows / 5).await?;
    let mut rows = starts(&few, scale).await?;
    let server = few.serve().await?;
    rows.push(idle(&server).await?);
    rows.push(me(&few, &server, time).await?);
    rows.extend(many_clients(&few, &server, time).await?);
    rows.extend(transfer::rows_of_queries(&few, &server, scale).await?);
    rows.push(rebuilds(&few, &server, scale).await?);
    rows.push(neighbours(&few, &server, time).await?);
    rows.push(sign_in::timing(&server, if is_quick { 32 } else { 200 }).await?);
    drop(server);
    rows.push(over_engine(&few, "small aggregate over HTTP against `Engine::query`, 15 tables, p50", scale).await?);
    let many = World::new(1000, scale.rows / 5).await?;
    rows.push(over_engine(&many, "the same with 1,000 tables, p50", scale).await?);
    rows.extend(manifest(&many, scale).await?);
    drop((few, many));
    rows.extend(transfer::downloads(scale).await?);
    Ok(rows)
}

fn row(name: &'static str, agnes: String, raw: String, result: String, limit: &'static str, met: bool) -> Row {
    Row { name, agnes, raw, result, limit, met }
}

/// From the start of the process to its first answer, and to its first answer over data.
async fn starts(world: &World, scale: Scale) -> Outcome {
    let (mut first, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs {
        let started = Instant::now();
        let server = Server::start(world.folder.path())?;
        while !process::answers(server.address, "/healthz") {
            std::thread::sleep(Duration::from_millis(1));
        }
        first.push(started.elapsed());
        drop(server.ready().await?);
        ready.push(started.elapsed());
    }
    let (first, ready) = (median(first), median(ready));
    let met = first <= Duration::from_millis(300);
    let told = format!("ready to query: {}", show(ready));
    Ok(vec![row("start to first 200", show(first), told, show(first), "300 ms", met)])
}

async fn idle(server: &Server) -> Fallible<Row> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mib = server.memory_mib()?;
    Ok(row(
        "memory without work (PSS), workers apart",
        format!("{mib} MiB"),
        "-".into(),
        format!("{mib} MiB"),
        "120 MiB",
        mib < 120,
    ))
}

async fn me(world: &World, server: &Server, time: Duration) -> Fallible<Row> {
    let asked = Asked::get("/auth/me", &world.tokens[0]);
    at_rate(server.address, 32, 500, Duration::from_secs(1), &asked).await?;
    let latencies = at_rate(server.address, 32, 2000, time, &asked).await?;
    let (p50, p99) = (latencies.quantile(0.5), latencies.quantile(0.99));
    let met = p99 < Duration::from_millis(5) && latencies.failed == 0;
    let told = format!("p50 {}, {} failed", show(p50), latencies.failed);
    Ok(row("`/auth/me` at 2,000 requests a second, p99", show(p99), told, show(p99), "5 ms", met))
}

/// As many small queries as 32 clients get answered; and the same of a million rows, where raw
/// DuckDB is busy with the rows themselves.
async fn many_clients(world: &World, server: &Server, time: Duration) -> Outcome {
    let large = SMALL.replace("some_t0", "shop_t0");
    let raw = {
        let (path, large) = (world.folder.path().join("extracts/shop/data/shop_t0.parquet"), large.clone());
        let asked = move || raw_rate(&path, &large, time / 2).map_err(|e| e.to_string());
        tokio::task::spawn_blocking(asked).await??
    };
    let mut rates = Vec::new();
    for sql in [SMALL, &large] {
        let asked = || (0..PEOPLE).map(|who| world.query(who, sql)).collect::<Vec<_>>();
        flat_out(server.address, asked(), Duration::from_secs(1)).await?;
        let latencies: Latencies = flat_out(server.address, asked(), time).await?;
        rates.push((latencies.count() as f64 / time.as_secs_f64(), latencies));
    }
    let [(small, of_small), (large, of_large)] = &rates[..] else { return Ok(Vec::new()) };
    let told = format!("p50 {}, {} failed", show(of_small.quantile(0.5)), of_small.failed);
    let met = *small >= 400.0 && of_small.failed == 0;
    let rate = format!("{small:.0}/s");
    let share = format!("{:.0} %", large / raw * 100.0);
    Ok(vec![
        row("small aggregate, 32 clients", rate.clone(), told, rate, "400/s or more", met),
        row(
            "the same of 1 M rows, against one raw connection",
            format!("{large:.0}/s"),
            format!("{raw:.0}/s"),
            share,
            "(reported)",
            of_large.failed == 0,
        ),
    ])
}

/// Answers a second of one connection of raw DuckDB that is asked again and again.
fn raw_rate(file: &Path, sql: &str, time: Duration) -> Fallible<f64> {
    let conn = crate::data::raw()?;
    let file = file.to_string_lossy().replace('\'', "''");
    conn.execute_batch(&format!("CREATE VIEW shop_t0 AS SELECT * FROM read_parquet('{file}')"))?;
    let (started, mut answers) = (Instant::now(), 0);
    while started.elapsed() < time {
        conn.prepare(sql)?.query_arrow([])?.for_each(drop);
        answers += 1;
    }
    Ok(f64::from(answers) / started.elapsed().as_secs_f64())
}

/// The same query over HTTP and by a call, in turn: two folders of the same content.
async fn over_engine(world: &World, name: &'static str, scale: Scale) -> Fallible<Row> {
    let copy = tempfile::tempdir()?;
    copy_folder(world.folder.path(), copy.path())?;
    let engine = open(copy.path()).await?;
    let ctx = CallContext::new(engine.identity().principal_of(&owner(), &person(0), ClientKind::Api).await?);
    let server = world.serve().await?;
    let (mut client, asked) = (Client::connect(server.address).await?, world.query(0, SMALL));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..scale.runs * 40 + 20 {
        let reply = client.expect(&asked, 200).await?;
        let started = Instant::now();
        let mut result = engine.query(&ctx, Query::new(SMALL)).await?;
        let rows: usize = result.collect().await?.iter().map(|batch| batch.num_rows()).sum();
        let called = started.elapsed();
        if rows != 10 {
            return Err("the query lost rows".into());
        }
        // The first runs fill caches on both sides.
        if run >= 20 {
            ours.push(reply.took);
            theirs.push(called);
        }
    }
    engine.close().await?;
    let (ours, theirs) = (median(ours), median(theirs));
    let more = ours.saturating_sub(theirs);
    let met = more <= Duration::from_millis(2);
    Ok(row(name, show(ours), show(theirs), format!("+ {}", show(more)), "+ 2 ms", met))
}

/// Without what belongs to a process.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            std::fs::create_dir_all(&to)?;
            copy_folder(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

async fn manifest(world: &World, scale: Scale) -> Outcome {
    let server = world.serve().await?;
    let mut client = Client::connect(server.address).await?;
    let mut asked = Asked::get("/api/sync/manifest", &world.tokens[0]);
    let (mut whole, mut held) = (Vec::new(), Vec::new());
    for run in 0..scale.runs * 20 + 5 {
        asked.held = None;
        let reply = client.expect(&asked, 200).await?;
        asked.held = Some(reply.tag.ok_or("the manifest has no tag")?);
        let again = client.expect(&asked, 304).await?;
        if run >= 5 {
            whole.push(reply.took);
            held.push(again.took);
        }
    }
    let (whole, held) = (median(whole), median(held));
    let limit = Duration::from_millis(5);
    Ok(vec![
        row(
            "manifest of 10 grants among 1,000 tables, p50",
            show(whole),
            "-".into(),
            show(whole),
            "5 ms",
            whole < limit,
        ),
        row("the same when unchanged (304), p50", show(held), "-".into(), show(held), "5 ms", held < limit),
    ])
}

/// Eight clients ask while a source is published again and again.
async fn rebuilds(world: &World, server: &Server, scale: Scale) -> Fallible<Row> {
    let (address, stop) = (server.address, Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for who in 0..8 {
        let (mut client, asked, stop) = (Client::connect(address).await?, world.query(who, SMALL), stop.clone());
        clients.push(tokio::spawn(async move {
            let (mut answered, mut failed) = (0, 0);
            while !stop.load(Relaxed) {
                match client.ask(&asked).await {
                    Ok(reply) if reply.status == 200 => answered += 1,
                    _ => failed += 1,
                }
            }
            (answered, failed)
        }));
    }
    let folder = world.folder.path().to_owned();
    let rebuilds = scale.runs * 2;
    let mut broken = 0;
    for run in 0..rebuilds {
        let folder = folder.clone();
        let done = tokio::task::spawn_blocking(move || {
            let rows = format!("SELECT i, 'y' || i AS label FROM range({}) AS r(i)", 100 + run);
            foreign_extract(&folder, "s0", 13, &rows).map_err(|e| e.to_string())?;
            let binary = process::binary().map_err(|e| e.to_string())?;
            let mut command = std::process::Command::new(binary);
            let output = command.args(["rebuild", "--data-dir"]).arg(&folder).current_dir(&folder).output();
            output.map(|output| output.status.success()).map_err(|e| e.to_string())
        });
        broken += usize::from(!done.await??);
    }
    stop.store(true, Relaxed);
    let (mut answered, mut failed) = (0, broken);
    for client in clients {
        let (some, not) = client.await?;
        answered += some;
        failed += not;
    }
    let told = format!("{answered} answered, {rebuilds} rebuilds");
    Ok(row("rebuilds under 8 clients, failed queries", failed.to_string(), told, failed.to_string(), "0", failed == 0))
}

/// Health beside 10,000 connections, 1,000 of them of slow clients, and one who takes 100,000 rows
/// again and again.
async fn neighbours(world: &World, server: &Server, time: Duration) -> Fallible<Row> {
    use tokio::io::AsyncWriteExt as _;
    let mut held = Vec::new();
    for number in 0..10_000 {
        let mut stream = match tokio::net::TcpStream::connect(server.address).await {
            Ok(stream) => stream,
            // As many files as this process may have.
            Err(_) if number > 500 => break,
            Err(error) => return Err(error.into()),
        };
        if number % 10 == 0 {
            stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: t\r\nX-Slow: ").await?;
        }
        held.push(stream);
    }
    let mut greedy = world.query(1, "SELECT * FROM shop_t0 LIMIT 100000");
    greedy.accept = Some("text/csv");
    let health = Asked { path: "/api/health".to_owned(), ..Asked::default() };
    let address = server.address;
    let taker = tokio::spawn(async move {
        flat_out(address, vec![greedy], time).await.map_err(|e| e.to_string()).map(|taken| taken.count())
    });
    let latencies = at_rate(address, 8, 200, time, &health).await?;
    let taken = taker.await??;
    let p95 = latencies.quantile(0.95);
    let told = format!("{} connections, {taken} answers of 100,000 rows, {} failed", held.len(), latencies.failed);
    let met = p95 < Duration::from_millis(5) && latencies.failed == 0;
    Ok(row("health beside bad neighbours, p95", show(p95), told, show(p95), "5 ms", met))
}

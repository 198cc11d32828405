//! Queries in worker processes against the same queries in this process: two data folders of
//! the same content, one engine for each.

use std::time::{Duration, Instant};

use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::Progress;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, ResourceType};
use agnes_core::{CallContext, Engine};

use crate::data::{eleven, foreign_extract, owner};
use crate::measure::{Row, absolute, median, ratio, show};
use crate::query::drain;
use crate::{Outcome, Scale};

/// Grant sets, and people of each.
const SETS: usize = 8;
const EACH: usize = 2;

const SMALL: &str = "SELECT city, count(*) AS n FROM shop_t0 WHERE active GROUP BY city ORDER BY n DESC LIMIT 10";
const LARGER: &str =
    "SELECT city, state, sum(amount) AS total, count(DISTINCT reference) AS n FROM shop_t0 GROUP BY ALL";

/// An engine whose queries run in one place, and its data.
struct Side {
    engine: Engine,
    folder: tempfile::TempDir,
    /// Two people for each grant set.
    people: Vec<CallContext>,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

impl Side {
    async fn open(rows: u64, isolation: IsolationMode) -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        foreign_extract(folder.path(), "shop", 1, &eleven(rows))?;
        foreign_extract(folder.path(), "more", 64, "SELECT i, 'x' || i AS label FROM range(100) AS r(i)")?;
        let mut config = Config::default();
        config.query.isolation = isolation;
        config.query.max_per_user = 64;
        config.query.max_total = 64;
        let engine = Engine::builder(folder.path()).config(config).open().await?;
        engine.orchestrator().rebuild(&owner()).await?;
        engine.catalog().finish_profiles(&owner(), &Progress::default()).await?;
        let mut people = Vec::new();
        for set in 0..SETS {
            let group = format!("group {set}");
            engine.identity().create_group(&owner(), &group, None).await?;
            for table in ["shop_t0".to_owned(), format!("more_t{set}")] {
                engine.identity().grant(&owner(), &group, ResourceType::Table, &table).await?;
            }
            for person in 0..EACH {
                people.push(Self::person(&engine, &group, &format!("p{set}-{person}@acme.example")).await?);
            }
        }
        Ok(Self { engine, folder, people })
    }

    async fn person(engine: &Engine, group: &str, email: &str) -> Fallible<CallContext> {
        engine.identity().add_user(&owner(), email, None).await?;
        engine.identity().add_member(&owner(), group, email).await?;
        Ok(CallContext::new(engine.identity().principal_of(&owner(), email, ClientKind::Api).await?))
    }

    async fn time(&self, who: &CallContext, sql: &str) -> Fallible<Duration> {
        let started = Instant::now();
        drain(&self.engine, who, sql).await?;
        Ok(started.elapsed())
    }

    /// All people ask at once, `times` after each other.
    async fn together(&self, sql: &'static str, times: usize) -> Fallible<Duration> {
        let started = Instant::now();
        let asked: Vec<_> = self
            .people
            .iter()
            .map(|person| {
                let (engine, person) = (self.engine.clone(), person.clone());
                tokio::spawn(async move {
                    for _ in 0..times {
                        drain(&engine, &person, sql).await?;
                    }
                    Ok::<_, agnes_core::Error>(())
                })
            })
            .collect();
        for asked in asked {
            asked.await??;
        }
        Ok(started.elapsed())
    }
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let rows = scale.rows / 5;
    let cells = Side::open(rows, IsolationMode::Process).await?;
    let here = Side::open(rows, IsolationMode::InProcess).await?;
    let mut report = vec![
        warm(&cells, &here, scale).await?,
        first(&cells, scale).await?,
        stream(&cells, &here, scale).await?,
        callers(&cells, &here, scale).await?,
        memory()?,
    ];
    report.push(neighbours(&cells, scale).await?);
    cells.engine.close().await?;
    here.engine.close().await?;
    drop((cells.folder, here.folder));
    Ok(report)
}

async fn warm(cells: &Side, here: &Side, scale: Scale) -> Fallible<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..scale.runs * 40 + 10 {
        let (cell, local) = (cells.time(&cells.people[0], SMALL).await?, here.time(&here.people[0], SMALL).await?);
        // The first runs fill caches on both sides.
        if run >= 10 {
            ours.push(cell);
            theirs.push(local);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let more = ours.saturating_sub(theirs);
    Ok(Row {
        name: "warm query in a cell, p50, against in process",
        agnes: show(ours),
        raw: show(theirs),
        result: format!("+ {}", show(more)),
        limit: "+ 2 ms",
        met: more <= Duration::from_millis(2),
    })
}

async fn first(cells: &Side, scale: Scale) -> Fallible<Row> {
    let mut times = Vec::new();
    for run in 0..scale.runs {
        let group = format!("new group {run}");
        cells.engine.identity().create_group(&owner(), &group, None).await?;
        for table in ["shop_t0".to_owned(), format!("more_t{}", SETS + run)] {
            cells.engine.identity().grant(&owner(), &group, ResourceType::Table, &table).await?;
        }
        let person = Side::person(&cells.engine, &group, &format!("new{run}@acme.example")).await?;
        // The pool is warm again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        times.push(cells.time(&person, "SELECT count(*) FROM shop_t0").await?);
    }
    Ok(absolute("first query of a new grant set in a cell", median(times), "150 ms", Duration::from_millis(150)))
}

async fn stream(cells: &Side, here: &Side, scale: Scale) -> Fallible<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs {
        ours.push(cells.time(&cells.people[0], "SELECT * FROM shop_t0").await?);
        theirs.push(here.time(&here.people[0], "SELECT * FROM shop_t0").await?);
    }
    Ok(ratio("1 M rows x 11 as Arrow through a cell", median(ours), median(theirs), "1.3 x", 1.3))
}

async fn callers(cells: &Side, here: &Side, scale: Scale) -> Fallible<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..scale.runs + 1 {
        let (cell, local) = (cells.together(LARGER, 2).await?, here.together(LARGER, 2).await?);
        if run > 0 {
            ours.push(cell);
            theirs.push(local);
        }
    }
    Ok(ratio("16 callers of 8 grant sets at once in cells", median(ours), median(theirs), "1.15 x", 1.15))
}

/// Memory that each cell has for itself: pages that it shares with others counted in part.
fn memory() -> Fallible<Row> {
    let own = std::process::id().to_string();
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent != Some(own.as_str()) {
            continue;
        }
        // Without rights over the process the resident size is what can be read.
        let rollup = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let line = |text: &str, name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
        };
        sizes.extend(line(&rollup, "Pss:").or_else(|| line(&status, "VmRSS:")));
    }
    sizes.sort_unstable();
    let middle = sizes.get(sizes.len() / 2).ok_or("there is no cell")? / 1024;
    let largest = sizes.last().ok_or("there is no cell")? / 1024;
    Ok(Row {
        name: "memory of a cell without work (PSS), median and largest",
        agnes: format!("{middle} MiB, {largest} MiB"),
        raw: format!("{} cells", sizes.len()),
        result: format!("{middle} MiB"),
        limit: "128 MiB",
        met: middle <= 128,
    })
}

/// Small queries beside one that takes memory, one that never ends, one that ends its worker.
async fn neighbours(cells: &Side, scale: Scale) -> Fallible<Row> {
    let small = "SELECT count(*) FROM more_t0";
    let asked = scale.runs * 40;
    let p95 = async |count: usize| -> Fallible<Duration> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(cells.time(&cells.people[0], small).await?);
        }
        times.sort_unstable();
        Ok(times[times.len() * 95 / 100])
    };
    p95(20).await?;
    let calm = p95(asked).await?;
    let unruly: Vec<_> = [
        (1, "SELECT list(repeat('x', 1000000) || i::VARCHAR) FROM range(10000) t(i)"),
        (2, "SELECT count(*) FROM range(10000000000) a(i), range(1000) b(j) WHERE (i * j) % 7 = 3"),
        (3, "SELECT sum(length(regexp_replace(repeat('a', 30000000), 'a', 'bb', 'g'))) FROM range(100000) t(i)"),
    ]
    .into_iter()
    .map(|(set, sql)| {
        let (engine, person) = (cells.engine.clone(), cells.people[set * EACH].clone());
        tokio::spawn(async move {
            let query = async {
                loop {
                    if let Ok(mut result) = engine.query(&person, Query::new(sql)).await {
                        while let Some(Ok(_)) = result.next().await {}
                    }
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(600), query).await;
        })
    })
    .collect();
    // Long-runners are noticed after a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let crowded = p95(asked).await?;
    for task in &unruly {
        task.abort();
    }
    Ok(ratio("small queries beside three unruly ones, p95", crowded, calm, "3 x", 3.0))
}

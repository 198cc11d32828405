//! A warm governed query against the same query on raw DuckDB; the first query of a
//! principal who may read 1,000 tables.

use std::time::{Duration, Instant};

use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, ResourceType};
use agnes_core::{CallContext, Engine};

use crate::data::{eleven, foreign_extract, owner, raw, settled};
use crate::measure::{Row, absolute, median, show};
use crate::{Outcome, Scale};

const SQL: &str =
    "SELECT city, count(*) AS n, sum(amount) AS total FROM shop_t0 WHERE active GROUP BY city ORDER BY n DESC LIMIT 10";

pub(crate) async fn drain(engine: &Engine, ctx: &CallContext, sql: &str) -> agnes_core::Result<u64> {
    let mut result = engine.query(ctx, Query::new(sql)).await?;
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        rows += batch?.num_rows() as u64;
    }
    Ok(rows)
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let mut rows = vec![warm(scale).await?];
    rows.push(first(scale).await?);
    Ok(rows)
}

async fn warm(scale: Scale) -> Result<Row, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    foreign_extract(folder.path(), "shop", 1, &eleven(100_000))?;
    let engine = settled(folder.path()).await?;
    let conn = raw()?;
    let file = folder.path().join("extracts/shop/data/shop_t0.parquet").to_string_lossy().replace('\'', "''");
    conn.execute_batch(&format!("CREATE VIEW shop_t0 AS FROM read_parquet('{file}')"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..scale.runs * 40 + 10 {
        let started = Instant::now();
        if drain(&engine, &owner(), SQL).await? != 10 {
            return Err("the governed query lost rows".into());
        }
        let governed = started.elapsed();
        let started = Instant::now();
        let fetched: usize = conn.prepare(SQL)?.query_arrow([])?.map(|batch| batch.num_rows()).sum();
        let plain = started.elapsed();
        if fetched != 10 {
            return Err("the raw query lost rows".into());
        }
        // The first runs fill caches on both sides.
        if run >= 10 {
            ours.push(governed);
            theirs.push(plain);
        }
    }
    engine.close().await?;
    let (ours, theirs) = (median(ours), median(theirs));
    let more = ours.saturating_sub(theirs);
    Ok(Row {
        name: "warm governed query, p50",
        agnes: show(ours),
        raw: show(theirs),
        result: format!("+ {}", show(more)),
        limit: "+ 3 ms",
        met: more <= Duration::from_millis(3),
    })
}

async fn first(scale: Scale) -> Result<Row, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    for n in 0..20 {
        foreign_extract(folder.path(), &format!("s{n}"), 50, "SELECT i, 'x' || i AS label FROM range(100) AS r(i)")?;
    }
    let engine = settled(folder.path()).await?;
    let mut times = Vec::new();
    for run in 0..scale.runs {
        // A new set each time: one table is left out.
        let group = format!("readers {run}");
        let email = format!("reader{run}@acme.example");
        engine.identity().create_group(&owner(), &group, None).await?;
        engine.identity().add_user(&owner(), &email, None).await?;
        engine.identity().add_member(&owner(), &group, &email).await?;
        for n in (0..1000).filter(|n| *n != run + 1) {
            let table = format!("s{}_t{}", n / 50, n % 50);
            engine.identity().grant(&owner(), &group, ResourceType::Table, &table).await?;
        }
        let reader = engine.identity().principal_of(&owner(), &email, ClientKind::Api).await?;
        let started = Instant::now();
        if drain(&engine, &CallContext::new(reader), "SELECT count(*) FROM s0_t0").await? != 1 {
            return Err("the first query lost rows".into());
        }
        times.push(started.elapsed());
    }
    engine.close().await?;
    Ok(absolute("first query of a 1,000-table grant set", median(times), "100 ms", Duration::from_millis(100)))
}

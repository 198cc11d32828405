//! A million rows as Arrow against raw DuckDB's own fetch; memory while ten million pass.

use std::path::Path;
use std::time::Instant;

use agnes_core::config::Config;

use crate::data::{eleven, foreign_extract, owner, raw, settled};
use crate::measure::{Row, median, ratio};
use crate::query::drain;
use crate::{Outcome, Scale};

/// First argument of the process whose memory is measured.
pub(crate) const CHILD: &str = "stream-child";
/// The engine's memory limit in that process.
const LIMIT_MIB: u64 = 512;

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    let rows = scale.rows / 5;
    foreign_extract(folder.path(), "shop", 1, &eleven(rows))?;
    let engine = settled(folder.path()).await?;
    let conn = raw()?;
    let file = folder.path().join("extracts/shop/data/shop_t0.parquet").to_string_lossy().replace('\'', "''");
    conn.execute_batch(&format!("CREATE VIEW shop_t0 AS FROM read_parquet('{file}')"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs {
        let started = Instant::now();
        let got = drain(&engine, &owner(), "SELECT * FROM shop_t0").await?;
        ours.push(started.elapsed());
        let started = Instant::now();
        let fetched: u64 = conn.prepare("SELECT * FROM shop_t0")?.stream_arrow([])?.map(|b| b.num_rows() as u64).sum();
        theirs.push(started.elapsed());
        if got != rows || fetched != rows {
            return Err(format!("{got} and {fetched} rows instead of {rows}").into());
        }
    }
    engine.close().await?;
    drop(conn);
    let speed = ratio("1 M rows x 11 as Arrow", median(ours), median(theirs), "1.2 x", 1.2);

    foreign_extract(folder.path(), "shop", 1, &eleven(scale.rows * 2))?;
    let output = std::process::Command::new(std::env::current_exe()?).arg(CHILD).arg(folder.path()).output()?;
    if !output.status.success() {
        return Err(format!("the measured process failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let peak_mib: u64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let above = i64::try_from(peak_mib)? - i64::try_from(LIMIT_MIB)?;
    let memory = Row {
        name: "peak memory while 10 M rows are streamed",
        agnes: format!("{peak_mib} MiB"),
        raw: format!("limit {LIMIT_MIB} MiB"),
        result: format!("{above:+} MiB"),
        limit: "+ 64 MiB",
        met: above < 64,
    };
    Ok(vec![speed, memory])
}

/// Streams the whole table and prints the peak resident size of this process in MiB.
pub(crate) async fn child(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let root = args.first().ok_or("the data folder is missing")?;
    let mut config = Config::default();
    config.query.memory_bytes = LIMIT_MIB << 20;
    config.query.isolation = agnes_core::config::IsolationMode::InProcess;
    let engine = agnes_core::Engine::builder(Path::new(root)).config(config).open().await?;
    engine.orchestrator().rebuild(&owner()).await?;
    drain(&engine, &owner(), "SELECT * FROM shop_t0").await?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    println!("{}", kib / 1024);
    engine.close().await?;
    Ok(())
}

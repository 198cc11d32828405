//! The Python package against the package `duckdb`: a million rows of one Parquet file as a table of
//! pyarrow. Python is the one that `AGNES_BENCH_PYTHON` names, with both packages in it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::data::{eleven, foreign_extract, settled};
use crate::measure::{median, ratio};
use crate::{Outcome, Scale};

const SCRIPT: &str = include_str!("python.py");

pub(crate) async fn run(scale: Scale) -> Outcome {
    let python = std::env::var("AGNES_BENCH_PYTHON")
        .map_err(|_| "`AGNES_BENCH_PYTHON` names no Python with `agnes` and `duckdb`: `make bench` does")?;
    let (folder, rows) = (tempfile::tempdir()?, scale.rows / 5);
    foreign_extract(folder.path(), "shop", 1, &eleven(rows))?;
    settled(folder.path()).await?.close().await?;
    let file = folder.path().join("extracts/shop/data/shop_t0.parquet");
    let done = Command::new(python)
        .args(["-c", SCRIPT])
        .args([folder.path(), &file])
        .args([rows.to_string(), (scale.runs * 4 + 1).to_string()])
        .output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
    }
    let told: Value = serde_json::from_slice(&done.stdout)?;
    let of = |side: &str| {
        let times = told[side].as_array().into_iter().flatten().filter_map(Value::as_f64);
        median(times.map(Duration::from_secs_f64).collect())
    };
    Ok(vec![ratio("Python: 1 M rows x 12 `to_arrow()`", of("agnes"), of("duckdb"), "1.2 x", 1.2)])
}

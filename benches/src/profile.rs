//! A profile of the large table against `SUMMARIZE` of the same Parquet; nothing when the
//! content did not change.

use std::time::{Duration, Instant};

use agnes_core::connector::Progress;

use crate::data::{eleven, foreign_extract, owner, raw, settled};
use crate::measure::{absolute, median, ratio};
use crate::{Outcome, Scale};

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    foreign_extract(folder.path(), "shop", 1, &eleven(scale.rows))?;
    let engine = settled(folder.path()).await?;
    let conn = raw()?;
    let file = folder.path().join("extracts/shop/data/shop_t0.parquet").to_string_lossy().replace('\'', "''");
    let (mut ours, mut theirs, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.runs.min(3) {
        let started = Instant::now();
        engine.catalog().refresh_profile(&owner(), "shop_t0").await?;
        ours.push(started.elapsed());
        let started = Instant::now();
        let columns: usize = conn
            .prepare(&format!("SUMMARIZE FROM read_parquet('{file}')"))?
            .query_arrow([])?
            .map(|b| b.num_rows())
            .sum();
        theirs.push(started.elapsed());
        if columns != 12 {
            return Err(format!("SUMMARIZE saw {columns} columns").into());
        }
        let started = Instant::now();
        engine.catalog().finish_profiles(&owner(), &Progress::default()).await?;
        again.push(started.elapsed());
    }
    engine.close().await?;
    Ok(vec![
        ratio("profile of 5 M x 11", median(ours), median(theirs), "1.2 x SUMMARIZE", 1.2),
        absolute(
            "profile when the content did not change",
            median(again),
            "0 (under 20 ms)",
            Duration::from_millis(20),
        ),
    ])
}

//! The manifest of a person who may read 1,000 tables.

use std::time::{Duration, Instant};

use crate::data::{foreign_extract, owner, settled};
use crate::measure::{absolute, median};
use crate::{Outcome, Scale};

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    for n in 0..20 {
        foreign_extract(folder.path(), &format!("s{n}"), 50, "SELECT i FROM range(10) AS r(i)")?;
    }
    let engine = settled(folder.path()).await?;
    let mut times = Vec::new();
    for _ in 0..scale.runs * 4 {
        let started = Instant::now();
        let manifest = engine.catalog().manifest(&owner()).await?;
        times.push(started.elapsed());
        if manifest.tables.len() != 1000 {
            return Err(format!("the manifest lists {} tables", manifest.tables.len()).into());
        }
    }
    engine.close().await?;
    Ok(vec![absolute("manifest for 1,000 tables", median(times), "10 ms", Duration::from_millis(10))])
}

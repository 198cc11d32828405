//! Publication of 1,000 small tables in 20 sources: all of it, and when one source changed.

use std::time::{Duration, Instant};

use agnes_core::connector::Progress;

use crate::data::{engine, foreign_extract, owner};
use crate::measure::{Row, absolute, median, show};
use crate::{Outcome, Scale};

const SELECT: &str = "SELECT i, i * 2 AS twice, 'row ' || i AS label FROM range(100) AS r(i)";

pub(crate) async fn run(scale: Scale) -> Outcome {
    let (mut full, mut one) = (Vec::new(), Vec::new());
    for run in 0..scale.runs {
        let folder = tempfile::tempdir()?;
        // Opened first: opening publishes what is there.
        let engine = engine(folder.path()).await?;
        for n in 0..20 {
            foreign_extract(folder.path(), &format!("s{n}"), 50, SELECT)?;
        }
        let started = Instant::now();
        let outcome = engine.orchestrator().rebuild(&owner()).await?;
        full.push(started.elapsed());
        let views: usize = outcome.sources.iter().map(|source| source.views.len()).sum();
        if !outcome.published || views != 1000 {
            return Err(format!("{views} views were published instead of 1,000").into());
        }
        engine.catalog().finish_profiles(&owner(), &Progress::default()).await?;
        let select = format!("SELECT i, {run} AS twice, 'new ' || i AS label FROM range(100) AS r(i)");
        foreign_extract(folder.path(), "s7", 50, &select)?;
        let started = Instant::now();
        let outcome = engine.orchestrator().rebuild_source(&owner(), "s7").await?;
        one.push(started.elapsed());
        if outcome.status != agnes_core::orchestrator::SourceStatus::Ok {
            return Err(format!("the changed source was not published: {:?}", outcome.status).into());
        }
        engine.close().await?;
    }
    let (full, one) = (median(full), median(one));
    let limit = (full / 10).max(Duration::from_millis(150));
    Ok(vec![
        absolute("rebuild of 1,000 tables, all new", full, "3 s", Duration::from_secs(3)),
        Row {
            name: "rebuild when one source of 20 changed",
            agnes: show(one),
            raw: "-".to_owned(),
            result: format!("{:.0} % of the full one", one.as_secs_f64() / full.as_secs_f64() * 100.0),
            limit: "10 % or 150 ms",
            met: one <= limit,
        },
    ])
}

//! A CSV becomes a published generation, against one `COPY` of the same CSV.

use agnes_core::connector::Progress;
use agnes_core::registry::NewSource;
use agnes_core::sync::SyncRequest;

use crate::data::{eleven, engine, owner, raw};
use crate::measure::{median, ratio, time};
use crate::{Outcome, Scale};

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    let csv = folder.path().join("events.csv");
    let quoted = csv.to_string_lossy().replace('\'', "''");
    raw()?.execute_batch(&format!("COPY ({}) TO '{quoted}' (FORMAT csv, HEADER)", eleven(scale.rows)))?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..scale.runs.min(3) {
        let root = folder.path().join(format!("agnes{run}"));
        let engine = engine(&root).await?;
        let source = NewSource {
            name: "shop".to_owned(),
            kind: "files".to_owned(),
            config: serde_json::json!({"path": csv}),
            schedule: None,
        };
        engine.sources().add(&owner(), source).await?;
        let started = std::time::Instant::now();
        let outcome = engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await?;
        ours.push(started.elapsed());
        let rows: u64 = outcome.outcome.map(|o| o.tables.iter().map(|t| t.rows).sum()).unwrap_or_default();
        if rows != scale.rows {
            return Err(format!("{rows} rows were published instead of {}", scale.rows).into());
        }
        engine.close().await?;
        std::fs::remove_dir_all(&root)?;

        let target = folder.path().join("raw.parquet").to_string_lossy().replace('\'', "''");
        let conn = raw()?;
        theirs.push(time(|| {
            conn.execute_batch(&format!(
                "COPY (FROM read_csv('{quoted}')) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            ))
        })?);
    }
    Ok(vec![ratio("CSV to published generation", median(ours), median(theirs), "1.25 x", 1.25)])
}

//! A CSV becomes a published generation, against one `COPY` of the same CSV.

use crate::data::{eleven, engine, first_sync, raw};
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
        let (began, ended) = first_sync(engine, &root, "files", serde_json::json!({"path": csv}), scale.rows).await?;
        ours.push(ended - began);

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

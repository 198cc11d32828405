//! Looks up the values of `PIVOT`s that name none, each by a governed query.

use arrow::array::{Array, AsArray};
use futures::future::BoxFuture;

use super::QueryError;
use super::runtime::RunningQuery;
use super::service::Service;
use crate::error::{Error, Result};
use crate::sandbox::{Checked, Gate, Parsed, PivotLookup, Readable};

/// The engine's own limit is 100,000 columns; a screen has fewer.
const MAX_VALUES: usize = 5_000;

impl Service {
    /// `parsed` with every `PIVOT` given its values. `start` runs a lookup.
    pub(super) async fn expand_pivots<'a>(
        &self,
        parsed: &Parsed,
        readable: &(dyn Readable + Sync),
        start: &(dyn Fn(Checked) -> BoxFuture<'a, Result<RunningQuery>> + Sync),
    ) -> Result<Parsed> {
        expand_pivots(&self.gate, parsed, readable, start).await
    }
}

/// [`Service::expand_pivots`] for whoever may read what `readable` says.
pub(super) async fn expand_pivots<'a>(
    gate: &Gate,
    parsed: &Parsed,
    readable: &(dyn Readable + Sync),
    start: &(dyn Fn(Checked) -> BoxFuture<'a, Result<RunningQuery>> + Sync),
) -> Result<Parsed> {
    let mut open: Vec<PivotLookup> = parsed.pivots().to_vec();
    let mut known: Vec<(PivotLookup, Vec<String>)> = Vec::new();
    while !open.is_empty() {
        let ready = open.iter().position(|lookup| !lookup.waits_for(&open));
        let ready = ready.ok_or_else(|| Error::internal("order the lookups of a PIVOT", "a circle"))?;
        let lookup = open.remove(ready);
        let query =
            if known.is_empty() { lookup.query().clone() } else { gate.fill_pivots(lookup.query(), &known).await? };
        let values = values(start(query.resolve(readable)?).await?).await?;
        known.push((lookup, values));
    }
    gate.fill_pivots(parsed, &known).await
}

/// The values that a lookup found, each once.
async fn values(mut running: RunningQuery) -> Result<Vec<String>> {
    let mut values: Vec<String> = Vec::new();
    while let Some(batch) = running.batches.recv().await {
        let batch = batch?;
        let Some(column) = batch.columns().first().and_then(|column| column.as_string_opt::<i32>()) else {
            continue;
        };
        values.extend((0..column.len()).filter(|n| column.is_valid(*n)).map(|n| column.value(n).to_owned()));
        if values.len() > MAX_VALUES {
            let message = format!("a PIVOT makes one column for each value, and there are more than {MAX_VALUES}");
            return Err(QueryError::Failed { message, code: "pivot_too_wide" }.into());
        }
    }
    let mut seen = std::collections::HashSet::new();
    values.retain(|value| seen.insert(value.clone()));
    if values.is_empty() {
        let message = "a PIVOT found no value to make a column of".to_owned();
        return Err(QueryError::Failed { message, code: "pivot_empty" }.into());
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::query::readable::CallerSet;
    use crate::query::runtime::{GrantSet, QueryJob, Relation};
    use crate::query::{InProcess, Params, QueryLimits, Value};

    #[tokio::test(flavor = "multi_thread")]
    async fn values_are_found_by_governed_queries() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sales.parquet");
        let oracle = ::duckdb::Connection::open_in_memory().unwrap();
        oracle.execute_batch(&format!(
            "CREATE TABLE sales AS SELECT * FROM (VALUES ('a', 'x''y', 1), ('a', 'z', 2), ('b', 'z', 4), ('b', NULL, 8)) \
             AS t(shop, item, n); COPY sales TO '{}' (FORMAT parquet)",
            file.display()
        ))
        .unwrap();
        let columns = ["shop", "item", "n"].map(|c| (c.to_owned(), String::new(), true)).to_vec();
        let sales =
            Relation { name: "sales".to_owned(), description: None, columns, blobs: vec![file], partitioned: false };
        let caller = CallerSet {
            generation: std::sync::Weak::new(),
            access: Arc::default(),
            index: Arc::default(),
            set: Arc::new(GrantSet {
                fingerprint: "x".to_owned(),
                relations: BTreeMap::from([("sales".to_owned(), sales)]),
            }),
            remote: Arc::default(),
            admin: false,
            narrowed: Arc::default(),
            slices: Arc::default(),
        };
        let limits = QueryLimits::default();
        let runtime = Arc::new(InProcess::new(limits, folder.path().join("tmp")));
        let service = Service::start(limits, runtime).await.unwrap();
        let params = Params::Named([("least".to_owned(), Value::Int(2))].into());
        let start = |query: Checked| -> BoxFuture<'_, Result<RunningQuery>> {
            service.runtime.start(QueryJob {
                grant_set: caller.set.clone(),
                query,
                params: params.clone(),
                deadline: Instant::now() + Duration::from_secs(30),
                alone: None,
                guard: Box::new(()),
            })
        };
        for sql in [
            "PIVOT sales ON item USING sum(n) GROUP BY shop ORDER BY shop",
            "PIVOT sales ON item USING sum(n) ORDER BY shop",
            "PIVOT sales ON upper(item) ORDER BY ALL",
            "PIVOT sales ON shop, item USING sum(n), count(*) AS c ORDER BY ALL",
            "PIVOT sales ON shop IN ('b'), item USING sum(n)",
            "PIVOT sales ON item IN (SELECT item FROM sales WHERE item < 'y') USING sum(n) GROUP BY shop ORDER BY shop",
            "FROM (PIVOT sales ON item USING max(n) GROUP BY shop) WHERE shop = 'a'",
            "WITH s AS (SELECT * FROM sales WHERE n < 8), t AS (FROM s) PIVOT t ON item USING sum(n) GROUP BY shop ORDER BY shop",
            "WITH p AS (PIVOT sales ON item USING sum(n) GROUP BY shop) SELECT * FROM p JOIN (PIVOT sales ON shop USING count(*) GROUP BY item) q ON true ORDER BY ALL",
            "PIVOT (PIVOT sales ON item USING sum(n) GROUP BY shop) ON shop USING max(z) ORDER BY ALL",
            "PIVOT sales JOIN (SELECT shop AS other FROM sales) ON shop = other ON item USING count(*) GROUP BY shop ORDER BY shop",
            "SELECT * FROM sales PIVOT (sum(n) FOR item IN ('z')) ORDER BY shop",
            "PIVOT (SELECT * FROM sales WHERE shop <> 'ON') ON item USING sum(n) /* ON */ GROUP BY shop ORDER BY shop -- end",
        ] {
            let parsed = service.gate.parse(sql).await.unwrap();
            let query = service.expand_pivots(&parsed, &caller, &start).await.unwrap().resolve(&caller).unwrap();
            let mut running = start(query).await.unwrap();
            let mut got = Vec::new();
            while let Some(batch) = running.batches.recv().await {
                got.push(batch.unwrap());
            }
            // DuckDB's own expansion, which runs several statements.
            let mut statement = oracle.prepare(sql).unwrap();
            let expected: Vec<_> = statement.query_arrow([]).unwrap().collect();
            let names = |batches: &[arrow::record_batch::RecordBatch]| {
                batches[0].schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>()
            };
            assert_eq!(names(&got), names(&expected), "{sql}");
            let got = arrow::compute::concat_batches(&got[0].schema(), &got).unwrap();
            let expected = arrow::compute::concat_batches(&expected[0].schema(), &expected).unwrap();
            assert_eq!(got.columns(), expected.columns(), "{sql}");
        }
        // Its own parameters may stand in the source.
        let parsed = service.gate.parse("PIVOT (FROM sales WHERE n >= $least) ON item USING sum(n)").await.unwrap();
        let query = service.expand_pivots(&parsed, &caller, &start).await.unwrap().resolve(&caller).unwrap();
        assert!(query.sql().contains("IN ('z')"), "{}", query.sql());
        let empty = service.gate.parse("PIVOT (FROM sales WHERE n > 99) ON item USING sum(n)").await.unwrap();
        assert_eq!(service.expand_pivots(&empty, &caller, &start).await.unwrap_err().code(), "pivot_empty");
    }
}

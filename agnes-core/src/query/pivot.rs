//! Looks up the values of `PIVOT`s that name none, each by a governed query.

use arrow::array::{Array, AsArray};

use super::QueryError;
use super::readable::CallerSet;
use super::runtime::QueryJob;
use super::service::Service;
use crate::error::{Error, Result};
use crate::sandbox::{Parsed, PivotLookup};

/// The engine's own limit is 100,000 columns; a screen has fewer.
const MAX_VALUES: usize = 5_000;

impl Service {
    /// `parsed` with every `PIVOT` given its values. `job` makes the job of a lookup.
    pub(super) async fn expand_pivots(
        &self,
        parsed: &Parsed,
        caller: &CallerSet,
        job: &(dyn Fn(crate::sandbox::Checked) -> QueryJob + Sync),
    ) -> Result<Parsed> {
        let mut open: Vec<PivotLookup> = parsed.pivots().to_vec();
        let mut known: Vec<(PivotLookup, Vec<String>)> = Vec::new();
        while !open.is_empty() {
            let ready = open.iter().position(|lookup| !lookup.waits_for(&open));
            let ready = ready.ok_or_else(|| Error::internal("order the lookups of a PIVOT", "a circle"))?;
            let lookup = open.remove(ready);
            let query = if known.is_empty() {
                lookup.query().clone()
            } else {
                self.gate.fill_pivots(lookup.query(), &known).await?
            };
            let values = self.values(job(query.resolve(caller)?)).await?;
            known.push((lookup, values));
        }
        self.gate.fill_pivots(parsed, &known).await
    }

    async fn values(&self, job: QueryJob) -> Result<Vec<String>> {
        let mut running = self.runtime.start(job).await?;
        let mut values: Vec<String> = Vec::new();
        while let Some(batch) = running.batches.recv().await {
            let batch = batch?;
            let Some(column) = batch.columns().first().and_then(|column| column.as_string_opt::<i32>()) else { continue };
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
}

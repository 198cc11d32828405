//! The first rows of a table.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Catalog, CatalogError, Sample};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::printable;
use crate::query::Query;

type Rows = Arc<Vec<Map<String, Value>>>;

/// Samples by content and size. Access is decided before it is asked.
#[derive(Debug)]
pub(crate) struct SampleCache(moka::sync::Cache<(String, usize), Rows>);

impl SampleCache {
    /// At most 512 samples, each for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(512).time_to_live(lifetime).build())
    }
}

impl Sample {
    /// Whether a sample may have so many rows.
    pub(crate) fn check_size(n: usize) -> Result<(), CatalogError> {
        if (1..=100).contains(&n) { Ok(()) } else { Err(CatalogError::BadSampleSize { n }) }
    }
}

impl Catalog<'_> {
    /// The first `n` rows of a table, by id or name.
    ///
    /// # Errors
    /// `bad_sample_size` unless `n` is 1 to 100, `access_denied`, `table_not_found`, `no_data`.
    pub async fn sample(&self, ctx: &CallContext, table: &str, n: usize) -> Result<Sample> {
        let done = self.sample_of(ctx, table, n).await;
        self.engine
            .audit()
            .event(ctx, "catalog.sample")
            .resource(format!("table:{}", printable(table, 80)))
            .outcome(&done)
            .later();
        done
    }

    async fn sample_of(&self, ctx: &CallContext, table: &str, n: usize) -> Result<Sample> {
        Sample::check_size(n)?;
        let view = self.view(ctx).await?;
        let found = view.find(table)?;
        if found.published.is_none() && !found.is_internal() {
            return Err(self.no_data(ctx, &view, &found).await);
        }
        let source = found.row.and_then(|row| row.source_type.clone());
        let key = found.published.filter(|p| p.remote.is_none()).map(|p| (p.content_hash.clone(), n));
        if let Some(key) = &key
            && let Some(rows) = self.engine.samples().0.get(key)
        {
            return Ok(Sample { table_id: found.id, rows: rows.to_vec(), source });
        }
        let sql = format!("SELECT * FROM {} LIMIT {n}", crate::ident::quote_ident(found.name()));
        let mut result = self.engine.query(ctx, Query::new(sql)).await?;
        let mut rows = Vec::new();
        while let Some(batch) = result.next().await {
            rows.extend(crate::query::json_rows(&batch?));
        }
        // What depends on the caller (internal tables) or on the source (remote) is not kept, nor
        // what may have been read under other grants, policies or data than the key stands for.
        if let Some(key) = key
            && view.is_current(self.engine).await?
        {
            self.engine.samples().0.insert(key, Arc::new(rows.clone()));
        }
        Ok(Sample { table_id: found.id, rows, source })
    }
}

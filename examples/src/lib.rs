//! What the examples share: how they print a result.

use agnes_core::query::QueryResult;
use arrow::util::pretty::pretty_format_batches;

/// All rows of `result` as a text table.
///
/// # Errors
/// Those of the query.
pub async fn table(mut result: QueryResult) -> Result<String, Box<dyn std::error::Error>> {
    let mut batches = vec![arrow::record_batch::RecordBatch::new_empty(result.schema())];
    while let Some(batch) = result.next().await {
        batches.push(batch?);
    }
    Ok(pretty_format_batches(&batches)?.to_string())
}

/// The guide for those who embed the engine: its program runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/embedding.md")]
pub struct Guide;

//! How much a scan would read, from the footers of Parquet files: no row is read for it.

use std::fs::File;
use std::path::PathBuf;

use parquet::file::metadata::ParquetMetaDataReader;
use serde::{Deserialize, Serialize};

use super::{Plan, ScanRequest, plan};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::rbac::Ability;

/// How much a scan would read, at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanEstimate {
    /// Id of the table.
    pub table_id: String,
    /// Bytes of Parquet that hold the columns it reads; 0 where the rows are not in files.
    pub estimated_scan_bytes: u64,
    /// Rows, before the predicate; `None` where the rows are not in files.
    pub estimated_result_rows: Option<u64>,
    /// Bytes of those rows, uncompressed.
    pub estimated_result_bytes: Option<u64>,
    /// What a warehouse would charge.
    pub bq_cost_estimate_usd: f64,
}

impl Engine {
    /// How much a scan would read. Of a table that policies narrow it tells of the caller's part
    /// alone.
    ///
    /// # Errors
    /// As [`Engine::scan`], but for quotas: it costs nothing.
    pub async fn estimate_scan(&self, ctx: &CallContext, request: &ScanRequest) -> Result<ScanEstimate> {
        let estimated = async {
            ctx.principal().require(Ability::Rows)?;
            let table = self.catalog().scannable(ctx, &request.table, true).await?;
            let plan = plan(&table, request)?;
            let (files, table_id) = (table.files.clone(), table.id.clone());
            let mut estimate = ScanEstimate {
                table_id,
                estimated_scan_bytes: 0,
                estimated_result_rows: None,
                estimated_result_bytes: None,
                bq_cost_estimate_usd: 0.0,
            };
            if files.is_empty() {
                if let Some((bytes, columns)) = crate::query::estimate_native(self, ctx, &plan.sql).await? {
                    let wide =
                        |(name, kind, _): &(String, String, bool)| plan.selected.contains(name).then(|| width(kind));
                    let row: u64 = columns.iter().filter_map(wide).sum();
                    let rows = (bytes / row.max(1)).min(plan.limit.unwrap_or(u64::MAX));
                    estimate.estimated_scan_bytes = bytes;
                    estimate.estimated_result_rows = Some(rows);
                    estimate.estimated_result_bytes = Some(rows.saturating_mul(row));
                    estimate.bq_cost_estimate_usd = dollars(bytes, self.config().bigquery.cost_per_tb_usd);
                }
            } else {
                let limit = plan.limit;
                let sizes = crate::duck::blocking(move || sizes(&files, &plan)).await?;
                let rows = sizes.rows.min(limit.unwrap_or(u64::MAX));
                let width = u128::from(sizes.wide) * u128::from(rows) / u128::from(sizes.rows.max(1));
                estimate.estimated_scan_bytes = sizes.stored;
                estimate.estimated_result_rows = Some(rows);
                estimate.estimated_result_bytes = Some(u64::try_from(width).unwrap_or(u64::MAX));
            }
            drop(table);
            Ok(estimate)
        };
        let estimated = estimated.await;
        self.audit_scan(ctx, "snapshot.estimate", request, &estimated);
        estimated
    }
}

/// About how many bytes a warehouse counts for a value.
fn width(kind: &str) -> u64 {
    match kind {
        "BIGINT" | "DOUBLE" | "DATE" | "TIME" | "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE" => 8,
        "VARCHAR" => 32,
        "BLOB" => 64,
        "BOOLEAN" => 1,
        _ => 16,
    }
}

/// What bytes cost, in hundredths of a cent.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn dollars(bytes: u64, per_tb: f64) -> f64 {
    (bytes as f64 / (1_u64 << 40) as f64 * per_tb * 1e4).round() / 1e4
}

#[derive(Default)]
struct Sizes {
    rows: u64,
    /// Stored bytes of the columns that are read.
    stored: u64,
    /// Uncompressed bytes of the columns that are returned.
    wide: u64,
}

fn sizes(files: &[PathBuf], plan: &Plan) -> Result<Sizes> {
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    let mut sizes = Sizes::default();
    for path in files {
        let file = File::open(path).map_err(|e| Error::io("open a table's file", e))?;
        let footer = ParquetMetaDataReader::new()
            .parse_and_finish(&file)
            .map_err(|e| Error::internal("read the footer of a published file", e))?;
        for group in footer.row_groups() {
            sizes.rows += positive(group.num_rows());
            for column in group.columns() {
                let Some(name) = column.column_path().parts().first() else { continue };
                let is_selected = plan.selected.contains(name);
                if is_selected {
                    sizes.wide += positive(column.uncompressed_size());
                }
                if is_selected || plan.read.contains(name) {
                    sizes.stored += positive(column.compressed_size());
                }
            }
        }
    }
    Ok(sizes)
}

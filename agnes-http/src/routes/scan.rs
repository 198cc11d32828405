//! `POST /api/v2/scan`: columns and rows of one table, for programs that copy it.

use agnes_core::query::RowFormat;
use agnes_core::scan::{ScanEstimate, ScanRequest};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Json;
use crate::openapi::{ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::rows::{self, RowsFormat};
use crate::state::App;

/// What to scan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanBody {
    /// Id or name of the table.
    #[schema(example = "orders")]
    table_id: String,
    /// Columns; all when missing or empty.
    #[serde(default)]
    #[schema(example = json!(["id", "status"]))]
    select: Option<Vec<String>>,
    /// A predicate, without the keyword.
    #[serde(rename = "where")]
    #[schema(example = "status IN ('paid', 'open')")]
    predicate: Option<String>,
    /// Most rows.
    #[schema(minimum = 1, example = 1000)]
    limit: Option<u64>,
    /// Columns, each with `ASC`, `DESC` or nothing.
    #[serde(default)]
    #[schema(example = json!(["id DESC"]))]
    order_by: Option<Vec<String>>,
    /// Name of the snapshot that is made of it, for the audit log.
    #[serde(rename = "as")]
    snapshot: Option<String>,
}

impl ScanBody {
    fn into_request(self) -> Result<ScanRequest, Problem> {
        if self.limit == Some(0) {
            return Err(Problem::invalid(&["body", "limit"], "it has to be 1 or more", "value_error"));
        }
        Ok(ScanRequest {
            table: self.table_id,
            select: self.select.unwrap_or_default(),
            predicate: self.predicate,
            limit: self.limit,
            order_by: self.order_by.unwrap_or_default(),
            snapshot: self.snapshot,
        })
    }
}

/// How much a scan would read, at most.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EstimateAnswer {
    /// Id of the table.
    #[schema(example = "orders")]
    table_id: String,
    /// Bytes of the files that hold the columns it reads; 0 where the rows are not in files.
    estimated_scan_bytes: u64,
    /// Rows, before the predicate; null where the rows are not in files.
    estimated_result_rows: Option<u64>,
    /// Bytes of those rows.
    estimated_result_bytes: Option<u64>,
    /// What a warehouse would charge.
    bq_cost_estimate_usd: f64,
}

impl From<ScanEstimate> for EstimateAnswer {
    fn from(estimate: ScanEstimate) -> Self {
        Self {
            table_id: estimate.table_id,
            estimated_scan_bytes: estimate.estimated_scan_bytes,
            estimated_result_rows: estimate.estimated_result_rows,
            estimated_result_bytes: estimate.estimated_result_bytes,
            bq_cost_estimate_usd: estimate.bq_cost_estimate_usd,
        }
    }
}

/// Copy rows of one table
///
/// What the caller may read of it, as an Arrow IPC stream. An answer that was cut at the limit of
/// bytes or rows says so in `X-Agnes-Truncated`, in its head or in a trailer.
#[utoipa::path(post, path = "/api/v2/scan", tag = "query", request_body = ScanBody, responses(
    (status = 200, description = "The rows", body = Vec<u8>, content_type = "application/vnd.apache.arrow.stream"),
    ForUsers,
    (status = 404, description = "There is no such table, or it has no data", body = ProblemShape, content_type = "application/problem+json"),
    (status = 408, description = "It took too long", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
    (status = 429, description = "A quota is used up", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn scan(
    State(app): State<App>,
    Caller(ctx): Caller,
    Json(body): Json<ScanBody>,
) -> Result<Response, Problem> {
    let asking = app.meters().query();
    let result = app.engine().scan(&ctx, &body.into_request()?).await?;
    rows::answer(result.encoded(RowFormat::Arrow)?, RowsFormat::Arrow, asking).await
}

/// How much a scan would read
///
/// From what is known of the table's files: no row is read for it.
#[utoipa::path(post, path = "/api/v2/scan/estimate", tag = "query", request_body = ScanBody, responses(
    (status = 200, description = "The estimate", body = EstimateAnswer),
    ForUsers,
    (status = 404, description = "There is no such table, or it has no data", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn estimate(
    State(app): State<App>,
    Caller(ctx): Caller,
    Json(body): Json<ScanBody>,
) -> Result<axum::Json<EstimateAnswer>, Problem> {
    Ok(axum::Json(app.engine().estimate_scan(&ctx, &body.into_request()?).await?.into()))
}

//! `POST /api/query`: SQL in, rows out, in the format that the client asks for.

use agnes_core::query::{Params, Query};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Json;
use crate::openapi::{ForUsers, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::rows::{self, RowsFormat};
use crate::state::App;

/// Rows of a JSON answer, unless the request says otherwise.
const DEFAULT_LIMIT: usize = 1000;

/// A query to ask.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRequest {
    /// One read-only query.
    #[schema(example = "FROM orders SELECT status, count(*) AS n GROUP BY ALL")]
    sql: String,
    /// Most rows to return. Of JSON 1000 when it is missing or not positive, and never more than
    /// the server's ceiling; the other formats give all rows unless it is there.
    limit: Option<i64>,
    /// Values of the parameters: an array for `?` and `$1`, an object for `$name`.
    #[serde(default)]
    params: Value,
    /// Whether to write a receipt, by which the answer can be asked again.
    #[serde(default)]
    receipt: bool,
}

/// Rows of a query.
#[derive(Debug, serde::Serialize, ToSchema)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct QueryAnswer {
    /// Names of the columns; they may repeat.
    columns: Vec<String>,
    /// Values in the order of the columns. Decimals, integers beyond 2^53, dates and everything
    /// nested are texts; NaN and infinities are null.
    rows: Vec<Vec<Value>>,
    /// How many rows there are.
    row_count: u64,
    /// Whether more rows existed.
    truncated: bool,
    /// What a warehouse charges for; null for local data.
    bytes_scanned: Option<u64>,
    /// What policies took from the tables of the query, where they did.
    row_scope: Option<Vec<Value>>,
    /// The receipt, where one was asked for.
    receipt: Option<Value>,
}

impl QueryRequest {
    fn into_query(self, format: RowsFormat, app: &App) -> Result<Query, Problem> {
        let params = Params::try_from(self.params).map_err(agnes_core::Error::from)?;
        let mut query = Query::new(self.sql).params(params);
        query.receipt = self.receipt;
        let wanted = self.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let limits = app.limits();
        if format == RowsFormat::Json {
            query.limit = Some(wanted.unwrap_or(DEFAULT_LIMIT).min(limits.query_rows));
            query.max_bytes = Some(limits.query_bytes);
        } else {
            query.limit = wanted;
        }
        Ok(query)
    }
}

/// Ask a query
///
/// Answers what the caller may read, in the format of `Accept`. Formats other than JSON are
/// streamed; what is known after the last row (`truncated`, `row_scope`, `receipt`) is in the
/// head of an answer that was whole at once, else in trailers, for clients that send
/// `TE: trailers`.
#[utoipa::path(post, path = "/api/query", tag = "query", request_body = QueryRequest, responses(
    (status = 200, description = "The rows", content(
        (QueryAnswer = "application/json"),
        (String = "text/csv"),
        (String = "application/x-ndjson"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"),
        (Vec<u8> = "application/vnd.apache.parquet"),
    )),
    ForUsers,
    (status = 406, description = "No format of `Accept` is known", body = ProblemShape, content_type = "application/problem+json"),
    (status = 408, description = "It took too long", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
    (status = 429, description = "Too many queries run", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn query(
    State(app): State<App>,
    Caller(ctx): Caller,
    headers: HeaderMap,
    Json(request): Json<QueryRequest>,
) -> Result<Response, Problem> {
    let format = RowsFormat::accepted(&headers)?;
    let query = request.into_query(format, &app)?;
    let result = app.engine().query(&ctx, query).await?;
    rows::answer(result.encoded(format.into())?, format).await
}

//! `POST /api/query`: SQL in, rows out, in the format that the client asks for.

use agnes_core::query::{Frame, Params, Query, Receipt, Replay};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::QueryJson;
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
    /// Rows that come along, for this query alone: the query names each like a table. A frame never
    /// stands in the place of a table that the caller may read.
    #[serde(default)]
    frames: Vec<FrameBody>,
}

/// Rows that come along.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrameBody {
    /// What the query names: letters, digits and `_`.
    #[schema(example = "targets")]
    name: String,
    /// A stream of Arrow IPC, not compressed, in base64.
    #[schema(format = Byte)]
    arrow: String,
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
    row_scope: Option<Vec<agnes_core::policy::RowScope>>,
    /// The receipt, where one was asked for.
    receipt: Option<Receipt>,
}

impl QueryRequest {
    async fn into_query(self, format: RowsFormat, app: &App) -> Result<Query, Problem> {
        let params = Params::try_from(self.params).map_err(agnes_core::Error::from)?;
        let mut query = Query::new(self.sql).params(params);
        query.receipt = self.receipt;
        if !self.frames.is_empty() {
            // Reading and casting may take a while.
            let read = move || self.frames.iter().map(|frame| Frame::decode(&frame.name, &frame.arrow)).collect();
            let frames: agnes_core::Result<Vec<Frame>> = tokio::task::spawn_blocking(read)
                .await
                .unwrap_or_else(|e| Err(agnes_core::Error::internal("read a frame", e)));
            query.frames = frames?;
        }
        let wanted = self.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let limits = app.limits();
        if format == RowsFormat::Json {
            query.limit = Some(wanted.unwrap_or(DEFAULT_LIMIT).min(limits.query_rows));
            // Whoever asks the same again has to be cut at the same row, in whatever format.
            query.max_bytes = self.receipt.then_some(limits.query_bytes);
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
    QueryJson(request): QueryJson<QueryRequest>,
) -> Result<Response, Problem> {
    let format = RowsFormat::accepted(&headers)?;
    let query = request.into_query(format, &app).await?;
    let asking = app.meters().query();
    let result = app.engine().query(&ctx, query).await?;
    let rows = result.encoded(format.into())?;
    let rows = if format == RowsFormat::Json { rows.at_most(app.limits().query_bytes) } else { rows };
    rows::answer(rows, format, asking).await
}

/// Ask the query of a receipt again
///
/// Says whether the answer is the same, and if not, what changed. It is asked as the caller, who may
/// read no more by it than by the query.
#[utoipa::path(post, path = "/api/query/replay", tag = "query", request_body = Receipt, responses(
    (status = 200, description = "What was found", body = Replay),
    ForUsers,
    (status = 408, description = "It took too long", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
    (status = 429, description = "Too many queries run", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn replay(
    State(app): State<App>,
    Caller(ctx): Caller,
    QueryJson(receipt): QueryJson<Receipt>,
) -> Result<Json<Replay>, Problem> {
    let _asking = app.meters().query();
    Ok(Json(app.engine().replay(&ctx, &receipt).await?))
}

//! Queries that begin at a warehouse, and whether it answers.

use agnes_core::query::HybridQuery;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Json;
use crate::openapi::{ForAdmins, ProblemShape, WithBody};
use crate::problem::Problem;
use crate::state::App;

/// A hybrid query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HybridRequest {
    /// One read-only query, over tables and aliases.
    #[schema(example = "FROM orders JOIN web USING (customer) SELECT id, visits")]
    sql: String,
    /// Statements in GoogleSQL that run first, each one query, by the alias of their rows.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>,
        example = json!({"web": "WITH s AS (SELECT customer FROM mart.web_sessions) SELECT customer, COUNT(*) AS visits FROM s GROUP BY customer"}))]
    register_bq: Map<String, Value>,
}

/// What the warehouse did for a hybrid query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HybridStats {
    /// The aliases under which its rows stood.
    registered_aliases: Vec<String>,
    /// How many there are.
    alias_count: usize,
    /// What it charges for; null where it was not asked.
    bytes_scanned: Option<u64>,
}

/// Rows of a hybrid query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HybridRows {
    /// Names of the columns; they may repeat.
    columns: Vec<String>,
    /// Values in the order of the columns, as `POST /api/query` gives them.
    rows: Vec<Vec<Value>>,
    /// How many rows there are.
    row_count: usize,
    /// Whether more rows existed.
    truncated: bool,
    bq_stats: HybridStats,
}

/// Ask the warehouse and the tables here together
///
/// Each statement of `register_bq` runs at the warehouse under the limits of queries there
/// (bytes, daily budget, rows, time); its rows then stand under their alias beside the tables.
#[utoipa::path(post, path = "/api/query/hybrid", tag = "query", request_body = HybridRequest, responses(
    (status = 200, description = "The rows", body = HybridRows),
    ForAdmins,
    WithBody,
    (status = 429, description = "Too many queries run, or today's bytes are used up", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn hybrid(
    State(app): State<App>,
    Caller(ctx): Caller,
    Json(request): Json<HybridRequest>,
) -> Result<axum::Json<HybridRows>, Problem> {
    let mut statements = Vec::new();
    for (alias, sql) in request.register_bq {
        let Value::String(sql) = sql else {
            return Err(Problem::invalid(&["body", "register_bq", &alias], "it is a text", "string_type"));
        };
        statements.push((alias, sql));
    }
    let asking = app.meters().query();
    let answer = app.engine().hybrid(&ctx, &HybridQuery { sql: request.sql, statements }).await?;
    drop(asking);
    Ok(axum::Json(HybridRows {
        columns: answer.columns,
        rows: answer.rows,
        row_count: answer.row_count,
        truncated: answer.truncated,
        bq_stats: HybridStats {
            alias_count: answer.registered_aliases.len(),
            registered_aliases: answer.registered_aliases,
            bytes_scanned: answer.bytes_scanned,
        },
    }))
}

/// A warehouse that answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"ok": true, "billing_project": "acme-jobs", "data_project": "acme-data", "elapsed_ms": 640}))]
pub(crate) struct ConnectionAnswer {
    /// Always: everything else is an error.
    ok: bool,
    /// The project that runs and pays for jobs.
    billing_project: String,
    /// The project of the data.
    data_project: String,
    /// How long it took.
    elapsed_ms: u64,
}

/// Whether BigQuery answers
///
/// Runs `SELECT 1` there.
#[utoipa::path(post, path = "/api/admin/bigquery/test-connection", tag = "sources", responses(
    (status = 200, description = "It does", body = ConnectionAnswer),
    ForAdmins,
    (status = 400, description = "None is configured", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "A quota there is used up", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "It does not", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "Try again later", body = ProblemShape, content_type = "application/problem+json"),
    (status = 504, description = "It did not in time", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn test_connection(
    State(app): State<App>,
    Caller(ctx): Caller,
) -> Result<axum::Json<ConnectionAnswer>, Problem> {
    let told = app.engine().test_warehouse(&ctx).await?;
    Ok(axum::Json(ConnectionAnswer {
        ok: true,
        billing_project: told.billing_project,
        data_project: told.data_project,
        elapsed_ms: told.elapsed_ms,
    }))
}

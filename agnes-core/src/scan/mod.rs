//! Scans: columns and rows of one table, for programs that copy it.
//!
//! A scan names columns, a predicate, an order and a limit; the query made of them goes the
//! way of every query, so grants, policies, sandbox and limits are the same. Beyond that
//! each person has a quota of scans.

mod error;
mod estimate;
mod functions;
mod predicate;
mod quota;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use error::ScanError;
pub use estimate::ScanEstimate;
pub use quota::UsageRepository;
pub(crate) use quota::{Quotas, Slot};

use crate::catalog::Scannable;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::ident::{nearest, printable, quote_ident};
use crate::query::{Manner, Query, QueryResult};
use crate::rbac::Ability;

/// What to scan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// Id or name of the table.
    pub table: String,
    /// Columns; all when empty.
    #[serde(default)]
    pub select: Vec<String>,
    /// A predicate, without the keyword.
    #[serde(default)]
    pub predicate: Option<String>,
    /// Most rows.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Columns, each with `ASC`, `DESC` or nothing.
    #[serde(default)]
    pub order_by: Vec<String>,
    /// Name of the snapshot that is made of it, for the audit log.
    #[serde(default)]
    pub snapshot: Option<String>,
}

/// A request that was understood.
struct Plan {
    sql: String,
    /// Columns that are returned, and those that are read besides.
    selected: Vec<String>,
    read: Vec<String>,
    limit: Option<u64>,
}

impl Engine {
    /// Rows of one table, as of now: of what the caller may read of it.
    ///
    /// # Errors
    /// `table_not_found`, `access_denied`, `no_data`; any [`ScanError`]; what a query may fail of.
    pub async fn scan(&self, ctx: &CallContext, request: &ScanRequest) -> Result<QueryResult> {
        let limits = &self.config().scan;
        let planned = async {
            ctx.principal().require(Ability::Rows)?;
            let table = self.catalog().scannable(ctx, &request.table, false).await?;
            if let Some(limit) = request.limit.filter(|limit| *limit > limits.max_limit) {
                return Err(ScanError::TooManyRows { limit, most: limits.max_limit }.into());
            }
            let plan = plan(&table, request)?;
            let slot = self.scans().begin(ctx.principal().user_id(), limits, self.clock().now())?;
            Ok((plan, slot))
        };
        let planned = planned.await;
        if planned.is_err() {
            self.audit_scan(ctx, "snapshot.scan", request, &planned);
        }
        let (plan, slot) = planned?;
        let query = Query::new(plan.sql)
            .limit(usize::try_from(limits.max_limit).unwrap_or(usize::MAX))
            .max_bytes(usize::try_from(limits.max_result_bytes).unwrap_or(usize::MAX));
        let manner = Manner {
            action: Some("snapshot.scan"),
            facts: json!({"snapshot_name": request.snapshot.as_deref().map(|name| printable(name, 80))}),
            timeout: Some(limits.timeout),
            slot: Some(slot),
        };
        self.query_in_manner(ctx, query, manner).await
    }

    fn audit_scan<T>(&self, ctx: &CallContext, action: &'static str, request: &ScanRequest, done: &Result<T>) {
        let resource = format!("table:{}", printable(&request.table, 80));
        self.audit().event(ctx, action).resource(resource).outcome(done).later();
    }
}

/// Reads a request against the columns that the caller sees.
fn plan(table: &Scannable, request: &ScanRequest) -> Result<Plan> {
    let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    let known = |name: &str| {
        columns.iter().find(|column| column.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
            ScanError::UnknownColumn {
                column: printable(name, 80),
                table: table.name.clone(),
                suggestion: nearest(name, columns.iter().copied()).map(str::to_owned),
            }
        })
    };
    let predicate = match &request.predicate {
        Some(text) => Some(predicate::canonical(text, &[&table.id, &table.name], &columns)?),
        None => None,
    };
    let selected = match request.select.as_slice() {
        [] => columns.clone(),
        names => names.iter().map(|name| known(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut ordered = Vec::new();
    let mut order = Vec::new();
    for text in &request.order_by {
        let mut words = text.split_whitespace().rev();
        let last = words.next().unwrap_or_default();
        let (name, direction) = match ["ASC", "DESC"].into_iter().find(|known| known.eq_ignore_ascii_case(last)) {
            Some(direction) => (text.trim()[..text.trim().len() - last.len()].trim(), direction),
            None => (text.trim(), "ASC"),
        };
        if name.is_empty() {
            return Err(ScanError::BadOrder { text: printable(text, 80) }.into());
        }
        let column = known(name)?;
        ordered.push(column.to_owned());
        order.push(format!("{} {direction}", quote_ident(column)));
    }
    let list: Vec<String> = selected.iter().map(|column| quote_ident(column)).collect();
    let mut sql = format!("SELECT {} FROM {}", list.join(", "), quote_ident(&table.name));
    let mut read = ordered;
    if let Some((text, used)) = &predicate {
        sql += &format!(" WHERE {text}");
        read.extend_from_slice(used);
    }
    if !order.is_empty() {
        sql += &format!(" ORDER BY {}", order.join(", "));
    }
    if let Some(limit) = request.limit {
        sql += &format!(" LIMIT {limit}");
    }
    Ok(Plan { sql, selected: selected.into_iter().map(str::to_owned).collect(), read, limit: request.limit })
}

//! Whether a statement in a warehouse's own dialect is one query, where the warehouse does not tell.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::Parser;

/// Whether a text is known to be one query that writes nothing. One that is not understood is not.
#[must_use]
pub fn only_reads(sql: &str) -> bool {
    let sql = sql.trim();
    let sql = sql.strip_suffix(';').unwrap_or(sql);
    // Wherever one stands: the warehouse may see the end of a text or a comment elsewhere.
    if sql.contains(';') {
        return false;
    }
    match Parser::parse_sql(&BigQueryDialect {}, sql).as_deref() {
        Ok([query @ Statement::Query(_)]) => query.visit(&mut Reading).is_continue(),
        _ => false,
    }
}

/// Stops at what is no reading part of a query.
struct Reading;

impl Visitor for Reading {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match query.pipe_operators.is_empty() && reads(&query.body) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

fn reads(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::SetOperation { left, right, .. } => reads(left) && reads(right),
        // What is inside is visited.
        SetExpr::Query(_) | SetExpr::Values(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::only_reads;

    #[test]
    fn one_query_reads_and_nothing_else() {
        for sql in [
            "SELECT 1",
            " SELECT a, `b` FROM `p-1.d.t` WHERE a = 'x' ;\n",
            "WITH x AS (SELECT 1 AS n) SELECT * FROM x UNION ALL (SELECT n FROM y)",
            "SELECT * EXCEPT (a) FROM t QUALIFY row_number() OVER (PARTITION BY b ORDER BY c) = 1",
        ] {
            assert!(only_reads(sql), "{sql}");
        }
        for sql in [
            "",
            "SELECT",
            "INSERT INTO t SELECT 1",
            "SELECT 1; SELECT 2",
            "INSERT INTO t VALUES (1); SELECT bad syntax",
            "BEGIN; SELECT 1; END",
            "SELECT r'\\'; DELETE FROM t WHERE true --'",
            "CREATE TABLE t AS SELECT 1",
            "EXPORT DATA OPTIONS (uri='gs://b/*') AS SELECT 1",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "SELECT 1 INTO t",
            "SELECT 1 FROM (SELECT 2 INTO t)",
            "FROM t |> WHERE a |> CALL p()",
            "CALL p()",
        ] {
            assert!(!only_reads(sql), "{sql}");
        }
    }
}

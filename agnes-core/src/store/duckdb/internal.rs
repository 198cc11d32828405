//! Rows of the internal tables.

use ::duckdb::params_from_iter;
use arrow::record_batch::RecordBatch;

use super::Db;
use crate::error::Result;
use crate::ident::quote_ident;
use crate::store::InternalScope;

/// Rows of an internal table, JSON as text, all or those of one user.
pub(super) async fn rows(db: &Db, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>> {
    let underlying = match table {
        "agnes_sessions" => "usage_session_summary",
        "agnes_telemetry" => "usage_events",
        "agnes_audit" => "audit_log",
        _ => return Ok(Vec::new()),
    };
    db.read("read an internal table", move |conn| {
        let mut columns = Vec::new();
        let mut statement = conn.prepare(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? AND schema_name = 'main' \
             AND database_name = current_database() ORDER BY column_index",
        )?;
        for column in statement.query_map([underlying], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (name, data_type): (String, String) = column?;
            let quoted = quote_ident(&name);
            columns.push(if data_type == "JSON" { format!("{quoted}::VARCHAR AS {quoted}") } else { quoted });
        }
        let mut values: Vec<String> = Vec::new();
        let mut mine = "true".to_owned();
        if let Some(scope) = only {
            values.push(scope.user_id);
            mine = "user_id = ?".to_owned();
            let local =
                scope.email.as_deref().and_then(|email| email.split_once('@')).map(|(local, _)| local.to_owned());
            if let (true, Some(local)) = (underlying != "audit_log", local) {
                // Rows of older versions know only the local part of the address: usable while
                // no two people share it.
                let same: i64 = conn.query_row(
                    "SELECT count(*) FROM users WHERE lower(split_part(email, '@', 1)) = lower(?)",
                    [&local],
                    |row| row.get(0),
                )?;
                if same == 1 {
                    mine.push_str(" OR user_id IS NULL AND lower(username) = lower(?)");
                    values.push(local);
                }
            }
        }
        let sql = format!("SELECT {} FROM {underlying} WHERE {mine}", columns.join(", "));
        let mut statement = conn.prepare(&sql)?;
        let arrow = statement.query_arrow(params_from_iter(values))?;
        let schema = arrow.get_schema();
        let batches: Vec<RecordBatch> = arrow.collect();
        // Without rows the columns still tell what the table looks like.
        Ok(if batches.is_empty() { vec![RecordBatch::new_empty(schema)] } else { batches })
    })
    .await
}

//! What the fields of a registration have to be together, whatever connectors there are.

use super::fields::invalid;
use super::{QueryMode, RegisteredTable, RegistryError, SyncStrategy};
use crate::error::Result;
use crate::ident::{GcpProject, RelaxedName, TableName, printable};
use crate::schedule::Schedule;

/// Kinds of source that clients know; others are those of the engine's connectors.
pub(super) const KINDS: [&str; 4] = ["keboola", "bigquery", "jira", "local"];

/// Extracts that somebody else writes: no connector reads them.
pub(super) const LOCAL: &str = "local";

pub(super) const BIGQUERY: &str = "bigquery";
pub(super) const JIRA: &str = "jira";
pub(super) const KEBOOLA: &str = "keboola";

fn wrong(field: &'static str, reason: impl Into<String>) -> RegistryError {
    RegistryError::InvalidSourceField { field, reason: reason.into() }
}

/// Checks one row against the rules that hold whatever its source.
///
/// # Errors
/// `invalid_name`, `invalid_field`.
pub(super) fn validate(table: &RegisteredTable) -> Result<()> {
    TableName::parse(&table.name)?;
    if crate::rbac::INTERNAL_TABLES.contains(&table.name.to_lowercase().as_str()) {
        return Err(invalid("name", "tables of Agnes's own state have this name").into());
    }
    if let Some(schedule) = table.sync_schedule.as_deref()
        && Schedule::parse(schedule).is_none()
    {
        let reason = format!(
            "`{}` is not a schedule such as `every 15m`, `daily 05:00` or `cron 0 5 * * 1`",
            printable(schedule, 64)
        );
        return Err(invalid("sync_schedule", reason).into());
    }
    for (field, days, least) in [
        ("incremental_window_days", table.incremental_window_days, 0),
        ("max_history_days", table.max_history_days, 0),
        ("initial_load_chunk_days", table.initial_load_chunk_days, 1),
    ] {
        if days.is_some_and(|days| days < least) {
            return Err(invalid(field, format!("it must be {least} or more")).into());
        }
    }
    let partitioned = table.sync_strategy == SyncStrategy::Partitioned;
    let remote = table.query_mode == QueryMode::Remote;
    if partitioned && table.partition_by.is_none() {
        return Err(invalid("partition_by", "a partitioned table needs a column").into());
    }
    if let Some(granularity) = table.partition_granularity.as_deref()
        && !["day", "month", "year"].contains(&granularity)
    {
        return Err(invalid("partition_granularity", "it is `day`, `month` or `year`").into());
    }
    if partitioned && remote {
        return Err(invalid("sync_strategy", "a remote table has no parts").into());
    }
    if table.where_filters.is_some() && (remote || table.sync_strategy != SyncStrategy::FullRefresh) {
        return Err(invalid("where_filters", "filters go with full refreshes of local tables only").into());
    }
    if table.source_query.as_deref().is_some_and(|q| !q.trim().is_empty())
        && table.query_mode != QueryMode::Materialized
    {
        return Err(invalid("source_query", "only materialized tables have a query").into());
    }
    Ok(())
}

/// Brings a row into the form of its kind of source, and checks it against the rules of that
/// kind as far as they are a matter of the text alone.
///
/// # Errors
/// `invalid_name`, `invalid_field`, `invalid_source_field`.
pub(super) fn of_kind(table: &mut RegisteredTable, kind: &str) -> Result<()> {
    if matches!(kind, BIGQUERY | KEBOOLA) {
        take_path_apart(table)?;
    }
    if table.bq_fqn.is_some() && kind != BIGQUERY {
        return Err(invalid("bq_fqn", "only tables of BigQuery have one").into());
    }
    // Whoever asks for some rows would get all of them published.
    if table.where_filters.is_some() && !matches!(kind, KEBOOLA | LOCAL) {
        return Err(
            invalid("where_filters", format!("a source of kind `{}` cannot filter rows", printable(kind, 64))).into()
        );
    }
    let materialized = table.query_mode == QueryMode::Materialized;
    if kind == BIGQUERY {
        bigquery(table, materialized)?;
    }
    if kind == KEBOOLA
        && let Some(query) = table.source_query.as_deref().filter(|_| materialized)
        && !serde_json::from_str::<serde_json::Value>(query).is_ok_and(|query| query.is_object())
    {
        return Err(invalid("source_query", "for Keboola it is a filter object in JSON, not SQL").into());
    }
    if materialized && table.source_query.is_none() && !matches!(kind, BIGQUERY | KEBOOLA) {
        return Err(invalid("source_query", "a materialized table needs a query").into());
    }
    if table.sync_strategy == SyncStrategy::Partitioned && table.partition_granularity.is_none() {
        table.partition_granularity = Some("month".to_owned());
    }
    validate(table)
}

/// Takes a path that was pasted whole into `source_table` apart.
fn take_path_apart(table: &mut RegisteredTable) -> Result<()> {
    let Some(path) = table.source_table.as_deref().filter(|path| path.contains('.')) else { return Ok(()) };
    let (above, name) = path.rsplit_once('.').unwrap_or(("", path));
    let fits =
        |bucket: &String| above == bucket || above.strip_suffix(bucket.as_str()).is_some_and(|p| p.ends_with('.'));
    if table.bucket.as_ref().is_some_and(fits) {
        table.source_table = Some(name.to_owned());
        return Ok(());
    }
    let (path, above, name) = (printable(path, 120), printable(above, 80), printable(name, 80));
    Err(wrong("source_table", format!("`{path}` is a whole path: put `{above}` into `bucket` and `{name}` here"))
        .into())
}

fn bigquery(table: &mut RegisteredTable, materialized: bool) -> Result<()> {
    if let Some(path) = table.bq_fqn.as_deref() {
        let parts: Vec<&str> = path.split('.').collect();
        let [project, dataset, name] = parts[..] else {
            return Err(invalid("bq_fqn", "it is `project.dataset.table`").into());
        };
        if GcpProject::parse(project).is_err() || [dataset, name].iter().any(|part| RelaxedName::parse(part).is_err()) {
            return Err(invalid("bq_fqn", "it is `project.dataset.table`, each in its grammar").into());
        }
    }
    let whole = table.bucket.is_some() && table.source_table.is_some();
    if !materialized {
        table.query_mode = QueryMode::Remote;
        if !whole {
            let field = if table.bucket.is_none() { "bucket" } else { "source_table" };
            return Err(invalid(field, "a table that stays in BigQuery needs its dataset and its table").into());
        }
    } else if table.source_query.is_none() && !whole {
        return Err(invalid("source_query", "give a query, or `bucket` and `source_table`").into());
    }
    for (field, text) in [("bucket", &table.bucket), ("source_table", &table.source_table)] {
        let Some(text) = text else { continue };
        if text.contains('*') {
            return Err(wrong(field, "name one table, without `*`").into());
        }
        if let Err(error) = RelaxedName::parse(text) {
            return Err(wrong(field, error.to_string()).into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ident::SourceName;

    fn row(change: impl FnOnce(&mut RegisteredTable)) -> RegisteredTable {
        let (name, source) = (TableName::parse("orders").unwrap(), SourceName::parse("shop").unwrap());
        let mut table = RegisteredTable::new(&name, "files", &source);
        change(&mut table);
        table
    }

    fn check(change: impl FnOnce(&mut RegisteredTable), valid: bool) {
        let table = row(change);
        assert_eq!(validate(&table).is_ok(), valid, "{table:?}");
    }

    fn path(bucket: Option<&str>, table: &str) -> RegisteredTable {
        row(|row| {
            row.bucket = bucket.map(str::to_owned);
            row.source_table = Some(table.to_owned());
        })
    }

    #[test]
    fn rows_are_checked_across_fields() {
        check(|_| (), true);
        check(|t| t.sync_schedule = Some("every 15m".into()), true);
        check(|t| t.sync_schedule = Some("hourly".into()), false);
        check(|t| t.sync_strategy = SyncStrategy::Partitioned, false);
        check(
            |t| {
                t.sync_strategy = SyncStrategy::Partitioned;
                t.partition_by = Some("day".into());
            },
            true,
        );
        check(|t| t.incremental_window_days = Some(-1), false);
        check(|t| t.initial_load_chunk_days = Some(0), false);
        check(|t| t.source_query = Some("select 1".into()), false);
        check(|t| t.partition_granularity = Some("week".into()), false);
    }

    #[test]
    fn a_pasted_path_is_taken_apart_where_it_fits() {
        for (kind, bucket, table, expected) in [
            ("keboola", Some("in.c-main"), "in.c-main.orders", Ok("orders")),
            ("keboola", Some("in.c-main"), "orders", Ok("orders")),
            ("keboola", Some("in.c-other"), "in.c-main.orders", Err("invalid_source_field")),
            ("keboola", None, "in.c-main.orders", Err("invalid_source_field")),
            ("bigquery", Some("sales"), "my-project.sales.orders", Ok("orders")),
            ("bigquery", Some("sales"), "sales.orders", Ok("orders")),
            ("bigquery", Some("ales"), "sales.orders", Err("invalid_source_field")),
            ("files", None, "orders.csv", Ok("orders.csv")),
        ] {
            let mut table = path(bucket, table);
            let done = of_kind(&mut table, kind);
            let got = done.as_ref().map(|()| table.source_table.as_deref().unwrap_or_default()).map_err(|e| e.code());
            assert_eq!(got, expected, "{kind} {bucket:?}");
        }
    }

    #[test]
    fn tables_of_bigquery_stay_there_unless_they_are_materialized() {
        let mut table = path(Some("sales"), "orders");
        of_kind(&mut table, "bigquery").unwrap();
        assert_eq!(table.query_mode, QueryMode::Remote);
        for (bucket, name, fqn, code) in [
            (None, "orders", None, "invalid_field"),
            (Some("sales"), "orders_*", None, "invalid_source_field"),
            (Some(" sales"), "orders", None, "invalid_source_field"),
            (Some("sales"), "orders", Some("my-project.sales"), "invalid_field"),
            (Some("sales"), "orders", Some("My-Project.sales.orders"), "invalid_field"),
        ] {
            let mut table = path(bucket, name);
            table.bq_fqn = fqn.map(str::to_owned);
            assert_eq!(of_kind(&mut table, "bigquery").unwrap_err().code(), code, "{bucket:?} {name} {fqn:?}");
        }
        let mut other = row(|t| t.bq_fqn = Some("my-project.sales.orders".to_owned()));
        assert_eq!(of_kind(&mut other, "files").unwrap_err().code(), "invalid_field");
    }

    #[test]
    fn filters_are_taken_where_they_are_applied() {
        for (kind, valid) in
            [("keboola", true), ("local", true), ("postgres", false), ("bigquery", false), ("jira", false)]
        {
            let mut table = path(Some("in.c-main"), "orders");
            table.where_filters = Some(serde_json::json!([{"column": "a", "operator": "eq", "values": ["x"]}]));
            if kind == "bigquery" {
                (table.bucket, table.query_mode) = (Some("sales".to_owned()), QueryMode::Materialized);
            }
            let done = of_kind(&mut table, kind);
            assert_eq!(done.is_ok(), valid, "{kind} {done:?}");
        }
    }

    #[test]
    fn queries_go_with_the_kind() {
        for (kind, query, valid) in [
            ("keboola", Some("{\"limit\": 10}"), true),
            ("keboola", Some("select 1"), false),
            ("keboola", None, true),
            ("bigquery", Some("select 1"), true),
            ("bigquery", None, false),
            ("jira", None, false),
        ] {
            let mut table = row(|t| {
                t.query_mode = QueryMode::Materialized;
                t.source_query = query.map(str::to_owned);
            });
            assert_eq!(of_kind(&mut table, kind).is_ok(), valid, "{kind} {query:?}");
        }
    }
}

//! The fields of a registration, as people and programs send them.

use serde_json::{Map, Value};

use super::{QueryMode, RegisteredTable, RegistryError, SyncStrategy};
use crate::error::Result;
use crate::ident::{SourceName, nearest, printable};

/// Fields of a registration by name: one that is missing stays as it is, null takes its value
/// away. `name`, `source_type`, `source`, `bucket`, `source_table`, `source_query`, `query_mode`,
/// `sync_strategy`, `sync_schedule`, `primary_key`, `description`, `folder`,
/// `profile_after_sync`, `incremental_window_days`, `max_history_days`, `incremental_column`,
/// `where_filters`, `partition_by`, `partition_granularity`, `initial_load_chunk_days`, `bq_fqn`,
/// `server_only`, `options`, `defer_rebuild`.
pub type TableFields = Map<String, Value>;

const FIELDS: [&str; 24] = [
    "name",
    "source_type",
    "source",
    "bucket",
    "source_table",
    "source_query",
    "query_mode",
    "sync_strategy",
    "sync_schedule",
    "primary_key",
    "description",
    "folder",
    "profile_after_sync",
    "incremental_window_days",
    "max_history_days",
    "incremental_column",
    "where_filters",
    "partition_by",
    "partition_granularity",
    "initial_load_chunk_days",
    "bq_fqn",
    "server_only",
    "options",
    "defer_rebuild",
];

/// Comparisons of `where_filters`.
const OPERATORS: [&str; 6] = ["eq", "ne", "gt", "ge", "lt", "le"];

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> RegistryError {
    RegistryError::InvalidField { field, reason: reason.into() }
}

/// Puts `fields` into `table`; `name` is left to the caller. What they say together is checked
/// elsewhere.
pub(super) fn apply(table: &mut RegisteredTable, fields: &TableFields) -> Result<()> {
    for (name, value) in fields {
        let Some(field) = FIELDS.iter().copied().find(|field| field == name) else {
            let reason = match nearest(name, FIELDS) {
                Some(near) => format!("there is no field `{}`; did you mean `{near}`?", printable(name, 64)),
                None => format!("there is no field `{}`", printable(name, 64)),
            };
            return Err(invalid("body", reason).into());
        };
        match field {
            "source_type" => table.source_type = text(field, value)?,
            "source" => table.source = text(field, value)?.map(|name| source(&name)).transpose()?,
            "bucket" => table.bucket = text(field, value)?,
            "source_table" => table.source_table = text(field, value)?,
            "source_query" => table.source_query = text(field, value)?.map(|query| query.trim().to_owned()),
            "query_mode" => table.query_mode = query_mode(field, value)?,
            "sync_strategy" => table.sync_strategy = strategy(field, value)?,
            "sync_schedule" => table.sync_schedule = text(field, value)?,
            "primary_key" => table.primary_key = columns(field, value)?,
            "description" => table.description = text(field, value)?.map(|said| unescape(&said)),
            "folder" => table.folder = text(field, value)?,
            "incremental_window_days" => table.incremental_window_days = days(field, value)?,
            "max_history_days" => table.max_history_days = days(field, value)?,
            "initial_load_chunk_days" => table.initial_load_chunk_days = days(field, value)?,
            "incremental_column" => table.incremental_column = text(field, value)?,
            "where_filters" => table.where_filters = filters(field, value)?,
            "partition_by" => table.partition_by = text(field, value)?,
            "partition_granularity" => table.partition_granularity = text(field, value)?,
            "bq_fqn" => table.bq_fqn = text(field, value)?,
            "server_only" => table.server_only = flag(field, value)?.unwrap_or(false),
            "options" => table.options = object(field, value)?,
            // Accepted from older clients: every table is profiled when its content changes.
            // And a registration never rebuilds: its data comes with its first sync.
            "profile_after_sync" | "defer_rebuild" => drop(flag(field, value)?),
            _ => drop(text(field, value)?),
        }
    }
    Ok(())
}

/// A text field; blank is none.
pub(super) fn text(field: &'static str, value: &Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => Err(invalid(field, "it holds a NUL").into()),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.trim().is_empty())),
        _ => Err(invalid(field, "it is a text").into()),
    }
}

fn source(name: &str) -> Result<String> {
    match SourceName::parse(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(invalid("source", error.to_string()).into()),
    }
}

fn query_mode(field: &'static str, value: &Value) -> Result<QueryMode> {
    match text(field, value)?.as_deref().map(QueryMode::parse) {
        None => Ok(QueryMode::Local),
        Some(Some(mode)) if mode != QueryMode::Internal => Ok(mode),
        Some(_) => Err(invalid(field, "it is `local`, `remote` or `materialized`").into()),
    }
}

fn strategy(field: &'static str, value: &Value) -> Result<SyncStrategy> {
    match text(field, value)?.as_deref().map(SyncStrategy::parse) {
        None => Ok(SyncStrategy::FullRefresh),
        Some(strategy) => {
            strategy.ok_or_else(|| invalid(field, "it is `full_refresh`, `incremental` or `partitioned`").into())
        }
    }
}

fn days(field: &'static str, value: &Value) -> Result<Option<i32>> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_i64().map(i32::try_from) {
            Some(Ok(days)) => Ok(Some(days)),
            _ => Err(invalid(field, "it is a whole number of days").into()),
        },
    }
}

fn flag(field: &'static str, value: &Value) -> Result<Option<bool>> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(*flag)),
        _ => Err(invalid(field, "it is `true` or `false`").into()),
    }
}

fn object(field: &'static str, value: &Value) -> Result<Option<Value>> {
    match value {
        Value::Null => Ok(None),
        Value::Object(map) => Ok(Some(value.clone()).filter(|_| !map.is_empty())),
        _ => Err(invalid(field, "it is an object").into()),
    }
}

/// A list of columns; one text is a list of one.
fn columns(field: &'static str, value: &Value) -> Result<Option<Vec<String>>> {
    let Value::Array(items) = value else { return Ok(text(field, value)?.map(|one| vec![one])) };
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        names.push(text(field, item)?.ok_or_else(|| invalid(field, "a column's name is blank"))?);
    }
    Ok(Some(names).filter(|names| !names.is_empty()))
}

/// What people paste with its escapes written out: `\n`, `\t`, `\'` and the like.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(kept @ ('\'' | '"' | '\\')) => out.push(kept),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

/// A list of `{column, operator, values}`, also as its JSON in a text; values become texts.
fn filters(field: &'static str, value: &Value) -> Result<Option<Value>> {
    let parsed;
    let value = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).map_err(|_| invalid(field, "it is not JSON"))?;
            &parsed
        }
        value => value,
    };
    let items = match value {
        Value::Null => return Ok(None),
        Value::Array(items) => items,
        _ => return Err(invalid(field, "it is a list of filters").into()),
    };
    let read = items.iter().map(|item| filter(field, item)).collect::<Result<Vec<Value>>>()?;
    Ok(Some(Value::Array(read)).filter(|_| !items.is_empty()))
}

fn filter(field: &'static str, item: &Value) -> Result<Value> {
    let Value::Object(map) = item else {
        return Err(invalid(field, "a filter is an object with `column`, `operator` and `values`").into());
    };
    if let Some(other) = map.keys().find(|key| !["column", "operator", "values"].contains(&key.as_str())) {
        return Err(invalid(field, format!("a filter has no `{}`", printable(other, 64))).into());
    }
    let column = map.get("column").map(|name| text(field, name)).transpose()?.flatten();
    let column = column.ok_or_else(|| invalid(field, "a filter needs a `column`"))?;
    let operator = map.get("operator").map(|name| text(field, name)).transpose()?.flatten();
    let operator = operator.unwrap_or_else(|| "eq".to_owned());
    if !OPERATORS.contains(&operator.as_str()) {
        return Err(invalid(field, format!("an operator is one of {}", OPERATORS.join(", "))).into());
    }
    let values = match map.get("values") {
        Some(Value::Array(values)) if !values.is_empty() => values,
        _ => return Err(invalid(field, "a filter needs a list of `values`").into()),
    };
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        texts.push(match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(invalid(field, "a value is a text, a number or a truth value").into()),
        });
    }
    Ok(serde_json::json!({"column": column, "operator": operator, "values": texts}))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ident::TableName;

    fn applied(fields: Value) -> Result<RegisteredTable> {
        let source = SourceName::parse("shop")?;
        let mut table = RegisteredTable::new(&TableName::parse("orders")?, "files", &source);
        apply(&mut table, fields.as_object().unwrap())?;
        Ok(table)
    }

    #[test]
    fn fields_are_read_in_every_form_there_is() {
        let table = applied(json!({
            "primary_key": "id", "description": "it\\'s\\none row", "sync_strategy": "", "query_mode": null,
            "where_filters": "[{\"column\": \"a\", \"values\": [1, true, \"x\"]}]", "bucket": " ", "max_history_days": 3,
        }))
        .unwrap();
        assert_eq!(table.primary_key, Some(vec!["id".to_owned()]));
        assert_eq!(table.description.as_deref(), Some("it's\none row"));
        assert_eq!((table.sync_strategy, table.query_mode), (SyncStrategy::FullRefresh, QueryMode::Local));
        let filter = json!([{"column": "a", "operator": "eq", "values": ["1", "true", "x"]}]);
        assert_eq!((table.where_filters, table.bucket, table.max_history_days), (Some(filter), None, Some(3)));
        let cleared = applied(json!({"source": null, "primary_key": [], "where_filters": [], "options": {}})).unwrap();
        assert_eq!((cleared.source, cleared.primary_key), (None, None));
        assert_eq!((cleared.where_filters, cleared.options), (None, None));
    }

    #[test]
    fn what_is_no_such_field_or_type_is_refused_by_name() {
        for (fields, field) in [
            (json!({"descripton": "x"}), "body"),
            (json!({"id": "x"}), "body"),
            (json!({"query_mode": "internal"}), "query_mode"),
            (json!({"query_mode": 1}), "query_mode"),
            (json!({"sync_strategy": "weekly"}), "sync_strategy"),
            (json!({"primary_key": [1]}), "primary_key"),
            (json!({"primary_key": ["a", ""]}), "primary_key"),
            (json!({"max_history_days": 1.5}), "max_history_days"),
            (json!({"max_history_days": 99_999_999_999_i64}), "max_history_days"),
            (json!({"source": "../x"}), "source"),
            (json!({"options": []}), "options"),
            (json!({"server_only": "yes"}), "server_only"),
            (json!({"bucket": "a\0b"}), "bucket"),
            (json!({"where_filters": {"column": "a"}}), "where_filters"),
            (json!({"where_filters": "[{]"}), "where_filters"),
            (json!({"where_filters": [{"column": "a", "values": []}]}), "where_filters"),
            (json!({"where_filters": [{"column": "", "values": [1]}]}), "where_filters"),
            (json!({"where_filters": [{"column": "a", "operator": "like", "values": [1]}]}), "where_filters"),
            (json!({"where_filters": [{"column": "a", "values": [null]}]}), "where_filters"),
            (json!({"where_filters": [{"column": "a", "values": [1], "sql": "1=1"}]}), "where_filters"),
        ] {
            let error = applied(fields.clone()).unwrap_err();
            assert_eq!(error.facts(), Some(json!({"field": field})), "{fields}");
        }
    }
}

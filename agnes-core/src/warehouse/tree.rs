//! How the parser's tree is looked at here: every look at what is not there gives nothing.

use serde_json::Value;

/// A text; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A list; empty where there is none.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Whether nothing is said.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Every value below `root`, itself too.
pub(super) fn everything(root: &Value) -> impl Iterator<Item = &Value> {
    let mut work = vec![root];
    std::iter::from_fn(move || {
        let next = work.pop()?;
        match next {
            Value::Object(map) => work.extend(map.values()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
        Some(next)
    })
}

/// Names of a reference to a column.
pub(super) fn column(value: &Value) -> Option<Vec<&str>> {
    if text(value, "class") != "COLUMN_REF" {
        return None;
    }
    list(value, "column_names").iter().map(Value::as_str).collect()
}

//! Values on their way in and out.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// A time as DuckDB's TIMESTAMP reads it.
pub(super) fn stamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// [`stamp`] of a time that may be missing.
pub(super) fn stamp_opt(time: Option<DateTime<Utc>>) -> Option<String> {
    time.map(stamp)
}

/// A time selected as `epoch_us(column)`.
pub(super) fn time(us: Option<i64>) -> Option<DateTime<Utc>> {
    us.and_then(DateTime::from_timestamp_micros)
}

/// JSON selected as text; what is no JSON counts as missing.
pub(super) fn json(text: Option<String>) -> Option<Value> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// JSON as it is stored.
pub(super) fn json_text(value: Option<&Value>) -> Option<String> {
    value.map(ToString::to_string)
}

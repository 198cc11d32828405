//! What is asked of one export, as form fields.

use agnes_core::registry::RegisteredTable;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::KeboolaError;
use super::filters::{self, Filter};

/// What an export is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileType {
    Csv,
    Parquet,
}

/// What is asked of one export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportSpec {
    pub(crate) file_type: FileType,
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) changed_since: Option<String>,
    pub(crate) changed_until: Option<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) limit: Option<u64>,
}

impl ExportSpec {
    /// A whole table.
    pub(crate) fn whole(file_type: FileType) -> Self {
        Self { file_type, columns: None, changed_since: None, changed_until: None, filters: Vec::new(), limit: None }
    }

    /// What changed from one second on, up to another.
    pub(crate) fn changed(&self, since: Option<i64>, until: Option<i64>) -> Self {
        let text = |seconds: Option<i64>| seconds.map(|seconds| seconds.to_string());
        Self { changed_since: text(since), changed_until: text(until), ..self.clone() }
    }

    /// Whether it asks for all rows of the table.
    pub(crate) fn is_whole(&self) -> bool {
        self.changed_since.is_none() && self.changed_until.is_none() && self.filters.is_empty() && self.limit.is_none()
    }

    /// Whether other rows are asked for as time goes by: Keboola reads times such as `-2 days`, too.
    pub(crate) fn moves(&self) -> bool {
        let times = self.changed_since.iter().chain(&self.changed_until);
        times.into_iter().any(|time| time.parse::<i64>().is_err())
    }

    /// The form fields, in the order of Keboola's own client. Filters are indexed fields: the
    /// server ignores an object in one field without a word.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let mut form = Vec::new();
        let mut field = |name: &str, value: &str| form.push((name.to_owned(), value.to_owned()));
        match self.file_type {
            FileType::Csv => field("gzip", "1"),
            FileType::Parquet => field("fileType", "parquet"),
        }
        for (name, value) in [("changedSince", &self.changed_since), ("changedUntil", &self.changed_until)] {
            if let Some(value) = value {
                field(name, value);
            }
        }
        for (i, filter) in self.filters.iter().enumerate() {
            field(&format!("whereFilters[{i}][column]"), &filter.column);
            field(&format!("whereFilters[{i}][operator]"), &filter.operator);
            for (j, value) in filter.values.iter().enumerate() {
                field(&format!("whereFilters[{i}][values][{j}]"), value);
            }
        }
        if let Some(columns) = &self.columns {
            field("columns", &columns.join(","));
        }
        if let Some(limit) = self.limit {
            field("limit", &limit.to_string());
        }
        form
    }

    /// What a materialized table's `source_query` asks for; none asks for the whole table.
    /// `file_type` holds where it says nothing. Sentences for the run's log go to `notes`.
    pub(crate) fn of_query(
        table: &RegisteredTable,
        file_type: FileType,
        today: NaiveDate,
        notes: &mut Vec<String>,
    ) -> Result<Self, KeboolaError> {
        let invalid = |reason: &str| KeboolaError::Query { reason: reason.to_owned() };
        let mut spec = Self::whole(file_type);
        let text = table.source_query.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let Some(text) = text else { return Ok(spec) };
        let query: Value = serde_json::from_str(text).map_err(|_| invalid("it is not JSON"))?;
        let query = query.as_object().ok_or_else(|| invalid("it is not an object"))?;
        for (key, value) in query.iter().filter(|(_, value)| !value.is_null()) {
            match key.as_str() {
                "where_filters" => spec.filters = filters::parse(Some(value), true, today)?,
                "columns" => spec.columns = Some(names(value).ok_or_else(|| invalid("`columns` is no list of names"))?),
                "changed_since" | "changed_until" => {
                    let text = match value {
                        Value::String(text) => filters::resolve(text, today)?,
                        Value::Number(number) => number.to_string(),
                        _ => return Err(invalid(&format!("`{key}` is neither text nor number"))),
                    };
                    let seconds = unix_seconds(&text).unwrap_or_else(|| {
                        notes.push(format!("`{key}` is handed to Keboola as it is: it is no ISO date"));
                        text
                    });
                    match key.as_str() {
                        "changed_since" => spec.changed_since = Some(seconds),
                        _ => spec.changed_until = Some(seconds),
                    }
                }
                "limit" => {
                    let limit = value.as_u64().filter(|limit| *limit > 0);
                    spec.limit = Some(limit.ok_or_else(|| invalid("`limit` is not a positive number"))?);
                }
                "file_type" | "fileType" => {
                    spec.file_type = serde_json::from_value(value.clone())
                        .map_err(|_| invalid("`file_type` is neither `csv` nor `parquet`"))?;
                }
                other => return Err(invalid(&format!("`{}` is not known", agnes_core::ident::printable(other, 40)))),
            }
        }
        Ok(spec)
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    let names: Option<Vec<String>> =
        value.as_array()?.iter().map(|name| name.as_str().filter(|name| !name.is_empty()).map(str::to_owned)).collect();
    // A comma would be two names in the form field.
    names.filter(|names| !names.is_empty() && names.iter().all(|name| !name.contains(',')))
}

/// Unix seconds of an ISO date or time (UTC where it names no zone), or of seconds.
fn unix_seconds(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let seconds = DateTime::parse_from_rfc3339(text).map(|at| at.timestamp()).ok().or_else(|| {
        let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let naive = naive.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
        naive.map(|at| at.and_utc().timestamp())
    });
    seconds.map(|seconds| seconds.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use agnes_core::ident::{SourceName, TableName};

    type Form = Vec<(String, String)>;

    fn query(text: &str) -> Result<(Form, Vec<String>), KeboolaError> {
        let name = TableName::parse("t").unwrap();
        let mut table = RegisteredTable::new(&name, "keboola", &SourceName::parse("k").unwrap());
        table.source_query = Some(text.to_owned());
        let mut notes = Vec::new();
        let spec =
            ExportSpec::of_query(&table, FileType::Parquet, NaiveDate::from_ymd_opt(2026, 1, 10).unwrap(), &mut notes)?;
        Ok((spec.form(), notes))
    }

    #[test]
    fn a_query_becomes_form_fields() {
        let (form, notes) = query(
            r#"{"where_filters": [{"column": "city", "operator": "notIn", "values": ["a,b", "{{today}}"]},
                                  {"column": "n", "operator": "gt", "values": [5]}],
                "columns": ["a", "b"], "changed_since": "2026-01-01T00:00:00Z", "changed_until": "-2 days", "limit": 7, "fileType": "csv"}"#,
        )
        .unwrap();
        let form: Vec<_> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            form,
            [
                "gzip=1",
                "changedSince=1767225600",
                "changedUntil=-2 days",
                "whereFilters[0][column]=city",
                "whereFilters[0][operator]=notIn",
                "whereFilters[0][values][0]=a,b",
                "whereFilters[0][values][1]=2026-01-10",
                "whereFilters[1][column]=n",
                "whereFilters[1][operator]=gt",
                "whereFilters[1][values][0]=5",
                "columns=a,b",
                "limit=7",
            ]
        );
        assert_eq!(notes.len(), 1);
        assert_eq!(query("  ").unwrap().0, [("fileType".to_owned(), "parquet".to_owned())]);
        for wrong in [
            "SELECT 1",
            "[]",
            r#"{"columns": "a"}"#,
            r#"{"columns": ["a,b"]}"#,
            r#"{"limit": -1}"#,
            r#"{"file_type": "xlsx"}"#,
            r#"{"file_typ": "csv"}"#,
            r#"{"changed_since": []}"#,
        ] {
            assert!(matches!(query(wrong), Err(KeboolaError::Query { .. })), "{wrong}");
        }
    }

    #[test]
    fn times_are_unix_seconds() {
        for (text, seconds) in [
            ("1700000000", Some("1700000000")),
            ("2023-11-14", Some("1699920000")),
            ("2023-11-14 22:13:20", Some("1700000000")),
            ("2023-11-14T23:13:20+01:00", Some("1700000000")),
            ("yesterday", None),
        ] {
            assert_eq!(unix_seconds(text).as_deref(), seconds, "{text}");
        }
    }
}

//! Row filters that Keboola applies, and the date placeholders in them
//! (`{{today}}`, `{{last_month}}`, ...).

use agnes_core::ident::printable;
use chrono::{Datelike, Days, Months, NaiveDate};
use serde_json::Value;

use super::error::KeboolaError;

/// Operators of local tables.
const OPERATORS: [&str; 6] = ["eq", "ne", "gt", "ge", "lt", "le"];
/// Further ones of materialized tables.
const LIST_OPERATORS: [&str; 2] = ["in", "notIn"];

/// One filter; all filters of a table hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) column: String,
    pub(crate) operator: String,
    /// Several mean "one of", or "none of" for `ne`.
    pub(crate) values: Vec<String>,
}

/// Reads filters and resolves their placeholders as of `today`; `lists` allows `in` and `notIn`.
pub(crate) fn parse(value: Option<&Value>, lists: bool, today: NaiveDate) -> Result<Vec<Filter>, KeboolaError> {
    let invalid = |reason: String| KeboolaError::Filter { reason };
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(invalid("they are not a list".to_owned())),
    };
    let mut filters = Vec::with_capacity(items.len());
    for item in items {
        let item = item.as_object().ok_or_else(|| invalid("one is not an object".to_owned()))?;
        if let Some(key) = item.keys().find(|key| !["column", "operator", "values"].contains(&key.as_str())) {
            return Err(invalid(format!("`{}` is not known", printable(key, 40))));
        }
        let column = item.get("column").and_then(Value::as_str).filter(|column| !column.trim().is_empty());
        let column = column.ok_or_else(|| invalid("one names no `column`".to_owned()))?.to_owned();
        let shown = printable(&column, 60);
        let operator = match item.get("operator") {
            None | Some(Value::Null) => "eq",
            Some(value) => value.as_str().unwrap_or_default(),
        };
        if !(OPERATORS.contains(&operator) || lists && LIST_OPERATORS.contains(&operator)) {
            return Err(invalid(format!("the operator on `{shown}` is not known")));
        }
        let values = item.get("values").and_then(Value::as_array).filter(|values| !values.is_empty());
        let values = values.ok_or_else(|| invalid(format!("`values` on `{shown}` is no list with values")))?;
        let values = values
            .iter()
            .map(|value| match value {
                Value::String(text) => resolve(text, today),
                Value::Number(number) => Ok(number.to_string()),
                Value::Bool(flag) => Ok(flag.to_string()),
                _ => Err(invalid(format!("a value on `{shown}` is neither text nor number"))),
            })
            .collect::<Result<_, _>>()?;
        filters.push(Filter { column, operator: operator.to_owned(), values });
    }
    Ok(filters)
}

/// `text` with each `{{..}}` replaced by its date.
pub(crate) fn resolve(text: &str, today: NaiveDate) -> Result<String, KeboolaError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let unknown = |token: &str| KeboolaError::Placeholder { token: printable(&format!("{{{{{token}}}}}"), 60) };
        let (token, after) = after.split_once("}}").ok_or_else(|| unknown(after))?;
        let date = placeholder(token.trim(), today).ok_or_else(|| unknown(token))?;
        out.push_str(before);
        out.push_str(&date.format("%Y-%m-%d").to_string());
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn placeholder(token: &str, today: NaiveDate) -> Option<NaiveDate> {
    let days = match token {
        "today" => 0,
        "last_week" => 7,
        "last_month" => 30,
        "last_2_months" => 60,
        "last_3_months" => 90,
        "last_6_months" => 180,
        "last_year" => 365,
        "last_2_years" => 730,
        "start_of_3_months_ago" => return today.with_day(1)?.checked_sub_months(Months::new(3)),
        _ => return None,
    };
    today.checked_sub_days(Days::new(days))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn today() -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 3, 31).unwrap()
    }

    #[test]
    fn placeholders_are_dates() {
        for (text, date) in [
            ("{{today}}", "2026-03-31"),
            ("{{last_week}}", "2026-03-24"),
            ("{{last_month}}", "2026-03-01"),
            ("{{last_2_months}}", "2026-01-30"),
            ("{{last_3_months}}", "2025-12-31"),
            ("{{last_6_months}}", "2025-10-02"),
            ("{{last_year}}", "2025-03-31"),
            ("{{last_2_years}}", "2024-03-31"),
            ("{{start_of_3_months_ago}}", "2025-12-01"),
            ("from {{today}} 00:00", "from 2026-03-31 00:00"),
            ("no placeholder", "no placeholder"),
        ] {
            assert_eq!(resolve(text, today()).unwrap(), date);
        }
        for wrong in ["{{tomorrow}}", "{{}}", "{{today"] {
            let error = resolve(wrong, today()).unwrap_err();
            assert!(
                matches!(&error, KeboolaError::Placeholder { token } if token.contains(wrong.trim_matches('}'))),
                "{error}"
            );
        }
    }

    #[test]
    fn filters_are_checked() {
        let filters = json!([{"column": "day", "operator": "ge", "values": ["{{last_week}}"]}, {"column": "n", "values": [1, true, "x"]}]);
        let parsed = parse(Some(&filters), false, today()).unwrap();
        assert_eq!(parsed[0].values, ["2026-03-24"]);
        assert_eq!((parsed[1].operator.as_str(), parsed[1].values.join(" ")), ("eq", "1 true x".to_owned()));
        let list = json!([{"column": "a", "operator": "in", "values": ["x"]}]);
        assert!(parse(Some(&list), true, today()).is_ok());
        for wrong in [
            list,
            json!({"column": "a"}),
            json!(["a"]),
            json!([{"column": " ", "values": ["x"]}]),
            json!([{"column": "a", "values": []}]),
            json!([{"column": "a"}]),
            json!([{"column": "a", "operator": "like", "values": ["x"]}]),
            json!([{"column": "a", "operator": 3, "values": ["x"]}]),
            json!([{"column": "a", "values": [null]}]),
            json!([{"column": "a", "values": ["x"], "or": 1}]),
        ] {
            assert!(matches!(parse(Some(&wrong), false, today()), Err(KeboolaError::Filter { .. })), "{wrong}");
        }
    }
}

//! Expressions of a checked query in GoogleSQL.

use serde_json::Value;

use super::dialect::{Dialect, Scope, literal, number, quoted, string};
use super::tree::{column, everything, is_blank, list, text};

impl Dialect<'_> {
    pub(super) fn expr(&self, value: &Value, scope: &Scope) -> Option<String> {
        let children =
            || list(value, "children").iter().map(|child| self.expr(child, scope)).collect::<Option<Vec<_>>>();
        match text(value, "class") {
            "CONSTANT" => constant(&value["value"]),
            "PARAMETER" => literal(self.params.get(text(value, "identifier"))?),
            "COLUMN_REF" => self.column_ref(value),
            "COMPARISON" => self.comparison(value, scope),
            "CONJUNCTION" => {
                let word = if text(value, "type") == "CONJUNCTION_AND" { " AND " } else { " OR " };
                Some(format!("({})", children()?.join(word)))
            }
            "BETWEEN" => {
                let input = &value["input"];
                let [lower, upper] = ["lower", "upper"].map(|key| self.beside(&value[key], input, scope));
                Some(format!("({} BETWEEN {} AND {})", self.expr(input, scope)?, lower?, upper?))
            }
            "OPERATOR" => {
                let items = list(value, "children");
                match (text(value, "type"), items) {
                    ("OPERATOR_NOT", [one]) => Some(format!("(NOT {})", self.expr(one, scope)?)),
                    ("OPERATOR_IS_NULL", [one]) => Some(format!("({} IS NULL)", self.expr(one, scope)?)),
                    ("OPERATOR_IS_NOT_NULL", [one]) => Some(format!("({} IS NOT NULL)", self.expr(one, scope)?)),
                    ("OPERATOR_COALESCE", _) => Some(format!("COALESCE({})", children()?.join(", "))),
                    (kind @ ("COMPARE_IN" | "COMPARE_NOT_IN"), [one, rest @ ..]) if !rest.is_empty() => {
                        let rest = rest.iter().map(|item| self.beside(item, one, scope)).collect::<Option<Vec<_>>>()?;
                        let word = if kind == "COMPARE_IN" { "IN" } else { "NOT IN" };
                        Some(format!("({} {word} ({}))", self.expr(one, scope)?, rest.join(", ")))
                    }
                    _ => None,
                }
            }
            "CASE" => {
                let mut sql = String::from("CASE");
                for check in list(value, "case_checks") {
                    let (when, then) = (self.expr(&check["when_expr"], scope)?, self.expr(&check["then_expr"], scope)?);
                    sql.push_str(&format!(" WHEN {when} THEN {then}"));
                }
                Some(format!("{sql} ELSE {} END", self.expr(&value["else_expr"], scope)?))
            }
            "CAST" => self.cast(value, scope),
            "SUBQUERY" => {
                let query = self.node(&value["subquery"]["node"], scope, false, None)?;
                match (text(value, "subquery_type"), text(value, "comparison_type")) {
                    ("SCALAR", _) => Some(format!("({query})")),
                    ("EXISTS", _) => Some(format!("EXISTS ({query})")),
                    ("NOT_EXISTS", _) => Some(format!("(NOT EXISTS ({query}))")),
                    ("ANY", "COMPARE_EQUAL") => Some(format!("({} IN ({query}))", self.expr(&value["child"], scope)?)),
                    _ => None,
                }
            }
            "FUNCTION" => self.function(value, scope),
            "WINDOW" => self.window(value, scope),
            _ => None,
        }
    }

    fn column_ref(&self, value: &Value) -> Option<String> {
        let names = column(value)?;
        match names.as_slice() {
            [one] => match one.to_lowercase().as_str() {
                // Words that are values where no column has their name.
                "current_date" | "current_timestamp" | "current_time" | "localtime" | "localtimestamp" | "user"
                | "current_user" | "session_user" | "current_role" | "current_schema" | "current_catalog" | "rowid"
                    if self.type_of(one).is_none() =>
                {
                    match one.to_lowercase().as_str() {
                        "current_date" => Some("CURRENT_DATE()".to_owned()),
                        "current_timestamp" => Some("CURRENT_TIMESTAMP()".to_owned()),
                        _ => None,
                    }
                }
                _ => quoted(one),
            },
            [table, name] => Some(format!("{}.{}", quoted(table)?, quoted(name)?)),
            _ => None,
        }
    }

    /// The type of a column, where all tables that have it agree.
    fn type_of(&self, name: &str) -> Option<&str> {
        let all = self.tables.values().flat_map(|(_, columns)| columns);
        let mut types = all.filter(|column| column.0.eq_ignore_ascii_case(name)).map(|column| column.1.as_str());
        let first = types.next()?;
        types.all(|other| other == first).then_some(first)
    }

    fn column_type(&self, value: &Value) -> Option<&str> {
        self.type_of(column(value)?.last()?)
    }

    /// A value that is compared with `other`: a moment takes the type of the column.
    fn beside(&self, value: &Value, other: &Value, scope: &Scope) -> Option<String> {
        let typed = moment(value);
        let text_constant = (text(value, "class") == "CONSTANT" && text(&value["value"]["type"], "id") == "VARCHAR")
            .then(|| value["value"]["value"].as_str())
            .flatten();
        match (self.column_type(other), typed.or(text_constant)) {
            (Some(kind @ ("DATE" | "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE")), Some(given)) => {
                let is_day = is_day(given);
                match kind {
                    "DATE" if is_day => Some(format!("DATE '{given}'")),
                    "TIMESTAMP" if is_day || is_moment(given) => Some(format!("DATETIME '{given}'")),
                    "TIMESTAMP WITH TIME ZONE" if is_day => Some(format!("TIMESTAMP '{given} 00:00:00+00:00'")),
                    "TIMESTAMP WITH TIME ZONE" if is_moment(given) => Some(format!("TIMESTAMP '{given}+00:00'")),
                    _ => None,
                }
            }
            // A text stands for a value of the other's type, which only columns of text have.
            (kind, None) if text_constant.is_some() && kind != Some("VARCHAR") => None,
            (Some("VARCHAR"), Some(_)) if typed.is_some() => None,
            (kind, Some(_)) if text_constant.is_some() && kind != Some("VARCHAR") => None,
            _ => self.expr(value, scope),
        }
    }

    fn comparison(&self, value: &Value, scope: &Scope) -> Option<String> {
        let word = match text(value, "type") {
            "COMPARE_EQUAL" => "=",
            "COMPARE_NOTEQUAL" => "!=",
            "COMPARE_LESSTHAN" => "<",
            "COMPARE_GREATERTHAN" => ">",
            "COMPARE_LESSTHANOREQUALTO" => "<=",
            "COMPARE_GREATERTHANOREQUALTO" => ">=",
            "COMPARE_DISTINCT_FROM" => "IS DISTINCT FROM",
            "COMPARE_NOT_DISTINCT_FROM" => "IS NOT DISTINCT FROM",
            _ => return None,
        };
        let (left, right) = (&value["left"], &value["right"]);
        Some(format!("({} {word} {})", self.beside(left, right, scope)?, self.beside(right, left, scope)?))
    }

    fn cast(&self, value: &Value, scope: &Scope) -> Option<String> {
        let kind = text(&value["cast_type"], "id");
        if let Some(day) = moment(value).filter(|day| kind == "DATE" && is_day(day)) {
            return Some(format!("DATE '{day}'"));
        }
        let child = &value["child"];
        if value["try_cast"] != false {
            return None;
        }
        if kind == "BOOLEAN" {
            return match child["value"]["value"].as_str() {
                Some("t") => Some("TRUE".to_owned()),
                Some("f") => Some("FALSE".to_owned()),
                _ => None,
            };
        }
        let of = self.column_type(child);
        let numeric = of.is_some_and(|of| ["BIGINT", "DOUBLE"].contains(&of) || of.starts_with("DECIMAL"));
        match kind {
            // Of an aggregate or of a number.
            "DOUBLE" if numeric || matches!(text(child, "function_name"), "sum" | "avg" | "count" | "count_star") => {
                Some(format!("CAST({} AS FLOAT64)", self.expr(child, scope)?))
            }
            "DATE" if of.is_some_and(|of| of.starts_with("TIMESTAMP") || of == "DATE") => {
                Some(format!("DATE({})", self.expr(child, scope)?))
            }
            _ => None,
        }
    }

    fn function(&self, value: &Value, scope: &Scope) -> Option<String> {
        let name = text(value, "function_name").to_lowercase();
        let own = ["", "main"].contains(&text(value, "schema")) && ["", "system"].contains(&text(value, "catalog"));
        if !own || !is_blank(&value["order_bys"]["orders"]) || value["export_state"] == true {
            return None;
        }
        let items = list(value, "children");
        let distinct = value["distinct"] == true;
        let filter = &value["filter"];
        if let Some(word) = aggregate(&name) {
            return self.aggregate(word, items, distinct, filter, scope);
        }
        if distinct || !filter.is_null() {
            return None;
        }
        let args = || items.iter().map(|item| self.expr(item, scope)).collect::<Option<Vec<_>>>();
        let call = |word: &str| Some(format!("{word}({})", args()?.join(", ")));
        let numeric = |item: &Value| match self.column_type(item) {
            Some(kind) => ["BIGINT", "DOUBLE"].contains(&kind) || kind.starts_with("DECIMAL"),
            None => column(item).is_none(),
        };
        match (name.as_str(), items.len()) {
            ("+" | "-", 2) if interval(&items[1]).is_some() => {
                let (count, unit) = interval(&items[1])?;
                let of = self.column_type(&items[0]);
                let moment = of.is_some_and(|of| of.starts_with("TIMESTAMP") || of == "DATE")
                    || column(&items[0]).is_some_and(|names| names == ["current_date"]);
                // Months of a TIMESTAMP are not counted there.
                if !moment || (of == Some("TIMESTAMP WITH TIME ZONE") && ["MONTH", "YEAR"].contains(&unit)) {
                    return None;
                }
                Some(format!("({} {name} INTERVAL {count} {unit})", self.expr(&items[0], scope)?))
            }
            ("+" | "-" | "*", 2) if items.iter().all(numeric) => {
                Some(format!("({})", args()?.join(&format!(" {name} "))))
            }
            ("/", 2) if items.iter().all(numeric) => call("IEEE_DIVIDE"),
            ("-", 1) if numeric(&items[0]) => Some(format!("(-{})", self.expr(&items[0], scope)?)),
            ("%", 2) if items[1]["value"]["value"].as_i64().is_some_and(|by| by != 0) => call("MOD"),
            ("||", 2) => Some(format!("({})", args()?.join(" || "))),
            ("~~" | "!~~", 2) => {
                let pattern = items[1]["value"]["value"].as_str().filter(|pattern| !pattern.contains('\\'))?;
                let word = if name == "~~" { "LIKE" } else { "NOT LIKE" };
                Some(format!("({} {word} {})", self.expr(&items[0], scope)?, string(pattern)?))
            }
            // Not `trim`: which characters are blanks is another matter there.
            ("lower" | "upper", 1) => call(&name.to_uppercase()),
            ("length" | "len" | "char_length" | "character_length", 1)
                if self.column_type(&items[0]) == Some("VARCHAR") =>
            {
                call("CHAR_LENGTH")
            }
            ("abs" | "floor", 1) => call(&name.to_uppercase()),
            ("ceil" | "ceiling", 1) => call("CEIL"),
            ("round", 1) => call("ROUND"),
            ("round", 2) if items[1]["value"]["value"].is_u64() => call("ROUND"),
            ("nullif", 2) => call("NULLIF"),
            ("ifnull", 2) => call("IFNULL"),
            ("starts_with" | "prefix" | "^@", 2) => call("STARTS_WITH"),
            ("ends_with" | "suffix", 2) => call("ENDS_WITH"),
            ("contains", 2) if self.column_type(&items[0]) == Some("VARCHAR") => {
                Some(format!("(STRPOS({}) > 0)", args()?.join(", ")))
            }
            ("replace", 3) => call("REPLACE"),
            ("substring" | "substr", 2 | 3)
                if items[1]["value"]["value"].as_u64().is_some_and(|from| from > 0)
                    && items.get(2).is_none_or(|length| length["value"]["value"].is_u64()) =>
            {
                call("SUBSTR")
            }
            ("date_part" | "datepart", 2) => self.part_of(items[0]["value"]["value"].as_str()?, &items[1], scope),
            ("year" | "quarter" | "month" | "day" | "hour" | "minute", 1) => self.part_of(&name, &items[0], scope),
            ("date_trunc" | "datetrunc", 2) => {
                let unit = match items[0]["value"]["value"].as_str()?.to_lowercase().as_str() {
                    "week" => "ISOWEEK".to_owned(),
                    unit @ ("year" | "quarter" | "month" | "day" | "hour" | "minute" | "second") => unit.to_uppercase(),
                    _ => return None,
                };
                let word = match self.column_type(&items[1])? {
                    "DATE" if !["HOUR", "MINUTE", "SECOND"].contains(&unit.as_str()) => "DATE_TRUNC",
                    "TIMESTAMP" => "DATETIME_TRUNC",
                    "TIMESTAMP WITH TIME ZONE" => "TIMESTAMP_TRUNC",
                    _ => return None,
                };
                Some(format!("{word}({}, {unit})", self.expr(&items[1], scope)?))
            }
            ("now" | "get_current_timestamp", 0) => Some("CURRENT_TIMESTAMP()".to_owned()),
            ("today" | "current_date", 0) => Some("CURRENT_DATE()".to_owned()),
            _ => None,
        }
    }

    /// `EXTRACT` of what both count alike.
    fn part_of(&self, part: &str, of: &Value, scope: &Scope) -> Option<String> {
        let part = part.to_uppercase();
        let kind = self.column_type(of)?;
        let known = match part.as_str() {
            "YEAR" | "QUARTER" | "MONTH" | "DAY" => kind == "DATE" || kind.starts_with("TIMESTAMP"),
            "HOUR" | "MINUTE" => kind.starts_with("TIMESTAMP"),
            _ => false,
        };
        known.then_some(())?;
        Some(format!("EXTRACT({part} FROM {})", self.expr(of, scope)?))
    }

    fn aggregate(&self, word: &str, items: &[Value], distinct: bool, filter: &Value, scope: &Scope) -> Option<String> {
        let filter = match filter {
            Value::Null => None,
            filter => Some(self.expr(filter, scope)?),
        };
        if word == "COUNT_STAR" || items.is_empty() {
            return match filter {
                None => (word == "COUNT_STAR" || word == "COUNT").then(|| "COUNT(*)".to_owned()),
                Some(filter) => Some(format!("COUNTIF({filter})")),
            };
        }
        let [one] = items else { return None };
        let one = self.expr(one, scope)?;
        let one = filter.map_or_else(|| one.clone(), |filter| format!("IF({filter}, {one}, NULL)"));
        Some(format!("{word}({}{one})", if distinct { "DISTINCT " } else { "" }))
    }

    fn window(&self, value: &Value, scope: &Scope) -> Option<String> {
        let name = text(value, "function_name").to_lowercase();
        let plain = value["ignore_nulls"] == false
            && value["distinct"] != true
            && ["filter_expr", "start_expr", "end_expr", "offset_expr", "default_expr", "arg_orders"]
                .iter()
                .all(|key| is_blank(&value[*key]));
        let usual = text(value, "start") == "UNBOUNDED_PRECEDING"
            && text(value, "end") == "CURRENT_ROW_RANGE"
            && text(value, "exclude_clause") == "NO_OTHER";
        if !plain || !usual {
            return None;
        }
        let args = list(value, "children").iter().map(|item| self.expr(item, scope)).collect::<Option<Vec<_>>>()?;
        let call = match (name.as_str(), args.as_slice()) {
            ("row_number" | "rank" | "dense_rank", []) => format!("{}()", name.to_uppercase()),
            ("sum" | "avg" | "min" | "max" | "count", [one]) => format!("{}({one})", name.to_uppercase()),
            ("count_star", []) => "COUNT(*)".to_owned(),
            _ => return None,
        };
        let mut over = Vec::new();
        let partitions = list(value, "partitions");
        if !partitions.is_empty() {
            let by = partitions.iter().map(|item| self.expr(item, scope)).collect::<Option<Vec<_>>>()?;
            over.push(format!("PARTITION BY {}", by.join(", ")));
        }
        let orders = list(value, "orders");
        if !orders.is_empty() {
            over.push(format!("ORDER BY {}", self.orders(orders, scope)?));
        } else if ["rank", "dense_rank"].contains(&name.as_str()) {
            return None;
        }
        Some(format!("{call} OVER ({})", over.join(" ")))
    }
}

fn aggregate(name: &str) -> Option<&'static str> {
    Some(match name {
        "count" => "COUNT",
        "count_star" => "COUNT_STAR",
        "sum" => "SUM",
        "avg" | "mean" => "AVG",
        "min" => "MIN",
        "max" => "MAX",
        "bool_and" => "LOGICAL_AND",
        "bool_or" => "LOGICAL_OR",
        "stddev" | "stddev_samp" => "STDDEV_SAMP",
        "stddev_pop" => "STDDEV_POP",
        "variance" | "var_samp" => "VAR_SAMP",
        "var_pop" => "VAR_POP",
        _ => return None,
    })
}

fn constant(value: &Value) -> Option<String> {
    if value["is_null"] == true {
        return Some("NULL".to_owned());
    }
    let given = &value["value"];
    match text(&value["type"], "id") {
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" => Some(given.as_i64()?.to_string()),
        "DOUBLE" | "FLOAT" => number(given.as_f64()?),
        "VARCHAR" => string(given.as_str()?),
        "BOOLEAN" => Some(if given.as_bool()? { "TRUE" } else { "FALSE" }.to_owned()),
        "DECIMAL" => {
            let scale =
                usize::try_from(value["type"]["type_info"]["scale"].as_u64()?).ok().filter(|scale| *scale <= 9)?;
            let unscaled = given.as_i64()?;
            let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            let sign = if unscaled < 0 { "-" } else { "" };
            let point = if scale == 0 { "" } else { "." };
            Some(format!("NUMERIC '{sign}{whole}{point}{part}'"))
        }
        _ => None,
    }
}

/// The text of `DATE '…'`, `TIMESTAMP '…'` or `TIMESTAMPTZ '…'`.
fn moment(value: &Value) -> Option<&str> {
    let known = text(value, "class") == "CAST"
        && ["DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"].contains(&text(&value["cast_type"], "id"))
        && value["try_cast"] == false;
    let child = &value["child"];
    if !known || text(child, "class") != "CONSTANT" {
        return None;
    }
    child["value"]["value"].as_str()
}

fn shaped(given: &str, pattern: &str) -> bool {
    given.len() == pattern.len()
        && given.bytes().zip(pattern.bytes()).all(|(b, p)| if p == b'0' { b.is_ascii_digit() } else { b == p })
}

/// `2024-02-29`.
fn is_day(given: &str) -> bool {
    shaped(given, "0000-00-00")
}

/// `2024-02-29 10:00:00`, with up to six digits more.
fn is_moment(given: &str) -> bool {
    let (whole, part) = given.split_once('.').unwrap_or((given, "0"));
    shaped(whole, "0000-00-00 00:00:00") && (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
}

/// `INTERVAL 3 DAY` as the parser writes it.
fn interval(value: &Value) -> Option<(i64, &'static str)> {
    let unit = match text(value, "function_name") {
        "to_days" => "DAY",
        "to_weeks" => "WEEK",
        "to_months" => "MONTH",
        "to_years" => "YEAR",
        "to_hours" => "HOUR",
        "to_minutes" => "MINUTE",
        _ => return None,
    };
    let counts: Vec<&Value> = everything(&value["children"]).filter(|v| text(v, "class") == "CONSTANT").collect();
    let [count] = counts.as_slice() else { return None };
    // Nothing stands there but that number and what makes it an integer.
    let only = everything(&value["children"])
        .filter(|v| v.get("class").is_some())
        .all(|v| ["CONSTANT", "CAST"].contains(&text(v, "class")) || text(v, "function_name") == "trunc");
    only.then_some(())?;
    let count = count["value"]["value"].as_i64()?;
    match unit {
        "WEEK" => Some((count.checked_mul(7)?, "DAY")),
        unit => Some((count, unit)),
    }
}

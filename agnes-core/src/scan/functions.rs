//! Functions of predicates: which there are, and how the engine spells them.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, TimezoneInfo, Value,
};

/// Functions that predicates may call.
pub(super) const FUNCTIONS: &[&str] = &[
    "current_date",
    "current_timestamp",
    "current_time",
    "date",
    "datetime",
    "timestamp",
    "time",
    "date_add",
    "date_sub",
    "date_diff",
    "date_trunc",
    "format_date",
    "format_timestamp",
    "parse_date",
    "parse_timestamp",
    "unix_seconds",
    "unix_millis",
    "concat",
    "length",
    "lower",
    "upper",
    "ltrim",
    "rtrim",
    "replace",
    "starts_with",
    "ends_with",
    "contains_substr",
    "regexp_contains",
    "regexp_like",
    "regexp_extract",
    "abs",
    "round",
    "mod",
    "power",
    "sqrt",
    "log",
    "ln",
    "exp",
    "sign",
    "greatest",
    "least",
    "if",
    "ifnull",
    "coalesce",
    "nullif",
    "date_part",
    "strftime",
    "strptime",
];

/// Units that functions of dates take as a bare word.
const UNITS: &[&str] = &[
    "microsecond",
    "millisecond",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "isoweek",
    "month",
    "quarter",
    "year",
    "isoyear",
];

/// Takes the unit of a function of dates out of its arguments, where it is a bare word at the
/// end: `DATE_TRUNC(d, MONTH)`. A unit in quotes comes first, as the engine has it.
pub(super) fn unit_of(name: &str, arguments: &mut Vec<Expr>) -> Option<String> {
    let places = match name {
        "date_trunc" => 2,
        "date_diff" => 3,
        _ => return None,
    };
    match arguments.last() {
        Some(Expr::Identifier(word)) if arguments.len() == places && word.quote_style.is_none() => {
            let unit = word.value.to_ascii_lowercase();
            UNITS.contains(&unit.as_str()).then(|| {
                arguments.pop();
                unit.trim_start_matches("iso").to_owned()
            })
        }
        _ => None,
    }
}

/// A call as the engine spells it. Functions come under the names that BigQuery has for them;
/// those that the engine has under the same name with another meaning are told apart by their
/// arguments.
pub(super) fn spelled(name: &str, mut arguments: Vec<Expr>, unit: Option<String>) -> Expr {
    let cast = |expr: Expr, data_type: DataType| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        format: None,
    };
    let timestamp = || DataType::Timestamp(None, TimezoneInfo::None);
    if let Some(unit) = unit {
        // BigQuery counts from the second to the first, the engine from the first to the second.
        arguments.reverse();
        arguments.insert(0, Expr::Value(Value::SingleQuotedString(unit).into()));
        return call(name, arguments);
    }
    match (name, arguments.len()) {
        ("current_date" | "current_timestamp" | "current_time", 0) => {
            Expr::Identifier(Ident::new(name.to_ascii_uppercase()))
        }
        ("date", 1) => cast(arguments.remove(0), DataType::Date),
        ("datetime" | "timestamp", 1) => cast(arguments.remove(0), timestamp()),
        ("time", 1) => cast(arguments.remove(0), DataType::Time(None, TimezoneInfo::None)),
        ("date_add" | "date_sub", 2) if matches!(arguments[1], Expr::Interval(_)) => {
            let right = Box::new(arguments.remove(1));
            let op = if name == "date_add" { BinaryOperator::Plus } else { BinaryOperator::Minus };
            Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(arguments.remove(0)), op, right }))
        }
        ("format_date" | "format_timestamp", 2) => {
            arguments.reverse();
            call("strftime", arguments)
        }
        ("parse_date", 2) => {
            arguments.reverse();
            cast(call("strptime", arguments), DataType::Date)
        }
        ("parse_timestamp", 2) => {
            arguments.reverse();
            call("strptime", arguments)
        }
        ("unix_seconds", 1) => cast(call("epoch", arguments), DataType::BigInt(None)),
        ("unix_millis", 1) => call("epoch_ms", arguments),
        ("regexp_contains" | "regexp_like", _) => call("regexp_matches", arguments),
        ("contains_substr", 2) => {
            let folded = arguments.into_iter().map(|text| call("lower", vec![cast(text, DataType::Varchar(None))]));
            call("contains", folded.collect())
        }
        ("if", _) => call("if", arguments),
        _ => call(name, arguments),
    }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

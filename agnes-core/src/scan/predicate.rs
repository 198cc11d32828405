//! The predicate of a scan: which text is one, and how the engine is asked for it.
//!
//! What was read is written anew from its tree, so the caller's own text never becomes part of a
//! statement. That is about a clear contract and clear words: what may be asked is
//! decided by the sandbox, through which the finished query goes like every other.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, Query, SetExpr, Statement, Subscript, UnaryOperator,
    Value, ValueWithSpan,
};
use sqlparser::dialect::DuckDbDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

use super::ScanError;
use super::functions::{FUNCTIONS, spelled, unit_of};
use crate::ident::printable;

/// Longest predicate, bytes.
const LONGEST: usize = 32 << 10;
/// Most operators, keywords and brackets: what makes a tree deep. Values of a list do not count.
const MOST_OPERATORS: usize = 400;
/// What the predicate is read behind.
const BEFORE: &str = "SELECT 1 FROM t WHERE ";

/// Writes `text` as a predicate of the engine over `columns`, each in quotes and as the table
/// spells it; and the columns it names. They may be qualified with one of `tables`: the id and
/// the name.
///
/// # Errors
/// `validator_rejected`.
pub(super) fn canonical(text: &str, tables: &[&str], columns: &[&str]) -> Result<(String, Vec<String>), ScanError> {
    let mut predicate = parse(text)?;
    let mut reader = Reader { tables, columns, used: Vec::new() };
    reader.expression(&mut predicate)?;
    Ok((predicate.to_string(), reader.used))
}

fn rejected(kind: &'static str, details: impl Into<String>) -> ScanError {
    ScanError::Rejected { kind, details: details.into() }
}

fn parse(text: &str) -> Result<Expr, ScanError> {
    if text.len() > LONGEST {
        return Err(rejected("parse_error", format!("it is longer than {LONGEST} bytes")));
    }
    let dialect = DuckDbDialect {};
    let tokens =
        Tokenizer::new(&dialect, text).tokenize().map_err(|e| rejected("parse_error", first_line(&e.to_string())))?;
    let mut words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    match words.peek() {
        None => return Err(rejected("parse_error", "it is empty")),
        Some(Token::Word(word)) if word.quote_style.is_none() && changes(&word.value) => {
            return Err(rejected("ddl_or_dml", format!("it begins with `{}`", printable(&word.value, 20))));
        }
        Some(_) => {}
    }
    let operators = words.filter(|token| match token {
        Token::Word(word) => word.keyword != sqlparser::keywords::Keyword::NoKeyword,
        Token::Comma | Token::Period | Token::Number(..) | Token::SingleQuotedString(_) => false,
        _ => true,
    });
    if operators.count() > MOST_OPERATORS {
        return Err(rejected(
            "parse_error",
            format!("it has more than {MOST_OPERATORS} operators; use `IN` for many values"),
        ));
    }
    let read = |text: &str| Parser::new(&dialect).with_recursion_limit(60).try_with_sql(text)?.parse_statements();
    let statements = read(&format!("{BEFORE}{text}")).map_err(|error| match error {
        ParserError::TokenizerError(words) | ParserError::ParserError(words) => {
            rejected("parse_error", first_line(&words))
        }
        ParserError::RecursionLimitExceeded => rejected("parse_error", "it is nested too deeply"),
    })?;
    let [Statement::Query(query)] = <[Statement; 1]>::try_from(statements)
        .map_err(|_| rejected("multi_statement", "it holds more than one statement"))?
    else {
        return Err(rejected("disallowed_node", "it is not part of a query"));
    };
    let mut query = *query;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(rejected("disallowed_node", "it goes on with another query"));
    };
    let Some(predicate) = select.selection.take() else {
        return Err(rejected("parse_error", "it is no predicate"));
    };
    // What is left is what it was read behind, else it held more than a predicate.
    let bare = read("SELECT 1 FROM t").ok().and_then(|statements| statements.into_iter().next());
    if bare != Some(Statement::Query(Box::new(query))) {
        return Err(rejected("disallowed_node", "it goes on with another clause"));
    }
    Ok(predicate)
}

fn first_line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default(), 200)
}

/// Whether a statement that begins with this word changes something.
fn changes(word: &str) -> bool {
    const WORDS: [&str; 9] = ["insert", "update", "delete", "drop", "truncate", "alter", "create", "copy", "merge"];
    WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

struct Reader<'a> {
    tables: &'a [&'a str],
    columns: &'a [&'a str],
    used: Vec<String>,
}

type Checked = Result<(), ScanError>;

impl Reader<'_> {
    fn all<'e>(&mut self, expressions: impl IntoIterator<Item = &'e mut Expr>) -> Checked {
        expressions.into_iter().try_for_each(|expression| self.expression(expression))
    }

    /// Refuses what is not allowed, and writes the rest as the engine reads it.
    fn expression(&mut self, expression: &mut Expr) -> Checked {
        match expression {
            Expr::Identifier(name) => *name = self.column(name)?,
            Expr::CompoundIdentifier(names) => self.compound(names)?,
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expression(root)?;
                for access in access_chain {
                    match access {
                        AccessExpr::Dot(Expr::Identifier(name)) => *name = quoted(&name.value),
                        AccessExpr::Subscript(Subscript::Index { index }) => self.expression(index)?,
                        _ => {
                            return Err(rejected(
                                "disallowed_node",
                                "only fields and single elements are taken from a value",
                            ));
                        }
                    }
                }
            }
            Expr::Value(value) => literal(value)?,
            Expr::TypedString(typed) => {
                data_type(&typed.data_type)?;
                literal(&typed.value)?;
            }
            Expr::Nested(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner) => self.expression(inner)?,
            Expr::UnaryOp { op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not, expr } => {
                self.expression(expr)?;
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.all([left.as_mut(), right.as_mut()])?;
            }
            Expr::BinaryOp { left, op, right } => {
                operator(op)?;
                self.all([left.as_mut(), right.as_mut()])?;
            }
            Expr::InList { expr, list, .. } => {
                self.expression(expr)?;
                self.all(list)?;
            }
            Expr::Between { expr, low, high, .. } => self.all([expr.as_mut(), low.as_mut(), high.as_mut()])?,
            Expr::Like { any: false, expr, pattern, escape_char, .. }
            | Expr::ILike { any: false, expr, pattern, escape_char, .. } => {
                self.all([expr.as_mut(), pattern.as_mut()].into_iter().chain(escape_char.as_deref_mut()))?;
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.all(operand.as_deref_mut().into_iter().chain(else_result.as_deref_mut()))?;
                for CaseWhen { condition, result } in conditions {
                    self.all([condition, result])?;
                }
            }
            Expr::Cast { kind, expr, data_type: wanted, format: None } => {
                data_type(wanted)?;
                if *kind == CastKind::SafeCast {
                    *kind = CastKind::TryCast;
                }
                self.expression(expr)?;
            }
            Expr::Extract { expr, .. } => self.expression(expr)?,
            Expr::Ceil { expr, field } | Expr::Floor { expr, field } => {
                if !matches!(field, CeilFloorKind::DateTimeField(sqlparser::ast::DateTimeField::NoDateTime)) {
                    return Err(rejected("disallowed_node", "`CEIL` and `FLOOR` take one number"));
                }
                self.expression(expr)?;
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let more = substring_from.as_deref_mut().into_iter().chain(substring_for.as_deref_mut());
                self.all([expr.as_mut()].into_iter().chain(more))?;
            }
            Expr::Trim { trim_what, expr, trim_characters, .. } => {
                self.all([expr.as_mut()].into_iter().chain(trim_what.as_deref_mut()))?;
                self.all(trim_characters.iter_mut().flatten())?;
            }
            Expr::Interval(interval) => self.expression(&mut interval.value)?,
            Expr::AtTimeZone { timestamp, time_zone } => self.all([timestamp.as_mut(), time_zone.as_mut()])?,
            Expr::Tuple(values) => self.all(values)?,
            Expr::Array(array) => self.all(&mut array.elem)?,
            Expr::Function(function) => {
                if let Some(other) = self.function(function)? {
                    *expression = other;
                }
            }
            Expr::Subquery(query) | Expr::Exists { subquery: query, .. } | Expr::InSubquery { subquery: query, .. } => {
                return Err(nested(query));
            }
            Expr::Position { .. } => return Err(unknown_function("POSITION")),
            Expr::Overlay { .. } => return Err(unknown_function("OVERLAY")),
            Expr::Convert { .. } => return Err(unknown_function("CONVERT")),
            _ => return Err(rejected("disallowed_node", "this kind of expression is not taken here")),
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Option<Ident> {
        self.columns.iter().find(|column| column.eq_ignore_ascii_case(name)).map(|column| quoted(column))
    }

    fn column(&mut self, name: &Ident) -> Result<Ident, ScanError> {
        let Some(known) = self.known(&name.value) else {
            let near = crate::ident::nearest(&name.value, self.columns.iter().copied());
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let words = format!("there is no column `{}`{hint}", printable(&name.value, 80));
            return Err(rejected("unknown_column", words));
        };
        self.used.push(known.value.clone());
        Ok(known)
    }

    /// `column`, `table.column` or `column.field`, and fields below.
    fn compound(&mut self, names: &mut Vec<Ident>) -> Checked {
        let [first, second, ..] = names.as_slice() else { return Ok(()) };
        let qualified = self.tables.iter().any(|table| table.eq_ignore_ascii_case(&first.value));
        match (qualified && self.known(&second.value).is_some(), self.known(&first.value)) {
            (true, _) => {
                names.remove(0);
            }
            (false, Some(_)) => {}
            (false, None) if qualified => return self.column(second).map(drop),
            (false, None) => {
                let name = printable(&first.value, 80);
                return Err(rejected("cross_table_reference", format!("`{name}` is not the table that is scanned")));
            }
        }
        for (place, name) in names.iter_mut().enumerate() {
            *name = if place == 0 { self.column(name)? } else { quoted(&name.value) };
        }
        Ok(())
    }

    /// Checks a call; another expression where the engine spells it otherwise.
    fn function(&mut self, function: &mut Function) -> Result<Option<Expr>, ScanError> {
        let [ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else {
            return Err(unknown_function(&function.name.to_string()));
        };
        let name = ident.value.to_ascii_lowercase();
        if !FUNCTIONS.contains(&name.as_str()) {
            return Err(unknown_function(&ident.value));
        }
        let plain = !function.uses_odbc_syntax
            && function.parameters == FunctionArguments::None
            && function.within_group.is_empty()
            && function.filter.is_none()
            && function.null_treatment.is_none()
            && function.over.is_none();
        let mut arguments = Vec::new();
        match std::mem::replace(&mut function.args, FunctionArguments::None) {
            FunctionArguments::None if plain => {}
            FunctionArguments::List(list) if plain && list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
                for argument in list.args {
                    let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
                        return Err(rejected("disallowed_node", format!("`{}` takes expressions", ident.value)));
                    };
                    arguments.push(argument);
                }
            }
            FunctionArguments::Subquery(query) => return Err(nested(&query)),
            _ => return Err(rejected("disallowed_node", format!("`{}` is called plainly here", ident.value))),
        }
        let unit = unit_of(&name, &mut arguments);
        self.all(&mut arguments)?;
        Ok(Some(spelled(&name, arguments, unit)))
    }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn unknown_function(name: &str) -> ScanError {
    rejected("unknown_function", format!("`{}` is not among the functions of predicates", printable(name, 80)))
}

fn nested(query: &Query) -> ScanError {
    match query.body.as_ref() {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            rejected("ddl_or_dml", "it holds a statement that changes something")
        }
        _ => rejected("nested_select", "it holds a query of its own"),
    }
}

fn literal(value: &ValueWithSpan) -> Checked {
    match &value.value {
        Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(()),
        _ => Err(rejected(
            "disallowed_node",
            "numbers, texts in single quotes, `TRUE`, `FALSE` and `NULL` are its values",
        )),
    }
}

fn operator(op: &BinaryOperator) -> Checked {
    use BinaryOperator as B;
    match op {
        B::Plus
        | B::Minus
        | B::Multiply
        | B::Divide
        | B::Modulo
        | B::DuckIntegerDivide
        | B::StringConcat
        | B::Gt
        | B::Lt
        | B::GtEq
        | B::LtEq
        | B::Eq
        | B::NotEq
        | B::And
        | B::Or
        | B::BitwiseAnd
        | B::BitwiseOr
        | B::PGBitwiseShiftLeft
        | B::PGBitwiseShiftRight => Ok(()),
        other => Err(rejected("disallowed_node", format!("the operator `{other}` is not taken here"))),
    }
}

/// Types that a value may be cast to: those with a name alone.
fn data_type(wanted: &DataType) -> Checked {
    match wanted {
        DataType::Struct(..)
        | DataType::Union(_)
        | DataType::Enum(..)
        | DataType::Set(_)
        | DataType::Table(_)
        | DataType::NamedTable { .. } => Err(rejected("disallowed_node", "values are cast to simple types here")),
        DataType::Custom(_, modifiers) if !modifiers.is_empty() => {
            Err(rejected("disallowed_node", "values are cast to simple types here"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 5] = ["Amount", "country_code", "event_date", "payload", "id"];

    fn kind(text: &str) -> &'static str {
        match canonical(text, &["t"], &COLUMNS) {
            Ok(_) => "ok",
            Err(ScanError::Rejected { kind, .. }) => kind,
            Err(_) => "another error",
        }
    }

    #[test]
    fn the_examples_of_the_contract() {
        for (text, wanted) in [
            ("amount BETWEEN 1 AND 100 AND country_code IN ('CZ','SK')", "ok"),
            ("event_date >= DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY)", "ok"),
            ("t.country_code = 'CZ'", "ok"),
            ("T.country_code = 'CZ'", "ok"),
            ("country_code = 'CZ' --", "ok"),
            ("country_code = 'CZ' /* x */", "ok"),
            ("amount = 1; DROP TABLE x", "multi_statement"),
            ("country_code IN (SELECT c FROM other)", "nested_select"),
            ("1=1 UNION ALL SELECT secret FROM x", "disallowed_node"),
            ("other.id = 1", "cross_table_reference"),
            ("EXTERNAL_QUERY('c','SELECT 1') = 1", "unknown_function"),
            ("country_code = SESSION_USER()", "unknown_function"),
            ("SUM(amount) > 1", "unknown_function"),
            ("bogus = 1", "unknown_column"),
            ("", "parse_error"),
            (" \n", "parse_error"),
            ("-- only this", "parse_error"),
        ] {
            assert_eq!(kind(text), wanted, "{text}");
        }
    }

    #[test]
    fn more_than_a_predicate_is_refused() {
        for (text, wanted) in [
            ("1 = 1 GROUP BY id", "disallowed_node"),
            ("1 = 1 ORDER BY id", "disallowed_node"),
            ("1 = 1 LIMIT 1", "disallowed_node"),
            ("1 = 1 QUALIFY 1 = 1", "disallowed_node"),
            ("1 = 1 WINDOW w AS (ORDER BY id)", "disallowed_node"),
            ("1 = 1 HAVING 1 = 1", "disallowed_node"),
            ("DROP TABLE x", "ddl_or_dml"),
            ("insert into x values (1)", "ddl_or_dml"),
            ("COPY x TO '/tmp/x'", "ddl_or_dml"),
            ("id = 1) OR (1 = 1", "parse_error"),
            ("id = (SELECT 1)", "nested_select"),
            ("EXISTS (SELECT 1)", "nested_select"),
            ("id = ANY (SELECT 1)", "disallowed_node"),
            ("count(*) > 1", "unknown_function"),
            ("read_csv('/etc/passwd') IS NULL", "unknown_function"),
            ("getenv('HOME') = 'x'", "unknown_function"),
            ("main.lower('x') = 'x'", "unknown_function"),
            ("lower(id) OVER () = 'x'", "disallowed_node"),
            ("lower(DISTINCT id) = 'x'", "disallowed_node"),
            ("id = ?", "disallowed_node"),
            ("id = $1", "disallowed_node"),
            ("id = $$x$$", "disallowed_node"),
            ("CURRENT_USER = 'x'", "unknown_column"),
            ("t.bogus = 1", "unknown_column"),
            ("a.b.c = 1", "cross_table_reference"),
            ("POSITION('a' IN country_code) = 1", "unknown_function"),
            ("id = 1;", "ok"),
            ("payload.a.b = 1 AND t.payload.a = 2", "ok"),
            ("payload['a'] = 1", "ok"),
            ("country_code ILIKE 'c%' ESCAPE '!' OR NOT id IS NULL", "ok"),
            ("CASE WHEN id > 1 THEN TRUE ELSE FALSE END", "ok"),
            ("SAFE_CAST(country_code AS INT) = 1 AND id::VARCHAR = '1'", "ok"),
            ("DATE '2026-01-01' <= event_date", "ok"),
        ] {
            assert_eq!(kind(text), wanted, "{text}: {:?}", canonical(text, &["t"], &COLUMNS));
        }
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        let long = vec!["id = 1"; 1000].join(" OR ");
        let huge = format!("country_code = '{}'", "x".repeat(40_000));
        let not = format!("{} TRUE", "NOT ".repeat(300));
        for text in [deep, long, huge, not] {
            assert_eq!(kind(&text), "parse_error");
        }
        let many = (0..5000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(kind(&format!("id IN ({many})")), "ok");
        assert_eq!(kind(&vec!["id = 1"; 60].join(" OR ")), "ok");
    }

    #[test]
    fn it_is_written_anew() {
        for (text, wanted) in [
            ("amount=1 -- x", r#""Amount" = 1"#),
            (r#"t."AMOUNT" = 1"#, r#""Amount" = 1"#),
            ("country_code = 'it''s'", r#""country_code" = 'it''s'"#),
            ("payload.A.b = 1", r#""payload"."A"."b" = 1"#),
            (
                "event_date > DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY)",
                r#""event_date" > (CURRENT_DATE - INTERVAL 30 DAY)"#,
            ),
            ("DATE_TRUNC(event_date, MONTH) = '2026-01-01'", r#"date_trunc('month', "event_date") = '2026-01-01'"#),
            ("DATE_TRUNC('month', event_date) = '2026-01-01'", r#"date_trunc('month', "event_date") = '2026-01-01'"#),
            ("DATE_DIFF(CURRENT_DATE, event_date, DAY) < 7", r#"date_diff('day', "event_date", CURRENT_DATE) < 7"#),
            ("REGEXP_CONTAINS(country_code, '^C')", r#"regexp_matches("country_code", '^C')"#),
            ("SAFE_CAST(id AS DATE) IS NULL", r#"TRY_CAST("id" AS DATE) IS NULL"#),
        ] {
            assert_eq!(canonical(text, &["t"], &COLUMNS).unwrap().0, wanted, "{text}");
        }
    }
}

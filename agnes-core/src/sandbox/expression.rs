//! Expressions that admins write: row filters and masks of policies.
//!
//! The text becomes part of a statement, so it is read as a part: put into a template, the
//! whole is parsed, and everything around the expression must be what it was. What comes out
//! is a tree, never text, so that no bracket or comment of one expression reaches the next.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::SandboxError;
use super::functions::Functions;
use super::gate::{Gate, check_tokens};
use super::lex;
use super::parser::{Parser, Tree};
use super::walk::walk;
use crate::error::{Error, Result};
use crate::ident::{printable, quote_ident, quote_literal};

/// Longest expression.
const MAX_BYTES: usize = 16 * 1024;

/// What changes by itself: a slice is made once, so it would go on saying what was true then.
const VOLATILE: [&str; 30] = [
    "age",
    "current_catalog",
    "current_database",
    "current_date",
    "current_localtime",
    "current_localtimestamp",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "gen_random_uuid",
    "get_current_time",
    "get_current_timestamp",
    "localtime",
    "localtimestamp",
    "now",
    "random",
    "session_user",
    "setseed",
    "today",
    "transaction_timestamp",
    "user",
    "uuid",
    "uuidv4",
    "uuidv7",
    "version",
    "nextval",
    "currval",
    "getvariable",
];

/// Names of the values an expression may use: `$user_id`, `$user_email`, `$user_groups`.
pub(crate) const USER_VARIABLES: [&str; 3] = ["user_id", "user_email", "user_groups"];

/// What an expression names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExpressionFacts {
    /// Tables, case-folded.
    pub(crate) tables: Vec<String>,
    /// Variables.
    pub(crate) variables: Vec<String>,
}

/// The caller's values of the user variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserValues {
    /// Their id.
    pub(crate) id: String,
    /// Their address, where they have one.
    pub(crate) email: Option<String>,
    /// Names of their groups, in order.
    pub(crate) groups: Vec<String>,
}

/// How a column is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Select {
    /// SQL of Agnes's own.
    Own(String),
    /// An expression of an admin, cast to a type.
    Expression {
        /// As written.
        sql: String,
        /// DuckDB type.
        data_type: String,
    },
}

/// The statement that gives one caller's part of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct SliceQuery {
    /// What to select from.
    pub(crate) table: String,
    /// Columns with their names.
    pub(crate) columns: Vec<(String, Select)>,
    /// A row passes one of these; empty: every row does.
    pub(crate) any_of: Vec<String>,
    /// A row passes all of these.
    pub(crate) all_of: Vec<String>,
}

impl Gate {
    /// Reads one expression over the columns of a table.
    ///
    /// # Errors
    /// Any [`SandboxError`] but those about the rights of a caller.
    pub(crate) async fn expression(&self, text: &str) -> Result<ExpressionFacts> {
        let (text, functions) = (text.to_owned(), self.functions.clone());
        self.pool.run(move |parser| read(parser, &functions, &text).map(|(_, facts)| facts)).await
    }

    /// SQL of a slice with the caller's values written in, and what it names.
    ///
    /// # Errors
    /// Those of [`Gate::expression`].
    pub(crate) async fn slice(&self, query: SliceQuery, values: UserValues) -> Result<(String, ExpressionFacts)> {
        let functions = self.functions.clone();
        self.pool.run(move |parser| compile(parser, &functions, &query, &values)).await
    }
}

/// `SELECT 1 FROM agnes_table WHERE (<expression>)` as a tree.
fn template(parser: &Parser, expression: &str) -> Result<Value> {
    // The newline ends a comment that the text may end with.
    match parser.parse(&format!("SELECT 1 FROM agnes_table WHERE ({expression}\n)"))? {
        Tree::Statements(mut statements) if statements.len() == 1 => {
            statements.pop().ok_or_else(|| SandboxError::NotAQuery.into())
        }
        _ => Err(not_one().into()),
    }
}

fn not_one() -> SandboxError {
    SandboxError::Unsupported { what: "more than one expression".to_owned() }
}

/// Positions say where something stood in a text, and nothing else.
fn forget_positions(tree: &mut Value) {
    let mut work = vec![tree];
    while let Some(value) = work.pop() {
        match value {
            Value::Object(map) => {
                map.remove("query_location");
                work.extend(map.values_mut());
            }
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
}

/// The tree of an expression and what it names.
fn read(parser: &Parser, functions: &Functions, text: &str) -> Result<(Value, ExpressionFacts)> {
    if text.len() > MAX_BYTES {
        return Err(SandboxError::TooLong { bytes: text.len(), limit: MAX_BYTES }.into());
    }
    if text.contains('\0') {
        return Err(SandboxError::NulByte.into());
    }
    let tokens = lex::tokens(text);
    if tokens.is_empty() {
        return Err(SandboxError::Empty.into());
    }
    check_tokens(&tokens)?;
    // Brackets that close more than they opened would end the template's.
    let mut depth = 0_i64;
    for token in &tokens {
        if let lex::TokenKind::Punct(byte) = token.kind {
            depth += i64::from(matches!(byte, b'(' | b'[' | b'{')) - i64::from(matches!(byte, b')' | b']' | b'}'));
        }
        if depth < 0 {
            return Err(not_one().into());
        }
    }
    let mut tree = template(parser, text)?;
    let facts = walk(&tree, functions)?;
    forget_positions(&mut tree);
    let expression = tree["node"]["where_clause"].take();
    let mut empty = template(parser, "true")?;
    forget_positions(&mut empty);
    empty["node"]["where_clause"] = Value::Null;
    if expression.is_null() || tree["node"] != empty["node"] {
        return Err(not_one().into());
    }
    if facts.rewrite || !facts.system.is_empty() {
        return Err(SandboxError::EngineRelation { name: "information_schema".to_owned() }.into());
    }
    let mut named = ExpressionFacts::default();
    for relation in &facts.relations {
        if relation.foreign {
            return Err(SandboxError::EngineRelation { name: printable(&relation.name, 120) }.into());
        }
        let lower = relation.name.to_lowercase();
        if lower != "agnes_table" && !named.tables.contains(&lower) {
            named.tables.push(lower);
        }
    }
    for variable in &facts.params {
        if !USER_VARIABLES.contains(&variable.as_str()) {
            let what = format!("the parameter `${}`", printable(variable, 40));
            return Err(SandboxError::Unsupported { what }.into());
        }
        named.variables.push(variable.clone());
    }
    if let Some(name) = volatile(&expression) {
        let what = format!("`{}`, which is another value tomorrow", printable(&name, 40));
        return Err(SandboxError::Unsupported { what }.into());
    }
    if let Some(what) = whole_set(&expression) {
        return Err(SandboxError::Unsupported { what: what.to_owned() }.into());
    }
    Ok((expression, named))
}

/// What an expression over one row cannot have outside of a subquery.
fn whole_set(expression: &Value) -> Option<&'static str> {
    let mut work = vec![expression];
    while let Some(value) = work.pop() {
        match value {
            Value::Object(map) => {
                match map.get("class").and_then(Value::as_str) {
                    Some("WINDOW") => return Some("a window function in an expression over one row"),
                    Some("STAR") => return Some("a star in an expression over one row"),
                    Some("POSITIONAL_REFERENCE") => return Some("a column by position"),
                    // A query of its own; its operand is not.
                    Some("SUBQUERY") => {
                        work.extend(map.get("child"));
                        continue;
                    }
                    _ => {}
                }
                work.extend(map.values());
            }
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
    None
}

/// A function, or a name that the binder reads as one, that changes by itself.
fn volatile(expression: &Value) -> Option<String> {
    let mut work = vec![expression];
    while let Some(value) = work.pop() {
        match value {
            Value::Object(map) => {
                let column = map.get("column_names").and_then(Value::as_array).filter(|names| names.len() == 1);
                let name = map.get("function_name").or(column.and_then(|names| names.first())).and_then(Value::as_str);
                if let Some(name) = name.map(str::to_ascii_lowercase).filter(|name| VOLATILE.contains(&name.as_str())) {
                    return Some(name);
                }
                work.extend(map.values());
            }
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
    None
}

/// Puts the caller's values where an expression names a variable.
fn substitute(tree: &mut Value, values: &BTreeMap<&str, Value>) -> Result<()> {
    let mut work = vec![tree];
    while let Some(value) = work.pop() {
        let variable = value.as_object().and_then(|map| {
            (map.get("class").and_then(Value::as_str) == Some("PARAMETER"))
                .then(|| map.get("identifier").and_then(Value::as_str).unwrap_or_default().to_owned())
        });
        if let Some(name) = variable {
            let known = values.get(name.as_str()).cloned();
            *value = known.ok_or_else(|| Error::internal("fill in a policy", "an unknown variable"))?;
            continue;
        }
        match value {
            Value::Object(map) => work.extend(map.values_mut()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
    Ok(())
}

fn compile(
    parser: &Parser,
    functions: &Functions,
    query: &SliceQuery,
    user: &UserValues,
) -> Result<(String, ExpressionFacts)> {
    let text = |text: &str| format!("CAST({} AS VARCHAR)", quote_literal(text));
    let email = user.email.as_deref().map_or_else(|| "CAST(NULL AS VARCHAR)".to_owned(), text);
    let groups: Vec<String> = user.groups.iter().map(|name| quote_literal(name)).collect();
    let mut values = BTreeMap::new();
    for (name, sql) in [
        ("user_id", text(&user.id)),
        ("user_email", email),
        ("user_groups", format!("CAST([{}] AS VARCHAR[])", groups.join(", "))),
    ] {
        let mut tree = template(parser, &sql)?;
        forget_positions(&mut tree);
        values.insert(name, tree["node"]["where_clause"].take());
    }
    let mut facts = ExpressionFacts::default();
    // One expression as SQL that stands for itself wherever it is put.
    let mut render = |sql: &str| -> Result<String> {
        let (mut tree, named) = read(parser, functions, sql)?;
        substitute(&mut tree, &values)?;
        for table in named.tables {
            if !facts.tables.contains(&table) {
                facts.tables.push(table);
            }
        }
        for variable in named.variables {
            if !facts.variables.contains(&variable) {
                facts.variables.push(variable);
            }
        }
        let mut whole = template(parser, "true")?;
        whole["node"]["where_clause"] = Value::Null;
        tree["alias"] = Value::String(String::new());
        whole["node"]["select_list"] = Value::Array(vec![tree]);
        let rendered = parser.render(&whole)?;
        let inner = rendered.strip_prefix("SELECT ").and_then(|rest| rest.strip_suffix(" FROM agnes_table"));
        Ok(format!("({})", inner.ok_or_else(|| Error::internal("write a policy's expression", "another form"))?))
    };
    let mut columns = Vec::with_capacity(query.columns.len());
    for (name, select) in &query.columns {
        let value = match select {
            Select::Own(sql) => sql.clone(),
            Select::Expression { sql, data_type } => format!("CAST({} AS {data_type})", render(sql)?),
        };
        // Names of its own, so that no expression means another column's masked value.
        let inner = format!("__agnes_{}", columns.len());
        columns.push((format!("{value} AS {inner}"), format!("{inner} AS {}", quote_ident(name))));
    }
    let (inner, outer): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let any = query.any_of.iter().map(|sql| render(sql)).collect::<Result<Vec<_>>>()?;
    let mut filters = query.all_of.iter().map(|sql| render(sql)).collect::<Result<Vec<_>>>()?;
    if !any.is_empty() {
        filters.push(format!("({})", any.join(" OR ")));
    }
    let mut sql =
        format!("SELECT {} FROM (SELECT {} FROM {}", outer.join(", "), inner.join(", "), quote_ident(&query.table));
    if !filters.is_empty() {
        sql.push_str(&format!(" WHERE {}", filters.join(" AND ")));
    }
    sql.push_str(") AS agnes_slice");
    facts.tables.sort();
    facts.variables.sort();
    Ok((sql, facts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_expression_may_be() {
        let gate = Gate::start().await.unwrap();
        for (text, tables, variables) in [
            ("region = 'EU'", &[][..], &[][..]),
            ("region = 'EU' -- ours", &[], &[]),
            ("list_contains($user_groups, team) OR owner = $user_email", &[], &["user_email", "user_groups"]),
            ("region IN (SELECT region FROM Regions WHERE email = $user_email)", &["regions"], &["user_email"]),
            ("EXISTS (SELECT 1 FROM regions r WHERE r.region = region)", &["regions"], &[]),
            ("(SELECT max(n) OVER () FROM regions LIMIT 1) > 1", &["regions"], &[]),
            ("')' = x AND \"a)\" = 1", &[], &[]),
            ("list_filter(tags, lambda t: t = 'x') <> []", &[], &[]),
        ] {
            let facts = gate.expression(text).await.unwrap();
            assert_eq!(facts.tables, tables, "{text}");
            assert_eq!(facts.variables, variables, "{text}");
        }
        for text in [
            "",
            " ",
            "-- nothing",
            "true) UNION (SELECT 1 FROM x WHERE true",
            "true) OR (true",
            "true) ORDER BY (1",
            "true) LIMIT (1",
            "true); DROP TABLE x; SELECT (1",
            "true; SELECT 1",
            "a = 1 /*",
            "read_text('/etc/passwd') IS NOT NULL",
            "EXISTS (FROM read_csv('x'))",
            "x = ?",
            "x = $1",
            "x = $other",
            "sum(x) OVER () > 1",
            "getvariable('x') = 1",
            "EXISTS (SELECT 1 FROM information_schema.tables)",
            "EXISTS (SELECT 1 FROM other.main.t)",
            "EXISTS (FROM 'x.parquet')",
            "COLUMNS(*) IS NULL",
            "#1 = 2",
            "day > current_date - 3",
            "day > today()",
            "random() < 0.5",
            "EXISTS (SELECT 1 FROM regions WHERE day < now())",
        ] {
            assert!(gate.expression(text).await.is_err(), "{text}");
        }
    }

    /// Fails when another engine has more of what changes by itself.
    #[test]
    fn the_list_of_what_changes_is_complete() {
        let engine = ::duckdb::Connection::open_in_memory().unwrap();
        let sql = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability <> 'CONSISTENT' \
                   AND function_type IN ('scalar', 'macro') AND database_name = 'system'";
        let mut statement = engine.prepare(sql).unwrap();
        let names: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let functions = Functions::new(names.clone());
        let open: Vec<_> = names
            .iter()
            .filter(|name| functions.verdict(name) == super::super::functions::Verdict::Allowed)
            .filter(|name| *name != "error" && !VOLATILE.contains(&name.as_str()))
            .collect();
        assert!(open.is_empty(), "{open:?}");
    }

    #[tokio::test]
    async fn slices_are_written_from_trees() {
        let gate = Gate::start().await.unwrap();
        let query = SliceQuery {
            table: "or\"ders".to_owned(),
            columns: vec![
                ("a".to_owned(), Select::Own("\"a\"".to_owned())),
                ("b".to_owned(), Select::Expression { sql: "b * 2 --x".to_owned(), data_type: "INTEGER".to_owned() }),
            ],
            any_of: vec!["a = 1 OR a = 2".to_owned(), "u = $user_id -- mine".to_owned()],
            all_of: vec!["true OR a = 3".to_owned(), "list_contains($user_groups, g)".to_owned()],
        };
        let user = UserValues { id: "it's".to_owned(), email: None, groups: vec!["x".to_owned(), "y'z".to_owned()] };
        let (sql, facts) = gate.slice(query, user).await.unwrap();
        assert_eq!(facts.variables, ["user_groups", "user_id"]);
        assert!(sql.contains("'it''s'") && sql.contains("y''z") && !sql.contains('$'), "{sql}");
        assert!(
            sql.starts_with("SELECT __agnes_0 AS \"a\", __agnes_1 AS \"b\" FROM (SELECT \"a\" AS __agnes_0, CAST(("),
            "{sql}"
        );
        assert!(sql.contains(" FROM \"or\"\"ders\" WHERE (("), "{sql}");
        // Brackets keep each expression together.
        assert!(sql.contains(") AND ("), "{sql}");
    }
}

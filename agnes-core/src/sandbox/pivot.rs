//! `PIVOT t ON column` without an `IN` list.
//!
//! The engine runs it as several statements: one that creates a type from the values it
//! finds, one that pivots. Here the values are looked up by a governed query first and
//! written into the statement as an `IN` list, so that each step is one checked query.

use serde_json::Value;

use super::error::SandboxError;
use super::functions::Functions;
use super::gate::{Parsed, read_query};
use super::lex::{self, Token};
use super::parser::{Parser, Tree};
use crate::error::Result;
use crate::ident::quote_literal;

/// A query for the values of one pivot column.
#[derive(Debug, Clone)]
pub(crate) struct PivotLookup {
    /// What stands for the values in the statement, and in lookups that depend on it.
    marker: String,
    /// One column of text.
    query: Parsed,
}

impl PivotLookup {
    /// The query.
    pub(crate) fn query(&self) -> &Parsed {
        &self.query
    }

    /// Whether its text still holds the marker of one of `others`.
    pub(crate) fn waits_for(&self, others: &[Self]) -> bool {
        others.iter().any(|other| self.query.sql.contains(&other.marker))
    }
}

/// Where an `IN` list is missing.
struct Gap {
    /// Byte after which the list goes.
    at: usize,
    /// Byte where the text goes on.
    resume: usize,
    /// `IN (<query>)`: the query.
    subquery: Option<String>,
}

/// Reads a statement that has a `PIVOT` without values; `None` when there is none.
pub(super) fn read(parser: &Parser, functions: &Functions, text: &str) -> Result<Option<Parsed>> {
    let tokens = lex::tokens(text);
    let gaps = gaps(text, &tokens);
    if gaps.is_empty() {
        return Ok(None);
    }
    let marker = |n: usize| format!("agnes-pivot-values-{n}");
    let (mut filled, mut from) = (String::new(), 0);
    for (n, gap) in gaps.iter().enumerate() {
        filled.push_str(&text[from..gap.at]);
        filled.push_str(&format!(" IN ({})", quote_literal(&marker(n))));
        from = gap.resume;
    }
    filled.push_str(&text[from..]);
    let Some(mut main) = read_query(parser, functions, &filled)? else { return Ok(None) };
    let Some(statement) = one(parser, &filled)? else { return Ok(None) };
    let mut pivots = Vec::new();
    for (n, gap) in gaps.iter().enumerate() {
        let unclear = || SandboxError::Unsupported { what: "a PIVOT without an IN list in this place".to_owned() };
        let found = find(&statement["node"], &marker(n)).ok_or_else(unclear)?;
        let mut lookup = match &gap.subquery {
            Some(query) => one(parser, &format!("SELECT CAST(q.c AS VARCHAR) FROM ({query}\n) AS q(c)"))?,
            None => {
                let template = "SELECT DISTINCT CAST(pivot_column AS VARCHAR) FROM pivot_source \
                                WHERE pivot_column IS NOT NULL ORDER BY 1";
                one(parser, template)?.map(|mut template| {
                    substitute(&mut template, found.expression, found.source);
                    template
                })
            }
        }
        .ok_or_else(unclear)?;
        if let Some(Value::Array(own)) =
            lookup["node"]["cte_map"]["map"].as_array_mut().map(|own| Value::Array(own.split_off(0)))
        {
            let all = found.ctes.iter().copied().cloned().chain(own).collect();
            lookup["node"]["cte_map"]["map"] = Value::Array(all);
        }
        let sql = parser.render(&lookup)?;
        let query = read_query(parser, functions, &sql)?.ok_or_else(unclear)?;
        // The rights on what a lookup names are decided together with the rest.
        for named in &query.relations {
            if !main.relations.contains(named) {
                main.relations.push(named.clone());
            }
        }
        main.system.extend(query.system.iter().copied());
        main.params.extend(query.params.iter().cloned());
        main.method = main.method.or_else(|| query.method.clone());
        pivots.push(PivotLookup { marker: quote_literal(&marker(n)), query });
    }
    Ok(Some(Parsed { pivots, ..main }))
}

/// `sql` with values in place of the markers of their lookups.
pub(super) fn fill(sql: &str, known: &[(PivotLookup, Vec<String>)]) -> String {
    let mut sql = sql.to_owned();
    for (lookup, values) in known {
        let list = values.iter().map(|value| quote_literal(value)).collect::<Vec<_>>().join(", ");
        sql = sql.replace(&lookup.marker, &list);
    }
    sql
}

fn one(parser: &Parser, text: &str) -> Result<Option<Value>> {
    Ok(match parser.parse(text)? {
        Tree::Statements(mut statements) if statements.len() == 1 => statements.pop(),
        _ => None,
    })
}

/// Index of the token that closes the bracket level of `from`, or the end.
fn level(tokens: &[Token], from: usize) -> impl Iterator<Item = usize> {
    let mut depth = 0_i64;
    (from..tokens.len())
        .take_while(move |i| {
            match tokens[*i].kind {
                lex::TokenKind::Punct(b'(' | b'[' | b'{') => depth += 1,
                lex::TokenKind::Punct(b')' | b']' | b'}') => depth -= 1,
                _ => {}
            }
            depth >= 0
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// Tokens of the same bracket level as `from`, up to where that level ends; a bracketed
/// part counts as its opening and closing token.
fn same_level(tokens: &[Token], from: usize) -> Vec<usize> {
    let mut depth = 0_i64;
    level(tokens, from)
        .filter(|i| match tokens[*i].kind {
            lex::TokenKind::Punct(b'(' | b'[' | b'{') => {
                depth += 1;
                depth == 1
            }
            lex::TokenKind::Punct(b')' | b']' | b'}') => {
                depth -= 1;
                depth == 0
            }
            _ => depth == 0,
        })
        .collect()
}

fn gaps(text: &str, tokens: &[Token]) -> Vec<Gap> {
    let mut out = Vec::new();
    for at in (0..tokens.len()).filter(|i| tokens[*i].is(text, "PIVOT")) {
        // `FROM t PIVOT (..)` always has its values; a statement stands at a start.
        let starts = at == 0 || tokens[at - 1].is_punct(b'(') || {
            tokens[at - 1].is_punct(b')') && !tokens.get(at + 1).is_some_and(|next| next.is_punct(b'('))
        };
        if !starts {
            continue;
        }
        let here = same_level(tokens, at + 1);
        let Some(on) = here.iter().rposition(|i| tokens[*i].is(text, "ON")) else { continue };
        let stop =
            |i: &usize| ["USING", "GROUP", "ORDER", "LIMIT", "OFFSET"].iter().any(|word| tokens[*i].is(text, word));
        let list: Vec<usize> = here[on + 1..].iter().copied().take_while(|i| !stop(i)).collect();
        for item in list.split(|i| tokens[*i].is_punct(b',')) {
            let Some(last) = item.last() else { continue };
            let in_at = item.iter().position(|i| tokens[*i].is(text, "IN"));
            match in_at {
                None => out.push(Gap { at: tokens[*last].end, resume: tokens[*last].end, subquery: None }),
                Some(n) if n > 0 && n + 2 < item.len() => {
                    let (open, close) = (item[n + 1], item[n + 2]);
                    let query = tokens.get(open + 1).is_some_and(|first| {
                        ["SELECT", "WITH", "FROM", "VALUES", "TABLE"].iter().any(|word| first.is(text, word))
                    });
                    if tokens[open].is_punct(b'(') && tokens[close].is_punct(b')') && query {
                        out.push(Gap {
                            at: tokens[item[n - 1]].end,
                            resume: tokens[close].end,
                            subquery: Some(text[tokens[open].end..tokens[close].start].to_owned()),
                        });
                    }
                }
                Some(_) => {}
            }
        }
    }
    out.sort_by_key(|gap| gap.at);
    // A statement inside the query of another gap is read when that query is.
    let mut end = 0;
    out.retain(|gap| {
        let keep = gap.at >= end;
        end = end.max(gap.resume);
        keep
    });
    out
}

struct Found<'a> {
    source: &'a Value,
    expression: &'a Value,
    /// The CTEs in scope there, outer ones first.
    ctes: Vec<&'a Value>,
}

/// The pivot column whose values are `marker`.
fn find<'a>(node: &'a Value, marker: &str) -> Option<Found<'a>> {
    let mut work: Vec<(&Value, Vec<&Value>)> = vec![(node, Vec::new())];
    while let Some((value, mut ctes)) = work.pop() {
        match value {
            Value::Object(map) => {
                if map.get("type").is_some_and(|t| t == "PIVOT")
                    && let Some(pivot) = map.get("pivots").and_then(Value::as_array).and_then(|pivots| {
                        pivots.iter().find(|pivot| pivot["entries"][0]["values"][0]["value"] == marker)
                    })
                {
                    let (source, expression) = (map.get("source")?, pivot["pivot_expressions"].get(0)?);
                    return Some(Found { source, expression, ctes });
                }
                if let Some(entries) = map.get("cte_map").and_then(|ctes| ctes["map"].as_array()) {
                    for entry in entries {
                        work.push((entry, ctes.clone()));
                        ctes.push(entry);
                    }
                }
                work.extend(map.iter().filter(|(key, _)| *key != "cte_map").map(|(_, value)| (value, ctes.clone())));
            }
            Value::Array(items) => work.extend(items.iter().map(|item| (item, ctes.clone()))),
            _ => {}
        }
    }
    None
}

fn substitute(template: &mut Value, expression: &Value, source: &Value) {
    let mut work = vec![template];
    while let Some(value) = work.pop() {
        if value["class"] == "COLUMN_REF" && value["column_names"][0] == "pivot_column" {
            *value = expression.clone();
        } else if value["type"] == "BASE_TABLE" && value["table_name"] == "pivot_source" {
            *value = source.clone();
        } else {
            match value {
                Value::Object(map) => work.extend(map.values_mut()),
                Value::Array(items) => work.extend(items),
                _ => {}
            }
        }
    }
}

//! Definitions of remote views, as extracts bring them: read, and rendered anew.

use std::collections::HashSet;

use sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, Statement, TableFactor, WildcardAdditionalOptions,
};
use sqlparser::dialect::DuckDbDialect;
use sqlparser::parser::Parser;

use super::{Column, RemoteTable};
use crate::ident::quote_ident;

/// Reads the definition of a remote view: `SELECT` of columns from one relation of one of
/// `aliases`, nothing else. What is returned is rendered anew from the parts.
pub(super) fn remote_view(sql: &str, aliases: &[String]) -> Option<RemoteTable> {
    let mut statements = Parser::parse_sql(&DuckDbDialect {}, sql).ok()?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else { return None };
    let query = match statement {
        Statement::CreateView(view) if view.columns.is_empty() => view.query,
        Statement::Query(query) => query,
        _ => return None,
    };
    let (name, projection) = parts_of(&query)?;
    // Whatever else a query may say (filters, sampling, grouping, renamed columns) would be
    // lost below, so the rest must be that of the plainest query there is.
    let mut plain = Parser::parse_sql(&DuckDbDialect {}, "SELECT 1 FROM x").ok()?;
    let Some(Statement::Query(mut plain)) = plain.pop() else { return None };
    let SetExpr::Select(select) = plain.body.as_mut() else { return None };
    select.projection.clone_from(projection);
    let TableFactor::Table { name: place, .. } = &mut select.from.first_mut()?.relation else { return None };
    place.clone_from(name);
    if plain != query {
        return None;
    }
    let parts: Vec<&str> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(ident.value.as_str()),
            ObjectNamePart::Function(_) => None,
        })
        .collect::<Option<_>>()?;
    let alias = aliases.iter().find(|alias| parts.first().is_some_and(|first| first.eq_ignore_ascii_case(alias)))?;
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let columns: Vec<String> = projection
        .iter()
        .map(|item| match item {
            SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default() => Some("*".to_owned()),
            SelectItem::UnnamedExpr(Expr::Identifier(column)) => Some(quote_ident(&column.value)),
            SelectItem::ExprWithAlias { expr: Expr::Identifier(column), alias } => {
                Some(format!("{} AS {}", quote_ident(&column.value), quote_ident(&alias.value)))
            }
            _ => None,
        })
        .collect::<Option<_>>()?;
    let relation: Vec<String> = parts.iter().map(|part| quote_ident(part)).collect();
    Some(RemoteTable {
        alias: alias.clone(),
        select: format!("SELECT {} FROM {}", columns.join(", "), relation.join(".")),
    })
}

/// Statements that make an empty table to which the definition of a remote view binds, in
/// the place and with the columns it names. `columns` are those of the view.
pub(super) fn shape(select: &str, columns: &[Column]) -> Option<String> {
    let statement = Parser::parse_sql(&DuckDbDialect {}, select).ok()?.pop()?;
    let Statement::Query(query) = statement else { return None };
    let (name, projection) = parts_of(&query)?;
    let source_name = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(column))
        | SelectItem::ExprWithAlias { expr: Expr::Identifier(column), .. } => Some(column.value.clone()),
        _ => None,
    };
    let names: Vec<String> = match projection.as_slice() {
        [SelectItem::Wildcard(_)] => columns.iter().map(|column| column.name.clone()).collect(),
        items => items.iter().map(source_name).collect::<Option<_>>()?,
    };
    if names.is_empty() || names.len() != columns.len() {
        return None;
    }
    let mut defined = HashSet::new();
    let columns: Vec<String> = names
        .iter()
        .zip(columns)
        // A column that is shown twice is there once.
        .filter(|(name, _)| defined.insert(name.to_lowercase()))
        .map(|(name, column)| format!("{} {}", quote_ident(name), column.data_type))
        .collect();
    let relation = name.to_string();
    let schema = match name.0.as_slice() {
        [alias, schema, _] => format!("CREATE SCHEMA IF NOT EXISTS {alias}.{schema}; "),
        _ => String::new(),
    };
    Some(format!("{schema}CREATE TABLE {relation} ({})", columns.join(", ")))
}

/// The relation and the columns of a query that is one `SELECT` from one relation.
fn parts_of(query: &Query) -> Option<(&ObjectName, &Vec<SelectItem>)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [table] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &table.relation else { return None };
    Some((name, &select.projection))
}

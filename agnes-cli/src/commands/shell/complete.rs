//! Help while somebody types: names of what may be asked, and whether a statement is whole.

use std::sync::Arc;

use agnes_core::ident::quote_ident;
use agnes_core::sandbox::{says_something, statement_end};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use tokio::runtime::Handle;

use super::is_meta;
use super::meta::COMMANDS;
use super::relations::Relations;

/// Words of a query; names that are one of them are quoted.
const KEYWORDS: &[&str] = &[
    "all",
    "and",
    "anti",
    "any",
    "as",
    "asc",
    "asof",
    "between",
    "by",
    "case",
    "cast",
    "column",
    "columns",
    "cross",
    "date",
    "default",
    "desc",
    "describe",
    "distinct",
    "else",
    "end",
    "except",
    "exclude",
    "exists",
    "explain",
    "false",
    "filter",
    "first",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "interval",
    "is",
    "join",
    "lateral",
    "last",
    "left",
    "like",
    "ilike",
    "limit",
    "natural",
    "not",
    "null",
    "nulls",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "pivot",
    "positional",
    "primary",
    "qualify",
    "range",
    "references",
    "replace",
    "right",
    "rows",
    "sample",
    "select",
    "semi",
    "show",
    "summarize",
    "table",
    "then",
    "timestamp",
    "true",
    "union",
    "unique",
    "unpivot",
    "user",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
    "count(",
    "sum(",
    "avg(",
    "min(",
    "max(",
    "coalesce(",
];

/// What helps at the prompt.
pub(super) struct Assistant {
    relations: Arc<Relations>,
    runtime: Handle,
}

impl Assistant {
    pub(super) fn new(relations: Arc<Relations>) -> Self {
        Self { relations, runtime: Handle::current() }
    }

    /// Columns of the tables that a statement names.
    fn columns(&self, line: &str, tables: &[String]) -> Vec<String> {
        let words: Vec<String> = words(line).map(str::to_lowercase).collect();
        let quoted = line.to_lowercase();
        let is_named = |table: &str| words.contains(&table.to_owned()) || quoted.contains(&quote_ident(table));
        let named = tables.iter().filter(|table| is_named(&table.to_lowercase()));
        let mut columns: Vec<String> =
            named.flat_map(|table| self.relations.columns_of(&self.runtime, table)).collect();
        columns.sort();
        columns.dedup();
        columns
    }
}

/// Names and keywords of a text, without their quotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_of_word(c)).filter(|word| !word.is_empty())
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the word before the end of `text` begins.
fn word_start(text: &str) -> usize {
    text.char_indices().rev().take_while(|(_, c)| is_of_word(*c)).last().map_or(text.len(), |(at, _)| at)
}

/// Where the quoted name begins that is not closed at the end of `text`.
fn open_quote(text: &str) -> Option<usize> {
    let (mut open, mut chars) = (None, text.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        match open {
            None if matches!(c, '\'' | '"') => open = Some((c, at)),
            // Twice, it is one of the name.
            Some((quote, _)) if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() => open = None,
            _ => {}
        }
    }
    open.filter(|(quote, _)| *quote == '"').map(|(_, at)| at)
}

/// The name at the end of `text`, without its quotes.
fn name_at_end(text: &str) -> String {
    match text.strip_suffix('"') {
        Some(inner) => open_quote(inner).map_or_else(String::new, |at| inner[at + 1..].replace("\"\"", "\"")),
        None => text[word_start(text)..].to_owned(),
    }
}

/// The table that an alias in `line` stands for, or the name itself.
fn meant_by<'a>(line: &str, alias: &str, tables: &'a [String]) -> Option<&'a String> {
    let named = |word: &str| tables.iter().find(|table| table.eq_ignore_ascii_case(word));
    let words: Vec<&str> = words(line).collect();
    named(alias).or_else(|| {
        let at = words.iter().enumerate().filter(|(_, word)| word.eq_ignore_ascii_case(alias)).map(|(at, _)| at);
        let before = |at: usize, back: usize| at.checked_sub(back).and_then(|at| words.get(at)).copied();
        at.filter_map(|at| match before(at, 1)? {
            word if word.eq_ignore_ascii_case("as") => named(before(at, 2)?),
            word => named(word),
        })
        .next()
    })
}

/// A name as SQL takes it.
fn written(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name.to_lowercase().as_str());
    if is_plain { name.to_owned() } else { quote_ident(name) }
}

fn starting<'a>(names: &'a [String], begin: &str) -> impl Iterator<Item = Pair> + use<'a> {
    let begin = begin.to_lowercase();
    let fitting = names.iter().filter(move |name| name.to_lowercase().starts_with(&begin));
    fitting.map(|name| Pair { display: name.clone(), replacement: written(name) })
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        // A quote that somebody began belongs to the name.
        let quote = open_quote(before);
        let start = quote.unwrap_or_else(|| word_start(before));
        let begin = before[start..].trim_start_matches('"');
        let tables = self.relations.tables();
        if is_meta(before) {
            let Some((_, word)) = before.split_once(char::is_whitespace) else {
                let fitting = COMMANDS.iter().filter(|(name, ..)| name.starts_with(before.trim_start()));
                let plain = |name: &str| Pair { display: name.to_owned(), replacement: name.to_owned() };
                return Ok((0, fitting.map(|(name, ..)| plain(name)).collect()));
            };
            let fitting = tables.iter().filter(|table| table.to_lowercase().starts_with(&word.to_lowercase()));
            let plain = |name: &String| Pair { display: name.clone(), replacement: name.clone() };
            return Ok((pos - word.len(), fitting.map(plain).collect()));
        }
        if let Some(owner) = before[..start].strip_suffix('.') {
            let columns = meant_by(line, &name_at_end(owner), &tables)
                .map(|table| self.relations.columns_of(&self.runtime, table));
            return Ok((start, starting(&columns.unwrap_or_default(), begin).collect()));
        }
        let before_that = words(&before[..start]).last().unwrap_or_default().to_lowercase();
        if (begin.is_empty() && quote.is_none())
            || matches!(before_that.as_str(), "from" | "join" | "describe" | "summarize" | "table")
        {
            return Ok((start, starting(&tables, begin).collect()));
        }
        let columns = self.columns(line, &tables);
        if quote.is_some() {
            return Ok((start, starting(&columns, begin).chain(starting(&tables, begin)).collect()));
        }
        let is_upper = begin.chars().all(|c| !c.is_lowercase());
        let keywords = KEYWORDS.iter().filter(|word| word.starts_with(&begin.to_lowercase())).map(|word| {
            let word = if is_upper { word.to_uppercase() } else { (*word).to_owned() };
            Pair { display: word.clone(), replacement: word }
        });
        Ok((start, starting(&columns, begin).chain(starting(&tables, begin)).chain(keywords).collect()))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let mut rest = context.input();
        if is_meta(rest) {
            return Ok(ValidationResult::Valid(None));
        }
        while let Some(end) = statement_end(rest) {
            rest = &rest[end..];
        }
        Ok(if says_something(rest) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn aliases_stand_for_tables() {
        let tables = ["orders".to_owned(), "People".to_owned()];
        let line = "select o., p.x from orders o join people as p using (id)";
        assert_eq!(meant_by(line, "o", &tables).unwrap(), "orders");
        assert_eq!(meant_by(line, "P", &tables).unwrap(), "People");
        assert_eq!(meant_by(line, "ORDERS", &tables).unwrap(), "orders");
        assert_eq!(meant_by(line, "q", &tables), None);
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(written("orders"), "orders");
        assert_eq!(written("Order"), "\"Order\"");
        assert_eq!(written("net amount"), "\"net amount\"");
        assert_eq!(written("2024"), "\"2024\"");
        assert_eq!(&"select sta"[word_start("select sta")..], "sta");
        assert_eq!(&"žluť"[word_start("žluť")..], "žluť");
        assert_eq!(word_start("x.")..2, 2..2);
        let open = |text: &str| open_quote(text).map(|at| text[at..].to_owned());
        assert_eq!(open("select * from \"net sa").as_deref(), Some("\"net sa"));
        assert_eq!(open("select 'a \"b' from \"x\"\"y").as_deref(), Some("\"x\"\"y"));
        assert_eq!((open("\"net sales\""), open("select 'it"), open("x")), (None, None, None));
        assert_eq!(name_at_end("from \"net sales\""), "net sales");
        assert_eq!((name_at_end("from o").as_str(), name_at_end("\"")), ("o", String::new()));
    }
}

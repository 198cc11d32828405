//! Reads a text: is it one read-only query, which relations does it name, what will run.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::SandboxError;
use super::functions::Functions;
use super::lex;
use super::parser::{Parser, ParserPool, Tree};
use super::pivot::{self, PivotLookup};
use super::walk::{Facts, Named, SystemRelation, rewrite, walk};
use crate::error::{Error, Result};

/// Longest SQL text that is read.
pub const MAX_SQL_BYTES: usize = 64 * 1024;
const MAX_BRACKETS: usize = 200;
/// Texts whose reading is remembered, counted in bytes of SQL.
const CACHE_BYTES: u64 = 4 << 20;
/// Threads that read for a process with many callers.
const PARSERS: usize = 2;

/// Reads what callers write. One for a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    pub(super) pool: ParserPool,
    pub(super) functions: Arc<Functions>,
    cache: moka::sync::Cache<Arc<str>, Arc<Parsed>>,
}

/// A text that is one read-only query, before anybody's rights were looked at.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What would run.
    pub(super) sql: Arc<str>,
    /// `EXPLAIN` stands before it.
    pub(super) explain: bool,
    pub(super) relations: Vec<Named>,
    pub(super) system: BTreeSet<SystemRelation>,
    pub(super) params: BTreeSet<String>,
    /// A function that is called on a column.
    pub(super) method: Option<String>,
    /// `PIVOT`s whose values have to be looked up first.
    pub(super) pivots: Vec<PivotLookup>,
}

impl Gate {
    /// Starts the parser and lets it prove itself.
    ///
    /// # Errors
    /// [`SandboxError::SelfTest`] when the linked engine does not behave as expected;
    /// `internal` when it cannot be opened.
    pub async fn start() -> Result<Self> {
        Self::with_parsers(PARSERS).await
    }

    /// One for a single caller, which is there sooner.
    pub(crate) async fn start_single() -> Result<Self> {
        Self::with_parsers(1).await
    }

    async fn with_parsers(parsers: usize) -> Result<Self> {
        let (pool, functions) = crate::duck::blocking(move || ParserPool::start(parsers)).await?;
        let cache = moka::sync::Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|sql: &Arc<str>, _| u32::try_from(sql.len() + 512).unwrap_or(u32::MAX))
            .build();
        let gate = Self { pool, functions: Arc::new(Functions::new(functions)), cache };
        gate.self_test().await?;
        Ok(gate)
    }

    /// The parser must name a known relation, and must not let a writing CTE through.
    async fn self_test(&self) -> Result<()> {
        let probe = self.parse("SELECT (SELECT max(a) FROM agnes_probe) FROM range(1)").await;
        let named =
            matches!(&probe, Ok(parsed) if parsed.relations.len() == 1 && parsed.relations[0].name == "agnes_probe");
        let writes = self.parse("WITH x AS (COPY (SELECT 1) TO 'agnes_probe.csv') SELECT 1").await.is_err();
        let reads = self.parse("SELECT * FROM read_text('agnes_probe')").await.is_err();
        if named && writes && reads { Ok(()) } else { Err(SandboxError::SelfTest.into()) }
    }

    /// Reads `sql`.
    ///
    /// # Errors
    /// Any [`SandboxError`] but those about the rights of a caller.
    pub async fn parse(&self, sql: &str) -> Result<Arc<Parsed>> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(SandboxError::TooLong { bytes: sql.len(), limit: MAX_SQL_BYTES }.into());
        }
        if let Some(parsed) = self.cache.get(sql) {
            return Ok(parsed);
        }
        let key: Arc<str> = sql.into();
        let functions = self.functions.clone();
        let text = key.clone();
        let parsed = self.pool.run(move |parser| read(parser, &functions, &text).map(Arc::new)).await?;
        self.cache.insert(key, parsed.clone());
        Ok(parsed)
    }

    /// A query as the parser writes it: equal for texts that differ in spaces, comments and
    /// the case of keywords. What the parser does not write comes back as it is.
    pub(crate) async fn normal(&self, sql: &str) -> Result<String> {
        let text = sql.to_owned();
        let render = move |parser: &Parser| match tree(parser, lex::statement(&text).0) {
            Ok(Some(statement)) => parser.render(&statement),
            _ => Ok(text),
        };
        self.pool.run(render).await
    }

    /// The tree of a checked query.
    pub(crate) async fn tree(&self, sql: &str) -> Result<serde_json::Value> {
        let text = sql.to_owned();
        self.pool.run(move |parser| tree(parser, &text)?.ok_or_else(|| SandboxError::NotAQuery.into())).await
    }

    /// The tree of a text that may name tables of a warehouse by their full paths, with those in
    /// backticks written as names the parser reads, and whether `EXPLAIN` stands before it. None
    /// where no path can be in it.
    pub(crate) async fn with_paths(&self, sql: &str) -> Result<Option<(serde_json::Value, bool)>> {
        if sql.len() > MAX_SQL_BYTES || sql.contains('\0') {
            return Ok(None);
        }
        let backticks = sql.contains('`');
        if !backticks && !sql.to_ascii_lowercase().contains("bq") {
            return Ok(None);
        }
        let text = lex::without_backticks(sql, &crate::warehouse::unquoted).ok_or(SandboxError::Backtick)?;
        let (statement, tokens) = lex::statement(&text);
        check_tokens(&tokens)?;
        let explain = tokens.first().is_some_and(|first| first.is(statement, "EXPLAIN"));
        let query = match tokens.get(1) {
            Some(inner) if explain => &statement[inner.start..],
            _ => statement,
        };
        let query = query.to_owned();
        match self.pool.run(move |parser| tree(parser, &query)).await {
            Ok(Some(tree)) => Ok(Some((tree, explain))),
            // What is wrong with it is said when it is read.
            Ok(None) | Err(_) if !backticks => Ok(None),
            Ok(None) => Err(SandboxError::Backtick.into()),
            Err(error) => Err(error),
        }
    }

    /// SQL of a statement's tree.
    pub(crate) async fn render(&self, statement: serde_json::Value) -> Result<String> {
        self.pool.run(move |parser| parser.render(&statement)).await
    }

    /// The query of `parsed` with the values of `PIVOT`s filled in.
    pub(crate) async fn fill_pivots(&self, parsed: &Parsed, known: &[(PivotLookup, Vec<String>)]) -> Result<Parsed> {
        let functions = self.functions.clone();
        let sql = pivot::fill(&parsed.sql, known);
        let filled = self
            .pool
            .run(move |parser| {
                check_tokens(&lex::tokens(&sql))?;
                read_query(parser, &functions, &sql)?.ok_or_else(|| SandboxError::NotAQuery.into())
            })
            .await?;
        Ok(Parsed { explain: parsed.explain, ..filled })
    }
}

impl Parsed {
    /// Lookups of values that `PIVOT`s need before it can run.
    pub(crate) fn pivots(&self) -> &[PivotLookup] {
        &self.pivots
    }
}

pub(super) fn check_tokens(tokens: &[lex::Token]) -> Result<(), SandboxError> {
    if tokens.iter().any(|token| token.is_punct(b'`')) {
        return Err(SandboxError::Backtick);
    }
    if lex::bracket_depth(tokens) > MAX_BRACKETS {
        return Err(SandboxError::TooComplex { what: "its brackets nest too deep" });
    }
    Ok(())
}

fn read(parser: &Parser, functions: &Functions, text: &str) -> Result<Parsed> {
    if text.contains('\0') {
        return Err(SandboxError::NulByte.into());
    }
    let (statement, tokens) = lex::statement(text);
    let Some(first) = tokens.first() else { return Err(SandboxError::Empty.into()) };
    check_tokens(&tokens)?;
    let explain = first.is(statement, "EXPLAIN");
    let query = if explain {
        // With options (ANALYZE, FORMAT) it runs the query or writes other formats.
        let inner = tokens.get(1).ok_or(SandboxError::Empty)?;
        if inner.is(statement, "ANALYZE") || inner.is(statement, "EXPLAIN") {
            return Err(SandboxError::Unsupported { what: "EXPLAIN ANALYZE".to_owned() }.into());
        }
        &statement[inner.start..]
    } else {
        statement
    };
    let parsed = match read_query(parser, functions, query)? {
        Some(parsed) => parsed,
        None => pivot::read(parser, functions, query)?.ok_or(SandboxError::NotAQuery)?,
    };
    Ok(Parsed { explain, ..parsed })
}

fn tree(parser: &Parser, text: &str) -> Result<Option<serde_json::Value>> {
    match parser.parse(text)? {
        Tree::NotAQuery => Ok(None),
        Tree::Statements(mut statements) if statements.len() == 1 => Ok(statements.pop()),
        Tree::Statements(statements) if statements.is_empty() => Err(SandboxError::Empty.into()),
        Tree::Statements(statements) => Err(SandboxError::SeveralStatements { count: statements.len() }.into()),
    }
}

/// Reads one query; `None` when the parser says that it is something else.
pub(super) fn read_query(parser: &Parser, functions: &Functions, text: &str) -> Result<Option<Parsed>> {
    let Some(mut statement) = tree(parser, text)? else { return Ok(None) };
    let facts = walk(&statement, functions)?;
    let mut sql: Arc<str> = text.into();
    if facts.rewrite {
        rewrite(&mut statement);
        sql = parser.render(&statement)?.into();
        check_rewritten(parser, functions, &sql, &facts)?;
    }
    let Facts { relations, system, params, method, .. } = facts;
    Ok(Some(Parsed { sql, explain: false, relations, system, params, method, pivots: Vec::new() }))
}

/// What was written anew must name the same relations, and no other.
fn check_rewritten(parser: &Parser, functions: &Functions, sql: &str, before: &Facts) -> Result<()> {
    let again = tree(parser, sql)?.ok_or(SandboxError::NotAQuery)?;
    let after = walk(&again, functions)?;
    let is_system = |named: &&Named| SystemRelation::ALL.iter().any(|system| system.relation() == named.name);
    let (system, relations): (Vec<_>, Vec<_>) = after.relations.iter().partition(is_system);
    let expected = before.system.iter().all(|s| system.iter().any(|named| named.name == s.relation()));
    let mut names: Vec<_> = before.relations.iter().collect();
    let mut same = relations;
    names.sort();
    same.sort();
    if expected && after.system.is_empty() && names == same && before.params == after.params {
        Ok(())
    } else {
        Err(Error::internal("write the SQL anew", "the relations differ"))
    }
}

//! One table: read whole, by what changed, or as the answer to a query at the source.

use agnes_core::connector::{ExtractReport, ExtractRequest, SourceContext};
use agnes_core::error::{Error, Result};
use agnes_core::extract::{ExtractAttach, RemoteRelation, TableWriter};
use agnes_core::ident::{nearest, printable, quote_ident, quote_literal};
use agnes_core::increment::{Differing, Edge, Mark, Rule, Step, differing, merge};
use agnes_core::registry::{QueryMode, RegisteredTable, SyncStrategy};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::config::{SqlConfig, TableOptions};
use super::dialect::{ALIAS, Dialect};
use super::discover::{self, default_schema};
use super::error::SqlError;
use super::session::Session;

/// Grows when tables would be read differently than before, so that all are read again.
const READER: u32 = 1;
/// How far below the newest row others may still be committed, unless the settings say: seconds
/// for times, days for dates, units for numbers.
const OVERLAP: (u64, u64, u64) = (600, 1, 1000);
const RECONCILE_HOURS: u64 = 24;

/// Cursor of a table that is read by what changed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// What decides how rows are read.
    settings: String,
    /// Names and types of the columns at the source.
    columns: Vec<(String, String)>,
    mark: Mark,
}

/// One table that is being read.
struct Run<'a> {
    session: Session,
    request: &'a ExtractRequest,
    options: TableOptions,
    /// For messages.
    table: String,
    relation: String,
    /// Whether another table has its name but for case: then it is asked for in the source's own SQL.
    has_twin: bool,
    schema: String,
    name: String,
    columns: Vec<(String, String)>,
}

/// What the settings of the source and the row together say of a table.
fn options_of(config: &SqlConfig, name: &str, row: &RegisteredTable) -> Result<TableOptions> {
    let mut options = config.options_of(name, row.options.as_ref())?;
    options.schema = options.schema.or_else(|| row.bucket.clone());
    options.table = options.table.or_else(|| row.source_table.clone());
    options.cursor_column = row.incremental_column.clone().or(options.cursor_column);
    options.primary_key = row.primary_key.clone().or(options.primary_key);
    Ok(options)
}

fn place_of(dialect: Dialect, config: &SqlConfig, options: &TableOptions) -> Result<(String, String)> {
    let place = options.place(default_schema(dialect, config));
    Ok(place.ok_or_else(|| SqlError::invalid("source_table", "say which table of the source it is"))?)
}

/// The columns that tell the rows of a table apart: as the settings say, else those of its primary
/// key, none where it has no such; `None` where the source knows no such table, and for one that is
/// read whole, in parts or not.
pub(crate) fn primary_key(
    source: &SourceContext,
    dialect: Dialect,
    row: &RegisteredTable,
) -> Result<Option<Vec<String>>> {
    if row.sync_strategy != SyncStrategy::Incremental {
        return Ok(None);
    }
    let config = SqlConfig::parse(dialect, &source.config)?;
    let options = options_of(&config, &row.name, row)?;
    if options.primary_key.is_some() {
        return Ok(options.primary_key);
    }
    let (schema, name) = place_of(dialect, &config, &options)?;
    discover::key_of(&Session::open(source, dialect, &config)?, &schema, &name)
}

/// Reads one table into `writer`.
pub(crate) fn extract(
    source: &SourceContext,
    dialect: Dialect,
    request: &ExtractRequest,
    mut writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let config = SqlConfig::parse(dialect, &source.config)?;
    let row = &request.table;
    let mut options = options_of(&config, request.name.as_str(), row)?;
    let session = Session::open(source, dialect, &config)?;
    if row.query_mode == QueryMode::Materialized {
        let query = row.source_query.clone().or(options.query).unwrap_or_default();
        let report = materialize(&session, request, &query, &mut writer)?;
        return Ok((writer, report));
    }
    let (schema, name) = place_of(dialect, &config, &options)?;
    let is_incremental = row.query_mode == QueryMode::Local && row.sync_strategy == SyncStrategy::Incremental;
    if is_incremental && options.primary_key.is_none() {
        options.primary_key = discover::key_of(&session, &schema, &name)?.filter(|key| !key.is_empty());
    }
    let table = format!("{schema}.{name}");
    // To MySQL's extension `Orders` and `orders` are one table; the source has to be asked which it is.
    let alike = dialect.alike(&schema, &name).map(|sql| session.number(&sql, &table)).transpose()?;
    let has_twin = alike.is_some_and(|count| count > 1);
    let relation = if has_twin { dialect.whole(&schema, &name) } else { Session::relation(&schema, &name) };
    let columns = session.columns(&format!("SELECT * FROM {relation}"), &table, false)?;
    let mut run = Run { session, request, options, table, relation, has_twin, schema, name, columns };
    let mut report = match row.query_mode {
        QueryMode::Remote if has_twin => {
            let reason = "another table has its name but for case, so that it cannot be asked at the source";
            return Err(SqlError::invalid("source_table", reason).into());
        }
        QueryMode::Remote => return Ok((writer, run.remote(source, &config))),
        _ if row.sync_strategy == SyncStrategy::Incremental => run.incremental(&mut writer)?,
        _ => run.whole(&mut writer)?,
    };
    source.cancel.check()?;
    if !report.unchanged {
        report.notes.extend(run.long_numbers());
    }
    Ok((writer, report))
}

impl Run<'_> {
    fn remote(&self, source: &SourceContext, config: &SqlConfig) -> ExtractReport {
        let attach = config.attach(self.session.dialect, &format!("src_{}", source.name));
        let attach = ExtractAttach {
            alias: attach.alias,
            extension: attach.extension,
            url: attach.url,
            token_env: attach.token_env,
        };
        let (schema, table) = (self.schema.clone(), self.name.clone());
        let remote = RemoteRelation { attach, schema, table, columns: self.columns.clone() };
        ExtractReport { remote: Some(remote), ..ExtractReport::default() }
    }

    fn select(&self) -> String {
        format!("SELECT * FROM {}", self.relation)
    }

    fn failed(&self, error: Error) -> Error {
        self.session.scrub.error(error, &self.table, false)
    }

    fn whole(&mut self, writer: &mut TableWriter) -> Result<ExtractReport> {
        let partition = self.request.table.partition_by.as_deref();
        let partition = partition.filter(|_| self.request.table.sync_strategy == SyncStrategy::Partitioned);
        let done = match partition {
            Some(column) => match self.column(column)? {
                (column, kind) if kind == "DATE" || kind.starts_with("TIMESTAMP") => {
                    self.periods(writer, &column, &kind)
                }
                (column, _) => writer.write_partitioned(&self.session.db, &self.select(), &column).map(drop),
            },
            None => writer.write_query(&self.session.db, &self.select(), None).map(drop),
        };
        done.map_err(|e| self.failed(e))?;
        Ok(ExtractReport::default())
    }

    /// One part for each day, month or year of a column.
    fn periods(&self, writer: &mut TableWriter, column: &str, kind: &str) -> Result<()> {
        let (unit, format) = match self.request.table.partition_granularity.as_deref() {
            Some("day") => ("day", "%Y-%m-%d"),
            Some("year") => ("year", "%Y"),
            _ => ("month", "%Y-%m"),
        };
        let (db, quoted) = (&self.session.db, quote_ident(column));
        let start = format!("date_trunc('{unit}', {quoted})");
        let found = self.session.rows(
            &format!(
                "SELECT strftime(p, '{format}'), p::{kind}, (p + INTERVAL 1 {unit})::{kind} FROM \
                 (SELECT DISTINCT {start} AS p FROM {}) AS periods ORDER BY p",
                self.relation
            ),
            &self.table,
        )?;
        if found.is_empty() {
            return writer.write_query(db, &self.select(), Some("empty")).map(drop);
        }
        for period in found {
            let value = |text: &str| format!("CAST({} AS {kind})", quote_literal(text));
            let (part, filter) = match period.as_slice() {
                // `infinity` has no end.
                [Some(name), Some(from), Some(to)] if from == to => {
                    (name.as_str(), format!("{quoted} = {}", value(from)))
                }
                [Some(name), Some(from), Some(to)] => {
                    (name.as_str(), format!("{quoted} >= {} AND {quoted} < {}", value(from), value(to)))
                }
                _ => ("null", format!("{quoted} IS NULL")),
            };
            writer.write_query(db, &format!("{} WHERE {filter}", self.select()), Some(part))?;
        }
        Ok(())
    }

    /// Name and type of a column, as the source spells it.
    fn column(&self, wanted: &str) -> Result<(String, String), SqlError> {
        let found = self.columns.iter().find(|(name, _)| name == wanted);
        let found = found.or_else(|| self.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)));
        found.cloned().ok_or_else(|| SqlError::ColumnMissing {
            table: printable(&self.table, 120),
            column: printable(wanted, 60),
            suggestion: nearest(wanted, self.columns.iter().map(|(name, _)| name.as_str())).map(|n| printable(n, 60)),
        })
    }

    fn rule(&self) -> Result<Rule> {
        let cursor = self.options.cursor_column.as_deref().ok_or_else(|| {
            SqlError::invalid("cursor_column", "an incremental table needs the column that grows with every change")
        })?;
        let (cursor, cursor_type) = self.column(cursor)?;
        let key = self.options.primary_key.iter().flatten();
        let key: Vec<String> = key.map(|column| Ok(self.column(column)?.0)).collect::<Result<_, SqlError>>()?;
        let (times, dates, numbers) = OVERLAP;
        let days = self.request.table.incremental_window_days.and_then(|days| u64::try_from(days).ok());
        let overlap = self.options.overlap.unwrap_or(match cursor_type.as_str() {
            kind if kind.starts_with("TIMESTAMP") => days.map_or(times, |days| days * 86_400),
            "DATE" => days.unwrap_or(dates),
            _ => numbers,
        });
        let hours = self.options.reconcile_hours.unwrap_or(if key.is_empty() { 0 } else { RECONCILE_HOURS });
        Ok(Rule { cursor, cursor_type, key, overlap, reconcile_every: (hours > 0).then_some(hours * 3600) })
    }

    /// What the source shows, asked in its own SQL where that uses an index.
    fn edge(&self, rule: &Rule, now: DateTime<Utc>) -> Result<Edge> {
        let (text, latest) = (is_text(rule), rule.latest(now));
        let sql = self.session.dialect.edge(&self.schema, &self.name, &rule.cursor, latest.as_deref());
        let sql = sql.filter(|_| !text).unwrap_or_else(|| rule.edge_sql(&self.relation, now));
        let rows = self.session.rows(&sql, &self.table)?;
        Ok(rows.first().map(|row| Edge::of_row(row)).unwrap_or_default())
    }

    fn incremental(&mut self, writer: &mut TableWriter) -> Result<ExtractReport> {
        let rule = self.rule()?;
        let reader = if self.has_twin { format!("{READER} alone") } else { READER.to_string() };
        let settings = format!("{reader} {} {} {:?}", self.table, rule.cursor, rule.key);
        let last: Option<Cursor> = match &self.request.cursor {
            Some(cursor) if !self.request.full => serde_json::from_value(cursor.clone()).ok(),
            _ => None,
        };
        let parts = writer.published_parts()?;
        // Other columns, another key, data that is gone: what was read says nothing.
        let last = last.filter(|last| last.settings == settings && last.columns == self.columns && !parts.is_empty());
        let db = &self.session.db;
        let lowest = |value: &str| rule.lower(db, value).map_err(|e| self.session.scrub.failure(e, &self.table, false));
        let in_window = |edge: &Edge| -> Result<u64> {
            let from = edge.value.as_deref().map(lowest).transpose()?;
            self.session.number(&rule.count_sql(&self.relation, from.as_deref()), &self.table)
        };
        self.session.run(self.session.dialect.by_index())?;
        if is_text(&rule) {
            self.session.run(self.session.dialect.own_order())?;
        }
        let now = Utc::now();
        let edge = self.edge(&rule, now)?;
        let before = last.as_ref().map(|last| &last.mark);
        let seen = before.map(|mark| in_window(&mark.edge)).transpose()?.unwrap_or(0);
        let step =
            rule.step(db, before, &edge, seen, now).map_err(|e| self.session.scrub.failure(e, &self.table, false))?;
        let mut reconciled = before.and_then(|mark| mark.reconciled);
        let mut notes = Vec::new();
        let all = |writer: &mut TableWriter| -> Result<()> {
            if self.session.dialect == Dialect::Postgres {
                self.session.run("SET pg_use_ctid_scan=true")?;
            }
            writer.write_query(db, &self.select(), Some("all")).map(drop).map_err(|e| self.failed(e))
        };
        match step {
            Step::Nothing => {
                let cursor = self.request.cursor.clone();
                return Ok(ExtractReport { unchanged: true, cursor, ..ExtractReport::default() });
            }
            Step::Everything => {
                all(writer)?;
                reconciled = Some(now);
            }
            Step::Window { from, reconcile } => {
                let (mut scope, mut pull) = (rule.scope(from.as_deref()), rule.window(&self.relation, from.as_deref()));
                let found = match reconcile {
                    true => {
                        reconciled = Some(now);
                        self.compare(&rule, writer, &parts)?
                    }
                    false => Differing::Nowhere,
                };
                if let (Differing::Ranges(ranges), Some(more)) = (&found, found.scope(&rule)) {
                    notes.push(format!("{} ranges of keys differed from the source and were read again", ranges.len()));
                    pull = format!("{pull} UNION ALL SELECT * FROM {} WHERE ({more}) AND NOT ({scope})", self.relation);
                    scope = format!("({scope}) OR ({more})");
                }
                if found == Differing::Everywhere {
                    notes.push("keys differed from the source: everything was read again".to_owned());
                    all(writer)?;
                } else {
                    let pulled = format!("CREATE OR REPLACE TEMP TABLE agnes_pulled AS {pull}");
                    db.execute(&pulled).map_err(|e| self.session.scrub.failure(e, &self.table, false))?;
                    let merged = merge(db, writer, &rule, &scope, "agnes_pulled").map_err(|e| self.failed(e))?;
                    if merged.doubled > 0 {
                        let rows = merged.doubled;
                        notes.push(format!("{rows} rows share their key with a newer one and were left out"));
                    }
                }
            }
        }
        let mark = Mark { in_window: in_window(&edge)?, edge, reconciled };
        let cursor = Cursor { settings, columns: self.columns.clone(), mark };
        Ok(ExtractReport { cursor: serde_json::to_value(cursor).ok(), notes, ..ExtractReport::default() })
    }

    /// Compares the keys of the source with those that are published.
    fn compare(&self, rule: &Rule, writer: &TableWriter, parts: &[String]) -> Result<Differing> {
        let columns: Vec<_> = rule.key.iter().chain([&rule.cursor]).map(|column| quote_ident(column)).collect();
        let columns = columns.join(", ");
        let files = parts
            .iter()
            .map(|key| Ok(quote_literal(&writer.published_part(key)?.to_string_lossy())))
            .collect::<Result<Vec<_>>>()?;
        let here = format!("(SELECT {columns} FROM read_parquet([{}], union_by_name=true)) AS h", files.join(", "));
        differing(&self.session.db, rule, &self.relation, &here).map_err(|e| self.failed(e))
    }

    /// What no type here holds is `DOUBLE`: the run says so.
    fn long_numbers(&self) -> Option<String> {
        let sql = self.session.dialect.long_numbers(&self.schema, &self.name)?;
        let rows = self.session.rows(&sql, &self.table).ok()?;
        let names: Vec<_> =
            rows.into_iter().flatten().flatten().map(|name| format!("`{}`", printable(&name, 60))).collect();
        (!names.is_empty()).then(|| {
            format!("{} may have more digits at the source than any type here, and is DOUBLE", names.join(", "))
        })
    }
}

fn is_text(rule: &Rule) -> bool {
    rule.cursor_type == "VARCHAR" || rule.cursor_type == "UUID"
}

/// Writes the answer to a query that the source itself runs.
fn materialize(
    session: &Session,
    request: &ExtractRequest,
    query: &str,
    writer: &mut TableWriter,
) -> Result<ExtractReport> {
    let query = query.trim().trim_end_matches(';').trim();
    let table = request.name.as_str();
    if query.is_empty() {
        return Err(SqlError::invalid("source_query", "a materialized table needs one").into());
    }
    let select = if session.dialect == Dialect::Sqlite {
        sealed(session, query, table, writer)?
    } else {
        format!("SELECT * FROM {}", session.dialect.ask(query))
    };
    session.columns(&select, table, true)?;
    writer.write_query(&session.db, &select, None).map_err(|e| session.scrub.error(e, table, true))?;
    Ok(ExtractReport::default())
}

/// SQLite answers texts, so its queries run here, over its tables with their types: one
/// `SELECT`, in an engine that reaches nothing but the source and the table's own folder.
fn sealed(session: &Session, query: &str, table: &str, writer: &TableWriter) -> Result<String> {
    let refused = |reason: &str| SqlError::Query { table: printable(table, 120), reason: reason.to_owned() };
    let parsed = session.rows(&format!("SELECT json_serialize_sql({})", quote_literal(query)), table)?;
    let parsed = parsed.into_iter().flatten().flatten().next().unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_str(&parsed).unwrap_or_default();
    if parsed["error"] != serde_json::Value::Bool(false) {
        return Err(refused(&printable(parsed["error_message"].as_str().unwrap_or("it is not a SELECT"), 200)).into());
    }
    if parsed["statements"].as_array().is_none_or(|statements| statements.len() != 1) {
        return Err(refused("it is more than one statement").into());
    }
    let folders =
        [writer.folder().to_owned(), session.db.folder()].map(|folder| quote_literal(&folder.to_string_lossy()));
    session.run(&format!(
        "SET allowed_directories=[{}]; SET enable_external_access=false; SET lock_configuration=true; USE {}",
        folders.join(", "),
        quote_ident(ALIAS)
    ))?;
    Ok(format!("SELECT * FROM ({query}\n) AS answer"))
}

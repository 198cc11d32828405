//! The three kinds of database, and what differs between them.

use agnes_core::ident::{quote_ident, quote_literal};

/// Alias under which a connector attaches its source.
pub(crate) const ALIAS: &str = "src";

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

impl Dialect {
    /// The kind of the connector, which is also the name of DuckDB's extension.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::MySql => 3306,
            _ => 5432,
        }
    }

    /// A name in the source's own SQL.
    pub(crate) fn quote(self, name: &str) -> String {
        match self {
            Self::MySql => format!("`{}`", name.replace('`', "``")),
            _ => quote_ident(name),
        }
    }

    /// A relation of the engine that holds the answer of the source to a query in its own SQL.
    /// SQLite answers texts.
    pub(crate) fn ask(self, sql: &str) -> String {
        format!("{}_query({}, {})", self.kind(), quote_literal(ALIAS), quote_literal(sql))
    }

    /// What the engine is told before it reads: UTC, and no end of a statement but the run's.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            Self::MySql => "SET mysql_session_time_zone='+00:00'; SET mysql_query_timeout_enabled=false",
            _ => "",
        }
    }

    /// A query that has the source itself give up on statements of this transaction: one that
    /// sends nothing cannot be interrupted from here.
    pub(crate) fn give_up_after(self, milliseconds: u128) -> Option<String> {
        let most = milliseconds.min(i32::MAX as u128);
        let set = format!("SELECT set_config('statement_timeout', '{most}', true) AS t");
        (self == Self::Postgres).then(|| format!("SELECT t FROM {}", self.ask(&set)))
    }

    /// A query that tells which of the server's processes serves this transaction.
    pub(crate) fn served_by(self) -> Option<String> {
        let asked = match self {
            Self::Postgres => "SELECT pg_backend_pid() AS p",
            Self::MySql => "SELECT connection_id() AS p",
            Self::Sqlite => return None,
        };
        Some(format!("SELECT p FROM {}", self.ask(asked)))
    }

    /// What has that process end its statement, in a session with the source at `dsn`.
    pub(crate) fn end_statement(self, process: u64, dsn: &str) -> String {
        match self {
            // It answers no rows, so that only a connection that is not read-only takes it.
            Self::MySql => format!(
                "ATTACH {} AS told (TYPE mysql, SECRET {}); CALL mysql_execute('told', 'KILL QUERY {process}')",
                quote_literal(dsn),
                quote_ident(&format!("{ALIAS}_secret"))
            ),
            _ => format!("SELECT c FROM {}", self.ask(&format!("SELECT pg_cancel_backend({process}) AS c"))),
        }
    }

    /// What has the engine compare texts itself: the source has its own idea of their order.
    pub(crate) fn own_order(self) -> &'static str {
        match self {
            Self::MySql => "SET mysql_experimental_filter_pushdown=false",
            _ => "",
        }
    }

    /// What makes small reads use the source's indexes: the engine reads large tables by page.
    pub(crate) fn by_index(self) -> &'static str {
        match self {
            Self::Postgres => "SET pg_use_ctid_scan=false",
            _ => "",
        }
    }

    /// Lists relations: schema, name, rows, bytes, description, key columns joined by U+001F.
    pub(crate) fn list(self) -> &'static str {
        match self {
            Self::Postgres => {
                "SELECT n.nspname::text AS s, c.relname::text AS t, \
                 CASE WHEN c.reltuples >= 0 AND c.relkind <> 'v' THEN c.reltuples::bigint END AS n, \
                 CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) END AS b, \
                 obj_description(c.oid, 'pg_class') AS d, \
                 (SELECT string_agg(a.attname::text, chr(31) ORDER BY array_position(i.indkey::int2[], a.attnum)) \
                  FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
                  WHERE i.indrelid = c.oid AND i.indisprimary) AS k \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname !~ '^pg_' \
                 AND n.nspname <> 'information_schema' AND has_schema_privilege(n.oid, 'USAGE') \
                 AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1, 2"
            }
            Self::MySql => {
                "SELECT t.table_schema AS s, t.table_name AS t, t.table_rows AS n, t.data_length AS b, \
                 nullif(t.table_comment, '') AS d, (SELECT group_concat(k.column_name ORDER BY k.ordinal_position \
                 SEPARATOR '\u{1f}') FROM information_schema.key_column_usage k WHERE k.table_schema = t.table_schema \
                 AND k.table_name = t.table_name AND k.constraint_name = 'PRIMARY') AS k \
                 FROM information_schema.tables t WHERE t.table_schema NOT IN \
                 ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2"
            }
            Self::Sqlite => {
                "SELECT 'main' AS s, m.name AS t, NULL AS n, NULL AS b, NULL AS d, \
                 (SELECT group_concat(name, char(31)) FROM (SELECT name FROM pragma_table_info(m.name) WHERE pk > 0 \
                 ORDER BY pk)) AS k FROM sqlite_master m WHERE m.type IN ('table', 'view') \
                 AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1, 2"
            }
        }
    }

    /// All rows of a table in the source's own SQL.
    pub(crate) fn whole(self, schema: &str, table: &str) -> String {
        self.ask(&format!("SELECT * FROM {}.{}", self.quote(schema), self.quote(table)))
    }

    /// Counts the relations, and the schemas, whose names differ from these in case alone, themselves among
    /// them: whichever is the larger number. None where the extension tells them apart.
    pub(crate) fn alike(self, schema: &str, table: &str) -> Option<String> {
        if self != Self::MySql {
            return None;
        }
        let same = |column: &str, name: &str| {
            format!("lower({column}) = lower({})", quote_literal(&name.replace('\\', "\\\\")))
        };
        let sql = format!(
            "SELECT greatest((SELECT count(*) FROM information_schema.tables WHERE {} AND {}), \
             (SELECT count(*) FROM information_schema.schemata WHERE {})) AS n",
            same("table_schema", schema),
            same("table_name", table),
            same("schema_name", schema)
        );
        Some(format!("SELECT n FROM {}", self.ask(&sql)))
    }

    /// Columns of a table whose numbers may have more digits than any type here.
    pub(crate) fn long_numbers(self, schema: &str, table: &str) -> Option<String> {
        let (schema, table) = (quote_literal(schema), quote_literal(table));
        let sql = match self {
            Self::Postgres => format!(
                "SELECT a.attname::text AS c FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {schema} AND c.relname = {table} \
                 AND a.atttypid = 'numeric'::regtype AND (a.atttypmod = -1 OR (a.atttypmod - 4) >> 16 > 38) \
                 AND a.attnum > 0 AND NOT a.attisdropped"
            ),
            Self::MySql => format!(
                "SELECT column_name AS c FROM information_schema.columns WHERE table_schema = {schema} \
                 AND table_name = {table} AND data_type = 'decimal' AND numeric_precision > 38"
            ),
            Self::Sqlite => return None,
        };
        Some(format!("SELECT c FROM {}", self.ask(&sql)))
    }

    /// The edge of a table up to `latest` in the source's own SQL, where it has an index to answer from.
    pub(crate) fn edge(self, schema: &str, table: &str, cursor: &str, latest: Option<&str>) -> Option<String> {
        if self == Self::Sqlite {
            return None;
        }
        let (relation, c) = (format!("{}.{}", self.quote(schema), self.quote(table)), self.quote(cursor));
        let (mut until, mut beyond, mut columns) = (String::new(), String::new(), "v, n, w");
        if let Some(latest) = latest {
            // MariaDB knows no zones in texts; a day is longer than they differ.
            let latest = if self == Self::MySql { latest.trim_end_matches("+00") } else { latest };
            let latest = quote_literal(latest);
            until = format!(" WHERE {c} <= {latest}");
            beyond = format!("FROM {relation} WHERE {c} > {latest}");
            beyond = format!(", (SELECT max({c}) {beyond}) AS m, (SELECT count(*) {beyond}) AS b");
            columns = "v, n, w, m, b";
        }
        let sql = format!(
            "SELECT max({c}) AS v, (SELECT count(*) FROM {relation} WHERE {c} = (SELECT max({c}) FROM {relation}{until})) AS n, \
             (SELECT count(*) FROM {relation} WHERE {c} IS NULL) AS w{beyond} FROM {relation}{until}"
        );
        Some(format!("SELECT {columns} FROM {}", self.ask(&sql)))
    }
}

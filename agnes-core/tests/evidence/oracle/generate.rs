//! Queries made from a tape of choices, over the tables of a world as the caller sees them.

use super::tape::Tape;
use super::world::{Kind, Table, World};

/// A name in scope and its columns.
#[derive(Clone)]
struct Source {
    alias: String,
    columns: Vec<(String, Kind)>,
}

/// Writes one query.
pub(super) struct Writer<'w> {
    world: &'w World,
    tape: Tape,
    names: usize,
    /// CTEs that may be named.
    ctes: Vec<Source>,
    /// What outer queries have, for correlated ones.
    outer: Vec<Source>,
}

/// The query that `tape` makes of `world`.
pub(super) fn query(world: &World, tape: Tape) -> String {
    let mut writer = Writer { world, tape, names: 0, ctes: Vec::new(), outer: Vec::new() };
    writer.statement()
}

impl Writer<'_> {
    fn name(&mut self, start: &str) -> String {
        self.names += 1;
        format!("{start}{}", self.names)
    }

    /// Mostly what may be read.
    fn table(&mut self) -> (String, Vec<(String, Kind)>) {
        let hidden = self.tape.one_in(12);
        let tables: Vec<&Table> = self.world.tables.iter().filter(|table| table.granted() != hidden).collect();
        let table = *self.tape.pick(&tables);
        let name = match self.tape.below(9) {
            7 => format!("main.{}", table.name),
            8 => table.name.to_uppercase(),
            _ => table.name.clone(),
        };
        // Sometimes a column that the caller does not have is named.
        let columns = if self.tape.one_in(10) { table.columns.clone() } else { table.shown() };
        (name, columns)
    }

    fn statement(&mut self) -> String {
        match self.tape.below(16) {
            10 => format!("DESCRIBE {}", self.table().0),
            // Its means, deviations and quantiles are texts, and differ with the order of the rows.
            11 => format!(
                "SELECT * EXCLUDE (avg, std, q25, q50, q75), round(TRY_CAST(avg AS DOUBLE), 6), \
                 round(TRY_CAST(std AS DOUBLE), 6) FROM (SUMMARIZE {})",
                self.table().0
            ),
            12 => "SHOW TABLES".to_owned(),
            13 => {
                let (sql, columns) = self.select(1);
                let on = columns.iter().find(|(_, kind)| *kind == Kind::Text).or(columns.first());
                on.map_or(sql.clone(), |(name, _)| format!("PIVOT ({sql}) ON {name} USING count(*)"))
            }
            14 => format!("DESCRIBE {}", self.select(2).0),
            15 => self.odd(),
            _ => self.select(3).0,
        }
    }

    /// What has nothing to do with anybody's tables, or should not.
    fn odd(&mut self) -> String {
        let (name, _) = self.table();
        let odd = [
            "FROM duckdb_tables()".to_owned(),
            "FROM duckdb_columns()".to_owned(),
            "FROM pragma_show('orders')".to_owned(),
            "FROM sqlite_master".to_owned(),
            "FROM information_schema.views".to_owned(),
            "FROM pg_catalog.pg_tables".to_owned(),
            "SHOW ALL TABLES".to_owned(),
            format!("FROM query('FROM {name}')"),
            format!("FROM query_table('{name}')"),
            format!("FROM query_table(['{name}'])"),
            format!("SELECT {name}"),
            format!("SELECT {name}.id"),
            format!("FROM {name}_"),
            format!("FROM shop.{name}"),
            format!("FROM memory.main.{name}"),
            format!("FROM '{name}.parquet'"),
            format!("WITH {name} AS (FROM {name}) FROM {name}"),
            format!(
                "WITH {name} AS (SELECT 1 AS id) SELECT (SELECT count(*) FROM {name}), (SELECT count(*) FROM main.{name})"
            ),
            format!("EXPLAIN FROM {name}"),
            "FROM agnes_sessions".to_owned(),
        ];
        self.tape.pick(&odd).clone()
    }

    /// A query and its columns; `depth` bounds what nests inside.
    fn select(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        let known = self.ctes.len();
        let mut ctes = Vec::new();
        while depth > 0 && ctes.len() < 2 && self.tape.one_in(6) {
            let (sql, columns) = self.select(depth - 1);
            // Sometimes the name of a table: then it hides it.
            let alias = if self.tape.one_in(4) { self.table().0.replace("main.", "") } else { self.name("c") };
            let how = ["", "", "MATERIALIZED ", "NOT MATERIALIZED "][self.tape.below(4)];
            ctes.push(format!("{alias} AS {how}({sql})"));
            self.ctes.push(Source { alias, columns });
        }
        let (mut sql, columns) = self.plain(depth);
        if depth > 0 && self.tape.one_in(8) {
            let operator = ["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "UNION ALL BY NAME"][self.tape.below(5)];
            let other = self.plain_of(depth - 1, Some(&columns)).0;
            sql = format!("({sql}) {operator} ({other})");
        }
        if self.tape.one_in(6) {
            sql = format!("SELECT * FROM ({sql}) ORDER BY ALL LIMIT {}", 1 + self.tape.below(5));
        }
        self.ctes.truncate(known);
        if !ctes.is_empty() {
            sql = format!("WITH {} {sql}", ctes.join(", "));
        }
        (sql, columns)
    }

    fn plain(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        self.plain_of(depth, None)
    }

    /// One SELECT; with the kinds of `like`, if given.
    fn plain_of(&mut self, depth: usize, like: Option<&[(String, Kind)]>) -> (String, Vec<(String, Kind)>) {
        let (from, sources) = self.from(depth);
        let filter =
            if self.tape.one_in(2) { format!(" WHERE {}", self.condition(&sources, depth)) } else { String::new() };
        let grouped = like.is_none() && self.tape.one_in(4);
        if grouped {
            let (key, kind) = self.expression(&sources, 1, None);
            let mut columns = vec![("k".to_owned(), kind)];
            let mut items = vec![format!("{key} AS k")];
            for n in 0..=self.tape.below(3) {
                items.push(format!("{} AS a{n}", self.aggregate(&sources)));
                columns.push((format!("a{n}"), Kind::Number));
            }
            let by = ["GROUP BY k", "GROUP BY ALL", "GROUP BY ROLLUP (k)", "GROUP BY CUBE (k)"][self.tape.below(4)];
            let having = if self.tape.one_in(5) { " HAVING count(*) > 1" } else { "" };
            return (format!("SELECT {} FROM {from}{filter} {by}{having}", items.join(", ")), columns);
        }
        let wanted: Vec<Option<Kind>> = match like {
            Some(columns) => columns.iter().map(|(_, kind)| Some(*kind)).collect(),
            None => vec![None; 1 + self.tape.below(4)],
        };
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        for (n, kind) in wanted.iter().enumerate() {
            let (sql, kind) = self.item(&sources, depth, *kind);
            let name = like.map_or_else(|| format!("x{n}"), |columns| columns[n].0.clone());
            items.push(format!("{sql} AS {name}"));
            columns.push((name, kind));
        }
        let distinct = if self.tape.one_in(6) { "DISTINCT " } else { "" };
        let qualify = if like.is_none() && self.tape.one_in(12) {
            format!(" QUALIFY rank() OVER (ORDER BY {}) <= 3", self.expression(&sources, 0, None).0)
        } else {
            String::new()
        };
        (format!("SELECT {distinct}{} FROM {from}{filter}{qualify}", items.join(", ")), columns)
    }

    fn from(&mut self, depth: usize) -> (String, Vec<Source>) {
        let (mut sql, first) = self.source(depth, &[]);
        let mut sources = vec![first];
        while sources.len() < 3 && self.tape.one_in(3) {
            let join =
                ["JOIN", "LEFT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN", "ASOF JOIN", ", LATERAL", "CROSS JOIN"]
                    [self.tape.below(8)];
            let lateral = join == ", LATERAL";
            let seen = if lateral { sources.clone() } else { Vec::new() };
            let (other, source) = self.source(depth.saturating_sub(1), &seen);
            let on = |op: &str| format!("{}.id {op} {}.id", sources[0].alias, source.alias);
            sql = match join {
                ", LATERAL" if other.starts_with('(') => format!("{sql}, LATERAL {other}"),
                ", LATERAL" | "CROSS JOIN" => format!("{sql} CROSS JOIN {other}"),
                "ASOF JOIN" => format!("{sql} ASOF JOIN {other} ON {}", on(">=")),
                _ => format!("{sql} {join} {other} ON {}", on("=")),
            };
            if !["SEMI JOIN", "ANTI JOIN"].contains(&join) {
                sources.push(source);
            }
        }
        (sql, sources)
    }

    fn source(&mut self, depth: usize, outer: &[Source]) -> (String, Source) {
        let alias = self.name("s");
        match self.tape.below(12) {
            7 if !self.ctes.is_empty() => {
                let cte = self.tape.below(self.ctes.len());
                let Source { alias: name, columns } = self.ctes[cte].clone();
                (format!("{name} {alias}"), Source { alias, columns })
            }
            8 | 9 if depth > 0 => {
                self.outer.extend_from_slice(outer);
                let (sql, mut columns) = self.select(depth - 1);
                self.outer.truncate(self.outer.len() - outer.len());
                columns.push(("id".to_owned(), Kind::Number));
                (format!("(SELECT *, 1 AS id FROM ({sql}))  {alias}"), Source { alias, columns })
            }
            10 => {
                let n = self.tape.below(6);
                (format!("range({n}) {alias}(id)"), Source { alias, columns: vec![("id".to_owned(), Kind::Number)] })
            }
            11 => {
                let list = ["generate_series(1, 4)", "unnest([3, 1, NULL])", "repeat(2, 3)"][self.tape.below(3)];
                (format!("{list} {alias}(id)"), Source { alias, columns: vec![("id".to_owned(), Kind::Number)] })
            }
            6 if self.tape.one_in(2) => {
                let view = ["tables", "columns"][self.tape.below(2)];
                let columns = [("table_name", Kind::Text), ("id", Kind::Number)];
                let sql = format!("(SELECT table_name, 1 AS id FROM information_schema.{view}) {alias}");
                (sql, Source { alias, columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec() })
            }
            _ => {
                let (name, columns) = self.table();
                (format!("{name} {alias}"), Source { alias, columns })
            }
        }
    }

    /// What stands in a SELECT list.
    fn item(&mut self, sources: &[Source], depth: usize, kind: Option<Kind>) -> (String, Kind) {
        match self.tape.below(10) {
            8 if depth > 0 && kind.is_none_or(|kind| kind == Kind::Number) => {
                (self.scalar(sources, depth), Kind::Number)
            }
            9 if kind.is_none_or(|kind| kind == Kind::Number) => {
                let function = ["count(*)", "rank()", "dense_rank()", "sum({})", "max({})"][self.tape.below(5)];
                let argument = self.expression(sources, 0, Some(Kind::Number)).0;
                let function = function.replace("{}", &argument);
                let partition = self.expression(sources, 0, None).0;
                let order = self.expression(sources, 0, None).0;
                (format!("{function} OVER (PARTITION BY {partition} ORDER BY {order})::BIGINT"), Kind::Number)
            }
            _ => self.expression(sources, 2, kind),
        }
    }

    /// A correlated query for one number.
    fn scalar(&mut self, sources: &[Source], depth: usize) -> String {
        self.outer.extend_from_slice(sources);
        let (from, own) = self.from(depth - 1);
        let condition = self.condition(&own, depth - 1);
        let aggregate = self.aggregate(&own);
        let link = match self.outer.last() {
            Some(outer) => format!(" AND {}.id = {}.id", outer.alias, own[0].alias),
            None => String::new(),
        };
        self.outer.truncate(self.outer.len() - sources.len());
        format!("(SELECT {aggregate} FROM {from} WHERE {condition}{link})")
    }

    fn aggregate(&mut self, sources: &[Source]) -> String {
        let number = self.expression(sources, 1, Some(Kind::Number)).0;
        let any = self.expression(sources, 0, None).0;
        match self.tape.below(8) {
            1 => format!("sum({number})::BIGINT"),
            2 => format!("max({number})::BIGINT"),
            3 => format!("count(DISTINCT {any})"),
            4 => format!("count({any}) FILTER ({number} > 2)"),
            5 => format!("len(list({any} ORDER BY {any}))"),
            6 => format!("round(avg({number}), 6)::BIGINT"),
            7 => format!("hash(min({any}))::BIGINT % 2"),
            _ => "count(*)".to_owned(),
        }
    }

    fn column(&mut self, sources: &[Source], kind: Option<Kind>) -> Option<(String, Kind)> {
        let outer = self.outer.clone();
        let reach = if !outer.is_empty() && self.tape.one_in(4) { outer.as_slice() } else { sources };
        let fits: Vec<(String, Kind)> = reach
            .iter()
            .flat_map(|source| source.columns.iter().map(|(name, kind)| (format!("{}.{name}", source.alias), *kind)))
            .filter(|(_, own)| kind.is_none_or(|kind| kind == *own))
            .collect();
        (!fits.is_empty()).then(|| self.tape.pick(&fits).clone())
    }

    fn expression(&mut self, sources: &[Source], depth: usize, kind: Option<Kind>) -> (String, Kind) {
        let kind = match (kind, self.column(sources, kind)) {
            (_, Some((column, own))) if depth == 0 || !self.tape.one_in(2) => return (column, own),
            (Some(kind), _) => kind,
            (None, _) => *self.tape.pick(&Kind::ALL),
        };
        if depth == 0 {
            let plain = ["3", "'a'", "DATE '2024-01-02'", "[1, 2]"][kind as usize];
            return (plain.to_owned(), kind);
        }
        let mut of = |kind| self.expression(sources, depth - 1, Some(kind)).0;
        let (n, t, d, l) = (of(Kind::Number), of(Kind::Text), of(Kind::Date), of(Kind::List));
        let forms: Vec<String> = match kind {
            Kind::Number => vec![
                format!("({n} + 1)"),
                format!("coalesce({n}, 0)"),
                format!("length({t})"),
                format!("len({l})"),
                format!("TRY_CAST({t} AS INTEGER)"),
                format!("({n} % nullif(len({l}), 1))"),
                format!("day({d})"),
                format!("list_sum({l})::INTEGER"),
                // May fail on a value: nobody else's may show.
                format!("CAST({t} AS INTEGER)"),
                format!("CASE WHEN {n} > 5 THEN {n} ELSE length({t}) END"),
                format!("(8 // {n})"),
            ],
            Kind::Text => vec![
                format!("upper({t})"),
                format!("({t} || '-' || coalesce({n}::VARCHAR, '?'))"),
                format!("{d}::VARCHAR"),
                format!("{t}[1:2]"),
                format!("coalesce({t}, 'none')"),
                format!("json_object('k', {t})->>'k'"),
                format!("error({t})"),
            ],
            Kind::Date => vec![
                format!("({d} + 1)"),
                format!("TRY_CAST({t} AS DATE)"),
                format!("date_trunc('month', {d})::DATE"),
                format!("CAST({t} AS DATE)"),
            ],
            Kind::List => vec![
                format!("list_sort({l})"),
                format!("list_transform({l}, lambda e: e + 1)"),
                format!("[{n}, 1]"),
                format!("list_filter({l}, lambda e: e > 1)"),
                format!("[x FOR x IN {l} IF x > 0]"),
            ],
        };
        // Failures are worth having, but not in every query.
        let form = self.tape.pick(&forms).clone();
        let fails = form.starts_with("error(") || form.starts_with("CAST(");
        if fails && !self.tape.one_in(4) { (forms[0].clone(), kind) } else { (form, kind) }
    }

    fn condition(&mut self, sources: &[Source], depth: usize) -> String {
        let (left, kind) = self.expression(sources, 1, None);
        match self.tape.below(9) {
            1 => format!("{left} IS NULL"),
            2 => format!("NOT {left} = {}", self.expression(sources, 1, Some(kind)).0),
            3 => format!("{left} > {}", self.expression(sources, 0, Some(kind)).0),
            4 => format!("{left} IS DISTINCT FROM {}", self.expression(sources, 0, Some(kind)).0),
            5 if depth > 0 => {
                let (sub, own) = self.from(depth - 1);
                format!("EXISTS (SELECT 1 FROM {sub} WHERE {})", self.condition(&own, depth - 1))
            }
            6 if depth > 0 => {
                let number = self.expression(sources, 0, Some(Kind::Number)).0;
                let (sub, own) = self.from(depth - 1);
                format!("{number} IN (SELECT {} FROM {sub})", self.expression(&own, 0, Some(Kind::Number)).0)
            }
            7 => format!("({} OR {})", self.condition_of(sources), self.condition_of(sources)),
            8 if depth > 0 => format!("{} > 1", self.scalar(sources, depth)),
            _ => format!("{left} = {}", self.expression(sources, 0, Some(kind)).0),
        }
    }

    fn condition_of(&mut self, sources: &[Source]) -> String {
        self.condition(sources, 0)
    }
}

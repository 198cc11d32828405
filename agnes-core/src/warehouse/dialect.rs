//! A checked query, written anew in GoogleSQL.
//!
//! What is not known to mean the same there is not written: the query then runs here, over rows
//! that are moved. So nothing depends on this list being long, and an answer does not depend on
//! where it was computed. Two things differ nevertheless: the order of `NaN` among numbers, and
//! the last digits of sums of floats.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{column, everything, is_blank, list, text};
use crate::connector::WarehousePath;
use crate::query::{self, Params};

/// Where each table is, and its columns as `(name, type, nullable)`, by lower-case name.
pub(crate) type Tables = BTreeMap<String, (WarehousePath, Vec<(String, String, bool)>)>;

/// What the dialect knows of the tables that a query names.
pub(crate) struct Dialect<'a> {
    pub(super) tables: &'a Tables,
    pub(super) params: &'a Params,
}

/// What is in scope besides the tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Names of CTEs.
    ctes: Vec<String>,
    /// What their columns were named.
    columns: Vec<String>,
}

/// A name in backticks; none where it holds what would need an escape.
pub(super) fn quoted(name: &str) -> Option<String> {
    let plain = !name.is_empty() && !name.chars().any(|c| c == '`' || c == '\\' || c.is_control());
    plain.then(|| format!("`{name}`"))
}

/// A text; none where it holds what has no plain escape.
pub(super) fn string(text: &str) -> Option<String> {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => return None,
            c => out.push(c),
        }
    }
    out.push('\'');
    Some(out)
}

pub(super) fn number(value: f64) -> Option<String> {
    value.is_finite().then(|| format!("CAST('{value:e}' AS FLOAT64)"))
}

/// Whether the order of a statement's rows was asked for.
pub(crate) fn is_ordered(statement: &Value) -> bool {
    list(&statement["node"], "modifiers").iter().any(|modifier| text(modifier, "type") == "ORDER_MODIFIER")
}

/// The value of a parameter.
pub(super) fn literal(value: &query::Value) -> Option<String> {
    use query::Value as V;
    Some(match value {
        V::Null => "NULL".to_owned(),
        V::Bool(v) => if *v { "TRUE" } else { "FALSE" }.to_owned(),
        V::Int(v) => v.to_string(),
        V::UInt(v) => i64::try_from(*v).ok()?.to_string(),
        V::Float(v) => number(*v)?,
        V::Text(v) => string(v)?,
        V::Date(v) => format!("DATE '{}'", v.format("%Y-%m-%d")),
        V::Timestamp(v) => format!("DATETIME '{}'", v.format("%Y-%m-%d %H:%M:%S%.6f")),
        V::TimestampTz(v) => format!("TIMESTAMP '{}+00:00'", v.format("%Y-%m-%d %H:%M:%S%.6f")),
        V::Time(_) | V::Blob(_) | V::List(_) => return None,
    })
}

/// The table's full name.
pub(super) fn place(path: &WarehousePath) -> Option<String> {
    Some(format!("{}.{}.{}", quoted(&path.project)?, quoted(&path.dataset)?, quoted(&path.table)?))
}

impl<'a> Dialect<'a> {
    /// For a query of these tables with these parameters.
    pub(crate) fn new(tables: &'a Tables, params: &'a Params) -> Self {
        Self { tables, params }
    }

    /// The whole statement, of which at most `rows` rows are wanted; none where it cannot be said.
    pub(crate) fn statement(&self, statement: &Value, rows: Option<u64>) -> Option<String> {
        self.node(&statement["node"], &Scope::default(), true, rows)
    }

    /// `SELECT` of columns of one table, as far as a predicate of [`super::needs`] holds.
    pub(crate) fn part(&self, name: &str, columns: &[&str], filters: &[Value], rows: u64) -> Option<String> {
        let (path, _) = self.tables.get(name)?;
        let list = columns.iter().map(|name| quoted(name)).collect::<Option<Vec<_>>>()?;
        let list = if list.is_empty() { "1 AS `_rows`".to_owned() } else { list.join(", ") };
        let mut sql = format!("SELECT {list} FROM {} AS {}", place(path)?, quoted(name)?);
        // Each by itself: one that cannot be said is left to the query here.
        let said: Vec<String> = filters.iter().filter_map(|filter| self.expr(filter, &Scope::default())).collect();
        if !said.is_empty() {
            sql.push_str(&format!(" WHERE {}", said.join(" AND ")));
        }
        sql.push_str(&format!(" LIMIT {rows}"));
        Some(sql)
    }

    pub(super) fn node(&self, node: &Value, outer: &Scope, top: bool, rows: Option<u64>) -> Option<String> {
        let mut scope = outer.clone();
        let mut ctes = Vec::new();
        for entry in list(&node["cte_map"], "map") {
            let (name, body) = (text(entry, "key"), &entry["value"]);
            if !is_blank(&body["aliases"]) || !is_blank(&body["key_targets"]) {
                return None;
            }
            let query = self.node(&body["query"]["node"], &scope, false, None)?;
            ctes.push(format!("{} AS ({query})", quoted(name)?));
            scope.ctes.push(name.to_lowercase());
            scope.columns.extend(aliases(&body["query"]));
        }
        let (mut body, mut distinct) = (String::new(), false);
        let (mut order, mut limit, mut offset) = (None, None, None);
        for modifier in list(node, "modifiers") {
            match text(modifier, "type") {
                "ORDER_MODIFIER" => order = Some(self.orders(list(modifier, "orders"), &scope)?),
                "DISTINCT_MODIFIER" if is_blank(&modifier["distinct_on_targets"]) => distinct = true,
                "LIMIT_MODIFIER" => {
                    let count = |value: &Value| match value {
                        Value::Null => Some(None),
                        value => value["value"]["value"].as_u64().map(Some),
                    };
                    (limit, offset) = (count(&modifier["limit"])?, count(&modifier["offset"])?);
                }
                _ => return None,
            }
        }
        match text(node, "type") {
            "SELECT_NODE" => {
                self.aliases_hide_nothing(node, &scope)?;
                body.push_str(&self.select(node, &scope, top, distinct)?);
            }
            "SET_OPERATION_NODE" => {
                let all = node["setop_all"].as_bool()?;
                let word = match (text(node, "setop_type"), all) {
                    ("UNION", true) => "UNION ALL",
                    ("UNION", false) => "UNION DISTINCT",
                    ("INTERSECT", false) => "INTERSECT DISTINCT",
                    ("EXCEPT", false) => "EXCEPT DISTINCT",
                    _ => return None,
                };
                let left = self.node(&node["left"], &scope, top, None)?;
                let right = self.node(&node["right"], &scope, false, None)?;
                body.push_str(&format!("({left}) {word} ({right})"));
                if distinct {
                    return None;
                }
            }
            _ => return None,
        }
        if let Some(order) = order {
            body.push_str(&format!(" ORDER BY {order}"));
        }
        let limit = match (limit, rows) {
            (Some(own), Some(rows)) => Some(own.min(rows)),
            (own, rows) => own.or(rows),
        };
        match (limit, offset) {
            (Some(limit), Some(offset)) => body.push_str(&format!(" LIMIT {limit} OFFSET {offset}")),
            (Some(limit), None) => body.push_str(&format!(" LIMIT {limit}")),
            (None, Some(_)) => return None,
            (None, None) => {}
        }
        let with = if ctes.is_empty() { String::new() } else { format!("WITH {} ", ctes.join(", ")) };
        Some(with + &body)
    }

    /// Nothing where a name that groups, orders or picks groups is an alias and another column at once:
    /// the two engines choose differently.
    fn aliases_hide_nothing(&self, node: &Value, scope: &Scope) -> Option<()> {
        let clauses = ["group_expressions", "having", "qualify", "modifiers"].map(|key| &node[key]);
        let used: Vec<&str> =
            clauses.into_iter().flat_map(everything).filter_map(|v| column(v)?.first().copied()).collect();
        let inside: Vec<String> = aliases(&node["from_table"]).collect();
        let known = |name: &str| {
            let is = |other: &String| other.eq_ignore_ascii_case(name);
            let columns = self.tables.values().flat_map(|(_, columns)| columns).map(|column| &column.0);
            columns.chain(&scope.columns).chain(&inside).any(is)
        };
        let hides = |item: &Value| {
            let alias = text(item, "alias");
            let same = column(item).is_some_and(|names| names.last().is_some_and(|n| n.eq_ignore_ascii_case(alias)));
            !alias.is_empty() && !same && used.iter().any(|name| name.eq_ignore_ascii_case(alias)) && known(alias)
        };
        (!list(node, "select_list").iter().any(hides)).then_some(())
    }

    fn select(&self, node: &Value, scope: &Scope, top: bool, distinct: bool) -> Option<String> {
        if text(node, "aggregate_handling") != "STANDARD_HANDLING" || !is_blank(&node["sample"]) {
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        let mut items = Vec::new();
        for (n, item) in list(node, "select_list").iter().enumerate() {
            if text(item, "class") == "STAR" {
                items.push(self.star(item)?);
                continue;
            }
            let alias = match (text(item, "alias"), column(item)) {
                ("", Some(names)) => (*names.last()?).to_owned(),
                // Its name here is not one there.
                ("", None) => format!("_c{n}"),
                (alias, _) => alias.to_owned(),
            };
            items.push(format!("{} AS {}", self.expr(item, scope)?, quoted(&alias)?));
            names.push(alias.to_lowercase());
        }
        names.sort();
        if top && names.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let mut sql = format!("SELECT {}{}", if distinct { "DISTINCT " } else { "" }, items.join(", "));
        let from = &node["from_table"];
        if text(from, "type") != "EMPTY" {
            sql.push_str(&format!(" FROM {}", self.table(from, scope)?));
        }
        let mut clause = |word: &str, value: &Value| -> Option<()> {
            if !value.is_null() {
                sql.push_str(&format!(" {word} {}", self.expr(value, scope)?));
            }
            Some(())
        };
        clause("WHERE", &node["where_clause"])?;
        let groups = list(node, "group_expressions");
        match list(node, "group_sets") {
            [] if groups.is_empty() => {}
            [set] if set.as_array().is_some_and(|set| set.len() == groups.len()) && !groups.is_empty() => {
                let groups =
                    groups.iter().map(|group| self.position_or_expr(group, scope)).collect::<Option<Vec<_>>>()?;
                sql.push_str(&format!(" GROUP BY {}", groups.join(", ")));
            }
            _ => return None,
        }
        for (word, key) in [("HAVING", "having"), ("QUALIFY", "qualify")] {
            if !node[key].is_null() {
                sql.push_str(&format!(" {word} {}", self.expr(&node[key], scope)?));
            }
        }
        Some(sql)
    }

    fn star(&self, item: &Value) -> Option<String> {
        let plain =
            ["exclude_list", "replace_list", "columns", "expr", "qualified_exclude_list", "rename_list", "alias"];
        if plain.iter().any(|key| !is_blank(&item[*key])) {
            return None;
        }
        match text(item, "relation_name") {
            "" => Some("*".to_owned()),
            name => Some(format!("{}.*", quoted(name)?)),
        }
    }

    fn table(&self, from: &Value, scope: &Scope) -> Option<String> {
        if !is_blank(&from["sample"]) || !is_blank(&from["column_name_alias"]) || !is_blank(&from["at_clause"]) {
            return None;
        }
        let alias = text(from, "alias");
        match text(from, "type") {
            "BASE_TABLE" => {
                let name = text(from, "table_name");
                let lower = name.to_lowercase();
                let alias = quoted(if alias.is_empty() { name } else { alias })?;
                if !text(from, "catalog_name").is_empty() || !["", "main"].contains(&text(from, "schema_name")) {
                    return None;
                }
                if text(from, "schema_name").is_empty() && scope.ctes.contains(&lower) {
                    return Some(format!("{} AS {alias}", quoted(name)?));
                }
                let (path, _) = self.tables.get(&lower)?;
                Some(format!("{} AS {alias}", place(path)?))
            }
            "SUBQUERY" => {
                let query = self.node(&from["subquery"]["node"], scope, false, None)?;
                let alias = if alias.is_empty() { String::new() } else { format!(" AS {}", quoted(alias)?) };
                Some(format!("({query}){alias}"))
            }
            "JOIN" => {
                let (left, right) = (self.table(&from["left"], scope)?, self.table(&from["right"], scope)?);
                let word = match (text(from, "ref_type"), text(from, "join_type")) {
                    ("CROSS", _) => return Some(format!("({left} CROSS JOIN {right})")),
                    ("REGULAR", "INNER") => "JOIN",
                    ("REGULAR", "LEFT") => "LEFT JOIN",
                    ("REGULAR", "RIGHT") => "RIGHT JOIN",
                    ("REGULAR", "OUTER") => "FULL JOIN",
                    _ => return None,
                };
                let using = list(from, "using_columns");
                if !using.is_empty() {
                    let using = using.iter().map(|name| quoted(name.as_str()?)).collect::<Option<Vec<_>>>()?;
                    return Some(format!("({left} {word} {right} USING ({}))", using.join(", ")));
                }
                Some(format!("({left} {word} {right} ON {})", self.expr(&from["condition"], scope)?))
            }
            _ => None,
        }
    }

    /// What stands in `ORDER BY` or `GROUP BY`: a number is a position there.
    fn position_or_expr(&self, value: &Value, scope: &Scope) -> Option<String> {
        match text(value, "class") {
            "CONSTANT" => value["value"]["value"].as_u64().map(|n| n.to_string()),
            _ => self.expr(value, scope),
        }
    }

    pub(super) fn orders(&self, orders: &[Value], scope: &Scope) -> Option<String> {
        let one = |order: &Value| {
            let what = self.position_or_expr(&order["expression"], scope)?;
            let direction = match text(order, "type") {
                "ORDER_DEFAULT" | "ASCENDING" => "ASC",
                "DESCENDING" => "DESC",
                _ => return None,
            };
            // Nulls are last here unless something else is said, first there.
            let nulls = match text(order, "null_order") {
                "ORDER_DEFAULT" | "NULLS LAST" => "LAST",
                "NULLS FIRST" => "FIRST",
                _ => return None,
            };
            Some(format!("{what} {direction} NULLS {nulls}"))
        };
        Some(orders.iter().map(one).collect::<Option<Vec<_>>>()?.join(", "))
    }
}

/// What is selected under a name of its own, anywhere in a query.
fn aliases(query: &Value) -> impl Iterator<Item = String> {
    let items = everything(query).flat_map(|node| list(node, "select_list"));
    items.map(|item| text(item, "alias").to_owned()).filter(|alias| !alias.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sandbox::Gate;

    async fn said(gate: &Gate, sql: &str) -> Option<String> {
        let column = |(name, kind): (&str, &str)| (name.to_owned(), kind.to_owned(), true);
        let columns = [
            ("id", "BIGINT"),
            ("name", "VARCHAR"),
            ("day", "DATE"),
            ("at", "TIMESTAMP WITH TIME ZONE"),
            ("x", "DOUBLE"),
        ];
        let path = WarehousePath { project: "acme-data".into(), dataset: "d".into(), table: "t".into() };
        let tables = BTreeMap::from([("t".to_owned(), (path, columns.map(column).to_vec()))]);
        let params = Params::Positional(vec![query::Value::from("it's \\ `"), query::Value::Float(0.5)]);
        Dialect::new(&tables, &params).statement(&gate.tree(sql).await.unwrap(), Some(11))
    }

    #[tokio::test]
    async fn what_is_written_is_the_trees_and_nothing_of_the_text() {
        let gate = Gate::start().await.unwrap();
        const FROM: &str = "`acme-data`.`d`.`t` AS `t`";
        for (sql, wanted) in [
            (
                "select ID, count(*) from t /* ` */ group by id",
                "SELECT `ID` AS `ID`, COUNT(*) AS `_c1` FROM {t} GROUP BY `id` LIMIT 11",
            ),
            (
                "select id from t where name = 'a\\\\''; drop -- `x`' limit 5",
                "SELECT `id` AS `id` FROM {t} WHERE (`name` = 'a\\\\\\'; drop -- `x`') LIMIT 5",
            ),
            (
                "select id from t where name = $1 and x > $2 limit 50",
                "SELECT `id` AS `id` FROM {t} WHERE ((`name` = 'it\\'s \\\\ `') AND (`x` > CAST('5e-1' AS FLOAT64))) LIMIT 11",
            ),
            (
                "select id from t where day >= '2024-01-01' and \"at\" < timestamp '2024-01-02 03:04:05.5'",
                "SELECT `id` AS `id` FROM {t} WHERE ((`day` >= DATE '2024-01-01') AND (`at` < TIMESTAMP '2024-01-02 03:04:05.5+00:00')) LIMIT 11",
            ),
            (
                "select id from t where day > current_date - interval 7 day",
                "SELECT `id` AS `id` FROM {t} WHERE (`day` > (CURRENT_DATE() - INTERVAL 7 DAY)) LIMIT 11",
            ),
            (
                "select 1.50 as a, -2 as b from t order by x",
                "SELECT NUMERIC '1.50' AS `a`, -2 AS `b` FROM {t} ORDER BY `x` ASC NULLS LAST LIMIT 11",
            ),
            (
                "select name, sum(x) as x from t group by name order by count(*)",
                "SELECT `name` AS `name`, SUM(`x`) AS `x` FROM {t} GROUP BY `name` ORDER BY COUNT(*) ASC NULLS LAST LIMIT 11",
            ),
            (
                "with c as (select id from t) select c.id from c order by 1 desc nulls first",
                "WITH `c` AS (SELECT `id` AS `id` FROM {t}) SELECT `c`.`id` AS `id` FROM `c` AS `c` ORDER BY 1 DESC NULLS FIRST LIMIT 11",
            ),
        ] {
            assert_eq!(
                said(&gate, &sql.replace("\\\\", "\\")).await.as_deref(),
                Some(wanted.replace("{t}", FROM).replace("\\\\\\\\", "\\\\").as_str()),
                "{sql}"
            );
        }
    }

    #[tokio::test]
    async fn what_may_mean_something_else_there_is_not_said() {
        let gate = Gate::start().await.unwrap();
        for sql in [
            "select id from other",
            "select id from t where id = '5'",
            "select id from t where day = '2024-1-1'",
            "select id from t where name = date '2024-01-01'",
            "select id, id from t",
            "select name || 1, list(id) from t group by 1",
            "select x::varchar from t",
            "select x::bigint from t",
            "select name ilike 'a' from t",
            "select name like 'a\\%' from t",
            "select id // 2 from t",
            "select id % 0 from t",
            "select greatest(id, 1) from t",
            "select concat(name, 'x') from t",
            "select sum(id order by id) from t",
            "select name as id from t group by id",
            "select name, sum(x) as x from t group by name order by x",
            "select name, sum(x) as x from t group by name having x > 1",
            "with c as (select name as n from t) select upper(n) as n, count(*) from c group by n",
            "select upper(n) as n, count(*) from (select name as n from t) group by n",
            "select * exclude (id) from t",
            "select id from t group by all",
            "select id from t using sample 10%",
            "select id from t a semi join t b using (id)",
            "select id from t except all select id from t",
            "select random() from t",
            "select try_cast(name as bigint) from t",
            "select a from t as u(a, b, c, d, e)",
            "select id from t where id = (select max(id) from t) or id > all (select 1)",
        ] {
            assert_eq!(said(&gate, sql).await, None, "{sql}");
        }
    }
}

//! How little of a table has to be moved here for a query: which columns, and rows that hold
//! which predicates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tree::{column, everything, list, text};

/// What a query needs of one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Need {
    /// Names of the columns, in lower case; all when none.
    pub(crate) columns: Option<BTreeSet<String>>,
    /// Predicates that its rows must hold, as trees.
    pub(crate) filters: Vec<Value>,
}

/// Whether a statement asks what tables are like, not what is in them.
pub(crate) fn only_describes(statement: &Value) -> bool {
    let shows: Vec<&Value> = everything(statement).filter(|v| text(v, "type") == "SHOW_REF").collect();
    !shows.is_empty() && shows.iter().all(|show| text(show, "show_type") == "DESCRIBE")
}

/// What `statement` needs of the table `name` (lower case), which has `columns`.
pub(crate) fn needs(statement: &Value, name: &str, columns: &[String]) -> Need {
    let mut filters = Vec::new();
    let named = |v: &&Value| text(v, "type") == "BASE_TABLE" && text(v, "table_name").eq_ignore_ascii_case(name);
    let places = everything(statement).filter(named).count();
    let shadowed = everything(statement).any(|v| {
        v.get("value").is_some() && text(v, "key").eq_ignore_ascii_case(name)
            || text(v, "cte_name").eq_ignore_ascii_case(name)
    });
    // Named twice, each place would need rows of its own.
    if places == 1 && !shadowed {
        for node in everything(statement).filter(|v| text(v, "type") == "SELECT_NODE") {
            if let Some(alias) = alias_in(&node["from_table"], name) {
                let alone = text(&node["from_table"], "type") == "BASE_TABLE";
                let own = |names: &[&str]| match names {
                    [column] => alone && columns.iter().any(|known| known.eq_ignore_ascii_case(column)),
                    [table, column] => {
                        table.eq_ignore_ascii_case(&alias)
                            && columns.iter().any(|known| known.eq_ignore_ascii_case(column))
                    }
                    _ => false,
                };
                conjuncts(&node["where_clause"], &mut |part| {
                    if is_simple(part, &own) {
                        let mut part = part.clone();
                        unqualify(&mut part);
                        filters.push(part);
                    }
                });
            }
        }
    }
    Need { columns: columns_of(statement, name, columns), filters }
}

/// The columns whose name stands anywhere in the statement; none where it may mean all.
fn columns_of(statement: &Value, name: &str, columns: &[String]) -> Option<BTreeSet<String>> {
    let mut words: BTreeSet<String> = BTreeSet::new();
    let mut aliases = BTreeSet::from([name.to_owned()]);
    for value in everything(statement) {
        if let Value::String(word) = value {
            words.insert(word.to_lowercase());
        }
        if text(value, "type") == "BASE_TABLE" && text(value, "table_name").eq_ignore_ascii_case(name) {
            aliases.extend(Some(text(value, "alias").to_lowercase()).filter(|alias| !alias.is_empty()));
            // Columns that get other names by position.
            if !list(value, "column_name_alias").is_empty() {
                return None;
            }
        }
    }
    let means_all = |value: &Value| match text(value, "type") {
        "PIVOT" | "SHOW_REF" => true,
        "JOIN" => text(value, "ref_type") == "NATURAL",
        "STAR" => aliases.contains(&text(value, "relation_name").to_lowercase()),
        // A star over other relations is none of its columns.
        "SELECT_NODE" => {
            stands_in(&value["from_table"], name)
                && own(value).any(|v| text(v, "class") == "STAR" && text(v, "relation_name").is_empty())
        }
        // A relation as a value: a struct of all its columns.
        "COLUMN_REF" => column(value).is_some_and(|names| {
            matches!(names.as_slice(), [one] if aliases.contains(&one.to_lowercase())
                && !columns.iter().any(|known| known.eq_ignore_ascii_case(one)))
        }),
        _ => false,
    };
    if everything(statement).any(means_all) {
        return None;
    }
    Some(columns.iter().map(|name| name.to_lowercase()).filter(|name| words.contains(name)).collect())
}

/// What stands in a `SELECT` itself, not in one inside of it.
fn own(node: &Value) -> impl Iterator<Item = &Value> {
    let mut work: Vec<&Value> = node.as_object().into_iter().flat_map(|map| map.values()).collect();
    std::iter::from_fn(move || {
        let next = work.pop()?;
        match next {
            Value::Object(map) if text(next, "type") != "SELECT_NODE" => work.extend(map.values()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
        Some(next)
    })
}

/// Whether the table itself is one of those in a `FROM`, however they are joined.
fn stands_in(from: &Value, name: &str) -> bool {
    match text(from, "type") {
        "BASE_TABLE" => text(from, "table_name").eq_ignore_ascii_case(name),
        "JOIN" | "PIVOT" => ["left", "right", "source"].iter().any(|side| stands_in(&from[*side], name)),
        _ => false,
    }
}

/// The name under which the table stands in a `FROM` of plain joins.
fn alias_in(from: &Value, name: &str) -> Option<String> {
    match text(from, "type") {
        "BASE_TABLE" if text(from, "table_name").eq_ignore_ascii_case(name) => {
            let plain = from["sample"].is_null() && list(from, "column_name_alias").is_empty();
            let alias = text(from, "alias");
            plain.then(|| if alias.is_empty() { name.to_owned() } else { alias.to_lowercase() })
        }
        // In others (ASOF, SEMI, POSITIONAL) which row meets which depends on those that are gone.
        "JOIN"
            if ["REGULAR", "CROSS"].contains(&text(from, "ref_type"))
                && ["INNER", "LEFT", "RIGHT", "OUTER"].contains(&text(from, "join_type")) =>
        {
            alias_in(&from["left"], name).or_else(|| alias_in(&from["right"], name))
        }
        _ => None,
    }
}

fn conjuncts<'a>(value: &'a Value, each: &mut impl FnMut(&'a Value)) {
    match text(value, "type") {
        "CONJUNCTION_AND" => list(value, "children").iter().for_each(|child| conjuncts(child, each)),
        _ if value.is_null() => {}
        _ => each(value),
    }
}

/// Whether a predicate compares a column of the table with values, so that it can neither fail
/// nor hold for a row that a join made up.
fn is_simple(value: &Value, own: &dyn Fn(&[&str]) -> bool) -> bool {
    let is_own = |v: &Value| column(v).is_some_and(|names| own(&names));
    let is_value = |v: &Value| match text(v, "class") {
        "CONSTANT" => v["value"]["is_null"] != true,
        "PARAMETER" => true,
        "CAST" => text(&v["child"], "class") == "CONSTANT",
        _ => false,
    };
    match (text(value, "class"), text(value, "type")) {
        ("COMPARISON", kind) if !kind.contains("DISTINCT") => {
            (is_own(&value["left"]) && is_value(&value["right"]))
                || (is_own(&value["right"]) && is_value(&value["left"]))
        }
        ("BETWEEN", _) => is_own(&value["input"]) && is_value(&value["lower"]) && is_value(&value["upper"]),
        ("OPERATOR", "COMPARE_IN") => match list(value, "children") {
            [one, rest @ ..] => is_own(one) && rest.iter().all(is_value),
            [] => false,
        },
        _ => false,
    }
}

/// Takes the relation from the names of columns.
fn unqualify(value: &mut Value) {
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        if column(value).is_some_and(|names| names.len() == 2)
            && let Some(Value::Array(names)) = value.get_mut("column_names")
        {
            names.remove(0);
        }
        match value {
            Value::Object(map) => work.extend(map.values_mut()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sandbox::Gate;

    async fn need(sql: &str) -> (Option<Vec<String>>, usize) {
        let tree = Gate::start().await.unwrap().tree(sql).await.unwrap();
        let columns = ["id", "Day", "country", "price"].map(str::to_owned);
        let need = needs(&tree, "t", &columns);
        (need.columns.map(|columns| columns.into_iter().collect()), need.filters.len())
    }

    #[tokio::test]
    async fn columns_and_rows_are_as_few_as_can_be_said() {
        let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        for (sql, columns, filters) in [
            ("SELECT count(*) FROM t", some(&[]), 0),
            (
                "SELECT DAY FROM t WHERE id = 1 AND price > $1 AND lower(country) = 'x'",
                some(&["country", "day", "id", "price"]),
                2,
            ),
            (
                "SELECT x.id FROM t AS x JOIN (SELECT * FROM u) AS u ON x.id = u.id WHERE x.day < DATE '2024-01-01' AND u.day = 1",
                some(&["day", "id"]),
                1,
            ),
            (
                "SELECT id FROM t LEFT JOIN u USING (country) WHERE t.price IN (1, 2)",
                some(&["country", "id", "price"]),
                1,
            ),
            // A name that may be of another relation, a row that a join may have made up.
            ("SELECT t.id FROM t JOIN u ON true WHERE price = 1", some(&["id", "price"]), 0),
            ("SELECT t.id FROM u LEFT JOIN t ON true WHERE t.price IS NULL", some(&["id", "price"]), 0),
            ("SELECT t.id FROM t JOIN u ON true WHERE t.price = u.price", some(&["id", "price"]), 0),
            ("SELECT id FROM t WHERE price = 1 OR id = 2", some(&["id", "price"]), 0),
            // Which row meets which depends on all of them.
            ("SELECT t.id FROM u ASOF JOIN t ON u.id >= t.id WHERE t.price = 1", some(&["id", "price"]), 0),
            ("SELECT a.id FROM t a, t b WHERE a.id = 1", some(&["id"]), 0),
            ("WITH t AS (SELECT 1 AS id) SELECT id FROM t WHERE id = 1", some(&["id"]), 0),
            ("SELECT * FROM t WHERE id = 1", None, 1),
            ("SELECT t FROM t", None, 0),
            ("SELECT x FROM t AS x", None, 0),
            ("SELECT id FROM t NATURAL JOIN u", None, 0),
            ("SELECT a FROM t AS x(a, b, c, d)", None, 0),
            ("SELECT COLUMNS('i.*') FROM t", None, 0),
            ("SUMMARIZE t", None, 0),
        ] {
            assert_eq!(need(sql).await, (columns, filters), "{sql}");
        }
    }
}

//! Which functions a query may call.

use std::collections::HashSet;

/// Table functions a query may name in FROM.
pub(super) const TABLE_FUNCTIONS: [&str; 6] =
    ["range", "generate_series", "unnest", "json_each", "json_tree", "repeat"];

/// The functions of the official library of one version, which heads them: asking an engine for
/// them takes longer than opening it. A new version shows here what it brings.
const LISTED: &str = include_str!("functions.txt");

/// The functions of an engine of this version, where they are known without asking it.
pub(super) fn listed(version: &str) -> Option<Vec<String>> {
    let (of, names) = LISTED.split_once('\n')?;
    // Of an engine that is compiled in, others are missing.
    let is_known = of == version && !cfg!(feature = "bundled");
    is_known.then(|| names.lines().map(str::to_owned).collect())
}

/// Understood by the parser or the binder itself, so not in the catalog of functions.
const BINDER_FUNCTIONS: [&str; 16] = [
    "unnest",
    "unlist",
    "grouping",
    "grouping_id",
    "ifnull",
    "coalesce",
    "nullif",
    "columns",
    "try",
    "row",
    "struct_pack",
    "list_value",
    "array",
    "map",
    "if",
    "date",
];

/// Functions of the pristine engine that touch more than their arguments: settings,
/// sequences, logs, sleep, the catalog, or engine internals.
const DENIED: [&str; 40] = [
    "current_setting",
    "set_config",
    "getvariable",
    "getenv",
    "nextval",
    "currval",
    "write_log",
    "sleep_ms",
    "json_execute_serialized_sql",
    "json_serialize_sql",
    "json_serialize_plan",
    "json_deserialize_sql",
    "in_search_path",
    "query",
    "query_table",
    "txid_current",
    "current_query",
    "current_query_id",
    "current_connection_id",
    "current_transaction_id",
    "current_schemas",
    "get_block_size",
    "map_to_pg_oid",
    "format_pg_type",
    "format_type",
    "obj_description",
    "col_description",
    "shobj_description",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "parse_duckdb_log_message",
    "stats",
    "vector_type",
    "finalize",
    "combine",
    "file_exists",
    "load_aws_credentials",
    "add_parquet_key",
];

/// Functions with these names stay usable although a pattern below matches them.
const KNOWN_GOOD: [&str; 2] = ["pg_typeof", "pg_size_pretty"];

fn is_denied(name: &str) -> bool {
    if KNOWN_GOOD.contains(&name) {
        return false;
    }
    DENIED.contains(&name)
        || ["__internal_", "duckdb_", "sqlite_", "pragma_", "pg_", "has_", "read_", "write_", "st_read"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || ["_query", "_execute", "_scan", "_privilege"].iter().any(|suffix| name.ends_with(suffix))
}

/// Names a scalar, aggregate or window function of a query may have.
#[derive(Debug)]
pub(super) struct Functions {
    pristine: HashSet<String>,
}

/// What the list says of a function.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied,
    Unknown(Option<String>),
}

impl Functions {
    /// From the functions of a pristine engine.
    pub(super) fn new(pristine: impl IntoIterator<Item = String>) -> Self {
        let mut pristine: HashSet<String> = pristine.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        pristine.extend(BINDER_FUNCTIONS.map(str::to_owned));
        Self { pristine }
    }

    /// Whether `name` may be called; fails closed on names the pristine engine lacks.
    pub(super) fn verdict(&self, name: &str) -> Verdict {
        let name = name.to_ascii_lowercase();
        if is_denied(&name) {
            return Verdict::Denied;
        }
        if self.pristine.contains(&name) {
            return Verdict::Allowed;
        }
        let allowed = self.pristine.iter().map(String::as_str).filter(|name| !is_denied(name));
        Verdict::Unknown(crate::ident::nearest(&name, allowed).map(str::to_owned))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let functions =
            Functions::new(["sum", "hash", "current_setting", "has_table_privilege", "pg_typeof"].map(str::to_owned));
        let check = |name: &str, allowed: bool| {
            assert_eq!(functions.verdict(name) == Verdict::Allowed, allowed, "{name}");
        };
        check("sum", true);
        check("SUM", true);
        check("hash", true);
        check("pg_typeof", true);
        check("coalesce", true);
        check("Current_Setting", false);
        check("has_table_privilege", false);
        check("__internal_compress_string_hugeint", false);
        check("postgres_execute", false);
        check("no_such", false);
        assert_eq!(functions.verdict("summ"), Verdict::Unknown(Some("sum".to_owned())));
    }
}

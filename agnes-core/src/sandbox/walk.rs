//! The walk over the whole syntax tree: iterative, bounded, failing closed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::SandboxError;
use super::functions::{Functions, TABLE_FUNCTIONS, Verdict};
use super::grammar::{self, Field, Fields};
use crate::ident::printable;

/// Most nodes a query's tree may have.
pub const MAX_NODES: usize = 50_000;
/// How deep a query's tree may nest.
pub const MAX_DEPTH: usize = 200;

/// What a query asks about the catalog; answered from the caller's grant set alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemRelation {
    /// `SHOW TABLES`.
    ShowTables,
    /// `information_schema.tables`.
    Tables,
    /// `information_schema.columns`.
    Columns,
}

impl SystemRelation {
    pub(super) const ALL: [Self; 3] = [Self::ShowTables, Self::Tables, Self::Columns];

    /// Name of the relation that stands for it in an instance.
    #[must_use]
    pub fn relation(self) -> &'static str {
        match self {
            Self::ShowTables => "__agnes_show_tables",
            Self::Tables => "__agnes_tables",
            Self::Columns => "__agnes_columns",
        }
    }
}

/// A relation a query names outside the scope of a CTE of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    /// As written.
    pub(super) name: String,
    /// Named in a catalog or schema that is not the published one.
    pub(super) foreign: bool,
}

/// What the walk found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Relations in order of appearance, each once.
    pub(super) relations: Vec<Named>,
    /// Asked of the catalog.
    pub(super) system: BTreeSet<SystemRelation>,
    /// Whether the tree has to be written anew before it runs.
    pub(super) rewrite: bool,
    /// Names of bind parameters (`1`, `2`, ... for positional ones).
    pub(super) params: BTreeSet<String>,
    /// A function that is called on a column (`name.lower()`), which the tree does not tell
    /// from one in a schema of that name.
    pub(super) method: Option<String>,
}

enum Work<'a> {
    Struct { object: &'a Map<String, Value>, fields: &'static [Fields], scope: usize, depth: usize },
    Expr(&'a Value, usize, usize),
    Table(&'a Value, usize, usize),
    Node(&'a Value, usize, usize),
    Modifier(&'a Value, usize, usize),
}

struct Scope {
    name: String,
    parent: usize,
}

/// Walks a statement (`{node, named_param_map}`).
pub(super) fn walk(statement: &Value, functions: &Functions) -> Result<Facts, SandboxError> {
    let mut walk = Walk {
        functions,
        facts: Facts::default(),
        scopes: vec![Scope { name: String::new(), parent: 0 }],
        nodes: 0,
        work: Vec::new(),
    };
    let object = statement.as_object().ok_or_else(|| shape("statement"))?;
    walk.work.push(Work::Struct { object, fields: &[grammar::SELECT], scope: 0, depth: 0 });
    walk.run()?;
    Ok(walk.facts)
}

struct Walk<'a, 'f> {
    functions: &'f Functions,
    facts: Facts,
    /// CTE names in scope as linked lists; 0 is the end.
    scopes: Vec<Scope>,
    nodes: usize,
    work: Vec<Work<'a>>,
}

fn shape(what: &str) -> SandboxError {
    SandboxError::Unsupported { what: printable(what, 60) }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, SandboxError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(shape(key)),
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], SandboxError> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(shape(key)),
    }
}

/// Refuses data that holds something which could be evaluated.
fn check_data(value: &Value, key: &str) -> Result<(), SandboxError> {
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        match value {
            Value::Object(map) => {
                if ["class", "from_table", "cte_map", "table_name", "function_name"]
                    .iter()
                    .any(|k| map.contains_key(*k))
                {
                    return Err(shape(key));
                }
                work.extend(map.values());
            }
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
    Ok(())
}

impl<'a> Walk<'a, '_> {
    fn run(&mut self) -> Result<(), SandboxError> {
        while let Some(work) = self.work.pop() {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(SandboxError::TooComplex { what: "it has too many parts" });
            }
            match work {
                Work::Struct { object, fields, scope, depth } => self.fields(object, fields, scope, depth)?,
                Work::Expr(value, scope, depth) => self.expression(value, scope, depth)?,
                Work::Table(value, scope, depth) => self.table(value, scope, depth)?,
                Work::Node(value, scope, depth) => self.node(value, scope, depth)?,
                Work::Modifier(value, scope, depth) => {
                    let object = value.as_object().ok_or_else(|| shape("modifier"))?;
                    let kind = text(object, "type")?;
                    let fields = grammar::modifier(kind).ok_or_else(|| shape(kind))?;
                    self.fields(object, &[fields], scope, depth)?;
                }
            }
        }
        Ok(())
    }

    /// Queues what stands in the fields of `object`; every field must be listed.
    fn fields(
        &mut self,
        object: &'a Map<String, Value>,
        lists: &[Fields],
        scope: usize,
        depth: usize,
    ) -> Result<(), SandboxError> {
        let depth = depth + 1;
        if depth > MAX_DEPTH {
            return Err(SandboxError::TooComplex { what: "it nests too deep" });
        }
        for (key, value) in object {
            let field = lists
                .iter()
                .flat_map(|fields| fields.iter())
                .find(|(name, _)| name == key)
                .map(|(_, field)| *field)
                .ok_or_else(|| shape(key))?;
            self.field(key, field, value, scope, depth)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        key: &str,
        field: Field,
        value: &'a Value,
        scope: usize,
        depth: usize,
    ) -> Result<(), SandboxError> {
        let mut structs = |items: &'a [Value], fields: &'static [Fields]| -> Result<(), SandboxError> {
            for item in items {
                let object = item.as_object().ok_or_else(|| shape(key))?;
                self.work.push(Work::Struct { object, fields, scope, depth });
            }
            Ok(())
        };
        match field {
            Field::Data => check_data(value, key)?,
            Field::Never if is_blank(value) => {}
            Field::Never => return Err(shape(key)),
            Field::Expr => {
                if !value.is_null() {
                    self.work.push(Work::Expr(value, scope, depth));
                }
            }
            Field::Exprs => self.work.extend(list(value, key)?.iter().map(|item| Work::Expr(item, scope, depth))),
            Field::ExprLists => {
                for row in list(value, key)? {
                    self.work.extend(list(row, key)?.iter().map(|item| Work::Expr(item, scope, depth)));
                }
            }
            Field::NamedExprs => structs(list(value, key)?, &[grammar::NAMED])?,
            Field::Orders => structs(list(value, key)?, &[grammar::ORDER])?,
            Field::Cases => structs(list(value, key)?, &[grammar::CASE])?,
            Field::Pivots => structs(list(value, key)?, &[grammar::PIVOT])?,
            Field::PivotEntries => structs(list(value, key)?, &[grammar::PIVOT_ENTRY])?,
            Field::Select => {
                if !value.is_null() {
                    structs(std::slice::from_ref(value), &[grammar::SELECT])?;
                }
            }
            Field::Node => {
                if !value.is_null() {
                    self.work.push(Work::Node(value, scope, depth));
                }
            }
            Field::Nodes => self.work.extend(list(value, key)?.iter().map(|item| Work::Node(item, scope, depth))),
            Field::Table => {
                if !value.is_null() {
                    self.work.push(Work::Table(value, scope, depth));
                }
            }
            Field::Modifiers => {
                self.work.extend(list(value, key)?.iter().map(|item| Work::Modifier(item, scope, depth)))
            }
            Field::Modifier => {
                if !value.is_null() {
                    self.work.push(Work::Modifier(value, scope, depth));
                }
            }
            Field::Done => {}
        }
        Ok(())
    }

    /// A query node. Its CTEs see those before them; the node itself sees all.
    fn node(&mut self, value: &'a Value, outer: usize, depth: usize) -> Result<(), SandboxError> {
        let object = value.as_object().ok_or_else(|| shape("query"))?;
        let kind = text(object, "type")?;
        let fields = grammar::query_node(kind).ok_or_else(|| shape(kind))?;
        let mut scope = outer;
        match object.get("cte_map") {
            None | Some(Value::Null) => {}
            Some(Value::Object(ctes)) => {
                if ctes.keys().any(|key| key != "map") {
                    return Err(shape("cte_map"));
                }
                for entry in ctes.get("map").map_or(Ok(&[][..]), |map| list(map, "cte_map"))? {
                    let entry = entry.as_object().filter(|entry| entry.keys().all(|k| k == "key" || k == "value"));
                    let entry = entry.ok_or_else(|| shape("cte_map"))?;
                    let name = text(entry, "key")?.to_ascii_lowercase();
                    let body = entry.get("value").and_then(Value::as_object).ok_or_else(|| shape("cte_map"))?;
                    self.work.push(Work::Struct { object: body, fields: &[grammar::CTE], scope, depth });
                    scope = self.open(name, scope);
                }
            }
            Some(_) => return Err(shape("cte_map")),
        }
        if kind == "RECURSIVE_CTE_NODE" {
            let name = text(object, "cte_name")?.to_ascii_lowercase();
            let own = self.open(name, scope);
            if let Some(right) = object.get("right") {
                self.work.push(Work::Node(right, own, depth + 1));
            }
            for (key, value) in object.iter().filter(|(key, _)| *key != "right") {
                let field = fields.iter().chain(grammar::QUERY_NODE).find(|(name, _)| name == key);
                let (_, field) = field.ok_or_else(|| shape(key))?;
                self.field(key, *field, value, scope, depth + 1)?;
            }
            return if depth < MAX_DEPTH {
                Ok(())
            } else {
                Err(SandboxError::TooComplex { what: "it nests too deep" })
            };
        }
        self.fields(object, &[grammar::QUERY_NODE, fields], scope, depth)
    }

    fn open(&mut self, name: String, parent: usize) -> usize {
        self.scopes.push(Scope { name, parent });
        self.scopes.len() - 1
    }

    fn in_scope(&self, name: &str, mut scope: usize) -> bool {
        while scope != 0 {
            if self.scopes[scope].name == name {
                return true;
            }
            scope = self.scopes[scope].parent;
        }
        false
    }

    fn expression(&mut self, value: &'a Value, scope: usize, depth: usize) -> Result<(), SandboxError> {
        let object = value.as_object().ok_or_else(|| shape("expression"))?;
        let class = text(object, "class")?;
        let fields = grammar::expression(class).ok_or_else(|| shape(class))?;
        match class {
            "FUNCTION" | "WINDOW" => self.function(object)?,
            "PARAMETER" => {
                self.facts.params.insert(text(object, "identifier")?.to_owned());
            }
            // Lets a column be named through the schema whose relation is rewritten.
            "COLUMN_REF" => self.facts.rewrite |= object.get("column_names").is_some_and(is_information_schema_column),
            _ => {}
        }
        self.fields(object, &[grammar::EXPRESSION, fields], scope, depth)
    }

    fn function(&mut self, object: &Map<String, Value>) -> Result<(), SandboxError> {
        let name = text(object, "function_name")?;
        let schema = text(object, "schema")?.to_ascii_lowercase();
        let catalog = text(object, "catalog")?.to_ascii_lowercase();
        let own = ["", "main"].contains(&schema.as_str()) && ["", "system"].contains(&catalog.as_str());
        if !own {
            let full = || printable(&format!("{schema}.{name}"), 80);
            if schema == "main" || [&schema, &catalog].iter().any(|s| ENGINE_SCHEMAS.contains(&s.as_str())) {
                return Err(SandboxError::FunctionDenied { name: full() });
            }
            // The name decides, whatever it is called on.
            self.facts.method.get_or_insert_with(full);
        }
        match self.functions.verdict(name) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(SandboxError::FunctionDenied { name: printable(name, 80) }),
            Verdict::Unknown(suggestion) => {
                Err(SandboxError::FunctionUnknown { name: printable(name, 80), suggestion })
            }
        }
    }

    fn table(&mut self, value: &'a Value, scope: usize, depth: usize) -> Result<(), SandboxError> {
        let object = value.as_object().ok_or_else(|| shape("table"))?;
        let kind = text(object, "type")?;
        let fields = grammar::table_ref(kind).ok_or_else(|| shape(kind))?;
        match kind {
            "BASE_TABLE" => self.relation(object, scope)?,
            "TABLE_FUNCTION" => {
                let function = object.get("function").and_then(Value::as_object).ok_or_else(|| shape(kind))?;
                let name = text(function, "function_name")?;
                if text(function, "class")? != "FUNCTION"
                    || !TABLE_FUNCTIONS.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
                {
                    return Err(SandboxError::TableFunctionDenied { name: printable(name, 80) });
                }
                if !text(function, "schema")?.is_empty() || !text(function, "catalog")?.is_empty() {
                    return Err(SandboxError::TableFunctionDenied { name: printable(name, 80) });
                }
                // The name is checked; its arguments are ordinary expressions.
                for (key, value) in function {
                    let known = grammar::EXPRESSION.iter().chain(grammar::expression("FUNCTION").unwrap_or_default());
                    let (_, field) = known.into_iter().find(|(name, _)| name == key).ok_or_else(|| shape(key))?;
                    self.field(key, *field, value, scope, depth + 1)?;
                }
                let rest: Fields = &[("function", Field::Done)];
                return self.fields(object, &[grammar::TABLE_REF, rest, fields], scope, depth);
            }
            "SHOW_REF" => self.show(object)?,
            _ => {}
        }
        self.fields(object, &[grammar::TABLE_REF, fields], scope, depth)
    }

    fn show(&mut self, object: &Map<String, Value>) -> Result<(), SandboxError> {
        let what = text(object, "table_name")?;
        let show = text(object, "show_type")?;
        let plain = text(object, "catalog_name")?.is_empty() && text(object, "schema_name")?.is_empty();
        let asks_query = object.get("query").is_some_and(|query| !query.is_null());
        match show {
            "DESCRIBE" | "SUMMARY" if asks_query && plain && what.is_empty() => Ok(()),
            "SHOW_UNQUALIFIED" if !asks_query && plain && what == "\"tables\"" => {
                self.facts.system.insert(SystemRelation::ShowTables);
                self.facts.rewrite = true;
                Ok(())
            }
            _ => Err(shape(&format!("SHOW {}", what.trim_matches('"')))),
        }
    }

    fn relation(&mut self, object: &Map<String, Value>, scope: usize) -> Result<(), SandboxError> {
        let name = text(object, "table_name")?;
        let schema = text(object, "schema_name")?.to_ascii_lowercase();
        let catalog = text(object, "catalog_name")?.to_ascii_lowercase();
        let lower = name.to_ascii_lowercase();
        if catalog.is_empty() && (schema.is_empty() || schema == "recurring") && self.in_scope(&lower, scope) {
            return Ok(());
        }
        let full = [catalog.as_str(), schema.as_str(), name]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(".");
        if catalog.is_empty() && schema == "information_schema" {
            let system = match lower.as_str() {
                "tables" => SystemRelation::Tables,
                "columns" => SystemRelation::Columns,
                _ => return Err(SandboxError::EngineRelation { name: printable(&full, 120) }),
            };
            self.facts.system.insert(system);
            self.facts.rewrite = true;
            return Ok(());
        }
        if ENGINE_SCHEMAS[1..].iter().any(|s| schema == *s || catalog == *s) {
            return Err(SandboxError::EngineRelation { name: printable(&full, 120) });
        }
        let foreign = !(catalog.is_empty() && (schema.is_empty() || schema == "main"));
        if !foreign {
            if looks_like_file(&lower) {
                return Err(SandboxError::FileRelation { name: printable(name, 120) });
            }
            let engine = ["_meta", "_remote_attach", "duckdb_", "sqlite_", "pg_", "pragma_"];
            if engine.iter().any(|prefix| lower.starts_with(prefix)) {
                return Err(SandboxError::EngineRelation { name: printable(name, 120) });
            }
        }
        let named = Named { name: if foreign { full } else { name.to_owned() }, foreign };
        if !self.facts.relations.contains(&named) {
            self.facts.relations.push(named);
        }
        Ok(())
    }
}

/// Catalogs and schemas that every instance has. The first is where its relations are.
const ENGINE_SCHEMAS: [&str; 5] = ["memory", "information_schema", "pg_catalog", "system", "temp"];

/// Extensions that make a name a file even without a path.
const FILE_EXTENSIONS: [&str; 22] = [
    "csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet", "arrow", "arrows", "feather", "xlsx", "xls", "duckdb",
    "db", "ddb", "sqlite", "sqlite3", "gz", "zst", "avro", "ipc", "vortex",
];

fn looks_like_file(lower: &str) -> bool {
    lower.contains(['/', '\\', '*', '?', ':', '\0'])
        || lower.rsplit_once('.').is_some_and(|(_, extension)| FILE_EXTENSIONS.contains(&extension))
}

fn is_information_schema_column(names: &Value) -> bool {
    let names: Vec<_> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    names.len() >= 3
        && names[0].eq_ignore_ascii_case("information_schema")
        && ["tables", "columns"].iter().any(|table| names[1].eq_ignore_ascii_case(table))
}

/// Puts the relations of the grant set where a tree names the engine's own.
pub(super) fn rewrite(statement: &mut Value) {
    let mut work = vec![statement];
    while let Some(value) = work.pop() {
        if let Value::Object(map) = value {
            let get = |map: &Map<String, Value>, key: &str| {
                map.get(key).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase()
            };
            match get(map, "type").as_str() {
                "base_table"
                    if get(map, "schema_name") == "information_schema" && get(map, "catalog_name").is_empty() =>
                {
                    let table = get(map, "table_name");
                    let system = if table == "tables" { SystemRelation::Tables } else { SystemRelation::Columns };
                    if get(map, "alias").is_empty() {
                        map.insert("alias".to_owned(), table.into());
                    }
                    map.insert("schema_name".to_owned(), "".into());
                    map.insert("table_name".to_owned(), system.relation().into());
                }
                "show_ref" if map.get("query").is_none_or(Value::is_null) => {
                    let show = Map::from_iter([
                        ("type".to_owned(), "BASE_TABLE".into()),
                        ("alias".to_owned(), map.get("alias").cloned().unwrap_or_else(|| "".into())),
                        ("sample".to_owned(), Value::Null),
                        ("schema_name".to_owned(), "".into()),
                        ("table_name".to_owned(), SystemRelation::ShowTables.relation().into()),
                        ("column_name_alias".to_owned(), Value::Array(Vec::new())),
                        ("catalog_name".to_owned(), "".into()),
                        ("at_clause".to_owned(), Value::Null),
                    ]);
                    *map = show;
                }
                "column_ref" if map.get("column_names").is_some_and(is_information_schema_column) => {
                    if let Some(Value::Array(names)) = map.get_mut("column_names") {
                        names.remove(0);
                    }
                }
                _ => {}
            }
        }
        match value {
            Value::Object(map) => work.extend(map.values_mut()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
}

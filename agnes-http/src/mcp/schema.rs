//! JSON Schema of what tools take and answer, from the same types as the description of the API.

use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Where the description of the API keeps named schemas, and where JSON Schema does.
const NAMED: (&str, &str) = ("#/components/schemas/", "#/$defs/");

/// The schema of a type, whole in itself. An object, as the protocol asks for.
pub(super) fn of<T: ToSchema>() -> Map<String, Value> {
    let mut named = Vec::new();
    T::schemas(&mut named);
    let mut schema = plain(T::schema());
    let named: Map<String, Value> = named.into_iter().map(|(name, one)| (name, Value::Object(plain(one)))).collect();
    if !named.is_empty() {
        schema.insert("$defs".to_owned(), named.into());
    }
    schema.entry("type").or_insert_with(|| "object".into());
    schema
}

fn plain(schema: impl serde::Serialize) -> Map<String, Value> {
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    point(&mut schema);
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn point(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get_mut("$ref")
                && let Some(name_alone) = name.strip_prefix(NAMED.0)
            {
                *name = format!("{}{name_alone}", NAMED.1);
            }
            fields.values_mut().for_each(point);
        }
        Value::Array(items) => items.iter_mut().for_each(point),
        _ => {}
    }
}

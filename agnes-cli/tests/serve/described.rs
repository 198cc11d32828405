//! Whether answers are what the description of the API says.

use serde_json::Value;

use super::process::Answer;

/// The operations of the description: `GET /path`, method, path and what is said of it.
pub(crate) fn operations() -> Vec<(String, String, String, &'static Value)> {
    let mut operations = Vec::new();
    for (path, methods) in agnes_http::document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            operations.push((format!("{method} {path}"), method, path.clone(), operation));
        }
    }
    operations
}

/// What of an answer is not described: its status, its code or its body.
pub(crate) fn undescribed(operation: &Value, answer: &Answer) -> Option<String> {
    let told = &operation["responses"][answer.status.to_string()];
    if !told.is_object() {
        return Some(format!("status {}: {}", answer.status, answer.text()));
    }
    let kind = answer.header("content-type").unwrap_or_default();
    if kind.starts_with("application/problem+json") {
        let code = &answer.json()["code"];
        let known = told["x-codes"].as_array().is_some_and(|codes| codes.contains(code));
        return (!known).then(|| format!("{} {code}", answer.status));
    }
    if !kind.starts_with("application/json") {
        return None;
    }
    match &told["content"]["application/json"] {
        Value::Null => Some("JSON".to_owned()),
        content => fits(&content["schema"], &answer.json()).err(),
    }
}

/// The schema that a schema names, or itself.
fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(name) => agnes_http::document().pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Properties that a schema has, with those of its parts, and whether it says what others are.
fn properties<'a>(
    schema: &'a Value,
    found: &mut Vec<(&'a str, &'a Value)>,
    required: &mut Vec<&'a str>,
) -> Option<&'a Value> {
    let schema = resolved(schema);
    found.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)));
    required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
    let mut others = schema.get("additionalProperties");
    for part in schema["allOf"].as_array().into_iter().flatten() {
        others = others.or(properties(part, found, required));
    }
    others
}

/// Whether a value is what a schema says, and has no field that the schema does not name.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolved(schema);
    if let Some(choices) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
        let failed: Vec<String> = choices.iter().filter_map(|one| fits(one, value).err()).collect();
        return if failed.len() < choices.len() { Ok(()) } else { Err(failed.join(", or ")) };
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let one = |kind: &Value| kind == is || (kind == "number" && is == "integer");
    let known = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(one),
        kind => one(kind),
    };
    if !known {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{value} is none of {values:?}"));
    }
    if let Value::Array(items) = value
        && schema["items"].is_object()
    {
        return items.iter().try_for_each(|item| fits(&schema["items"], item));
    }
    let Value::Object(fields) = value else { return Ok(()) };
    let (mut named, mut required) = (Vec::new(), Vec::new());
    let others = properties(schema, &mut named, &mut required);
    if let Some(missing) = required.iter().find(|name| !fields.contains_key(**name)) {
        return Err(format!("`{missing}` is missing"));
    }
    for (name, value) in fields {
        match named.iter().find(|(known, _)| known == name) {
            Some((_, schema)) => fits(schema, value).map_err(|what| format!("`{name}`: {what}"))?,
            None if others.is_some_and(Value::is_object) => fits(others.unwrap(), value)?,
            None if named.is_empty() => {}
            None => return Err(format!("`{name}` is not in it")),
        }
    }
    Ok(())
}

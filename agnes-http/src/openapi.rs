//! The description of the API, made from the routes themselves.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::http::Method;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Object, Ref, RefOr, Required, Response, ResponseBuilder, Type};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::codes::{Asked, codes};

/// A request that failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "its shape is for the description alone")]
pub(crate) struct ProblemShape {
    /// `urn:agnes:error:<code>`.
    #[schema(example = "urn:agnes:error:table_not_found")]
    r#type: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: String,
    /// The status.
    #[schema(example = 404)]
    status: u16,
    /// For people: a sentence, an object or a list.
    detail: serde_json::Value,
    /// Stable name of the error.
    #[schema(example = "table_not_found")]
    code: String,
    /// In every log line and audit row of this request.
    #[schema(example = "9f2c41d07be5")]
    request_id: String,
    /// One thing to try.
    hint: Option<String>,
    /// Limits and names, for programs.
    facts: Option<serde_json::Value>,
    /// With `DEBUG=1`, the cause of a 500; for clients of OAuth, the code.
    error: Option<String>,
    /// For clients of OAuth, what `detail` says.
    error_description: Option<String>,
}

/// What the routes do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Agnes", description = "A governed data engine for AI analysts"),
    components(schemas(ProblemShape)),
    modifiers(&Credentials)
)]
pub(crate) struct Base;

/// Answers by status, with their words, that are all problems.
pub(crate) fn failures(known: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let content = || Content::new(Some(Ref::from_schema_name("Problem")));
    let response =
        |text: &str| ResponseBuilder::new().description(text).content("application/problem+json", content()).build();
    known.iter().map(|(status, text)| (status.to_string(), response(text).into())).collect()
}

/// Failures of every operation that needs somebody.
pub(crate) struct ForUsers;

impl IntoResponses for ForUsers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[(401, "Nobody is signed in"), (403, "The caller, or their token, may not")])
    }
}

/// Failures of every operation that needs an admin.
pub(crate) struct ForAdmins;

impl IntoResponses for ForAdmins {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[(401, "Nobody is signed in"), (403, "Not an admin")])
    }
}

/// Failures of every operation with a JSON body.
pub(crate) struct WithBody;

impl IntoResponses for WithBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[
            (400, "The body is refused"),
            (413, "The body is too large"),
            (415, "The body is not JSON"),
            (422, "The body is not valid"),
        ])
    }
}

/// Failures of every operation that takes a form of a page.
pub(crate) struct WithForm;

impl IntoResponses for WithForm {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[
            (403, "The form was not sent by a page of this server, or this is switched off"),
            (413, "The form is too large"),
            (415, "The body is not a form"),
            (422, "A field is missing"),
            (429, "Too many tries"),
        ])
    }
}

/// How callers say who they are.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).description(Some("A token or session")).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(crate::caller::SESSION_COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// The description of every route there is, with the codes of every failure and an example of
/// every answer. Made once.
#[must_use]
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut document = described();
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
        for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
            for (method, operation) in operations.as_object_mut().into_iter().flatten() {
                let method = method.to_uppercase();
                tell_codes(&method, path, operation);
                tell_examples(operation, &examples[format!("{method} {path}")]);
            }
        }
        document
    })
}

/// What operations were sent and answered in a test, written by it.
const EXAMPLES: &str = include_str!("examples.json");

/// The routes and what holds for all that read.
fn described() -> Value {
    let mut document = crate::routes::all().into_openapi();
    for (path, item) in &mut document.paths.paths {
        let operations = [(Method::GET, &mut item.get), (Method::POST, &mut item.post)];
        for (method, operation) in operations {
            if let Some(operation) = operation.as_mut().filter(|operation| operation.security.is_some())
                && crate::routes::is_reading(&method, path)
            {
                operation.parameters.get_or_insert_default().push(see_as());
                let known = &mut operation.responses.responses;
                known.extend(
                    failures(&[(404, "There is none, or nobody to see it as")])
                        .into_iter()
                        .filter(|(status, _)| !known.contains_key(status))
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
    serde_json::to_value(document).unwrap_or_default()
}

/// Writes the codes of each failure into its description, and for programs into `x-codes`.
fn tell_codes(method: &str, path: &str, operation: &mut Value) {
    let header = |parameter: &Value| parameter["name"] == "X-Agnes-See-As";
    let asked = Asked {
        method,
        path,
        signed: operation.get("security").is_some(),
        see_as: operation["parameters"].as_array().is_some_and(|parameters| parameters.iter().any(header)),
        body: operation.get("requestBody").is_some(),
    };
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let Some(status) = status.parse().ok().filter(|status| *status >= 400) else { continue };
        // What tells of itself, as health does, has no code.
        if response.pointer("/content/application~1problem+json").is_none() {
            continue;
        }
        let codes = codes(asked, status);
        let list = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        let text = response["description"].as_str().unwrap_or_default();
        response["description"] = format!("{text}: {list}").into();
        response["x-codes"] = codes.into();
    }
}

/// Adds what a body of the request and of the answer look like.
fn tell_examples(operation: &mut Value, example: &Value) {
    let tell = |content: Option<&mut Value>, example: &Value| {
        if let Some(content) = content.filter(|_| !example.is_null()) {
            content["example"] = example.clone();
        }
    };
    tell(operation.pointer_mut("/requestBody/content/application~1json"), &example["request"]);
    let status = example["status"].as_u64().unwrap_or_default();
    let answer = format!("/responses/{status}/content/application~1json");
    tell(operation.pointer_mut(&answer), &example["answer"]);
}

/// The header that every operation takes which reads.
fn see_as() -> Parameter {
    ParameterBuilder::new()
        .name("X-Agnes-See-As")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "For admins: id or address of a user. The answer is what they would get; nothing is changed, and the \
             audit log says who looked. Not for the token of the service, nor for tokens of a narrow scope.",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Whether a schema says nothing but that there is an object.
    fn is_bare(schema: &Value) -> bool {
        let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
        schema.as_object().is_none_or(|schema| schema.keys().all(|key| key == "type" || key == "description"))
            && (schema["type"].is_null() || schema["type"] == "object")
    }

    #[test]
    fn every_operation_says_what_it_takes_and_answers() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/health"));
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                let responses = operation["responses"].as_object().unwrap();
                assert!(!responses.is_empty(), "{method} {path} answers nothing");
                let mut examples = 0;
                for (status, response) in responses {
                    if response.pointer("/content/application~1problem+json").is_some() {
                        let codes = response["x-codes"].as_array().unwrap();
                        assert!(!codes.is_empty(), "{method} {path} has no code for {status}");
                    }
                    let Some(content) = response.pointer("/content/application~1json") else { continue };
                    // The description of the API itself is described by its own standard.
                    if !status.starts_with('2') || path == "/openapi.json" {
                        continue;
                    }
                    assert!(!is_bare(&content["schema"]), "{method} {path} does not say what it answers");
                    let named = content["schema"]["$ref"].as_str().map(|name| name.trim_start_matches('#'));
                    let shape = named.and_then(|name| document.pointer(name));
                    let shown = content.get("example").or(shape.and_then(|shape| shape.get("example")));
                    examples += usize::from(shown.is_some());
                }
                let answers = responses.iter().any(|(status, response)| {
                    status.starts_with('2') && response.pointer("/content/application~1json").is_some()
                });
                assert!(!answers || examples > 0 || path == "/openapi.json", "{method} {path} has no example");
                if let Some(content) = operation.pointer("/requestBody/content/application~1json") {
                    assert!(content.get("example").is_some(), "{method} {path} has no example of its body");
                }
            }
        }
    }

    #[test]
    fn what_reads_with_a_body_is_there() {
        for path in crate::routes::READING {
            assert!(document()["paths"][path]["post"].is_object(), "{path}");
        }
    }
}

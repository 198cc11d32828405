//! The description of the API, made from the routes themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

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
}

/// What the routes do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Agnes", description = "A governed data engine for AI analysts"),
    components(schemas(ProblemShape)),
    modifiers(&Credentials)
)]
pub(crate) struct Base;

fn failures(known: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
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

/// The description of every route there is.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    crate::routes::all().into_openapi()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    #[test]
    fn every_operation_says_what_it_is_and_answers() {
        let document = serde_json::to_value(super::document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/health"));
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path} answers nothing");
            }
        }
    }
}

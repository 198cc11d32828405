//! The description of the API, made from the routes themselves.

use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

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
    components(schemas(ProblemShape))
)]
pub(crate) struct Base;

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

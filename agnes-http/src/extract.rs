//! Parts of a request, with refusals in the shape of every other answer.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::Body as _;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use crate::problem::Problem;
use crate::state::App;

/// A JSON body: an object.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// Takes an object alone: what is derived reads the fields from an array too, by their place.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &App) -> Result<Self, Problem> {
        object(request, state, state.limits().body).await.map(Self)
    }
}

/// A JSON body of a query, which may bring rows along.
#[derive(Debug)]
pub(crate) struct QueryJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for QueryJson<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &App) -> Result<Self, Problem> {
        let most = state.limits().query_body;
        DefaultBodyLimit::max(most).apply(&mut request);
        object(request, state, most).await.map(Self)
    }
}

/// Reads an object of at most so many bytes.
async fn object<T: DeserializeOwned>(request: Request, state: &App, most: usize) -> Result<T, Problem> {
    // What says that it is too long is not waited for.
    if request.body().size_hint().lower() > most as u64 {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    match axum::Json::<Object<T>>::from_request(request, state).await {
        Ok(axum::Json(Object(body))) => Ok(body),
        Err(JsonRejection::MissingJsonContentType(_)) => {
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body has to be JSON")
                .hint("send `Content-Type: application/json`"))
        }
        Err(refused) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(refused) => Err(Problem::invalid(&["body"], &reason(&refused.body_text()), "value_error")),
    }
}

/// A JSON body that may be missing: then every field has its default.
#[derive(Debug)]
pub(crate) struct MaybeJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for MaybeJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &App) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        Json::from_request(request, state).await.map(|Json(body)| Self(body))
    }
}

/// Parameters of the address.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(QueryRejection::FailedToDeserializeQueryString(refused)) => {
                Err(Problem::invalid(&["query"], &reason(&refused.body_text()), "value_error"))
            }
            Err(_) => Err(Problem::of_status(StatusCode::BAD_REQUEST)),
        }
    }
}

/// Pieces of the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(Problem::not_found()),
            Err(_) => Err(Problem::of_status(StatusCode::BAD_REQUEST)),
        }
    }
}

/// Refuses a number of the address that is less than 1, or more than `most`.
pub(crate) fn within<N: PartialOrd + From<u8> + fmt::Display>(name: &str, value: N, most: N) -> Result<(), Problem> {
    if value < N::from(1) || value > most {
        return Err(Problem::invalid(&["query", name], &format!("1 to {most}"), "value_error"));
    }
    Ok(())
}

/// What is wrong, without the words around it.
fn reason(text: &str) -> String {
    text.rsplit_once("type: ").map_or(text, |(_, reason)| reason).chars().take(300).collect()
}

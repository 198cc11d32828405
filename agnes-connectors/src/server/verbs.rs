//! How each verb of a data folder is asked of a server: its calls, and what the answers mean.

mod access;
mod admin;
mod care;
mod registry;
mod sources;
mod syncs;

use std::ops::Deref;

use agnes_core::connector::Progress;
use agnes_core::error::Result;
use agnes_core::local::{
    CatalogManifest, CatalogTables, EstimateScan, GetProfile, GetSample, GetSchema, RefreshProfile, Verb,
};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Call, ServerClient, ServerError};

/// A verb that a server answers too.
pub trait Served: Verb {
    /// Asks it of a server.
    ///
    /// # Errors
    /// Those of the server, and of the way to it; `server_not_understood` for an answer of another
    /// shape.
    fn ask(self, server: &ServerClient) -> BoxFuture<'_, Result<Told<Self::Reply>>>;

    /// [`ask`](Self::ask), telling how far it is where a server says so.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    fn follow(self, server: &ServerClient, _progress: Progress) -> BoxFuture<'_, Result<Told<Self::Reply>>> {
        self.ask(server)
    }
}

/// What a verb gives, from wherever: as JSON it is what was said, word by word.
#[derive(Debug, Clone, PartialEq)]
pub struct Told<T> {
    reply: T,
    /// The answer of a server.
    said: Option<Value>,
}

impl<T> Told<T> {
    /// From a data folder.
    #[must_use]
    pub fn here(reply: T) -> Self {
        Self { reply, said: None }
    }

    /// From a server, which said `said`.
    #[must_use]
    pub fn by_server(reply: T, said: Value) -> Self {
        Self { reply, said: Some(said) }
    }

    /// What the server said, where it was one.
    #[must_use]
    pub fn said(&self) -> Option<&Value> {
        self.said.as_ref()
    }

    /// The reply alone.
    #[must_use]
    pub fn into_reply(self) -> T {
        self.reply
    }
}

impl<T> Told<Vec<T>> {
    /// Those of a list that fit. What a server said of the others goes with them, where it said a
    /// list of as many.
    #[must_use]
    pub fn only(self, fits: impl Fn(&T) -> bool) -> Self {
        let stays: Vec<bool> = self.reply.iter().map(&fits).collect();
        let keep =
            |said: Vec<Value>| said.into_iter().zip(&stays).filter(|(_, stays)| **stays).map(|(one, _)| one).collect();
        let said = match self.said {
            Some(Value::Array(said)) if said.len() == stays.len() => Some(keep(said)),
            other => other,
        };
        Self { reply: self.reply.into_iter().filter(|one| fits(one)).collect(), said }
    }
}

impl<T> Deref for Told<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.reply
    }
}

impl<T: Serialize> Serialize for Told<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match &self.said {
            Some(said) => said.serialize(serializer),
            None => self.reply.serialize(serializer),
        }
    }
}

impl ServerClient {
    /// Reads an answer.
    pub(super) fn read<T: DeserializeOwned>(&self, body: Value) -> Result<T, ServerError> {
        serde_json::from_value(body).map_err(|error| self.not_understood(error.to_string()))
    }
}

/// Puts members where there are none.
fn with(mut body: Value, members: &[(&str, Value)]) -> Value {
    if let Value::Object(object) = &mut body {
        for (name, value) in members {
            object.entry(*name).or_insert_with(|| value.clone());
        }
    }
    body
}

/// The list under a name.
fn list(body: &Value, name: &str) -> Vec<Value> {
    body[name].as_array().cloned().unwrap_or_default()
}

/// Writes an impl: a verb, what is done, and what comes of it.
macro_rules! asked {
    ($($verb:ident |$this:ident, $server:ident| $work:expr;)*) => {
        $(impl Served for $verb {
            fn ask(self, $server: &ServerClient) -> BoxFuture<'_, Result<Told<Self::Reply>>> {
                let $this = self;
                Box::pin(async move { $work })
            }
        })*
    };
}
pub(super) use asked;

/// Verbs of one call: the call, and what is read of its answer where it is not the answer itself.
macro_rules! served {
    ($($verb:ident($this:ident) = $call:expr $(, |$answer:ident| $body:expr)?;)*) => {
        $(impl Served for $verb {
            fn ask(self, server: &ServerClient) -> BoxFuture<'_, Result<Told<Self::Reply>>> {
                Box::pin(async move {
                    let $this = &self;
                    let _ = $this;
                    let said = server.ask($call).await?.body;
                    #[allow(unused_variables)]
                    let body = said.clone();
                    $(let $answer = &said; let body: Value = $body;)?
                    Ok(Told::by_server(server.read(body)?, said))
                })
            }
        })*
    };
}

served! {
    CatalogTables(v) = Call::get(&["api", "v2", "catalog"]), |answer| {
        let tables = list(answer, "tables").into_iter();
        tables.map(|table| with(table, &[("sync_strategy", json!("")), ("published", json!(true))])).collect()
    };
    CatalogManifest(v) = Call::get(&["api", "sync", "manifest"]);
    GetSchema(v) = Call::get(&["api", "v2", "schema", &v.table]);
    GetSample(v) = Call::get(&["api", "v2", "sample", &v.table]).param("n", v.rows);
    GetProfile(v) = Call::get(&["api", "catalog", "profile", &v.table]);
    EstimateScan(v) = Call::post(&["api", "v2", "scan", "estimate"], json!({
        "table_id": v.request.table,
        "select": v.request.select,
        "where": v.request.predicate,
        "limit": v.request.limit,
        "order_by": v.request.order_by,
    }));
}

impl Served for RefreshProfile {
    fn ask(self, server: &ServerClient) -> BoxFuture<'_, Result<Told<Value>>> {
        Box::pin(async move {
            let path = ["api", "catalog", "profile", &self.table, "refresh"];
            server.ask(Call::post(&path, json!({})).unlimited()).await?;
            GetProfile { table: self.table }.ask(server).await
        })
    }
}

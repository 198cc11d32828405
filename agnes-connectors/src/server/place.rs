//! Where verbs are asked: of a data folder, or of a server.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::connector::Progress;
use agnes_core::error::Result;
use agnes_core::local::{Caller, Door, Rows, Verb};
use agnes_core::query::{Query, QueryError};

use super::{Served, ServerClient, ServerError, Told};

/// A data folder or a server: the same verbs of either.
#[derive(Debug, Clone)]
pub enum Place {
    /// A data folder, held by this process or served by the one that holds it.
    Folder(Arc<Door>),
    /// A server, asked with somebody's token.
    Server(Box<ServerClient>),
}

impl Place {
    /// A server.
    #[must_use]
    pub fn server(client: ServerClient) -> Self {
        Self::Server(Box::new(client))
    }

    /// Asks for one verb on behalf of `caller`, telling how far it is.
    ///
    /// # Errors
    /// Those of the verb, and of the way to the place.
    pub async fn ask<V: Served>(&self, verb: V, caller: &Caller, progress: Progress) -> Result<Told<V::Reply>> {
        match self {
            Self::Folder(door) => Ok(Told::here(door.call(verb, caller, progress).await?)),
            Self::Server(server) => verb.follow(&as_caller(server, caller), progress).await,
        }
    }

    /// Asks for a verb that data folders alone have; `what` says it in words.
    ///
    /// # Errors
    /// `not_at_a_server`; those of the verb.
    pub async fn ask_folder<V: Verb>(
        &self,
        verb: V,
        what: &str,
        caller: &Caller,
        progress: Progress,
    ) -> Result<V::Reply> {
        match self {
            Self::Folder(door) => door.call(verb, caller, progress).await,
            Self::Server(_) => Err(ServerError::FolderOnly { what: what.to_owned() }.into()),
        }
    }

    /// Asks a query and gives its rows as they come. Dropping the rows ends it.
    ///
    /// # Errors
    /// Those of the query; `query_timeout` after the caller's time, wherever it ran.
    pub async fn query(&self, query: Query, caller: &Caller) -> Result<Rows> {
        match self {
            Self::Folder(door) => door.query(query, caller).await,
            Self::Server(server) => {
                let server = as_caller(server, caller);
                let Some(timeout) = caller.timeout else { return server.query(&query).await };
                // Rows that still come then break off.
                let server = server.answering_queries_within(timeout.saturating_add(Duration::from_secs(1)));
                match tokio::time::timeout(timeout, server.query(&query)).await {
                    Ok(rows) => rows,
                    Err(_) => Err(QueryError::Timeout { seconds: timeout.as_secs() }.into()),
                }
            }
        }
    }

    /// Lets go of a data folder; a server is not held.
    ///
    /// # Errors
    /// Those of [`Door::close`].
    pub async fn close(&self) -> Result<()> {
        match self {
            Self::Folder(door) => door.close().await,
            Self::Server(_) => Ok(()),
        }
    }
}

fn as_caller(server: &ServerClient, caller: &Caller) -> ServerClient {
    match &caller.as_user {
        Some(user) => server.seeing_as(user),
        None => server.clone(),
    }
}

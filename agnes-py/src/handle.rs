//! The way to a data folder or a server, shared by all that hangs on it.

use std::path::PathBuf;
use std::sync::Arc;

use agnes_connectors::server::{Place, Served};
use agnes_core::Result;
use agnes_core::connector::Progress;
use agnes_core::error::ErrorKind;
use agnes_core::local::{Caller, Rows, Verb};
use agnes_core::query::Query;
use pyo3::prelude::*;
use serde::Serialize;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::convert::to_python;
use crate::errors::misuse;
use crate::runtime::wait;

/// Where it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    Folder(PathBuf),
    Server(String),
}

/// A place and on whose behalf it is asked.
#[derive(Clone)]
pub(crate) struct Handle {
    place: Arc<RwLock<Option<Place>>>,
    pub(crate) at: Arc<At>,
    pub(crate) caller: Caller,
    opened_by: u32,
}

impl Handle {
    pub(crate) fn new(place: Place, at: At, caller: Caller) -> Self {
        Self { place: Arc::new(RwLock::new(Some(place))), at: Arc::new(at), caller, opened_by: std::process::id() }
    }

    /// Asks for one verb and gives its answer as Python data.
    pub(crate) fn ask<V>(&self, py: Python<'_>, verb: V) -> PyResult<Py<PyAny>>
    where
        V: Served + Sync,
        V::Reply: Sync,
    {
        self.ask_with(py, verb, Progress::default())
    }

    /// [`Handle::ask`], as something that shows itself in a notebook: a class of `agnes._shown`.
    pub(crate) fn ask_shown<V>(&self, py: Python<'_>, verb: V, class: &str) -> PyResult<Py<PyAny>>
    where
        V: Served + Sync,
        V::Reply: Sync,
    {
        let reply = self.ask(py, verb)?;
        Ok(py.import("agnes._shown")?.getattr(class)?.call1((reply,))?.unbind())
    }

    /// [`Handle::ask`], reporting progress.
    pub(crate) fn ask_with<V>(&self, py: Python<'_>, verb: V, progress: Progress) -> PyResult<Py<PyAny>>
    where
        V: Served + Sync,
        V::Reply: Sync,
    {
        let reply = wait(py, async { Ok(self.place().await?.ask(verb, &self.caller, progress).await?.into_reply()) })?;
        to_python(py, &reply)
    }

    /// Asks for a verb that data folders alone have; `what` says it in words.
    pub(crate) fn ask_folder<V>(&self, py: Python<'_>, verb: V, what: &str) -> PyResult<Py<PyAny>>
    where
        V: Verb + Sync,
        V::Reply: Serialize + Sync,
    {
        let reply =
            wait(py, async { self.place().await?.ask_folder(verb, what, &self.caller, Progress::default()).await })?;
        to_python(py, &reply)
    }

    /// Starts a query.
    pub(crate) async fn query(&self, query: Query) -> Result<Rows> {
        self.place().await?.query(query, &self.caller).await
    }

    /// The place, held open while it is used.
    pub(crate) async fn place(&self) -> Result<RwLockReadGuard<'_, Place>> {
        self.check_process()?;
        let place = self.place.read().await;
        RwLockReadGuard::try_map(place, Option::as_ref).map_err(|_| closed())
    }

    /// Lets go of it, once the calls of other threads are answered.
    pub(crate) async fn close(&self) -> Result<()> {
        // A forked child never held it.
        if self.check_process().is_err() {
            return Ok(());
        }
        match self.place.write().await.take() {
            Some(place) => place.close().await,
            None => Ok(()),
        }
    }

    /// The same place, on behalf of `user`.
    pub(crate) fn acting_as(&self, user: Option<&str>) -> Self {
        match user {
            Some(user) => Self { caller: self.caller.acting_as(Some(user)), ..self.clone() },
            None => self.clone(),
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.opened_by == std::process::id() {
            return Ok(());
        }
        Err(misuse(
            ErrorKind::Unsupported,
            "opened_before_fork",
            "this database was opened by the process that forked this one",
            "call `agnes.open` or `agnes.connect` in the new process",
        ))
    }
}

fn closed() -> agnes_core::Error {
    misuse(
        ErrorKind::InvalidInput,
        "database_closed",
        "this database is closed",
        "open it again: `agnes.open(path)`, `agnes.connect(url)`",
    )
}

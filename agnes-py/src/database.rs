//! An opened data folder: the handle everything hangs on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agnes_core::config::{Config, LoadOptions};
use agnes_core::connector::{Progress, ProgressEvent};
use agnes_core::error::ErrorKind;
use agnes_core::local::{
    Backup, Caller, CatalogManifest, CatalogTables, CollectGarbage, Doctor, Door, ListAudit, Rebuild, ReplayReceipt,
    RunSync, Runs, Verb,
};
use agnes_core::query::Query;
use agnes_core::rbac::ClientKind;
use agnes_core::sync::SyncRequest;
use agnes_core::{Engine, EngineBuilder, Result};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tokio::sync::RwLock;

use crate::access::{Grants, Groups, Policies, Users};
use crate::convert::{from_python, to_python};
use crate::errors::{OrRaise, misuse};
use crate::result::QueryResult;
use crate::runtime::wait;
use crate::sources::Sources;
use crate::tables::Tables;

/// The way into a data folder and on whose behalf it is used; shared by all handles on it.
#[derive(Clone)]
pub(crate) struct Handle {
    door: Arc<RwLock<Option<Door>>>,
    caller: Caller,
    opened_by: u32,
}

impl Handle {
    /// Asks for one verb and gives its answer as Python data.
    pub(crate) fn ask<V: Verb + Sync>(&self, py: Python<'_>, verb: V) -> PyResult<Py<PyAny>>
    where
        V::Reply: Sync,
    {
        self.ask_with(py, verb, Progress::default())
    }

    /// [`Handle::ask`], reporting progress.
    pub(crate) fn ask_with<V: Verb + Sync>(&self, py: Python<'_>, verb: V, progress: Progress) -> PyResult<Py<PyAny>>
    where
        V::Reply: Sync,
    {
        let reply = wait(py, async {
            self.check_process()?;
            match &*self.door.read().await {
                Some(door) => door.call(verb, &self.caller, progress).await,
                None => Err(closed()),
            }
        })?;
        to_python(py, &reply)
    }

    /// The same folder, on behalf of `user`.
    fn acting_as(&self, user: Option<&str>) -> Self {
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
            "call `agnes.open` in the new process; it is served by the one that holds the folder",
        ))
    }
}

fn closed() -> agnes_core::Error {
    misuse(ErrorKind::InvalidInput, "database_closed", "this database is closed", "open it again: `agnes.open(path)`")
}

/// How a folder is opened: as the command `agnes` opens it, so that both mean the same folder.
fn builder(root: &Path) -> EngineBuilder {
    let mut builder = Engine::builder(root).connectors(agnes_connectors::builtin());
    if let Some(state) = folder_variable("STATE_DIR") {
        builder = builder.state_dir(state);
    }
    if let Some(scratch) = folder_variable("AGNES_TEMP_DIR") {
        builder = builder.scratch(scratch);
    }
    builder
}

fn folder_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A data folder, held by this process or served by the process that holds it.
#[pyclass(frozen, weakref, module = "agnes")]
pub(crate) struct Database {
    handle: Handle,
    path: PathBuf,
}

#[pymethods]
impl Database {
    /// Opens a data folder; makes it when missing.
    #[staticmethod]
    #[pyo3(signature = (path, config=None))]
    fn _open(py: Python<'_>, path: PathBuf, config: Option<PathBuf>) -> PyResult<Self> {
        let root =
            std::path::absolute(&path).map_err(|e| agnes_core::Error::io("find the data folder", e)).or_raise(py)?;
        let loaded = Config::load(&LoadOptions {
            file: config.or_else(|| folder_variable("CONFIG_DIR").map(|folder| folder.join("instance.yaml"))),
            overlay: Some(builder(&root).folder().config_overlay()),
            env: &|name| std::env::var(name).ok(),
            lenient: false,
        })
        .or_raise(py)?;
        for warning in &loaded.warnings {
            py.import("warnings")?.call_method1("warn", (warning,))?;
        }
        let folder = root.clone();
        let door = wait(py, Door::open(move || Ok(builder(&folder).config(loaded.config.clone()))))?;
        let caller = Caller::owner(ClientKind::Api);
        let handle = Handle { door: Arc::new(RwLock::new(Some(door))), caller, opened_by: std::process::id() };
        Ok(Self { handle, path: root })
    }

    /// The data folder.
    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(py.import("pathlib")?.call_method1("Path", (&self.path,))?.unbind())
    }

    /// Process id of the holder that serves this database; `None` when this process holds the folder.
    #[getter]
    fn served_by(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        wait(py, async {
            self.handle.check_process()?;
            match &*self.handle.door.read().await {
                Some(door) => Ok(door.served_by().await.map(|holder| holder.pid)),
                None => Err(closed()),
            }
        })
    }

    #[getter]
    fn sources(&self) -> Sources {
        Sources(self.handle.clone())
    }

    #[getter]
    fn tables(&self) -> Tables {
        Tables(self.handle.clone())
    }

    #[getter]
    fn users(&self) -> Users {
        Users(self.handle.clone())
    }

    #[getter]
    fn groups(&self) -> Groups {
        Groups(self.handle.clone())
    }

    #[getter]
    fn grants(&self) -> Grants {
        Grants(self.handle.clone())
    }

    #[getter]
    fn policies(&self) -> Policies {
        Policies(self.handle.clone())
    }

    /// The same folder as one of its users sees it.
    fn acting_as(&self, user: &str) -> Self {
        Self { handle: self.handle.acting_as(Some(user)), path: self.path.clone() }
    }

    /// The tables the caller may read.
    #[pyo3(signature = (*, as_user=None))]
    fn catalog(&self, py: Python<'_>, as_user: Option<&str>) -> PyResult<Py<PyAny>> {
        self.handle.acting_as(as_user).ask(py, CatalogTables {})
    }

    /// Brings tables up to date and waits for the end of the run.
    #[pyo3(signature = (sources=None, *, tables=None, full=false, progress=None))]
    fn sync(
        &self,
        py: Python<'_>,
        sources: Option<Vec<String>>,
        tables: Option<Vec<String>>,
        full: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let request = SyncRequest { sources: sources.unwrap_or_default(), tables: tables.unwrap_or_default(), full };
        self.handle.ask_with(py, RunSync { request }, progress.map_or_else(Progress::default, report_to))
    }

    /// Sync runs, newest first.
    #[pyo3(signature = (limit=20))]
    fn runs(&self, py: Python<'_>, limit: usize) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, Runs { limit })
    }

    /// The audit log, newest first.
    #[pyo3(signature = (limit=100, **filter))]
    fn audit(&self, py: Python<'_>, limit: usize, filter: Option<&Bound<'_, PyDict>>) -> PyResult<Py<PyAny>> {
        let wanted = PyDict::new(py);
        if let Some(filter) = filter {
            wanted.update(filter.as_mapping())?;
        }
        wanted.set_item("limit", limit)?;
        self.handle.ask(py, ListAudit { filter: from_python(wanted.as_any())? })
    }

    /// What the caller may pull, with hashes.
    #[pyo3(signature = (*, as_user=None))]
    fn manifest(&self, py: Python<'_>, as_user: Option<&str>) -> PyResult<Py<PyAny>> {
        self.handle.acting_as(as_user).ask(py, CatalogManifest {})
    }

    /// Publishes what is in the extracts folder.
    fn rebuild(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, Rebuild {})
    }

    /// Copies state and data into a new folder.
    fn backup(&self, py: Python<'_>, target: PathBuf) -> PyResult<Py<PyAny>> {
        let target =
            std::path::absolute(&target).map_err(|e| agnes_core::Error::io("find the folder", e)).or_raise(py)?;
        self.handle.ask(py, Backup { target })
    }

    /// Deletes what nothing refers to.
    #[pyo3(signature = (*, dry_run=false))]
    fn gc(&self, py: Python<'_>, dry_run: bool) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, CollectGarbage { dry_run })
    }

    /// What is wrong with this folder, and what to do.
    fn doctor(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, Doctor {})
    }

    /// Asks the query of a receipt again.
    #[pyo3(signature = (receipt, *, as_user=None))]
    fn replay(&self, py: Python<'_>, receipt: &Bound<'_, PyAny>, as_user: Option<&str>) -> PyResult<Py<PyAny>> {
        let receipt = from_python(receipt)?;
        self.handle.acting_as(as_user).ask(py, ReplayReceipt { receipt })
    }

    /// Asks one read-only query over the tables the caller may read.
    #[pyo3(signature = (sql, params=None, *, as_user=None, limit=None, timeout=None, receipt=false))]
    #[expect(clippy::too_many_arguments, reason = "named ones in Python")]
    fn query(
        &self,
        py: Python<'_>,
        sql: &str,
        params: Option<&Bound<'_, PyAny>>,
        as_user: Option<&str>,
        limit: Option<usize>,
        timeout: Option<f64>,
        receipt: bool,
    ) -> PyResult<QueryResult> {
        let mut query = Query::new(sql);
        query.receipt = receipt;
        if let Some(params) = params {
            query = query.params(crate::params::params(params)?);
        }
        if let Some(limit) = limit {
            query = query.limit(limit);
        }
        let mut handle = self.handle.acting_as(as_user);
        if let Some(seconds) = timeout {
            let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| {
                misuse(
                    ErrorKind::InvalidInput,
                    "invalid_value",
                    "`timeout` is not a number of seconds",
                    "give it as 30 or 0.5",
                )
            });
            handle.caller.timeout = Some(timeout.or_raise(py)?);
        }
        let rows = wait(py, async {
            handle.check_process()?;
            match &*handle.door.read().await {
                Some(door) => door.query(query, &handle.caller).await,
                None => Err(closed()),
            }
        })?;
        Ok(QueryResult::new(rows))
    }

    /// `query` for asyncio: the event loop goes on while the engine works.
    #[pyo3(signature = (*args, **kwargs))]
    fn aquery(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        in_thread(slf, "query", args, kwargs)
    }

    /// `sync` for asyncio.
    #[pyo3(signature = (*args, **kwargs))]
    fn async_sync(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        in_thread(slf, "sync", args, kwargs)
    }

    /// Lets go of the folder, once the calls of other threads are answered. Twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.handle.check_process().is_err() {
            return Ok(());
        }
        wait(py, async {
            match self.handle.door.write().await.take() {
                Some(door) => door.close().await,
                None => Ok(()),
            }
        })
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        match &self.handle.caller.as_user {
            Some(user) => format!("<agnes.Database {} as {user}>", self.path.display()),
            None => format!("<agnes.Database {}>", self.path.display()),
        }
    }
}

/// `method(*args, **kwargs)` in a thread of asyncio's pool, as something to await.
fn in_thread(
    slf: &Bound<'_, Database>,
    method: &str,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let py = slf.py();
    let call: Vec<Bound<'_, PyAny>> = std::iter::once(slf.getattr(method)?).chain(args.iter()).collect();
    Ok(py.import("asyncio")?.call_method("to_thread", PyTuple::new(py, call)?, kwargs)?.unbind())
}

/// Hands progress to a Python function as dicts. What it raises is printed, the run goes on.
fn report_to(function: Py<PyAny>) -> Progress {
    Progress::to(move |event: ProgressEvent| {
        Python::attach(|py| {
            let told = to_python(py, &event).and_then(|event| function.call1(py, (event,)));
            if let Err(error) = told {
                error.write_unraisable(py, Some(function.bind(py)));
            }
        });
    })
}

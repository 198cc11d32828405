//! A data folder or a server: what everything hangs on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agnes_connectors::server::{Account, Place, ServerClient, ServerError, ServerOptions};

use agnes_core::config::{Config, LoadOptions};
use agnes_core::connector::{Progress, ProgressEvent};
use agnes_core::error::ErrorKind;
use agnes_core::local::{
    Backup, Caller, CancelRun, CatalogManifest, CatalogTables, CollectGarbage, Doctor, Door, ListAudit, Rebuild,
    ReplayReceipt, RunSync, Runs,
};
use agnes_core::query::{Frame, Query};
use agnes_core::rbac::ClientKind;
use agnes_core::secret::Secret;
use agnes_core::sync::SyncRequest;
use agnes_core::{Engine, EngineBuilder};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::access::{Grants, Groups, Policies, Users};
use crate::convert::{from_python, to_python};
use crate::errors::{OrRaise, misuse};
use crate::frames;
use crate::handle::{At, Handle};
use crate::result::QueryResult;
use crate::runtime::wait;
use crate::sources::Sources;
use crate::tables::Tables;

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

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A data folder, held by this process or served by the process that holds it; or a server.
#[pyclass(frozen, weakref, module = "agnes")]
pub(crate) struct Database {
    handle: Handle,
    /// Frames for whatever query names them.
    registered: Mutex<Vec<Frame>>,
}

impl Database {
    fn new(handle: Handle) -> Self {
        Self { handle, registered: Mutex::default() }
    }

    fn registered(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(py: Python<'_>, timeout: f64) -> PyResult<Duration> {
    let timeout = Duration::try_from_secs_f64(timeout).map_err(|_| {
        misuse(ErrorKind::InvalidInput, "invalid_value", "`timeout` is not a number of seconds", "give it as 30 or 0.5")
    });
    timeout.or_raise(py)
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
        let configured = move || {
            let connectors = agnes_connectors::builtin_for(&loaded.config);
            Ok(builder(&folder).connectors(connectors).config(loaded.config.clone()))
        };
        let door = wait(py, Door::open(configured))?;
        let place = Place::Folder(Arc::new(door));
        Ok(Self::new(Handle::new(place, At::Folder(root), Caller::owner(ClientKind::Api))))
    }

    /// A server, with a token or what is kept of a sign-in. It is asked first by the first call.
    #[staticmethod]
    #[pyo3(signature = (url, token, ca_file, timeout))]
    fn _connect(
        py: Python<'_>,
        url: Option<String>,
        token: Option<String>,
        ca_file: Option<PathBuf>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let account = Account::of_user(&variable);
        let mut options = ServerOptions {
            ca_file: ca_file.or_else(|| variable("AGNES_CA_FILE").map(PathBuf::from)),
            ..ServerOptions::default()
        };
        if let Some(timeout) = timeout {
            options.query_timeout = seconds(py, timeout)?;
        }
        let client = || {
            let named = url.or_else(|| variable("AGNES_SERVER"));
            let named = named.map_or_else(|| account.server(), |named| Ok(Some(named)))?;
            let address = named.ok_or(ServerError::NotNamed)?;
            let token = token.map(|token| Secret::new(token.trim()));
            let client = ServerClient::signed_in(&address, token, options, &account, &variable)?;
            match client.has_token() {
                true => Ok(client),
                false => Err(client.without_token().into()),
            }
        };
        let client = client().or_raise(py)?;
        let at = At::Server(client.server().to_owned());
        Ok(Self::new(Handle::new(Place::server(client), at, Caller::owner(ClientKind::Api))))
    }

    /// The data folder; `None` of a server.
    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &*self.handle.at {
            At::Folder(path) => Ok(Some(py.import("pathlib")?.call_method1("Path", (path,))?.unbind())),
            At::Server(_) => Ok(None),
        }
    }

    /// Address of the server; `None` of a data folder.
    #[getter]
    fn url(&self) -> Option<String> {
        match &*self.handle.at {
            At::Folder(_) => None,
            At::Server(url) => Some(url.clone()),
        }
    }

    /// Process id of the holder that serves this database; `None` when this process holds the folder.
    #[getter]
    fn served_by(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        wait(py, async {
            match &*self.handle.place().await? {
                Place::Folder(door) => Ok(door.served_by().await.map(|holder| holder.pid)),
                Place::Server(_) => Ok(None),
            }
        })
    }

    /// One table, by name.
    fn table(slf: &Bound<'_, Self>, name: String) -> PyResult<Py<PyAny>> {
        Ok(slf.py().import("agnes._table")?.call_method1("Table", (slf, name))?.unbind())
    }

    /// What admins and operators do.
    #[getter]
    fn admin(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Ok(slf.py().import("agnes._admin")?.call_method1("Admin", (slf,))?.unbind())
    }

    /// Keeps a frame for the queries of this handle that name it.
    fn register(&self, name: &str, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        let frame = frames::frame(name, frame)?;
        let mut registered = self.registered();
        registered.retain(|known| !known.name().eq_ignore_ascii_case(name));
        registered.push(frame);
        Ok(())
    }

    /// Forgets a frame; whether there was one.
    fn unregister(&self, name: &str) -> bool {
        let mut registered = self.registered();
        let before = registered.len();
        registered.retain(|known| !known.name().eq_ignore_ascii_case(name));
        registered.len() < before
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

    /// The same place as one of its users sees it.
    fn acting_as(&self, user: &str) -> Self {
        Self::new(self.handle.acting_as(Some(user)))
    }

    /// The tables the caller may read.
    #[pyo3(signature = (*, as_user=None))]
    fn catalog(&self, py: Python<'_>, as_user: Option<&str>) -> PyResult<Py<PyAny>> {
        self.handle.acting_as(as_user).ask_shown(py, CatalogTables {}, "Catalog")
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
        let shown = py.import("agnes._progress")?.call_method1("of", (progress,))?;
        let report = if shown.is_none() { Progress::default() } else { report_to(shown.clone().unbind()) };
        let run = self.handle.ask_with(py, RunSync { request }, report);
        if let Some(end) = shown.getattr_opt("end")? {
            end.call1((run.as_ref().ok(),))?;
        }
        Ok(py.import("agnes._shown")?.call_method1("Run", (run?,))?.unbind())
    }

    /// Sync runs, newest first.
    #[pyo3(signature = (limit=20))]
    fn runs(&self, py: Python<'_>, limit: usize) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, Runs { limit })
    }

    /// Stops a sync run; whether there was something to stop.
    fn cancel(&self, py: Python<'_>, run_id: String) -> PyResult<Py<PyAny>> {
        self.handle.ask(py, CancelRun { id: run_id })
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
        let what = "a backup holds the keys and secrets of the server, which never leave its machine";
        self.handle.ask_folder(py, Backup { target }, what)
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
    #[pyo3(signature = (sql, params=None, *, frames=None, as_user=None, limit=None, timeout=None, receipt=false))]
    #[expect(clippy::too_many_arguments, reason = "named ones in Python")]
    fn query(
        &self,
        py: Python<'_>,
        sql: &str,
        params: Option<&Bound<'_, PyAny>>,
        frames: Option<&Bound<'_, PyAny>>,
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
        if let Some(given) = frames {
            query.frames = frames::frames(given)?;
        }
        // Those that the text may name: none of them is sent for nothing.
        let text = sql.to_ascii_lowercase();
        let registered = self
            .registered()
            .iter()
            .filter(|f| text.contains(&f.name().to_ascii_lowercase()))
            .cloned()
            .collect::<Vec<_>>();
        let is_given = |one: &Frame| query.frames.iter().any(|given| given.name().eq_ignore_ascii_case(one.name()));
        let registered: Vec<Frame> = registered.into_iter().filter(|one| !is_given(one)).collect();
        query.frames.extend(registered);
        let mut handle = self.handle.acting_as(as_user);
        if let Some(timeout) = timeout {
            handle.caller.timeout = Some(seconds(py, timeout)?);
        }
        Ok(QueryResult::new(wait(py, handle.query(query))?))
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

    /// `catalog` for asyncio.
    #[pyo3(signature = (*, as_user=None))]
    fn acatalog(slf: &Bound<'_, Self>, as_user: Option<String>) -> PyResult<Py<PyAny>> {
        let kwargs = PyDict::new(slf.py());
        kwargs.set_item("as_user", as_user)?;
        in_thread(slf, "catalog", &PyTuple::empty(slf.py()), Some(&kwargs))
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
        wait(py, self.handle.close())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let at = match &*self.handle.at {
            At::Folder(path) => path.display().to_string(),
            At::Server(url) => url.clone(),
        };
        match &self.handle.caller.as_user {
            Some(user) => format!("<agnes.Database {at} as {user}>"),
            None => format!("<agnes.Database {at}>"),
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
    Ok(py.import("agnes._aio")?.call_method("in_thread", PyTuple::new(py, call)?, kwargs)?.unbind())
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

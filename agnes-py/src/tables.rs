//! `db.tables`: which tables the folder serves, and what is known about them.

use agnes_core::local::{
    GetProfile, GetSample, GetSchema, GetTable, RefreshProfile, SyncHistoryOf, Tables as ListTables, UnregisterTable,
};
use pyo3::prelude::*;

use crate::handle::Handle;

/// The registered tables of a data folder.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Tables(pub(crate) Handle);

#[pymethods]
impl Tables {
    /// Every registered table.
    fn list(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, ListTables {}, "Records")
    }

    /// One table by id or name.
    fn get(&self, py: Python<'_>, table: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, GetTable { table })
    }

    /// Columns of a table.
    fn schema(&self, py: Python<'_>, table: String) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, GetSchema { table }, "Schema")
    }

    /// Some rows of a table.
    #[pyo3(signature = (table, rows=10))]
    fn sample(&self, py: Python<'_>, table: String, rows: usize) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, GetSample { table, rows }, "Sample")
    }

    /// Statistics of a table's columns; made again with `refresh`.
    #[pyo3(signature = (table, *, refresh=false))]
    fn profile(&self, py: Python<'_>, table: String, refresh: bool) -> PyResult<Py<PyAny>> {
        if refresh {
            self.0.ask_shown(py, RefreshProfile { table }, "Profile")
        } else {
            self.0.ask_shown(py, GetProfile { table }, "Profile")
        }
    }

    /// Past syncs of a table, newest first.
    #[pyo3(signature = (table, limit=20))]
    fn history(&self, py: Python<'_>, table: String, limit: usize) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, SyncHistoryOf { table, limit }, "Records")
    }

    /// Takes a table out of the registry.
    fn unregister(&self, py: Python<'_>, table: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, UnregisterTable { table })
    }
}

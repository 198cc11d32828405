//! `db.sources`: where data comes from.

use agnes_core::local::{AddSource, CheckSource, DiscoverSource, RemoveSource, Sources as ListSources};
use agnes_core::registry::NewSource;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::from_python;
use crate::handle::Handle;

/// The sources.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Sources(pub(crate) Handle);

#[pymethods]
impl Sources {
    /// Adds a source, finds its tables and registers them. Further keywords are the connector's settings.
    #[pyo3(signature = (name, kind, *, schedule=None, **config))]
    fn add(
        &self,
        py: Python<'_>,
        name: String,
        kind: String,
        schedule: Option<String>,
        config: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let none = PyDict::new(py);
        let config = from_python(config.unwrap_or(&none).as_any())?;
        self.0.ask(py, AddSource { new: NewSource { name, kind, config, schedule } })
    }

    /// The sources and how they fare.
    fn list(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, ListSources {})
    }

    /// Removes a source.
    #[pyo3(signature = (name, *, drop_data=false))]
    fn remove(&self, py: Python<'_>, name: String, drop_data: bool) -> PyResult<()> {
        self.0.ask(py, RemoveSource { name, drop_data }).map(drop)
    }

    /// Checks that a source answers.
    fn check(&self, py: Python<'_>, name: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, CheckSource { name })
    }

    /// Lists what a source offers.
    fn discover(&self, py: Python<'_>, name: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, DiscoverSource { name })
    }
}

//! `import agnes`: the engine's verbs for Python, one to one. The typed face of this module is
//! `python/agnes/_agnes.pyi`.

mod access;
mod cell;
mod convert;
mod database;
mod errors;
mod params;
mod result;
mod runtime;
mod sources;
mod tables;

use pyo3::prelude::*;

#[pymodule]
fn _agnes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<database::Database>()?;
    module.add_class::<sources::Sources>()?;
    module.add_class::<tables::Tables>()?;
    module.add_class::<access::Users>()?;
    module.add_class::<access::Groups>()?;
    module.add_class::<access::Grants>()?;
    module.add_class::<result::QueryResult>()?;
    module.add_class::<result::RowIterator>()?;
    Ok(())
}

//! `import agnes`: the engine's verbs for Python, one to one. The typed face of this module is
//! `python/agnes/_agnes.pyi`.

mod access;
mod cell;
mod convert;
mod database;
mod errors;
mod frames;
mod handle;
mod params;
mod result;
mod runtime;
mod sources;
mod tables;

use pyo3::prelude::*;

/// Rows of a result are many blocks of like sizes: this one has them ready for the next result,
/// where that of the system gives them back and has every page made anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `AGNES_LOG` (`info`, `agnes_core=debug`, ...) says what is logged, on standard error.
fn start_log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("AGNES_LOG") {
        // A program that set up a log of its own keeps it.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
}

#[pymodule]
fn _agnes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    start_log();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<database::Database>()?;
    module.add_class::<sources::Sources>()?;
    module.add_class::<tables::Tables>()?;
    module.add_class::<access::Users>()?;
    module.add_class::<access::Groups>()?;
    module.add_class::<access::Grants>()?;
    module.add_class::<access::Policies>()?;
    module.add_class::<result::QueryResult>()?;
    module.add_class::<result::RowIterator>()?;
    module.add_class::<result::BatchIterator>()?;
    module.add_class::<runtime::Call>()?;
    Ok(())
}

//! Where the engine's async code runs: one runtime for the whole process, GIL released.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agnes_core::Error;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::errors::to_py_err;

/// How often a waiting call looks whether Ctrl-C was pressed.
const SIGNALS: Duration = Duration::from_millis(100);

/// The runtime, and the process whose threads it has: threads do not survive a fork.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The runtime of this process. It lives as long as the process.
pub(crate) fn runtime() -> Result<&'static Runtime, Error> {
    let mut kept = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match *kept {
        Some((pid, runtime)) if pid == std::process::id() => Ok(runtime),
        _ => {
            let runtime = Builder::new_multi_thread()
                .enable_all()
                .thread_name("agnes")
                .build()
                .map_err(|e| Error::io("start the threads of the engine", e))?;
            let runtime: &'static Runtime = Box::leak(Box::new(runtime));
            *kept = Some((std::process::id(), runtime));
            Ok(runtime)
        }
    }
}

/// Waits for `work` with the GIL released. Ctrl-C drops `work`, which cancels it.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = Result<T, Error>> + Send) -> PyResult<T> {
    let runtime = runtime().map_err(|e| to_py_err(py, &e))?;
    let done = py.detach(|| {
        runtime.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return Ok(done),
                    () = tokio::time::sleep(SIGNALS) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    });
    done.and_then(|done: Result<T, Error>| done.map_err(|e| to_py_err(py, &e)))
}

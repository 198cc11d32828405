//! Where the engine's async code runs: one runtime for the whole process, GIL released.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agnes_core::Error;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

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

thread_local! {
    /// Whether whoever waits for the call of this thread gave up.
    static GIVEN_UP: RefCell<Option<watch::Receiver<bool>>> = const { RefCell::new(None) };
}

/// A call that another thread may end.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Call(watch::Sender<bool>);

#[pymethods]
impl Call {
    #[new]
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Calls a function, whose waits `cancel` ends.
    #[pyo3(signature = (function, *args, **kwargs))]
    fn run<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let before = GIVEN_UP.replace(Some(self.0.subscribe()));
        let done = function.call(args, kwargs);
        GIVEN_UP.set(before);
        done
    }

    /// Ends it.
    fn cancel(&self) {
        self.0.send_replace(true);
    }
}

/// Ends when the call of this thread is given up.
async fn given_up(call: Option<watch::Receiver<bool>>) {
    if let Some(mut call) = call
        && call.wait_for(|is_over| *is_over).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Waits for `work` with the GIL released. Ctrl-C drops `work`, which cancels it, and so does who gave up
/// the [`Call`] that this is.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = Result<T, Error>> + Send) -> PyResult<T> {
    let runtime = runtime().map_err(|e| to_py_err(py, &e))?;
    let call = GIVEN_UP.with_borrow(Clone::clone);
    let done = py.detach(|| {
        runtime.block_on(async {
            tokio::pin!(work);
            let given_up = given_up(call);
            tokio::pin!(given_up);
            loop {
                tokio::select! {
                    done = &mut work => return Ok(done),
                    () = &mut given_up => return Err(CancelledError::new_err(())),
                    () = tokio::time::sleep(SIGNALS) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    });
    done.and_then(|done: Result<T, Error>| done.map_err(|e| to_py_err(py, &e)))
}

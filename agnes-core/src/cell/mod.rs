//! Queries in worker processes: the process wall.
//!
//! A **cell** is a worker process of the same executable that holds the engine instance of
//! one grant set. It gives up every right it does not need before it reads any SQL
//! (`confine`), proves it by trying (`confine::probe_base`), and then serves
//! (`worker`). [`Cells`] is the [`Runtime`] that keeps such workers: some idle ones that
//! are narrowed to a grant set when it is first asked, one for each grant set that was asked
//! lately (`shelf`). A thread of its own starts them, ends those that run past their time
//! or grow too large, and buries the dead (`keeper`).
//!
//! A worker may die at any time: who waits for it gets `query_worker_lost`, which may be
//! retried; nobody else notices, and the next query starts a new one.
//!
//! Linux only. An executable offers itself as a worker by calling [`serve_if_asked`] first
//! thing in `main`; an embedder may name another one ([`CellOptions::worker`]).

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod frame;
#[cfg(target_os = "linux")]
mod keeper;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod runtime;
#[cfg(target_os = "linux")]
mod shelf;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod usage;
#[cfg(target_os = "linux")]
mod wire;
#[cfg(target_os = "linux")]
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::IsolationMode;
use crate::error::Result;
use crate::query::{InProcess, QueryError, QueryLimits, Runtime};

#[cfg(target_os = "linux")]
pub(crate) use program::Confined;
#[cfg(target_os = "linux")]
pub use runtime::{CellOptions, Cells};
#[cfg(target_os = "linux")]
pub use wire::Hooks;

/// The one argument of a worker.
const ARGUMENT: &str = "--agnes-query-cell";

/// Whether this executable said that it serves.
static OFFERED: AtomicBool = AtomicBool::new(false);

/// Serves as a worker, or becomes a connector program without rights, and never returns, if this
/// process was started for that. Call it first
/// in `main`, before any thread is started; an executable that does can run its queries in
/// workers of itself.
pub fn serve_if_asked() {
    #[cfg(target_os = "linux")]
    {
        let mut arguments = std::env::args_os().skip(1);
        match (arguments.next(), arguments.next(), arguments.next()) {
            (Some(first), None, _) if first == ARGUMENT => worker::serve(),
            (Some(first), Some(spec), None) if first == program::ARGUMENT => program::run(&spec.to_string_lossy()),
            _ => {}
        }
    }
    OFFERED.store(true, Ordering::SeqCst);
}

/// Where an engine's queries run, as its configuration and its builder say.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) mode: IsolationMode,
    pub(crate) strict: bool,
    /// Executable that serves as a worker, if not this one.
    pub(crate) worker: Option<PathBuf>,
    /// Folder of the blobs of all grant sets.
    pub(crate) blobs: PathBuf,
    /// Where extension files lie.
    pub(crate) extensions: Option<PathBuf>,
}

impl Choice {
    /// Starts the runtime.
    pub(crate) fn start(&self, limits: QueryLimits, scratch: &Path) -> Result<Arc<dyn Runtime>> {
        // This name stays right when the file was replaced by an upgrade.
        let own = OFFERED.load(Ordering::SeqCst).then(|| PathBuf::from("/proc/self/exe"));
        let worker = self.worker.clone().or(own).filter(|_| cfg!(target_os = "linux"));
        match (self.mode, worker) {
            #[cfg(target_os = "linux")]
            (IsolationMode::Auto | IsolationMode::Process, Some(worker)) => {
                let mut options = CellOptions::new(worker, limits, scratch.to_owned(), vec![self.blobs.clone()]);
                options.strict = self.strict;
                options.extensions = self.extensions.clone();
                Ok(Arc::new(Cells::start(options)?))
            }
            (IsolationMode::Auto, _) if !self.strict => Ok(Arc::new(InProcess::new(limits, scratch.to_owned()))),
            (IsolationMode::InProcess, _) => Ok(Arc::new(InProcess::new(limits, scratch.to_owned()))),
            _ => Err(QueryError::IsolationMissing { missing: "processes of their own for queries".to_owned() }.into()),
        }
    }
}

//! A thread that looks at something again and again beside work that blocks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Looks until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `look` at once and `every` so often, until it breaks off or this is dropped; none
    /// where the system has no thread left.
    pub(crate) fn start(every: Duration, mut look: impl FnMut() -> ControlFlow<()> + Send + 'static) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            while !stopped.load(Ordering::SeqCst) && look().is_continue() {
                std::thread::park_timeout(every);
            }
        };
        let thread = std::thread::Builder::new().name("agnes-watch".to_owned()).spawn(run).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

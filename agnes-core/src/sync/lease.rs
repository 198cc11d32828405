//! Keeps a job ours while we work on it.

use crate::connector::Cancel;
use crate::engine::Engine;
use crate::sync::LEASE;

/// Prolongs the lease of a job until dropped; cancels the work when another worker took
/// the job over.
#[derive(Debug)]
pub(crate) struct Heart(tokio::task::JoinHandle<()>);

impl Heart {
    pub(crate) fn beat(engine: &Engine, id: &str, worker: &str, cancel: &Cancel) -> Self {
        let (jobs, clock, cancel) = (engine.store().jobs(), engine.clock().clone(), cancel.clone());
        let (id, worker) = (id.to_owned(), worker.to_owned());
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                if !jobs.extend(&id, &worker, LEASE, clock.now()).await.unwrap_or(true) {
                    cancel.cancel();
                    return;
                }
            }
        }))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

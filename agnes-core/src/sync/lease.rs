//! Keeps a job ours while we work on it.

use std::sync::Arc;

use crate::clock::Clock;
use crate::connector::Cancel;
use crate::sync::{JobRepository, LEASE};

/// Prolongs the lease of a job until dropped; cancels the work when another worker took
/// the job over.
#[derive(Debug)]
pub(crate) struct Heart(tokio::task::JoinHandle<()>);

impl Heart {
    pub(crate) fn beat(
        jobs: Arc<dyn JobRepository>,
        clock: Arc<dyn Clock>,
        id: &str,
        worker: &str,
        cancel: &Cancel,
    ) -> Self {
        let (id, worker, cancel) = (id.to_owned(), worker.to_owned(), cancel.clone());
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

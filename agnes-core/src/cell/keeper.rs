//! The thread that starts workers, looks after them and buries them.
//!
//! A worker ends when the thread that started it does, so that thread lives as long as
//! anybody may hold a worker.

use std::io;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::CellOptions;
use super::process::Worker;
use super::shelf::Shelf;
use super::usage::Ceilings;
use super::wire::Reach;

/// How often workers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Workers that are not needed are let go this often.
const SWEEP: Duration = Duration::from_secs(10);
/// A query that runs longer yields to others.
const LONG: Duration = Duration::from_secs(2);
/// Resident memory beyond the engine's, bytes: rows on their way, the process itself.
const SPARE_MEMORY: u64 = 1 << 30;

/// What the keeper is asked to do. A sender comes along for the worker to keep: the keeper has
/// none of its own, so that it ends when nobody needs it any more.
pub(super) enum Order {
    /// Start a worker; where it asks sources, with what that takes.
    Spawn(Sender<Order>, Option<Box<Reach>>, oneshot::Sender<io::Result<Arc<Worker>>>),
    /// Start as many idle workers as there should be.
    Fill(Sender<Order>),
    /// Wait for a process that was ended, and remove its folder.
    Bury(Child, TempDir),
}

/// Keeps until every sender of `inbox` is gone.
pub(super) fn keep(options: &CellOptions, canary: &TempDir, shelf: &Weak<Shelf>, inbox: &Receiver<Order>) {
    let mut workers: Vec<Weak<Worker>> = Vec::new();
    let ceilings = Ceilings {
        grace: options.grace,
        long: LONG,
        resident: options.limits.memory_bytes.saturating_add(SPARE_MEMORY),
        idle: (options.limits.memory_bytes / 2).max(SPARE_MEMORY / 4),
        // The engine keeps to its own limit; this is for one that does not.
        spill: options.limits.spill_bytes.saturating_add(options.limits.spill_bytes / 8),
    };
    let (mut looked, mut swept) = (Instant::now(), Instant::now());
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(Order::Spawn(keeper, reach, reply)) => {
                let worker = Worker::spawn(options, reach.map(|reach| *reach), canary, keeper);
                workers.extend(worker.as_ref().ok().map(Arc::downgrade));
                let _ = reply.send(worker);
            }
            Ok(Order::Fill(keeper)) => {
                while let Some(shelf) = shelf.upgrade()
                    && shelf.wants_idle(options.warm)
                {
                    match Worker::spawn(options, None, canary, keeper.clone()) {
                        Ok(worker) => {
                            workers.push(Arc::downgrade(&worker));
                            shelf.put_idle(worker);
                        }
                        Err(error) => {
                            tracing::error!(%error, "a worker for queries could not be started");
                            break;
                        }
                    }
                }
            }
            Ok(Order::Bury(mut child, spill)) => {
                let _ = child.kill();
                match child.wait() {
                    Ok(status) => tracing::debug!(pid = child.id(), %status, "a worker has ended"),
                    Err(error) => tracing::error!(pid = child.id(), %error, "a worker cannot be waited for"),
                }
                drop(spill);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if looked.elapsed() < TICK {
            continue;
        }
        looked = Instant::now();
        workers.retain(|worker| worker.strong_count() > 0);
        for worker in workers.iter().filter_map(Weak::upgrade) {
            worker.look(&ceilings);
        }
        if swept.elapsed() > SWEEP
            && let Some(shelf) = shelf.upgrade()
        {
            swept = Instant::now();
            shelf.expire(options.idle_for);
        }
    }
}

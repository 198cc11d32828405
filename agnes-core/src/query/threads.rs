//! Threads for queries, kept for a while: a new one costs a small query as much as its work.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Planning recurses with the nesting of a query.
const STACK_BYTES: usize = 32 << 20;
/// Most threads that wait for work: a worker may not map more than its share.
const MOST_IDLE: usize = 4;
/// How long one waits.
const KEPT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

static IDLE: Mutex<Vec<(ThreadId, SyncSender<Job>)>> = Mutex::new(Vec::new());

fn idle<T>(with: impl FnOnce(&mut Vec<(ThreadId, SyncSender<Job>)>) -> T) -> T {
    with(&mut IDLE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs `job` on a thread of its own.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn run_apart(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let mut job: Job = Box::new(job);
    while let Some((_, thread)) = idle(Vec::pop) {
        match thread.send(job) {
            Ok(()) => return Ok(()),
            // It ended with what it ran before.
            Err(back) => job = back.0,
        }
    }
    thread::Builder::new().name("agnes-query".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let (give, take) = sync_channel(1);
        job();
        while wait(&give, &take) {}
    })?;
    Ok(())
}

/// Runs the next job; whether there was one.
fn wait(give: &SyncSender<Job>, take: &Receiver<Job>) -> bool {
    let me = thread::current().id();
    let waits = idle(|threads| {
        let room = threads.len() < MOST_IDLE;
        if room {
            threads.push((me, give.clone()));
        }
        room
    });
    if !waits {
        return false;
    }
    let job = match take.recv_timeout(KEPT) {
        Ok(job) => Some(job),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            let was_there = idle(|threads| {
                let at = threads.iter().position(|(id, _)| *id == me);
                at.map(|at| threads.remove(at)).is_some()
            });
            // Somebody took it in this moment and is about to send.
            if was_there { None } else { take.recv().ok() }
        }
    };
    job.map(|job| job()).is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_also_after_one_that_panics() {
        let (done, told) = std::sync::mpsc::channel();
        for round in 0..50 {
            for n in 0..20 {
                let done = done.clone();
                run_apart(move || {
                    let _told = done.send((round, n));
                    assert_ne!(n, 7, "a job that panics takes its thread with it");
                })
                .unwrap();
            }
        }
        drop(done);
        assert_eq!(told.iter().count(), 1000);
        assert!(idle(|threads| threads.len()) <= MOST_IDLE);
    }
}

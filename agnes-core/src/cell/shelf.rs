//! The workers there are: one for each grant set that was asked lately, and some idle ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::process::Worker;

/// The worker of one grant set; whoever holds the lock may make a new one.
pub(super) type Slot = Arc<tokio::sync::Mutex<Option<Arc<Worker>>>>;

/// The workers there are.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    slots: Mutex<HashMap<String, (Slot, Instant)>>,
    idle: Mutex<Vec<Arc<Worker>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// The place of a grant set's worker. Where there are more than `most`, the one that was
    /// not asked for longest goes; its queries run to their end.
    pub(super) fn slot(&self, fingerprint: &str, most: usize) -> Slot {
        let mut slots = lock(&self.slots);
        let now = Instant::now();
        let (slot, used) = slots.entry(fingerprint.to_owned()).or_insert_with(|| (Slot::default(), now));
        *used = now;
        let slot = slot.clone();
        while slots.len() > most.max(1) {
            let oldest = slots.iter().filter(|(key, _)| *key != fingerprint).min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            slots.remove(&oldest);
        }
        slot
    }

    /// Lets go of workers that nobody asked for `idle_for`.
    pub(super) fn expire(&self, idle_for: Duration) {
        lock(&self.slots).retain(|_, (slot, used)| {
            used.elapsed() < idle_for
                || slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(|worker| worker.busy() > 0))
        });
    }

    /// An idle worker that lives.
    pub(super) fn take_idle(&self) -> Option<Arc<Worker>> {
        let mut idle = lock(&self.idle);
        while let Some(worker) = idle.pop() {
            if worker.lives() {
                return Some(worker);
            }
        }
        None
    }

    /// Whether fewer than `warm` are idle.
    pub(super) fn wants_idle(&self, warm: usize) -> bool {
        let mut idle = lock(&self.idle);
        idle.retain(|worker| worker.lives());
        idle.len() < warm
    }

    /// Adds an idle worker.
    pub(super) fn put_idle(&self, worker: Arc<Worker>) {
        // The oldest is taken first.
        lock(&self.idle).insert(0, worker);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        lock(&self.slots).clear();
        lock(&self.idle).clear();
    }

    /// Processes of assigned workers, and of idle ones.
    #[cfg(feature = "testing")]
    pub(super) fn processes(&self) -> (Vec<u32>, Vec<u32>) {
        let slots = lock(&self.slots);
        let assigned = slots.values().filter_map(|(slot, _)| Some(slot.try_lock().ok()?.as_ref()?.pid));
        (assigned.collect(), lock(&self.idle).iter().map(|worker| worker.pid).collect())
    }
}

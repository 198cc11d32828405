//! How often one person's assistants may ask.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Calls of one person within a minute.
const PER_MINUTE: usize = 60;
/// Calls of one person at a time.
const AT_ONCE: usize = 4;
/// How long a call waits for another to end.
const PATIENCE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// People that are remembered.
const PEOPLE: u64 = 100_000;

#[derive(Debug)]
struct Turn {
    calls: Mutex<VecDeque<Instant>>,
    running: Arc<Semaphore>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { calls: Mutex::default(), running: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// Calls of the last minute, by user.
#[derive(Debug)]
pub(crate) struct Turns(moka::sync::Cache<String, Arc<Turn>>);

impl Default for Turns {
    fn default() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(PEOPLE).time_to_idle(2 * MINUTE).build())
    }
}

impl Turns {
    /// Counts one call of a user; the permit is held while it runs.
    ///
    /// # Errors
    /// 429 once there were too many within a minute, or too many run.
    pub(crate) async fn take(&self, user: &str) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = self.0.get_with_by_ref(user, Arc::default);
        turn.count(Instant::now())?;
        let permit = tokio::time::timeout(PATIENCE, turn.running.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let text = format!("{AT_ONCE} calls of yours run already");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text).hint("wait until one of them ends")
        })
    }
}

impl Turn {
    fn count(&self, now: Instant) -> Result<(), Problem> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        while calls.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            calls.pop_front();
        }
        if let Some(first) = calls.front().filter(|_| calls.len() >= PER_MINUTE) {
            let wait = MINUTE.saturating_sub(now.duration_since(*first)).as_secs() + 1;
            let text = format!("{PER_MINUTE} calls within a minute are the most");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text);
            return Err(problem.hint(format!("try again in {wait} s")).retry_after(wait));
        }
        calls.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_calls() {
        let (turn, start) = (Turn::default(), Instant::now());
        assert!((0..PER_MINUTE).all(|_| turn.count(start).is_ok()));
        assert_eq!(turn.count(start + MINUTE / 2).unwrap_err().code(), "rate_limited");
        assert!(turn.count(start + MINUTE).is_ok());
    }

    #[tokio::test]
    async fn people_are_counted_apart() {
        let turns = Turns::default();
        for _ in 0..PER_MINUTE {
            drop(turns.take("ann").await.unwrap());
        }
        assert!(turns.take("ann").await.is_err());
        assert!(turns.take("bob").await.is_ok());
    }
}

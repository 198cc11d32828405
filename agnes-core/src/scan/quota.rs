//! How much each person may scan. Decided in memory; what was used today is in the state as
//! well, so that a restart does not begin the day anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use tokio::task::JoinSet;

use super::ScanError;
use crate::config::ScanConfig;
use crate::error::Result;

/// How much was scanned, by user and day (UTC).
#[async_trait]
pub trait UsageRepository: Send + Sync + std::fmt::Debug {
    /// Bytes of each user on `day`, by user.
    async fn of_day(&self, day: NaiveDate) -> Result<Vec<(String, u64)>>;
    /// Adds to the bytes of a user on `day`. Days before it may be forgotten.
    async fn add(&self, user_id: &str, day: NaiveDate, bytes: u64) -> Result<()>;
}

/// Seconds after which one of the running scans has likely ended.
const SOON: u64 = 5;

#[derive(Debug, Default)]
struct Usage {
    running: usize,
    day: NaiveDate,
    bytes: u64,
}

impl Usage {
    /// Refuses more where today's bytes are used up.
    fn check(&self, limits: &ScanConfig, now: DateTime<Utc>) -> Result<(), ScanError> {
        let today = now.date_naive();
        if self.day != today || self.bytes < limits.max_daily_bytes_per_user {
            return Ok(());
        }
        let midnight = today.checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
        let wait = midnight.map_or(SOON, |at| u64::try_from((at - now).num_seconds()).unwrap_or(SOON).max(1));
        Err(ScanError::Quota {
            kind: "daily_bytes",
            current: self.bytes,
            limit: limits.max_daily_bytes_per_user,
            retry_after: wait,
        })
    }
}

/// What everybody uses now and has used today.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quotas {
    users: Arc<Mutex<HashMap<String, Usage>>>,
    /// Where it is kept, and what is being written there.
    kept: Option<Arc<dyn UsageRepository>>,
    writes: Arc<Mutex<JoinSet<()>>>,
}

impl Quotas {
    /// With what was used today, and where to keep what will be.
    pub(crate) async fn of(kept: Arc<dyn UsageRepository>, now: DateTime<Utc>) -> Result<Self> {
        let day = now.date_naive();
        let used = kept.of_day(day).await?.into_iter();
        let users = used.map(|(user, bytes)| (user, Usage { running: 0, day, bytes })).collect();
        Ok(Self { users: Arc::new(Mutex::new(users)), kept: Some(kept), writes: Arc::default() })
    }

    /// Waits until what was used is kept.
    pub(crate) async fn settle(&self) {
        let mut writes = std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        while writes.join_next().await.is_some() {}
    }

    /// Keeps what somebody used. Nobody waits for it, and a failure ends nothing.
    fn keep(&self, user: String, day: NaiveDate, bytes: u64) {
        let (Some(kept), Ok(runtime)) = (self.kept.clone(), tokio::runtime::Handle::try_current()) else { return };
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        while writes.try_join_next().is_some() {}
        writes.spawn_on(
            async move {
                if let Err(error) = kept.add(&user, day, bytes).await {
                    tracing::warn!(code = error.code(), "what was scanned is not counted beyond a restart: {error}");
                }
            },
            &runtime,
        );
    }

    /// A turn for one scan of `user`.
    pub(crate) fn begin(&self, user: &str, limits: &ScanConfig, now: DateTime<Utc>) -> Result<Slot, ScanError> {
        let today = now.date_naive();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, usage| usage.running > 0 || usage.day == today);
        let usage = users.entry(user.to_owned()).or_default();
        if usage.day != today {
            (usage.day, usage.bytes) = (today, 0);
        }
        usage.check(limits, now)?;
        if usage.running >= limits.max_concurrent_per_user {
            return Err(ScanError::Quota {
                kind: "concurrent_scans",
                current: usage.running as u64,
                limit: limits.max_concurrent_per_user as u64,
                retry_after: SOON,
            });
        }
        usage.running += 1;
        Ok(Slot { quotas: self.clone(), user: user.to_owned(), day: today, bytes: AtomicU64::new(0) })
    }
}

/// The turn of one scan, until dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    quotas: Quotas,
    user: String,
    day: NaiveDate,
    /// Of this scan.
    bytes: AtomicU64,
}

impl Slot {
    /// Whether its user may go on with it.
    pub(crate) fn check(&self, limits: &ScanConfig, now: DateTime<Utc>) -> Result<(), ScanError> {
        let users = self.quotas.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(&self.user).map_or(Ok(()), |usage| usage.check(limits, now))
    }

    /// Counts bytes that were returned.
    pub(crate) fn charge(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut users = self.quotas.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = users.get_mut(&self.user) {
            usage.bytes = usage.bytes.saturating_add(bytes);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut users = self.quotas.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = users.get_mut(&self.user) {
            usage.running = usage.running.saturating_sub(1);
        }
        drop(users);
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes > 0 {
            self.quotas.keep(std::mem::take(&mut self.user), self.day, bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone as _};

    #[tokio::test]
    async fn what_was_used_today_outlives_the_process() {
        let store: Arc<dyn UsageRepository> = Arc::new(crate::store::memory::MemoryStore::new());
        let limits = ScanConfig { max_daily_bytes_per_user: 100, ..ScanConfig::default() };
        let noon = Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap();
        let quotas = Quotas::of(store.clone(), noon).await.unwrap();
        for bytes in [40, 60] {
            quotas.begin("ann", &limits, noon).unwrap().charge(bytes);
        }
        quotas.begin("bob", &limits, noon).unwrap().charge(99);
        quotas.settle().await;
        let again = Quotas::of(store.clone(), noon).await.unwrap();
        let refused = again.begin("ann", &limits, noon).unwrap_err();
        assert!(matches!(refused, ScanError::Quota { kind: "daily_bytes", current: 100, .. }), "{refused}");
        again.begin("bob", &limits, noon).unwrap();
        let later = noon + TimeDelta::hours(12);
        Quotas::of(store, later).await.unwrap().begin("ann", &limits, later).unwrap();
    }

    #[test]
    fn turns_and_bytes_are_counted_per_person_and_day() {
        let quotas = Quotas::default();
        let limits = ScanConfig { max_concurrent_per_user: 2, max_daily_bytes_per_user: 100, ..ScanConfig::default() };
        let noon = Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap();
        let facts = |result: Result<Slot, ScanError>| match result.unwrap_err() {
            ScanError::Quota { kind, current, limit, retry_after } => (kind, current, limit, retry_after),
            other => panic!("{other}"),
        };
        let first = quotas.begin("ann", &limits, noon).unwrap();
        let second = quotas.begin("ann", &limits, noon).unwrap();
        assert_eq!(facts(quotas.begin("ann", &limits, noon)), ("concurrent_scans", 2, 2, SOON));
        let _bob = quotas.begin("bob", &limits, noon).unwrap();
        drop(second);
        first.charge(99);
        drop(quotas.begin("ann", &limits, noon).unwrap());
        first.charge(1);
        assert_eq!(facts(quotas.begin("ann", &limits, noon)), ("daily_bytes", 100, 100, 43_200));
        // At midnight it begins anew; what still runs still takes its turn.
        let later = noon + TimeDelta::hours(12);
        let _third = quotas.begin("ann", &limits, later).unwrap();
        assert_eq!(facts(quotas.begin("ann", &limits, later)).0, "concurrent_scans");
    }
}

//! How often one address may try what is worth guessing at.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agnes_core::context::network;
use axum::http::StatusCode;

use crate::problem::Problem;

/// The sliding window.
const MINUTE: Duration = Duration::from_secs(60);

/// Addresses that are remembered; the least recently seen are forgotten first.
const ADDRESSES: u64 = 100_000;

/// Something that is limited. Every way to do it shares one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Limited {
    /// Signing in by password.
    SignIn,
    /// Setting a first password.
    Setup,
    /// Changing a password.
    Change,
    /// Making the first Admin.
    Bootstrap,
    /// Asking for a mail with a link.
    Mail,
    /// Opening a link that signs in, and using it.
    Link,
    /// Presenting a one-shot code.
    Code,
    /// Making a profile anew.
    Profile,
    /// Registering a client of OAuth.
    Register,
    /// Getting, renewing or revoking a token of OAuth.
    Grant,
}

impl Limited {
    fn per_minute(self) -> usize {
        match self {
            Self::SignIn | Self::Setup | Self::Change | Self::Link | Self::Code | Self::Profile | Self::Register => 10,
            Self::Grant => 60,
            Self::Mail => 5,
            Self::Bootstrap => 3,
        }
    }
}

type Tries = Arc<Mutex<VecDeque<Instant>>>;

/// Tries of the last minute, by network.
#[derive(Debug)]
pub(crate) struct Rates(Option<moka::sync::Cache<(Limited, Option<IpAddr>), Tries>>);

impl Rates {
    /// Counts nothing where it is switched off.
    pub(crate) fn new(enabled: bool) -> Self {
        let tries = || moka::sync::Cache::builder().max_capacity(ADDRESSES).time_to_idle(MINUTE).build();
        Self(enabled.then(tries))
    }

    /// Counts one try.
    ///
    /// # Errors
    /// 429 with the time to wait, once there were too many.
    pub(crate) fn count(&self, what: Limited, from: Option<IpAddr>) -> Result<(), Problem> {
        let Some(known) = &self.0 else { return Ok(()) };
        let tries = known.get_with((what, from.map(network)), Tries::default);
        let mut tries = tries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while tries.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            tries.pop_front();
        }
        if let Some(first) = tries.front().filter(|_| tries.len() >= what.per_minute()) {
            let wait = MINUTE.saturating_sub(now.duration_since(*first)).as_secs() + 1;
            let problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many tries from this address");
            return Err(problem.hint(format!("try again in {wait} s")).retry_after(wait));
        }
        tries.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_actions_are_counted_apart() {
        let (rates, here, there) =
            (Rates::new(true), Some(IpAddr::from([127, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 1])));
        for _ in 0..10 {
            assert!(rates.count(Limited::SignIn, here).is_ok());
        }
        assert_eq!(
            rates.count(Limited::SignIn, here).map_err(|problem| problem.status()),
            Err(StatusCode::TOO_MANY_REQUESTS)
        );
        assert!(rates.count(Limited::SignIn, there).is_ok());
        assert!(rates.count(Limited::Change, here).is_ok());
        // Whoever has one address of IPv6 has as many as they like; another network is somebody else.
        let sixth = |text: &str| text.parse::<IpAddr>().ok();
        for n in 0..10 {
            assert!(rates.count(Limited::SignIn, sixth(&format!("2001:db8:1:2:{n:x}::{n:x}"))).is_ok());
        }
        assert!(rates.count(Limited::SignIn, sixth("2001:db8:1:2:ffff::1")).is_err());
        assert!(rates.count(Limited::SignIn, sixth("2001:db8:1:3::1")).is_ok());
        assert!(rates.count(Limited::SignIn, sixth("::ffff:127.0.0.1")).is_err(), "an address of IPv4 in other words");
        let off = Rates::new(false);
        assert!((0..100).all(|_| off.count(Limited::SignIn, here).is_ok()));
    }
}

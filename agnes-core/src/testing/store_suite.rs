//! The contract of stores: run against an empty one, panics where it is broken.
#![allow(clippy::unwrap_used)]

mod access;
mod credentials;
mod jobs;
mod policies;
mod preferences;
mod rest;
mod sync;

use chrono::{DateTime, TimeZone, Utc};

use crate::error::Result;
use crate::store::Store;

/// Holds a fresh, empty store to the contract of users, groups, members and grants.
pub async fn access(store: &dyn Store) {
    access::run(store).await;
}

/// Holds a fresh, empty store to the contract of passwords, one-shot tokens and codes, ended
/// sessions, tokens and access requests.
pub async fn credentials(store: &dyn Store) {
    credentials::run(store).await;
}

/// Holds a fresh, empty store to the contract of who may become the first Admin.
pub async fn first_admin(store: &dyn Store) {
    credentials::first_admin(store).await;
}

/// Holds a fresh, empty store to the contract of the registry, sources, ownership, the audit
/// log and internal tables.
pub async fn registry(store: &dyn Store) {
    rest::run(store).await;
}

/// Holds a fresh, empty store to the contract of sync state and profiles.
pub async fn sync(store: &dyn Store) {
    sync::run(store).await;
}

/// Holds a fresh, empty store to the contract of sync preferences.
pub async fn preferences(store: &dyn Store) {
    preferences::run(store).await;
}

/// Holds a fresh, empty store to the contract of policies.
pub async fn policies(store: &dyn Store) {
    policies::run(store).await;
}

/// Holds a fresh, empty store to the contract of jobs.
pub async fn jobs(store: &dyn Store) {
    jobs::run(store).await;
}

/// A time `seconds` after a fixed one.
fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + seconds, 250_000_000).unwrap()
}

/// The call must fail with this code.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: &str) {
    assert_eq!(result.unwrap_err().code(), code);
}

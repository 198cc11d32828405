//! The Keboola connector against a Storage API of our own, which is itself held to what the
//! vendor's official client expects.
#![allow(clippy::unwrap_used)]

mod contract;
mod engine;
mod fake;
mod full;
mod incremental;
mod logs;
mod official;
mod partitioned;
mod resume;
mod support;
mod trouble;
mod wire;

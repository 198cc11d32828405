//! The Jira connector against a site of our own.
#![allow(clippy::unwrap_used)]

mod check;
mod contract;
mod engine;
mod fake;
mod live;
mod peer;
mod support;

//! Publication of extracts: who owns which name, what odd and hostile extracts do, what a
//! kill or a full disk leaves, and what a rebuild costs.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod crash;
mod disk;
mod edges;
mod hostile;
mod ownership;
mod remote;
mod repair;
mod support;

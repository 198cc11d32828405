//! The engine from files to answers, with nothing replaced: real files, a real state
//! database, real processes that are really killed.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod access;
mod backup;
mod crash;
mod profiles;
mod support;
mod sync;

//! Policies through a whole engine: what callers see in queries and everywhere else.
#![allow(clippy::unwrap_used)]

mod receipts;
mod rules;
mod scope;
mod slices;
mod support;

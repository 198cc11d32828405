//! Queries through a whole engine: what callers see by grants and policies, in queries and
//! everywhere else.
#![allow(clippy::unwrap_used)]

mod frames;
mod queries;
mod receipts;
mod rules;
mod scope;
mod slices;
mod support;

//! The HTTP client that reaches out: where it may go, what it follows, when it tries again,
//! what it says. Servers are real sockets of this machine; names are what a test says.

#![allow(clippy::unwrap_used)]

mod peer;
mod reach;
mod sendgrid;
mod ways;
mod workspace;

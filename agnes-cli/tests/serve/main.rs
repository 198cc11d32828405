//! The server as operators run it: the built binary over loopback.

#![allow(clippy::unwrap_used)]

mod access;
mod basics;
mod catalog;
mod data;
mod matrix;
mod process;
mod query;
mod sign_in;
#[cfg(target_os = "linux")]
mod workers;
mod world;

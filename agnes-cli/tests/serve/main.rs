//! The server as operators run it: the built binary over loopback.

#![allow(clippy::unwrap_used)]

mod basics;
mod process;
#[cfg(target_os = "linux")]
mod workers;

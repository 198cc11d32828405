//! Databases as sources, against real servers: PostgreSQL, MariaDB, files of SQLite.

#![allow(clippy::unwrap_used)]

mod contract;
mod engine;
mod hygiene;
mod increments;
mod remote;
mod support;

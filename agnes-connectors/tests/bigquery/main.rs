//! The BigQuery connector, on an emulator that speaks REST and the Storage Read API.

#![allow(clippy::unwrap_used)]

mod contract;
mod copies;
mod credentials;
mod emulator;
mod engine;
mod google;
mod official;
mod rpc;
mod streams;
mod tables;
mod trouble;

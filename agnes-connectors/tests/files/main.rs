//! The files connector over real files, through the writer core hands in.
#![allow(clippy::unwrap_used)]

mod address;
mod contract;
mod csv;
mod discovery;
mod gate;
mod incremental;
mod json;
mod objects;
mod support;
mod workbooks;

//! Warehouses: sources that answer queries themselves, in a dialect of their own.
//!
//! A query is read by the sandbox as every query. Where all it names is in one warehouse and
//! the dialect has the same meaning for all it says, the whole statement is written
//! anew in it; nothing of a caller's text crosses. Otherwise `need` says how little of
//! each table has to be moved here. `reads` tells a query from a statement that may write. `paths` are
//! the full names that callers may use.

mod dialect;
mod error;
mod expression;
mod metadata;
mod need;
mod paths;
mod reads;
mod tree;

pub(crate) use dialect::{Dialect, Tables, is_ordered};
pub use error::WarehouseError;
pub use metadata::{MetadataRepository, TableMetadata};
pub(crate) use need::{needs, only_describes};
pub(crate) use paths::{Found, find, rename, unquoted};
pub use reads::only_reads;

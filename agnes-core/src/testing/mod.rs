//! For tests of Agnes and of what is built on it: the contract suites.

pub mod connector_suite;
pub mod store_suite;

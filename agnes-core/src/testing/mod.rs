//! For tests of Agnes and of what is built on it: the contract suites, and a connector that
//! does what a test says.

mod connector;
pub mod connector_suite;
pub mod store_suite;

pub use connector::{Behaviour, TestConnector};

//! For tests of Agnes and of what is built on it: the contract suites, a connector that does
//! what a test says, and ports for the servers they start, and what
//! stand-ins of servers are asked.

mod connector;
pub mod connector_suite;
mod port;
mod request;
pub mod store_suite;

pub use connector::{Behaviour, TestConnector};
pub use port::free_port;
pub use request::Request;

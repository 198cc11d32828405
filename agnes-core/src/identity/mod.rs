//! People and groups: who exists, who is active, who belongs where, what is granted to whom.

mod service;
mod users;

pub(crate) use service::resolve;
pub use service::*;
pub use users::*;

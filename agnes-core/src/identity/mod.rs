//! People and groups: who exists, who is active, who belongs where, what is granted to whom.

mod service;
mod users;

pub use service::*;
pub use users::*;

//! People and groups: who exists, who is active, who belongs where, what is granted to whom.

mod grants;
mod groups;
mod service;
mod users;

pub use grants::*;
pub use groups::*;
pub(crate) use service::resolve;
pub use service::*;
pub use users::*;

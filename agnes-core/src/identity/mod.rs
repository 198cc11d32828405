//! People: who exists, who is active.

mod users;

pub use users::*;

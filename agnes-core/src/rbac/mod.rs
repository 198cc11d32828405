//! Who may do what: principals, grants, the decision and its reason.

mod access;
mod decision;
mod principal;

pub use access::*;
pub use decision::*;
pub use principal::*;

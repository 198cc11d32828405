//! Who may do what: principals, grants, the decision and its reason.

mod access;
mod decision;
mod directory;
mod principal;

pub use access::*;
pub use decision::*;
pub use directory::*;
pub use principal::*;

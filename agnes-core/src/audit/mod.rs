//! What happened: who did what, on which resource, allowed or not, by which grant.

mod log;
mod model;

pub use log::*;
pub use model::*;

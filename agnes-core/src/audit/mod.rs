//! What happened: who did what, on which resource, allowed or not, by which grant.

mod log;
mod model;
mod read;
mod views;

pub use log::*;
pub use model::*;
pub use read::*;
pub use views::*;

//! Which sources and tables Agnes serves, and how each is kept.

mod model;
mod sources;
mod tables;

pub use model::*;
pub use sources::*;
pub use tables::*;

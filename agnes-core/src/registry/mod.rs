//! Which sources and tables Agnes serves, and how each is kept.

mod model;

pub use model::*;

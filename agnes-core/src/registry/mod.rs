//! Which sources and tables Agnes serves, and how each is kept.

mod configured;
mod discovery;
mod fields;
mod model;
mod register;
mod rules;
mod sources;
mod tables;

pub use discovery::*;
pub use fields::TableFields;
pub use model::*;
pub use register::*;
pub use sources::*;
pub use tables::*;

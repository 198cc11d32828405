//! Configuration: `instance.yaml`, its overlay, and the environment.
//!
//! Core reads no environment itself: the caller hands in a function that does.

mod error;
mod keys;
mod load;
mod sections;
mod values;

pub use error::ConfigError;
pub use load::{LoadOptions, Loaded};
pub use sections::*;

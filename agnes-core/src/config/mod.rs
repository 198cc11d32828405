//! Configuration: `instance.yaml`, its overlay, and the environment.
//!
//! Core reads no environment itself: the caller hands in a function that does.

mod elsewhere;
mod environment;
mod error;
pub(crate) mod keys;
mod load;
mod sections;
mod site;
mod values;

pub use elsewhere::{DirectoryConfig, OidcConfig};
pub use environment::Environment;
pub(crate) use environment::{replace, write_secrets};
pub use error::ConfigError;
pub(crate) use load::{Layers, at, set};
pub use load::{LoadOptions, Loaded};
pub use sections::*;
pub use site::*;

//! Configuration: `instance.yaml`, its overlay, and the environment.

/// The whole configuration, validated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {}

//! Text that must never be printed, serialised or compared in variable time.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A token or password. `Debug` and `Display` print `***`; it cannot be serialised;
/// its memory is wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, to hand to the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// `message` with every occurrence of this secret replaced by `***`.
    #[must_use]
    pub fn scrub(&self, message: &str) -> String {
        if self.expose().is_empty() { message.to_owned() } else { message.replace(self.expose(), "***") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where secrets come from, so that core never reads the environment itself.
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// The value named `name`, or `None` when unset or empty.
    fn get(&self, name: &str) -> Option<Secret>;
}

/// Secrets of the process environment.
#[derive(Debug, Default, Clone, Copy)]
pub struct EnvSecrets;

impl SecretSource for EnvSecrets {
    fn get(&self, name: &str) -> Option<Secret> {
        std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new)
    }
}

/// A fixed set of secrets, for embedders and tests.
#[derive(Debug, Default, Clone)]
pub struct FixedSecrets(std::collections::HashMap<String, Secret>);

impl FixedSecrets {
    /// A set of `(name, value)` pairs.
    pub fn new<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), Secret::new(value))).collect())
    }
}

impl SecretSource for FixedSecrets {
    fn get(&self, name: &str) -> Option<Secret> {
        self.0.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.scrub("password=hunter2 refused"), "password=*** refused");
    }
}

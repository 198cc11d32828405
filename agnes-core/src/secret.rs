//! Text that must never be printed, serialised or compared in variable time.

use std::fmt;
use std::io::Write;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, sync_folder};

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

/// The secret kept in the file at `path`, or `None` where there is no file. Blocks.
pub(crate) fn read_kept(path: &Path) -> std::io::Result<Option<Secret>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Secret::new(text.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a secret of 32 random bytes, in hex, and keeps it in a new file at `path`, mode 0600.
/// Blocks.
pub(crate) fn make_kept(path: &Path) -> Result<Secret> {
    let text = crate::orchestrator::hex(&random_bytes()?);
    let staged = Staged::beside(path)?;
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        options.open(staged.path())?.write_all(text.as_bytes())
    };
    write().map_err(|e| Error::io("write a secret of this installation", e))?;
    staged.sync()?;
    staged.publish(path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(Secret::new(text))
}

/// 32 bytes nobody can guess.
///
/// # Errors
/// `internal`, where the system gives none.
pub fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal("get random bytes", e))?;
    Ok(bytes)
}

/// Whether both are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
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

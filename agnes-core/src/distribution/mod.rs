//! The command as archives: which of them a server offers, and how one is installed.
//!
//! An archive is `agnes-<version>-<os>-<arch>.tar.gz`, as `scripts/dist.sh` makes it: one folder with
//! `bin/agnes`, `lib/` with the engine's library, `share/`. Beside it, `<archive>.sha256` is what
//! `sha256sum` prints. [`Distribution`] is a folder of them, [`Installation`] what they became on
//! somebody's computer.

mod error;
mod installed;
mod offered;
mod version;

pub use error::DistributionError;
pub use installed::{Incoming, Installation, Installed};
pub(crate) use offered::is_plain_origin as plain_origin;
pub use offered::{Artifact, Distribution, Offer};
pub use version::{is_newer, is_version, platform, this_platform};

/// SHA-256 of a file, in hex.
fn sha256_of(path: &std::path::Path) -> crate::error::Result<String> {
    use sha2::Digest as _;
    let read = || -> std::io::Result<String> {
        let mut hash = sha2::Sha256::new();
        std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
        Ok(crate::orchestrator::hex(&hash.finalize()))
    };
    read().map_err(|e| crate::Error::io("read an archive", e))
}

//! The key of an installation: for hash masks, receipts and manifests. Never printed, never in state.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest, Sha256};

use super::PolicyError;
use crate::error::Result;
use crate::layout::DataFolder;
use crate::secret::{self, Secret, SecretSource};

/// Secret that takes the place of the file.
const VARIABLE: &str = "AGNES_INSTANCE_KEY";
/// Fewest characters of a key.
const SHORTEST: usize = 32;
const BLOCK: usize = 64;

/// Keys made of the installation's, one for each purpose.
#[derive(Clone)]
pub(crate) struct InstanceKey {
    mask: [u8; 32],
    receipt: [u8; 32],
    manifest: [u8; 32],
}

impl std::fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The block that HMAC hashes before the inner message (`0x36`) or the outer (`0x5c`).
fn pad(key: &[u8; 32], byte: u8) -> [u8; BLOCK] {
    let mut block = [byte; BLOCK];
    block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
    block
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let inner = Sha256::new().chain_update(pad(key, 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(key, 0x5c)).chain_update(inner).finalize().into()
}

impl InstanceKey {
    fn of(secret: &Secret) -> Self {
        let key: [u8; 32] = Sha256::digest(secret.expose().as_bytes()).into();
        let made = |purpose: &[u8]| hmac(&key, purpose);
        Self { mask: made(b"agnes mask"), receipt: made(b"agnes receipt"), manifest: made(b"agnes manifest") }
    }

    /// The secret's, else the file's; the file is made when missing. Blocks.
    ///
    /// # Errors
    /// `instance_key_unreadable` for a key that is too short or a file that cannot be read:
    /// a new one would silently change every hash.
    pub(crate) fn load(folder: &DataFolder, secrets: &dyn SecretSource) -> Result<Self> {
        let secret = match secrets.get(VARIABLE) {
            Some(secret) => secret,
            None => from_file(&folder.instance_key())?,
        };
        if secret.expose().len() < SHORTEST {
            return Err(PolicyError::Key.into());
        }
        Ok(Self::of(&secret))
    }

    /// The two blocks with which SQL computes a hash mask.
    pub(crate) fn mask_blocks(&self) -> ([u8; BLOCK], [u8; BLOCK]) {
        (pad(&self.mask, 0x36), pad(&self.mask, 0x5c))
    }

    /// Which key it is, for whoever must notice another one; tells nothing of it.
    pub(crate) fn mask_id(&self) -> String {
        crate::orchestrator::hex(&hmac(&self.mask, b"which"))
    }

    /// The mark of a receipt's text.
    pub(crate) fn sign(&self, text: &[u8]) -> String {
        crate::orchestrator::hex(&hmac(&self.receipt, text))
    }

    /// Whether `mark` is the one of this text, in the same time for every answer.
    pub(crate) fn verifies(&self, text: &[u8], mark: &str) -> bool {
        let own = self.sign(text);
        secret::same(own.as_bytes(), mark.as_bytes())
    }

    /// Signs a manifest's text: the public half of the key and the signature, both hexadecimal.
    ///
    /// # Errors
    /// `internal`.
    pub(crate) fn sign_manifest(&self, text: &[u8]) -> Result<(String, String)> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.manifest)
            .map_err(|_| crate::Error::internal("make the key of manifests", "its seed is refused"))?;
        let (key, signature) = (pair.public_key().as_ref(), pair.sign(text));
        Ok((crate::orchestrator::hex(key), crate::orchestrator::hex(signature.as_ref())))
    }
}

fn from_file(path: &Path) -> Result<Secret> {
    match secret::read_kept(path) {
        Ok(Some(kept)) => Ok(kept),
        Ok(None) => secret::make_kept(path),
        Err(error) => {
            tracing::error!("the instance key cannot be read: {error}");
            Err(PolicyError::Key.into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::FixedSecrets;

    #[test]
    fn the_key_stays_the_same() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(root.path());
        std::fs::create_dir_all(folder.state_dir()).unwrap();
        let none = FixedSecrets::default();
        let first = InstanceKey::load(&folder, &none).unwrap();
        let again = InstanceKey::load(&folder, &none).unwrap();
        assert_eq!(first.mask_id(), again.mask_id());
        let mark = first.sign(b"text");
        assert!(again.verifies(b"text", &mark) && !again.verifies(b"texT", &mark) && !again.verifies(b"text", ""));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(folder.instance_key().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let given = FixedSecrets::new([("AGNES_INSTANCE_KEY", "0123456789abcdef0123456789abcdef")]);
        assert_ne!(InstanceKey::load(&folder, &given).unwrap().mask_id(), first.mask_id());
        std::fs::write(folder.instance_key(), "").unwrap();
        assert_eq!(InstanceKey::load(&folder, &none).unwrap_err().code(), "instance_key_unreadable");
        assert_eq!(format!("{first:?}"), "***");
    }

    /// RFC 4231, test case 1 with its key filled up to 32 bytes by the block's zeros.
    #[test]
    fn hmac_is_the_one_everybody_means() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        assert_eq!(
            crate::orchestrator::hex(&hmac(&key, b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}

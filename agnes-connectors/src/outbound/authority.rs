//! Whether computers know the authority of a certificate by themselves.

use std::sync::Arc;

use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

/// The certificate to trust for a server that shows this chain (PEM, its own certificate first), where no
/// authority of this system vouches for it: the last of the chain, in PEM. None where one does, or where this is no
/// chain. Blocks.
#[must_use]
pub fn private_authority(chain: &[u8]) -> Option<String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().ok()?;
    let (own, rest) = chain.split_first()?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let is_private = roots.is_empty() || {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        // Whose name it has is looked at last, and is no matter here.
        let name = ServerName::try_from("agnes.invalid").ok()?;
        let verified = verifier.build().ok()?.verify_server_cert(own, rest, &name, &[], UnixTime::now());
        matches!(verified, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))))
    };
    is_private.then(|| pem(chain.last().unwrap_or(own)))
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Of an authority that a test made up.
    const OWN: &str = include_str!("authority.pem");

    #[test]
    fn an_authority_that_nobody_knows_is_told() {
        let told = private_authority(OWN.as_bytes()).unwrap();
        let last = OWN.rfind("-----BEGIN").unwrap();
        assert_eq!(told.trim(), OWN[last..].trim());
        assert_eq!(private_authority(b"nothing"), None);
        assert_eq!(private_authority(b""), None);
        assert_eq!(private_authority(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), None);
    }
}

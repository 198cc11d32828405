//! The authority of the certificates that the proxy in front shows.

use std::path::PathBuf;
use std::time::SystemTime;

use agnes_core::duck::blocking;
use tokio::sync::Mutex;

/// What was found in which file, as of when it was written.
type Found = (PathBuf, SystemTime, Option<String>);

/// What is known of it: a file is read again once it is another one.
#[derive(Default)]
pub(crate) struct KnownAuthority(Mutex<Option<Found>>);

impl KnownAuthority {
    /// The certificate to trust, PEM, where computers do not know the authority of this chain by themselves.
    pub(crate) async fn of(&self, chain: PathBuf) -> Option<String> {
        let mut known = self.0.lock().await;
        let written = chain.metadata().and_then(|meta| meta.modified()).ok()?;
        if let Some((file, when, found)) = &*known
            && (file, when) == (&chain, &written)
        {
            return found.clone();
        }
        let file = chain.clone();
        let found = blocking(move || {
            // A key may be in it too: only certificates are looked at.
            let text = std::fs::read(file).unwrap_or_default();
            Ok(agnes_connectors::outbound::private_authority(&text))
        });
        let found = found.await.ok().flatten();
        *known = Some((chain, written, found.clone()));
        found
    }
}

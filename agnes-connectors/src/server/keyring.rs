//! The keyring of the desktop that somebody is signed in at: the Secret Service on Linux, the
//! Keychain on macOS.
//!
//! Whoever asks it may wait for a person who unlocks it, and for a service that does not come up:
//! each step has a limit, and is made in a thread that nobody has to wait for.

use std::sync::mpsc;
use std::time::Duration;

use agnes_core::secret::Secret;
use keyring::{Entry, Error};

/// Under which name entries are in it.
const SERVICE: &str = "agnes";
/// How long the service may take to be there.
const CONNECT: Duration = Duration::from_secs(25);
/// How long a step may take: somebody may have to unlock it.
const STEP: Duration = Duration::from_secs(60);

/// There is none, or it does not do as asked; why is in the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreachable;

/// Whether there may be one. Decided by what is here, without asking anybody: where no bus is
/// named and none is at its usual place there is none, and none is started.
pub(super) fn may_be_there(env: &dyn Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let usual = || set("XDG_RUNTIME_DIR").is_some_and(|folder| std::path::Path::new(&folder).join("bus").exists());
    cfg!(target_os = "macos") || set("DBUS_SESSION_BUS_ADDRESS").is_some() || usual()
}

/// Keeps a secret, instead of the one before.
pub(super) fn put(name: &str, secret: &Secret) -> Result<(), Unreachable> {
    let secret = secret.clone();
    with(name, move |entry| entry.set_password(secret.expose()))?.ok_or(Unreachable)
}

/// The secret that is kept.
pub(super) fn get(name: &str) -> Result<Option<Secret>, Unreachable> {
    with(name, |entry| entry.get_password().map(Secret::new))
}

/// Forgets a secret; whether there was one.
pub(super) fn remove(name: &str) -> Result<bool, Unreachable> {
    Ok(with(name, |entry| entry.delete_credential())?.is_some())
}

/// Does something with an entry; nothing comes back where there is none.
fn with<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(Entry) -> keyring::Result<T> + Send + 'static,
) -> Result<Option<T>, Unreachable> {
    within(CONNECT, || Entry::store_status().as_ref().map_err(|error| error.to_string()).copied())?;
    let name = name.to_owned();
    within(STEP, move || match Entry::new(SERVICE, &name).and_then(work) {
        Ok(done) => Ok(Some(done)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error.to_string()),
    })
}

fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Unreachable> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("keyring".to_owned()).spawn(move || tell.send(work()));
    let done = match thread {
        Ok(_) => told.recv_timeout(limit).unwrap_or_else(|_| Err("it does not answer".to_owned())),
        Err(error) => Err(error.to_string()),
    };
    done.map_err(|reason| {
        tracing::debug!("the keyring: {reason}");
        Unreachable
    })
}

//! Passwords: argon2id on blocking threads, few at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::SignInError;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Fewest characters of a password.
pub const SHORTEST_PASSWORD: usize = 8;
/// Most bytes of a password.
pub const LONGEST_PASSWORD: usize = 1024;
/// Hashes computed at a time: each takes 19 MiB and a core.
const AT_ONCE: usize = 2;
/// How long a hash waits for its turn.
const WAIT: Duration = Duration::from_secs(10);

/// Hashes and verifies.
#[derive(Debug)]
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// What a check of a password found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// Whether it is the one.
    pub(super) right: bool,
    /// A stronger hash of it, where the stored one is weaker than those of today.
    pub(super) stronger: Option<String>,
}

/// Whether `password` may be one.
///
/// # Errors
/// `password_too_short` below 8 characters, `password_too_long` above 1,024 bytes.
pub(super) fn check_rules(password: &Secret) -> Result<()> {
    let text = password.expose();
    if text.chars().count() < SHORTEST_PASSWORD {
        return Err(SignInError::PasswordTooShort.into());
    }
    if text.len() > LONGEST_PASSWORD {
        return Err(SignInError::PasswordTooLong.into());
    }
    Ok(())
}

impl Passwords {
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout(WAIT, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(SignInError::Busy.into()),
        }
    }

    /// The hash of a password that keeps the rules.
    pub(super) async fn hash(&self, password: &Secret) -> Result<String> {
        check_rules(password)?;
        let (turn, password) = (self.turn().await?, password.clone());
        crate::duck::blocking(move || {
            let hash = hash(password.expose());
            drop(turn);
            hash
        })
        .await
    }

    /// Whether `password` is the one of `stored`. Without one it takes the same time to say no.
    pub(super) async fn check(&self, password: &Secret, stored: Option<Secret>) -> Result<Checked> {
        // Longer than any that was ever set: not even looked at, whoever it is for.
        if password.expose().len() > LONGEST_PASSWORD {
            return Ok(Checked { right: false, stronger: None });
        }
        let (turn, password) = (self.turn().await?, password.clone());
        crate::duck::blocking(move || {
            let known = stored.is_some();
            let against = stored.map_or_else(nobodys, Ok)?;
            let right = matches(password.expose(), against.expose()) && known;
            let stronger = (right && is_weaker(against.expose())).then(|| hash(password.expose())).transpose()?;
            drop(turn);
            Ok(Checked { right, stronger })
        })
        .await
    }
}

fn hash(password: &str) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Error::internal("hash a password", e.to_string()))?;
    Ok(hash.to_string())
}

/// A hash that no password has, for people who are not there.
fn nobodys() -> Result<Secret> {
    static HASH: OnceLock<Secret> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash.clone());
    }
    let made = Secret::new(hash(&crate::orchestrator::hex(&crate::secret::random_bytes()?))?);
    Ok(HASH.get_or_init(|| made).clone())
}

fn matches(password: &str, stored: &str) -> bool {
    match PasswordHash::new(stored) {
        Ok(hash) => {
            #[cfg(test)]
            tests::note(password, &hash);
            Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
        }
        Err(_) => {
            tracing::warn!("a stored password hash cannot be read");
            false
        }
    }
}

fn is_weaker(stored: &str) -> bool {
    let Ok(hash) = PasswordHash::new(stored) else { return false };
    let Ok(params) = Params::try_from(&hash) else { return true };
    hash.algorithm != Algorithm::Argon2id.ident()
        || params.m_cost() < Params::DEFAULT_M_COST
        || params.t_cost() < Params::DEFAULT_T_COST
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Passwords that were verified, each with what argon2 had to do.
    static DONE: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

    pub(super) fn note(password: &str, hash: &PasswordHash) {
        // Algorithm, version and parameters; of salt and output how long they are.
        let text = hash.to_string();
        let (settings, random): (Vec<_>, Vec<_>) = text.split('$').enumerate().partition(|(place, _)| *place < 4);
        let lengths: Vec<usize> = random.iter().map(|(_, part)| part.len()).collect();
        let work = format!("{settings:?} {lengths:?}");
        DONE.lock().unwrap_or_else(PoisonError::into_inner).push((password.to_owned(), work));
    }

    /// The time of a refusal must not tell who has an account: whoever it is for, argon2 works
    /// once, and as much.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_refusal_takes_the_same_work_whoever_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::Engine::builder(folder.path()).for_one_command().open().await.unwrap();
        let owner = crate::CallContext::new(crate::rbac::Principal::trusted_owner_of_the_data_folder(
            "test",
            crate::rbac::ClientKind::Api,
        ));
        for email in ["ann@example.com", "new@example.com"] {
            engine.identity().add_user(&owner, email, None).await.unwrap();
        }
        let (client, sign_in) = (crate::context::Client::at(None), engine.sign_in());
        let letter = sign_in.ask_for_setup("ann@example.com").await.unwrap().unwrap();
        let right = Secret::new("a password of Ann");
        sign_in.set_up_password(&client, "ann@example.com", letter.token.expose(), &right, None).await.unwrap();
        let mut works = Vec::new();
        for (email, tried) in [
            ("ann@example.com", "wrong for ann"),
            ("nobody@example.com", "wrong for nobody"),
            ("new@example.com", "wrong for new"),
        ] {
            let refused = sign_in.with_password(&client, email, &Secret::new(tried)).await.err().unwrap();
            assert_eq!(refused.code(), "invalid_credentials");
            let done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
            works.push(
                done.iter().filter(|(password, _)| password == tried).map(|(_, work)| work.clone()).collect::<Vec<_>>(),
            );
        }
        assert_eq!(works[0].len(), 1, "{works:?}");
        assert!(works.iter().all(|work| *work == works[0]), "{works:?}");
        engine.close().await.unwrap();
    }

    #[tokio::test]
    async fn right_wrong_nobodys_and_weak() {
        let passwords = Passwords::default();
        let (right, wrong) = (Secret::new("correct horse"), Secret::new("correct hors"));
        let stored = passwords.hash(&right).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, passwords.hash(&right).await.unwrap());
        let no = Checked { right: false, stronger: None };
        assert_eq!(
            passwords.check(&right, Some(Secret::new(stored.clone()))).await.unwrap(),
            Checked { right: true, stronger: None }
        );
        assert_eq!(passwords.check(&wrong, Some(Secret::new(stored))).await.unwrap(), no);
        assert_eq!(passwords.check(&right, None).await.unwrap(), no);
        assert_eq!(passwords.check(&right, Some(Secret::new("not a hash"))).await.unwrap(), no);
        assert_eq!(passwords.check(&Secret::new("x".repeat(2000)), None).await.unwrap(), no);

        let weak = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, Params::new(8 * 1024, 1, 1, None).unwrap());
        let weak: PasswordHash = weak.hash_password(b"correct horse").unwrap();
        let found = passwords.check(&right, Some(Secret::new(weak.to_string()))).await.unwrap();
        assert!(found.right && found.stronger.is_some_and(|hash| hash.contains("m=19456,t=2,p=1")));
    }

    /// A hash as `argon2-cffi` writes it, with parameters of its own.
    #[test]
    fn stronger_hashes_of_others_are_kept() {
        let strong = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, Params::new(65536, 3, 4, None).unwrap());
        let strong: PasswordHash = strong.hash_password(b"pw").unwrap();
        let text = strong.to_string();
        assert!(text.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"));
        assert!(matches("pw", &text) && !is_weaker(&text));
    }

    #[test]
    fn rules() {
        let code = |text: String| check_rules(&Secret::new(text)).err().map(|error| error.code().to_owned());
        assert_eq!(code("1234567".into()).as_deref(), Some("password_too_short"));
        assert_eq!(code("žžžžžžž".into()).as_deref(), Some("password_too_short"));
        assert_eq!(code("12345678".into()), None);
        assert_eq!(code("x".repeat(1024)), None);
        assert_eq!(code("x".repeat(1025)).as_deref(), Some("password_too_long"));
    }
}

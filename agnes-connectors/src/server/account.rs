//! What is kept of somebody who signed in: which server, and a token for it.
//!
//! `config.yaml` names the server. The token is in the system's keyring where there is one, else in
//! `token.json` (mode 0600), which says in which of the two it is. A token is only sent to the server
//! that it was kept for.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use agnes_core::error::{Error, Result};
use agnes_core::secret::Secret;
use serde::{Deserialize, Serialize};

use super::{ServerError, keyring};

/// Certificates to trust for the server, in the folder.
const AUTHORITY: &str = "ca.pem";

/// What is kept, in a folder and in the keyring.
#[derive(Debug, Clone)]
pub struct Account {
    folder: PathBuf,
    /// None where what was asked for is no place.
    store: Option<TokenStore>,
    /// Whether a keyring may be asked at all.
    has_keyring: bool,
    /// `AGNES_CA_FILE`: certificates to trust for the server that is kept.
    authority: Option<PathBuf>,
}

/// Where tokens are to be kept: `AGNES_TOKEN_STORE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenStore {
    /// `auto`: in the keyring where there is one, else in the file.
    #[default]
    Auto,
    /// `file`: in the file; no keyring is asked for one.
    File,
    /// `keyring`: there, or nowhere.
    Keyring,
}

impl TokenStore {
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "auto" => Some(Self::Auto),
            "file" => Some(Self::File),
            "keyring" => Some(Self::Keyring),
            _ => None,
        }
    }
}

/// From where a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFrom {
    /// `AGNES_TOKEN`.
    Environment,
    /// The system's keyring.
    Keyring,
    /// `token.json`.
    File,
}

impl TokenFrom {
    /// Its name: `environment`, `keyring`, `file`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Keyring => "keyring",
            Self::File => "file",
        }
    }
}

/// A token that is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The token.
    pub token: Secret,
    /// Whose it is, as far as is known.
    pub email: Option<String>,
    /// From where it came.
    pub from: TokenFrom,
}

#[derive(Serialize, Deserialize, Default)]
struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct TokenFile {
    /// None where it is in the keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(default)]
    email: Option<String>,
    /// The server that it is for; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

impl TokenFile {
    /// The server whose token is in the keyring.
    fn in_keyring(self) -> Option<String> {
        self.server.filter(|_| self.access_token.is_none())
    }
}

impl Account {
    /// What is kept in this folder alone.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), store: Some(TokenStore::File), has_keyring: false, authority: None }
    }

    /// What is kept in the user's own folder, `AGNES_CONFIG_DIR` or else `~/.config/agnes`, and in
    /// their keyring. Nothing is asked yet.
    #[must_use]
    pub fn of_user(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Where nothing says so, the system does: a token does not belong where somebody happens to work.
        let home = || named("HOME").or_else(std::env::home_dir);
        let usual = || named("XDG_CONFIG_HOME").or_else(|| home().map(|home| home.join(".config")));
        let folder = named("AGNES_CONFIG_DIR").or_else(|| usual().map(|folder| folder.join("agnes")));
        let store = env("AGNES_TOKEN_STORE").filter(|text| !text.trim().is_empty());
        Self {
            folder: folder.unwrap_or_else(|| PathBuf::from(".agnes-config")),
            store: store.map_or(Some(TokenStore::Auto), |text| TokenStore::parse(&text)),
            has_keyring: keyring::may_be_there(env),
            authority: named("AGNES_CA_FILE"),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match std::fs::read(self.folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::io("read what was kept of the sign-in", e)),
        }
    }

    /// The server that is kept.
    ///
    /// # Errors
    /// `account_unreadable`, I/O errors.
    pub fn server(&self) -> Result<Option<String>> {
        Ok(self.config()?.server)
    }

    /// The workspace that was set up last, wherever a command is started.
    ///
    /// # Errors
    /// `account_unreadable`, I/O errors.
    pub fn workspace(&self) -> Result<Option<PathBuf>> {
        Ok(self.config()?.workspace)
    }

    fn config(&self) -> Result<Config> {
        let Some(text) = self.read("config.yaml")? else { return Ok(Config::default()) };
        let text = String::from_utf8(text).map_err(|_| ServerError::AccountUnreadable)?;
        Ok(serde_saphyr::from_str(&text).map_err(|_| ServerError::AccountUnreadable)?)
    }

    fn store(&self) -> Result<TokenStore> {
        Ok(self.store.ok_or(ServerError::BadTokenStore)?)
    }

    fn token_file(&self) -> Result<Option<TokenFile>> {
        let Some(text) = self.read("token.json")? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&text).map_err(|_| ServerError::AccountUnreadable)?))
    }

    /// Under which name the keyring has the token for `server`. Folders do not share one.
    fn name(&self, server: &str) -> String {
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        format!("{server} ({})", folder.display())
    }

    /// The token for `server`: of the environment, else the one that is kept for it.
    ///
    /// # Errors
    /// `account_unreadable`, `no_keyring`, `bad_token_store`, I/O errors.
    pub fn token(&self, server: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Kept>> {
        if let Some(token) = env("AGNES_TOKEN").filter(|token| !token.trim().is_empty()) {
            let token = Secret::new(token.trim());
            return Ok(Some(Kept { token, email: None, from: TokenFrom::Environment }));
        }
        let Some(file) = self.token_file()? else { return Ok(None) };
        let of = match file.server {
            Some(of) => Some(of),
            None => self.server()?,
        };
        if of.as_deref().map(|of| of.trim_end_matches('/')) != Some(server) {
            return Ok(None);
        }
        let (token, from) = match file.access_token {
            Some(token) => (Secret::new(token), TokenFrom::File),
            None if self.store()? == TokenStore::File || !self.has_keyring => return Err(ServerError::NoKeyring.into()),
            None => match keyring::get(&self.name(server)).map_err(|_| ServerError::NoKeyring)? {
                Some(token) => (token, TokenFrom::Keyring),
                None => return Ok(None),
            },
        };
        Ok(Some(Kept { token, email: file.email, from }))
    }

    /// Certificates to trust for a server: those that were kept with it.
    ///
    /// # Errors
    /// `account_unreadable`, I/O errors.
    pub fn authority_of(&self, server: &str) -> Result<Option<PathBuf>> {
        let file = self.folder.join(AUTHORITY);
        let is_its = file.is_file() && self.server()?.is_some_and(|kept| kept.trim_end_matches('/') == server);
        Ok(is_its.then_some(file))
    }

    /// Keeps the server, and the certificates of `AGNES_CA_FILE` with it: other shells and hooks ask it too.
    ///
    /// # Errors
    /// I/O errors.
    pub fn keep_server(&self, server: &str) -> Result<()> {
        let kept = self.folder.join(AUTHORITY);
        let same = |file: &Path| std::fs::canonicalize(file).ok() == std::fs::canonicalize(&kept).ok();
        match &self.authority {
            Some(file) if same(file) => {}
            Some(file) => {
                let text = std::fs::read(file).map_err(|_| ServerError::BadCertificates)?;
                self.write(AUTHORITY, &text)?;
            }
            // Of another server.
            None if self.server().ok().flatten().is_none_or(|before| before != server) => {
                let _ = std::fs::remove_file(&kept);
            }
            None => {}
        }
        let workspace = self.workspace().ok().flatten();
        self.keep_config(&Config { server: Some(server.to_owned()), workspace })
    }

    /// Keeps where the workspace is that was set up last.
    ///
    /// # Errors
    /// `account_unreadable`, I/O errors.
    pub fn keep_workspace(&self, root: &Path) -> Result<()> {
        let workspace = std::path::absolute(root).map_err(|e| Error::io("find the workspace", e))?;
        self.keep_config(&Config { workspace: Some(workspace), ..self.config()? })
    }

    fn keep_config(&self, config: &Config) -> Result<()> {
        let text = serde_json::to_vec(config).map_err(|e| Error::internal("write the server", e))?;
        // JSON is YAML.
        self.write("config.yaml", &text)
    }

    /// Keeps the server and a token for it, instead of the one before; where.
    ///
    /// # Errors
    /// `no_keyring` where it has to be one; `bad_token_store`, I/O errors.
    pub fn keep(&self, server: &str, token: &Secret, email: Option<&str>) -> Result<TokenFrom> {
        let store = self.store()?;
        let before = self.token_file().ok().flatten().and_then(|file| file.in_keyring());
        let name = self.name(server);
        let kept = match store {
            TokenStore::File => false,
            TokenStore::Auto | TokenStore::Keyring => self.has_keyring && keyring::put(&name, token).is_ok(),
        };
        if store == TokenStore::Keyring && !kept {
            return Err(ServerError::NoKeyring.into());
        }
        self.keep_server(server)?;
        let file = TokenFile {
            access_token: (!kept).then(|| token.expose().to_owned()),
            email: email.map(ToOwned::to_owned),
            server: Some(server.to_owned()),
        };
        self.write("token.json", &serde_json::to_vec(&file).map_err(|e| Error::internal("write the token", e))?)?;
        if let Some(before) = before.filter(|before| !kept || before != server) {
            self.forget_in_keyring(&before);
        }
        Ok(if kept { TokenFrom::Keyring } else { TokenFrom::File })
    }

    fn forget_in_keyring(&self, server: &str) -> bool {
        self.has_keyring && keyring::remove(&self.name(server)).is_ok_and(|was_there| was_there)
    }

    /// Forgets the token, in the keyring and in the file; whether there was one.
    ///
    /// # Errors
    /// `no_keyring` where it is in one that does not answer: then it stays; I/O errors.
    pub fn forget(&self) -> Result<bool> {
        // What cannot be read is forgotten all the same.
        if let Some(server) = self.token_file().ok().flatten().and_then(|file| file.in_keyring()) {
            if !self.has_keyring {
                return Err(ServerError::NoKeyring.into());
            }
            keyring::remove(&self.name(&server)).map_err(|_| ServerError::NoKeyring)?;
        }
        match std::fs::remove_file(self.folder.join("token.json")) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("forget the token", e)),
        }
    }

    /// Writes a file that only its owner may read, or leaves the old one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
        let beside = self.folder.join(format!("{name}.{}.tmp", std::process::id()));
        let put = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o700))?;
            let _ = std::fs::remove_file(&beside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(text)?;
            file.sync_all()?;
            std::fs::rename(&beside, self.folder.join(name))
        };
        let done = put();
        if done.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        done.map_err(|e| Error::io("keep the sign-in", e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_token_is_for_one_server_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::in_folder(folder.path().join("agnes"));
        assert_eq!(account.server().unwrap(), None);
        assert!(account.token("https://a", &nothing).unwrap().is_none());
        account.keep("https://a", &Secret::new("t1"), Some("ann@example.com")).unwrap();
        assert_eq!(account.server().unwrap().as_deref(), Some("https://a"));
        let kept = account.token("https://a", &nothing).unwrap().unwrap();
        assert_eq!((kept.token.expose(), kept.email.as_deref()), ("t1", Some("ann@example.com")));
        assert!(account.token("https://b", &nothing).unwrap().is_none(), "it goes to no other server");
        let of_env = account.token("https://b", &|name| (name == "AGNES_TOKEN").then(|| " t2\n".to_owned()));
        assert_eq!(of_env.unwrap().unwrap().token.expose(), "t2");
        for name in ["config.yaml", "token.json"] {
            let mode = account.folder().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(account.folder().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(account.forget().unwrap() && !account.forget().unwrap());
        std::fs::write(account.folder().join("token.json"), "{").unwrap();
        assert_eq!(account.token("https://a", &nothing).unwrap_err().code(), "account_unreadable");
        std::fs::write(account.folder().join("token.json"), r#"{"access_token": "t3"}"#).unwrap();
        assert_eq!(account.token("https://a", &nothing).unwrap().unwrap().token.expose(), "t3", "an older file");
    }

    #[test]
    fn without_a_bus_a_token_is_in_the_file_or_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().to_str().unwrap().to_owned();
        let account = |store: &'static str| {
            Account::of_user(&|name: &str| match name {
                "AGNES_CONFIG_DIR" => Some(config.clone()),
                "AGNES_TOKEN_STORE" => Some(store.to_owned()),
                _ => None,
            })
        };
        let token = Secret::new("t1");
        for store in ["", "auto", "file"] {
            assert_eq!(account(store).keep("https://a", &token, None).unwrap(), TokenFrom::File, "{store}");
            assert_eq!(account(store).token("https://a", &nothing).unwrap().unwrap().from, TokenFrom::File);
        }
        assert_eq!(account("nowhere").keep("https://a", &token, None).unwrap_err().code(), "bad_token_store");
        if cfg!(target_os = "macos") {
            return;
        }
        assert_eq!(account("keyring").keep("https://a", &token, None).unwrap_err().code(), "no_keyring");
        assert!(account("").forget().unwrap());
        std::fs::write(folder.path().join("token.json"), r#"{"server": "https://a"}"#).unwrap();
        for store in ["", "file", "keyring"] {
            assert_eq!(account(store).token("https://a", &nothing).unwrap_err().code(), "no_keyring", "{store}");
            assert_eq!(account(store).forget().unwrap_err().code(), "no_keyring", "{store}: it would stay there");
        }
        assert_eq!(account("").keep("https://a", &token, None).unwrap(), TokenFrom::File, "a file takes its place");
    }

    #[test]
    fn the_folder_is_the_users_own() {
        let folder = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Account::of_user(&find).folder().to_string_lossy().into_owned()
        };
        assert_eq!(folder(&[("HOME", "/h")]), "/h/.config/agnes");
        assert_eq!(folder(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]), "/c/agnes");
        assert_eq!(folder(&[("HOME", "/h"), ("AGNES_CONFIG_DIR", "/x")]), "/x");
        assert!(Path::new(&folder(&[])).is_absolute(), "not in the folder that somebody works in");
    }
}

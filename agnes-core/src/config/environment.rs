//! The environment, with the secrets over it that admins entered while the server ran.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use super::ConfigError;
use crate::error::{Error, Result};
use crate::extract::fsio::{Staged, sync_folder};
use crate::layout::DataFolder;
use crate::secret::{Secret, SecretSource};

/// Reads one variable of the process.
type Inherited = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Variables of the process, and over them those of `.env_overlay` in the state folder.
///
/// An entry there wins, also over a variable that is set: whoever entered a new secret meant
/// it to be used after the next start. It loses where the file that the process has its
/// environment from was changed later.
#[derive(Clone)]
pub struct Environment {
    inherited: Inherited,
    /// Where they come from, where that is known.
    file: Option<PathBuf>,
    entered: Arc<BTreeMap<String, Secret>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("entered", &self.entered.keys()).finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads `.env_overlay`. `file` is where the variables of the process come from, where
    /// that is known. Blocks.
    ///
    /// # Errors
    /// `config_secrets_unreadable`, `config_unreadable`.
    pub fn load(
        folder: &DataFolder,
        inherited: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        file: Option<&Path>,
    ) -> Result<Self> {
        Self::read(folder, Arc::new(inherited), file.map(Path::to_owned))
    }

    /// The same with what was entered since. Blocks.
    ///
    /// # Errors
    /// As [`Environment::load`].
    pub(crate) fn reloaded(&self, folder: &DataFolder) -> Result<Self> {
        Self::read(folder, self.inherited.clone(), self.file.clone())
    }

    fn read(folder: &DataFolder, inherited: Inherited, file: Option<PathBuf>) -> Result<Self> {
        let changed = file.as_ref().and_then(|file| file.metadata().ok()?.modified().ok()).map(DateTime::<Utc>::from);
        let mut entered = BTreeMap::new();
        for (name, entry) in read_secrets(&folder.env_overlay())? {
            let is_older = changed.is_some_and(|changed| entry.since.is_none_or(|since| since < changed));
            if !(is_older && inherited(&name).is_some_and(|value| !value.is_empty())) {
                entered.insert(name, entry.value);
            }
        }
        Ok(Self { inherited, file, entered: Arc::new(entered) })
    }

    /// One variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<String> {
        match self.entered.get(name) {
            Some(secret) => Some(secret.expose().to_owned()),
            None => (self.inherited)(name),
        }
    }
}

impl SecretSource for Environment {
    fn get(&self, name: &str) -> Option<Secret> {
        self.var(name).filter(|value| !value.is_empty()).map(Secret::new)
    }
}

/// One line of the file.
#[derive(Debug, Clone)]
struct Entry {
    value: Secret,
    /// When it was entered: the comment above it.
    since: Option<DateTime<Utc>>,
}

fn read_secrets(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => {
            let file = ".env_overlay".to_owned();
            return Err(ConfigError::Unreadable { file, reason: error.kind().to_string() }.into());
        }
    };
    let (mut entries, mut since) = (BTreeMap::new(), None);
    for (line, text) in text.lines().enumerate() {
        if let Some(comment) = text.strip_prefix('#') {
            since = comment.trim().parse().ok();
        } else if !text.trim().is_empty() {
            let (name, value) = text.split_once('=').ok_or(ConfigError::SecretsUnreadable { line: line + 1 })?;
            entries.insert(name.trim().to_owned(), Entry { value: Secret::new(value), since });
        }
    }
    Ok(entries)
}

/// Enters secrets into `.env_overlay`, and takes those out that are `None`. Blocks.
///
/// # Errors
/// I/O errors, `config_secrets_unreadable`; `config_invalid_value` for one that is no single line.
pub(crate) fn write_secrets(
    folder: &DataFolder,
    changes: &BTreeMap<String, Option<Secret>>,
    now: DateTime<Utc>,
) -> Result<()> {
    let path = folder.env_overlay();
    let mut entries = read_secrets(&path)?;
    let is_line = |text: &str| !text.chars().any(char::is_control);
    for (name, value) in changes {
        if !is_line(name) || value.as_ref().is_some_and(|value| !is_line(value.expose())) {
            let (file, key) = (".env_overlay".to_owned(), crate::ident::printable(name, 80));
            return Err(ConfigError::InvalidValue { file, key, reason: "a secret is one line".to_owned() }.into());
        }
        match value {
            Some(value) => entries.insert(name.clone(), Entry { value: value.clone(), since: Some(now) }),
            None => entries.remove(name),
        };
    }
    let mut text = String::new();
    for (name, entry) in &entries {
        if let Some(since) = entry.since {
            text += &format!("# {}\n", since.to_rfc3339_opts(SecondsFormat::Millis, true));
        } else {
            text += "#\n";
        }
        text += &format!("{name}={}\n", entry.value.expose());
    }
    replace(&path, text.as_bytes(), 0o600)
}

/// Writes a file anew, at once and durably.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let staged = Staged::beside(path)?;
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(mode);
        }
        options.open(staged.path())?.write_all(bytes)
    };
    write().map_err(|e| Error::io("write the configuration", e))?;
    staged.sync()?;
    staged.publish(path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_was_entered_wins_unless_the_file_of_the_process_is_newer() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(root.path());
        let env = |name: &str| (name != "C").then(|| format!("inherited {name}"));
        let now = Utc::now();
        let secret = |text: &str| Some(Secret::new(text));
        let changes = BTreeMap::from([("A".to_owned(), secret("a=b #c")), ("C".to_owned(), secret("c"))]);
        write_secrets(&folder, &changes, now).unwrap();
        let read = |file: Option<&Path>| Environment::load(&folder, env, file).unwrap();
        let plain = read(None);
        assert_eq!(["A", "B", "C"].map(|name| plain.var(name).unwrap()), ["a=b #c", "inherited B", "c"]);
        assert!(!format!("{plain:?}").contains("a=b"));
        let file = root.path().join(".env");
        std::fs::write(&file, "").unwrap();
        let touch = |seconds: i64| {
            let at = SystemTime::from(now).checked_add(Duration::from_secs(1000)).unwrap();
            let at = at - Duration::from_secs(u64::try_from(1000 - seconds).unwrap());
            std::fs::File::open(&file).unwrap().set_modified(at).unwrap();
        };
        touch(-10);
        assert_eq!(read(Some(&file)).var("A").unwrap(), "a=b #c");
        touch(10);
        assert_eq!(read(Some(&file)).var("A").unwrap(), "inherited A");
        // There is nothing else for this one.
        assert_eq!(read(Some(&file)).var("C").unwrap(), "c");
        // Entered again: newer again.
        let later = now + chrono::TimeDelta::seconds(20);
        write_secrets(&folder, &BTreeMap::from([("A".to_owned(), secret("new"))]), later).unwrap();
        assert_eq!(read(Some(&file)).var("A").unwrap(), "new");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(folder.env_overlay().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(folder.env_overlay(), "A=1\nnonsense\n").unwrap();
        let error = Environment::load(&folder, env, None).unwrap_err();
        assert_eq!(error.code(), "config_secrets_unreadable");
        assert!(error.to_string().contains("line 2"));
    }
}

//! What `agnes init` leaves in a folder beside the tables: what an assistant reads, and the hooks
//! that keep the folder fresh.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::Workspace;
use crate::error::{Error, Result};
use crate::extract::fsio::write_atomically;

/// First line of a `CLAUDE.md` that Agnes wrote.
const OURS: &str = "<!-- written by `agnes init` -->";

/// Sends what waits, without keeping the assistant.
const PUSH: &str = "bash -c \"( nohup agnes push --quiet </dev/null >/dev/null 2>&1 & ) ; true\"";

/// Events and the commands that run at them.
const HOOKS: [(&str, &str); 4] = [
    ("SessionStart", "bash -c \"agnes capture-session 2>/dev/null || true\""),
    (
        "SessionStart",
        "bash -c \"agnes self-upgrade --quiet 2>/dev/null || true; agnes pull --quiet 2>/dev/null || true\"",
    ),
    // The one at the end may be killed.
    ("SessionStart", PUSH),
    ("SessionEnd", PUSH),
];

/// What commands of Agnes in hooks look like, those of other versions too.
const MARKS: [&str; 5] = [
    "agnes capture-session",
    "agnes self-upgrade",
    "agnes pull --quiet",
    "agnes push --quiet",
    "agnes refresh-marketplace",
];

const STATUS_LINE: &str = "agnes statusline";

const PRIVATE: &str = include_str!("texts/agnes-private.md");
const NOTES: &str = include_str!("texts/notes.md");
const GUIDE: &str = include_str!("texts/workspace.md");
const ASSISTANT: &str = include_str!("texts/assistant.md");
/// How an `agnes init` was done.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// Address of the server.
    pub server: &'a str,
    /// Version of Agnes.
    pub version: &'a str,
    /// `CLAUDE.md` as the server has it; the one of this version where it has none.
    pub welcome: Option<&'a str>,
    /// When.
    pub now: DateTime<Utc>,
}

/// Why a folder is no place for a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// It is the home folder, a root, or what Agnes itself keeps.
    #[error("this folder is {what}: a workspace needs one of its own")]
    NoPlace {
        /// What it is.
        what: &'static str,
    },
    /// Something of somebody else is in it.
    #[error("this folder is not empty, and not a workspace")]
    NotEmpty,
    /// It is one already.
    #[error("this folder is a workspace already")]
    PartialState,
    /// The files that the server has workspaces begin with are not taken.
    #[error("the files that the server has workspaces begin with are not taken: {reason}")]
    Template {
        /// In words.
        reason: String,
    },
}

impl crate::error::Coded for SetupError {
    fn kind(&self) -> crate::ErrorKind {
        match self {
            Self::PartialState => crate::ErrorKind::Conflict,
            Self::Template { .. } => crate::ErrorKind::DataInvalid,
            _ => crate::ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NoPlace { .. } => "not_a_place_for_a_workspace",
            Self::NotEmpty => "folder_not_empty",
            Self::PartialState => "partial_state",
            Self::Template { .. } => "template_unsafe",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPlace { .. } => "make a folder, and run `agnes init` in it".to_owned(),
            Self::NotEmpty => "use an empty folder, or add `--force`: what is there stays".to_owned(),
            Self::PartialState => "`agnes pull` brings it up to date; `agnes init --force` sets it up again".to_owned(),
            Self::Template { .. } => {
                "take what is in the way out of the folder, or tell an admin of the server".to_owned()
            }
        })
    }
}

impl Workspace {
    /// Whether a workspace may be set up here. One that was begun and not finished is gone on with.
    ///
    /// # Errors
    /// `not_a_place_for_a_workspace`, `folder_not_empty`, `partial_state`.
    pub fn check_place(&self, home: Option<&Path>, kept: &Path, force: bool) -> Result<()> {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let root = real(self.root());
        let what = match &root {
            root if root.parent().is_none() => Some("the root of the file system"),
            root if home.is_some_and(|home| real(home) == *root) => Some("your home folder"),
            root if real(kept) == *root => Some("where Agnes keeps what you signed in with"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(SetupError::NoPlace { what }.into());
        }
        if force {
            return Ok(());
        }
        if self.is_initialized() {
            return Err(SetupError::PartialState.into());
        }
        let is_begun = self.state_file().is_file() || self.is_our_guide();
        let is_empty = std::fs::read_dir(self.root()).map_or(true, |mut entries| entries.next().is_none());
        if is_empty || is_begun { Ok(()) } else { Err(SetupError::NotEmpty.into()) }
    }

    fn is_our_guide(&self) -> bool {
        std::fs::read_to_string(self.root().join("CLAUDE.md")).is_ok_and(|text| text.starts_with(OURS))
    }

    /// Writes everything but the tables, and says last that the workspace is complete; what should be
    /// said about it comes back.
    ///
    /// # Errors
    /// I/O errors.
    pub fn set_up(&self, setup: &Setup<'_>) -> Result<Vec<String>> {
        let mut told = Vec::new();
        let write = |path: &Path, text: &str| -> Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|e| Error::io("make the workspace", e))?;
            }
            write_atomically(path, text.as_bytes())
        };
        let guide = self.root().join("CLAUDE.md");
        if guide.is_file() {
            let kept = self.root().join(format!("CLAUDE.md.bak.{}", setup.now.format("%Y%m%dT%H%M%SZ")));
            std::fs::copy(&guide, &kept).map_err(|e| Error::io("keep the old `CLAUDE.md`", e))?;
            told.push("the old `CLAUDE.md` is kept beside the new one".to_owned());
        }
        let welcome = setup.welcome.unwrap_or(ASSISTANT).replace("{server}", setup.server);
        write(&guide, &format!("{OURS}\n{welcome}"))?;
        told.extend(self.merge_settings()?);
        write(&self.assistant().join("commands").join("agnes-private.md"), PRIVATE)?;
        let notes = self.assistant().join("CLAUDE.local.md");
        if !notes.exists() {
            write(&notes, NOTES)?;
        }
        write(&self.root().join("AGNES_WORKSPACE.md"), &GUIDE.replace("{server}", setup.server))?;
        let done = json!({"completed_at": setup.now, "agnes_version": setup.version, "server_url": setup.server});
        write(&self.sentinel(), &format!("{done:#}\n"))?;
        Ok(told)
    }

    /// Puts the hooks of this version into the settings of the assistant; entries of others stay.
    /// Settings that cannot be read are left alone, and that is said.
    ///
    /// # Errors
    /// I/O errors.
    pub fn merge_settings(&self) -> Result<Option<String>> {
        let path = self.assistant().join("settings.json");
        let mut settings = match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(Value::Object(settings)) => settings,
                _ => {
                    return Ok(Some(
                        "`.claude/settings.json` is no JSON object: it is left alone, without hooks".to_owned(),
                    ));
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let fresh = json!({"model": "sonnet", "permissions": {"allow": ["Read", "Bash", "Grep", "Glob"]}});
                fresh.as_object().cloned().unwrap_or_default()
            }
            Err(e) => return Err(Error::io("read the assistant's settings", e)),
        };
        let before = settings.clone();
        merge_hooks(&mut settings);
        let told = match settings.get("statusLine") {
            None => {
                settings.insert("statusLine".to_owned(), json!({"type": "command", "command": STATUS_LINE}));
                None
            }
            Some(line) if line["command"] == STATUS_LINE => None,
            Some(_) => {
                Some("a status line is set already: `agnes statusline` shows whether a session is private".to_owned())
            }
        };
        if settings != before || !path.is_file() {
            std::fs::create_dir_all(self.assistant()).map_err(|e| Error::io("make the workspace", e))?;
            write_atomically(&path, format!("{:#}\n", Value::Object(settings)).as_bytes())?;
        }
        Ok(told)
    }

    /// Whether hooks of any version are in the assistant's settings.
    #[must_use]
    pub fn has_any_hooks(&self) -> bool {
        let text = std::fs::read_to_string(self.assistant().join("settings.json")).unwrap_or_default();
        MARKS.iter().any(|mark| text.contains(mark))
    }

    /// Whether the hooks of this version are in the assistant's settings.
    #[must_use]
    pub fn has_hooks(&self) -> bool {
        let text = std::fs::read(self.assistant().join("settings.json")).unwrap_or_default();
        let Ok(settings) = serde_json::from_slice::<Value>(&text) else { return false };
        HOOKS.iter().all(|(event, command)| {
            let entries = settings["hooks"][*event].as_array().into_iter().flatten();
            entries
                .flat_map(|entry| entry["hooks"].as_array().into_iter().flatten())
                .any(|hook| hook["command"] == *command)
        })
    }
}

/// Takes hooks of Agnes out and puts those of this version in.
fn merge_hooks(settings: &mut Map<String, Value>) {
    let hooks = settings.entry("hooks").or_insert_with(|| json!({}));
    // Not what the assistant reads: not ours to change.
    let Value::Object(hooks) = hooks else { return };
    let is_ours =
        |hook: &Value| hook["command"].as_str().is_some_and(|text| MARKS.iter().any(|mark| text.contains(mark)));
    for entries in hooks.values_mut().filter_map(Value::as_array_mut) {
        for entry in entries.iter_mut() {
            if let Some(list) = entry["hooks"].as_array_mut() {
                list.retain(|hook| !is_ours(hook));
            }
        }
        entries.retain(|entry| entry["hooks"].as_array().is_none_or(|list| !list.is_empty()));
    }
    for (event, command) in HOOKS {
        let entries = hooks.entry(event).or_insert_with(|| json!([]));
        if let Value::Array(entries) = entries {
            entries.push(json!({"hooks": [{"type": "command", "command": command}]}));
        }
    }
    hooks.retain(|_, entries| entries.as_array().is_none_or(|entries| !entries.is_empty()));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hooks_of_others_stay_and_ours_are_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path()).unwrap();
        let file = workspace.assistant().join("settings.json");
        std::fs::create_dir_all(workspace.assistant()).unwrap();
        let foreign = json!({"hooks": [{"type": "command", "command": "make lint"}]});
        let old = json!({"hooks": [
            {"type": "command", "command": "bash -c \"agnes pull --quiet --old\""}, {"type": "command", "command": "echo hi"},
        ]});
        let settings = json!({
            "model": "opus", "statusLine": {"command": "mine"},
            "hooks": {"SessionStart": [foreign, old], "Stop": [foreign]},
        });
        std::fs::write(&file, settings.to_string()).unwrap();
        assert!(!workspace.has_hooks());
        for _ in 0..2 {
            assert!(workspace.merge_settings().unwrap().is_some(), "a status line was set");
            let now: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            assert!(workspace.has_hooks());
            assert_eq!((&now["model"], &now["statusLine"]["command"]), (&json!("opus"), &json!("mine")));
            assert_eq!(now["hooks"]["Stop"], json!([foreign]));
            let start = now["hooks"]["SessionStart"].to_string();
            assert_eq!(start.matches("agnes pull --quiet").count(), 1, "{start}");
            assert_eq!(
                now["hooks"].to_string().matches("agnes push --quiet").count(),
                2,
                "at the start and at the end"
            );
            assert!(start.contains("make lint") && start.contains("echo hi"), "{start}");
        }
        std::fs::write(&file, "not JSON").unwrap();
        assert!(workspace.merge_settings().unwrap().unwrap().contains("left alone"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "not JSON");
    }

    #[test]
    fn a_workspace_needs_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let check = |path: &Path, force| {
            Workspace::at(path).unwrap().check_place(Some(folder.path()), &kept, force).map_err(|e| e.code().to_owned())
        };
        for path in [Path::new("/"), folder.path(), kept.as_path()] {
            assert_eq!(check(path, true).unwrap_err(), "not_a_place_for_a_workspace", "{}", path.display());
        }
        let place = folder.path().join("place");
        assert_eq!(check(&place, false), Ok(()));
        std::fs::create_dir(&place).unwrap();
        assert_eq!(check(&place, false), Ok(()));
        std::fs::write(place.join("CLAUDE.md"), "mine").unwrap();
        assert_eq!(check(&place, false).unwrap_err(), "folder_not_empty");
        assert_eq!(check(&place, true), Ok(()));
        let workspace = Workspace::at(&place).unwrap();
        let setup = Setup { server: "https://a", version: "1", welcome: None, now: Utc::now() };
        let told = workspace.set_up(&setup).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(check(&place, false).unwrap_err(), "partial_state");
        std::fs::remove_file(workspace.sentinel()).unwrap();
        assert_eq!(check(&place, false), Ok(()), "what was begun is gone on with");
        let kept: Vec<_> = std::fs::read_dir(&place).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(kept.iter().any(|name| name.to_string_lossy().starts_with("CLAUDE.md.bak.")), "{kept:?}");
    }
}

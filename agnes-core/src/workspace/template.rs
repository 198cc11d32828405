//! The files that a server has workspaces begin with, in place of those of `agnes init`.
//!
//! They come as a ZIP archive. It is the server's, and all the same nothing in it may leave the folder:
//! names are plain, links are refused, in the archive and on the way to a file in the folder.

use std::collections::BTreeSet;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Workspace;
use super::setup::{Setup, SetupError};
use crate::error::{Error, Result};
use crate::extract::fsio::write_atomically;
use crate::initial::{TreeFile, is_reserved, plain};

/// Most files.
const MOST_FILES: usize = 10_000;
/// Most bytes of all files together.
const MOST_BYTES: u64 = 256 << 20;

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    files: Vec<TreeFile>,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many took the place of another.
    pub overwritten: u32,
    /// How many are new.
    pub created: u32,
}

impl Template {
    /// The files of an archive. Blocks.
    ///
    /// # Errors
    /// `template_unsafe`: it is none, holds a link or a name that is not plain, or is too large.
    pub fn read(archive: &[u8]) -> Result<Self> {
        let bad = |reason: String| SetupError::Template { reason };
        let broken = |_| bad("it is no ZIP archive, or broken".to_owned());
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).map_err(broken)?;
        if archive.len() > MOST_FILES {
            return Err(bad("it has too many files".to_owned()).into());
        }
        let (mut files, mut names, mut left) = (Vec::new(), BTreeSet::new(), MOST_BYTES);
        for at in 0..archive.len() {
            let mut entry = archive.by_index(at).map_err(broken)?;
            let name = entry.name().map_err(broken)?.into_owned();
            let shown = crate::ident::printable(&name, 120);
            if entry.is_symlink() {
                return Err(bad(format!("`{shown}` is a link")).into());
            }
            if entry.is_dir() {
                continue;
            }
            // An absolute name has a root among its pieces, which is no plain one.
            let path = plain(Path::new(&name)).filter(|path| !is_reserved(path));
            let path = path.ok_or_else(|| bad(format!("`{shown}` is no name of a file here")))?;
            let is_executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
            let mut content = Vec::new();
            entry.by_ref().take(left + 1).read_to_end(&mut content).map_err(|_| bad("it is broken".to_owned()))?;
            left = left.checked_sub(content.len() as u64).ok_or_else(|| bad("it is larger than 256 MiB".to_owned()))?;
            if !names.insert(path.to_lowercase()) {
                return Err(bad(format!("`{shown}` is in it twice")).into());
            }
            files.push(TreeFile { path, is_executable, content });
        }
        Ok(Self { files })
    }

    /// How many files it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl Workspace {
    /// Files here that would be others. Blocks.
    ///
    /// # Errors
    /// `template_unsafe` where a link or something else is in the way; I/O errors.
    pub fn overwritten_by(&self, template: &Template) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for file in &template.files {
            let path = self.place_of(&file.path)?;
            match std::fs::read(&path) {
                Ok(here) if here == file.content => {}
                Ok(_) => found.push(file.path.clone()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read a file of the workspace", e)),
            }
        }
        Ok(found)
    }

    /// Writes the files; those that are here as they should be stay. Blocks.
    ///
    /// # Errors
    /// `template_unsafe`, I/O errors.
    pub fn take(&self, template: &Template) -> Result<Taken> {
        let mut taken = Taken::default();
        for file in &template.files {
            let path = self.place_of(&file.path)?;
            let here = std::fs::read(&path).ok();
            if here.as_deref() != Some(file.content.as_slice()) {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|e| Error::io("make the workspace", e))?;
                }
                write_atomically(&path, &file.content)?;
                let counted = if here.is_some() { &mut taken.overwritten } else { &mut taken.created };
                *counted += 1;
            }
            if file.is_executable {
                let mode = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(&path, mode).map_err(|e| Error::io("make a file executable", e))?;
            }
        }
        Ok(taken)
    }

    /// Says that the workspace is complete, with the files of a repository in place of the usual ones.
    ///
    /// # Errors
    /// I/O errors.
    pub fn set_up_from(&self, setup: &Setup<'_>, source: &str, commit: &str) -> Result<()> {
        std::fs::create_dir_all(self.assistant()).map_err(|e| Error::io("make the workspace", e))?;
        let done = json!({
            "completed_at": setup.now, "agnes_version": setup.version, "server_url": setup.server,
            "override": true, "template_source": source, "template_sha": commit,
        });
        write_atomically(&self.sentinel(), format!("{done:#}\n").as_bytes())
    }

    /// The commit that the workspace began with, where that was not the usual files.
    #[must_use]
    pub fn template_sha(&self) -> Option<String> {
        let text = std::fs::read(self.sentinel()).ok()?;
        let done: serde_json::Value = serde_json::from_slice(&text).ok()?;
        done["template_sha"].as_str().filter(|_| done["override"] == true).map(ToOwned::to_owned)
    }

    /// Where a file is to be: no link leads there, and nothing but a file is there.
    fn place_of(&self, name: &str) -> Result<PathBuf> {
        let (mut path, mut pieces) = (self.root().to_owned(), name.split('/').peekable());
        while let Some(piece) = pieces.next() {
            path.push(piece);
            let is_last = pieces.peek().is_none();
            let fits = match std::fs::symlink_metadata(&path) {
                Ok(meta) => {
                    if is_last {
                        meta.is_file()
                    } else {
                        meta.is_dir()
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
                Err(e) => return Err(Error::io("look at the workspace", e)),
            };
            if !fits {
                let reason = format!("a link, or what is no file, is in the way of `{name}`");
                return Err(SetupError::Template { reason }.into());
            }
        }
        Ok(path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut made = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
            made.start_file(*name, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
            made.write_all(content.as_bytes()).unwrap();
        }
        made.finish().unwrap().into_inner()
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for name in ["../a", "/etc/passwd", "a/../../b", ".claude/init-complete", ".agnes/sync_state.json", "a\\b"] {
            let told = Template::read(&archive(&[("ok", "x"), (name, "x")])).unwrap_err();
            assert_eq!(told.code(), "template_unsafe", "{name}: {told}");
        }
        let mut linked = zip::ZipWriter::new(Cursor::new(Vec::new()));
        linked.add_symlink("a", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        let linked = linked.finish().unwrap().into_inner();
        assert_eq!(Template::read(&linked).unwrap_err().code(), "template_unsafe");
        assert_eq!(Template::read(b"nonsense").unwrap_err().code(), "template_unsafe");
        assert_eq!(Template::read(&archive(&[("a", ""), ("A", "")])).unwrap_err().code(), "template_unsafe");

        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("work"), folder.path().join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("docs")).unwrap();
        std::fs::write(outside.join("mine"), "mine").unwrap();
        std::os::unix::fs::symlink(outside.join("mine"), inside.join("link")).unwrap();
        std::fs::create_dir(inside.join("folder")).unwrap();
        let workspace = Workspace::at(&inside).unwrap();
        for name in ["docs/a.md", "link", "folder"] {
            let template = Template::read(&archive(&[(name, "theirs")])).unwrap();
            assert_eq!(workspace.overwritten_by(&template).unwrap_err().code(), "template_unsafe", "{name}");
            assert_eq!(workspace.take(&template).unwrap_err().code(), "template_unsafe", "{name}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("mine")).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_told_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path()).unwrap();
        let template =
            Template::read(&archive(&[("CLAUDE.md", "new"), ("bin/go.sh", "go"), ("same", "same")])).unwrap();
        std::fs::write(folder.path().join("CLAUDE.md"), "old").unwrap();
        std::fs::write(folder.path().join("same"), "same").unwrap();
        assert_eq!(workspace.overwritten_by(&template).unwrap(), ["CLAUDE.md"]);
        assert_eq!(workspace.take(&template).unwrap(), Taken { overwritten: 1, created: 1 });
        let mode = folder.path().join("bin/go.sh").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(workspace.take(&template).unwrap(), Taken::default(), "once is enough");
        assert_eq!(workspace.template_sha(), None);
        let setup = Setup { server: "https://a", version: "1", welcome: None, now: chrono::Utc::now() };
        workspace.set_up_from(&setup, "https://git.example.com/w.git", "abc").unwrap();
        assert_eq!((workspace.is_initialized(), workspace.template_sha().as_deref()), (true, Some("abc")));
    }
}
